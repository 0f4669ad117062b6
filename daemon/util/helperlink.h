/* What the broker and its helper say to each other.
 *
 * Packets of one fixed size over SOCK_SEQPACKET, some with a descriptor. The broker asks the
 * supervisor for a worker and gets one end of that worker's own socket; on it, one job at a time
 * goes out with a region's descriptor, and its result comes back. A socket stands for the process
 * at its other end, which alone holds that end: when it reads as ended, the process is gone, and
 * with it every descriptor it was lent.
 */
#ifndef UTIL_HELPERLINK_H
#define UTIL_HELPERLINK_H

#include <stdbool.h>
#include <stdint.h>

/* Processes that do jobs, those included that were killed and are not gone yet. */
#define HELPER_PROCESSES_MAX 8

enum {
        _HELPERLINK_E_SUCCESS,
        HELPERLINK_E_AGAIN,     /* nothing to read, or no room to send */
        HELPERLINK_E_GONE,      /* the other side has ended */
        HELPERLINK_E_VIOLATION, /* what came is no packet of these */
};

typedef enum HelperOp {
        _HELPER_NONE,
        /* To the supervisor. */
        HELPER_SPAWN,           /* one more worker */
        HELPER_KILL,            /* the worker `pid`: it takes too long */
        HELPER_REAP,            /* the worker `pid` has ended */
        /* From the supervisor. */
        HELPER_READY,           /* once: it has nothing of the broker's any more */
        HELPER_WORKER,          /* result 0: the worker `pid`, with its socket */
        /* To a worker, with a region. */
        HELPER_SEAL,            /* add `seals` */
        HELPER_POKE,            /* write `byte` at `offset` */
        HELPER_BURY,            /* close what is enclosed: helperlink_enclose() */
        /* From a worker. */
        HELPER_DONE,            /* `result` of the job `serial` */
} HelperOp;

typedef struct HelperPacket {
        uint32_t op;            /* HelperOp */
        int32_t result;         /* 0, or a negative errno */
        int64_t pid;
        uint64_t serial;
        uint64_t offset;
        uint32_t seals;         /* F_SEAL_* */
        uint32_t byte;
} HelperPacket;

/* Sends a packet without waiting; fd (-1: none) stays the caller's.
 * Return: 0, HELPERLINK_E_AGAIN, HELPERLINK_E_GONE, or a negative errno of sendmsg(2). */
int helperlink_send(int link, const HelperPacket *packet, int fd);

/* Receives one, waiting for it or not. *ret_fd is the caller's, -1 without one; on any result but 0
 * there is none.
 * Return: 0, HELPERLINK_E_AGAIN, HELPERLINK_E_GONE, HELPERLINK_E_VIOLATION, or a negative errno. */
int helperlink_receive(int link, bool wait, HelperPacket *ret, int *ret_fd);

/* Puts a descriptor where its caller has it no more and nobody else has it yet: into a message to a
 * socket, which takes its place in *fd. Whoever takes it out and closes it is the last who has it.
 * Return: 0, or a negative errno; then nothing has changed. */
int helperlink_enclose(int *fd);
/* Closes what is enclosed in `socket`. Return: 0, or a negative errno. */
int helperlink_close_enclosed(int socket);

#endif
