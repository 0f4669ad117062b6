/* Everything that a broker has, as it says itself, in one text; and whether that is the kernel's truth.
 *
 * A picture is taken by an administrator, with the requests that anybody has: the whole tree with
 * permissions, ACLs, limits and what they charge; the regions without a name; who holds what; tickets;
 * accounts. What has no meaning for anybody later is left out (numbers of grants, ages, figures since
 * the start), and a region is called by the order in which pictures first had it: so two pictures of
 * brokers that have the same are the same text, also if the one broker took over from the other, or if
 * the same was done again with new regions. `names` is what may change in one step only, at a request's
 * commit; `rest` may lag behind, as when a region that nobody holds any more is on its way out; and
 * `holders` is what the processes have that got something.
 */
#ifndef TESTS_LIB_PICTURE_H
#define TESTS_LIB_PICTURE_H

#include <stdio.h>

#include "lib/client.h"

/* What regions are called, by their numbers. */
typedef struct Album {
        struct AlbumRegion {
                uint64_t id;
                uint64_t created_ns;            /* 0: not known yet */
        } *regions;
        size_t n;
        size_t n_room;
        uint64_t policy;                        /* generation in the first picture, 0: there is none yet */
} Album;

#define ALBUM_NULL { .regions = NULL }

typedef struct Picture {
        char *names;
        char *rest;
        char *holders;
} Picture;

#define PICTURE_NULL { .names = NULL }

void album_deinit(Album *album);
/* Return: what a region is called, 0 for number 0. */
size_t album_call(Album *album, uint64_t region);

/* Takes a picture, in the place of the one there is. */
void picture_take(Picture *picture, Album *album, Client *admin);
void picture_deinit(Picture *picture);
/* Takes a copy, in the place of the one there is. */
void picture_copy(Picture *picture, const Picture *of);
bool picture_equals(const Picture *a, const Picture *b);
/* The lines that only one of two texts has, or that it has more often, at most a dozen. Return: a static
 * string. */
const char *picture_differs(const char *expected, const char *got);

/* An answer as text, by the same rules. To be freed. */
char *picture_answer(Album *album, const ProtobufCMessage *answer);

/* Requires that the broker's books say what the kernel says, waiting until what is on its way out is
 * gone: the sum of what is listed is what is charged, and each region that is listed, and no other, is
 * open once in the broker, and once in its keeper (0: it has none), with its size. Return: how many. */
size_t books_expect(Client *admin, pid_t broker, pid_t keeper);

#endif
