/* Policies on the real broker: what a reload changes, it changes for everybody at once; a broken one
 * changes nothing; and of the common pool nobody gets more than a share.
 */

#include "lib/client.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "acct/quota.h"
#include "core/policy.h"

#define BIT(slot) (UINT32_C(1) << ACCOUNT_##slot)
#define BYTES_SLOT SHMD__SLOT__SLOT_BYTES
#define REGIONS_SLOT SHMD__SLOT__SLOT_REGIONS
#define PEERS_SLOT SHMD__SLOT__SLOT_PEERS
#define GROUP 64500

/* -- reloading --------------------------------------------------------------------------- */

typedef struct Blob {
        uint8_t *bytes;
        size_t n;
} Blob;

static void blob_deinit(Blob *blob) {
        free(blob->bytes);
}

static Blob encode(Policy *policy) {
        Blob blob;

        REQUIRE(policy_encode(policy, &blob.bytes, &blob.n) == 0);
        return blob;
}

/* Hands over n bytes in as many parts as they need. Return: the wire's error. */
static uint32_t call_reload(Client *root, const uint8_t *bytes, size_t n) {
        uint32_t error = 0;

        for (size_t at = 0, part = 30000; !error && (at < n || at == 0); at += part) {
                part = n - at < part ? n - at : part;
                error = client_call(root, MESSAGE_RELOAD,
                                    REQUEST(Reload, reload, .total = (uint32_t)n, .offset = (uint32_t)at,
                                            .data = { .len = part, .data = (uint8_t *)bytes + at }));
                if (part == 0)
                        break;
        }
        return error;
}

static const Shmd__ReloadReply *outcome(const Client *root) {
        return (const Shmd__ReloadReply *)root->reply;
}

static void reload(Client *root, Policy *policy) {
        CLEANUP(blob_deinit) Blob blob = encode(policy);

        client_expect_done(root, call_reload(root, blob.bytes, blob.n));
        REQUIRE(outcome(root)->done);
}

static void limit_regions(Client *root, uint64_t regions) {
        reload(root, &(Policy){ .rules.everybody = { BIT(REGIONS), { 0, regions } } });
}

/* Compiles the files below the broker's directory. */
static Blob compile(Broker *broker) {
        char path[128], *text;
        Blob blob;
        FILE *file;

        (void)snprintf(path, sizeof(path), "%s/compiled", broker->dir);
        if (shmd_run(&text, "--compile-policy", "--policy-root", broker->dir, "-o", path, NULL))
                test_fail(__FILE__, __LINE__, "the policy compiles", " %s", text);
        free(text);
        file = fopen(path, "re");
        blob.bytes = malloc(POLICY_BYTES_MAX);
        REQUIRE(file && blob.bytes);
        blob.n = fread(blob.bytes, 1, POLICY_BYTES_MAX, file);
        (void)fclose(file);
        return blob;
}

/* -- from files to limits ---------------------------------------------------------------- */

static const char full_policy[] =
        "[global]\nbytes = 64M\n"
        "[account]\nbytes = 1M\nregions = 20\n"
        "[user 64101]\nregions = 30\n"
        "[group 64500]\nbytes = 2M\nregions = 40\n"
        "[directory /shared]\nmode = 1777\nbytes = 8192\nacl = u:64102:r-x\n"
        "[directory /shared/alice]\nowner = 64101\ngroup = 64500\nmode = 0750\ndefault-acl = g:64500:rw-\n";

/* Where the limits of regions and bytes come from; everything else is the configuration's. */
static void expect_rules(Client *client, uint32_t regions, uint32_t bytes) {
        const Shmd__AccountUse *account;

        client_expect_done(client, client_call(client, MESSAGE_DF,
                                               REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_ACCOUNT)));
        account = ((Shmd__DfReply *)client->reply)->accounts[0];
        REQUIRE(account->slots[REGIONS_SLOT - 1]->rule == regions && account->slots[BYTES_SLOT - 1]->rule == bytes);
        REQUIRE(account->slots[PEERS_SLOT - 1]->rule == SHMD__RULE__RULE_ACCOUNT);
        REQUIRE(account->group == (bytes == SHMD__RULE__RULE_POLICY_GROUP ? GROUP : 0));
}

TEST(policy, what_the_files_say_holds_from_the_start) {
        static const gid_t groups[] = { 4, GROUP, 7 };
        Client *alice, *bob, *carol;
        Broker *broker;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .policy = full_policy });
        alice = client_connect_with_groups(broker, ALICE, ALICE, groups, 3);
        bob = client_connect_as(broker, BOB, BOB);
        carol = client_connect_as(broker, CAROL, GROUP);
        REQUIRE(client_limit(alice, REGIONS_SLOT) == 30, "the uid before the group");
        REQUIRE(client_limit(alice, BYTES_SLOT) == 2 << 20, "the group, for what the uid leaves out");
        REQUIRE(client_limit(bob, REGIONS_SLOT) == 20 && client_limit(bob, BYTES_SLOT) == 1 << 20);
        REQUIRE(client_limit(carol, REGIONS_SLOT) == 40, "a primary group is one");
        REQUIRE(client_limit(carol, BYTES_SLOT) == 2 << 20);
        REQUIRE(client_limit(bob, PEERS_SLOT) == 256, "and the configuration for all else");
        expect_rules(alice, SHMD__RULE__RULE_POLICY_USER, SHMD__RULE__RULE_POLICY_GROUP);
        expect_rules(bob, SHMD__RULE__RULE_POLICY_ACCOUNT, SHMD__RULE__RULE_POLICY_ACCOUNT);
        expect_rules(carol, SHMD__RULE__RULE_POLICY_GROUP, SHMD__RULE__RULE_POLICY_GROUP);

        client_expect_done(alice, call_create(alice, "/shared/alice/x", 4096, NULL));
        client_expect_error(bob, DENIED, SEARCH, call_open(bob, "/shared/alice/x", READ_ONLY, NULL));
        client_expect_error(bob, DENIED, DIRECTORY_WRITE, call_create(bob, "/shared/y", 4096, NULL));
        client_expect_done(carol, call_create(carol, "/shared/y", 4096, NULL));
        client_expect_error(carol, QUOTA, DIRECTORY_LIMIT, call_create(carol, "/shared/z", 1, NULL));
        broker_expect_log(broker, "event=policy", "generation=1", "directories=2");
        client_free(alice), client_free(bob), client_free(carol);
        broker = broker_stop(broker);
}

static bool is_alone(void *root) {
        return client_total_used(root, PEERS_SLOT) == 1;
}

/* With a region in its place no reload would take effect, not even one that limits whoever put it there. */
TEST(policy, a_directory_that_it_names_is_not_its_owners_to_take_away) {
        Client *root, *alice;
        Broker *broker;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .policy = "[directory /d]\nowner = 64101\nmode = 0755\n" });
        root = client_connect_as(broker, 0, 0);
        alice = client_connect_as(broker, ALICE, ALICE);
        client_expect_done(alice, call_mkdir(alice, "/mine", 0700));
        client_expect_error(alice, DENIED, ADMIN, call_rmdir(alice, "/d"));
        client_expect_error(alice, DENIED, ADMIN, client_call(alice, MESSAGE_RENAME,
                            REQUEST(Rename, rename, .path = BYTES("/d"), .to = BYTES("/e"))));
        client_expect_error(alice, DENIED, ADMIN, client_call(alice, MESSAGE_RENAME,
                            REQUEST(Rename, rename, .path = BYTES("/mine"), .to = BYTES("/d"),
                                    .flags = SHMD__RENAME_FLAGS__RENAME_EXCHANGE)));
        client_expect_error(alice, DENIED, ADMIN, client_call(alice, MESSAGE_RENAME,
                            REQUEST(Rename, rename, .path = BYTES("/mine"), .to = BYTES("/d"),
                                    .flags = SHMD__RENAME_FLAGS__RENAME_REPLACE)));
        client_expect_done(alice, call_mkdir(alice, "/d/e", 0700));
        client_expect_done(alice, call_rmdir(alice, "/d/e"));
        reload(root, &(Policy){ .n_directories = 0 });
        client_expect_done(alice, call_rmdir(alice, "/d"));
        client_free(alice), client_free(root);
        broker = broker_stop(broker);
}

/* How many regions alice may have, were she to connect with that group. */
static uint64_t regions_in_group(Client *root, gid_t gid) {
        const Shmd__WhyReply *reply;

        client_expect_done(root, client_call(root, MESSAGE_WHY,
                                             REQUEST(Why, why, .operation = SHMD__WHY_OPERATION__WHY_MKDIR,
                                                     .path = BYTES("/y"), .other = true, .uid = ALICE, .gid = gid)));
        reply = (const Shmd__WhyReply *)root->reply;
        for (size_t i = 0; i < reply->n_step; ++i)
                if (reply->step[i]->reason == SHMD__REASON__REASON_LIMIT && reply->step[i]->slot == REGIONS_SLOT)
                        return reply->step[i]->limit;
        return 0;
}

/* The account lives on, with what it owns. */
TEST(policy, a_group_counts_no_more_when_nobody_who_was_in_it_is_connected) {
        Client *root, *alice;
        Broker *broker;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .policy = "[account]\nregions = 20\n[group 64500]\nregions = 40\n" });
        root = client_connect_as(broker, 0, 0);
        alice = client_connect_as(broker, ALICE, GROUP);
        client_expect_done(alice, call_create(alice, "/x", 4096, NULL));
        REQUIRE(client_limit(alice, REGIONS_SLOT) == 40);
        alice = client_free(alice);
        REQUIRE(test_eventually(is_alone, root));
        REQUIRE(regions_in_group(root, ALICE) == 20 && regions_in_group(root, GROUP) == 40);
        REQUIRE(regions_in_group(root, ALICE) == 20, "asking changes nothing");
        alice = client_connect_as(broker, ALICE, ALICE);
        REQUIRE(regions_in_group(root, GROUP) == 40 && client_limit(alice, REGIONS_SLOT) == 20);
        client_free(alice), client_free(root);
        broker = broker_stop(broker);
}

TEST(policy, files_are_compiled_and_put_in_force_while_it_runs) {
        Client *root, *alice;
        Broker *broker;
        Blob blob;

        test_needs_root();
        broker = broker_spawn("");
        root = client_connect_as(broker, 0, 0);
        alice = client_connect_as(broker, ALICE, ALICE);
        broker_write_policy(broker, "10.conf", full_policy);
        broker_write_policy(broker, "20.conf", "[user 64101]\nbytes = 4096\n");
        blob = compile(broker);
        client_expect_done(root, call_reload(root, blob.bytes, blob.n));
        REQUIRE(outcome(root)->generation == 2 && outcome(root)->directories == 2 && outcome(root)->accounts == 2);
        REQUIRE(client_limit(alice, BYTES_SLOT) == 4096);
        client_expect_error(alice, DENIED, ADMIN, call_reload(alice, blob.bytes, blob.n));
        blob_deinit(&blob);

        broker_write_policy(broker, "20.conf", "");
        blob = compile(broker);
        client_expect_done(root, call_reload(root, blob.bytes, blob.n));
        REQUIRE(outcome(root)->directories == 0 && outcome(root)->accounts == 1);
        REQUIRE(client_limit(alice, BYTES_SLOT) == 1 << 20);
        blob_deinit(&blob);
        client_free(root), client_free(alice);
        broker = broker_stop(broker);
}

TEST(policy, a_mistake_keeps_a_broker_from_starting_and_says_where) {
        Broker *broker = broker_spawn("");
        char wanted[256], *text;

        broker_write_policy(broker, "10.conf", "[user 64101]\n\nbytes = much\n");
        (void)snprintf(wanted, sizeof(wanted), "%s/run/shmd/policy.d/10.conf:3: bytes=much: must be", broker->dir);
        REQUIRE(shmd_run(&text, "--compile-policy", "--policy-root", broker->dir, NULL) == 1);
        REQUIRE(!strncmp(text, wanted, strlen(wanted)), "%s", text);
        free(text);
        REQUIRE(shmd_run(&text, "--check-config", "--policy-root", broker->dir, NULL) == 1);
        REQUIRE(strstr(text, wanted), "%s", text);
        free(text);
        REQUIRE(shmd_run(&text, "--no-keeper", "--policy-root", broker->dir, "--socket", "/nonexistent/socket", NULL) == 1);
        REQUIRE(strstr(text, wanted) && strstr(text, "step=policy"), "%s", text);
        free(text);
        broker_write_policy(broker, "10.conf", "[global]\nregions = 999999999999\n");
        REQUIRE(shmd_run(&text, "--check-config", "--policy-root", broker->dir, NULL) == 1);
        REQUIRE(strstr(text, "[global] regions: 999999999999 is impossible"), "%s", text);
        free(text);
        broker_write_policy(broker, "10.conf", full_policy);
        REQUIRE(shmd_run(&text, "--check-config", "--policy-root", broker->dir, NULL) == 0, "%s", text);
        free(text);
        broker = broker_stop(broker);
}

TEST(policy, a_user_s_own_broker_has_a_policy_only_if_told_where) {
        Broker *broker = broker_spawn("");
        char *text;

        broker_write_policy(broker, "10.conf", "nonsense\n");
        REQUIRE(shmd_run(&text, "--user", "--check-config", "--policy-root", broker->dir, NULL) == 1, "%s", text);
        free(text);
        REQUIRE(shmd_run(&text, "--user", "--check-config", NULL) == 0, "%s", text);
        free(text);
        broker = broker_stop(broker);
}

/* -- limits below what is used ----------------------------------------------------------- */

TEST(policy, a_tightened_limit_takes_nothing_away_and_names_still_move) {
        Policy tight = { .rules = { .everybody = { BIT(BYTES) | BIT(REGIONS), { PAGE, 1 } } } };
        PolicyDirectory top = { .path = (char[]){ "/d" }, .permissions = { .mode = 01777 },
                                       .limits = { BIT(BYTES) | BIT(REGIONS), { PAGE, 1 } } };
        Grant grant = GRANT_NULL;
        Client *root, *alice;
        Broker *broker;

        test_needs_root();
        broker = broker_spawn("[account 0]\nregions = 100\n");
        root = client_connect_as(broker, 0, 0);
        alice = client_connect_as(broker, ALICE, ALICE);
        client_expect_done(root, call_mkdir(root, "/d", 01777));
        client_expect_done(root, call_mkdir(root, "/d/e", 01777));
        client_expect_done(alice, call_create(alice, "/d/a", 2 * PAGE, &grant));
        client_expect_done(alice, call_create(alice, "/d/b", PAGE, NULL));
        tight.directories = &top;
        tight.n_directories = 1;
        reload(root, &tight);

        memset(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, grant.fd, 0), 'x', 2 * PAGE);
        REQUIRE(client_used(alice, BYTES_SLOT) == 3 * PAGE && client_limit(alice, BYTES_SLOT) == PAGE);
        REQUIRE(client_directory_used(root, "/d", BYTES_SLOT) == 3 * PAGE);
        client_expect_error(alice, QUOTA, LIMIT, call_create(alice, "/c", 1, NULL));
        REQUIRE(alice->refusal->left == 0 && alice->refusal->limit == PAGE);
        client_expect_done(alice, call_open(alice, "/d/a", READ_ONLY, NULL));
        client_expect_done(alice, call_rename(alice, "/d/a", "/d/e/a", 0));
        client_expect_done(alice, call_rename(alice, "/d/e/a", "/d/b", SHMD__RENAME_FLAGS__RENAME_EXCHANGE));
        client_expect_done(alice, call_rename(alice, "/d/e/a", "/d/b", SHMD__RENAME_FLAGS__RENAME_REPLACE));
        client_expect_error(root, QUOTA, DIRECTORY_LIMIT, call_mkdir(root, "/d/f", 0700));
        grant_deinit(&grant);
        client_free(root), client_free(alice);
        broker = broker_stop(broker);
}

/* -- under load -------------------------------------------------------------------------- */

#define WORKERS 6               /* two of each user */
#define RELOADS 200
#define LIMIT_HIGH 40
#define LIMIT_LOW 3

/* What workers and the one who reloads tell each other. The phase counts on after the answer to a reload
 * that lowers the limit, and before a reload that raises it: in an odd phase the low one is in force,
 * and so it is for a request that begins and ends in the same one. */
typedef struct Stage {
        atomic_uint phase;
        atomic_bool stop;
        atomic_uint ready;
        atomic_ulong made[WORKERS], refused[WORKERS], judged[WORKERS];
} Stage;

/* Makes regions until it is refused, then takes one away, and so on: always at the limit. The broker
 * counts at least what we count, so that one more than the limit, begun after it was told, is too much. */
static void work(Broker *broker, Stage *stage, unsigned int number, uid_t uid) {
        Client *client = client_connect_as(broker, uid, uid);
        unsigned int first = 0, next = 0;
        char path[64];

        atomic_fetch_add(&stage->ready, 1);
        while (!atomic_load(&stage->stop)) {
                unsigned int phase = atomic_load(&stage->phase);
                uint32_t error;

                (void)snprintf(path, sizeof(path), "/%u.%u", number, next);
                error = call_create(client, path, 1, NULL);
                if (phase % 2 && atomic_load(&stage->phase) == phase) {
                        REQUIRE(error || next + 1 - first <= LIMIT_LOW, "region %u of at most %u", next + 1 - first,
                                LIMIT_LOW);
                        atomic_fetch_add(&stage->judged[number], 1);
                }
                if (!error) {
                        ++next;
                        atomic_fetch_add(&stage->made[number], 1);
                        continue;
                }
                REQUIRE(client->refusal->error == SHMD__ERROR__ERROR_QUOTA, "%s", client_describe(client));
                atomic_fetch_add(&stage->refused[number], 1);
                if (first == next)
                        continue;
                (void)snprintf(path, sizeof(path), "/%u.%u", number, first++);
                client_expect_done(client, call_unlink(client, path));
        }
        client = client_free(client);
}

static bool all_are_judged(const Stage *stage) {
        for (unsigned int i = 0; i < WORKERS; ++i)
                if (atomic_load(&stage->made[i]) == 0 || atomic_load(&stage->judged[i]) == 0)
                        return false;
        return true;
}

TEST(policy, a_reload_under_load_changes_all_at_once) {
        static const uid_t uids[] = { ALICE, BOB, CAROL };
        int64_t end = INT64_MAX;
        pid_t workers[WORKERS];
        Broker *broker;
        Client *root;
        Stage *stage;

        test_needs_root();
        broker = broker_spawn("");
        root = client_connect_as(broker, 0, 0);
        stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        REQUIRE(stage != MAP_FAILED);
        limit_regions(root, LIMIT_HIGH);
        for (unsigned int i = 0; i < WORKERS; ++i) {
                (void)fflush(NULL);
                workers[i] = fork();
                REQUIRE(workers[i] >= 0);
                if (workers[i] == 0) {
                        work(broker, stage, i, uids[i % 3]);
                        _exit(0);
                }
        }
        while (atomic_load(&stage->ready) < WORKERS)
                test_sleep_ms(1);

        for (unsigned int i = 0; i < RELOADS || (!all_are_judged(stage) && test_now_ms() < end); ++i) {
                /* On a busy machine a request may take longer than a limit is in force: then it stays for longer. */
                int ms = i < RELOADS ? 2 : 100;

                if (i == RELOADS)
                        end = test_now_ms() + TEST_PATIENCE_MS;
                limit_regions(root, LIMIT_LOW);
                REQUIRE(outcome(root)->accounts == 4, "three users and root: %u", outcome(root)->accounts);
                atomic_fetch_add(&stage->phase, 1);
                test_sleep_ms(ms);
                atomic_fetch_add(&stage->phase, 1);
                limit_regions(root, LIMIT_HIGH);
                test_sleep_ms(ms);
        }
        atomic_store(&stage->stop, true);
        for (unsigned int i = 0; i < WORKERS; ++i)
                REQUIRE(test_wait_pid(workers[i]) == 0, "worker %u", i);
        for (unsigned int i = 0; i < WORKERS; ++i) {
                fprintf(stderr, "worker %u: %lu made, %lu refused, %lu begun and ended under the low limit\n", i,
                        stage->made[i], stage->refused[i], stage->judged[i]);
                REQUIRE(stage->made[i] > 0 && stage->judged[i] > 0, "worker %u did nothing", i);
        }
        REQUIRE(munmap(stage, sizeof(*stage)) == 0);
        root = client_free(root);
        broker = broker_stop(broker);
}

/* -- broken ones ------------------------------------------------------------------------- */

/* All that a policy could have changed, in words: every limit and use, every name with its mode. */
static char *snapshot(Client *root) {
        CLEANUP(freep) char *text = NULL;
        size_t n = 0;
        FILE *out = open_memstream(&text, &n);
        char *ret;

        REQUIRE(out);
        for (uint32_t scope = SHMD__DF_SCOPE__DF_TOTAL; scope <= SHMD__DF_SCOPE__DF_ACCOUNTS; ++scope) {
                client_expect_done(root, client_call(root, MESSAGE_DF, REQUEST(Df, df, .scope = scope)));
                for (size_t i = 0; i < ((Shmd__DfReply *)root->reply)->n_accounts; ++i) {
                        const Shmd__AccountUse *account = ((Shmd__DfReply *)root->reply)->accounts[i];

                        fprintf(out, "%u:", account->uid);
                        for (size_t k = 0; k < account->n_slots; ++k)
                                fprintf(out, " %lu/%lu", account->slots[k]->used, account->slots[k]->limit);
                        fputc('\n', out);
                }
        }
        client_expect_done(root, call_list(root, "/", SHMD__LIST_FLAGS__LIST_RECURSIVE));
        for (size_t i = 0; i < ((Shmd__ListReply *)root->reply)->n_nodes; ++i) {
                const Shmd__Node *node = ((Shmd__ListReply *)root->reply)->nodes[i];

                fprintf(out, "%.*s %u %u %o %d\n", (int)node->path.len, node->path.data, node->uid, node->gid,
                        node->mode, node->acl);
        }
        REQUIRE(fclose(out) == 0);
        ret = text;
        text = NULL;
        return ret;
}

/* Return: whether the broker took it; if not, nothing has changed. */
static bool try_reload(Client *root, const uint8_t *bytes, size_t n) {
        CLEANUP(freep) char *before = snapshot(root), *after = NULL;
        uint32_t error = call_reload(root, bytes, n);

        if (!error)
                return true;
        REQUIRE(error == SHMD__ERROR__ERROR_INVALID && root->refusal->reason == SHMD__REASON__REASON_POLICY, "%s",
                client_describe(root));
        REQUIRE(root->refusal->sentence.len > 0);
        after = snapshot(root);
        REQUIRE(!strcmp(before, after), "before:\n%s\nafter:\n%s", before, after);
        return false;
}

static Client *start_with_full_policy(Broker **ret_broker, Blob *ret) {
        Broker *broker = broker_spawn_with(&(BrokerOptions){ .policy = full_policy });
        Client *root = client_connect_as(broker, 0, 0);

        *ret = compile(broker);
        *ret_broker = broker;
        return root;
}

TEST(policy, a_policy_cut_anywhere_changes_nothing) {
        CLEANUP(blob_deinit) Blob blob = { 0 };
        Broker *broker;
        Client *root;

        test_needs_root();
        root = start_with_full_policy(&broker, &blob);
        for (size_t n = 0; n < blob.n; ++n) {
                REQUIRE(!try_reload(root, blob.bytes, n), "%zu bytes of %zu were taken", n, blob.n);
                /* Also one that says of itself that it is so short. */
                if (n >= 16) {
                        CLEANUP(freep) uint8_t *part = malloc(n);

                        memcpy(part, blob.bytes, n);
                        part[12] = (uint8_t)n;
                        part[13] = (uint8_t)(n >> 8);
                        REQUIRE(!try_reload(root, part, n), "%zu bytes of %zu were taken", n, blob.n);
                }
        }
        REQUIRE(try_reload(root, blob.bytes, blob.n));
        REQUIRE(outcome(root)->generation == 2, "not one of them counted");
        root = client_free(root);
        broker = broker_stop(broker);
}

TEST(policy, a_policy_with_any_bit_turned_is_refused_as_a_whole_or_is_another_one) {
        CLEANUP(blob_deinit) Blob blob = { 0 };
        uint64_t n_taken = 0;
        Broker *broker;
        Client *root;

        test_needs_root();
        root = start_with_full_policy(&broker, &blob);
        for (size_t bit = 0; bit < 8 * blob.n; ++bit) {
                blob.bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
                if (try_reload(root, blob.bytes, blob.n))
                        REQUIRE(outcome(root)->generation == ++n_taken + 1);
                blob.bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
        }
        fprintf(stderr, "%zu bits, %lu of them made another policy\n", 8 * blob.n, n_taken);
        REQUIRE(n_taken > 100 && n_taken < 8 * blob.n);
        REQUIRE(try_reload(root, blob.bytes, blob.n));
        REQUIRE(outcome(root)->generation == n_taken + 2 && broker_is_alive(broker));
        root = client_free(root);
        broker = broker_stop(broker);
}

TEST(policy, a_region_in_the_way_is_told_and_nothing_changes) {
        CLEANUP(blob_deinit) Blob blob = { 0 };
        Client *root;
        Broker *broker;

        test_needs_root();
        broker = broker_spawn("");
        root = client_connect_as(broker, 0, 0);
        client_expect_done(root, call_create(root, "/shared", 1, NULL));
        broker_write_policy(broker, "10.conf", full_policy);
        blob = compile(broker);
        REQUIRE(!try_reload(root, blob.bytes, blob.n));
        client_expect_done(root, call_unlink(root, "/shared"));
        REQUIRE(try_reload(root, blob.bytes, blob.n));
        root = client_free(root);
        broker = broker_stop(broker);
}

/* The largest one there can be arrives in parts, and its peer may leave in the middle. */
TEST(policy, a_policy_of_many_parts_may_be_given_up_at_any_of_them) {
        CLEANUP(freep) UserLimits *users = calloc(POLICY_USERS_MAX, sizeof(*users));
        Policy policy = { .rules = { .users = users, .n_users = POLICY_USERS_MAX } };
        CLEANUP(blob_deinit) Blob blob = { 0 };
        Client *root, *second;
        Broker *broker;

        test_needs_root();
        for (uint32_t i = 0; i < POLICY_USERS_MAX; ++i)
                users[i] = (UserLimits){ 100000 + i, { LIMITS_ALL, { i } } };
        blob = encode(&policy);
        broker = broker_spawn("");
        root = client_connect_as(broker, 0, 0);
        for (size_t at = 1; at < blob.n; at += 90000) {
                second = client_connect_as(broker, 0, 0);
                for (size_t done = 0; done < at; done += 30000)
                        client_expect_done(second, client_call(second, MESSAGE_RELOAD, REQUEST(Reload, reload,
                                           .total = (uint32_t)blob.n, .offset = (uint32_t)done,
                                           .data = { .len = 30000, .data = blob.bytes + done })));
                second = client_free(second);
        }
        client_expect_done(root, call_reload(root, blob.bytes, blob.n));
        REQUIRE(outcome(root)->done && outcome(root)->generation == 2);
        client_expect_used(root, SHMD__SLOT__SLOT_PENDING, 0);
        root = client_free(root);
        broker = broker_stop(broker);
}

/* -- a thousand -------------------------------------------------------------------------- */

static size_t n_accounts(Client *root) {
        client_expect_done(root, client_call(root, MESSAGE_DF, REQUEST(Df, df, .scope = SHMD__DF_SCOPE__DF_ACCOUNTS)));
        return ((Shmd__DfReply *)root->reply)->n_accounts;
}

TEST(policy, a_thousand_reloads_leave_nothing) {
        static const char other_policy[] =
                "[account]\nbytes = 2M\n[group 64500]\nregions = 1\n[group 64501]\npeers = 100\n"
                "[directory /shared]\nowner = 64102\nmode = 1777\nacl = u:64103:rwx, g:64500:r-x\n"
                "[directory /shared/bob]\nowner = 64102\nregions = 3\n";
        CLEANUP(blob_deinit) Blob one = { 0 }, other = { 0 };
        size_t rss = 0, fds = 0, accounts = 0;
        Client *root, *alice;
        Broker *broker;

        test_needs_root();
        root = start_with_full_policy(&broker, &one);
        alice = client_connect_as(broker, ALICE, GROUP);
        broker_write_policy(broker, "test.conf", other_policy);
        other = compile(broker);
        for (unsigned int i = 0; i < 2000; ++i) {
                const Blob *blob = i % 2 ? &one : &other;

                client_expect_done(root, call_reload(root, blob->bytes, blob->n));
                REQUIRE(client_limit(alice, BYTES_SLOT) == 2 << 20);
                REQUIRE(client_limit(alice, REGIONS_SLOT) == (i % 2 ? 30 : 1));
                if (i == 999) {
                        rss = broker_rss(broker);
                        fds = broker_fds(broker);
                        accounts = n_accounts(root);
                }
        }
        fprintf(stderr, "resident: %zu bytes after 1,000, %zu after 2,000\n", rss, broker_rss(broker));
        broker_expect_rss(broker, rss + (256 << 10));
        REQUIRE(broker_fds(broker) == fds && n_accounts(root) == accounts);
        client_free(root), client_free(alice);
        broker = broker_stop(broker);
}

/* -- fair shares ------------------------------------------------------------------------- */

#define POOL "[global]\nbytes = 4096000\n"      /* 1000 pages */

/* Takes a page. Return: whether there was one. */
static bool take(Client *client, unsigned int number) {
        char path[64];

        (void)snprintf(path, sizeof(path), "/%u.%u", client->hello.uid, number);
        if (call_create(client, path, PAGE, NULL) == 0)
                return true;
        REQUIRE(client->refusal->error == SHMD__ERROR__ERROR_QUOTA, "%s", client_describe(client));
        REQUIRE(client->refusal->reason == SHMD__REASON__REASON_SHARE, "%s", client_describe(client));
        REQUIRE(client->refusal->slot == BYTES_SLOT && client->refusal->uid == client->hello.uid);
        return false;
}

static void expect_pages(Client *client, uint64_t pages) {
        REQUIRE(client_used(client, BYTES_SLOT) == pages * PAGE, "uid %u has %lu pages, not %lu", client->hello.uid,
                client_used(client, BYTES_SLOT) / PAGE, pages);
}

/* Three accounts: each may come to (1000 - what the others have) / 4 pages. One at a time in turn: up to
 * 166 for all; the first then to 167, as 4 * 167 <= 1000 - 332; the second would need 668 <= 667. */
TEST(policy, users_who_take_in_turn_get_the_same_share_of_a_small_pool) {
        Broker *broker;
        Client *clients[3];
        unsigned int n = 0;
        bool more = true;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .policy = POOL });
        for (uid_t i = 0; i < 3; ++i)
                clients[i] = client_connect_as(broker, ALICE + i, ALICE);
        for (; more; ++n) {
                more = false;
                for (size_t i = 0; i < 3; ++i)
                        more |= take(clients[i], n);
        }
        expect_pages(clients[0], 167);
        expect_pages(clients[1], 166);
        expect_pages(clients[2], 166);
        for (size_t i = 0; i < 3; ++i)
                clients[i] = client_free(clients[i]);
        broker = broker_stop(broker);
}

/* Five accounts, and the first takes all it can before the others begin: 1000 / 6 = 166 pages; then
 * (1000 - 166) / 6 = 139, (1000 - 305) / 6 = 115, (1000 - 420) / 6 = 96, (1000 - 516) / 6 = 80. With all
 * there, nobody gets any more; 404 pages stay for others. */
TEST(policy, nobody_takes_a_small_pool_from_the_others) {
        static const uint64_t shares[] = { 166, 139, 115, 96, 80 };
        Client *clients[5], *late;
        Broker *broker;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .policy = POOL });
        for (uid_t i = 0; i < 5; ++i)
                clients[i] = client_connect_as(broker, ALICE + i, ALICE);
        for (size_t i = 0; i < 5; ++i) {
                for (unsigned int n = 0; take(clients[i], n); ++n)
                        ;
                expect_pages(clients[i], shares[i]);
        }
        for (size_t i = 0; i < 5; ++i)
                REQUIRE(!take(clients[i], 1000));

        /* A newcomer: (1000 - 596) / 7 = 57. */
        late = client_connect_as(broker, ALICE + 5, ALICE);
        for (unsigned int n = 0; take(late, n); ++n)
                ;
        expect_pages(late, 57);
        for (size_t i = 0; i < 5; ++i)
                clients[i] = client_free(clients[i]);
        late = client_free(late);
        broker = broker_stop(broker);
}

/* A pool that becomes smaller than what is taken: nobody gets any, until others' shares allow it. */
TEST(policy, a_pool_made_smaller_takes_nothing_away) {
        static PolicyDirectory none[1];
        Policy policy = { .rules.global = { BIT(BYTES), { 30 * PAGE } }, .directories = none };
        Client *root, *alice, *bob;
        Broker *broker;

        test_needs_root();
        broker = broker_spawn_with(&(BrokerOptions){ .policy = POOL });
        root = client_connect_as(broker, 0, 0);
        alice = client_connect_as(broker, ALICE, ALICE);
        bob = client_connect_as(broker, BOB, BOB);
        for (unsigned int n = 0; n < 100; ++n)
                REQUIRE(take(alice, n));
        reload(root, &policy);
        expect_pages(alice, 100);
        REQUIRE(!take(alice, 1000) && !take(bob, 1000));
        REQUIRE(bob->refusal->left == 0 && bob->refusal->limit == 30 * PAGE);
        for (unsigned int n = 10; n < 100; ++n) {
                char path[64];

                (void)snprintf(path, sizeof(path), "/%u.%u", ALICE, n);
                client_expect_done(alice, call_unlink(alice, path));
        }
        client_expect_used(alice, BYTES_SLOT, 10 * PAGE);
        /* Three accounts: (30 - 10) / 4 = 5. */
        for (unsigned int n = 0; take(bob, n); ++n)
                ;
        expect_pages(bob, 5);
        client_free(root), client_free(alice), client_free(bob);
        broker = broker_stop(broker);
}
