/* The progress bar: see the header for the model. */

#include "buildinfo.h"

#include "client/ctl/progress.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/ctl/output.h"
#include "client/ctl/terminal.h"

#define DRAW_INTERVAL_NS UINT64_C(100000000)

static uint64_t now_ns(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void progress_init(Progress *progress, const Ctl *ctl, const char *what, uint64_t total) {
        *progress = (Progress){
                .ctl = ctl,
                .what = what,
                .total = total,
                .began_ns = now_ns(),
                .enabled = !ctl->quiet && !ctl->json && isatty(STDERR_FILENO) == 1,
        };
}

static void draw_bar(FILE *line, double share, size_t width) {
        size_t filled = (size_t)(share * (double)width);

        fputc('[', line);
        for (size_t i = 0; i < width; ++i)
                fputc(i < filled ? '=' : i == filled ? '>' : ' ', line);
        fputc(']', line);
}

/* The figures first, because they are of nearly constant width; what is left is the bar's. */
static void draw(Progress *progress, uint64_t now) {
        CLEANUP(freep) char *what = output_escape(progress->what, stderr);
        char done[OUTPUT_NUMBER_MAX], total[OUTPUT_NUMBER_MAX], rate[OUTPUT_NUMBER_MAX], figures[128], line[1024];
        double seconds = (double)(now - progress->began_ns) / 1e9;
        size_t width = terminal_size(STDERR_FILENO).columns, used = strlen(what);
        FILE *stream = fmemopen(line, sizeof(line), "w");

        if (!stream)
                return;
        output_human(rate, seconds > 0 ? (uint64_t)((double)progress->done / seconds) : 0);
        output_size(progress->ctl, done, progress->done);
        output_size(progress->ctl, total, progress->total);

        fprintf(stream, "\r");
        if (used + 60 < width)
                fprintf(stream, "%s ", what);
        else
                used = 0;
        if (progress->total) {
                double share = (double)progress->done / (double)progress->total;
                int n = snprintf(figures, sizeof(figures), " %3d%% %s/%s %s/s", (int)(share * 100), done, total, rate);

                if (used + (size_t)n + 10 < width)
                        draw_bar(stream, share, width - used - (size_t)n - 5);
                fprintf(stream, "%s", figures);
        } else {
                fprintf(stream, " %s %s/s", done, rate);
        }
        fprintf(stream, "\x1b[K");
        if (fclose(stream) == 0)
                fputs(line, stderr);
        progress->drawn_ns = now;
}

void progress_advance(Progress *progress, uint64_t n) {
        uint64_t now;

        progress->done += n;
        if (!progress->enabled || (progress->total ? progress->total : progress->done) < PROGRESS_MIN)
                return;
        now = now_ns();
        if (now - progress->drawn_ns >= DRAW_INTERVAL_NS)
                draw(progress, now);
}

void progress_deinit(Progress *progress) {
        if (!progress->drawn_ns)
                return;
        draw(progress, now_ns());
        fputc('\n', stderr);
        progress->drawn_ns = 0;
}
