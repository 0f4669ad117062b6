/* Who may: see the header for the model. */

#include "core/access.h"

static bool in_group(const Credentials *who, gid_t gid) {
        if (who->gid == gid)
                return true;
        for (size_t i = 0; i < who->n_groups; ++i)
                if (who->groups[i] == gid)
                        return true;
        return false;
}

bool access_allows(const Credentials *who, const Permissions *what, unsigned int want) {
        unsigned int bits;

        if (who->admin)
                return true;
        if (who->uid == what->uid)
                bits = what->mode >> 6;
        else if (in_group(who, what->gid))
                bits = what->mode >> 3;
        else
                bits = what->mode;
        return (bits & 7 & want) == want;
}

bool access_owns(const Credentials *who, const Permissions *what) {
        return who->admin || who->uid == what->uid;
}

bool access_sticky_allows(const Credentials *who, const Permissions *directory, const Permissions *what) {
        if (!(directory->mode & ACCESS_STICKY))
                return true;
        return access_owns(who, directory) || access_owns(who, what);
}
