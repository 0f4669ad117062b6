/* Text from the command line to numbers: whole or not at all, never clamped, never wrapped.
 * Each function returns 0, or -EINVAL and leaves its result alone.
 */
#ifndef CLIENT_CTL_PARSE_H
#define CLIENT_CTL_PARSE_H

#include <stdint.h>
#include <sys/types.h>

/* Decimal digits alone. */
int parse_number(const char *text, uint64_t *ret);

/* Bytes: a decimal number, with K M G T P or E (powers of 1024, also spelt KiB or kib) or none. */
int parse_size(const char *text, uint64_t *ret);

/* Nanoseconds: numbers with ns us ms s min h or d, as in 500ms, 1.5s or 1h30min; a single number
 * without a unit is seconds; "infinity" is UINT64_MAX. */
int parse_duration(const char *text, uint64_t *ret);

/* Octal, at most max. */
int parse_mode(const char *text, mode_t max, mode_t *ret);

/* A user or group, by name or number. */
int parse_user(const char *text, uid_t *ret);
int parse_group(const char *text, gid_t *ret);

/* USER, USER:GROUP or :GROUP; what is not said is (uid_t)-1 or (gid_t)-1. */
int parse_owner(const char *text, uid_t *ret_uid, gid_t *ret_gid);

#endif
