/* io.c - reads and writes the whole of what was asked for, at an offset: it goes on after a short
 * or interrupted call.
 */
#include "copier.h"
#include "fault.h"

#include <errno.h>
#include <unistd.h>

int64_t t3_read_at(int fd, void *data, int64_t bytes, int64_t offset)
{
    char *buffer = data;
    int64_t done = 0;

    while (done < bytes) {
        size_t wanted = (size_t)(bytes - done);
        ssize_t n = T3_CALL(pread, fd, buffer + done, T3_LIMIT(pread, wanted), offset + done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += n;
    }
    return done;
}

int t3_write_at(int fd, const void *data, int64_t bytes, int64_t offset)
{
    const char *buffer = data;
    int64_t done = 0;

    while (done < bytes) {
        size_t wanted = (size_t)(bytes - done);
        ssize_t n = T3_CALL(pwrite, fd, buffer + done, T3_LIMIT(pwrite, wanted), offset + done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        done += n;
    }
    return 0;
}
