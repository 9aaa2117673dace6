/* vfs.c - the SQLite VFS "t3copy", through which SQLite writes a copy into a private file, and
 * reads it back to check it. The file is known by its descriptor, not by a path.
 *
 * SQLite's pages are buffered into large writes; write-back starts early, so that little is dirty
 * at the end. The first failure is kept, and everything after it fails. There are no locks and no
 * journal: the file has one writer, and a copy that failed is thrown away. Temporary files and
 * extensions are left to the default VFS.
 */
#include "copier.h"
#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3ext.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define MILLISECONDS_A_DAY 86400000.0

SQLITE_EXTENSION_INIT1

enum {
    /* A write of 2 MiB or more makes the kernel look for huge folios in its page cache, which takes
     * several times as long: 1.2 GB took 3.0 s in writes of 4 MiB, 0.55 s in writes of 256 KiB or
     * 1 MiB, 0.8 s in writes of 16 KiB (ext4, Linux 6.18). */
    BUFFER_BYTES = 512 << 10,
    BUFFER_ALIGNMENT = 4096,
    WINDOW_BYTES = 4 << 20, /* of the file, whose write-back is started at once */
    WINDOWS_IN_FLIGHT = 2,  /* see write_behind */
    SECTOR_BYTES = 4096,
    OVERREAD_BYTES = 256,       /* SQLite may read so far past a malformed page (its unix VFS) */
    CALLS_PER_CLOCK_CHECK = 64, /* reads and writes */
    PROGRESS_MS = 500,
    SYNC_AND_WAIT = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                    SYNC_FILE_RANGE_WAIT_AFTER,
};

/* A range of the file in which `bytes` were written: fewer than its length if SQLite left gaps. */
typedef struct {
    int64_t from, to, bytes;
} window;

struct t3_destination {
    t3_destination *next;
    char name[24];
    int fd;
    int progress_fd;
    int64_t end; /* of the file */

    unsigned char *buffer; /* not yet written: `buffered` bytes, which belong at `buffer_start` */
    int64_t buffer_start;
    int64_t buffered;

    window dirty;                            /* written, write-back not started */
    window in_flight[WINDOWS_IN_FLIGHT + 1]; /* write-back started, not awaited; oldest first */
    int n_in_flight;
    bool no_sync_file_range; /* the file system lacks it: fdatasync at the end */

    t3_counters counters;
    sig_atomic_t signals_seen; /* at the last reset: only later ones cancel */

    unsigned char *map; /* the file, read-only; NULL: not mapped */
    int64_t map_bytes;  /* length of the mapping */
    int64_t map_valid;  /* how much of it the file still backs */
    int pages_fetched;  /* by SQLite, and not given back */
    int open_count;

    unsigned calls;
    int64_t reported_ms;
};

typedef struct {
    sqlite3_file base;
    t3_destination *destination;
    int64_t map_limit;
} t3_file;

static struct {
    sqlite3_vfs vfs;
    sqlite3_vfs *default_vfs; /* of the same SQLite */
    const sqlite3_api_routines *api;
    pthread_mutex_t lock; /* guards the list of destinations */
    t3_destination *first;
    volatile sig_atomic_t signals; /* how many came that cancel every destination */
    volatile sig_atomic_t leased;  /* the descriptor that a lease is held on; -1: there is none */
    volatile sig_atomic_t broken;  /* whether it was let go before it was given back */
} registration = {.lock = PTHREAD_MUTEX_INITIALIZER, .leased = -1};

/* ---- failure and progress --------------------------------------------------------------- */

/* Keep the first failure, and return it. errno then says the same, which is where SQLite looks for
 * its cause (xGetLastError). */
static int fail(t3_destination *d, int error)
{
    if (d->counters.error == 0)
        d->counters.error = -error;
    errno = -d->counters.error;
    return d->counters.error;
}

/* Return the failure or cancellation after which nothing may be written; 0: there is none. */
static int pending_error(t3_destination *d)
{
    bool cancelled = d->signals_seen != registration.signals || registration.broken;

    return d->counters.error != 0 || cancelled ? fail(d, ECANCELED) : 0;
}

static int sqlite_code(int error, int otherwise)
{
    if (error == 0)
        return SQLITE_OK;
    return error == -ENOSPC || error == -EDQUOT ? SQLITE_FULL : otherwise;
}

/* A clock that can't be read says 0: then no progress is reported. */
static int64_t now_ms(void)
{
    struct timespec now;

    if (T3_CALL(clock_gettime, CLOCK_MONOTONIC_COARSE, &now) < 0)
        return 0;
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static const char PROGRESS_LINE[] = "{\"event\":\"progress\",\"written\":%lld,\"read\":%lld}\n";

static void report_progress(t3_destination *d)
{
    char line[96];
    int64_t now, written;
    int length;

    if (d->progress_fd < 0 || ++d->calls % CALLS_PER_CLOCK_CHECK != 0)
        return;
    now = now_ms();
    if (now - d->reported_ms < PROGRESS_MS)
        return;
    d->reported_ms = now;
    written = d->counters.written + d->buffered;
    length = snprintf(line, sizeof line, PROGRESS_LINE, (long long)written,
                      (long long)d->counters.read);
    if (T3_CALL(write, d->progress_fd, line, (size_t)length) < 0)
        return; /* The reader is gone: the copy goes on. */
}

/* ---- writing ---------------------------------------------------------------------------- */

static int sync_range(t3_destination *d, int64_t from, int64_t bytes, unsigned flags)
{
    if (d->no_sync_file_range || T3_CALL(sync_file_range, d->fd, from, bytes, flags) == 0)
        return 0;
    /* These three are about the call, not about the data. */
    if (errno == ENOSYS || errno == EINVAL || errno == ESPIPE) {
        d->no_sync_file_range = true;
        return 0;
    }
    return fail(d, errno);
}

/* Start the write-back of the dirty window; then, where more than WINDOWS_IN_FLIGHT are under way,
 * wait for the oldest. So the disk is kept busy and little is dirty at any time. */
static int write_behind(t3_destination *d)
{
    int rc = sync_range(d, d->dirty.from, d->dirty.to - d->dirty.from, SYNC_FILE_RANGE_WRITE);

    if (rc < 0)
        return rc;
    d->in_flight[d->n_in_flight++] = d->dirty;
    d->dirty = (window){0};
    if (d->n_in_flight <= WINDOWS_IN_FLIGHT)
        return 0;
    rc = sync_range(d, d->in_flight[0].from, d->in_flight[0].to - d->in_flight[0].from,
                    SYNC_AND_WAIT);
    if (rc < 0)
        return rc;
    if (!d->no_sync_file_range)
        d->counters.synced += d->in_flight[0].bytes;
    d->n_in_flight--;
    memmove(d->in_flight, d->in_flight + 1, (size_t)d->n_in_flight * sizeof *d->in_flight);
    return 0;
}

/* Write the buffer. If that fails it stays as it is. What the file does not have yet and is zeros
 * stays a hole: a sparse database takes no more room in its copy than where it is. */
static int flush_buffer(t3_destination *d)
{
    int rc = pending_error(d);
    int64_t old; /* bytes of the buffer that the file has already */

    if (rc < 0 || d->buffered == 0)
        return rc;
    old = d->end <= d->buffer_start ? 0 : d->end - d->buffer_start;
    old = old < d->buffered ? old : d->buffered;
    /* In larger writes than SQLite's own unix VFS makes (at most 128 KiB). */
    rc = t3_write_at(d->fd, d->buffer, old, d->buffer_start);
    if (rc == 0)
        rc = t3_extend(d->fd, d->buffer + old, d->buffered - old, d->buffer_start + old);
    if (rc < 0)
        return fail(d, -rc);
    if (old < d->buffered)
        d->end = d->buffer_start + d->buffered;
    d->counters.written += d->buffered;
    if (d->dirty.bytes == 0 || d->buffer_start < d->dirty.from)
        d->dirty.from = d->buffer_start;
    if (d->buffer_start + d->buffered > d->dirty.to)
        d->dirty.to = d->buffer_start + d->buffered;
    d->dirty.bytes += d->buffered;
    d->buffered = 0;
    return d->dirty.bytes >= WINDOW_BYTES ? write_behind(d) : 0;
}

static void unmap(t3_destination *d)
{
    if (d->map && d->pages_fetched == 0) {
        /* A failure costs address space and nothing else: the mapping is not used again. */
        T3_CALL(munmap, d->map, (size_t)d->map_bytes);
        d->map = NULL;
        d->map_valid = 0;
    }
}

static int truncate_to(t3_destination *d, int64_t bytes)
{
    unmap(d);
    if (d->map_valid > bytes)
        d->map_valid = bytes;
    while (T3_CALL(ftruncate, d->fd, bytes) < 0) {
        if (errno != EINTR)
            return fail(d, errno);
    }
    d->end = bytes;
    return 0;
}

/* ---- the destination -------------------------------------------------------------------- */

t3_destination *t3_destination_new(int fd, int progress_fd)
{
    t3_destination *d = T3_ALLOCATE(calloc, 1, sizeof *d);
    t3_destination *other;
    struct stat status;

    if (!d)
        return NULL;
    d->buffer = T3_ALLOCATE(aligned_alloc, BUFFER_ALIGNMENT, BUFFER_BYTES);
    if (!d->buffer) {
        free(d);
        return NULL;
    }
    snprintf(d->name, sizeof d->name, "t3copy-%d", fd);
    d->fd = fd;
    d->progress_fd = progress_fd;
    /* Where its size can't be told, all of it is written as it is. */
    d->end = T3_CALL(fstat, fd, &status) < 0 ? INT64_MAX : status.st_size;
    d->reported_ms = now_ms();

    pthread_mutex_lock(&registration.lock);
    for (other = registration.first; other && other->fd != fd; other = other->next)
        ;
    if (!other) {
        d->next = registration.first;
        registration.first = d;
    }
    pthread_mutex_unlock(&registration.lock);
    if (other) {
        free(d->buffer);
        free(d);
        errno = EEXIST;
        return NULL;
    }
    return d;
}

int t3_destination_reset(t3_destination *d)
{
    d->buffer_start = 0;
    d->buffered = 0;
    d->dirty = (window){0};
    d->n_in_flight = 0;
    d->counters = (t3_counters){0};
    d->signals_seen = registration.signals;
    return truncate_to(d, 0);
}

int t3_destination_finish(t3_destination *d)
{
    int rc = flush_buffer(d);

    if (rc < 0)
        return rc;
    rc = sync_range(d, 0, 0, SYNC_AND_WAIT);
    if (rc < 0)
        return rc;
    if (d->no_sync_file_range && T3_CALL(fdatasync, d->fd) < 0)
        return fail(d, errno);
    d->dirty = (window){0};
    d->n_in_flight = 0;
    d->counters.synced = d->counters.written;
    return 0;
}

t3_counters t3_destination_counters(const t3_destination *d)
{
    return d->counters;
}

void t3_destination_free(t3_destination *d)
{
    t3_destination **link;

    pthread_mutex_lock(&registration.lock);
    for (link = &registration.first; *link != d; link = &(*link)->next)
        ;
    *link = d->next;
    pthread_mutex_unlock(&registration.lock);
    unmap(d);
    free(d->buffer);
    free(d);
}

static void count_signal(int signo)
{
    (void)signo;
    registration.signals++;
}

int t3_cancel_on_signal(int signo)
{
    struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_RESTART};

    sigemptyset(&action.sa_mask);
    return T3_CALL(sigaction, signo, &action, NULL) < 0 ? -errno : 0;
}

/* The kernel keeps whoever opens the file waiting until the lease is gone. */
static void break_lease(int signo)
{
    int kept = errno;

    (void)signo;
    if (registration.leased >= 0) {
        T3_CALL(fcntl, registration.leased, F_SETLEASE, F_UNLCK);
        registration.broken = 1;
    }
    errno = kept;
}

int t3_take_lease(int fd, int signo)
{
    struct sigaction action = {.sa_handler = break_lease, .sa_flags = SA_RESTART};

    sigemptyset(&action.sa_mask);
    if (T3_CALL(sigaction, signo, &action, NULL) < 0 || T3_CALL(fcntl, fd, F_SETSIG, signo) < 0)
        return -errno;
    registration.leased = fd; /* first: the signal may come at once */
    if (T3_CALL(fcntl, fd, F_SETLEASE, F_RDLCK) == 0)
        return 0;
    registration.leased = -1;
    return -errno;
}

int t3_give_lease_back(void)
{
    int fd = registration.leased;
    bool held = T3_CALL(fcntl, fd, F_GETLEASE) == F_RDLCK;

    registration.leased = -1;
    held = T3_CALL(fcntl, fd, F_SETLEASE, F_UNLCK) == 0 && held && !registration.broken;
    registration.broken = 0;
    return held ? 0 : -EAGAIN;
}

/* ---- sqlite3_io_methods of a destination ------------------------------------------------ */

static int file_close(sqlite3_file *file)
{
    t3_destination *d = ((t3_file *)file)->destination;

    d->open_count--;
    if (d->open_count == 0)
        unmap(d);
    return SQLITE_OK;
}

static int file_read(sqlite3_file *file, void *data, int bytes, sqlite3_int64 offset)
{
    t3_destination *d = ((t3_file *)file)->destination;
    int64_t end = d->buffer_start + d->buffered, n;

    report_progress(d);
    d->counters.read += bytes;
    if (offset >= d->buffer_start && offset + bytes <= end) {
        memcpy(data, d->buffer + (offset - d->buffer_start), (size_t)bytes);
        return SQLITE_OK;
    }
    if (d->buffered > 0 && offset < end && offset + bytes > d->buffer_start && flush_buffer(d) < 0)
        return SQLITE_IOERR_READ;
    n = t3_read_at(d->fd, data, bytes, offset);
    if (n < 0) {
        fail(d, (int)-n);
        return SQLITE_IOERR_READ;
    }
    if (n == bytes)
        return SQLITE_OK;
    memset((char *)data + n, 0, (size_t)(bytes - n));
    return SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *file, const void *data, int bytes, sqlite3_int64 offset)
{
    t3_destination *d = ((t3_file *)file)->destination;
    const char *from = data;

    report_progress(d);
    if (pending_error(d) < 0)
        return sqlite_code(d->counters.error, SQLITE_IOERR_WRITE);
    while (bytes > 0) {
        /* The buffer ends at a multiple of its size in the file, so that writes are aligned. */
        int64_t capacity = BUFFER_BYTES - d->buffer_start % BUFFER_BYTES;
        int64_t at = offset - d->buffer_start;
        int n;
        if (d->buffered > 0 && (at < 0 || at > d->buffered || at == capacity)) {
            if (flush_buffer(d) < 0)
                return sqlite_code(d->counters.error, SQLITE_IOERR_WRITE);
        }
        if (d->buffered == 0) {
            d->buffer_start = offset;
            capacity = BUFFER_BYTES - offset % BUFFER_BYTES;
            at = 0;
        }
        n = bytes < capacity - at ? bytes : (int)(capacity - at);
        memcpy(d->buffer + at, from, (size_t)n);
        if (at + n > d->buffered)
            d->buffered = at + n;
        from += n;
        offset += n;
        bytes -= n;
    }
    return SQLITE_OK;
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 bytes)
{
    t3_destination *d = ((t3_file *)file)->destination;

    if (flush_buffer(d) < 0 || truncate_to(d, bytes) < 0)
        return sqlite_code(d->counters.error, SQLITE_IOERR_TRUNCATE);
    return SQLITE_OK;
}

/* t3_destination_finish waits for the write-back; the parent process calls fsync. */
static int file_sync(sqlite3_file *file, int flags)
{
    (void)flags;
    return sqlite_code(flush_buffer(((t3_file *)file)->destination), SQLITE_IOERR_FSYNC);
}

static int file_size(sqlite3_file *file, sqlite3_int64 *bytes)
{
    t3_destination *d = ((t3_file *)file)->destination;
    struct stat status;

    if (T3_CALL(fstat, d->fd, &status) < 0) {
        fail(d, errno);
        return SQLITE_IOERR_FSTAT;
    }
    *bytes = status.st_size;
    if (d->buffered > 0 && d->buffer_start + d->buffered > *bytes)
        *bytes = d->buffer_start + d->buffered;
    return SQLITE_OK;
}

/* Locking a private file, or syncing one that holds nothing. */
static int no_op(sqlite3_file *file, int argument)
{
    (void)file;
    (void)argument;
    return SQLITE_OK;
}

static int file_check_reserved_lock(sqlite3_file *file, int *reserved)
{
    (void)file;
    *reserved = 0;
    return SQLITE_OK;
}

static int file_control(sqlite3_file *file, int op, void *argument)
{
    t3_file *f = (t3_file *)file;
    sqlite3_int64 *limit = argument;
    int64_t before = f->map_limit;

    if (op != SQLITE_FCNTL_MMAP_SIZE)
        return SQLITE_NOTFOUND;
    if (*limit >= 0) /* Negative: a query. */
        f->map_limit = *limit;
    *limit = before;
    return SQLITE_OK;
}

static int file_sector_size(sqlite3_file *file)
{
    (void)file;
    return SECTOR_BYTES;
}

static int file_device_characteristics(sqlite3_file *file)
{
    (void)file;
    return SQLITE_IOCAP_SAFE_APPEND | SQLITE_IOCAP_SEQUENTIAL | SQLITE_IOCAP_POWERSAFE_OVERWRITE |
           SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN;
}

/* Map the file at its present length, unless it is. Where that fails SQLite reads instead. */
static void map_file(t3_destination *d)
{
    struct stat status;
    void *map;

    if (T3_CALL(fstat, d->fd, &status) < 0 || status.st_size == d->map_valid)
        return;
    unmap(d);
    map = T3_CALL(mmap, NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, d->fd, 0);
    if (map == MAP_FAILED)
        return;
    /* integrity_check reads pages in no order. Without this, a file that does not fit into memory
     * would be read hundreds of times: the kernel reads ahead around each page. */
    T3_CALL(madvise, map, (size_t)status.st_size, MADV_RANDOM);
    d->map = map;
    d->map_bytes = status.st_size;
    d->map_valid = status.st_size;
}

static int file_fetch(sqlite3_file *file, sqlite3_int64 offset, int bytes, void **page)
{
    t3_file *f = (t3_file *)file;
    t3_destination *d = f->destination;
    int64_t end = offset + bytes + OVERREAD_BYTES;

    *page = NULL;
    if (end > f->map_limit || d->buffered > 0)
        return SQLITE_OK;
    if (end > d->map_valid && d->pages_fetched == 0)
        map_file(d);
    if (!d->map)
        f->map_limit = 0; /* Do not try again for every page. */
    if (end > d->map_valid)
        return SQLITE_OK;
    report_progress(d);
    d->counters.read += bytes;
    d->pages_fetched++;
    *page = d->map + offset;
    return SQLITE_OK;
}

static int file_unfetch(sqlite3_file *file, sqlite3_int64 offset, void *page)
{
    t3_destination *d = ((t3_file *)file)->destination;

    (void)offset;
    if (page)
        d->pages_fetched--;
    else
        unmap(d); /* SQLite asks for it because the file changed. */
    return SQLITE_OK;
}

static const sqlite3_io_methods file_methods = {
    .iVersion = 3,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = no_op,
    .xUnlock = no_op,
    .xCheckReservedLock = file_check_reserved_lock,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_device_characteristics,
    .xFetch = file_fetch,
    .xUnfetch = file_unfetch,
};

/* ---- sqlite3_io_methods of a journal or WAL: always empty ------------------------------- */

static int empty_close(sqlite3_file *file)
{
    (void)file;
    return SQLITE_OK;
}

static int empty_read(sqlite3_file *file, void *data, int bytes, sqlite3_int64 offset)
{
    (void)file;
    (void)offset;
    memset(data, 0, (size_t)bytes);
    return SQLITE_IOERR_SHORT_READ;
}

static int empty_write(sqlite3_file *file, const void *data, int bytes, sqlite3_int64 offset)
{
    (void)file;
    (void)data;
    (void)bytes;
    (void)offset;
    return SQLITE_OK;
}

/* A commit lives in the WAL, so dropping a write would lose it. To open a copy whose header says
 * WAL an empty one is enough. */
static int wal_write(sqlite3_file *file, const void *data, int bytes, sqlite3_int64 offset)
{
    (void)file;
    (void)data;
    (void)bytes;
    (void)offset;
    return SQLITE_IOERR_WRITE;
}

static int empty_truncate(sqlite3_file *file, sqlite3_int64 bytes)
{
    (void)file;
    (void)bytes;
    return SQLITE_OK;
}

static int empty_file_size(sqlite3_file *file, sqlite3_int64 *bytes)
{
    (void)file;
    *bytes = 0;
    return SQLITE_OK;
}

static int empty_file_control(sqlite3_file *file, int op, void *argument)
{
    (void)file;
    (void)op;
    (void)argument;
    return SQLITE_NOTFOUND;
}

static const sqlite3_io_methods journal_methods = {
    .iVersion = 1,
    .xClose = empty_close,
    .xRead = empty_read,
    .xWrite = empty_write,
    .xTruncate = empty_truncate,
    .xSync = no_op,
    .xFileSize = empty_file_size,
    .xLock = no_op,
    .xUnlock = no_op,
    .xCheckReservedLock = file_check_reserved_lock,
    .xFileControl = empty_file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_device_characteristics,
};

static const sqlite3_io_methods wal_methods = {
    .iVersion = 1,
    .xClose = empty_close,
    .xRead = empty_read,
    .xWrite = wal_write,
    .xTruncate = empty_truncate,
    .xSync = no_op,
    .xFileSize = empty_file_size,
    .xLock = no_op,
    .xUnlock = no_op,
    .xCheckReservedLock = file_check_reserved_lock,
    .xFileControl = empty_file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_device_characteristics,
};

/* ---- sqlite3_vfs ------------------------------------------------------------------------ */

static int open_destination(const char *name, t3_file *f)
{
    t3_destination *d;

    pthread_mutex_lock(&registration.lock);
    for (d = registration.first; d && strcmp(d->name, name) != 0; d = d->next)
        ;
    pthread_mutex_unlock(&registration.lock);
    if (!d)
        return SQLITE_CANTOPEN;
    d->open_count++;
    *f = (t3_file){.base.pMethods = &file_methods, .destination = d};
    return SQLITE_OK;
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    (void)vfs;
    /* Temporary files (sorters, temporary tables) have no name, and must keep what is written. */
    if (!name)
        return registration.default_vfs->xOpen(registration.default_vfs, name, file, flags, out);
    file->pMethods = NULL;
    if (out)
        *out = flags;
    if (flags & SQLITE_OPEN_MAIN_DB)
        return open_destination(name, (t3_file *)file);
    file->pMethods = flags & SQLITE_OPEN_WAL ? &wal_methods : &journal_methods;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync_directory)
{
    (void)vfs;
    (void)name;
    (void)sync_directory;
    return SQLITE_OK;
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *result)
{
    (void)vfs;
    (void)name;
    (void)flags;
    *result = 0;
    return SQLITE_OK;
}

static int vfs_full_pathname(sqlite3_vfs *vfs, const char *name, int bytes, char *path)
{
    (void)vfs;
    return snprintf(path, (size_t)bytes, "%s", name) < bytes ? SQLITE_OK : SQLITE_CANTOPEN;
}

/* SQLite does not check these four for NULL. The default VFS loads extensions. */
static void *vfs_dl_open(sqlite3_vfs *vfs, const char *path)
{
    (void)vfs;
    return registration.default_vfs->xDlOpen(registration.default_vfs, path);
}

static void vfs_dl_error(sqlite3_vfs *vfs, int bytes, char *text)
{
    (void)vfs;
    registration.default_vfs->xDlError(registration.default_vfs, bytes, text);
}

typedef void (*symbol)(void);

static symbol vfs_dl_sym(sqlite3_vfs *vfs, void *library, const char *name)
{
    (void)vfs;
    return registration.default_vfs->xDlSym(registration.default_vfs, library, name);
}

static void vfs_dl_close(sqlite3_vfs *vfs, void *library)
{
    (void)vfs;
    registration.default_vfs->xDlClose(registration.default_vfs, library);
}

static int vfs_randomness(sqlite3_vfs *vfs, int bytes, char *data)
{
    (void)vfs;
    return registration.default_vfs->xRandomness(registration.default_vfs, bytes, data);
}

static int vfs_sleep(sqlite3_vfs *vfs, int microseconds)
{
    (void)vfs;
    return registration.default_vfs->xSleep(registration.default_vfs, microseconds);
}

/* A SQLite without what is deprecated has the second of these functions alone. */
static int vfs_current_time(sqlite3_vfs *vfs, double *days)
{
    sqlite3_vfs *other = registration.default_vfs;
    sqlite3_int64 milliseconds = 0;
    int rc;

    (void)vfs;
    if (other->iVersion < 2 || !other->xCurrentTimeInt64)
        return other->xCurrentTime(other, days);
    rc = other->xCurrentTimeInt64(other, &milliseconds);
    *days = (double)milliseconds / MILLISECONDS_A_DAY;
    return rc;
}

/* The errno of the failure that SQLite was just told of, for sqlite3_system_errno: see `fail`. */
static int vfs_last_error(sqlite3_vfs *vfs, int bytes, char *text)
{
    (void)vfs;
    (void)bytes;
    (void)text;
    return errno;
}

/* The entry point of the loadable extension. A second SQLite of the same process is refused: the
 * registration belongs to one. */
EXPORT int sqlite3_t3copy_init(sqlite3 *connection, char **message, const sqlite3_api_routines *api)
{
    sqlite3_vfs *vfs = &registration.vfs;
    int rc;

    (void)connection;
    if (registration.default_vfs && registration.api != api) {
        *message = api->mprintf("t3copy is registered with another SQLite of this process");
        return SQLITE_ERROR;
    }
    SQLITE_EXTENSION_INIT2(api);
    if (sqlite3_vfs_find("t3copy"))
        return SQLITE_OK_LOAD_PERMANENTLY;
    registration.api = api;
    registration.default_vfs = sqlite3_vfs_find(NULL);
    if (!registration.default_vfs) {
        *message = sqlite3_mprintf("this SQLite has no default VFS");
        return SQLITE_ERROR;
    }
    *vfs = (sqlite3_vfs){
        .iVersion = 1,
        .szOsFile = (int)sizeof(t3_file),
        .mxPathname = 512,
        .zName = "t3copy",
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_pathname,
        .xDlOpen = vfs_dl_open,
        .xDlError = vfs_dl_error,
        .xDlSym = vfs_dl_sym,
        .xDlClose = vfs_dl_close,
        .xRandomness = vfs_randomness,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_current_time,
        .xGetLastError = vfs_last_error,
    };
    if (registration.default_vfs->szOsFile > vfs->szOsFile)
        vfs->szOsFile = registration.default_vfs->szOsFile;
    rc = sqlite3_vfs_register(vfs, 0);
    return rc == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : rc;
}
