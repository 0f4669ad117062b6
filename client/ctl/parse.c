/* Text to numbers: see the header for the model. */

#include "buildinfo.h"

#include "client/ctl/parse.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/overflow.h"

/* Reads digits at *text and moves it past them. At least one must be there. */
static int parse_digits(const char **text, uint64_t *ret) {
        const char *at = *text;
        uint64_t value = 0;

        if (!isdigit((unsigned char)*at))
                return -EINVAL;
        for (; isdigit((unsigned char)*at); ++at)
                if (!mul_u64(value, 10, &value) || !add_u64(value, (uint64_t)(*at - '0'), &value))
                        return -EINVAL;

        *text = at;
        *ret = value;
        return 0;
}

int parse_number(const char *text, uint64_t *ret) {
        uint64_t value;
        int r;

        r = parse_digits(&text, &value);
        if (r < 0 || *text)
                return -EINVAL;

        *ret = value;
        return 0;
}

int parse_size(const char *text, uint64_t *ret) {
        static const char units[] = "kmgtpe";
        const char *unit;
        uint64_t value;
        int r;

        r = parse_digits(&text, &value);
        if (r < 0)
                return r;
        if (*text) {
                unit = strchr(units, tolower((unsigned char)*text));
                if (!unit || (text[1] && strcasecmp(text + 1, "ib") != 0))
                        return -EINVAL;
                if (!mul_u64(value, UINT64_C(1) << (10 * (unit - units + 1)), &value))
                        return -EINVAL;
        }

        *ret = value;
        return 0;
}

static const struct {
        const char *name;
        uint64_t ns;
} units[] = {
        { "ns",  UINT64_C(1) },
        { "us",  UINT64_C(1000) },
        { "ms",  UINT64_C(1000000) },
        { "s",   UINT64_C(1000000000) },
        { "min", UINT64_C(60000000000) },
        { "h",   UINT64_C(3600000000000) },
        { "d",   UINT64_C(86400000000000) },
};

static int parse_unit(const char **text, uint64_t *ret_ns) {
        size_t n = strspn(*text, "abcdefghijklmnopqrstuvwxyz");

        for (size_t i = 0; i < sizeof(units) / sizeof(*units); ++i)
                if (strlen(units[i].name) == n && strncmp(*text, units[i].name, n) == 0) {
                        *text += n;
                        *ret_ns = units[i].ns;
                        return 0;
                }
        return -EINVAL;
}

/* The part behind a decimal point, as a fraction of unit; digits below a nanosecond are dropped. */
static uint64_t parse_fraction(const char *digits, size_t n, uint64_t unit) {
        uint64_t value = 0;

        for (size_t i = 0; i < n; ++i) {
                unit /= 10;
                value += (uint64_t)(digits[i] - '0') * unit;
        }
        return value;
}

/* One number with its unit at *text, added to *total. */
static int parse_term(const char **text, uint64_t *total) {
        uint64_t value, unit = UINT64_C(1000000000);
        const char *digits = NULL;
        size_t n_digits = 0;
        int r;

        r = parse_digits(text, &value);
        if (r < 0)
                return r;
        if (**text == '.') {
                digits = *text + 1;
                n_digits = strspn(digits, "0123456789");
                if (n_digits == 0)
                        return -EINVAL;
                *text = digits + n_digits;
        }
        if (**text || *total > 0) {
                r = parse_unit(text, &unit);
                if (r < 0)
                        return r;
        }
        if (!mul_u64(value, unit, &value) ||
            !add_u64(value, parse_fraction(digits, n_digits, unit), &value) ||
            !add_u64(*total, value, total))
                return -EINVAL;
        return 0;
}

int parse_duration(const char *text, uint64_t *ret) {
        uint64_t total = 0;

        if (strcmp(text, "infinity") == 0) {
                *ret = UINT64_MAX;
                return 0;
        }
        do {
                int r;

                r = parse_term(&text, &total);
                if (r < 0)
                        return r;
        } while (*text);

        *ret = total;
        return 0;
}

int parse_mode(const char *text, mode_t max, mode_t *ret) {
        mode_t mode = 0;

        if (!*text || strlen(text) > 5)
                return -EINVAL;
        for (; *text; ++text) {
                if (*text < '0' || *text > '7')
                        return -EINVAL;
                mode = mode * 8 + (mode_t)(*text - '0');
        }
        if (mode > max)
                return -EINVAL;

        *ret = mode;
        return 0;
}

/* A uid or gid as a number; the highest means "none" to every call and is nobody's. */
static int parse_id(const char *text, uint32_t *ret) {
        uint64_t value;
        int r;

        r = parse_number(text, &value);
        if (r < 0 || value >= UINT32_MAX)
                return -EINVAL;

        *ret = (uint32_t)value;
        return 0;
}

int parse_user(const char *text, uid_t *ret) {
        const struct passwd *user = getpwnam(text);

        if (!user)
                return parse_id(text, ret);
        *ret = user->pw_uid;
        return 0;
}

int parse_group(const char *text, gid_t *ret) {
        const struct group *group = getgrnam(text);

        if (!group)
                return parse_id(text, ret);
        *ret = group->gr_gid;
        return 0;
}

int parse_owner(const char *text, uid_t *ret_uid, gid_t *ret_gid) {
        CLEANUP(freep) char *user = NULL;
        const char *colon = strchr(text, ':');
        uid_t uid = (uid_t)-1;
        gid_t gid = (gid_t)-1;
        int r;

        user = colon ? strndup(text, (size_t)(colon - text)) : strdup(text);
        if (!user || (!*user && !colon))
                return -EINVAL;
        if (*user) {
                r = parse_user(user, &uid);
                if (r < 0)
                        return r;
        }
        if (colon) {
                r = parse_group(colon + 1, &gid);
                if (r < 0)
                        return r;
        }

        *ret_uid = uid;
        *ret_gid = gid;
        return 0;
}
