/* copier.h - declares what the extension offers to Python, to its own files and to the C tests.
 *
 * Sizes and offsets are int64_t bytes. A function that can fail returns a negative errno then; what
 * it returns otherwise is said at its declaration. Nothing here opens a live database, its -wal or
 * its -shm: closing any descriptor of those would drop the locks that SQLite holds on them for the
 * whole process (POSIX fcntl locks).
 */
#ifndef T3_COPIER_H
#define T3_COPIER_H

#include <stdint.h>

/* ---- vfs.c: the file that a copy is written to ------------------------------------------ */

/* A private file, which SQLite opens through the VFS "t3copy" as the database "t3copy-FD". */
typedef struct t3_destination t3_destination;

typedef struct {
    int64_t written; /* bytes written since the last reset */
    int64_t synced;  /* bytes of them whose write-back is complete */
    int64_t read;    /* bytes that SQLite read or mapped back */
    int error;       /* the first failure to read, write or sync, a negative errno; 0: none */
} t3_counters;

/* Make `fd` (open for reading and writing, and still the caller's) a destination. Progress lines,
 * one JSON object each and at most one every half second, go to `progress_fd` (-1: nowhere).
 * Returns NULL and sets errno: ENOMEM, or EEXIST if `fd` is a destination already. */
t3_destination *t3_destination_new(int fd, int progress_fd);

/* Empty the file, and forget buffer, counters, error and cancellation: ready for another copy. */
int t3_destination_reset(t3_destination *destination);

/* Write the buffer and wait for the write-back of the whole file. The copy is complete only if this
 * returns 0: SQLite ignores what closing a file returns. */
int t3_destination_finish(t3_destination *destination);

t3_counters t3_destination_counters(const t3_destination *destination);

/* Release it. No SQLite connection may have it open. */
void t3_destination_free(t3_destination *destination);

/* Let the signal `signo` cancel every destination of this process: every later write fails. */
int t3_cancel_on_signal(int signo);

/* Take a lease on `fd`, which is open for reading alone: nobody has the file open for writing
 * (fcntl(2), F_RDLCK). One is held at a time. As soon as somebody is about to open it so, `signo`
 * lets it go, so that nobody waits, and cancels every destination until it is given back. Returns
 * -EAGAIN where somebody has the file open for writing, -EINVAL where there are no leases. */
int t3_take_lease(int fd, int signo);

/* Give the lease back before its descriptor is closed. Returns -EAGAIN where it did not last. */
int t3_give_lease_back(void);

/* ---- io.c: whole reads, writes and copies ----------------------------------------------- */

/* Read `bytes` at `offset`. Returns how many: fewer only where the file ends. */
int64_t t3_read_at(int fd, void *data, int64_t bytes, int64_t offset);

/* Write `bytes` at `offset`. */
int t3_write_at(int fd, const void *data, int64_t bytes, int64_t offset);

/* Write `bytes` at `offset` of a file that ends there, or before: its blocks that are all zero stay
 * holes, and take no room on the disk. */
int t3_extend(int fd, const void *data, int64_t bytes, int64_t offset);

/* Copy by copy_file_range from `*done` to `bytes`, and advance `*done`: short of it only where the
 * source ends. */
int t3_copy_range(int src, int dst, int64_t bytes, int64_t *done);

/* ---- files.c: opening, naming, syncing, copying ----------------------------------------- */

enum { T3_COPY_REFLINK = 1, T3_COPY_RANGE = 2, T3_COPY_READ_WRITE = 4, T3_COPY_ANY = 7 };

/* Open `path`, which is there, beneath `dirfd` as openat2 does: no symlink anywhere, no way out, no
 * magic link. Returns a descriptor (O_CLOEXEC). */
int t3_open_beneath(int dirfd, const char *path, int flags);

/* Give an unnamed file a name, never over an existing one (-EEXIST). */
int t3_link_unnamed(int fd, int dirfd, const char *name);

/* Rename within one directory, never over an existing name (-EEXIST). */
int t3_rename_noreplace(int dirfd, const char *from, const char *to);

/* Let two names of one directory change places: both exist at every instant. */
int t3_rename_exchange(int dirfd, const char *one, const char *other);

/* fsync a file. A failure is final: the kernel drops from its cache what it could not write. */
int t3_sync_file(int fd);

/* fsync a directory. EINVAL is no failure: the file system can't sync directories. */
int t3_sync_directory(int fd);

/* Copy the first `bytes` of `src` to `dst`, which is empty: by FICLONE, else copy_file_range, else
 * read and write, each going on where the one before stopped. Holes stay holes, and so do zeros
 * where they are read and written. `methods` says which may be tried. Returns the method that
 * finished, a T3_COPY_ value; -EIO if the source ended early. Does not sync. */
int t3_copy(int src, int dst, int64_t bytes, int methods);

/* ---- pages.c: pages of database files by number ----------------------------------------- */

enum { T3_HASH_BYTES = 16 };

/* Put the XXH3-128 of each page of `data`, canonical (big endian), into `hashes`. The last page may
 * be shorter and is hashed as it is. Returns how many. */
int64_t t3_hash_pages(const void *data, int64_t bytes, int page_bytes, void *hashes);

/* Compare `count` pages of two files from page `first` on (0-based), and put the numbers of those
 * that differ into `pages`, which has room for `count`. Past its end a file is zeros. Returns how
 * many differ. */
int64_t t3_differing_pages(int one, int other, int64_t first, int64_t count, int page_bytes,
                           uint32_t *pages);

/* Read `count` pages, whose numbers are in `pages`, one after the other into `data`: each from
 * `other` where `from_other` has a 1 for it, else from `one`. Past its end a file is zeros, and so
 * is all of the descriptor -1. */
int t3_read_pages(int one, int other, const uint8_t *from_other, const uint32_t *pages,
                  int64_t count, int page_bytes, void *data);

/* Write `count` pages, one after the other in `data`, where their numbers in `pages` put them. */
int t3_write_pages(int fd, const uint32_t *pages, int64_t count, int page_bytes, const void *data);

/* ---- confine.c: what a worker process gives up ------------------------------------------ */

/* Gain no privileges, dump no core, be untraceable, and die with the parent. -ESRCH: `parent` (a
 * pid) is gone already. Call it after the last change of user, which clears the parent-death
 * signal. */
int t3_confine(int parent);

#endif
