/* Who holds a region, for people and programs. */
#ifndef CLIENT_CTL_HOLDERS_H
#define CLIENT_CTL_HOLDERS_H

#include "client/ctl/output.h"

/* A table of the grants, how many more there are, and whether these are all. */
void holders_print(Ctl *ctl, const struct shmd_stat_result *result);

/* Adds the same to an object: "holders", "more_holders", "explained", "unexplained". */
void holders_set(Ctl *ctl, json_t *object, const struct shmd_stat_result *result);

#endif
