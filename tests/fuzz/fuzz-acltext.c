/* ACLs as text. What is read is sorted and fits, and what is written of it is read back the same; what
 * is not taken is pointed at. The first byte has the flags. */

#include <string.h>

#include "fuzz/fuzz.h"
#include "proto/acltext.h"

/* Somebody with every name that begins with a letter of the first half. */
static bool find(AclTag tag, const char *name, uint32_t *ret, void *userdata) {
        FUZZ_REQUIRE(tag == ACL_USER || tag == ACL_GROUP);
        FUZZ_REQUIRE(strlen(name) <= ACLTEXT_NAME_MAX);
        *ret = (uint32_t)strlen(name) + tag * 1000U;
        return name[0] >= 'a' && name[0] <= 'm';
}

static void check_list(const AclList *list, bool is_default) {
        FUZZ_REQUIRE(list->n <= ACL_ENTRIES_MAX);
        for (size_t i = 0; i < list->n; ++i) {
                char text[ACLTEXT_ENTRY_MAX];
                const AclEntry *same;
                AclText again;
                size_t n;

                FUZZ_REQUIRE(acl_check_entry(&list->entries[i]) == ACL_OK);
                FUZZ_REQUIRE(i == 0 || acl_compare(&list->entries[i - 1], &list->entries[i]) < 0);
                n = acltext_format(&list->entries[i],
                                   (i % 2 ? ACLTEXT_SHORT : 0) | (is_default ? ACLTEXT_IS_DEFAULT : 0),
                                   NULL, NULL, text);
                FUZZ_REQUIRE(n == strlen(text) && n < sizeof(text));
                FUZZ_REQUIRE(acltext_parse(text, n, ACLTEXT_DEFAULTS, NULL, NULL, &again, NULL) == 0);
                FUZZ_REQUIRE(again.access.n == !is_default && again.defaults.n == is_default);
                same = is_default ? &again.defaults.entries[0] : &again.access.entries[0];
                FUZZ_REQUIRE(acl_compare(same, &list->entries[i]) == 0 && same->perms == list->entries[i].perms);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        AclTextError error = { .sentence = NULL };
        AclText lists;

        if (n == 0)
                return 0;
        ++data;
        --n;
        if (acltext_parse((const char *)data, n, data[-1] & (ACLTEXT_DEFAULTS | ACLTEXT_BARE),
                          data[-1] & 0x80 ? find : NULL, NULL, &lists, &error) == 0) {
                check_list(&lists.access, false);
                check_list(&lists.defaults, true);
        } else {
                FUZZ_REQUIRE(error.sentence && error.n > 0 && error.at <= n && error.n <= n - error.at);
        }
        return 0;
}
