/* The stage: a private broker, and the users who play on it.
 *
 * The broker has a temporary folder of its own with its configuration, its socket and its log;
 * striking the stage ends the broker and removes the folder, whatever happened in between.
 *
 * Users: as root, everybody gets a uid of its own, and so they do without root if the machine
 * lets this user have subordinate uids in a user namespace (newuidmap(1), subuid(5)). Otherwise
 * all are the same user; then refusals that need another one cannot be shown.
 */
#ifndef DEMO_STAGE_H
#define DEMO_STAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
        UID_BROKER = 64055,
        UID_OWNER,
        UID_READER,
        UID_ATTACKER,
        UID_STRANGER,
};

typedef struct Stage {
        pid_t broker;
        bool many_users;
        char directory[256];
        char socket[272];
        char config[272];
        char log[272];
} Stage;

#define STAGE_NULL { .broker = -1 }

/* Called first, without root: moves the process into a user namespace with many uids if that
 * can be had. Return: true in the process that goes on; false in one that only waited for it,
 * with its exit status. */
bool stage_enter_users(int *ret_status);

/* Makes the folder and starts the broker with a limit of so many bytes for each account. On
 * failure *ret_sentence says what went wrong. */
bool stage_set(Stage *stage, const char *shmd, uint64_t limit, const char **ret_sentence);

/* Asks the broker to end. Return: true if it exited with 0 and its books balanced. */
bool stage_end_broker(Stage *stage);

/* Prints the last lines of the broker's log. */
void stage_print_log(const Stage *stage);

/* Ends what still runs and removes the folder. */
void stage_strike(Stage *stage);

/* The uid to start somebody as: his own, or (uid_t)-1 if all are the same. */
uid_t stage_uid(const Stage *stage, uid_t uid);

#endif
