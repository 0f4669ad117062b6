/* How much memory this process may still take without being killed for it.
 *
 * The kernel answers a fault that a memory cgroup has no room for with the OOM killer, never with
 * an error; so whoever wants an error has to look first. There is room for n bytes if MemAvailable
 * says so and so does every memory cgroup from the process's own up to the top that is visible
 * here, of both cgroup versions: its limit less what it uses, where clean file pages that were
 * not used lately do not count as use. Between the look and the taking somebody else may take it.
 */
#ifndef CLIENT_ROOM_H
#define CLIENT_ROOM_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct RoomGroups {
        bool unified;           /* cgroup v2 */
        size_t n_mount;         /* length of the part that is the mount point */
        char path[PATH_MAX];    /* the process's own group; "" if this version controls no memory */
} RoomGroups;

typedef struct Room {
        RoomGroups groups[2];   /* v1 and v2 */
} Room;

/* Finds the memory cgroups of this process; what cannot be found limits nothing. */
void room_init(Room *room);

/* Return: whether there is room for n bytes now. */
bool room_has(const Room *room, uint64_t n);

#endif
