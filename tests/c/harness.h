/* harness.h - a small test framework: checks that count and go on, tests that are named after what
 * they claim, a scratch directory and a summary. Each test program includes it once.
 */
#ifndef T3_HARNESS_H
#define T3_HARNESS_H

#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int passed, failed, failed_checks;
static char scratch[128];

static inline void check_equal(long long actual, long long expected, const char *text, int line)
{
    if (actual == expected)
        return;
    failed_checks++;
    printf("  line %d: %s is %lld, not %lld\n", line, text, actual, expected);
}

#define EQUAL(actual, expected) \
    check_equal((long long)(actual), (long long)(expected), #actual, __LINE__)
#define TRUE(condition) check_equal(!!(condition), 1, #condition, __LINE__)

#define RUN(test) run(test, #test)

static inline void run(void (*test)(void), const char *claim)
{
    failed_checks = 0;
    test();
    if (failed_checks == 0)
        passed++;
    else
        failed++;
    if (failed_checks != 0)
        printf("FAILED %s\n", claim);
}

/* End the program where the preparation of a test fails. */
static inline int must(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(2);
    }
    return result;
}

static inline void begin(void)
{
    const char *base = getenv("TMPDIR");

    snprintf(scratch, sizeof scratch, "%s/t3-backup-c-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(scratch)) {
        perror("mkdtemp");
        exit(2);
    }
}

static inline int summary(const char *name)
{
    must(rmdir(scratch), "rmdir: a test left something in the scratch directory");
    printf("%s: %d passed, %d failed\n", name, passed, failed);
    return failed != 0;
}

static inline int unnamed_file(void)
{
    return must(open(scratch, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), "O_TMPFILE");
}

/* The next descriptor to be given out: it is higher where one was left open. */
static inline int free_descriptor(void)
{
    int fd = must(dup(0), "dup");
    close(fd);
    return fd;
}

#ifdef T3_FAULTS

static inline void expect_faults_happened(void)
{
    EQUAL(t3_fault_clear(), 0);
}

#endif

static inline long long size_of(int fd)
{
    struct stat status;

    must(fstat(fd, &status), "fstat");
    return status.st_size;
}

/* Are both files the same from the offset `from` on? */
static inline int same_from(int a, int b, long long from)
{
    enum { CHUNK = 1 << 20 };
    static char left[CHUNK], right[CHUNK];
    ssize_t n = 1, m = 1;

    while (n > 0) {
        n = pread(a, left, CHUNK, from);
        m = pread(b, right, CHUNK, from);
        if (n < 0 || n != m || memcmp(left, right, (size_t)n) != 0)
            return 0;
        from += n;
    }
    return 1;
}

#endif
