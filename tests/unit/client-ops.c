/* client/op-*: what each request says on the wire, and what each reply becomes.
 *
 * Every test sends the request twice, once waited for and once not, and expects the same: both
 * are the same code, and this is where it shows.
 */

#include "buildinfo.h"

#include "unit/client-peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROUNDS 2

static bool is(const ProtobufCBinaryData *bytes, const char *string) {
        return bytes->len == strlen(string) && memcmp(bytes->data, string, bytes->len) == 0;
}

/* For the asynchronous half: dispatches until the call started has been finished. */
static bool finished;

static void dispatch(shmd *client, int started) {
        REQUIRE(started == 0);
        while (!finished)
                REQUIRE(shmd_process(client, 20 * SECOND) >= 0);
        finished = false;
}

#define FINISH(name, ...)                                                               \
        static void name(shmd *client, shmd_call *call, void *userdata) {               \
                REQUIRE(__VA_ARGS__ == 0);                                              \
                finished = true;                                                        \
        }                                                                               \
        struct finish_requires_a_semicolon

/* -- requests answered with done ------------------------------------------------------ */

static void script_done(Peer *peer) {
        for (unsigned int i = 0; i < ROUNDS; ++i) {
                const Shmd__Publish *publish;
                const Shmd__Ttl *ttl;
                const Shmd__Link *link;
                const Shmd__Rename *rename;
                const Shmd__Mkdir *mkdir;
                const Shmd__Remove *remove;
                const Shmd__Chmod *chmod;
                const Shmd__Chown *chown;

                publish = peer_expect(peer, MESSAGE_PUBLISH);
                REQUIRE(publish->region == UINT64_MAX && is(&publish->path, "/p") && publish->flags == 1);
                REQUIRE(publish->ttl_ns == 9 * SECOND);
                peer_done(peer);
                ttl = peer_expect(peer, MESSAGE_TTL);
                REQUIRE(is(&ttl->path, "/e") && ttl->ttl_ns == UINT64_MAX);
                peer_done(peer);
                link = peer_expect(peer, MESSAGE_LINK);
                REQUIRE(is(&link->path, "/l") && is(&link->to, "/l/2"));
                peer_done(peer);
                rename = peer_expect(peer, MESSAGE_RENAME);
                REQUIRE(is(&rename->path, "/old") && is(&rename->to, "/new") && rename->flags == 2);
                peer_done(peer);
                mkdir = peer_expect(peer, MESSAGE_MKDIR);
                REQUIRE(is(&mkdir->path, "/m") && mkdir->mode == 01755);
                peer_done(peer);
                remove = peer_expect(peer, MESSAGE_RMDIR);
                REQUIRE(is(&remove->path, "/r"));
                peer_done(peer);
                remove = peer_expect(peer, MESSAGE_UNLINK);
                REQUIRE(is(&remove->path, "/u"));
                peer_done(peer);
                chmod = peer_expect(peer, MESSAGE_CHMOD);
                REQUIRE(is(&chmod->path, "/c") && chmod->mode == 0640);
                peer_done(peer);
                chown = peer_expect(peer, MESSAGE_CHOWN);
                REQUIRE(is(&chown->path, "/o"));
                REQUIRE(chown->set_uid && chown->uid == 5 && chown->set_gid && chown->gid == 0);
                peer_done(peer);
        }
        for (unsigned int i = 0; i < 2; ++i) {
                const Shmd__Chown *chown = peer_expect(peer, MESSAGE_CHOWN);

                REQUIRE(chown->set_uid == (i == 1) && chown->set_gid == (i == 0));
                REQUIRE(!chown->uid && chown->gid == (i ? 0 : 7));
                peer_done(peer);
        }
        peer_expect_end(peer);
}

FINISH(finish_publish, shmd_publish_finish(call));
FINISH(finish_expire, shmd_expire_finish(call));
FINISH(finish_link, shmd_link_finish(call));
FINISH(finish_rename, shmd_rename_finish(call));
FINISH(finish_mkdir, shmd_mkdir_finish(call));
FINISH(finish_rmdir, shmd_rmdir_finish(call));
FINISH(finish_unlink, shmd_unlink_finish(call));
FINISH(finish_chmod, shmd_chmod_finish(call));
FINISH(finish_chown, shmd_chown_finish(call));

TEST(client_ops, requests_without_an_answer_but_yes) {
        struct shmd_publish_options options = SHMD_PUBLISH_OPTIONS_INIT;
        shmd *client = peer_start_and_connect(script_done);

        options.flags = SHMD_PUBLISH_REPLACE;
        options.ttl_ns = 9 * SECOND;
        cr_assert_eq(shmd_publish(client, UINT64_MAX, "/p", &options, 0), 0);
        cr_assert_eq(shmd_expire(client, "/e", UINT64_MAX, 0), 0);
        cr_assert_eq(shmd_link(client, "/l", "/l/2", 0), 0);
        cr_assert_eq(shmd_rename(client, "/old", "/new", SHMD_RENAME_EXCHANGE, 0), 0);
        cr_assert_eq(shmd_mkdir(client, "/m", 01755, 0), 0);
        cr_assert_eq(shmd_rmdir(client, "/r", 0), 0);
        cr_assert_eq(shmd_unlink(client, "/u", 0), 0);
        cr_assert_eq(shmd_chmod(client, "/c", 0640, 0), 0);
        cr_assert_eq(shmd_chown(client, "/o", 5, 0, 0), 0);

        dispatch(client, shmd_publish_start(client, UINT64_MAX, "/p", &options, 0, finish_publish, NULL, NULL));
        dispatch(client, shmd_expire_start(client, "/e", UINT64_MAX, 0, finish_expire, NULL, NULL));
        dispatch(client, shmd_link_start(client, "/l", "/l/2", 0, finish_link, NULL, NULL));
        dispatch(client, shmd_rename_start(client, "/old", "/new", SHMD_RENAME_EXCHANGE, 0, finish_rename, NULL, NULL));
        dispatch(client, shmd_mkdir_start(client, "/m", 01755, 0, finish_mkdir, NULL, NULL));
        dispatch(client, shmd_rmdir_start(client, "/r", 0, finish_rmdir, NULL, NULL));
        dispatch(client, shmd_unlink_start(client, "/u", 0, finish_unlink, NULL, NULL));
        dispatch(client, shmd_chmod_start(client, "/c", 0640, 0, finish_chmod, NULL, NULL));
        dispatch(client, shmd_chown_start(client, "/o", 5, 0, 0, finish_chown, NULL, NULL));

        cr_assert_eq(shmd_chown(client, "/o", (uid_t)-1, 7, 0), 0);
        cr_assert_eq(shmd_chown(client, "/o", 0, (gid_t)-1, 0), 0);
        peer_join(client);
}

/* -- grants --------------------------------------------------------------------------- */

static void script_grants(Peer *peer) {
        for (unsigned int i = 0; i < ROUNDS; ++i) {
                const Shmd__Create *create = peer_expect(peer, MESSAGE_CREATE);
                const Shmd__Open *open;

                REQUIRE(is(&create->path, "/a") && create->size == 5000 && create->mode == 0644);
                REQUIRE(create->flags == (SHMD_CREATE_OPEN | SHMD_CREATE_FREEZABLE));
                REQUIRE(create->lifetime == SHMD_LIFETIME_SESSION && create->huge_page_size == 21);
                REQUIRE(create->rights == SHMD_RIGHTS_READ_WRITE);
                peer_grant(peer, 77, 5000, SHMD_RIGHTS_READ_WRITE);
                open = peer_expect(peer, MESSAGE_OPEN);
                REQUIRE(is(&open->path, "/a") && open->rights == SHMD_RIGHTS_READ_ONLY);
                peer_grant(peer, 77, 5000, SHMD_RIGHTS_READ_ONLY);
        }
        peer_expect_end(peer);
}

static shmd_region *got;

FINISH(finish_create, shmd_create_finish(call, &got));
FINISH(finish_open, shmd_open_finish(call, &got));

static void check_region(shmd_region *region, uint32_t rights) {
        int mode = rights == SHMD_RIGHTS_READ_WRITE ? O_RDWR : O_RDONLY;
        struct stat st;
        int fd;

        cr_assert_eq(shmd_region_id(region), 77);
        cr_assert_eq(shmd_region_size(region), 5000);
        cr_assert_eq(shmd_region_page_size(region), (uint64_t)sysconf(_SC_PAGESIZE));
        cr_assert_eq(shmd_region_rights(region), rights);
        cr_assert(shmd_region_created(region));
        cr_assert_eq(fstat(shmd_region_fd(region), &st), 0);
        cr_assert_eq(st.st_size, 5000);
        fd = shmd_region_steal_fd(region);
        cr_assert_eq(fcntl(fd, F_GETFL) & O_ACCMODE, mode);
        cr_assert_eq(shmd_region_fd(region), -EBADF);
        cr_assert_eq(shmd_region_steal_fd(region), -EBADF);
        cr_assert_null(shmd_region_free(region));
        cr_assert_eq(close(fd), 0, "a stolen descriptor is not closed");
}

TEST(client_ops, create_and_open_return_a_region) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd *client = peer_start_and_connect(script_grants);

        options.size = 5000;
        options.mode = 0644;
        options.flags = SHMD_CREATE_OPEN | SHMD_CREATE_FREEZABLE;
        options.lifetime = SHMD_LIFETIME_SESSION;
        options.huge_page_size = 2 << 20;
        cr_assert_eq(shmd_create(client, "/a", &options, &got, 0), 0);
        check_region(got, SHMD_RIGHTS_READ_WRITE);
        cr_assert_eq(shmd_open(client, "/a", SHMD_RIGHTS_READ_ONLY, &got, 0), 0);
        check_region(got, SHMD_RIGHTS_READ_ONLY);

        dispatch(client, shmd_create_start(client, "/a", &options, 0, finish_create, NULL, NULL));
        check_region(got, SHMD_RIGHTS_READ_WRITE);
        dispatch(client, shmd_open_start(client, "/a", SHMD_RIGHTS_READ_ONLY, 0, finish_open, NULL, NULL));
        check_region(got, SHMD_RIGHTS_READ_ONLY);
        cr_assert_null(shmd_region_free(NULL));
        peer_join(client);
}

static void script_no_grant(Peer *peer) {
        const Shmd__Create *create = peer_expect(peer, MESSAGE_CREATE);

        REQUIRE(create->path.len == 0 && create->rights == SHMD_RIGHTS_NONE && create->mode == 0600);
        peer_reply(peer, MESSAGE(Granted, granted, .region = 5, .size = 1), NULL, 0);
        peer_expect_end(peer);
}

TEST(client_ops, a_create_without_rights_returns_no_descriptor) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd *client = peer_start_and_connect(script_no_grant);
        shmd_region *region;
        size_t length;
        void *address;

        options.size = 1;
        options.rights = SHMD_RIGHTS_NONE;
        cr_assert_eq(shmd_create(client, NULL, &options, &region, 0), 0);
        cr_assert_eq(shmd_region_fd(region), -EBADF);
        cr_assert_eq(shmd_region_id(region), 5);
        cr_assert_not(shmd_region_created(region));
        cr_assert_eq(shmd_map(region, NULL, &address, &length), -EBADF);
        cr_assert_eq(shmd_reserve(region), -EBADF);
        shmd_region_free(region);
        peer_join(client);
}

static void script_nothing(Peer *peer) {
        peer_expect_end(peer);
}

TEST(client_ops, options_that_the_wire_cannot_carry_are_refused_here) {
        struct {
                struct shmd_create_options known;
                uint64_t later;
        } newer = { .known = SHMD_CREATE_OPTIONS_INIT };
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        shmd *client = peer_start_and_connect(script_nothing);
        shmd_region *region;

        cr_assert_eq(shmd_create(client, "/a", NULL, &region, 0), -EINVAL);
        options.huge_page_size = 3 << 20;
        cr_assert_eq(shmd_create(client, "/a", &options, &region, 0), -EINVAL);
        cr_assert_str_eq(shmd_refusal(client)->sentence, "a huge page size is a power of two");
        options.huge_page_size = 0;
        options.flags = SHMD_CREATE_RESERVE;
        options.rights = SHMD_RIGHTS_READ_ONLY;
        cr_assert_eq(shmd_create(client, "/a", &options, &region, 0), -EINVAL);
        options.struct_size = 0;
        cr_assert_eq(shmd_create(client, "/a", &options, &region, 0), -EINVAL);

        /* A caller of a later version, asking for something this one does not know. */
        newer.known.struct_size = sizeof(newer);
        newer.later = 1;
        cr_assert_eq(shmd_create(client, "/a", &newer.known, &region, 0), -EINVAL);
        cr_assert_null(region);
        peer_join(client);
}

static void script_newer(Peer *peer) {
        const Shmd__Create *create = peer_expect(peer, MESSAGE_CREATE);

        REQUIRE(create->size == 4096);
        peer_grant(peer, 1, 4096, SHMD_RIGHTS_READ_WRITE);
        peer_expect_end(peer);
}

TEST(client_ops, a_caller_of_a_later_version_that_asks_for_nothing_new_is_served) {
        struct {
                struct shmd_create_options known;
                uint64_t later;
        } newer = { .known = SHMD_CREATE_OPTIONS_INIT };
        shmd *client = peer_start_and_connect(script_newer);
        shmd_region *region;

        newer.known.struct_size = sizeof(newer);
        newer.known.size = 4096;
        cr_assert_eq(shmd_create(client, "/a", &newer.known, &region, 0), 0);
        shmd_region_free(region);
        peer_join(client);
}

/* -- batch ---------------------------------------------------------------------------- */

static void script_batch(Peer *peer) {
        for (unsigned int i = 0; i < ROUNDS; ++i) {
                const Shmd__Batch *batch = peer_expect(peer, MESSAGE_BATCH);
                Shmd__Granted a = SHMD__GRANTED__INIT, b = SHMD__GRANTED__INIT, c = SHMD__GRANTED__INIT;
                Shmd__Granted *items[] = { &a, &b, &c };
                int fds[] = { peer_memfd(4096, 0), peer_memfd(8192, 0) };

                REQUIRE(batch->n_items == 3);
                REQUIRE(batch->items[0]->create && !batch->items[0]->open && batch->items[0]->create->path.len == 0);
                REQUIRE(batch->items[1]->create && batch->items[1]->create->rights == SHMD_RIGHTS_NONE);
                REQUIRE(batch->items[2]->open && is(&batch->items[2]->open->path, "/c"));
                a.region = 1, a.size = 4096, a.rights = 2, a.granted = true, a.outcome = 1;
                b.region = 2, b.size = 1, b.outcome = 1;
                c.region = 3, c.size = 8192, c.rights = 1, c.granted = true;
                peer_reply(peer, MESSAGE(BatchReply, batch_reply, .n_items = 3, .items = items), fds, 2);
                close_fd(fds[0]);
                close_fd(fds[1]);
        }
        peer_expect_end(peer);
}

static shmd_region *batch_got[3];

FINISH(finish_batch, shmd_batch_finish(call, batch_got, 3));

static void check_batch(void) {
        struct stat st;

        for (uint64_t i = 0; i < 3; ++i)
                cr_assert_eq(shmd_region_id(batch_got[i]), i + 1);
        cr_assert_eq(fstat(shmd_region_fd(batch_got[0]), &st), 0);
        cr_assert_eq(st.st_size, 4096, "the first descriptor is the first grant's");
        cr_assert_eq(shmd_region_fd(batch_got[1]), -EBADF);
        cr_assert_eq(fstat(shmd_region_fd(batch_got[2]), &st), 0);
        cr_assert_eq(st.st_size, 8192);
        for (size_t i = 0; i < 3; ++i)
                batch_got[i] = shmd_region_free(batch_got[i]);
}

static void script_freeze(Peer *peer) {
        (void)peer_expect(peer, MESSAGE_OPEN);
        peer_grant(peer, 77, 4096, SHMD_RIGHTS_READ_WRITE);
        for (unsigned int i = 0; i < ROUNDS; ++i) {
                const Shmd__Freeze *freeze = peer_expect(peer, MESSAGE_FREEZE);

                REQUIRE(freeze->path.len == 0 && freeze->region == 77 && freeze->how == SHMD_FREEZE_SINGLE_WRITER);
                peer_reply(peer, MESSAGE(FreezeReply, freeze_reply, .seals = 0x17), NULL, 0);
        }
        peer_expect_end(peer);
}

FINISH(finish_freeze, shmd_freeze_finish(call));

TEST(client_ops, a_freeze_names_the_region_by_its_number) {
        shmd *client = peer_start_and_connect(script_freeze);
        shmd_region *region;

        cr_assert_eq(shmd_open(client, "/a", SHMD_RIGHTS_READ_WRITE, &region, 0), 0);
        cr_assert_eq(shmd_freeze(client, region, SHMD_FREEZE_SINGLE_WRITER, 0), 0);
        dispatch(client, shmd_freeze_start(client, region, SHMD_FREEZE_SINGLE_WRITER, 0, finish_freeze, NULL, NULL));
        region = shmd_region_free(region);
        peer_join(client);
}

static void script_no_freeze(Peer *peer) {
        (void)peer_expect(peer, MESSAGE_OPEN);
        peer_grant(peer, 77, 4096, SHMD_RIGHTS_READ_ONLY);
        peer_expect_end(peer);
}

TEST(client_ops, what_cannot_be_frozen_from_here_is_not_asked_for) {
        shmd *client = peer_start_and_connect(script_no_freeze);
        shmd_region *region;
        int fd;

        cr_assert_eq(shmd_open(client, "/a", SHMD_RIGHTS_READ_ONLY, &region, 0), 0);
        cr_assert_eq(shmd_freeze(client, region, SHMD_FREEZE_IMMUTABLE, 0), -EACCES);
        cr_assert(*shmd_refusal(client)->sentence);
        cr_assert_eq(shmd_freeze(client, region, 2, 0), -EINVAL);
        cr_assert_eq(shmd_freeze(client, NULL, SHMD_FREEZE_IMMUTABLE, 0), -EINVAL);
        fd = shmd_region_steal_fd(region);
        cr_assert_eq(shmd_freeze(client, region, SHMD_FREEZE_IMMUTABLE, 0), -EBADF);
        cr_assert_eq(shmd_freeze_start(client, region, SHMD_FREEZE_IMMUTABLE, 0, NULL, NULL, NULL), -EBADF);
        REQUIRE(close(fd) == 0);
        region = shmd_region_free(region);
        peer_join(client);
}

TEST(client_ops, a_batch_has_each_descriptor_with_its_item) {
        struct shmd_create_options options = SHMD_CREATE_OPTIONS_INIT;
        struct shmd_create_options none = SHMD_CREATE_OPTIONS_INIT;
        const struct shmd_batch_item items[] = {
                { .create = &options },
                { .path = "/b", .create = &none },
                { .path = "/c", .rights = SHMD_RIGHTS_READ_ONLY },
        };
        shmd *client = peer_start_and_connect(script_batch);

        options.size = 4096;
        none.rights = SHMD_RIGHTS_NONE;
        cr_assert_eq(shmd_batch(client, items, 3, batch_got, 0), 0);
        check_batch();
        dispatch(client, shmd_batch_start(client, items, 3, 0, finish_batch, NULL, NULL));
        check_batch();
        peer_join(client);
}

TEST(client_ops, a_batch_of_nothing_or_too_much_is_refused_here) {
        struct shmd_batch_item items[SHMD_BATCH_MAX + 1];
        shmd *client = peer_start_and_connect(script_nothing);
        shmd_region *regions[SHMD_BATCH_MAX + 1];
        char path[1024];

        memset(path, 'a', sizeof(path));
        for (size_t i = 0; i < sizeof(path); i += 250)
                path[i] = '/';
        path[sizeof(path) - 1] = '\0';
        for (size_t i = 0; i <= SHMD_BATCH_MAX; ++i)
                items[i] = (struct shmd_batch_item){ .path = path, .rights = SHMD_RIGHTS_READ_ONLY };
        cr_assert_eq(shmd_batch(client, items, 0, regions, 0), -EINVAL);
        cr_assert_eq(shmd_batch(client, items, SHMD_BATCH_MAX + 1, regions, 0), -E2BIG);
        cr_assert_eq(shmd_batch(client, items, SHMD_BATCH_MAX, regions, 0), -E2BIG, "more than a packet");
        cr_assert_null(regions[0]);
        peer_join(client);
}

static void script_largest_batch(Peer *peer) {
        const Shmd__Batch *batch = peer_expect(peer, MESSAGE_BATCH);
        Shmd__Granted granted[SHMD_BATCH_MAX];
        Shmd__Granted *items[SHMD_BATCH_MAX];
        int fds[SHMD_BATCH_MAX];

        REQUIRE(batch->n_items == SHMD_BATCH_MAX);
        for (unsigned int i = 0; i < SHMD_BATCH_MAX; ++i) {
                granted[i] = (Shmd__Granted)SHMD__GRANTED__INIT;
                granted[i].region = i + 1;
                granted[i].size = 4096;
                granted[i].rights = SHMD_RIGHTS_READ_ONLY;
                granted[i].granted = true;
                items[i] = &granted[i];
                fds[i] = peer_memfd(4096, 0);
        }
        peer_reply(peer, MESSAGE(BatchReply, batch_reply, .n_items = SHMD_BATCH_MAX, .items = items), fds,
                   SHMD_BATCH_MAX);
        peer_expect_end(peer);
}

TEST(client_ops, the_largest_batch_works) {
        struct shmd_batch_item items[SHMD_BATCH_MAX];
        shmd_region *regions[SHMD_BATCH_MAX];
        shmd *client = peer_start_and_connect(script_largest_batch);

        for (size_t i = 0; i < SHMD_BATCH_MAX; ++i)
                items[i] = (struct shmd_batch_item){ .path = "/a", .rights = SHMD_RIGHTS_READ_ONLY };
        cr_assert_eq(shmd_batch(client, items, SHMD_BATCH_MAX, regions, 0), 0);
        for (size_t i = 0; i < SHMD_BATCH_MAX; ++i) {
                cr_assert_eq(shmd_region_id(regions[i]), i + 1);
                shmd_region_free(regions[i]);
        }
        peer_join(client);
}

/* -- looking -------------------------------------------------------------------------- */

static const Shmd__Node region_node = {
        .base = PROTOBUF_C_MESSAGE_INIT(&shmd__node__descriptor),
        .path = { 5, (uint8_t *)"/a/b\0" }, .kind = SHMD_NODE_REGION, .uid = 1, .gid = 2, .mode = 0640, .region = 3,
        .size = 5000, .charge = 8192, .lifetime = 1, .huge_page_size = 21, .freezable = true, .seals = 6,
        .created_ns = 7, .grants = 8, .names = 9, .granted = 10, .allocated = 11, .bell = 12,
        .ttl_ns = 13,
};
static const Shmd__Node directory_node = {
        .base = PROTOBUF_C_MESSAGE_INIT(&shmd__node__descriptor),
        .path = { 2, (uint8_t *)"/a" }, .kind = SHMD_NODE_DIRECTORY, .uid = 1, .gid = 2, .mode = 01777, .entries = 4,
};

static void check_region_node(const struct shmd_node *node) {
        cr_assert_str_eq(node->path, "/a/b");
        cr_assert_eq(node->kind, SHMD_NODE_REGION);
        cr_assert_eq(node->uid, 1);
        cr_assert_eq(node->gid, 2);
        cr_assert_eq(node->mode, 0640);
        cr_assert_eq(node->region, 3);
        cr_assert_eq(node->size, 5000);
        cr_assert_eq(node->charge, 8192);
        cr_assert_eq(node->lifetime, SHMD_LIFETIME_SESSION);
        cr_assert_eq(node->page_size, 2 << 20);
        cr_assert(node->freezable);
        cr_assert_eq(node->seals, 6);
        cr_assert_eq(node->created_ns, 7);
        cr_assert_eq(node->grants, 8);
        cr_assert_eq(node->names, 9);
        cr_assert_eq(node->granted, 10);
        cr_assert_eq(node->allocated, 11);
        cr_assert_eq(node->bell, 12);
        cr_assert_eq(node->ttl_ns, 13);
}

static void check_directory_node(const struct shmd_node *node) {
        cr_assert_str_eq(node->path, "/a");
        cr_assert_eq(node->kind, SHMD_NODE_DIRECTORY);
        cr_assert_eq(node->mode, 01777);
        cr_assert_eq(node->entries, 4);
        cr_assert_eq(node->page_size, 0);
}

static void script_stat(Peer *peer) {
        Shmd__Holder holder = SHMD__HOLDER__INIT;
        Shmd__Holder *holders[] = { &holder, &holder };
        ProtobufCBinaryData names[] = { BYTES("/a/b"), BYTES("/c") };
        const Shmd__Stat *stat;

        holder.grant = 11, holder.uid = 12, holder.pid = 13, holder.rights = 1, holder.age_ns = 14;
        holder.pidfd_ino = 15, holder.marked = true, holder.connected = true, holder.ticket = true;
        for (unsigned int i = 0; i < ROUNDS; ++i) {
                stat = peer_expect(peer, MESSAGE_STAT);
                REQUIRE(is(&stat->path, "/a/b") && stat->region == 0 && stat->flags == 3);
                peer_reply(peer, MESSAGE(StatReply, stat_reply, .node = (Shmd__Node *)&region_node, .n_holders = 2,
                                         .holders = holders, .more = 9, .held = true, .held_known = true,
                                         .explained = SHMD_EXPLAINED_NO, .n_names = 2, .names = names), NULL, 0);
        }
        stat = peer_expect(peer, MESSAGE_STAT);
        REQUIRE(stat->path.len == 0 && stat->region == 3 && stat->flags == 0);
        peer_reply(peer, MESSAGE(StatReply, stat_reply, .node = (Shmd__Node *)&directory_node), NULL, 0);
        peer_expect_end(peer);
}

static struct shmd_stat_result *stat_got;

FINISH(finish_stat, shmd_stat_finish(call, &stat_got));

static void check_stat(void) {
        check_region_node(&stat_got->node);
        cr_assert_eq(stat_got->n_holders, 2);
        cr_assert_eq(stat_got->holders[1].grant, 11);
        cr_assert_eq(stat_got->holders[1].uid, 12);
        cr_assert_eq(stat_got->holders[1].pid, 13);
        cr_assert_eq(stat_got->holders[1].rights, SHMD_RIGHTS_READ_ONLY);
        cr_assert_eq(stat_got->holders[1].age_ns, 14);
        cr_assert_eq(stat_got->holders[1].pidfd_ino, 15);
        cr_assert(stat_got->holders[1].marked && stat_got->holders[1].connected && stat_got->holders[1].ticket);
        cr_assert_eq(stat_got->more_holders, 9);
        cr_assert(stat_got->held && stat_got->held_known);
        cr_assert_eq(stat_got->explained, SHMD_EXPLAINED_NO);
        cr_assert_eq(stat_got->n_names, 2);
        cr_assert_str_eq(stat_got->names[0], "/a/b");
        cr_assert_str_eq(stat_got->names[1], "/c");
        stat_got = shmd_stat_free(stat_got);
}

TEST(client_ops, stat_says_everything_about_a_node) {
        shmd *client = peer_start_and_connect(script_stat);

        cr_assert_eq(shmd_stat(client, "/a/b", 99, SHMD_STAT_HOLDERS | SHMD_STAT_NAMES, &stat_got, 0), 0);
        check_stat();
        dispatch(client, shmd_stat_start(client, "/a/b", 99, SHMD_STAT_HOLDERS | SHMD_STAT_NAMES, 0,
                                         finish_stat, NULL, NULL));
        check_stat();
        cr_assert_eq(shmd_stat(client, NULL, 3, 0, &stat_got, 0), 0);
        check_directory_node(&stat_got->node);
        cr_assert_eq(stat_got->n_holders, 0);
        cr_assert_null(shmd_stat_free(stat_got));
        cr_assert_null(shmd_stat_free(NULL));
        peer_join(client);
}

static void script_wait(Peer *peer) {
        const Shmd__Wait *wait;

        for (unsigned int i = 0; i < ROUNDS; ++i) {
                wait = peer_expect(peer, MESSAGE_WAIT);
                REQUIRE(is(&wait->path, "/a/b") && wait->timeout_ns == 7 * SECOND);
                peer_reply(peer, MESSAGE(WaitReply, wait_reply, .node = (Shmd__Node *)&region_node), NULL, 0);
        }
        wait = peer_expect(peer, MESSAGE_WAIT);
        REQUIRE(wait->timeout_ns == UINT64_MAX);
        peer_reply(peer, MESSAGE(WaitReply, wait_reply, .node = (Shmd__Node *)&region_node), NULL, 0);
        wait = peer_expect(peer, MESSAGE_WAIT);
        REQUIRE(wait->timeout_ns == 25 * SECOND, "the connection's default");
        peer_reply(peer, MESSAGE(WaitReply, wait_reply, .node = (Shmd__Node *)&directory_node), NULL, 0);

        /* The broker's own answer that time is up comes after the time, and counts. */
        wait = peer_expect(peer, MESSAGE_WAIT);
        REQUIRE(wait->timeout_ns == SECOND / 20);
        test_sleep_ms(100);
        peer_refuse(peer, SHMD_ERROR_TIMEOUT, SHMD__REASON__REASON_DEADLINE, "it did not appear");
        peer_expect_end(peer);
}

FINISH(finish_wait, shmd_wait_finish(call, &stat_got));

TEST(client_ops, wait_returns_what_appeared) {
        shmd *client = peer_start_and_connect(script_wait);

        cr_assert_eq(shmd_wait(client, "/a/b", &stat_got, 7 * SECOND), 0);
        check_region_node(&stat_got->node);
        cr_assert_eq(stat_got->n_holders, 0);
        shmd_stat_free(stat_got);
        dispatch(client, shmd_wait_start(client, "/a/b", 7 * SECOND, finish_wait, NULL, NULL));
        check_region_node(&stat_got->node);
        shmd_stat_free(stat_got);
        cr_assert_eq(shmd_wait(client, "/a/b", NULL, SHMD_TIMEOUT_NONE), 0);
        cr_assert_eq(shmd_wait(client, "/a/b", NULL, SHMD_TIMEOUT_DEFAULT), 0);

        cr_assert_eq(shmd_wait(client, "/a/b", NULL, SECOND / 20), -ETIMEDOUT);
        cr_assert_eq(shmd_refusal(client)->code, SHMD_ERROR_TIMEOUT);
        cr_assert_str_eq(shmd_refusal(client)->sentence, "it did not appear");
        peer_join(client);
}

static void script_wait_for_region(Peer *peer) {
        static const uint32_t until[] = { SHMD__WAIT_FOR__WAIT_UNHELD, SHMD__WAIT_FOR__WAIT_FROZEN };

        for (int i = 0; i < 4; ++i) {
                const Shmd__Wait *wait = peer_expect(peer, MESSAGE_WAIT);

                REQUIRE(wait->until == until[i / 2] && wait->region == 0 && is(&wait->path, "/a/b"));
                REQUIRE(wait->timeout_ns == 7 * SECOND);
                peer_reply(peer, MESSAGE(WaitReply, wait_reply, .node = (Shmd__Node *)&region_node), NULL, 0);
        }
        for (int i = 0; i < 2; ++i) {
                const Shmd__Wait *wait = peer_expect(peer, MESSAGE_WAIT);

                REQUIRE(wait->until == until[i] && wait->region == 9 && wait->path.len == 0);
                peer_reply(peer, MESSAGE(WaitReply, wait_reply, .node = (Shmd__Node *)&region_node), NULL, 0);
        }
}

TEST(client_ops, wait_for_a_region_says_what_for_and_by_name_or_number) {
        shmd *client = peer_start_and_connect(script_wait_for_region);

        cr_assert_eq(shmd_wait_unheld(client, "/a/b", 9, &stat_got, 7 * SECOND), 0);
        stat_got = shmd_stat_free(stat_got);
        dispatch(client, shmd_wait_unheld_start(client, "/a/b", 9, 7 * SECOND, finish_wait, NULL, NULL));
        stat_got = shmd_stat_free(stat_got);
        cr_assert_eq(shmd_wait_frozen(client, "/a/b", 0, &stat_got, 7 * SECOND), 0);
        stat_got = shmd_stat_free(stat_got);
        dispatch(client, shmd_wait_frozen_start(client, "/a/b", 0, 7 * SECOND, finish_wait, NULL, NULL));
        stat_got = shmd_stat_free(stat_got);
        cr_assert_eq(shmd_wait_unheld(client, NULL, 9, NULL, SECOND), 0);
        cr_assert_eq(shmd_wait_frozen(client, NULL, 9, NULL, SECOND), 0);
        cr_assert_eq(shmd_wait_unheld(client, NULL, 0, NULL, SECOND), -EINVAL);
        peer_join(client);
}

static void script_list(Peer *peer) {
        Shmd__Node *nodes[] = { (Shmd__Node *)&directory_node, (Shmd__Node *)&region_node };
        const Shmd__List *list;

        for (unsigned int i = 0; i < ROUNDS; ++i) {
                list = peer_expect(peer, MESSAGE_LIST);
                REQUIRE(is(&list->path, "/") && list->flags == SHMD_LIST_RECURSIVE && list->cursor.len == 0);
                REQUIRE(list->limit == 2);
                peer_reply(peer, MESSAGE(ListReply, list_reply, .n_nodes = 2, .nodes = nodes, .cursor = BYTES("/a/b")),
                           NULL, 0);
                list = peer_expect(peer, MESSAGE_LIST);
                REQUIRE(is(&list->cursor, "/a/b"));
                peer_reply(peer, MESSAGE(ListReply, list_reply), NULL, 0);
        }
        peer_expect_end(peer);
}

static struct shmd_list_result *list_got;

FINISH(finish_list, shmd_list_finish(call, &list_got));

static void check_first_page(void) {
        cr_assert_eq(list_got->n, 2);
        check_directory_node(&list_got->nodes[0]);
        check_region_node(&list_got->nodes[1]);
        cr_assert_str_eq(list_got->cursor, "/a/b");
        shmd_list_free(list_got);
}

static void check_last_page(void) {
        cr_assert_eq(list_got->n, 0);
        cr_assert_null(list_got->cursor);
        cr_assert_null(shmd_list_free(list_got));
}

TEST(client_ops, list_comes_in_pages) {
        shmd *client = peer_start_and_connect(script_list);

        cr_assert_eq(shmd_list(client, "/", SHMD_LIST_RECURSIVE, NULL, 2, &list_got, 0), 0);
        check_first_page();
        cr_assert_eq(shmd_list(client, "/", SHMD_LIST_RECURSIVE, "/a/b", 2, &list_got, 0), 0);
        check_last_page();
        dispatch(client, shmd_list_start(client, "/", SHMD_LIST_RECURSIVE, NULL, 2, 0, finish_list, NULL, NULL));
        check_first_page();
        dispatch(client, shmd_list_start(client, "/", SHMD_LIST_RECURSIVE, "/a/b", 2, 0, finish_list, NULL, NULL));
        check_last_page();
        cr_assert_null(shmd_list_free(NULL));
        peer_join(client);
}

static void script_orphans(Peer *peer) {
        Shmd__Node *nodes[] = { (Shmd__Node *)&region_node };
        const Shmd__List *list;

        list = peer_expect(peer, MESSAGE_LIST);
        REQUIRE(list->path.len == 0 && list->cursor.len == 0 && list->orphan == 0);
        REQUIRE(list->flags == (SHMD_LIST_ORPHANS | SHMD_LIST_USAGE));
        peer_reply(peer, MESSAGE(ListReply, list_reply, .n_nodes = 1, .nodes = nodes, .orphan = UINT64_MAX), NULL, 0);
        list = peer_expect(peer, MESSAGE_LIST);
        REQUIRE(list->orphan == UINT64_MAX);
        peer_reply(peer, MESSAGE(ListReply, list_reply), NULL, 0);
        peer_expect_end(peer);
}

TEST(client_ops, orphans_are_listed_by_number_and_without_a_path) {
        static const char *const wrong[] = { "/a/b", "", "0", "1x", "18446744073709551616" };
        const uint32_t flags = SHMD_LIST_ORPHANS | SHMD_LIST_USAGE;
        shmd *client = peer_start_and_connect(script_orphans);

        cr_assert_eq(shmd_list(client, NULL, flags, NULL, 0, &list_got, 0), 0);
        cr_assert_eq(list_got->n, 1);
        check_region_node(&list_got->nodes[0]);
        cr_assert_str_eq(list_got->cursor, "18446744073709551615");
        shmd_list_free(list_got);
        cr_assert_eq(shmd_list(client, NULL, flags, "18446744073709551615", 0, &list_got, 0), 0);
        check_last_page();

        cr_assert_eq(shmd_list(client, "/", flags, NULL, 0, &list_got, 0), -EINVAL);
        cr_assert_eq(shmd_list(client, NULL, flags | SHMD_LIST_RECURSIVE, NULL, 0, &list_got, 0), -EINVAL);
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); ++i)
                cr_assert_eq(shmd_list(client, NULL, flags, wrong[i], 0, &list_got, 0), -EINVAL, "%s", wrong[i]);
        peer_join(client);
}

/* As many of the shortest names as one packet holds. */
#define SHORT_NAMES 5000

static void script_long_list(Peer *peer) {
        Shmd__Node **nodes = malloc(SHORT_NAMES * sizeof(*nodes));
        Shmd__Node node = SHMD__NODE__INIT;

        REQUIRE(nodes != NULL);
        node.path = BYTES("/abc");
        node.mode = 0755;
        for (size_t i = 0; i < SHORT_NAMES; ++i)
                nodes[i] = &node;
        peer_expect(peer, MESSAGE_LIST);
        peer_reply(peer, MESSAGE(ListReply, list_reply, .n_nodes = SHORT_NAMES, .nodes = nodes), NULL, 0);
        free(nodes);
        peer_expect_end(peer);
}

TEST(client_ops, a_packet_full_of_short_names_fits_the_arena) {
        shmd *client = peer_start_and_connect(script_long_list);

        cr_assert_eq(shmd_list(client, "/", 0, NULL, 0, &list_got, 0), 0);
        cr_assert_eq(list_got->n, SHORT_NAMES);
        cr_assert_str_eq(list_got->nodes[SHORT_NAMES - 1].path, "/abc");
        shmd_list_free(list_got);
        peer_join(client);
}

/* -- tickets -------------------------------------------------------------------------- */

#define TICKET_TEXT "shmdt_0123456789012345678901234567890123456789-_A"

static void script_ticket(Peer *peer) {
        const Shmd__Ticket *ticket;

        for (unsigned int i = 0; i < ROUNDS; ++i) {
                ticket = peer_expect(peer, MESSAGE_TICKET);
                REQUIRE(is(&ticket->path, "/a") && ticket->region == 0 && ticket->rights == SHMD_RIGHTS_READ_WRITE);
                REQUIRE(ticket->uses == 3 && ticket->ttl_ns == 4 && ticket->uid == 5);
                REQUIRE(ticket->flags == SHMD__TICKET_FLAGS__TICKET_ONE_USER);
                peer_reply(peer, MESSAGE(TicketReply, ticket_reply, .id = 6, .ticket = BYTES(TICKET_TEXT), .ttl_ns = 7),
                           NULL, 0);
        }
        ticket = peer_expect(peer, MESSAGE_TICKET);
        REQUIRE(ticket->path.len == 0 && ticket->region == 17 && ticket->rights == SHMD_RIGHTS_READ_ONLY);
        REQUIRE(ticket->uses == 1 && ticket->ttl_ns == 0 && ticket->flags == 0 && ticket->uid == 0);
        peer_reply(peer, MESSAGE(TicketReply, ticket_reply, .id = 1), NULL, 0);
        peer_expect_end(peer);
}

static struct shmd_ticket_result *ticket_got;

FINISH(finish_ticket, shmd_ticket_finish(call, &ticket_got));

static void check_ticket(void) {
        cr_assert_str_eq(ticket_got->ticket, TICKET_TEXT);
        cr_assert(ticket_got->id == 6 && ticket_got->ttl_ns == 7);
        ticket_got = shmd_ticket_free(ticket_got);
}

TEST(client_ops, ticket_returns_the_string_and_its_number) {
        struct shmd_ticket_options options = SHMD_TICKET_OPTIONS_INIT;
        shmd *client = peer_start_and_connect(script_ticket);

        options.rights = SHMD_RIGHTS_READ_WRITE, options.uses = 3, options.ttl_ns = 4, options.uid = 5;
        cr_assert_eq(shmd_ticket(client, "/a", 99, &options, &ticket_got, 0), 0);
        check_ticket();
        dispatch(client, shmd_ticket_start(client, "/a", 99, &options, 0, finish_ticket, NULL, NULL));
        check_ticket();
        cr_assert_eq(shmd_ticket(client, NULL, 17, NULL, &ticket_got, 0), -EPROTO, "an empty one is none");
        cr_assert_null(ticket_got);
        options.struct_size = 1;
        cr_assert_eq(shmd_ticket(client, "/a", 0, &options, &ticket_got, 0), -EINVAL);
        cr_assert_eq(shmd_ticket(client, "a", 0, NULL, &ticket_got, 0), -EINVAL);
        cr_assert_null(shmd_ticket_free(NULL));
        peer_join(client);
}

static void script_redeem(Peer *peer) {
        for (unsigned int i = 0; i < ROUNDS; ++i) {
                const Shmd__Redeem *redeem = peer_expect(peer, MESSAGE_REDEEM);

                REQUIRE(is(&redeem->ticket, TICKET_TEXT));
                peer_grant(peer, 8, 4096, SHMD_RIGHTS_READ_WRITE);
        }
        peer_expect(peer, MESSAGE_REDEEM);
        peer_refuse(peer, SHMD_ERROR_DENIED, SHMD__REASON__REASON_TICKET, "no");
        peer_expect(peer, MESSAGE_REDEEM);
        peer_reply(peer, MESSAGE(Granted, granted, .region = 8, .size = 4096), NULL, 0);
        peer_expect_end(peer);
}

static shmd_region *redeemed;

FINISH(finish_redeem, shmd_redeem_finish(call, &redeemed));

static void check_redeemed(void) {
        cr_assert(shmd_region_id(redeemed) == 8 && shmd_region_size(redeemed) == 4096);
        cr_assert(shmd_region_rights(redeemed) == SHMD_RIGHTS_READ_WRITE && shmd_region_fd(redeemed) >= 0);
        redeemed = shmd_region_free(redeemed);
}

TEST(client_ops, redeem_returns_a_region) {
        shmd *client = peer_start_and_connect(script_redeem);

        cr_assert_eq(shmd_redeem(client, TICKET_TEXT, &redeemed, 0), 0);
        check_redeemed();
        dispatch(client, shmd_redeem_start(client, TICKET_TEXT, 0, finish_redeem, NULL, NULL));
        check_redeemed();
        cr_assert_eq(shmd_redeem(client, "", &redeemed, 0), -EACCES, "what a ticket is the broker alone says");
        cr_assert_null(redeemed);
        cr_assert_str_eq(shmd_reason_name(shmd_refusal(client)->reason), "ticket");
        cr_assert_eq(shmd_redeem(client, "x", &redeemed, 0), -EPROTO, "a grant without a descriptor breaks the protocol");
        cr_assert_null(redeemed);
        peer_join(client);
}

static void script_revoke(Peer *peer) {
        const Shmd__Revoke *revoke;

        for (unsigned int i = 0; i < ROUNDS; ++i) {
                revoke = peer_expect(peer, MESSAGE_REVOKE);
                REQUIRE(revoke->id == 6 && revoke->path.len == 0 && revoke->region == 0 && revoke->ticket.len == 0);
                peer_reply(peer, MESSAGE(RevokeReply, revoke_reply, .revoked = 1), NULL, 0);
        }
        revoke = peer_expect(peer, MESSAGE_REVOKE);
        REQUIRE(is(&revoke->ticket, TICKET_TEXT) && revoke->id == 0 && revoke->path.len == 0);
        peer_reply(peer, MESSAGE(RevokeReply, revoke_reply, .revoked = 1), NULL, 0);
        revoke = peer_expect(peer, MESSAGE_REVOKE);
        REQUIRE(is(&revoke->path, "/a") && revoke->region == 0 && revoke->id == 0);
        peer_reply(peer, MESSAGE(RevokeReply, revoke_reply, .revoked = 9), NULL, 0);
        revoke = peer_expect(peer, MESSAGE_REVOKE);
        REQUIRE(revoke->region == 17 && revoke->path.len == 0 && revoke->id == 0);
        peer_reply(peer, MESSAGE(RevokeReply, revoke_reply), NULL, 0);
        peer_expect_end(peer);
}

static uint32_t revoked;

FINISH(finish_revoke, shmd_revoke_finish(call, &revoked));

TEST(client_ops, revoke_names_a_ticket_or_a_region) {
        shmd *client = peer_start_and_connect(script_revoke);

        cr_assert_eq(shmd_revoke(client, SHMD_REVOKE_NUMBER, "ignored", 6, &revoked, 0), 0);
        cr_assert_eq(revoked, 1);
        dispatch(client, shmd_revoke_start(client, SHMD_REVOKE_NUMBER, NULL, 6, 0, finish_revoke, NULL, NULL));
        cr_assert_eq(revoked, 1);
        cr_assert_eq(shmd_revoke(client, SHMD_REVOKE_TICKET, TICKET_TEXT, 6, NULL, 0), 0);
        cr_assert_eq(shmd_revoke(client, SHMD_REVOKE_ALL, "/a", 6, &revoked, 0), 0);
        cr_assert_eq(revoked, 9);
        cr_assert_eq(shmd_revoke(client, SHMD_REVOKE_ALL, NULL, 17, &revoked, 0), 0);
        cr_assert_eq(revoked, 0);
        cr_assert_eq(shmd_revoke(client, 3, NULL, 6, &revoked, 0), -EINVAL);
        peer_join(client);
}

static void script_tickets(Peer *peer) {
        Shmd__TicketInfo infos[] = { SHMD__TICKET_INFO__INIT, SHMD__TICKET_INFO__INIT };
        Shmd__TicketInfo *pointers[] = { &infos[0], &infos[1] };

        infos[0].id = 1, infos[0].rights = 2, infos[0].left = 3, infos[0].ttl_ns = 4;
        infos[1].id = 5, infos[1].rights = 1, infos[1].left = 6, infos[1].ttl_ns = 7, infos[1].one_user = true;
        for (unsigned int i = 0; i < ROUNDS; ++i) {
                const Shmd__Tickets *list = peer_expect(peer, MESSAGE_TICKETS);

                REQUIRE(is(&list->path, "/a") && list->region == 0 && list->cursor == 8);
                peer_reply(peer, MESSAGE(TicketsReply, tickets_reply, .n_tickets = 2, .tickets = pointers, .cursor = 5),
                           NULL, 0);
        }
        peer_expect_end(peer);
}

static struct shmd_tickets_result *tickets_got;

FINISH(finish_tickets, shmd_tickets_finish(call, &tickets_got));

static void check_tickets(void) {
        const struct shmd_ticket_info *info = tickets_got->tickets;

        cr_assert(tickets_got->n == 2 && tickets_got->cursor == 5);
        cr_assert(info[0].id == 1 && info[0].rights == 2 && info[0].left == 3 && info[0].ttl_ns == 4);
        cr_assert(info[0].uid == (uid_t)-1 && info[1].uid == 0, "root is somebody, nobody in particular is not root");
        cr_assert(info[1].id == 5 && info[1].rights == 1 && info[1].left == 6 && info[1].ttl_ns == 7);
        tickets_got = shmd_tickets_free(tickets_got);
}

TEST(client_ops, tickets_come_in_pages) {
        shmd *client = peer_start_and_connect(script_tickets);

        cr_assert_eq(shmd_tickets(client, "/a", 99, 8, &tickets_got, 0), 0);
        check_tickets();
        dispatch(client, shmd_tickets_start(client, "/a", 99, 8, 0, finish_tickets, NULL, NULL));
        check_tickets();
        cr_assert_null(shmd_tickets_free(NULL));
        peer_join(client);
}

/* -- doorbells ------------------------------------------------------------------------ */

/* Opened again, as the broker's are: inotify tells nothing of what is written through the descriptor
 * that memfd_create(2) returned. */
static void script_bell(Peer *peer) {
        int original = peer_memfd(4096, 0), fd, reader;
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", original);
        fd = open(path, O_RDWR | O_CLOEXEC);
        reader = open(path, O_RDONLY | O_CLOEXEC);
        close_fd(original);
        for (unsigned int i = 0; i < ROUNDS; ++i) {
                const Shmd__Bell *bell = peer_expect(peer, MESSAGE_BELL);

                REQUIRE(is(&bell->path, "/a") && bell->region == 0 && bell->flags == SHMD_BELL_RING);
                peer_reply(peer, MESSAGE(BellReply, bell_reply, .page = 5, .size = 4096), &fd, 1);
                bell = peer_expect(peer, MESSAGE_BELL);
                REQUIRE(bell->path.len == 0 && bell->region == 17 && bell->flags == 0);
                peer_reply(peer, MESSAGE(BellReply, bell_reply, .page = 5, .size = 4096), &reader, 1);
                bell = peer_expect(peer, MESSAGE_BELL);
                REQUIRE(bell->path.len == 0 && bell->region == 5 && bell->flags == SHMD__BELL_FLAGS__BELL_POLL);
                if (i == 0)
                        peer_refuse(peer, SHMD_ERROR_BUSY, SHMD__REASON__REASON_HELPER, "locked");
                else
                        peer_reply(peer, MESSAGE(BellReply, bell_reply, .page = 5, .size = 4096), NULL, 0);
        }
        close_fd(fd);
        close_fd(reader);
        peer_expect_end(peer);
}

static shmd_bell *bell_got;

FINISH(finish_bell, shmd_bell_open_finish(call, &bell_got));
FINISH(finish_poll, shmd_bell_poll_finish(call, bell_got));

TEST(client_ops, bells_ring_wait_and_are_polled) {
        shmd *client = peer_start_and_connect(script_bell);
        struct pollfd p = { .events = POLLIN };
        shmd_bell *ringer = NULL;

        cr_assert_eq(shmd_bell_open(client, "/a", 99, SHMD_BELL_RING, &ringer, 0), 0);
        cr_assert_eq(shmd_bell_open(client, NULL, 17, 0, &bell_got, 0), 0);
        cr_assert_eq(shmd_bell_poll(client, bell_got, 0), -EBUSY);
        cr_assert_eq(shmd_bell_fd(bell_got), -EBADF, "it is not pollable then");
        bell_got = shmd_bell_close(bell_got);
        ringer = shmd_bell_close(ringer);

        dispatch(client, shmd_bell_open_start(client, "/a", 99, SHMD_BELL_RING, 0, finish_bell, NULL, NULL));
        ringer = bell_got;
        dispatch(client, shmd_bell_open_start(client, NULL, 17, 0, 0, finish_bell, NULL, NULL));
        dispatch(client, shmd_bell_poll_start(client, bell_got, 0, finish_poll, NULL, NULL));
        p.fd = shmd_bell_fd(bell_got);
        cr_assert_eq(poll(&p, 1, 0), 0);
        cr_assert_eq(shmd_bell_ring(bell_got), -EACCES);
        cr_assert_eq(shmd_bell_ring(ringer), 0);
        cr_assert_eq(shmd_bell_count(bell_got), 1);
        cr_assert_eq(poll(&p, 1, 0), 0, "the broker of the script tells ringers nothing");
        cr_assert_eq(shmd_bell_poll(NULL, ringer, 0), 0, "a ringer tells them itself");
        cr_assert_eq(shmd_bell_ring(ringer), 0);
        cr_assert_eq(poll(&p, 1, 20000), 1);
        cr_assert_eq(shmd_bell_clear(bell_got), 2);
        cr_assert_eq(poll(&p, 1, 0), 0);
        cr_assert_eq(shmd_bell_wait(bell_got, 1, 0), 0);
        cr_assert_eq(shmd_bell_wait(bell_got, 2, 0), -ETIMEDOUT);
        cr_assert_eq(shmd_bell_wait(bell_got, 2, SECOND / 100), -ETIMEDOUT);
        bell_got = shmd_bell_close(bell_got);
        ringer = shmd_bell_close(ringer);
        cr_assert_eq(shmd_bell_open(client, "/a", 0, 2, &ringer, 0), -EINVAL);
        cr_assert_null(shmd_bell_close(NULL));
        peer_join(client);
}

static void script_bad_bells(Peer *peer) {
        int small = peer_memfd(256, 0), unsealed = peer_memfd(4096, F_SEAL_GROW), short_one = peer_memfd(4095, 0);

        peer_expect(peer, MESSAGE_BELL);
        peer_reply(peer, MESSAGE(BellReply, bell_reply, .page = 5, .size = 256), &small, 1);
        peer_expect(peer, MESSAGE_BELL);
        peer_reply(peer, MESSAGE(BellReply, bell_reply, .page = 5, .size = 4096), &unsealed, 1);
        peer_expect(peer, MESSAGE_BELL);
        peer_reply(peer, MESSAGE(BellReply, bell_reply, .page = 5, .size = 4096), &short_one, 1);
        close_fd(small);
        close_fd(unsealed);
        close_fd(short_one);
        peer_expect_end(peer);
}

TEST(client_ops, a_bell_that_could_raise_sigbus_is_none) {
        shmd *client = peer_start_and_connect(script_bad_bells);

        for (unsigned int i = 0; i < 3; ++i) {
                cr_assert_eq(shmd_bell_open(client, "/a", 0, 0, &bell_got, 0), -EPROTO);
                cr_assert_null(bell_got);
        }
        peer_join(client);
}

/* -- figures -------------------------------------------------------------------------- */

static void reply_df(Peer *peer) {
        Shmd__SlotUse uses[] = { SHMD__SLOT_USE__INIT, SHMD__SLOT_USE__INIT, SHMD__SLOT_USE__INIT };
        Shmd__SlotUse *slots[] = { &uses[0], &uses[1], &uses[2] };
        Shmd__AccountUse account = SHMD__ACCOUNT_USE__INIT;
        Shmd__AccountUse *accounts[] = { &account };

        uses[0].slot = SHMD_SLOT_BYTES, uses[0].limit = UINT64_MAX, uses[0].used = 5;
        uses[1].slot = SHMD_SLOT_MAX, uses[1].limit = 6, uses[1].used = 0;
        uses[2].slot = SHMD_SLOT_MAX + 1, uses[2].limit = 7, uses[2].used = 7;
        account.uid = 42, account.n_slots = 3, account.slots = slots;
        peer_reply(peer, MESSAGE(DfReply, df_reply, .n_accounts = 1, .accounts = accounts, .more = true, .cursor = 43),
                   NULL, 0);
}

static void script_df(Peer *peer) {
        const Shmd__Df *df;

        for (unsigned int i = 0; i < ROUNDS; ++i) {
                df = peer_expect(peer, MESSAGE_DF);
                REQUIRE(df->scope == SHMD_DF_ACCOUNT && df->set_uid && df->uid == 42 && df->path.len == 0);
                reply_df(peer);
        }
        df = peer_expect(peer, MESSAGE_DF);
        REQUIRE(df->scope == SHMD_DF_ACCOUNT && !df->set_uid && df->uid == 0);
        reply_df(peer);
        df = peer_expect(peer, MESSAGE_DF);
        REQUIRE(df->scope == SHMD_DF_DIRECTORY && is(&df->path, "/a") && !df->set_uid);
        reply_df(peer);
        df = peer_expect(peer, MESSAGE_DF);
        REQUIRE(df->scope == SHMD_DF_ACCOUNTS && df->cursor == 43 && !df->set_uid);
        reply_df(peer);
        df = peer_expect(peer, MESSAGE_DF);
        REQUIRE(df->scope == SHMD_DF_TOTAL && df->cursor == 0 && df->path.len == 0);
        reply_df(peer);
        peer_expect_end(peer);
}

static struct shmd_df_result *df_got;

FINISH(finish_df, shmd_df_finish(call, &df_got));

static void check_df(void) {
        cr_assert_eq(df_got->n, 1);
        cr_assert_eq(df_got->usages[0].uid, 42);
        cr_assert_eq(df_got->usages[0].limit[SHMD_SLOT_BYTES], UINT64_MAX);
        cr_assert_eq(df_got->usages[0].used[SHMD_SLOT_BYTES], 5);
        cr_assert_eq(df_got->usages[0].limit[SHMD_SLOT_MAX], 6);
        cr_assert_eq(df_got->usages[0].limit[SHMD_SLOT_REGIONS], 0);
        cr_assert(df_got->more);
        cr_assert_eq(df_got->next_uid, 43);
        df_got = shmd_df_free(df_got);
}

TEST(client_ops, df_of_every_scope) {
        shmd *client = peer_start_and_connect(script_df);

        cr_assert_eq(shmd_df(client, SHMD_DF_ACCOUNT, 42, NULL, &df_got, 0), 0);
        check_df();
        dispatch(client, shmd_df_start(client, SHMD_DF_ACCOUNT, 42, NULL, 0, finish_df, NULL, NULL));
        check_df();
        cr_assert_eq(shmd_df(client, SHMD_DF_ACCOUNT, (uid_t)-1, "ignored", &df_got, 0), 0);
        check_df();
        cr_assert_eq(shmd_df(client, SHMD_DF_DIRECTORY, 42, "/a", &df_got, 0), 0);
        check_df();
        cr_assert_eq(shmd_df(client, SHMD_DF_ACCOUNTS, 43, NULL, &df_got, 0), 0);
        check_df();
        cr_assert_eq(shmd_df(client, SHMD_DF_TOTAL, 43, NULL, &df_got, 0), 0);
        check_df();
        cr_assert_null(shmd_df_free(NULL));
        peer_join(client);
}

/* -- reload ----------------------------------------------------------------------------- */

#define POLICY_BYTES 70000
static uint8_t policy[POLICY_BYTES];

/* Takes the parts of a policy and answers each. Return: how many there were. */
static size_t take_parts(Peer *peer, size_t total) {
        Shmd__ReloadReply reply = SHMD__RELOAD_REPLY__INIT;
        size_t at = 0, n = 0;

        while (at < total) {
                const Shmd__Reload *part = peer_expect(peer, MESSAGE_RELOAD);

                REQUIRE(part->total == total && part->offset == at && part->data.len > 0);
                REQUIRE(!memcmp(part->data.data, policy + at, part->data.len));
                at += part->data.len;
                ++n;
                reply.done = at == total;
                reply.generation = 7;
                reply.directories = reply.done ? 8 : 0;
                reply.accounts = reply.done ? 9 : 0;
                peer_reply(peer, &reply.base, NULL, 0);
        }
        return n;
}

static void script_reload(Peer *peer) {
        Shmd__ReloadReply reply = SHMD__RELOAD_REPLY__INIT;

        REQUIRE(take_parts(peer, 10) == 1);
        REQUIRE(take_parts(peer, POLICY_BYTES) == 3);
        REQUIRE(take_parts(peer, POLICY_BYTES) == 3);
        (void)peer_expect(peer, MESSAGE_RELOAD);
        peer_refuse(peer, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_POLICY, "not one");
        (void)peer_expect(peer, MESSAGE_RELOAD);
        peer_reply(peer, &reply.base, NULL, 0);
        peer_expect_end(peer);
}

static struct shmd_reload_result reload_got;

FINISH(finish_reload, shmd_reload_finish(call, &reload_got));

static void check_reload(void) {
        cr_assert(reload_got.generation == 7 && reload_got.directories == 8 && reload_got.accounts == 9);
        reload_got = (struct shmd_reload_result){ 0 };
}

TEST(client_ops, reload_sends_as_many_parts_as_it_needs) {
        shmd *client;

        for (size_t i = 0; i < POLICY_BYTES; ++i)
                policy[i] = (uint8_t)(i * 31 >> 3);
        client = peer_start_and_connect(script_reload);
        cr_assert_eq(shmd_reload(client, policy, 10, &reload_got, 0), 0, "%s", shmd_refusal(client)->sentence);
        check_reload();
        cr_assert_eq(shmd_reload(client, policy, POLICY_BYTES, &reload_got, 0), 0);
        check_reload();
        dispatch(client, shmd_reload_start(client, policy, POLICY_BYTES, 0, finish_reload, NULL, NULL));
        check_reload();
        cr_assert_eq(shmd_reload(client, policy, 10, NULL, 0), -EINVAL);
        cr_assert_str_eq(shmd_refusal(client)->sentence, "not one");
        cr_assert_eq(shmd_reload(client, policy, 10, NULL, 0), -EPROTO, "the last part and not done");
        cr_assert_eq(shmd_reload(client, policy, 0, NULL, 0), -EINVAL);
        cr_assert_eq(shmd_reload(client, NULL, 1, NULL, 0), -EINVAL);
        cr_assert_eq(shmd_reload(client, policy, SHMD_POLICY_MAX + 1, NULL, 0), -EINVAL);
        cr_assert_str_eq(shmd_refusal(client)->sentence, "a compiled policy has 1 byte to 1 MiB");
        cr_assert_eq(shmd_reload(NULL, policy, 1, NULL, 0), -EINVAL);
        peer_join(client);
}

static void script_stats(Peer *peer) {
        uint64_t buckets[MESSAGE_BUCKETS + 1];
        Shmd__RequestStat request = SHMD__REQUEST_STAT__INIT;
        Shmd__RequestStat *requests[] = { &request, &request };
        Shmd__ReasonStat reason = SHMD__REASON_STAT__INIT;
        Shmd__ReasonStat *reasons[] = { &reason };

        for (uint64_t i = 0; i <= MESSAGE_BUCKETS; ++i)
                buckets[i] = 100 + i;
        request.name = BYTES("open"), request.count = 1, request.refused = 2, request.total_ns = 3;
        request.n_bucket = MESSAGE_BUCKETS + 1, request.bucket = buckets;
        reason.reason = 19, reason.name = BYTES("limit"), reason.count = 4;
        for (unsigned int i = 0; i < ROUNDS; ++i) {
                peer_expect(peer, MESSAGE_STATS);
                peer_reply(peer, MESSAGE(StatsReply, stats_reply, .uptime_ns = 1, .regions = 2, .named = 3,
                                         .orphans = 4, .bytes = 5, .grants = 6, .peers = 7, .waiters = 8,
                                         .directories = 9,
                                         .released = 10, .violations = 11, .accepts_paused = 12, .log_dropped = 13,
                                         .restarts = 14,
                                         .n_requests = 2, .requests = requests, .n_refusals = 1, .refusals = reasons,
                                         .broker = BYTES("1.2.3")), NULL, 0);
        }
        peer_expect_end(peer);
}

static struct shmd_stats_result *stats_got;

FINISH(finish_stats, shmd_stats_finish(call, &stats_got));

static void check_stats(void) {
        const uint64_t figures[] = {
                stats_got->uptime_ns, stats_got->regions, stats_got->named, stats_got->orphans, stats_got->bytes,
                stats_got->grants, stats_got->peers, stats_got->waiters, stats_got->directories, stats_got->released,
                stats_got->violations, stats_got->accepts_paused, stats_got->log_dropped, stats_got->restarts,
        };

        for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); ++i)
                cr_assert_eq(figures[i], i + 1);
        cr_assert_str_eq(stats_got->broker, "1.2.3");
        cr_assert_eq(stats_got->n_requests, 2);
        for (size_t i = 0; i < 2; ++i) {
                cr_assert_str_eq(stats_got->requests[i].name, "open");
                cr_assert_eq(stats_got->requests[i].count, 1);
                cr_assert_eq(stats_got->requests[i].refused, 2);
                cr_assert_eq(stats_got->requests[i].total_ns, 3);
                cr_assert_eq(stats_got->requests[i].bucket[0], 100);
                cr_assert_eq(stats_got->requests[i].bucket[SHMD_BUCKETS - 1], 119 + 120, "the surplus is in the last");
        }
        cr_assert_eq(stats_got->n_refusals, 1);
        cr_assert_str_eq(stats_got->refusals[0].name, "limit");
        cr_assert_eq(stats_got->refusals[0].reason, 19);
        cr_assert_eq(stats_got->refusals[0].count, 4);
        stats_got = shmd_stats_free(stats_got);
}

TEST(client_ops, stats_has_every_figure) {
        shmd *client = peer_start_and_connect(script_stats);

        cr_assert_eq(shmd_stats(client, &stats_got, 0), 0);
        check_stats();
        dispatch(client, shmd_stats_start(client, 0, finish_stats, NULL, NULL));
        check_stats();
        cr_assert_null(shmd_stats_free(NULL));
        peer_join(client);
}

static void script_doctor(Peer *peer) {
        Shmd__Feature feature = SHMD__FEATURE__INIT;
        Shmd__Feature *features[] = { &feature, &feature };

        feature.name = BYTES("lease"), feature.have = true, feature.consequence = BYTES("it is late");
        for (unsigned int i = 0; i < ROUNDS; ++i) {
                peer_expect(peer, MESSAGE_DOCTOR);
                peer_reply(peer, MESSAGE(DoctorReply, doctor_reply, .n_features = 2, .features = features,
                                         .descriptors = 1, .regions = 2, .helper_replacements = 3,
                                         .policy_generation = 4, .inotify_overflows = 5, .uid = 6, .landlock = true,
                                         .broker = BYTES("1.2.3"), .kept_by = BYTES("keeper"), .restarts = 7,
                                         .last_end = BYTES("signal KILL")), NULL, 0);
        }
        peer_expect_end(peer);
}

static struct shmd_doctor_result *doctor_got;

FINISH(finish_doctor, shmd_doctor_finish(call, &doctor_got));

static void check_doctor(void) {
        cr_assert_eq(doctor_got->n_features, 2);
        for (size_t i = 0; i < 2; ++i) {
                cr_assert_str_eq(doctor_got->features[i].name, "lease");
                cr_assert_str_eq(doctor_got->features[i].consequence, "it is late");
                cr_assert(doctor_got->features[i].have);
        }
        cr_assert(doctor_got->descriptors == 1 && doctor_got->regions == 2 && doctor_got->helper_replacements == 3);
        cr_assert(doctor_got->policy_generation == 4 && doctor_got->inotify_overflows == 5 && doctor_got->uid == 6);
        cr_assert(doctor_got->landlock);
        cr_assert_str_eq(doctor_got->broker, "1.2.3");
        cr_assert_str_eq(doctor_got->kept_by, "keeper");
        cr_assert_eq(doctor_got->restarts, 7);
        cr_assert_str_eq(doctor_got->last_end, "signal KILL");
        doctor_got = shmd_doctor_free(doctor_got);
}

TEST(client_ops, doctor_has_every_feature) {
        shmd *client = peer_start_and_connect(script_doctor);

        cr_assert_eq(shmd_doctor(client, &doctor_got, 0), 0);
        check_doctor();
        dispatch(client, shmd_doctor_start(client, 0, finish_doctor, NULL, NULL));
        check_doctor();
        cr_assert_null(shmd_doctor_free(NULL));
        peer_join(client);
}

/* -- upgrade ------------------------------------------------------------------------------ */

static void script_upgrade(Peer *peer) {
        for (int i = 0; i < 2; ++i) {
                (void)peer_expect(peer, MESSAGE_UPGRADE);
                peer_reply(peer, MESSAGE(Done, done), NULL, 0);
        }
        (void)peer_expect(peer, MESSAGE_UPGRADE);
        peer_refuse(peer, SHMD__ERROR__ERROR_INVALID, SHMD__REASON__REASON_KEEPER, "not good");
        peer_expect_end(peer);
}

FINISH(finish_upgrade, shmd_upgrade_finish(call));

TEST(client_ops, upgrade_says_whether_it_began) {
        shmd *client = peer_start_and_connect(script_upgrade);

        cr_assert_eq(shmd_upgrade(client, 0), 0);
        dispatch(client, shmd_upgrade_start(client, 0, finish_upgrade, NULL, NULL));
        cr_assert_eq(shmd_upgrade(client, 0), -EINVAL);
        cr_assert_str_eq(shmd_refusal(client)->sentence, "not good");
        peer_join(client);
}

TEST(client_ops, the_library_says_its_version) {
        cr_assert_str_eq(shmd_version(), PACKAGE_VERSION);
}

static void script_state(Peer *peer) {
        int writable = peer_memfd(4096, 0), fd = peer_memfd(4096, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_WRITE);

        peer_expect(peer, MESSAGE_STATE);
        peer_reply(peer, MESSAGE(StateReply, state_reply, .size = 4096), &writable, 1);
        close_fd(writable);
        peer_expect(peer, MESSAGE_STATE);
        peer_reply(peer, MESSAGE(StateReply, state_reply, .size = 4097), &fd, 1);
        for (unsigned int i = 0; i < ROUNDS; ++i) {
                peer_expect(peer, MESSAGE_STATE);
                peer_reply(peer, MESSAGE(StateReply, state_reply, .size = 4096), &fd, 1);
        }
        peer_expect(peer, MESSAGE_STATE);
        peer_refuse(peer, SHMD_ERROR_DENIED, SHMD__REASON__REASON_ADMIN, "no");
        close_fd(fd);
        peer_expect_end(peer);
}

static int state_got;

FINISH(finish_state, shmd_state_finish(call, &state_got));

TEST(client_ops, a_state_is_taken_when_it_is_sealed) {
        shmd *client = peer_start_and_connect(script_state);

        cr_assert_eq(shmd_state(client, &state_got, 0), -EPROTO, "it can be written");
        cr_assert_eq(state_got, -1);
        cr_assert_eq(shmd_state(client, &state_got, 0), -EPROTO, "it has another size");
        cr_assert_eq(shmd_state(client, &state_got, 0), 0);
        cr_assert_geq(fcntl(state_got, F_GETFD) & FD_CLOEXEC, 1);
        state_got = close_fd(state_got);
        dispatch(client, shmd_state_start(client, 0, finish_state, NULL, NULL));
        cr_assert_geq(state_got, 0);
        state_got = close_fd(state_got);
        cr_assert_eq(shmd_state(client, &state_got, 0), -EACCES);
        cr_assert_eq(state_got, -1);
        peer_join(client);
}
