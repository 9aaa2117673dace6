/* test_pages.c - tests pages.c on real files and, in the fault build, with reads and writes that
 * fail, are short or are interrupted.
 */
#include "copier.h"
#include "fault.h"
#include "harness.h"

enum { PAGE = 4096, PAGES = 600 }; /* more than are compared at once */

/* A file of so many pages, each filled with its number. */
static int make_image(int pages)
{
    int fd = unnamed_file();
    char page[PAGE];

    for (int i = 0; i < pages; i++) {
        memset(page, i % 255 + 1, PAGE);
        must((int)pwrite(fd, page, PAGE, (off_t)i * PAGE), "pwrite");
    }
    return fd;
}

static void change_byte(int fd, int page, int at)
{
    must((int)pwrite(fd, "\0", 1, (off_t)page * PAGE + at), "pwrite");
}

static void equal_files_differ_nowhere(void)
{
    int one = make_image(PAGES), other = make_image(PAGES);
    uint32_t pages[PAGES];

    EQUAL(t3_differing_pages(one, other, 0, PAGES, PAGE, pages), 0);
    close(one);
    close(other);
}

static void each_page_with_a_changed_byte_is_named_in_order(void)
{
    static const int changed[] = {0, 1, 255, 256, 257, 511, 599};
    enum { CHANGED = sizeof changed / sizeof *changed };
    int one = make_image(PAGES), other = make_image(PAGES);
    uint32_t pages[PAGES];

    for (int i = 0; i < CHANGED; i++)
        change_byte(other, changed[i], i % 2 ? PAGE - 1 : 0);
    EQUAL(t3_differing_pages(one, other, 0, PAGES, PAGE, pages), CHANGED);
    for (int i = 0; i < CHANGED; i++)
        EQUAL(pages[i], changed[i]);
    EQUAL(t3_differing_pages(one, other, 256, 2, PAGE, pages), 2);
    EQUAL(pages[0], 256);
    EQUAL(pages[1], 257);
    close(one);
    close(other);
}

static void past_its_end_a_file_is_zeros(void)
{
    int small = make_image(3), large = make_image(6);
    uint32_t pages[8];

    must(ftruncate(large, 8 * PAGE), "ftruncate"); /* two more, of zeros */
    EQUAL(t3_differing_pages(small, large, 0, 8, PAGE, pages), 3);
    EQUAL(pages[0], 3);
    EQUAL(pages[2], 5);
    EQUAL(t3_differing_pages(large, small, 0, 8, PAGE, pages), 3);
    must(ftruncate(small, 2 * PAGE + 5), "ftruncate"); /* ends within a page */
    EQUAL(t3_differing_pages(small, large, 0, 3, PAGE, pages), 1);
    EQUAL(pages[0], 2);
    close(small);
    close(large);
}

static void impossible_page_numbers_and_sizes_are_refused(void)
{
    uint32_t page;

    EQUAL(t3_differing_pages(-1, -1, 0, 1, 0, &page), -EINVAL);
    EQUAL(t3_differing_pages(-1, -1, 0, 1, 2 << 20, &page), -EINVAL);
    EQUAL(t3_differing_pages(-1, -1, -1, 1, PAGE, &page), -EINVAL);
    EQUAL(t3_differing_pages(-1, -1, UINT32_MAX, 1, PAGE, &page), -EINVAL);
    EQUAL(t3_differing_pages(-1, -1, 0, 1, PAGE, &page), -EBADF);
}

static void each_page_has_a_hash_of_its_own(void)
{
    static unsigned char data[3 * PAGE], hashes[3][T3_HASH_BYTES];
    /* xxhsum -H2 of 4096 zeros */
    static const unsigned char zeros[T3_HASH_BYTES] = {0x3e, 0xe8, 0xdc, 0x4f, 0x9e, 0x7e,
                                                       0xe4, 0x95, 0x93, 0xd7, 0x6f, 0xe1,
                                                       0x48, 0xc6, 0x89, 0xba};

    data[PAGE + 17] = 1;
    EQUAL(t3_hash_pages(data, sizeof data, PAGE, hashes), 3);
    EQUAL(memcmp(hashes[0], zeros, T3_HASH_BYTES), 0);
    TRUE(memcmp(hashes[0], hashes[1], T3_HASH_BYTES) != 0);
    EQUAL(memcmp(hashes[0], hashes[2], T3_HASH_BYTES), 0);
    EQUAL(t3_hash_pages(data, 2 * PAGE + 100, PAGE, hashes), 3);
    TRUE(memcmp(hashes[0], hashes[2], T3_HASH_BYTES) != 0);
    EQUAL(t3_hash_pages(data, 0, PAGE, hashes), 0);
}

static void pages_come_from_their_file_and_go_to_their_places(void)
{
    static const uint32_t numbers[] = {5, 2, 9};
    static const uint8_t from_other[] = {0, 1, 0};
    int one = make_image(6), other = make_image(4), target = make_image(7);
    char data[3 * PAGE];
    uint32_t pages[10];

    change_byte(other, 2, 0);
    EQUAL(t3_read_pages(one, other, from_other, numbers, 3, PAGE, data), 0);
    EQUAL(data[0], 6);
    EQUAL(data[PAGE], 0);
    EQUAL(data[PAGE + 1], 3);
    EQUAL(data[2 * PAGE], 0); /* past the end */
    EQUAL(data[3 * PAGE - 1], 0);
    EQUAL(t3_write_pages(target, numbers, 3, PAGE, data), 0);
    EQUAL(size_of(target), 10 * PAGE);
    EQUAL(t3_differing_pages(target, one, 0, 7, PAGE, pages), 2);
    EQUAL(pages[0], 2);
    EQUAL(pages[1], 6);
    EQUAL(t3_read_pages(-1, other, from_other, numbers, 3, PAGE, data), 0);
    EQUAL(data[0], 0);
    EQUAL(t3_read_pages(-1, -1, from_other, numbers, 3, PAGE, data), 0);
    EQUAL(data[PAGE + 1], 0);
    close(one);
    close(other);
    EQUAL(t3_read_pages(one, other, from_other, numbers, 3, PAGE, data), -EBADF);
    EQUAL(t3_write_pages(one, numbers, 3, PAGE, data), -EBADF);
    close(target);
}

#ifdef T3_FAULTS

static void a_read_that_fails_is_returned(void)
{
    int one = make_image(2), other = make_image(2);
    uint32_t pages[2];

    for (int nth = 1; nth <= 2; nth++) {
        t3_fault_set("pread", nth, -EIO);
        EQUAL(t3_differing_pages(one, other, 0, 2, PAGE, pages), -EIO);
        expect_faults_happened();
    }
    t3_fault_set("malloc", 1, -ENOMEM);
    EQUAL(t3_differing_pages(one, other, 0, 2, PAGE, pages), -ENOMEM);
    expect_faults_happened();
    close(one);
    close(other);
}

static void short_and_interrupted_reads_are_carried_on(void)
{
    int one = make_image(2), other = make_image(2);
    uint32_t pages[2];

    change_byte(other, 1, 9);
    t3_fault_set("pread", 1, 100);
    t3_fault_set("pread", 2, -EINTR);
    t3_fault_set("pread", 3, PAGE);
    EQUAL(t3_differing_pages(one, other, 0, 2, PAGE, pages), 1);
    EQUAL(pages[0], 1);
    expect_faults_happened();
    close(one);
    close(other);
}

static void short_and_interrupted_writes_are_carried_on(void)
{
    static const uint32_t numbers[] = {1, 0};
    int fd = unnamed_file(), whole = make_image(2);
    char data[2 * PAGE];

    memset(data, 2, PAGE);
    memset(data + PAGE, 1, PAGE);
    t3_fault_set("pwrite", 1, 100);
    t3_fault_set("pwrite", 2, -EINTR);
    EQUAL(t3_write_pages(fd, numbers, 2, PAGE, data), 0);
    expect_faults_happened();
    TRUE(same_from(fd, whole, 0));
    t3_fault_set("pwrite", 2, -ENOSPC);
    EQUAL(t3_write_pages(fd, numbers, 2, PAGE, data), -ENOSPC);
    expect_faults_happened();
    close(fd);
    close(whole);
}

#endif

int main(void)
{
    begin();
    RUN(equal_files_differ_nowhere);
    RUN(each_page_with_a_changed_byte_is_named_in_order);
    RUN(past_its_end_a_file_is_zeros);
    RUN(impossible_page_numbers_and_sizes_are_refused);
    RUN(each_page_has_a_hash_of_its_own);
    RUN(pages_come_from_their_file_and_go_to_their_places);
#ifdef T3_FAULTS
    RUN(a_read_that_fails_is_returned);
    RUN(short_and_interrupted_reads_are_carried_on);
    RUN(short_and_interrupted_writes_are_carried_on);
#endif
    return summary("pages");
}
