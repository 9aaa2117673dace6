/* pages.c - hashes, compares, reads and writes the pages of database files by their numbers.
 *
 * A file is read with pread, as if zeros followed its end: two files of different sizes can be
 * compared.
 */
#include "copier.h"
#include "fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { COMPARE_BYTES = 1 << 20 }; /* of each file, at a time */

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

/* Read `bytes` from `offset` on, with zeros past the end of the file. */
static int read_padded(int fd, char *buffer, int64_t bytes, int64_t offset)
{
    int64_t n = t3_read_at(fd, buffer, bytes, offset);

    if (n < 0)
        return (int)n;
    memset(buffer + n, 0, (size_t)(bytes - n));
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
        rc = read_padded(one, buffer, n * page_bytes, page * page_bytes);
        if (rc == 0)
            rc = read_padded(other, buffer + COMPARE_BYTES, n * page_bytes, page * page_bytes);
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
            rc = read_padded(fd, page, page_bytes, (int64_t)pages[i] * page_bytes);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int t3_write_pages(int fd, const uint32_t *pages, int64_t count, int page_bytes, const void *data)
{
    const char *page = data;

    for (int64_t i = 0; i < count; i++, page += page_bytes) {
        int rc = t3_write_at(fd, page, page_bytes, (int64_t)pages[i] * page_bytes);
        if (rc < 0)
            return rc;
    }
    return 0;
}
