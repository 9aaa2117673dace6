/* delta.c - pages of images. It hashes those that are in memory, compares two files page by page, and
 * gathers and scatters pages by their numbers. It reads with pread, and takes an image to be followed
 * by zeros without end, so that sizes may differ.
 */
#include "copier.h"
#include "fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { COMPARE_BYTES = 1 << 20 };

int64_t t3_hash_pages(const void *data, int64_t bytes, int page_bytes, void *hashes)
{
    const char *page = data;
    XXH128_canonical_t *out = hashes;
    int64_t count = 0;

    for (; bytes > 0; bytes -= page_bytes, page += page_bytes) {
        size_t size = (size_t)(bytes < page_bytes ? bytes : page_bytes);
        XXH128_canonicalFromHash(&out[count++], XXH3_128bits(page, size));
    }
    return count;
}

/* Fill `buffer` from `offset` on, with zeros past the end of the file. */
static int read_extended(int fd, char *buffer, int64_t bytes, int64_t offset)
{
    int64_t done = 0;

    while (done < bytes) {
        size_t wanted = (size_t)(bytes - done);
        ssize_t n = T3_CALL(pread, fd, buffer + done, T3_CUT(pread, wanted), offset + done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += n;
    }
    memset(buffer + done, 0, (size_t)(bytes - done));
    return 0;
}

int64_t t3_differing_pages(int one, int other, int64_t first, int64_t count, int page_bytes,
                           uint32_t *pages)
{
    int64_t at_once, found = 0;
    int rc = 0;
    char *buffer;

    if (page_bytes <= 0 || page_bytes > COMPARE_BYTES || first < 0 || first + count > UINT32_MAX)
        return -EINVAL;
    at_once = COMPARE_BYTES / page_bytes;
    buffer = T3_ALLOCATE(malloc, 2 * COMPARE_BYTES);
    if (!buffer)
        return -ENOMEM;
    for (int64_t page = first, end = first + count; page < end && rc == 0; page += at_once) {
        int64_t n = end - page < at_once ? end - page : at_once;
        rc = read_extended(one, buffer, n * page_bytes, page * page_bytes);
        if (rc == 0)
            rc = read_extended(other, buffer + COMPARE_BYTES, n * page_bytes, page * page_bytes);
        for (int64_t i = 0; i < n && rc == 0; i++) {
            const char *left = buffer + i * page_bytes;
            if (memcmp(left, left + COMPARE_BYTES, (size_t)page_bytes) != 0)
                pages[found++] = (uint32_t)(page + i);
        }
    }
    free(buffer);
    return rc < 0 ? rc : found;
}

int t3_read_pages(int one, int other, const uint8_t *from_other, const uint32_t *pages,
                  int64_t count, int page_bytes, void *data)
{
    char *page = data;

    for (int64_t i = 0; i < count; i++, page += page_bytes) {
        int fd = from_other[i] ? other : one;
        int rc = 0;
        if (fd < 0)
            memset(page, 0, (size_t)page_bytes);
        else
            rc = read_extended(fd, page, page_bytes, (int64_t)pages[i] * page_bytes);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int t3_write_pages(int fd, const uint32_t *pages, int64_t count, int page_bytes, const void *data)
{
    const char *next = data;

    for (int64_t i = 0; i < count; i++) {
        int64_t offset = (int64_t)pages[i] * page_bytes, end = offset + page_bytes;
        while (offset < end) {
            size_t wanted = (size_t)(end - offset);
            ssize_t n = T3_CALL(pwrite, fd, next, T3_CUT(pwrite, wanted), offset);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                return -errno;
            next += n;
            offset += n;
        }
    }
    return 0;
}
