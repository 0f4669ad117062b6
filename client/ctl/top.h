/* A live table of accounts and regions: what it knows, and how it reads.
 *
 * A *look* is all that the broker says at one time. Rates come from two of them: a region or an account
 * counts the grants it ever gave or got, and the difference by the time between is its rate. What was not
 * there the time before has none.
 *
 * Looking is the caller's (cmd-top.c); a test has looks of its own.
 */
#ifndef CLIENT_CTL_TOP_H
#define CLIENT_CTL_TOP_H

#include "client/ctl/output.h"

typedef enum TopKey {
        TOP_ALLOCATED,
        TOP_SIZE,
        TOP_GRANTS,
        TOP_RATE,
        TOP_USER,
        TOP_NAME,
        _TOP_KEY_N,
} TopKey;

typedef struct TopRegion {
        uint64_t id;
        uid_t uid;
        uint64_t size;
        uint64_t allocated;
        uint64_t grants;        /* on the books */
        uint64_t granted;       /* ever */
        double rate;            /* a second; negative: not known */
        char *name;             /* owned; "" if it has none */
} TopRegion;

typedef struct TopAccount {
        struct shmd_usage usage;
        double rate;
} TopAccount;

typedef struct TopLook {
        uint64_t at_ns;         /* CLOCK_MONOTONIC */
        uint64_t uptime_ns, n_regions_all, n_orphans_all, n_peers;
        char broker[64];        /* version */
        TopAccount total;
        TopAccount *accounts;
        size_t n_accounts;
        TopRegion *regions;
        size_t n_regions;
} TopLook;

void top_add_account(TopLook *look, const struct shmd_usage *usage);
void top_add_region(TopLook *look, const struct shmd_node *node);
void top_look_deinit(TopLook *look);

/* Puts each region in once, whatever number of names it has, and works out rates since an earlier look
 * (which may be empty). Both looks are in the order of region numbers then. */
void top_compare(TopLook *look, const TopLook *before);

/* "allocated"; and the key of that name, -1 for none. */
const char *top_key_name(TopKey key);
int top_key_find(const char *name);

typedef struct TopView {
        const Ctl *ctl;
        TopKey key;
        bool reverse;           /* smallest first; names and users from the end */
        size_t columns;         /* 0: as wide as it gets */
        size_t rows;            /* 0: all of it */
        bool screen;            /* for a terminal: every line clears its rest, and titles stand out */
        bool gone;              /* this is how it was when there still was a broker */
} TopView;

/* Prints a look, sorted. */
void top_print(TopLook *look, const TopView *view, FILE *stream);
json_t *top_json(TopLook *look, const TopView *view);

#endif
