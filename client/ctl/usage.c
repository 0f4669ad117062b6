/* Accounts: see the header for the model. */

#include "buildinfo.h"

#include "client/ctl/usage.h"

int usage_each_account(Ctl *ctl, void (*fn)(void *data, const struct shmd_usage *usage), void *data) {
        uid_t next = 0;
        bool more;

        do {
                CLEANUP(shmd_df_freep) struct shmd_df_result *page = NULL;
                int r;

                r = shmd_df(ctl->client, SHMD_DF_ACCOUNTS, next, NULL, &page, SHMD_TIMEOUT_DEFAULT);
                if (r < 0)
                        return r;
                for (size_t i = 0; i < page->n; ++i)
                        fn(data, &page->usages[i]);
                more = page->more;
                next = page->next_uid;
        } while (more);
        return 0;
}
