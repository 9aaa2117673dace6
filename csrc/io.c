/* io.c - reads, writes and copies the whole of what was asked for, at an offset: it goes on after a
 * short or interrupted call.
 */
#include "copier.h"
#include "fault.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

enum {
    RANGE_BYTES = 64 << 20, /* one copy_file_range: short enough for a signal to be noticed */
    BLOCK_BYTES = 4096,     /* what stays a hole: no file system allocates less */
};

/* Advance `*done` by what a call returned. Returns 1 to go on, 0 where it did nothing, or a
 * negative errno. */
static int advance(int64_t *done, ssize_t result)
{
    if (result < 0)
        return errno == EINTR ? 1 : -errno;
    *done += result;
    return result > 0;
}

int64_t t3_read_at(int fd, void *data, int64_t bytes, int64_t offset)
{
    char *buffer = data;
    int64_t done = 0;
    int rc = 1;

    while (rc > 0 && done < bytes) {
        size_t wanted = (size_t)(bytes - done);
        rc = advance(&done,
                     T3_CALL(pread, fd, buffer + done, T3_LIMIT(pread, wanted), offset + done));
    }
    return rc < 0 ? rc : done;
}

int t3_write_at(int fd, const void *data, int64_t bytes, int64_t offset)
{
    const char *buffer = data;
    int64_t done = 0;
    int rc = 0;

    while (rc >= 0 && done < bytes) {
        size_t wanted = (size_t)(bytes - done);
        rc = advance(&done,
                     T3_CALL(pwrite, fd, buffer + done, T3_LIMIT(pwrite, wanted), offset + done));
    }
    return rc < 0 ? rc : 0;
}

/* Are the `bytes`, of which there is one at least, all zero? */
static bool is_zero(const char *data, int64_t bytes)
{
    return data[0] == 0 && memcmp(data, data + 1, (size_t)bytes - 1) == 0;
}

int t3_extend(int fd, const void *data, int64_t bytes, int64_t offset)
{
    const char *buffer = data;
    int64_t from = 0; /* where the data begins that is not written yet */
    int rc;

    for (int64_t at = 0, n; at < bytes; at += n) {
        n = BLOCK_BYTES - (offset + at) % BLOCK_BYTES;
        n = n < bytes - at ? n : bytes - at;
        if (!is_zero(buffer + at, n))
            continue;
        rc = t3_write_at(fd, buffer + from, at - from, offset + from);
        if (rc < 0)
            return rc;
        from = at + n;
    }
    if (from < bytes)
        return t3_write_at(fd, buffer + from, bytes - from, offset + from);
    while (bytes > 0 && T3_CALL(ftruncate, fd, offset + bytes) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int t3_copy_range(int src, int dst, int64_t bytes, int64_t *done)
{
    int rc = 1;

    while (rc > 0 && *done < bytes) {
        off64_t in = *done, out = *done;
        size_t wanted = (size_t)(bytes - *done < RANGE_BYTES ? bytes - *done : RANGE_BYTES);
        rc = advance(done, T3_CALL(copy_file_range, src, &in, dst, &out,
                                   T3_LIMIT(copy_file_range, wanted), 0));
    }
    return rc < 0 ? rc : 0;
}
