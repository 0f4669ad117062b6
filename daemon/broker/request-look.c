/* Requests that look: stat, list, df, stats, doctor. */

#include <string.h>

#include "acct/quota.h"
#include "base/assert.h"
#include "broker/request.h"
#include "util/error.h"
#include "util/log.h"
#include "util/memfd.h"
#include "util/probe.h"

/* -- nodes ------------------------------------------------------------------------------ */

void request_describe(const Node *node, Region *region, char *path, Shmd__Node *ret) {
        const Permissions *permissions = region ? &region->permissions : node_permissions(node);

        shmd__node__init(ret);
        if (node)
                ret->path = (ProtobufCBinaryData){ .data = (uint8_t *)path, .len = tree_path(node, path) };
        ret->uid = permissions->uid;
        ret->gid = permissions->gid;
        ret->mode = permissions->mode;
        ret->acl = permissions->acl != NULL;
        if (!region) {
                const Directory *directory = (const Directory *)node;

                ret->kind = SHMD__NODE_KIND__NODE_DIRECTORY;
                ret->acl |= directory->default_acl.set;
                ret->entries = directory->n_children;
                ret->created_ns = directory->created_ns;
                return;
        }
        ret->kind = SHMD__NODE_KIND__NODE_REGION;
        ret->region = region->id;
        ret->size = region->size;
        ret->charge = region_charged(region);
        ret->lifetime = region->lifetime;
        ret->huge_page_size = region->huge_shift;
        ret->freezable = region->freezable;
        ret->seals = region_seals(region);
        ret->created_ns = region->created_ns;
        ret->grants = region->grants.n;
        ret->granted = region->grants.granted;
        ret->names = region_n_names(region);
        ret->bell = region_page(region) ? region_page(region)->id : 0;
        ret->ttl_ns = node ? expiry_left(node->expiry) : 0;
}

/* -- stat ------------------------------------------------------------------------------- */

/* Holders one stat shows: as many as can be marked, so that the answer costs a bounded walk. */
#define HOLDERS_MAX GRANT_MARKS_MAX

/* Names one stat shows, names it looks at for them, and bytes of them. */
#define NAMES_MAX 64
#define NAMES_STEPS 256
#define NAMES_BYTES (48U << 10)

/* What a stat answers with beside the node. */
typedef struct Looked {
        Shmd__Holder holders[HOLDERS_MAX];
        Shmd__Holder *pointers[HOLDERS_MAX];
        ProtobufCBinaryData names[NAMES_MAX];
} Looked;

/* Lists the grants on the books. */
static size_t describe_holders(Region *region, Shmd__Holder *holders, Shmd__Holder **pointers) {
        uint64_t now = time_now();
        Grant *grant;
        size_t n = 0;

        list_for_each(grant, &region->grants.list, Grant, in_region) {
                Shmd__Holder *at = &holders[n];

                if (n == HOLDERS_MAX)
                        break;
                pointers[n++] = at;
                shmd__holder__init(at);
                at->grant = grant->id;
                at->uid = grant->uid;
                at->pid = (uint32_t)grant->pid;
                at->rights = grant->writable ? SHMD__RIGHTS__RIGHTS_READ_WRITE : SHMD__RIGHTS__RIGHTS_READ_ONLY;
                at->age_ns = now - grant->born;
                at->pidfd_ino = grant->pidfd_ino;
                at->marked = grant->marked;
                at->ticket = grant->ticket;
                at->connected = grant->grants->connected(grant->session, grant->grants->userdata);
        }
        return n;
}

static uint32_t explained(RegionHeld held) {
        switch (held) {
        case REGION_HELD_NOT:
                return SHMD__EXPLAINED__EXPLAINED_NOBODY;
        case REGION_HELD_BY_GRANTS:
                return SHMD__EXPLAINED__EXPLAINED_GRANTS;
        case REGION_HELD_BY_OTHERS:
                return SHMD__EXPLAINED__EXPLAINED_NO;
        case REGION_HELD_UNKNOWN:
        default:
                return SHMD__EXPLAINED__EXPLAINED_UNKNOWN;
        }
}

/* Who holds it; what is found dead goes off the books first. */
static void stat_holders(Region *region, Looked *looked, Shmd__StatReply *reply) {
        reply->explained = explained(region_grants_held(region));
        reply->n_holders = describe_holders(region, looked->holders, looked->pointers);
        reply->holders = looked->pointers;
        reply->more = region->grants.n - reply->n_holders;
}

/* Its names that the asker may find: the others are only counted. */
static int stat_names(Request *request, const Region *region, Looked *looked, Shmd__StatReply *reply) {
        char *paths = arena_alloc(request->broker->arena, NAMES_BYTES + PATH_BYTES_MAX);
        const Node *name;
        size_t used = 0, steps = 0;

        if (!paths)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_PACKET, NULL, 0,
                                      "the request leaves no room for its answer");
        reply->names = looked->names;
        ring_for_each(name, &region->names, Node, in_region) {
                ProtobufCBinaryData *at = &looked->names[reply->n_names];

                if (reply->n_names == NAMES_MAX || steps++ == NAMES_STEPS || used >= NAMES_BYTES)
                        break;
                if (!tree_may_find(name, &request->peer->who))
                        continue;
                *at = (ProtobufCBinaryData){ .data = (uint8_t *)paths + used, .len = tree_path(name, paths + used) };
                used += at->len;
                ++reply->n_names;
        }
        return 0;
}

const Node *request_name_of(const Peer *peer, const Region *region) {
        const Node *name;
        size_t steps = 0;

        ring_for_each(name, &region->names, Node, in_region) {
                if (steps++ == NAMES_STEPS)
                        break;
                if (tree_may_find(name, &peer->who))
                        return name;
        }
        return NULL;
}

static int stat_reply(Request *request, const Node *node, Region *region, uint32_t flags) {
        Shmd__StatReply reply = SHMD__STAT_REPLY__INIT;
        char path[PATH_BYTES_MAX];
        Shmd__Node description;
        Looked looked;
        int r = 0;

        if (region && flags & SHMD__STAT_FLAGS__STAT_HOLDERS)
                stat_holders(region, &looked, &reply);
        if (region && flags & SHMD__STAT_FLAGS__STAT_NAMES)
                r = stat_names(request, region, &looked, &reply);
        if (r)
                return r;

        request_describe(node, region, path, &description);
        reply.node = &description;
        if (region) {
                int probed = memfd_probe(region->fd);

                reply.held = probed == MEMFD_E_HELD;
                reply.held_known = probed >= 0;
                description.allocated = memfd_allocated(region->fd);
        }
        return request_reply(request, &reply.base, NULL, 0);
}

/* Who works with whom is for those who may work with it. */
int request_may_see_holders(Request *request, ProtobufCBinaryData path, Spot *ret) {
        const Permissions *permissions;
        int r = request_find(request, path, ret);

        if (r || node_is_directory(ret->node))
                return r;
        permissions = node_permissions(ret->node);
        if (access_owns(request->who, permissions)) {
                why_owner(request->why, SHMD__REASON__REASON_REGION_READ, ret->path, ret->n_path, permissions,
                          request->who, true);
                return 0;
        }
        return request_need_access(request, SHMD__REASON__REASON_REGION_READ, ret->path, ret->n_path, permissions,
                                   ACCESS_READ, "only its owner, and who may read it, may see who holds it");
}

int request_stat(Request *request) {
        const Shmd__Stat *stat = (const Shmd__Stat *)request->message;
        Spot spot;
        int r;

        r = request_check_flags(request, stat->flags,
                                SHMD__STAT_FLAGS__STAT_HOLDERS | SHMD__STAT_FLAGS__STAT_NAMES);
        if (r)
                return r;
        if (stat->region != 0 && stat->path.len != 0)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "a name or a number, not both");
        if (stat->region != 0) {
                Region *region;

                r = request_own_region(request, stat->region, &region);
                return r ? r : stat_reply(request, request_name_of(request->peer, region), region, stat->flags);
        }
        r = stat->flags & SHMD__STAT_FLAGS__STAT_HOLDERS ? request_may_see_holders(request, stat->path, &spot) :
                                                           request_find(request, stat->path, &spot);
        return r ? r : stat_reply(request, spot.node, spot.node->region, stat->flags);
}

/* -- list ------------------------------------------------------------------------------- */

/* Nodes of one page: few enough that a page is a small part of a millisecond. */
#define LIST_MAX 256
/* What a node takes on the wire besides its path, generously. */
#define LIST_NODE_BYTES 192
/* Regions one page of a list of orphans looks at: most may be named, or somebody else's. */
#define LIST_STEPS 512

static int list_begin(Request *request, const Shmd__List *list, Directory *base, Node **ret) {
        int r;

        if (list->cursor.len == 0) {
                *ret = tree_list_first(base);
                return 0;
        }
        r = tree_list_after(base, &request->peer->who, list->flags & SHMD__LIST_FLAGS__LIST_RECURSIVE,
                            list->path.data, list->path.len, list->cursor.data, list->cursor.len, ret);
        if (r)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED,
                                      list->path.data, list->path.len, "the cursor is not of this list");
        return 0;
}

static int list_page(Request *request, const Shmd__List *list, Directory *base, Node *node) {
        Shmd__ListReply reply = SHMD__LIST_REPLY__INIT;
        size_t most = list->limit && list->limit < LIST_MAX ? list->limit : LIST_MAX;
        Shmd__Node nodes[LIST_MAX], *pointers[LIST_MAX];
        size_t room = WIRE_REPLY_MAX - sizeof(WireHeader) - LIST_NODE_BYTES - PATH_BYTES_MAX;
        char *paths;

        paths = arena_alloc(request->broker->arena, room + PATH_BYTES_MAX);
        if (!paths)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_PACKET, NULL, 0,
                                      "the request leaves no room for its answer");
        reply.sequence = request->broker->events.sequence;
        reply.nodes = pointers;
        while (node && reply.n_nodes < most && room >= LIST_NODE_BYTES + PATH_BYTES_MAX) {
                Shmd__Node *at = &nodes[reply.n_nodes];

                request_describe(node, node->region, paths, at);
                if (node->region && list->flags & SHMD__LIST_FLAGS__LIST_USAGE)
                        at->allocated = memfd_allocated(node->region->fd);
                paths += at->path.len;
                room -= at->path.len + LIST_NODE_BYTES;
                pointers[reply.n_nodes++] = at;
                node = tree_list_next(base, &request->peer->who, list->flags & SHMD__LIST_FLAGS__LIST_RECURSIVE, node);
        }
        if (node && reply.n_nodes)
                reply.cursor = nodes[reply.n_nodes - 1].path;
        return request_reply(request, &reply.base, NULL, 0);
}

/* Regions without a name, of the asker or for an administrator of everybody, in the order of their
 * numbers. A page may have none of them and still not be the last. */
static int list_orphans(Request *request, const Shmd__List *list) {
        Shmd__ListReply reply = SHMD__LIST_REPLY__INIT;
        Regions *regions = &request->broker->regions;
        size_t most = list->limit && list->limit < LIST_MAX ? list->limit : LIST_MAX;
        Shmd__Node nodes[LIST_MAX], *pointers[LIST_MAX];
        Region *region = regions_after(regions, list->orphan);

        reply.nodes = pointers;
        for (size_t n = 0; region && reply.n_nodes < most && n < LIST_STEPS; ++n) {
                reply.orphan = region->id;
                if (region->state == REGION_STATE_ORPHAN && access_owns(&request->peer->who, &region->permissions)) {
                        Shmd__Node *at = &nodes[reply.n_nodes];

                        request_describe(NULL, region, NULL, at);
                        if (list->flags & SHMD__LIST_FLAGS__LIST_USAGE)
                                at->allocated = memfd_allocated(region->fd);
                        pointers[reply.n_nodes++] = at;
                }
                region = regions_after(regions, region->id);
        }
        if (!region)
                reply.orphan = 0;
        return request_reply(request, &reply.base, NULL, 0);
}

static int check_list(Request *request, const Shmd__List *list) {
        const uint32_t orphans = SHMD__LIST_FLAGS__LIST_ORPHANS, recursive = SHMD__LIST_FLAGS__LIST_RECURSIVE;
        int r = request_check_flags(request, list->flags, recursive | orphans | SHMD__LIST_FLAGS__LIST_USAGE);

        if (r)
                return r;
        if (list->flags & orphans ? list->path.len || list->cursor.len || list->flags & recursive : list->orphan)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "what has no name is listed by number, and what has one by name");
        return 0;
}

int request_may_list(Request *request, ProtobufCBinaryData path, Spot *ret) {
        int r = request_find(request, path, ret);

        if (r)
                return r;
        if (!node_is_directory(ret->node))
                return request_refuse(request, SHMD__ERROR__ERROR_NOT_DIRECTORY, SHMD__REASON__REASON_TAKEN,
                                      ret->path, ret->n_path, "it is a region, not a directory");
        return request_need_access(request, SHMD__REASON__REASON_DIRECTORY_READ, ret->path, ret->n_path,
                                   node_permissions(ret->node), ACCESS_READ | ACCESS_SEARCH,
                                   "no read and search permission on the directory");
}

int request_list(Request *request) {
        const Shmd__List *list = (const Shmd__List *)request->message;
        Directory *base;
        Node *node;
        Spot spot;
        int r;

        r = check_list(request, list);
        if (!r && list->flags & SHMD__LIST_FLAGS__LIST_ORPHANS)
                return list_orphans(request, list);
        if (!r)
                r = request_may_list(request, list->path, &spot);
        if (r)
                return r;
        base = node_directory(spot.node);
        r = list_begin(request, list, base, &node);
        return r ? r : list_page(request, list, base, node);
}

/* -- df --------------------------------------------------------------------------------- */

#define DF_ACCOUNTS_MAX 64

typedef struct Usage {
        Shmd__AccountUse use;
        Shmd__SlotUse slots[_ACCOUNT_SLOT_N];
        Shmd__SlotUse *pointers[_ACCOUNT_SLOT_N];
} Usage;

/* account: whose use it is; NULL: of nobody yet. */
static void describe_usage(Usage *usage, const uint64_t *max, const Account *account, uid_t uid, unsigned int n_slots) {
        shmd__account_use__init(&usage->use);
        usage->use.granted = account ? account->granted : 0;
        usage->use.uid = uid;
        usage->use.n_slots = n_slots;
        usage->use.slots = usage->pointers;
        for (unsigned int i = 0; i < n_slots; ++i) {
                shmd__slot_use__init(&usage->slots[i]);
                usage->slots[i].slot = i + 1;
                usage->slots[i].limit = max[i];
                usage->slots[i].used = account ? account->used[i] : 0;
                usage->pointers[i] = &usage->slots[i];
        }
}

/* Which rules gave a user its limits. */
static void describe_rules(Usage *usage, Accounts *accounts, const Account *account, uid_t uid) {
        AccountRule rules[_ACCOUNT_SLOT_N];
        uint64_t max[_ACCOUNT_SLOT_N];

        accounts_limits_of(accounts, uid, max, rules);
        for (unsigned int i = 0; i < _ACCOUNT_SLOT_N; ++i) {
                usage->slots[i].rule = rules[i];
                if (rules[i] == ACCOUNT_RULE_POLICY_GROUP)
                        usage->use.group = account->group;
        }
}

static int df_one(Request *request, const uint64_t *max, const Account *account, uid_t uid, unsigned int n_slots) {
        Shmd__DfReply reply = SHMD__DF_REPLY__INIT;
        Shmd__AccountUse *pointer;
        Usage usage;

        describe_usage(&usage, max, account, uid, n_slots);
        pointer = &usage.use;
        reply.n_accounts = 1;
        reply.accounts = &pointer;
        return request_reply(request, &reply.base, NULL, 0);
}

static int df_account(Request *request, const Shmd__Df *df) {
        Accounts *accounts = &request->broker->accounts;
        uid_t uid = df->set_uid ? df->uid : request->peer->cred.uid;
        Shmd__DfReply reply = SHMD__DF_REPLY__INIT;
        uint64_t max[_ACCOUNT_SLOT_N];
        Shmd__AccountUse *pointer;
        const Account *account;
        Usage usage;

        if (uid != request->peer->cred.uid && !request->peer->who.admin)
                return request_refuse(request, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_ADMIN, NULL, 0,
                                      "only an administrator may look at another user's account");
        account = accounts_find_user(accounts, uid);
        accounts_limits_of(accounts, uid, max, NULL);
        describe_usage(&usage, max, account, uid, _ACCOUNT_SLOT_N);
        describe_rules(&usage, accounts, account, uid);
        pointer = &usage.use;
        reply.n_accounts = 1;
        reply.accounts = &pointer;
        return request_reply(request, &reply.base, NULL, 0);
}

/* Directories limit what is named below them: bytes and regions, the first two slots. */
#define DF_DIRECTORY_SLOTS (ACCOUNT_REGIONS + 1)

static int df_directory(Request *request, const Shmd__Df *df) {
        const Directory *directory;
        Spot spot;
        int r;

        r = request_find(request, df->path, &spot);
        if (r)
                return r;
        if (!node_is_directory(spot.node))
                return request_refuse(request, SHMD__ERROR__ERROR_NOT_DIRECTORY, SHMD__REASON__REASON_TAKEN,
                                      spot.path, spot.n_path, "it is a region, not a directory");
        directory = node_directory(spot.node);
        return df_one(request, directory->account->max, directory->account, directory->permissions.uid,
                      DF_DIRECTORY_SLOTS);
}

static int df_accounts(Request *request, const Shmd__Df *df) {
        Shmd__DfReply reply = SHMD__DF_REPLY__INIT;
        Shmd__AccountUse *pointers[DF_ACCOUNTS_MAX];
        Usage usages[DF_ACCOUNTS_MAX];
        Account *account;

        if (!request->peer->who.admin)
                return request_refuse(request, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_ADMIN, NULL, 0,
                                      "only an administrator may look at every account");
        account = accounts_next_user(&request->broker->accounts, df->cursor);
        reply.accounts = pointers;
        while (account && reply.n_accounts < DF_ACCOUNTS_MAX) {
                size_t i = reply.n_accounts++;

                describe_usage(&usages[i], account->max, account, account->uid, _ACCOUNT_SLOT_N);
                describe_rules(&usages[i], &request->broker->accounts, account, account->uid);
                pointers[i] = &usages[i].use;
                account = accounts_next_user(&request->broker->accounts, account->uid + 1);
        }
        reply.more = account != NULL;
        reply.cursor = account ? account->uid : 0;
        return request_reply(request, &reply.base, NULL, 0);
}

int request_df(Request *request) {
        const Shmd__Df *df = (const Shmd__Df *)request->message;
        const Account *pool = &request->broker->accounts.pool;

        switch (df->scope) {
        case SHMD__DF_SCOPE__DF_ACCOUNT:
                return df_account(request, df);
        case SHMD__DF_SCOPE__DF_DIRECTORY:
                return df_directory(request, df);
        case SHMD__DF_SCOPE__DF_TOTAL:
                return df_one(request, pool->max, pool, 0, _ACCOUNT_SLOT_N);
        case SHMD__DF_SCOPE__DF_ACCOUNTS:
                return df_accounts(request, df);
        default:
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "there is no scope of number %u", df->scope);
        }
}

/* -- stats ------------------------------------------------------------------------------ */

typedef struct Figures {
        Shmd__RequestStat requests[_MESSAGE_N];
        Shmd__RequestStat *request_pointers[_MESSAGE_N];
        Shmd__ReasonStat reasons[STATS_REASONS];
        Shmd__ReasonStat *reason_pointers[STATS_REASONS];
} Figures;

static ProtobufCBinaryData text(const char *s) {
        return (ProtobufCBinaryData){ .data = (uint8_t *)s, .len = strlen(s) };
}

static void describe_requests(Stats *stats, Figures *figures, Shmd__StatsReply *reply) {
        reply->requests = figures->request_pointers;
        for (unsigned int kind = MESSAGE_NONE + 1; kind < _MESSAGE_N; ++kind) {
                Shmd__RequestStat *at = &figures->requests[reply->n_requests];
                RequestFigures *of = &stats->requests[kind];

                shmd__request_stat__init(at);
                at->name = text(message_name(kind));
                at->count = of->count;
                at->refused = of->refused;
                at->total_ns = of->total_ns;
                at->n_bucket = MESSAGE_BUCKETS;
                at->bucket = of->bucket;
                figures->request_pointers[reply->n_requests++] = at;
        }
}

static void describe_refusals(const Stats *stats, Figures *figures, Shmd__StatsReply *reply) {
        reply->refusals = figures->reason_pointers;
        for (unsigned int reason = 1; reason < STATS_REASONS; ++reason) {
                Shmd__ReasonStat *at = &figures->reasons[reply->n_refusals];

                if (!stats->refusals[reason])
                        continue;
                shmd__reason_stat__init(at);
                at->reason = reason;
                at->name = text(message_reason_name(reason));
                at->count = stats->refusals[reason];
                figures->reason_pointers[reply->n_refusals++] = at;
        }
}

int request_stats(Request *request) {
        Shmd__StatsReply reply = SHMD__STATS_REPLY__INIT;
        Broker *broker = request->broker;
        Figures figures;

        reply.uptime_ns = time_now() - broker->stats.started;
        reply.regions = broker->regions.n;
        reply.named = broker->regions.n_named;
        reply.orphans = broker->regions.n_orphans;
        reply.bytes = broker->accounts.pool.used[ACCOUNT_BYTES];
        reply.grants = broker->grants.n;
        reply.peers = broker->n_peers;
        reply.waiters = broker->waiters.n;
        reply.directories = broker->tree.n_directories;
        reply.released = broker->regions.n_released;
        reply.violations = broker->stats.violations;
        reply.accepts_paused = listener_n_pauses(broker->listener);
        reply.log_dropped = log_dropped();
        reply.restarts = broker->options->restarts;
        reply.broker = text(broker->options->version);
        describe_requests(&broker->stats, &figures, &reply);
        describe_refusals(&broker->stats, &figures, &reply);
        return request_reply(request, &reply.base, NULL, 0);
}

/* -- doctor ----------------------------------------------------------------------------- */

/* What the broker found at start, and what has happened since: nothing that tells of anybody. */
int request_doctor(Request *request) {
        Shmd__DoctorReply reply = SHMD__DOCTOR_REPLY__INIT;
        const BrokerOptions *options = request->broker->options;
        Shmd__Feature features[_PROBE_N], *pointers[_PROBE_N];

        for (unsigned int i = 0; i < _PROBE_N; ++i) {
                shmd__feature__init(&features[i]);
                features[i].name = text(probe_name(i));
                features[i].have = probe_have(i);
                features[i].consequence = text(probe_consequence(i));
                pointers[i] = &features[i];
        }
        reply.n_features = _PROBE_N;
        reply.features = pointers;
        reply.descriptors = options->descriptors;
        reply.regions = request->broker->accounts.pool.max[ACCOUNT_REGIONS];
        reply.broker = text(options->version);
        reply.kept_by = text(options->kept_by);
        reply.restarts = options->restarts;
        reply.last_end = text(options->last_end);
        reply.policy_generation = request->broker->generation;
        reply.uid = options->uid;
        reply.landlock = options->landlock;
        reply.inotify_overflows = request->broker->regions.n_overflows;
        reply.helper_replacements = request->broker->helpers.n_replaced;
        return request_reply(request, &reply.base, NULL, 0);
}
