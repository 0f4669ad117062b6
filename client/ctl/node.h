/* How a node of the broker's tree, a directory or a region, reads: in tables, line by line, and
 * as JSON.
 */
#ifndef CLIENT_CTL_NODE_H
#define CLIENT_CTL_NODE_H

#include "client/ctl/output.h"

#define NODE_TEXT_MAX 64

/* "drwxrwxrwt" or "-rw-r-----", as ls(1) has it. */
const char *node_mode(char buffer[static NODE_TEXT_MAX], const struct shmd_node *node);
/* "2026-01-31 12:34", local time; "-" if it is not known. */
const char *node_date(char buffer[static NODE_TEXT_MAX], const struct shmd_node *node);
/* "shrink grow", or "none". */
const char *node_seals(char buffer[static NODE_TEXT_MAX], uint32_t seals);
const char *node_kind(const struct shmd_node *node);
const char *node_lifetime(const struct shmd_node *node);
const char *node_rights(uint32_t rights);

json_t *node_json(const struct shmd_node *node);

#endif
