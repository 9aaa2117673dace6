/* io.c - reads, writes and copies the whole of what was asked for, at an offset: it goes on after a
 * short or interrupted call.
 */
#include "copier.h"
#include "fault.h"

#include <errno.h>
#include <unistd.h>

enum { RANGE_BYTES = 64 << 20 }; /* one copy_file_range: short enough for a signal to be noticed */

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
