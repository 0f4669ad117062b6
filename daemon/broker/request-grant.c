/* Requests that hand out memory: create, open, batch, and what request-ticket.c makes of a redeem.
 *
 * All are one thing: a list of items, each of which makes or finds a region and grants it,
 * all or nothing. What was made is kept in `Made` until every item worked; then it takes effect
 * together, the answer goes out with all descriptors, and whoever waited for a name is told.
 *
 * The same goes for such a request that is answered again (request-again.c): its items are the regions
 * of the first time.
 */

#include <string.h>

#include "broker/request.h"
#include "util/error.h"
#include "util/memfd.h"

typedef struct Item {
        const Shmd__Create *create;     /* one of the three */
        const Shmd__Open *open;
        Ticket *ticket;
        uint64_t first;                 /* what became of it the first time, SAVED_ITEM_...; 0: this is it */
} Item;

typedef struct Made {
        Region *region;
        Grant *grant;           /* NULL: none was wanted */
        int fd;
        bool created;           /* now */
        bool was_created;       /* the first time */
} Made;

/* About 19 KiB on the stack; nothing of it is touched beyond the items there are. */
typedef struct Work {
        size_t n;
        size_t n_fds;
        Made made[MESSAGE_BATCH_MAX];
        int fds[MESSAGE_BATCH_MAX];
        Shmd__Granted granted[MESSAGE_BATCH_MAX];
        Shmd__Granted *pointers[MESSAGE_BATCH_MAX];
        uint64_t items[MESSAGE_BATCH_MAX];      /* SAVED_ITEM_... */
} Work;

/* -- undoing --------------------------------------------------------------------------- */

static void made_undo(Made *made) {
        made->fd = close_fd(made->fd);
        made->grant = grant_take_back(made->grant);
        if (made->created)
                made->region = region_discard(made->region);
}

static void work_undo(Work *work) {
        while (work->n > 0)
                made_undo(&work->made[--work->n]);
}

/* -- refusing -------------------------------------------------------------------------- */

int request_refuse_size(Request *request, ProtobufCBinaryData path, uint32_t huge_page_size) {
        return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_SIZE, path.data, path.len,
                              huge_page_size ?
                              "the size is not a multiple of the huge page size, or too large for a file" :
                              "the size is larger than a file can be");
}

static int refuse_region(Request *request, int r, const Shmd__Create *create, const Shortage *shortage) {
        const void *path = create->path.data;
        size_t n = create->path.len;

        switch (r) {
        case REGION_E_QUOTA:
                return request_shortage(request, shortage, path, n);
        case REGION_E_SIZE:
                return request_refuse_size(request, create->path, create->huge_page_size);
        case REGION_E_UNSUPPORTED:
                return request_refuse(request, SHMD__ERROR__ERROR_UNSUPPORTED, SHMD__REASON__REASON_HUGE_PAGES, path, n,
                                      "this machine has no huge pages of 2^%u bytes", create->huge_page_size);
        case REGION_E_NO_PAGES:
                return request_refuse(request, SHMD__ERROR__ERROR_NO_MEMORY, SHMD__REASON__REASON_HUGE_PAGES, path, n,
                                      "not enough huge pages of 2^%u bytes are free", create->huge_page_size);
        case REGION_E_NO_MEMORY:
                return request_refuse(request, SHMD__ERROR__ERROR_NO_MEMORY, SHMD__REASON__REASON_DESCRIPTORS, path, n,
                                      "the broker or the machine has no descriptors or memory left");
        case REGION_E_BUSY:
                return request_store_busy(request, path, n);
        default:
                return error_fold(r);
        }
}

int request_refuse_grant(Request *request, int r, ProtobufCBinaryData path, const Shortage *shortage) {
        switch (r) {
        case GRANT_E_QUOTA:
                return request_shortage(request, shortage, path.data, path.len);
        case GRANT_E_NO_MEMORY:
                return request_refuse(request, SHMD__ERROR__ERROR_NO_MEMORY, SHMD__REASON__REASON_DESCRIPTORS,
                                      path.data, path.len, "the broker or the machine has no descriptors left");
        case GRANT_E_FAILED:
                return request_refuse(request, SHMD__ERROR__ERROR_BUSY, SHMD__REASON__REASON_KERNEL,
                                      path.data, path.len, "the kernel would not open the region now");
        case GRANT_E_FROZEN:
                return request_refuse(request, SHMD__ERROR__ERROR_DENIED, SHMD__REASON__REASON_FROZEN,
                                      path.data, path.len, "the region is frozen: it can be opened read-only");
        default:
                return error_fold(r);
        }
}

/* -- one item -------------------------------------------------------------------------- */

static int grant_to(Request *request, Made *made, const Asker *asker, ProtobufCBinaryData path, uint32_t rights) {
        Shortage shortage;
        int r;

        r = grant_new(&made->grant, &made->fd, &request->broker->grants, made->region, asker,
                      rights == SHMD__RIGHTS__RIGHTS_READ_WRITE, &shortage);
        return r ? request_refuse_grant(request, r, path, &shortage) : 0;
}

static int grant_item(Request *request, Made *made, ProtobufCBinaryData path, uint32_t rights) {
        Asker asker = peer_asker(request->peer);

        return rights == SHMD__RIGHTS__RIGHTS_NONE ? 0 : grant_to(request, made, &asker, path, rights);
}

static int ticket_item(Request *request, Made *made, const Ticket *ticket) {
        Asker asker = peer_asker(request->peer);

        asker.ticket = true;
        made->region = ticket->region;
        return grant_to(request, made, &asker, (ProtobufCBinaryData){ .len = 0 },
                        ticket->spec.writable ? SHMD__RIGHTS__RIGHTS_READ_WRITE : SHMD__RIGHTS__RIGHTS_READ_ONLY);
}

/* Whether the asker may have these rights of a region. */
static int check_region(Request *request, const void *path, size_t n_path, const Permissions *permissions,
                        uint32_t rights) {
        int r = 0;

        if (rights != SHMD__RIGHTS__RIGHTS_NONE)
                r = request_need_access(request, SHMD__REASON__REASON_REGION_READ, path, n_path, permissions,
                                        ACCESS_READ, "no read permission on the region");
        /* Both at once: an ACL may give one to one group and the other to another, and that is not enough. */
        if (!r && rights == SHMD__RIGHTS__RIGHTS_READ_WRITE)
                r = request_need_access(request, SHMD__REASON__REASON_REGION_WRITE, path, n_path, permissions,
                                        ACCESS_READ | ACCESS_WRITE, "no read and write permission on the region");
        return r;
}

/* ... of what the spot names. */
static int check_rights(Request *request, const Spot *spot, uint32_t rights) {
        if (node_is_directory(spot->node))
                return request_refuse(request, SHMD__ERROR__ERROR_IS_DIRECTORY, SHMD__REASON__REASON_TAKEN,
                                      spot->path, spot->n_path, "it is a directory");
        return check_region(request, spot->path, spot->n_path, node_permissions(spot->node), rights);
}

static int open_at(Request *request, Made *made, const Spot *spot, ProtobufCBinaryData path, uint32_t rights) {
        made->region = spot->node->region;
        return grant_item(request, made, path, rights);
}

int request_may_open(Request *request, ProtobufCBinaryData path, uint32_t rights, Spot *ret) {
        int r = request_find(request, path, ret);

        return r ? r : check_rights(request, ret, rights);
}

static int open_item(Request *request, Made *made, const Shmd__Open *open) {
        Spot spot;
        int r;

        if (open->rights != SHMD__RIGHTS__RIGHTS_READ_ONLY && open->rights != SHMD__RIGHTS__RIGHTS_READ_WRITE)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED,
                                      open->path.data, open->path.len, "there are no rights of number %u", open->rights);
        r = request_may_open(request, open->path, open->rights, &spot);
        return r ? r : open_at(request, made, &spot, open->path, open->rights);
}

static int check_create(Request *request, const Shmd__Create *create) {
        const void *path = create->path.data;
        size_t n = create->path.len;
        int r;

        r = request_check_flags(request, create->flags,
                                SHMD__CREATE_FLAGS__CREATE_OPEN | SHMD__CREATE_FLAGS__CREATE_FREEZABLE |
                                SHMD__CREATE_FLAGS__CREATE_RESERVE);
        if (r)
                return r;
        if (create->mode & ~ACCESS_REGION_MODES)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MODE, path, n,
                                      "a region's mode is at most 0777, not 0%o", create->mode);
        if (create->lifetime > SHMD__LIFETIME__LIFETIME_COUNTED || create->rights > SHMD__RIGHTS__RIGHTS_READ_WRITE ||
            (create->huge_page_size && (create->huge_page_size < 12 || create->huge_page_size > 40)))
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, path, n,
                                      "lifetime, rights or huge page size is out of range");
        if (n == 0 && (create->rights == SHMD__RIGHTS__RIGHTS_NONE || create->flags & SHMD__CREATE_FLAGS__CREATE_OPEN))
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, path, n,
                                      "a region without a name needs a grant, and cannot be opened instead");
        if (create->lifetime == SHMD__LIFETIME__LIFETIME_COUNTED && create->rights == SHMD__RIGHTS__RIGHTS_NONE)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, path, n,
                                      "a region that goes with its last holder needs a first one: ask for a grant");
        if (n == 0 && create->ttl_ns)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, path, n,
                                      "it is a name that ends after a time, and the region has none");
        r = request_check_ttl(request, create->ttl_ns, create->path);
        if (r)
                return r;
        if (create->flags & SHMD__CREATE_FLAGS__CREATE_RESERVE && create->rights != SHMD__RIGHTS__RIGHTS_READ_WRITE)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, path, n,
                                      "reserving needs a read-write grant");
        return 0;
}

static int create_region(Request *request, Made *made, const Shmd__Create *create, const Spot *spot) {
        const Peer *peer = request->peer;
        RegionSpec spec = {
                .size = create->size,
                .huge_shift = create->huge_page_size,
                .freezable = create->flags & SHMD__CREATE_FLAGS__CREATE_FREEZABLE,
                .lifetime = (RegionLifetime)create->lifetime,
                .permissions = { .uid = peer->cred.uid, .gid = peer->cred.gid, .mode = create->mode },
        };
        Shortage shortage;
        int r;

        r = region_new(&made->region, &request->broker->regions, peer->account, &spec, &shortage);
        if (r)
                return refuse_region(request, r, create, &shortage);
        made->created = true;
        if (spot) {
                r = region_link_silently(made->region, spot, &shortage);
                if (r)
                        return refuse_region(request, r, create, &shortage);
                r = request_expire(request, region_name(made->region), create->ttl_ns);
                if (r)
                        return error_fold(r);
        }
        return grant_item(request, made, create->path, create->rights);
}

/* Whether something may be made at the spot. */
static int may_make(Request *request, const Spot *spot) {
        if (spot->node)
                return request_refuse(request, SHMD__ERROR__ERROR_EXISTS, SHMD__REASON__REASON_TAKEN,
                                      spot->path, spot->n_path, "the name is taken");
        return request_may_change(request, spot);
}

int request_may_make(Request *request, ProtobufCBinaryData path, Spot *ret) {
        int r = request_resolve(request, path, ret);

        return r ? r : may_make(request, ret);
}

static int create_item(Request *request, Made *made, const Shmd__Create *create) {
        Spot spot;
        int r;

        r = check_create(request, create);
        if (r)
                return r;
        if (create->path.len == 0)
                return create_region(request, made, create, NULL);

        r = request_resolve(request, create->path, &spot);
        if (!r && spot.node && create->flags & SHMD__CREATE_FLAGS__CREATE_OPEN) {
                r = check_rights(request, &spot, create->rights);
                return r ? r : open_at(request, made, &spot, create->path, create->rights);
        }
        if (!r)
                r = may_make(request, &spot);
        return r ? r : create_region(request, made, create, &spot);
}

/* What the item made is gone. So nobody held it, and to have it made anew, all zero, is as good; but not its
 * name, if somebody took that away. The client gets what it would have had: a region that lost its name. */
static int create_anew(Request *request, Made *made, const Shmd__Create *create) {
        int r;

        if (create->path.len == 0 || create->lifetime == SHMD__LIFETIME__LIFETIME_COUNTED)
                return create_item(request, made, create);
        r = check_create(request, create);
        if (r || create->rights == SHMD__RIGHTS__RIGHTS_NONE)
                return r;
        return create_region(request, made, create, NULL);
}

/* What the request had made, and is its user's still, it may have anyhow, and what a ticket was good for. What it had
 * opened may have been closed to it meanwhile, by somebody who saw that nobody held it; for a ticket, see
 * again_redeem(). */
static int check_again(Request *request, const Made *made, ProtobufCBinaryData path, uint32_t rights) {
        const Permissions *permissions = &made->region->permissions;

        if (request->kind == MESSAGE_REDEEM || (made->was_created && access_owns(request->who, permissions)))
                return 0;
        return check_region(request, path.data, path.len, permissions, rights);
}

/* An item that was done before. */
static int again_item(Request *request, Made *made, const Item *item) {
        Asker asker = peer_asker(request->peer);
        uint32_t rights = (uint32_t)(item->first >> SAVED_ITEM_RIGHTS_SHIFT & SAVED_ITEM_RIGHTS);
        ProtobufCBinaryData path = { .len = 0 };

        if (item->create)
                path = item->create->path;
        if (item->open)
                path = item->open->path;
        asker.ticket = request->kind == MESSAGE_REDEEM;
        made->region = regions_find(&request->broker->regions, item->first & SAVED_ITEM_REGION);
        made->was_created = item->first & SAVED_ITEM_CREATED;
        if (made->region && rights == SHMD__RIGHTS__RIGHTS_NONE)
                return 0;
        if (made->region && rights <= SHMD__RIGHTS__RIGHTS_READ_WRITE) {
                int r = check_again(request, made, path, rights);

                return r ? r : grant_to(request, made, &asker, path, rights);
        }
        if (made->was_created && item->create)
                return create_anew(request, made, item->create);
        return request_refuse(request, SHMD__ERROR__ERROR_NOT_FOUND, SHMD__REASON__REASON_MISSING, path.data, path.len,
                              "it was opened, and the region is gone since");
}

/* -- all items -------------------------------------------------------------------------- */

static int work_do(Request *request, Work *work, const Item *items, size_t n) {
        work->n = work->n_fds = 0;
        for (size_t i = 0; i < n; ++i) {
                Made *made = &work->made[i];
                int r;

                *made = (Made){ .fd = -1 };
                work->n = i + 1;
                r = items[i].first  ? again_item(request, made, &items[i]) :
                    items[i].create ? create_item(request, made, items[i].create) :
                    items[i].open   ? open_item(request, made, items[i].open) :
                                      ticket_item(request, made, items[i].ticket);
                if (r) {
                        work_undo(work);
                        request->refusal.index = (uint32_t)i;
                        return r;
                }
                if (made->fd >= 0)
                        work->fds[work->n_fds++] = made->fd;
        }
        return 0;
}

/* A region that is gone, and that nobody wanted a grant of. */
static void describe_gone(const Item *item, Shmd__Granted *ret) {
        ret->region = item->first & SAVED_ITEM_REGION;
        ret->size = item->create->size;
        ret->outcome = SHMD__OUTCOME__OUTCOME_CREATED;
        ret->huge_page_size = item->create->huge_page_size;
        ret->freezable = item->create->flags & SHMD__CREATE_FLAGS__CREATE_FREEZABLE;
}

static void describe(const Made *made, const Item *item, Shmd__Granted *ret) {
        const Region *region = made->region;
        const Grant *grant = made->grant;

        shmd__granted__init(ret);
        if (!region) {
                describe_gone(item, ret);
                return;
        }
        ret->region = region->id;
        ret->size = region->size;
        ret->outcome = made->created || made->was_created ? SHMD__OUTCOME__OUTCOME_CREATED :
                                                            SHMD__OUTCOME__OUTCOME_OPENED;
        ret->huge_page_size = region->huge_shift;
        ret->freezable = region->freezable;
        if (!grant)
                return;
        ret->granted = true;
        ret->rights = grant->writable ? SHMD__RIGHTS__RIGHTS_READ_WRITE : SHMD__RIGHTS__RIGHTS_READ_ONLY;
        ret->grant = grant->id;
        ret->marker = grant->marked;
}

static void use_ticket(const Request *request, Ticket *ticket) {
        const Peer *peer = request->peer;

        audit_log_ticket("ticket-used", ticket, peer->account, peer->id, peer->cred.pid);
        ticket_spend(ticket);
}

/* Lets what was made take effect: nothing can fail any more. */
static void work_settle(Request *request, const Work *work, const Item *items) {
        Session *session = request->peer->session;

        for (size_t i = 0; i < work->n; ++i) {
                Region *region = work->made[i].region;

                if (items[i].ticket)
                        use_ticket(request, items[i].ticket);
                if (!work->made[i].created)
                        continue;
                if (region->lifetime == REGION_SESSION)
                        region_join_session(region, &session->regions, session->number);
                if (region->lifetime == REGION_COUNTED)
                        region_count(region);
                if (!region->names.first)
                        region_orphan(region);
                else
                        tree_announce(region_name(region));
        }
}

/* Tells whoever waits for a name, and lets go of what is on its way. */
static void work_announce(Request *request, Work *work, const Item *items) {
        for (size_t i = 0; i < work->n; ++i) {
                Made *made = &work->made[i];
                const Shmd__Create *create = items[i].create;

                if (made->created && made->region->names.first)
                        waiters_notify(&request->broker->waiters, create->path.data, create->path.len);
                made->fd = close_fd(made->fd);
        }
        work->n = 0;
}

/* What is to be remembered of it, if anything was changed. */
static void work_note(Request *request, Work *work, const Item *items, bool batch) {
        request->is_idle = true;
        for (size_t i = 0; i < work->n; ++i) {
                const Shmd__Granted *granted = &work->granted[i];

                work->items[i] = granted->region | (uint64_t)granted->rights << SAVED_ITEM_RIGHTS_SHIFT;
                if (granted->outcome == SHMD__OUTCOME__OUTCOME_CREATED)
                        work->items[i] |= SAVED_ITEM_CREATED;
                if (granted->outcome == SHMD__OUTCOME__OUTCOME_CREATED || items[i].ticket || items[i].first)
                        request->is_idle = false;
        }
        if (batch) {
                request->items = work->items;
                request->n_items = work->n;
        } else {
                request->outcome.region = work->items[0];
                if (request->kind == MESSAGE_REDEEM)
                        request->outcome.extra = work->made[0].region->revoked;
        }
}

/* How many descriptors the answer has at most. Room is asked for no others: who makes many regions and wants
 * none of them now has nothing to wait for. */
static uint32_t count_fds(const Item *items, size_t n) {
        uint32_t n_fds = 0;

        for (size_t i = 0; i < n; ++i) {
                const Item *item = &items[i];

                n_fds += item->first  ? (item->first >> SAVED_ITEM_RIGHTS_SHIFT & SAVED_ITEM_RIGHTS) != 0 :
                         item->create ? item->create->rights != SHMD__RIGHTS__RIGHTS_NONE :
                                        true;
        }
        return n_fds;
}

static int grant_all(Request *request, const Item *items, size_t n, bool batch) {
        Work work;
        int r;

        r = request_reserve(request, count_fds(items, n));
        if (!r && batch)
                r = error_fold(session_make_room(request->peer->session, n));
        if (r)
                return r;
        r = work_do(request, &work, items, n);
        if (r)
                return r;

        for (size_t i = 0; i < n; ++i) {
                describe(&work.made[i], &items[i], &work.granted[i]);
                work.pointers[i] = &work.granted[i];
        }
        /* An answer that cannot be sent leaves what it did: as if it had been lost. */
        work_settle(request, &work, items);
        work_note(request, &work, items, batch);
        if (batch) {
                Shmd__BatchReply reply = SHMD__BATCH_REPLY__INIT;

                reply.n_items = n;
                reply.items = work.pointers;
                r = request_reply(request, &reply.base, work.fds, work.n_fds);
        } else {
                r = request_reply(request, &work.granted[0].base, work.fds, work.n_fds);
        }
        work_announce(request, &work, items);
        return r;
}

int request_create(Request *request) {
        Item item = { .create = (const Shmd__Create *)request->message };

        return grant_all(request, &item, 1, false);
}

int request_open(Request *request) {
        Item item = { .open = (const Shmd__Open *)request->message };

        return grant_all(request, &item, 1, false);
}

int request_grant_by_ticket(Request *request, Ticket *ticket) {
        Item item = { .ticket = ticket };

        return grant_all(request, &item, 1, false);
}

/* Takes the items of a batch apart. */
static int batch_items(Request *request, Item items[MESSAGE_BATCH_MAX]) {
        const Shmd__Batch *batch = (const Shmd__Batch *)request->message;

        if (batch->n_items == 0 || batch->n_items > MESSAGE_BATCH_MAX)
                return request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED, NULL, 0,
                                      "a batch has 1 to %u items, not %zu", MESSAGE_BATCH_MAX, batch->n_items);
        for (size_t i = 0; i < batch->n_items; ++i) {
                items[i] = (Item){ .create = batch->items[i]->create, .open = batch->items[i]->open };
                if (!items[i].create == !items[i].open) {
                        (void)request_refuse(request, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_MALFORMED,
                                             NULL, 0, "an item of a batch is either a create or an open");
                        request->refusal.index = (uint32_t)i;
                        return REQUEST_E_REFUSED;
                }
        }
        return 0;
}

int request_batch(Request *request) {
        const Shmd__Batch *batch = (const Shmd__Batch *)request->message;
        Item items[MESSAGE_BATCH_MAX];
        int r;

        r = batch_items(request, items);
        return r ? r : grant_all(request, items, batch->n_items, true);
}

int request_grant_again(Request *request, const uint64_t *first, size_t n) {
        bool batch = request->kind == MESSAGE_BATCH;
        Item items[MESSAGE_BATCH_MAX] = { { .create = NULL } };
        int r = 0;

        if (batch)
                r = batch_items(request, items);
        if (request->kind == MESSAGE_CREATE)
                items[0].create = (const Shmd__Create *)request->message;
        if (r)
                return r;
        if (batch && ((const Shmd__Batch *)request->message)->n_items != n)
                return request_refuse_serial(request);
        for (size_t i = 0; i < n; ++i)
                items[i].first = first[i];
        return grant_all(request, items, n, batch);
}
