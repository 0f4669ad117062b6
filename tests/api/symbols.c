/* Every public function, taken by address from the installed header and linked with the installed
 * library; and what the header defines without a symbol.
 *
 * It uses nothing but shmd.h, and is C99 and C++ alike: check-api also compiles it as both.
 * check-api compares the list with the library's symbols.
 */
#include <shmd.h>

#include <stdio.h>
#include <string.h>

typedef void (*function)(void);

#define SYMBOL(name) { #name, (function)name }

static const struct {
        const char *name;
        function address;
} symbols[] = {
        SYMBOL(shmd_reason_name),
        SYMBOL(shmd_refusal),
        SYMBOL(shmd_slot_name),
        SYMBOL(shmd_connect),
        SYMBOL(shmd_connect_flags),
        SYMBOL(shmd_connect_with),
        SYMBOL(shmd_close),
        SYMBOL(shmd_set_listener),
        SYMBOL(shmd_set_reconnect),
        SYMBOL(shmd_set_timeout),
        SYMBOL(shmd_session),
        SYMBOL(shmd_socket),
        SYMBOL(shmd_broker_pid),
        SYMBOL(shmd_broker_version),
        SYMBOL(shmd_version),
        SYMBOL(shmd_fd),
        SYMBOL(shmd_events),
        SYMBOL(shmd_timeout),
        SYMBOL(shmd_dispatch),
        SYMBOL(shmd_process),
        SYMBOL(shmd_call_cancel),
        SYMBOL(shmd_call_result),
        SYMBOL(shmd_call_refusal),
        SYMBOL(shmd_create),
        SYMBOL(shmd_create_start),
        SYMBOL(shmd_create_finish),
        SYMBOL(shmd_open),
        SYMBOL(shmd_open_start),
        SYMBOL(shmd_open_finish),
        SYMBOL(shmd_batch),
        SYMBOL(shmd_batch_start),
        SYMBOL(shmd_batch_finish),
        SYMBOL(shmd_region_free),
        SYMBOL(shmd_region_fd),
        SYMBOL(shmd_region_steal_fd),
        SYMBOL(shmd_region_id),
        SYMBOL(shmd_region_size),
        SYMBOL(shmd_region_page_size),
        SYMBOL(shmd_region_rights),
        SYMBOL(shmd_region_created),
        SYMBOL(shmd_reserve),
        SYMBOL(shmd_map),
        SYMBOL(shmd_unmap),
        SYMBOL(shmd_path_check),
        SYMBOL(shmd_publish),
        SYMBOL(shmd_publish_start),
        SYMBOL(shmd_publish_finish),
        SYMBOL(shmd_expire),
        SYMBOL(shmd_expire_start),
        SYMBOL(shmd_expire_finish),
        SYMBOL(shmd_freeze),
        SYMBOL(shmd_freeze_start),
        SYMBOL(shmd_freeze_finish),
        SYMBOL(shmd_link),
        SYMBOL(shmd_link_start),
        SYMBOL(shmd_link_finish),
        SYMBOL(shmd_rename),
        SYMBOL(shmd_rename_start),
        SYMBOL(shmd_rename_finish),
        SYMBOL(shmd_mkdir),
        SYMBOL(shmd_mkdir_start),
        SYMBOL(shmd_mkdir_finish),
        SYMBOL(shmd_rmdir),
        SYMBOL(shmd_rmdir_start),
        SYMBOL(shmd_rmdir_finish),
        SYMBOL(shmd_unlink),
        SYMBOL(shmd_unlink_start),
        SYMBOL(shmd_unlink_finish),
        SYMBOL(shmd_chmod),
        SYMBOL(shmd_chmod_start),
        SYMBOL(shmd_chmod_finish),
        SYMBOL(shmd_chown),
        SYMBOL(shmd_chown_start),
        SYMBOL(shmd_chown_finish),
        SYMBOL(shmd_acl_get),
        SYMBOL(shmd_acl_get_start),
        SYMBOL(shmd_acl_get_finish),
        SYMBOL(shmd_acl_free),
        SYMBOL(shmd_acl_set),
        SYMBOL(shmd_acl_set_start),
        SYMBOL(shmd_acl_set_finish),
        SYMBOL(shmd_acl_from_text),
        SYMBOL(shmd_acl_to_text),
        SYMBOL(shmd_why),
        SYMBOL(shmd_why_start),
        SYMBOL(shmd_why_finish),
        SYMBOL(shmd_why_free),
        SYMBOL(shmd_stat),
        SYMBOL(shmd_stat_start),
        SYMBOL(shmd_stat_finish),
        SYMBOL(shmd_stat_free),
        SYMBOL(shmd_list),
        SYMBOL(shmd_list_start),
        SYMBOL(shmd_list_finish),
        SYMBOL(shmd_list_free),
        SYMBOL(shmd_wait),
        SYMBOL(shmd_wait_start),
        SYMBOL(shmd_wait_finish),
        SYMBOL(shmd_wait_unheld),
        SYMBOL(shmd_wait_unheld_start),
        SYMBOL(shmd_wait_frozen),
        SYMBOL(shmd_wait_frozen_start),
        SYMBOL(shmd_watch),
        SYMBOL(shmd_watch_start),
        SYMBOL(shmd_watch_finish),
        SYMBOL(shmd_unwatch),
        SYMBOL(shmd_unwatch_start),
        SYMBOL(shmd_unwatch_finish),
        SYMBOL(shmd_ticket),
        SYMBOL(shmd_ticket_start),
        SYMBOL(shmd_ticket_finish),
        SYMBOL(shmd_ticket_free),
        SYMBOL(shmd_redeem),
        SYMBOL(shmd_redeem_start),
        SYMBOL(shmd_redeem_finish),
        SYMBOL(shmd_revoke),
        SYMBOL(shmd_revoke_start),
        SYMBOL(shmd_revoke_finish),
        SYMBOL(shmd_tickets),
        SYMBOL(shmd_tickets_start),
        SYMBOL(shmd_tickets_finish),
        SYMBOL(shmd_tickets_free),
        SYMBOL(shmd_bell_open),
        SYMBOL(shmd_bell_open_start),
        SYMBOL(shmd_bell_open_finish),
        SYMBOL(shmd_bell_close),
        SYMBOL(shmd_bell_ring),
        SYMBOL(shmd_bell_count),
        SYMBOL(shmd_bell_wait),
        SYMBOL(shmd_bell_poll),
        SYMBOL(shmd_bell_poll_start),
        SYMBOL(shmd_bell_poll_finish),
        SYMBOL(shmd_bell_fd),
        SYMBOL(shmd_bell_clear),
        SYMBOL(shmd_df),
        SYMBOL(shmd_df_start),
        SYMBOL(shmd_df_finish),
        SYMBOL(shmd_df_free),
        SYMBOL(shmd_reload),
        SYMBOL(shmd_reload_start),
        SYMBOL(shmd_reload_finish),
        SYMBOL(shmd_upgrade),
        SYMBOL(shmd_upgrade_start),
        SYMBOL(shmd_upgrade_finish),
        SYMBOL(shmd_ping),
        SYMBOL(shmd_ping_start),
        SYMBOL(shmd_ping_finish),
        SYMBOL(shmd_stats),
        SYMBOL(shmd_stats_start),
        SYMBOL(shmd_stats_finish),
        SYMBOL(shmd_stats_free),
        SYMBOL(shmd_doctor),
        SYMBOL(shmd_doctor_start),
        SYMBOL(shmd_doctor_finish),
        SYMBOL(shmd_doctor_free),
        SYMBOL(shmd_state),
        SYMBOL(shmd_state_start),
        SYMBOL(shmd_state_finish),
};

static int failed;

static void check(int condition, const char *what) {
        if (!condition) {
                fprintf(stderr, "FAILED %s\n", what);
                failed = 1;
        }
}

#define CHECK(condition) check((condition), #condition)

/* An initializer gives the struct its size and the defaults that shmd.h names, and nothing else. */
static void check_initializers(void) {
        struct shmd_connect_options connect = SHMD_CONNECT_OPTIONS_INIT;
        struct shmd_create_options create = SHMD_CREATE_OPTIONS_INIT;
        struct shmd_publish_options publish = SHMD_PUBLISH_OPTIONS_INIT;
        struct shmd_map_options map = SHMD_MAP_OPTIONS_INIT;
        struct shmd_ticket_options ticket = SHMD_TICKET_OPTIONS_INIT;

        CHECK(connect.struct_size == sizeof(connect));
        CHECK(connect.flags == 0);

        CHECK(create.struct_size == sizeof(create));
        CHECK(create.size == 0);
        CHECK(create.mode == 0600);
        CHECK(create.flags == 0);
        CHECK(create.lifetime == SHMD_LIFETIME_NAMED);
        CHECK(create.huge_page_size == 0);
        CHECK(create.rights == SHMD_RIGHTS_READ_WRITE);
        CHECK(create.ttl_ns == 0);

        CHECK(publish.struct_size == sizeof(publish));
        CHECK(publish.flags == 0);
        CHECK(publish.ttl_ns == 0);

        CHECK(map.struct_size == sizeof(map));
        CHECK(map.flags == 0);
        CHECK(map.offset == 0);
        CHECK(map.length == 0);
        CHECK(map.numa == SHMD_NUMA_DEFAULT);
        CHECK(map.numa_nodes == 0);

        CHECK(ticket.struct_size == sizeof(ticket));
        CHECK(ticket.rights == SHMD_RIGHTS_READ_ONLY);
        CHECK(ticket.uses == 1);
        CHECK(ticket.ttl_ns == 0);
        CHECK(ticket.uid == (uid_t)-1);
}

/* Numbers that programs were compiled with: they never change. */
static void check_numbers(void) {
        CHECK(SHMD_TIMEOUT_DEFAULT == 0);
        CHECK(SHMD_TIMEOUT_NONE == UINT64_MAX);
        CHECK(SHMD_ERROR_NONE == 0 && SHMD_ERROR_INVALID == 1 && SHMD_ERROR_SHUTDOWN == 13);
        CHECK(SHMD_RIGHTS_NONE == 0 && SHMD_RIGHTS_READ_ONLY == 1 && SHMD_RIGHTS_READ_WRITE == 2);
        CHECK(SHMD_LIFETIME_NAMED == 0 && SHMD_LIFETIME_SESSION == 1 && SHMD_LIFETIME_COUNTED == 2);
        CHECK(SHMD_CREATE_OPEN == 1 && SHMD_CREATE_FREEZABLE == 2 && SHMD_CREATE_RESERVE == 4);
        CHECK(SHMD_FREEZE_IMMUTABLE == 0 && SHMD_FREEZE_SINGLE_WRITER == 1);
        CHECK(SHMD_BATCH_MAX == 128);
        CHECK(SHMD_MAP_POPULATE == 1 && SHMD_MAP_HUGE == 2 && SHMD_MAP_DONTDUMP == 4);
        CHECK(SHMD_MAP_READ_ONLY == 8 && SHMD_MAP_PRIVATE == 16);
        CHECK(SHMD_NUMA_BIND == 1 && SHMD_NUMA_PREFERRED == 2 && SHMD_NUMA_INTERLEAVE == 3);
        CHECK(SHMD_PUBLISH_REPLACE == 1);
        CHECK(SHMD_STAT_HOLDERS == 1 && SHMD_STAT_NAMES == 2);
        CHECK(SHMD_LIST_RECURSIVE == 1 && SHMD_LIST_ORPHANS == 2 && SHMD_LIST_USAGE == 4);
        CHECK(SHMD_EXPLAINED_UNKNOWN == 0 && SHMD_EXPLAINED_NOBODY == 1);
        CHECK(SHMD_EXPLAINED_GRANTS == 2 && SHMD_EXPLAINED_NO == 3);
        CHECK(SHMD_NODE_DIRECTORY == 0 && SHMD_NODE_REGION == 1);
        CHECK(SHMD_SLOT_BYTES == 1 && SHMD_SLOT_INFLIGHT == 7 && SHMD_SLOT_MAX == 7);
        CHECK(SHMD_DF_ACCOUNT == 0 && SHMD_DF_DIRECTORY == 1 && SHMD_DF_TOTAL == 2 && SHMD_DF_ACCOUNTS == 3);
        CHECK(SHMD_ACL_MAX == 32 && SHMD_ACL_USER_OBJ == 1 && SHMD_ACL_USER == 2 && SHMD_ACL_GROUP_OBJ == 3);
        CHECK(SHMD_ACL_GROUP == 4 && SHMD_ACL_MASK == 5 && SHMD_ACL_OTHER == 6);
        CHECK(SHMD_ACL_ACCESS == 1 && SHMD_ACL_DEFAULT == 2);
        CHECK(SHMD_ACL_TEXT_BARE == 1 && SHMD_ACL_TEXT_SHORT == 2 && SHMD_ACL_TEXT_NUMERIC == 4);
        CHECK(SHMD_ACL_TEXT_DEFAULT == 8);
        CHECK(SHMD_WHY_OPEN == 1 && SHMD_WHY_CREATE == 3 && SHMD_WHY_RENAME == 7 && SHMD_WHY_STAT == 10);
        CHECK(SHMD_WHY_WATCH == 14 && SHMD_WHY_HOLDERS == 17);
        CHECK(SHMD_WHY_BY_NOBODY == 0 && SHMD_WHY_BY_ADMIN == 1 && SHMD_WHY_BY_OTHER == 6);
        CHECK(SHMD_BUCKETS == 20);
        CHECK(SHMD_BELL_RING == 1);
        CHECK(SHMD_REVOKE_NUMBER == 0 && SHMD_REVOKE_TICKET == 1 && SHMD_REVOKE_ALL == 2);
}

int main(void) {
        size_t n = sizeof(symbols) / sizeof(symbols[0]);

        for (size_t i = 0; i < n; ++i) {
                check(symbols[i].address != NULL, symbols[i].name);
                for (size_t k = 0; k < i; ++k)
                        check(strcmp(symbols[i].name, symbols[k].name) != 0, symbols[i].name);
        }
        check_initializers();
        check_numbers();
        CHECK(strcmp(shmd_version(), "") != 0);
        return failed;
}
