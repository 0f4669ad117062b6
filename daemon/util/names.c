/* The names of kept descriptors: see the header for the model. */

#include "util/names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "util/error.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010      /* Linux 5.1 */
#endif

typedef char Name[FDSTORE_NAME_MAX];

struct Names {
        int fd;
        Name *names;            /* the mapping */
        size_t room;
        size_t end;
        size_t n;
        uint32_t *index;        /* open addressing: 1 + the number, 0 where nothing is */
        size_t mask;            /* entries of the index - 1; at least half of them are free */
};

/* -- the index -------------------------------------------------------------------------- */

/* FNV-1a: names are short, and whoever could choose bad ones would slow only its own keeper. */
static size_t place_of(const Names *names, const char *name) {
        uint64_t hash = UINT64_C(0xcbf29ce484222325);

        while (*name)
                hash = (hash ^ (uint8_t)*name++) * UINT64_C(0x100000001b3);
        return (size_t)(hash ^ hash >> 32) & names->mask;
}

/* The place where a name is, or where it would be. */
static size_t find(const Names *names, const char *name) {
        size_t place = place_of(names, name);

        while (names->index[place] && strcmp(names->names[names->index[place] - 1], name))
                place = (place + 1) & names->mask;
        return place;
}

/* Empties a place, and moves up what was pushed away from there. */
static void vacate(Names *names, size_t hole) {
        for (size_t next = (hole + 1) & names->mask; names->index[next]; next = (next + 1) & names->mask) {
                size_t wanted = place_of(names, names->names[names->index[next] - 1]);

                /* It may move unless the place it wants lies behind the hole. */
                if (((next - wanted) & names->mask) < ((next - hole) & names->mask))
                        continue;
                names->index[hole] = names->index[next];
                hole = next;
        }
        names->index[hole] = 0;
}

/* -- the table -------------------------------------------------------------------------- */

int names_fd(const Names *names) {
        return names->fd;
}

size_t names_count(const Names *names) {
        return names->n;
}

size_t names_end(const Names *names) {
        return names->end;
}

int names_put(Names *names, int fd, const char *name) {
        size_t place = find(names, name);

        if (names->index[place])
                return NAMES_E_TAKEN;
        if (fd < 0 || (size_t)fd >= names->room)
                return NAMES_E_RANGE;
        memcpy(names->names[fd], name, strlen(name));
        names->index[place] = (uint32_t)fd + 1;
        ++names->n;
        if ((size_t)fd >= names->end)
                names->end = (size_t)fd + 1;
        return 0;
}

int names_find(const Names *names, const char *name) {
        return (int)names->index[find(names, name)] - 1;
}

int names_take(Names *names, const char *name) {
        size_t place = find(names, name);
        uint32_t found = names->index[place];

        if (!found)
                return -1;
        vacate(names, place);
        memset(names->names[found - 1], 0, sizeof(Name));
        --names->n;
        return (int)found - 1;
}

int names_adopt(Names *names, int fd, size_t n) {
        CLEANUP(freep) Kept *kept = NULL;
        size_t n_kept;
        int r;

        r = names_read(fd, n, &kept, &n_kept);
        for (size_t i = 0; !r && i < n_kept; ++i)
                r = names_put(names, kept[i].fd, kept[i].name);
        return r > 0 ? error_origin(-EINVAL) : r;
}

/* -- reading ---------------------------------------------------------------------------- */

static int read_all(int fd, void *to, size_t n) {
        for (size_t done = 0; done < n;) {
                ssize_t got = pread(fd, (char *)to + done, n - done, (off_t)done);

                if (got < 0 && errno == EINTR)
                        continue;
                if (got <= 0)
                        return error_origin(got < 0 ? -errno : -EINVAL);
                done += (size_t)got;
        }
        return 0;
}

int names_read(int fd, size_t n, Kept **ret, size_t *ret_n) {
        CLEANUP(freep) Name *names = NULL;
        CLEANUP(freep) Kept *kept = NULL;
        size_t n_kept = 0;
        int r;

        names = calloc(n + 1, sizeof(*names));
        kept = calloc(n + 1, sizeof(*kept));
        if (!names || !kept)
                return error_origin(-ENOMEM);
        r = read_all(fd, names, n * sizeof(*names));
        if (r)
                return r;
        for (size_t i = 0; i < n; ++i) {
                if (!*names[i])
                        continue;
                names[i][FDSTORE_NAME_MAX - 1] = '\0';
                memcpy(kept[n_kept].name, names[i], sizeof(Name));
                kept[n_kept++].fd = (int)i;
        }
        *ret = kept;
        kept = NULL;
        *ret_n = n_kept;
        return 0;
}

/* -- life ------------------------------------------------------------------------------- */

static int make_file(Names *names, size_t n) {
        size_t bytes = n * sizeof(Name);
        void *map;

        names->fd = memfd_create("shmd-names", MFD_ALLOW_SEALING);
        if (names->fd < 0 || ftruncate(names->fd, (off_t)bytes) < 0 || fchmod(names->fd, 0600) < 0)
                return error_origin(-errno);
        map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, names->fd, 0);
        if (map == MAP_FAILED)
                return error_origin(-errno);
        names->names = map;
        if (fcntl(names->fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0)
                return error_origin(-errno);
        return 0;
}

Names *names_free(Names *names) {
        if (!names)
                return NULL;
        if (names->names)
                (void)munmap(names->names, names->room * sizeof(Name));
        (void)close_fd(names->fd);
        free(names->index);
        free(names);
        return NULL;
}

int names_new(Names **ret, size_t n) {
        CLEANUP(names_freep) Names *names = NULL;
        size_t places = 16;
        int r;

        names = malloc(sizeof(*names));
        if (!names)
                return error_origin(-ENOMEM);
        while (places < 2 * n)
                places *= 2;
        *names = (Names){ .fd = -1, .room = n, .mask = places - 1 };
        names->index = calloc(places, sizeof(*names->index));
        if (!names->index)
                return error_origin(-ENOMEM);
        r = make_file(names, n);
        if (r)
                return r;
        *ret = names;
        names = NULL;
        return 0;
}
