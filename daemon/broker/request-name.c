/* Requests that change the tree: publish, link, rename, ttl, mkdir, rmdir, unlink. */

#include <string.h>

#include "broker/request.h"
#include "util/error.h"

/* -- names that end ---------------------------------------------------------------------- */

int request_check_ttl(Request *request, uint64_t ttl_ns, ProtobufCBinaryData path) {
        if (ttl_ns > EXPIRY_MAX_NS)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED,
                                      path.data, path.len, "a name lives for a century at most");
        return 0;
}

/* Makes an expiry for a time to live, or NULL for one without end. */
static int make_expiry(Request *request, uint64_t ttl_ns, Expiry **ret) {
        *ret = NULL;
        return ttl_ns ? expiry_new(ret, &request->broker->expiries) : 0;
}

int request_expire(Request *request, Node *node, uint64_t ttl_ns) {
        Expiry *expiry;
        int r;

        r = make_expiry(request, ttl_ns, &expiry);
        if (r)
                return error_fold(r);
        node_expire(node, expiry, time_now() + ttl_ns);
        return 0;
}

int request_ttl(Request *request) {
        const Shmd__Ttl *ttl = (const Shmd__Ttl *)request->message;
        Spot spot;
        int r;

        r = request_check_ttl(request, ttl->ttl_ns, ttl->path);
        if (!r)
                r = request_find(request, ttl->path, &spot);
        if (r)
                return r;
        if (node_is_directory(spot.node))
                return request_refuse(request, SHMD__ERROR__ERROR_IS_DIRECTORY, SHMD__REASON__REASON_TAKEN,
                                      spot.path, spot.n_path, "it is a directory, and only names of regions end");
        if (!access_owns(&request->peer->who, node_permissions(spot.node)))
                return request_refuse(request, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_OWNER,
                                      spot.path, spot.n_path,
                                      "only its owner or an administrator may say when a name of it ends");
        r = request_expire(request, spot.node, ttl->ttl_ns);
        return r ? r : request_done(request);
}

/* -- publish ---------------------------------------------------------------------------- */

static int check_publish(Request *request, const Region *region, const Spot *spot, uint32_t flags) {
        int r;

        if (region->is_bell)
                return request_refuse(request, SHMD__ERROR__ERROR_EXISTS, SHMD__REASON__REASON_HAS_NAME,
                                      spot->path, spot->n_path, "a doorbell goes by the name of its region");

        if (region->names.first)
                return request_refuse(request, SHMD__ERROR__ERROR_EXISTS, SHMD__REASON__REASON_HAS_NAME,
                                      spot->path, spot->n_path, "the region has a name already");
        if (spot->node && node_is_directory(spot->node))
                return request_refuse(request, SHMD__ERROR__ERROR_IS_DIRECTORY, SHMD__REASON__REASON_TAKEN,
                                      spot->path, spot->n_path, "a directory has that name");
        if (spot->node && !(flags & SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE))
                return request_refuse(request, SHMD__ERROR__ERROR_EXISTS, SHMD__REASON__REASON_TAKEN,
                                      spot->path, spot->n_path, "the name is taken");
        r = request_may_change(request, spot);
        return r;
}

int request_publish(Request *request) {
        const Shmd__Publish *publish = (const Shmd__Publish *)request->message;
        CLEANUP(expiry_freep) Expiry *expiry = NULL;
        Shortage shortage;
        Region *region;
        Spot spot;
        int r;

        r = request_check_flags(request, publish->flags, SHMD__PUBLISH_FLAGS__PUBLISH_REPLACE);
        if (!r)
                r = request_own_region(request, publish->region, &region);
        if (!r)
                r = request_resolve(request, publish->path, &spot);
        if (!r)
                r = check_publish(request, region, &spot, publish->flags);
        if (!r)
                r = request_check_ttl(request, publish->ttl_ns, publish->path);
        if (!r)
                r = make_expiry(request, publish->ttl_ns, &expiry);
        if (r)
                return r;

        r = region_link(region, &spot, &shortage);
        if (r == REGION_E_QUOTA)
                return request_shortage(request, &shortage, publish->path.data, publish->path.len);
        if (r)
                return error_fold(r);
        if (expiry)
                node_expire(region_name(region), expiry, time_now() + publish->ttl_ns);
        expiry = NULL;
        r = request_done(request);
        waiters_notify(&request->broker->waiters, publish->path.data, publish->path.len);
        return r;
}

/* -- link and rename ---------------------------------------------------------------------- */

int request_may_link(Request *request, ProtobufCBinaryData path, ProtobufCBinaryData to, Spot *ret, Spot *ret_to) {
        int r;

        r = request_find(request, path, ret);
        if (!r)
                r = request_resolve(request, to, ret_to);
        if (r)
                return r;
        if (node_is_directory(ret->node))
                return request_refuse(request, SHMD__ERROR__ERROR_IS_DIRECTORY, SHMD__REASON__REASON_TAKEN,
                                      ret->path, ret->n_path, "it is a directory");
        /* Whoever gives a region one more name keeps it alive at its owner's expense. */
        r = request_need_owner(request, ret->path, ret->n_path, &ret->node->region->permissions,
                               "only its owner or an administrator may give it one more name");
        if (r)
                return r;
        if (ret_to->node)
                return request_refuse(request, SHMD__ERROR__ERROR_EXISTS, SHMD__REASON__REASON_TAKEN,
                                      ret_to->path, ret_to->n_path, "the name is taken");
        return request_may_change(request, ret_to);
}

int request_link(Request *request) {
        const Shmd__Link *link = (const Shmd__Link *)request->message;
        Spot from, to;
        Shortage shortage;
        int r;

        r = request_may_link(request, link->path, link->to, &from, &to);
        if (r)
                return r;
        r = region_link(from.node->region, &to, &shortage);
        if (r == REGION_E_QUOTA)
                return request_shortage(request, &shortage, to.path, to.n_path);
        if (r)
                return error_fold(r);
        r = request_done(request);
        waiters_notify(&request->broker->waiters, link->to.data, link->to.len);
        return r;
}

static int refuse_rename(Request *request, int r, const Spot *from, const Spot *to, const Shortage *shortage) {
        switch (r) {
        case TREE_E_QUOTA:
                return request_shortage(request, shortage, to->path, to->n_path);
        case TREE_E_EXISTS:
                return request_refuse(request, SHMD__ERROR__ERROR_EXISTS, SHMD__REASON__REASON_TAKEN,
                                      to->path, to->n_path, "the name is taken");
        case TREE_E_NOT_EMPTY:
                return request_refuse(request, SHMD__ERROR__ERROR_NOT_EMPTY, SHMD__REASON__REASON_TAKEN,
                                      to->path, to->n_path, "the directory is not empty");
        case TREE_E_NOT_DIRECTORY:
                return request_refuse(request, SHMD__ERROR__ERROR_NOT_DIRECTORY, SHMD__REASON__REASON_TAKEN,
                                      to->path, to->n_path, "a directory cannot replace a region");
        case TREE_E_IS_DIRECTORY:
                return request_refuse(request, SHMD__ERROR__ERROR_IS_DIRECTORY, SHMD__REASON__REASON_TAKEN,
                                      to->path, to->n_path, "a region cannot replace a directory");
        case TREE_E_INSIDE:
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_INSIDE,
                                      to->path, to->n_path, "a directory cannot go below itself");
        case TREE_E_TOO_LONG:
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_NAME,
                                      to->path, to->n_path, "a name below it would be too long or too deep");
        case TREE_E_MISSING:
                audit_tree(&request->refusal, r, to, false);
                return REQUEST_E_REFUSED;
        default:
                audit_tree(&request->refusal, r, from, false);
                return REQUEST_E_REFUSED;
        }
}

/* A name has appeared at a path, and if it is a directory, names below it. */
static void notify_moved(Request *request, const Spot *spot, const Node *node) {
        waiters_notify(&request->broker->waiters, spot->path, spot->n_path);
        if (node_is_directory(node))
                waiters_notify_below(&request->broker->waiters, spot->path, spot->n_path);
}

/* Finds both ends of a rename, each of which loses or gets a name. */
static int find_moved(Request *request, ProtobufCBinaryData path, ProtobufCBinaryData to, Spot *ret, Spot *ret_to) {
        int r;

        r = request_find(request, path, ret);
        if (!r)
                r = request_resolve(request, to, ret_to);
        if (!r)
                r = request_may_change(request, ret);
        return r ? r : request_may_change(request, ret_to);
}

static int check_rename(Request *request, const Shmd__Rename *rename, Spot *from, Spot *to) {
        int r;

        r = request_check_flags(request, rename->flags,
                                SHMD__RENAME_FLAGS__RENAME_REPLACE | SHMD__RENAME_FLAGS__RENAME_EXCHANGE);
        if (r)
                return r;
        if (rename->flags == (SHMD__RENAME_FLAGS__RENAME_REPLACE | SHMD__RENAME_FLAGS__RENAME_EXCHANGE))
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_FLAGS, NULL, 0,
                                      "replace or exchange, not both");
        return find_moved(request, rename->path, rename->to, from, to);
}

int request_may_move(Request *request, ProtobufCBinaryData path, ProtobufCBinaryData to) {
        Shortage shortage;
        Spot from, free;
        int r;

        r = find_moved(request, path, to, &from, &free);
        if (r)
                return r;
        r = tree_may_move(&request->broker->tree, &from, &free, &shortage);
        return r > 0 ? refuse_rename(request, r, &from, &free, &shortage) : error_fold(r);
}

int request_rename(Request *request) {
        const Shmd__Rename *rename = (const Shmd__Rename *)request->message;
        TreeRename how = rename->flags & SHMD__RENAME_FLAGS__RENAME_EXCHANGE ? TREE_RENAME_EXCHANGE :
                         rename->flags & SHMD__RENAME_FLAGS__RENAME_REPLACE ? TREE_RENAME_REPLACE :
                                                                              TREE_RENAME_FREE;
        Shortage shortage;
        Region *replaced;
        Spot from, to;
        int r;

        r = check_rename(request, rename, &from, &to);
        if (r)
                return r;
        r = tree_rename(&request->broker->tree, &from, &to, how, &shortage, &replaced);
        if (r)
                return r < 0 ? error_fold(r) : refuse_rename(request, r, &from, &to, &shortage);
        if (replaced)
                region_lost_name(replaced);
        r = request_done(request);
        notify_moved(request, &to, from.node);
        if (how == TREE_RENAME_EXCHANGE)
                notify_moved(request, &from, to.node);
        return r;
}

/* -- directories -------------------------------------------------------------------------- */

int request_mkdir(Request *request) {
        const Shmd__Mkdir *mkdir = (const Shmd__Mkdir *)request->message;
        const Peer *peer = request->peer;
        Permissions permissions = { .uid = peer->cred.uid, .gid = peer->cred.gid, .mode = mkdir->mode };
        Directory *directory;
        Shortage shortage;
        Spot spot;
        int r;

        if (mkdir->mode & ~ACCESS_DIRECTORY_MODES)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MODE,
                                      mkdir->path.data, mkdir->path.len,
                                      "a directory's mode is at most 01777, not 0%o", mkdir->mode);
        r = request_may_make(request, mkdir->path, &spot);
        if (r)
                return r;

        r = tree_mkdir(&request->broker->tree, &spot, peer->account, &permissions, &shortage, &directory);
        if (r == TREE_E_QUOTA)
                return request_shortage(request, &shortage, spot.path, spot.n_path);
        if (r)
                return error_fold(r);
        directory_inherit(directory);
        r = request_done(request);
        waiters_notify(&request->broker->waiters, mkdir->path.data, mkdir->path.len);
        return r;
}

int request_may_rmdir(Request *request, ProtobufCBinaryData path, Spot *ret) {
        int r;

        r = request_find(request, path, ret);
        if (r)
                return r;
        if (!node_is_directory(ret->node))
                return request_refuse(request, SHMD__ERROR__ERROR_NOT_DIRECTORY, SHMD__REASON__REASON_TAKEN,
                                      ret->path, ret->n_path, "it is a region, not a directory");
        r = request_may_change(request, ret);
        if (!r && node_directory(ret->node)->n_children)
                return request_refuse(request, SHMD__ERROR__ERROR_NOT_EMPTY, SHMD__REASON__REASON_TAKEN,
                                      ret->path, ret->n_path, "the directory is not empty");
        return r;
}

int request_rmdir(Request *request) {
        const Shmd__Remove *remove = (const Shmd__Remove *)request->message;
        Spot spot;
        int r;

        r = request_may_rmdir(request, remove->path, &spot);
        if (r)
                return r;
        r = tree_rmdir(&request->broker->tree, node_directory(spot.node));
        return r ? error_fold(r) : request_done(request);
}

int request_may_unlink(Request *request, ProtobufCBinaryData path, Spot *ret) {
        int r;

        r = request_find(request, path, ret);
        if (r)
                return r;
        if (node_is_directory(ret->node))
                return request_refuse(request, SHMD__ERROR__ERROR_IS_DIRECTORY, SHMD__REASON__REASON_TAKEN,
                                      ret->path, ret->n_path, "it is a directory");
        return request_may_change(request, ret);
}

int request_unlink(Request *request) {
        const Shmd__Remove *remove = (const Shmd__Remove *)request->message;
        Spot spot;
        int r;

        r = request_may_unlink(request, remove->path, &spot);
        if (r)
                return r;
        region_unlink_name(spot.node);
        return request_done(request);
}
