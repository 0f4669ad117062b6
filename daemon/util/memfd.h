/* memfds: made, sealed and re-opened the one way that makes a region safe to hand out.
 *
 * A memfd is born mode 0777, so that any uid with a read-only descriptor could re-open it for
 * writing through /proc; one that can grow, shrink or take more seals belongs to whoever holds
 * it. memfd_make() closes all of that before anybody else can see the inode, or fails. What it
 * returns is a description that was *opened*: leases do not work on the one memfd_create(2)
 * returns.
 */
#ifndef UTIL_MEMFD_H
#define UTIL_MEMFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MEMFD_MARKER_BASE (INT64_C(1) << 62)

enum {
        _MEMFD_E_SUCCESS,
        MEMFD_E_UNSUPPORTED,    /* no huge pages of that size on this machine */
        MEMFD_E_NO_PAGES,       /* not enough huge pages free */
        MEMFD_E_NO_MEMORY,      /* the machine has no memory, descriptor or inode left */
        MEMFD_E_TOO_LARGE,      /* larger than a file can be */
        MEMFD_E_HELD,           /* somebody else has it open, mapped or in flight */
        MEMFD_E_FAILED,         /* the kernel would not, for this region */
};

typedef struct MemfdSpec {
        uint64_t id;            /* goes into the name that /proc/PID/maps shows: an identifier, no secret */
        uint64_t size;          /* bytes */
        unsigned int huge_shift;/* log2 of the huge page size, 0 for the system's pages */
        bool freezable;         /* leave F_SEAL_SEAL off */
        bool readable;          /* mode 0644: whoever has it may open it for reading again */
} MemfdSpec;

/* The size of the pages a region of this spec is charged in. Bytes. */
uint64_t memfd_page_size(unsigned int huge_shift);

/* create, chmod 0600 or 0644, re-open, close the original, size, seal; in that order. For huge pages the
 * pool's pages are reserved too, so that no access can fail later. *ret is the caller's.
 *
 * Return: 0, MEMFD_E_UNSUPPORTED, MEMFD_E_NO_PAGES, MEMFD_E_NO_MEMORY, MEMFD_E_TOO_LARGE, or a
 * negative errno. */
int memfd_make(const MemfdSpec *spec, int *ret);

/* The same in two steps. The first, up to the close, looks neither at the size nor at `freezable` of the spec, and can
 * be taken before they are known. Nobody else may have the file before the second is done; what that refuses is good
 * for nothing. Return: as memfd_make(). */
int memfd_begin(const MemfdSpec *spec, int *ret);
int memfd_finish(int fd, const MemfdSpec *spec);
/* Whether it may be one that has only the first behind it: of mode 0600, empty, and not sealed. */
bool memfd_is_begun(int fd);

/* Makes a file of n bytes that never changes. *ret is the caller's. Return: 0, MEMFD_E_NO_MEMORY, or a
 * negative errno. */
int memfd_make_sealed(const char *name, const void *bytes, size_t n, int *ret);
/* Reads n bytes of one. Return: 0; MEMFD_E_FAILED, it does not have them, or can be changed. */
int memfd_read_sealed(int fd, void *bytes, size_t n);

/* Keeps the directory of this process's descriptors open, or no longer: memfd_reopen() then looks one name
 * up instead of four. Only for a process that does not fork any more, as in a child it would still be its
 * parent's. Where there is no such directory, nothing changes. */
void memfd_hold_directory(bool hold);

/* Opens a description of its own, read-only or read-write. *ret is the caller's.
 * Return: 0, MEMFD_E_NO_MEMORY, MEMFD_E_FAILED. */
int memfd_reopen(int fd, bool writable, int *ret);

/* Asks the kernel, by a write lease set and taken back, whether any other description of the
 * inode exists anywhere: descriptor, mapping, or message in flight (fcntl(2), F_SETLEASE).
 * Return: 0 when nobody else has it, MEMFD_E_HELD, or a negative errno where leases do not work. */
int memfd_probe(int fd);

/* Makes the kernel collect sockets that are held by each other's messages alone, with all that their
 * messages hold (unix(7), SCM_RIGHTS). It does so a moment after any Unix socket is closed, and
 * otherwise never: then what is in them stays held. */
void memfd_collect(void);

/* Marks the description `fd` with read lock number `mark` of its own (an open file description
 * lock, fcntl(2)), far above any byte of the file. The mark lives as long as the description.
 * Return: 0, MEMFD_E_FAILED. */
int memfd_mark(int fd, uint64_t mark);

/* Looks for a mark of `first`..`last`, asked through any other description. *ret_first and *ret_last
 * are the marks one lock covers: which of several is the kernel's choice.
 * Return: whether there is one; true also when somebody else locked these bytes: marks inform,
 * they prove nothing. */
bool memfd_find_mark(int fd, uint64_t first, uint64_t last, uint64_t *ret_first, uint64_t *ret_last);

/* Whether a descriptor that another process left is what memfd_make() returned for that spec (its id does
 * not matter) to a process of that uid, of that inode. A lease that a probe left on it is taken off.
 * Return: NULL, or what it is not (static). */
const char *memfd_adopt(int fd, const MemfdSpec *spec, uid_t uid, uint64_t inode);

/* Its inode and size, if it is a memfd of that uid. Return: whether it is. */
bool memfd_look(int fd, uid_t uid, uint64_t *ret_inode, uint64_t *ret_size);

/* F_SEAL_* of the inode, 0 if it cannot be asked. */
uint32_t memfd_seals(int fd);

/* The number of the inode; 0 if it cannot be asked. */
uint64_t memfd_inode(int fd);

/* Bytes that are allocated, swapped ones included; UINT64_MAX if it cannot be asked. */
uint64_t memfd_allocated(int fd);

/* Frees the pages of a range. Only for a region that nobody else holds: the call takes the
 * inode's lock. Errors mean that the pages go when the file is closed. */
void memfd_punch(int fd, uint64_t offset, uint64_t length);

#endif
