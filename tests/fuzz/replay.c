/* The main() of a fuzz target outside a fuzzer: runs it once for every file of its corpus and for
 * the empty input, and fails when there is no corpus or a descriptor is left open.
 *
 * Usage: fuzz-NAME [FILE|FOLDER...]; by default tests/fuzz/corpus/NAME.
 */

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz/fuzz.h"

static size_t n_run;

static size_t count_fds(void) {
        DIR *dir = opendir("/proc/self/fd");
        size_t n = 0;

        FUZZ_REQUIRE(dir);
        while (readdir(dir))
                ++n;
        (void)closedir(dir);
        return n;
}

static int run_file(const char *path, size_t size) {
        uint8_t *data = malloc(size ? size : 1);
        FILE *file = fopen(path, "rbe");
        size_t n = 0;

        if (data && file)
                n = fread(data, 1, size, file);
        if (file)
                (void)fclose(file);
        if (!data || !file || n != size) {
                fprintf(stderr, "cannot read %s\n", path);
                free(data);
                return 1;
        }
        (void)LLVMFuzzerTestOneInput(data, n);
        ++n_run;
        free(data);
        return 0;
}

static int run_path(const char *path) {
        struct dirent *entry;
        struct stat st;
        int failed = 0;
        DIR *dir;

        if (stat(path, &st) < 0) {
                fprintf(stderr, "%s: %s\n", path, strerror(errno));
                return 1;
        }
        if (!S_ISDIR(st.st_mode))
                return run_file(path, (size_t)st.st_size);

        dir = opendir(path);
        FUZZ_REQUIRE(dir);
        while ((entry = readdir(dir))) {
                char name[1024];

                if (entry->d_name[0] == '.')
                        continue;
                (void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
                failed |= run_path(name);
        }
        (void)closedir(dir);
        return failed;
}

int main(int argc, char **argv) {
        const char *source = getenv("SHMD_TEST_SRCDIR");
        size_t n_fds = count_fds();
        char corpus[1024];
        int failed = 0;

        (void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
        if (argc < 2) {
                (void)snprintf(corpus, sizeof(corpus), "%s/tests/fuzz/corpus/%s", source ? source : ".", FUZZ_NAME);
                failed = run_path(corpus);
        }
        for (int i = 1; i < argc; ++i)
                failed |= run_path(argv[i]);

        FUZZ_REQUIRE(count_fds() == n_fds);
        FUZZ_REQUIRE(n_run > 0);
        printf("%s: %zu inputs\n", FUZZ_NAME, n_run);
        return failed;
}
