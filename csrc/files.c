/* files.c - opens, names, syncs and copies files, following no symlink and replacing no name.
 *
 * Every failure is returned. Nothing is synced unless the caller asks. Files are read with pread,
 * never through mmap: a file that shrinks under a mapping would kill the process.
 */
#include "copier.h"
#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    READ_BYTES = 1 << 20,
    OPEN_RETRIES = 16,
};

/* Open one component of a path. */
static int open_component(int dirfd, const char *name, int flags)
{
    char target;
    int fd, error;

    if (strcmp(name, "..") == 0)
        return -EXDEV;
    fd = T3_CALL(openat, dirfd, name, flags | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    error = errno;
    /* For a symlink on the way openat says ENOTDIR, openat2 ELOOP. */
    if (error == ENOTDIR && T3_CALL(readlinkat, dirfd, name, &target, sizeof target) >= 0)
        error = ELOOP;
    return -error;
}

/* Do the same as openat2 one component at a time, for where a system call filter hides openat2
 * because it can't inspect its arguments (systemd's RestrictSUIDSGID= does), or refuses it because
 * it doesn't know it (that of an older container runtime: EPERM). Any ".." is refused as a way
 * out. */
static int open_by_components(int dirfd, const char *path, int flags)
{
    char components[PATH_MAX], *rest = NULL;
    int fd = dirfd;

    if (path[0] == '/')
        return -EXDEV;
    if (strlen(path) >= sizeof components)
        return -ENAMETOOLONG;
    strcpy(components, path);
    for (char *name = strtok_r(components, "/", &rest), *next; name; name = next) {
        int parent = fd;
        next = strtok_r(NULL, "/", &rest);
        fd = open_component(parent, name, next ? O_PATH | O_DIRECTORY : flags);
        if (parent != dirfd)
            T3_CLOSE(parent); /* Nothing was written through it, so a failure means nothing. */
        if (fd < 0)
            return fd;
    }
    return fd == dirfd ? -ENOENT : fd;
}

int t3_open_beneath(int dirfd, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };

    /* EAGAIN: because of a rename somewhere on the system the kernel could not tell whether the
     * path stays beneath. */
    for (int attempt = 0;; attempt++) {
        long fd = T3_CALL(syscall, SYS_openat2, dirfd, path, &how, sizeof how);
        if (fd >= 0)
            return (int)fd;
        if (errno == ENOSYS || errno == EPERM)
            return open_by_components(dirfd, path, flags);
        if ((errno != EAGAIN && errno != EINTR) || attempt == OPEN_RETRIES)
            return -errno;
    }
}

int t3_link_unnamed(int fd, int dirfd, const char *name)
{
    char path[32];

    /* AT_EMPTY_PATH needs a capability on older kernels. */
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return T3_CALL(linkat, AT_FDCWD, path, dirfd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

int t3_rename_noreplace(int dirfd, const char *from, const char *to)
{
    return T3_CALL(renameat2, dirfd, from, dirfd, to, RENAME_NOREPLACE) < 0 ? -errno : 0;
}

int t3_rename_exchange(int dirfd, const char *one, const char *other)
{
    return T3_CALL(renameat2, dirfd, one, dirfd, other, RENAME_EXCHANGE) < 0 ? -errno : 0;
}

int t3_sync_file(int fd)
{
    return T3_CALL(fsync, fd) < 0 ? -errno : 0;
}

int t3_sync_directory(int fd)
{
    if (T3_CALL(fsync, fd) == 0 || errno == EINVAL)
        return 0;
    return -errno;
}

/* Is `error` about the method, which this file system or kernel lacks, and not about the data? */
static bool is_unsupported(int error)
{
    switch (-error) {
    case EXDEV:
    case EOPNOTSUPP:
    case ENOTTY:
    case ENOSYS:
    case EINVAL:
    case EPERM:
    case ETXTBSY:
        return true;
    default:
        return false;
    }
}

static int copy_reflink(int src, int dst, int64_t bytes)
{
    if (T3_CALL(ioctl, dst, FICLONE, src) < 0)
        return -errno;
    /* The clone is of the whole source, which may have grown past `bytes`. */
    return T3_CALL(ftruncate, dst, bytes) < 0 ? -errno : 0;
}

/* Find the next extent of data from `*from` on. Advance `*from` to its start, return its end. */
static int64_t next_data(int src, int64_t *from, int64_t bytes)
{
    int64_t data, hole;

    data = T3_CALL(lseek, src, *from, SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
        *from = bytes;
        return bytes;
    }
    if (data < 0) /* The file system does not report holes. */
        return bytes;
    *from = data < bytes ? data : bytes;
    hole = T3_CALL(lseek, src, *from, SEEK_HOLE);
    return hole < 0 || hole > bytes ? bytes : hole;
}

static int copy_range(int src, int dst, int64_t bytes, int64_t *done)
{
    while (*done < bytes) {
        int64_t end = next_data(src, done, bytes);
        int rc = t3_copy_range(src, dst, end, done);
        if (rc < 0 || *done < end)
            return rc;
    }
    /* A hole at the end was skipped, not written. */
    return T3_CALL(ftruncate, dst, bytes) < 0 ? -errno : 0;
}

static int copy_read_write(int src, int dst, int64_t bytes, int64_t *done)
{
    char *buffer = T3_ALLOCATE(malloc, READ_BYTES);
    int64_t end = *done;
    int rc = 0;

    if (!buffer)
        return -ENOMEM;
    while (*done < bytes) {
        int64_t wanted, n;
        if (*done == end) {
            end = next_data(src, done, bytes);
            continue;
        }
        wanted = end - *done < READ_BYTES ? end - *done : READ_BYTES;
        n = t3_read_at(src, buffer, wanted, *done);
        rc = n < 0 ? (int)n : n < wanted ? -EIO : t3_extend(dst, buffer, n, *done);
        if (rc < 0)
            goto out;
        *done += n;
    }
    /* A hole at the end was skipped, not written. */
    if (T3_CALL(ftruncate, dst, bytes) < 0)
        rc = -errno;
out:
    free(buffer);
    return rc;
}

int t3_copy(int src, int dst, int64_t bytes, int methods)
{
    struct stat source;
    int64_t done = 0;
    int rc = -EOPNOTSUPP;

    if (T3_CALL(fstat, src, &source) < 0)
        return -errno;
    if (source.st_size < bytes)
        return -EIO;
    if (methods & T3_COPY_REFLINK) {
        rc = copy_reflink(src, dst, bytes);
        if (rc == 0)
            return T3_COPY_REFLINK;
        if (!is_unsupported(rc))
            return rc;
    }
    if (methods & T3_COPY_RANGE) {
        rc = copy_range(src, dst, bytes, &done);
        if (rc == 0 && done == bytes)
            return T3_COPY_RANGE;
        if (rc == 0)
            rc = -EIO;
        else if (!is_unsupported(rc))
            return rc;
    }
    if (methods & T3_COPY_READ_WRITE) {
        rc = copy_read_write(src, dst, bytes, &done);
        if (rc == 0)
            return T3_COPY_READ_WRITE;
    }
    return rc;
}
