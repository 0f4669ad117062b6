/* What a broker tells its keeper: packets in the words of sd_notify(3), and the one parser of them.
 *
 * A packet is lines of NAME=VALUE. The keeper believes nothing of what it reads here: a broker may
 * have been taken over by one of its clients. So every word that is known has one spelling, a name
 * of a descriptor is of a small alphabet, a packet asks for one thing, and whatever does not fit is
 * refused as a whole. What is to be kept may be several descriptors: then each has a name, in their
 * order; and what is to be let go of, several names. Words that are not known are passed over, as the
 * broker may be newer than its keeper.
 */
#ifndef UTIL_NOTIFY_H
#define UTIL_NOTIFY_H

#include <stddef.h>

#include "util/fdstore.h"

/* Bytes of a packet; more is refused. So many names fit, however long they are. */
#define NOTIFY_MAX 1024
/* Descriptors of a packet; more is refused. */
#define NOTIFY_FDS_MAX FDSTORE_SEVERAL_MAX
/* Bytes of a status with its NUL; more is cut. */
#define NOTIFY_STATUS_MAX 128

enum {
        _NOTIFY_E_SUCCESS,
        NOTIFY_E_AGAIN,         /* there is no packet now */
        NOTIFY_E_GONE,          /* there will be none any more */
        NOTIFY_E_INVALID,       /* it is none of these; what came with it is closed */
};

typedef enum NotifyWord {
        NOTIFY_READY    = 1 << 0,
        NOTIFY_WATCHDOG = 1 << 1,
        NOTIFY_UPGRADE  = 1 << 2,       /* X_SHMD_UPGRADE=1: start anew, from the program that is there now */
        NOTIFY_STORE    = 1 << 3,       /* keep each of the descriptors as the name that stands at its place */
        NOTIFY_BARRIER  = 1 << 4,       /* close the one descriptor when all before has been done */
        NOTIFY_REMOVE   = 1 << 5,       /* let go of each of the names; there is no descriptor */
} NotifyWord;

typedef struct Notify {
        unsigned int words;             /* of NotifyWord */
        size_t n_names;
        size_t n_fds;
        char status[NOTIFY_STATUS_MAX]; /* "": none; printable ASCII */
        int fds[NOTIFY_FDS_MAX];        /* the receiver's */
        char names[NOTIFY_FDS_MAX][FDSTORE_NAME_MAX];
} Notify;

/* Takes the first packet without waiting. The descriptors are not close-on-exec; what is no packet has none.
 * Return: 0, NOTIFY_E_AGAIN, NOTIFY_E_GONE, NOTIFY_E_INVALID. */
int notify_take(int socket, Notify *ret);
/* The same, but the packet stays where it is, so that whoever has the socket next finds it if this process ends with it
 * half done; the descriptors are copies. What is invalid is to be dropped all the same. */
int notify_peek(int socket, Notify *ret);
/* Drops the packet that was looked at. */
void notify_drop(int socket);

/* Parses a packet that came with n_fds descriptors, which it does not touch. Return: 0, NOTIFY_E_INVALID. */
int notify_parse(Notify *ret, const char *packet, size_t n, size_t n_fds);

#endif
