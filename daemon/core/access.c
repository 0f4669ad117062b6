/* Who may: see the header for the model. */

#include "core/access.h"

/* The groups are sorted: there may be 65,536 of them, and an ACL asks for many. */
static bool in_group(const Credentials *who, gid_t gid) {
        size_t from = 0, to = who->n_groups;

        if (who->gid == gid)
                return true;
        while (from < to) {
                size_t middle = from + (to - from) / 2;

                if (who->groups[middle] == gid)
                        return true;
                if (who->groups[middle] < gid)
                        from = middle + 1;
                else
                        to = middle;
        }
        return false;
}

static AccessDecision decide(AccessClass by, uint32_t id, unsigned int perms, unsigned int mask, unsigned int want) {
        unsigned int left = perms & mask & 7;

        return (AccessDecision){
                .allowed = (left & want) == want,
                .by = (uint8_t)by,
                .perms = (uint8_t)left,
                .mask = (uint8_t)(left == (perms & 7) ? 0 : 8 | mask),
                .id = id,
        };
}

/* acl(5), "ACCESS CHECK ALGORITHM", for whoever is not the owner. */
static AccessDecision decide_by_acl(const Credentials *who, const Permissions *what, unsigned int want) {
        AccessDecision decision = { .by = ACCESS_BY_NOBODY };
        unsigned int mask = what->mode >> 3 & 7;
        const Acl *acl = what->acl;

        for (size_t i = 0; i < acl->n; ++i)
                if (acl->entries[i].tag == ACL_USER && acl->entries[i].id == who->uid)
                        return decide(ACCESS_BY_USER, who->uid, acl->entries[i].perms, mask, want);

        if (in_group(who, what->gid))
                decision = decide(ACCESS_BY_GROUP, what->gid, acl->group_perms, mask, want);
        for (size_t i = 0; i < acl->n && !decision.allowed; ++i) {
                const AclEntry *entry = &acl->entries[i];
                AccessDecision other;

                if (entry->tag != ACL_GROUP || !in_group(who, entry->id))
                        continue;
                other = decide(ACCESS_BY_ACL_GROUP, entry->id, entry->perms, mask, want);
                if (other.allowed || decision.by == ACCESS_BY_NOBODY)
                        decision = other;
        }
        if (decision.by != ACCESS_BY_NOBODY)
                return decision;
        return decide(ACCESS_BY_OTHER, 0, what->mode, 7, want);
}

static inline AccessDecision explain(const Credentials *who, const Permissions *what, unsigned int want) {
        if (who->admin)
                return decide(ACCESS_BY_ADMIN, who->uid, 7, 7, want);
        if (who->uid == what->uid)
                return decide(ACCESS_BY_OWNER, what->uid, what->mode >> 6, 7, want);
        if (what->acl)
                return decide_by_acl(who, what, want);
        if (in_group(who, what->gid))
                return decide(ACCESS_BY_GROUP, what->gid, what->mode >> 3, 7, want);
        return decide(ACCESS_BY_OTHER, 0, what->mode, 7, want);
}

AccessDecision access_explain(const Credentials *who, const Permissions *what, unsigned int want) {
        return explain(who, what, want);
}

/* The same code once more, of which the compiler leaves out what only the words are for. */
bool access_allows(const Credentials *who, const Permissions *what, unsigned int want) {
        return explain(who, what, want).allowed;
}

bool access_owns(const Credentials *who, const Permissions *what) {
        return who->admin || who->uid == what->uid;
}

bool access_sticky_allows(const Credentials *who, const Permissions *directory, const Permissions *what) {
        if (!(directory->mode & ACCESS_STICKY))
                return true;
        return access_owns(who, directory) || access_owns(who, what);
}

Permissions permissions_copy(const Permissions *permissions) {
        Permissions copy = *permissions;

        (void)acl_ref(copy.acl);
        return copy;
}

void permissions_deinit(Permissions *permissions) {
        permissions->acl = acl_unref(permissions->acl);
}

void permissions_inherit(Permissions *permissions, const DefaultAcl *of) {
        if (!of->set)
                return;
        permissions_deinit(permissions);
        permissions->mode &= of->mode | ~(mode_t)0777;
        permissions->acl = acl_ref(of->acl);
}

DefaultAcl default_acl_copy(const DefaultAcl *acl) {
        DefaultAcl copy = *acl;

        (void)acl_ref(copy.acl);
        return copy;
}

void default_acl_deinit(DefaultAcl *acl) {
        acl->acl = acl_unref(acl->acl);
        *acl = (DefaultAcl){ .set = false };
}
