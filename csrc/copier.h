/* copier.h - the one header of the extension: what Python, the VFS and the C tests call.
 *
 * Sizes and offsets are int64_t bytes. Every function that can fail returns a negative errno;
 * what it returns otherwise is said beside it. Nothing here opens a live database, its -wal or
 * its -shm: closing any descriptor of those would drop the locks that SQLite holds on them for
 * the whole process (POSIX fcntl locks).
 */
#ifndef T3_COPIER_H
#define T3_COPIER_H

#include <stdint.h>

/* ---- vfs.c: where a copy is written to -------------------------------------------------- */

/* A private file that SQLite writes through the VFS "t3copy", as the database "t3copy-FD". */
typedef struct t3_destination t3_destination;

typedef struct {
    int64_t written; /* bytes handed to pwrite since the last reset */
    int64_t synced;  /* bytes whose write-back has been waited for */
    int64_t read;    /* bytes that SQLite read or mapped back */
    int error;       /* the first failure, a negative errno; 0 while all is well */
} t3_counters;

/* Take `fd` (open read-write; stays the caller's) as a destination. Progress lines, one JSON
 * object each and at most one every half second, go to `progress_fd` (-1: nowhere).
 * NULL: no memory, or the descriptor is a destination already. */
t3_destination *t3_destination_new(int fd, int progress_fd);

/* Empty the file and forget buffer, counters, error and cancellation: ready for another method. */
int t3_destination_reset(t3_destination *destination);

/* Write what is still gathered and wait for the write-back of every window. Only after a 0 from
 * here may the copy be believed: SQLite ignores what closing a file returns. */
int t3_destination_finish(t3_destination *destination);

/* Every later write through this destination fails. Safe in a signal handler. */
void t3_destination_cancel(t3_destination *destination);

t3_counters t3_destination_counters(const t3_destination *destination);

/* Forget it. No SQLite connection may have it open. */
void t3_destination_free(t3_destination *destination);

/* Let the signal `signo` cancel every destination of this process. */
int t3_cancel_on_signal(int signo);

/* ---- durable.c: files that survive ------------------------------------------------------ */

enum { T3_COPY_REFLINK = 1, T3_COPY_RANGE = 2, T3_COPY_READ_WRITE = 4, T3_COPY_ANY = 7 };

/* openat2 beneath `dirfd`: no symlink anywhere, no way out, no magic link. Returns a descriptor
 * (O_CLOEXEC). */
int t3_open_beneath(int dirfd, const char *path, int flags, int mode);

/* Give an unnamed file a name, never over an existing one (-EEXIST). */
int t3_link_unnamed(int fd, int dirfd, const char *name);

/* renameat2(RENAME_NOREPLACE) within one directory. */
int t3_rename_noreplace(int dirfd, const char *from, const char *to);

/* renameat2(RENAME_EXCHANGE) within one directory: both names are there at every instant. */
int t3_rename_exchange(int dirfd, const char *one, const char *other);

/* fsync of a file. A failure is final: what the kernel could not write is gone from its cache. */
int t3_sync_file(int fd);

/* fsync of a directory; EINVAL (a file system that has no such thing) is no failure, by name. */
int t3_sync_directory(int fd);

/* Make `dst` (empty) the same bytes as the `bytes` of `src`: FICLONE, else copy_file_range, else
 * read and write, each falling to the next from where it got to; holes stay holes in the last.
 * `methods` says which may be tried. Returns the method that finished, a T3_COPY_ value; -EIO if
 * the source ended early. Does not sync. */
int t3_copy(int src, int dst, int64_t bytes, int methods);

/* ---- delta.c: pages of images, and in which of them two differ ---------------------------- */

enum { T3_HASH_BYTES = 16 };

/* The XXH3-128 of each page of `data`, canonical (big endian), into `hashes`; a last page that is
 * cut short counts as it is. Returns their number. */
int64_t t3_hash_pages(const void *data, int64_t bytes, int page_bytes, void *hashes);

/* The numbers of the pages from `first` on, `count` of them, in which two files differ, into
 * `pages`, which has room for `count`; past its end a file is zeros. Returns how many differ. */
int64_t t3_differing_pages(int one, int other, int64_t first, int64_t count, int page_bytes,
                           uint32_t *pages);

/* The `count` pages of those numbers, one after the other, into `data`: each from `other` where
 * `from_other` has a 1 for it, else from `one` (-1: zeros); past its end a file is zeros. */
int t3_read_pages(int one, int other, const uint8_t *from_other, const uint32_t *pages,
                  int64_t count, int page_bytes, void *data);

/* Put the pages of `data` into their places. */
int t3_write_pages(int fd, const uint32_t *pages, int64_t count, int page_bytes, const void *data);

/* ---- confine.c: what a worker gives up -------------------------------------------------- */

/* No new privileges, no core, not traceable, dead with its parent. -ESRCH: `parent` (a pid) is gone
 * already. Call after the last change of user: that change clears the parent-death signal. */
int t3_confine(int parent);

#endif
