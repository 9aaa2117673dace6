/* vfs.c - the SQLite VFS "t3copy": a private file, known by its descriptor, that a copy is written
 * to and proven from. It gathers SQLite's pages into large writes, starts write-back behind itself
 * so that little is dirty at the end, and keeps the first failure for good. It takes no locks and
 * keeps no journal: the file has one writer, and a copy that failed is thrown away. It opens
 * nothing; temporary files are left to the default VFS.
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

SQLITE_EXTENSION_INIT1

enum {
    /* A write of 2 MiB and more makes the kernel look for huge folios in its page cache, which cost it several times as
     * much: 1.2 GB in 4 MiB writes 3.0 s, in 256 KiB or 1 MiB ones 0.55 s, in 16 KiB ones 0.8 s (ext4, Linux 6.18). */
    BUFFER_BYTES = 512 << 10,
    WINDOW_BYTES = 4 << 20, /* of write-back */
    BUFFER_ALIGNMENT = 4096,
    WINDOWS = 2,            /* write-back under way at a time; see write_behind */
    SECTOR_BYTES = 4096,
    OVERREAD_BYTES = 256,   /* what SQLite may read past a malformed page; as its unix VFS has it */
    CALLS_PER_CLOCK = 64,   /* reads and writes between two looks at the clock */
    PROGRESS_MS = 500,
};

/* A stretch of the file that holds `bytes` of fresh data (fewer than its length where SQLite wrote
 * here and there). */
typedef struct {
    int64_t from, to, bytes;
} window;

struct t3_destination {
    t3_destination *next;
    char name[24];
    int fd;
    int progress_fd;

    unsigned char *buffer; /* not yet written: `gathered` bytes of the file from `start` on */
    int64_t start;
    int64_t gathered;

    window fresh;                /* written, write-back not asked for */
    window behind[WINDOWS + 1];  /* write-back asked for, not waited for; oldest first */
    int n_behind;
    bool no_ranges;              /* the file system has no sync_file_range: fdatasync at the end */

    t3_counters counters;
    volatile sig_atomic_t cancelled;
    sig_atomic_t signals; /* how many of registration.signals have been forgotten */

    unsigned char *map; /* the file, read-only; NULL: not mapped */
    int64_t map_bytes;  /* its length */
    int64_t mapped;     /* how much of it the file still has */
    int fetched;        /* pages of it that SQLite holds */
    int opened;

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
    sqlite3_vfs *standard; /* the default VFS of the same SQLite */
    const sqlite3_api_routines *api;
    pthread_mutex_t lock; /* of the list */
    t3_destination *first;
    volatile sig_atomic_t signals;
} registration = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- failure and progress --------------------------------------------------------------- */

static int fail(t3_destination *d, int error)
{
    if (d->counters.error == 0)
        d->counters.error = -error;
    return d->counters.error;
}

/* 0 while writing may go on. */
static int standing(t3_destination *d)
{
    if (d->counters.error == 0 && (d->cancelled || d->signals != registration.signals))
        return fail(d, ECANCELED);
    return d->counters.error;
}

static int sqlite_code(int error, int otherwise)
{
    if (error == 0)
        return SQLITE_OK;
    return error == -ENOSPC || error == -EDQUOT ? SQLITE_FULL : otherwise;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void progress(t3_destination *d)
{
    char line[96];
    int64_t now;
    int length;

    if (d->progress_fd < 0 || ++d->calls % CALLS_PER_CLOCK != 0)
        return;
    now = now_ms();
    if (now - d->reported_ms < PROGRESS_MS)
        return;
    d->reported_ms = now;
    length = snprintf(line, sizeof line, "{\"event\":\"progress\",\"written\":%lld,\"read\":%lld}\n",
                      (long long)(d->counters.written + d->gathered), (long long)d->counters.read);
    if (T3_CALL(write, d->progress_fd, line, (size_t)length) < 0)
        return; /* Nobody listens now; the copy matters more. */
}

/* ---- writing ---------------------------------------------------------------------------- */

static int sync_range(t3_destination *d, int64_t from, int64_t bytes, unsigned flags)
{
    if (d->no_ranges || T3_CALL(sync_file_range, d->fd, from, bytes, flags) == 0)
        return 0;
    /* These three say something about the call, not about the data. */
    if (errno == ENOSYS || errno == EINVAL || errno == ESPIPE) {
        d->no_ranges = true;
        return 0;
    }
    return fail(d, errno);
}

/* Ask for write-back of what is fresh, then wait for the window WINDOWS before it: the disk is kept
 * busy, and no more than that many windows are ever dirty. */
static int write_behind(t3_destination *d)
{
    int rc = sync_range(d, d->fresh.from, d->fresh.to - d->fresh.from, SYNC_FILE_RANGE_WRITE);

    if (rc < 0)
        return rc;
    d->behind[d->n_behind++] = d->fresh;
    d->fresh = (window){0};
    if (d->n_behind <= WINDOWS)
        return 0;
    rc = sync_range(d, d->behind[0].from, d->behind[0].to - d->behind[0].from,
                    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    if (rc < 0)
        return rc;
    if (!d->no_ranges)
        d->counters.synced += d->behind[0].bytes;
    d->n_behind--;
    memmove(d->behind, d->behind + 1, (size_t)d->n_behind * sizeof *d->behind);
    return 0;
}

/* Write what is gathered. It stays gathered where that fails. */
static int flush(t3_destination *d)
{
    int64_t done = 0;
    int rc = standing(d);

    if (rc < 0 || d->gathered == 0)
        return rc;
    while (done < d->gathered) {
        /* SQLite's own unix VFS would write no more than 128 KiB a call. */
        ssize_t n = T3_CALL(pwrite, d->fd, d->buffer + done,
                            T3_CUT(pwrite, (size_t)(d->gathered - done)), d->start + done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(d, errno);
        done += n;
        d->counters.written += n;
    }
    if (d->fresh.bytes == 0 || d->start < d->fresh.from)
        d->fresh.from = d->start;
    if (d->start + d->gathered > d->fresh.to)
        d->fresh.to = d->start + d->gathered;
    d->fresh.bytes += d->gathered;
    d->gathered = 0;
    return d->fresh.bytes >= WINDOW_BYTES ? write_behind(d) : 0;
}

static void unmap(t3_destination *d)
{
    if (d->map && d->fetched == 0) {
        munmap(d->map, (size_t)d->map_bytes);
        d->map = NULL;
        d->mapped = 0;
    }
}

static int truncate_to(t3_destination *d, int64_t bytes)
{
    unmap(d);
    if (d->mapped > bytes)
        d->mapped = bytes;
    while (T3_CALL(ftruncate, d->fd, bytes) < 0) {
        if (errno != EINTR)
            return fail(d, errno);
    }
    return 0;
}

/* ---- the destination -------------------------------------------------------------------- */

t3_destination *t3_destination_new(int fd, int progress_fd)
{
    t3_destination *d = T3_ALLOCATE(calloc, 1, sizeof *d);
    t3_destination *other;

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
    d->start = 0;
    d->gathered = 0;
    d->fresh = (window){0};
    d->n_behind = 0;
    d->counters = (t3_counters){0};
    d->cancelled = 0;
    d->signals = registration.signals;
    return truncate_to(d, 0);
}

int t3_destination_finish(t3_destination *d)
{
    int rc = flush(d);

    if (rc < 0)
        return rc;
    rc = sync_range(d, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                 SYNC_FILE_RANGE_WAIT_AFTER);
    if (rc < 0)
        return rc;
    if (d->no_ranges && T3_CALL(fdatasync, d->fd) < 0)
        return fail(d, errno);
    d->fresh = (window){0};
    d->n_behind = 0;
    d->counters.synced = d->counters.written;
    return 0;
}

void t3_destination_cancel(t3_destination *d)
{
    d->cancelled = 1;
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

/* ---- sqlite3_io_methods of a destination ------------------------------------------------ */

static int file_close(sqlite3_file *file)
{
    t3_destination *d = ((t3_file *)file)->destination;

    d->opened--;
    if (d->opened == 0)
        unmap(d);
    return SQLITE_OK;
}

static int file_read(sqlite3_file *file, void *data, int bytes, sqlite3_int64 offset)
{
    t3_destination *d = ((t3_file *)file)->destination;
    int64_t end = d->start + d->gathered;
    int done = 0;

    progress(d);
    d->counters.read += bytes;
    if (offset >= d->start && offset + bytes <= end) {
        memcpy(data, d->buffer + (offset - d->start), (size_t)bytes);
        return SQLITE_OK;
    }
    if (d->gathered > 0 && offset < end && offset + bytes > d->start && flush(d) < 0)
        return SQLITE_IOERR_READ;
    while (done < bytes) {
        ssize_t n = T3_CALL(pread, d->fd, (char *)data + done,
                            T3_CUT(pread, (size_t)(bytes - done)), offset + done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return SQLITE_IOERR_READ;
        if (n == 0)
            break;
        done += (int)n;
    }
    if (done == bytes)
        return SQLITE_OK;
    memset((char *)data + done, 0, (size_t)(bytes - done));
    return SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *file, const void *data, int bytes, sqlite3_int64 offset)
{
    t3_destination *d = ((t3_file *)file)->destination;
    const char *from = data;

    progress(d);
    if (standing(d) < 0)
        return sqlite_code(d->counters.error, SQLITE_IOERR_WRITE);
    while (bytes > 0) {
        /* The buffer ends where the file's next multiple of its size begins: aligned writes. */
        int64_t room = BUFFER_BYTES - d->start % BUFFER_BYTES;
        int64_t at = offset - d->start;
        if (d->gathered > 0 && (at < 0 || at > d->gathered || at == room)) {
            if (flush(d) < 0)
                return sqlite_code(d->counters.error, SQLITE_IOERR_WRITE);
        }
        if (d->gathered == 0) {
            d->start = offset;
            room = BUFFER_BYTES - offset % BUFFER_BYTES;
            at = 0;
        }
        int n = bytes < room - at ? bytes : (int)(room - at);
        memcpy(d->buffer + at, from, (size_t)n);
        if (at + n > d->gathered)
            d->gathered = at + n;
        from += n;
        offset += n;
        bytes -= n;
    }
    return SQLITE_OK;
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 bytes)
{
    t3_destination *d = ((t3_file *)file)->destination;

    if (flush(d) < 0 || truncate_to(d, bytes) < 0)
        return sqlite_code(d->counters.error, SQLITE_IOERR_TRUNCATE);
    return SQLITE_OK;
}

/* The write-back itself is waited for by t3_destination_finish, the fsync is the parent's. */
static int file_sync(sqlite3_file *file, int flags)
{
    (void)flags;
    return sqlite_code(flush(((t3_file *)file)->destination), SQLITE_IOERR_FSYNC);
}

static int file_size(sqlite3_file *file, sqlite3_int64 *bytes)
{
    t3_destination *d = ((t3_file *)file)->destination;
    struct stat status;

    if (T3_CALL(fstat, d->fd, &status) < 0)
        return SQLITE_IOERR_FSTAT;
    *bytes = status.st_size;
    if (d->gathered > 0 && d->start + d->gathered > *bytes)
        *bytes = d->start + d->gathered;
    return SQLITE_OK;
}

static int file_lock(sqlite3_file *file, int level)
{
    (void)file;
    (void)level;
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
    if (*limit >= 0) /* Negative: only asked for. */
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

/* Map the whole file as it is now, if it isn't. Where that can't be done SQLite reads instead. */
static void map_file(t3_destination *d)
{
    struct stat status;
    void *map;

    if (T3_CALL(fstat, d->fd, &status) < 0 || status.st_size == d->mapped)
        return;
    unmap(d);
    map = T3_CALL(mmap, NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, d->fd, 0);
    if (map == MAP_FAILED)
        return;
    /* The checks go through it in no order. Where it doesn't fit into memory, reading around each page would read all of it
     * hundreds of times. */
    T3_CALL(madvise, map, (size_t)status.st_size, MADV_RANDOM);
    d->map = map;
    d->map_bytes = status.st_size;
    d->mapped = status.st_size;
}

static int file_fetch(sqlite3_file *file, sqlite3_int64 offset, int bytes, void **page)
{
    t3_file *f = (t3_file *)file;
    t3_destination *d = f->destination;
    int64_t end = offset + bytes + OVERREAD_BYTES;

    *page = NULL;
    if (end > f->map_limit || d->gathered > 0)
        return SQLITE_OK;
    if (end > d->mapped && d->fetched == 0)
        map_file(d);
    if (!d->map)
        f->map_limit = 0; /* Don't try again for every page. */
    if (end > d->mapped)
        return SQLITE_OK;
    progress(d);
    d->counters.read += bytes;
    d->fetched++;
    *page = d->map + offset;
    return SQLITE_OK;
}

static int file_unfetch(sqlite3_file *file, sqlite3_int64 offset, void *page)
{
    t3_destination *d = ((t3_file *)file)->destination;

    (void)offset;
    if (page)
        d->fetched--;
    else
        unmap(d); /* SQLite saw that the file had changed. */
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
    .xLock = file_lock,
    .xUnlock = file_lock,
    .xCheckReservedLock = file_check_reserved_lock,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_device_characteristics,
    .xFetch = file_fetch,
    .xUnfetch = file_unfetch,
};

/* ---- sqlite3_io_methods of a journal, which is nothing ---------------------------------- */

static int null_close(sqlite3_file *file)
{
    (void)file;
    return SQLITE_OK;
}

static int null_read(sqlite3_file *file, void *data, int bytes, sqlite3_int64 offset)
{
    (void)file;
    (void)offset;
    memset(data, 0, (size_t)bytes);
    return SQLITE_IOERR_SHORT_READ;
}

static int null_write(sqlite3_file *file, const void *data, int bytes, sqlite3_int64 offset)
{
    (void)file;
    (void)data;
    (void)bytes;
    (void)offset;
    return SQLITE_OK;
}

/* A WAL is where a commit lives: to swallow that would be to lose it. An empty one is all that
 * opening a copy with the WAL flag needs. */
static int wal_write(sqlite3_file *file, const void *data, int bytes, sqlite3_int64 offset)
{
    (void)file;
    (void)data;
    (void)bytes;
    (void)offset;
    return SQLITE_IOERR_WRITE;
}

static int null_truncate(sqlite3_file *file, sqlite3_int64 bytes)
{
    (void)file;
    (void)bytes;
    return SQLITE_OK;
}

static int null_size(sqlite3_file *file, sqlite3_int64 *bytes)
{
    (void)file;
    *bytes = 0;
    return SQLITE_OK;
}

static int null_control(sqlite3_file *file, int op, void *argument)
{
    (void)file;
    (void)op;
    (void)argument;
    return SQLITE_NOTFOUND;
}

#define NULL_METHODS(write)                             \
    {                                                   \
        .iVersion = 1,                                  \
        .xClose = null_close,                           \
        .xRead = null_read,                             \
        .xWrite = write,                                \
        .xTruncate = null_truncate,                     \
        .xSync = file_lock,                             \
        .xFileSize = null_size,                         \
        .xLock = file_lock,                             \
        .xUnlock = file_lock,                           \
        .xCheckReservedLock = file_check_reserved_lock, \
        .xFileControl = null_control,                   \
        .xSectorSize = file_sector_size,                \
        .xDeviceCharacteristics = file_device_characteristics, \
    }

static const sqlite3_io_methods journal_methods = NULL_METHODS(null_write);
static const sqlite3_io_methods wal_methods = NULL_METHODS(wal_write);

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
    d->opened++;
    *f = (t3_file){.base.pMethods = &file_methods, .destination = d};
    return SQLITE_OK;
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    (void)vfs;
    /* Sorters and temporary tables are read back, and have no name. */
    if (!name)
        return registration.standard->xOpen(registration.standard, name, file, flags, out);
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

static int vfs_randomness(sqlite3_vfs *vfs, int bytes, char *data)
{
    (void)vfs;
    return registration.standard->xRandomness(registration.standard, bytes, data);
}

static int vfs_sleep(sqlite3_vfs *vfs, int microseconds)
{
    (void)vfs;
    return registration.standard->xSleep(registration.standard, microseconds);
}

static int vfs_current_time(sqlite3_vfs *vfs, double *days)
{
    (void)vfs;
    return registration.standard->xCurrentTime(registration.standard, days);
}

static int vfs_last_error(sqlite3_vfs *vfs, int bytes, char *text)
{
    (void)vfs;
    (void)bytes;
    (void)text;
    return 0;
}

/* Two SQLites in one process can't share one registration: the second is refused. */
__attribute__((visibility("default"))) int
sqlite3_t3copy_init(sqlite3 *connection, char **message, const sqlite3_api_routines *api)
{
    sqlite3_vfs *vfs = &registration.vfs;
    int rc;

    (void)connection;
    if (registration.standard && registration.api != api) {
        *message = api->mprintf("t3copy serves another SQLite of this process");
        return SQLITE_ERROR;
    }
    SQLITE_EXTENSION_INIT2(api);
    if (sqlite3_vfs_find("t3copy"))
        return SQLITE_OK_LOAD_PERMANENTLY;
    registration.api = api;
    registration.standard = sqlite3_vfs_find(NULL);
    if (!registration.standard) {
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
        .xRandomness = vfs_randomness,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_current_time,
        .xGetLastError = vfs_last_error,
    };
    if (registration.standard->szOsFile > vfs->szOsFile)
        vfs->szOsFile = registration.standard->szOsFile;
    rc = sqlite3_vfs_register(vfs, 0);
    return rc == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : rc;
}
