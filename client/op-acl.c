/* ACLs, got and set: see shmd.h. */

#include "buildinfo.h"

#include "client/acl.h"
#include "client/block.h"
#include "client/client.h"

/* -- get ------------------------------------------------------------------------------ */

static size_t list_decode(Shmd__AclEntry *const *from, size_t n, struct shmd_acl_entry *ret) {
        for (size_t i = 0; i < n; ++i)
                ret[i] = (struct shmd_acl_entry){ .tag = from[i]->tag, .id = from[i]->id, .perms = from[i]->perms };
        return n;
}

static int get_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        const Shmd__AclReply *acl = (const Shmd__AclReply *)reply;
        struct shmd_acl_result **ret = out;
        struct shmd_acl_result *result;
        Block block;

        result = block_new(&block, sizeof(*result) + (acl->n_access + acl->n_defaults) * sizeof(*result->access), 0);
        if (!result)
                return -ENOMEM;
        result->kind = acl->kind;
        result->uid = acl->uid;
        result->gid = acl->gid;
        result->mode = acl->mode;
        result->access = (struct shmd_acl_entry *)(result + 1);
        result->n_access = list_decode(acl->access, acl->n_access, result->access);
        result->defaults = result->access + acl->n_access;
        result->n_defaults = list_decode(acl->defaults, acl->n_defaults, result->defaults);

        *ret = result;
        return 0;
}

static const Op op_get = { .kind = MESSAGE_GET_ACL, .decode = get_decode };

int shmd_acl_get_start(shmd *client, const char *path,
                       uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__GetAcl get = SHMD__GET_ACL__INIT;
        int r;

        r = request_path(client, path, 0, &get.path);
        return r ? r : call_start(client, &op_get, &get.base, timeout_ns, callback, userdata, ret);
}

int shmd_acl_get_finish(shmd_call *call, struct shmd_acl_result **ret) {
        *ret = NULL;
        return call_finish(call, &op_get, ret);
}

int shmd_acl_get(shmd *client, const char *path, struct shmd_acl_result **ret, uint64_t timeout_ns) {
        CallWait wait = { .out = ret };

        *ret = NULL;
        return call_wait(&wait, client,
                         shmd_acl_get_start(client, path, timeout_ns, call_waited, &wait, &wait.call));
}

struct shmd_acl_result *shmd_acl_free(struct shmd_acl_result *result) {
        free(result);
        return NULL;
}

/* -- set ------------------------------------------------------------------------------ */

static const Op op_set = { .kind = MESSAGE_SET_ACL, .changes = 1 };

/* A list on its way out. */
typedef struct Entries {
        Shmd__AclEntry entries[ACL_ENTRIES_MAX];
        Shmd__AclEntry *pointers[ACL_ENTRIES_MAX];
} Entries;

/* Sorts, without losing what is there twice. */
static void sort(AclEntry *entries, size_t n) {
        for (size_t i = 1; i < n; ++i) {
                AclEntry entry = entries[i];
                size_t at = i;

                for (; at > 0 && acl_compare(&entries[at - 1], &entry) > 0; --at)
                        entries[at] = entries[at - 1];
                entries[at] = entry;
        }
}

static int list_encode(shmd *client, const char *path, const struct shmd_acl_entry *from, size_t n, Entries *ret) {
        AclEntry entries[ACL_ENTRIES_MAX];
        AclError error = n > ACL_ENTRIES_MAX ? ACL_TOO_MANY : ACL_OK;

        for (size_t i = 0; !error && i < n; ++i)
                entries[i] = acl_from_public(&from[i]);
        if (!error) {
                sort(entries, n);
                error = acl_check(entries, n);
        }
        if (error)
                return refusal_local(client, -EINVAL, SHMD__REASON__REASON_ACL, 0, path, acl_error_sentence(error));

        for (size_t i = 0; i < n; ++i) {
                shmd__acl_entry__init(&ret->entries[i]);
                ret->entries[i].tag = entries[i].tag;
                ret->entries[i].id = entries[i].id;
                ret->entries[i].perms = entries[i].perms;
                ret->pointers[i] = &ret->entries[i];
        }
        return 0;
}

int shmd_acl_set_start(shmd *client, const char *path, uint32_t flags,
                       const struct shmd_acl_entry *access, size_t n_access,
                       const struct shmd_acl_entry *defaults, size_t n_defaults,
                       uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__SetAcl set = SHMD__SET_ACL__INIT;
        Entries access_entries, default_entries;
        int r;

        set.flags = flags;
        set.n_access = n_access;
        set.access = access_entries.pointers;
        set.n_defaults = n_defaults;
        set.defaults = default_entries.pointers;
        r = request_path(client, path, 0, &set.path);
        /* Without entries the broker decides: of an ACL that is wrong, of a default ACL its end. */
        if (!r && n_access)
                r = list_encode(client, path, access, n_access, &access_entries);
        if (!r && n_defaults)
                r = list_encode(client, path, defaults, n_defaults, &default_entries);
        return r ? r : call_start(client, &op_set, &set.base, timeout_ns, callback, userdata, ret);
}

int shmd_acl_set_finish(shmd_call *call) {
        return call_finish(call, &op_set, NULL);
}

int shmd_acl_set(shmd *client, const char *path, uint32_t flags,
                 const struct shmd_acl_entry *access, size_t n_access,
                 const struct shmd_acl_entry *defaults, size_t n_defaults, uint64_t timeout_ns) {
        CallWait wait = { 0 };

        return call_wait(&wait, client,
                         shmd_acl_set_start(client, path, flags, access, n_access, defaults, n_defaults,
                                            timeout_ns, call_waited, &wait, &wait.call));
}
