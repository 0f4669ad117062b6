/* Requests that change the tree: publish, mkdir, rmdir, unlink, chmod, chown. */

#include <string.h>

#include "broker/request.h"
#include "util/error.h"

/* -- publish ---------------------------------------------------------------------------- */

static int check_publish(Request *request, const Region *region, const Spot *spot, uint32_t flags) {
        int r;

        if (region->name)
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
        if (r)
                return r;

        r = region_link(region, &spot, &shortage);
        if (r == REGION_E_QUOTA)
                return request_shortage(request, &shortage, publish->path.data, publish->path.len);
        if (r)
                return error_fold(r);
        r = request_done(request);
        waiters_notify(&request->broker->waiters, publish->path.data, publish->path.len);
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
        r = request_resolve(request, mkdir->path, &spot);
        if (r)
                return r;
        if (spot.node)
                return request_refuse(request, SHMD__ERROR__ERROR_EXISTS, SHMD__REASON__REASON_TAKEN,
                                      spot.path, spot.n_path, "the name is taken");
        r = request_may_change(request, &spot);
        if (r)
                return r;

        r = tree_mkdir(&request->broker->tree, &spot, peer->account, &permissions, &shortage, &directory);
        if (r == TREE_E_QUOTA)
                return request_shortage(request, &shortage, spot.path, spot.n_path);
        if (r)
                return error_fold(r);
        r = request_done(request);
        waiters_notify(&request->broker->waiters, mkdir->path.data, mkdir->path.len);
        return r;
}

int request_rmdir(Request *request) {
        const Shmd__Remove *remove = (const Shmd__Remove *)request->message;
        Spot spot;
        int r;

        r = request_find(request, remove->path, &spot);
        if (r)
                return r;
        if (!node_is_directory(spot.node))
                return request_refuse(request, SHMD__ERROR__ERROR_NOT_DIRECTORY, SHMD__REASON__REASON_TAKEN,
                                      spot.path, spot.n_path, "it is a region, not a directory");
        r = request_may_change(request, &spot);
        if (r)
                return r;
        r = tree_rmdir(&request->broker->tree, node_directory(spot.node));
        if (r == TREE_E_NOT_EMPTY)
                return request_refuse(request, SHMD__ERROR__ERROR_NOT_EMPTY, SHMD__REASON__REASON_TAKEN,
                                      spot.path, spot.n_path, "the directory is not empty");
        return r ? error_fold(r) : request_done(request);
}

int request_unlink(Request *request) {
        const Shmd__Remove *remove = (const Shmd__Remove *)request->message;
        Spot spot;
        int r;

        r = request_find(request, remove->path, &spot);
        if (r)
                return r;
        if (node_is_directory(spot.node))
                return request_refuse(request, SHMD__ERROR__ERROR_IS_DIRECTORY, SHMD__REASON__REASON_TAKEN,
                                      spot.path, spot.n_path, "it is a directory");
        r = request_may_change(request, &spot);
        if (r)
                return r;
        region_unlink(spot.node->region);
        return request_done(request);
}

/* -- permissions -------------------------------------------------------------------------- */

static Permissions *permissions_of(Node *node) {
        return node_is_directory(node) ? &node_directory(node)->permissions : &node->region->permissions;
}

int request_chmod(Request *request) {
        const Shmd__Chmod *chmod = (const Shmd__Chmod *)request->message;
        unsigned int most;
        Spot spot;
        int r;

        r = request_find(request, chmod->path, &spot);
        if (r)
                return r;
        if (!access_owns(&request->peer->who, node_permissions(spot.node)))
                return request_refuse(request, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_OWNER,
                                      spot.path, spot.n_path, "only its owner or an administrator may change its mode");
        most = node_is_directory(spot.node) ? ACCESS_DIRECTORY_MODES : ACCESS_REGION_MODES;
        if (chmod->mode & ~most)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MODE,
                                      spot.path, spot.n_path, "its mode is at most 0%o, not 0%o", most, chmod->mode);

        permissions_of(spot.node)->mode = chmod->mode;
        r = request_done(request);
        if (node_is_directory(spot.node))
                waiters_notify_below(&request->broker->waiters, spot.path, spot.n_path);
        return r;
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
        r = request_done(request);
        if (node_is_directory(spot.node))
                waiters_notify_below(&request->broker->waiters, spot.path, spot.n_path);
        return r;
}
