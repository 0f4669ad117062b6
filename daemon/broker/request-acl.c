/* Requests about permissions: chmod, chown, get-acl, set-acl. */

#include "broker/request.h"
#include "util/error.h"

static Permissions *permissions_of(Node *node) {
        return node_is_directory(node) ? &node_directory(node)->permissions : &node->region->permissions;
}

/* Answers that the owner, group, mode or ACL of what the spot names has changed. The event's number is used before;
 * whoever waits is told after. */
static int reply_changed(Request *request, const Spot *spot) {
        int r;

        node_touch(spot->node);
        tree_tell_changed(spot->node);
        r = request_done(request);
        if (node_is_directory(spot->node))
                waiters_notify_below(&request->broker->waiters, spot->path, spot->n_path);
        return r;
}

int request_may_set(Request *request, ProtobufCBinaryData path, Spot *ret) {
        int r = request_find(request, path, ret);

        return r ? r : request_need_owner(request, ret->path, ret->n_path, node_permissions(ret->node),
                                          "only its owner or an administrator may change its permissions");
}

/* -- chmod and chown ---------------------------------------------------------------------- */

int request_chmod(Request *request) {
        const Shmd__Chmod *chmod = (const Shmd__Chmod *)request->message;
        unsigned int most;
        Spot spot;
        int r;

        r = request_may_set(request, chmod->path, &spot);
        if (r)
                return r;
        most = node_is_directory(spot.node) ? ACCESS_DIRECTORY_MODES : ACCESS_REGION_MODES;
        if (chmod->mode & ~most)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MODE,
                                      spot.path, spot.n_path, "its mode is at most 0%o, not 0%o", most, chmod->mode);

        permissions_of(spot.node)->mode = chmod->mode;
        return reply_changed(request, &spot);
}

/* Moves what the owner pays to a new owner. */
static int move_charge(Request *request, Node *node, uid_t uid, Shortage *shortage) {
        Account *account;
        int r;

        r = accounts_ref_user(&request->broker->accounts, uid, &account);
        if (r)
                return error_fold(r);
        r = node_is_directory(node) ? directory_chown(node_directory(node), account, shortage) :
                                      region_chown(node->region, account, shortage);
        (void)account_unref(account);
        return r;
}

int request_chown(Request *request) {
        const Shmd__Chown *chown = (const Shmd__Chown *)request->message;
        Permissions *permissions;
        Shortage shortage;
        Spot spot;
        int r;

        r = request_find(request, chown->path, &spot);
        if (r)
                return r;
        if ((chown->set_uid && chown->uid == (uid_t)-1) || (chown->set_gid && chown->gid == (gid_t)-1))
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED,
                                      spot.path, spot.n_path, "there is no user or group of that number");
        permissions = permissions_of(spot.node);
        if (chown->set_uid && chown->uid != permissions->uid && spot.parent) {
                r = move_charge(request, spot.node, chown->uid, &shortage);
                if (r > 0)
                        return request_shortage(request, &shortage, spot.path, spot.n_path);
                if (r)
                        return r;
        }
        if (chown->set_uid)
                permissions->uid = chown->uid;
        if (chown->set_gid)
                permissions->gid = chown->gid;
        return reply_changed(request, &spot);
}

/* -- get-acl ------------------------------------------------------------------------------ */

/* A list on its way out. */
typedef struct Entries {
        Shmd__AclEntry entries[ACL_ENTRIES_MAX];
        Shmd__AclEntry *pointers[ACL_ENTRIES_MAX];
} Entries;

static size_t describe_list(Entries *entries, mode_t mode, const Acl *acl) {
        AclList list;

        acl_join(mode, acl, &list);
        for (size_t i = 0; i < list.n; ++i) {
                shmd__acl_entry__init(&entries->entries[i]);
                entries->entries[i].tag = list.entries[i].tag;
                entries->entries[i].id = list.entries[i].id;
                entries->entries[i].perms = list.entries[i].perms;
                entries->pointers[i] = &entries->entries[i];
        }
        return list.n;
}

int request_get_acl(Request *request) {
        const Shmd__GetAcl *get = (const Shmd__GetAcl *)request->message;
        Shmd__AclReply reply = SHMD__ACL_REPLY__INIT;
        const Permissions *permissions;
        Entries access, defaults;
        Spot spot;
        int r;

        r = request_find(request, get->path, &spot);
        if (r)
                return r;
        permissions = node_permissions(spot.node);
        reply.uid = permissions->uid;
        reply.gid = permissions->gid;
        reply.mode = permissions->mode;
        reply.kind = node_is_directory(spot.node) ? SHMD__NODE_KIND__NODE_DIRECTORY : SHMD__NODE_KIND__NODE_REGION;
        reply.access = access.pointers;
        reply.n_access = describe_list(&access, permissions->mode, permissions->acl);
        if (node_is_directory(spot.node) && node_directory(spot.node)->default_acl.set) {
                const DefaultAcl *of = &node_directory(spot.node)->default_acl;

                reply.defaults = defaults.pointers;
                reply.n_defaults = describe_list(&defaults, of->mode, of->acl);
        }
        return request_reply(request, &reply.base, NULL, 0);
}

/* -- set-acl ------------------------------------------------------------------------------ */

static int refuse_acl(Request *request, const Spot *spot, const char *which, const char *sentence) {
        return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_ACL, spot->path, spot->n_path,
                              "%s%s", which, sentence);
}

/* Checks a list that came and takes it apart. */
static int take_list(Request *request, const Spot *spot, const char *which, Shmd__AclEntry *const *from, size_t n,
                     mode_t *ret_mode, Acl **ret) {
        AclList list = { .n = n };
        AclError error;

        if (n > ACL_ENTRIES_MAX)
                return refuse_acl(request, spot, which, acl_error_sentence(ACL_TOO_MANY));
        for (size_t i = 0; i < n; ++i)
                list.entries[i] = acl_entry(from[i]->tag, from[i]->id, from[i]->perms);
        error = acl_check(list.entries, n);
        if (error)
                return refuse_acl(request, spot, which, acl_error_sentence(error));
        return acl_split(list.entries, n, ret_mode, ret);
}

static int check_set_acl(Request *request, const Shmd__SetAcl *set, Spot *ret) {
        int r;

        r = request_check_flags(request, set->flags, SHMD__ACL_FLAGS__ACL_ACCESS | SHMD__ACL_FLAGS__ACL_DEFAULT);
        if (r)
                return r;
        if (set->flags == 0 || (set->n_access && !(set->flags & SHMD__ACL_FLAGS__ACL_ACCESS)) ||
            (set->n_defaults && !(set->flags & SHMD__ACL_FLAGS__ACL_DEFAULT)))
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED,
                                      set->path.data, set->path.len, "the flags do not say which ACL to set");
        r = request_may_set(request, set->path, ret);
        if (r)
                return r;
        if (set->flags & SHMD__ACL_FLAGS__ACL_DEFAULT && !node_is_directory(ret->node))
                return refuse_acl(request, ret, "", "a region has no default ACL");
        return 0;
}

int request_set_acl(Request *request) {
        const Shmd__SetAcl *set = (const Shmd__SetAcl *)request->message;
        CLEANUP(permissions_deinit) Permissions access = { .acl = NULL };
        CLEANUP(default_acl_deinit) DefaultAcl defaults = { .set = set->n_defaults > 0 };
        Permissions *permissions;
        Spot spot;
        int r;

        r = check_set_acl(request, set, &spot);
        if (!r && set->flags & SHMD__ACL_FLAGS__ACL_ACCESS)
                r = take_list(request, &spot, "", set->access, set->n_access, &access.mode, &access.acl);
        if (!r && defaults.set)
                r = take_list(request, &spot, "the default ACL: ", set->defaults, set->n_defaults,
                              &defaults.mode, &defaults.acl);
        if (r)
                return r;

        permissions = permissions_of(spot.node);
        if (set->flags & SHMD__ACL_FLAGS__ACL_ACCESS) {
                permissions->mode = (permissions->mode & ACCESS_STICKY) | access.mode;
                (void)acl_unref(permissions->acl);
                permissions->acl = acl_ref(access.acl);
        }
        if (set->flags & SHMD__ACL_FLAGS__ACL_DEFAULT) {
                default_acl_deinit(&node_directory(spot.node)->default_acl);
                node_directory(spot.node)->default_acl = default_acl_copy(&defaults);
        }
        return reply_changed(request, &spot);
}
