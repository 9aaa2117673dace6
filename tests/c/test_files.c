/* test_files.c - tests files.c and confine.c on real files and, in the fault build, with each
 * system call made to fail.
 */
#include "copier.h"
#include "fault.h"
#include "harness.h"

#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#ifdef T3_COVERAGE
void __gcov_dump(void);
#else
static void __gcov_dump(void) {}
#endif

enum { SOURCE_BYTES = (3 << 20) + 12345 };

static int directory(void)
{
    return must(open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC), "the scratch directory");
}

static void touch(int dir, const char *name)
{
    close(must(openat(dir, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600), name));
}

/* Data, a hole of 1 MiB, data, a hole to the end. */
static int make_source(void)
{
    static char bytes[1 << 20];
    int fd = unnamed_file();

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 2654435761u >> 13 | 1);
    must((int)pwrite(fd, bytes, sizeof bytes, 0), "pwrite");
    must((int)pwrite(fd, bytes, 12345, 2 << 20), "pwrite");
    must(ftruncate(fd, SOURCE_BYTES), "ftruncate");
    return fd;
}

static void expect_copy(int methods, int expected)
{
    int src = make_source(), dst = unnamed_file();

    EQUAL(t3_copy(src, dst, SOURCE_BYTES, methods), expected);
    if (expected > 0) {
        EQUAL(size_of(dst), SOURCE_BYTES);
        TRUE(same_from(src, dst, 0));
    }
    close(src);
    close(dst);
}

/* ---- opening and naming ----------------------------------------------------------------- */

static void opens_a_file_beneath_and_closes_it_on_exec(void)
{
    int dir = directory(), fd;

    touch(dir, "made");
    fd = t3_open_beneath(dir, "made", O_RDWR);
    TRUE(fd >= 0);
    EQUAL(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
    EQUAL(t3_open_beneath(dir, "missing", O_RDONLY), -ENOENT);
    unlinkat(dir, "made", 0);
    close(dir);
}

static void refuses_symlinks_and_ways_out(void)
{
    int dir = directory();

    touch(dir, "file");
    must(mkdirat(dir, "sub", 0700), "mkdirat");
    must(symlinkat("file", dir, "last"), "symlinkat");
    must(symlinkat("sub", dir, "middle"), "symlinkat");
    EQUAL(t3_open_beneath(dir, "last", O_RDONLY), -ELOOP);
    EQUAL(t3_open_beneath(dir, "middle/x", O_RDONLY), -ELOOP);
    EQUAL(t3_open_beneath(dir, "../x", O_RDONLY), -EXDEV);
    EQUAL(t3_open_beneath(dir, "sub/../../x", O_RDONLY), -EXDEV);
    EQUAL(t3_open_beneath(dir, "/etc/passwd", O_RDONLY), -EXDEV);
    unlinkat(dir, "file", 0);
    unlinkat(dir, "last", 0);
    unlinkat(dir, "middle", 0);
    unlinkat(dir, "sub", AT_REMOVEDIR);
    close(dir);
}

static void an_unnamed_file_gets_a_name_once(void)
{
    int dir = directory(), fd = unnamed_file(), other = unnamed_file();
    struct stat named, mine;

    EQUAL(t3_link_unnamed(fd, dir, "name"), 0);
    EQUAL(t3_link_unnamed(other, dir, "name"), -EEXIST);
    must(fstatat(dir, "name", &named, AT_SYMLINK_NOFOLLOW), "fstatat");
    must(fstat(fd, &mine), "fstat");
    EQUAL(named.st_ino, mine.st_ino);
    unlinkat(dir, "name", 0);
    close(fd);
    close(other);
    close(dir);
}

static void a_name_that_is_a_symlink_is_not_followed(void)
{
    int dir = directory(), fd = unnamed_file();

    must(symlinkat("elsewhere", dir, "name"), "symlinkat");
    EQUAL(t3_link_unnamed(fd, dir, "name"), -EEXIST);
    EQUAL(faccessat(dir, "elsewhere", F_OK, 0), -1);
    unlinkat(dir, "name", 0);
    close(fd);
    close(dir);
}

static void renaming_replaces_nothing(void)
{
    int dir = directory();

    touch(dir, "a");
    touch(dir, "b");
    EQUAL(t3_rename_noreplace(dir, "a", "b"), -EEXIST);
    EQUAL(t3_rename_noreplace(dir, "a", "c"), 0);
    EQUAL(t3_rename_noreplace(dir, "a", "d"), -ENOENT);
    unlinkat(dir, "b", 0);
    unlinkat(dir, "c", 0);
    close(dir);
}

static void two_names_change_places(void)
{
    int dir = directory();
    struct stat before, after;

    touch(dir, "a");
    EQUAL(t3_rename_exchange(dir, "a", "b"), -ENOENT);
    touch(dir, "b");
    must(fstatat(dir, "a", &before, 0), "fstatat");
    EQUAL(t3_rename_exchange(dir, "a", "b"), 0);
    must(fstatat(dir, "b", &after, 0), "fstatat");
    TRUE(before.st_ino == after.st_ino);
    unlinkat(dir, "a", 0);
    unlinkat(dir, "b", 0);
    close(dir);
}

static void syncs_files_and_directories(void)
{
    int dir = directory(), fd = unnamed_file(), pipes[2];

    EQUAL(t3_sync_file(fd), 0);
    EQUAL(t3_sync_directory(dir), 0);
    EQUAL(t3_sync_file(-1), -EBADF);
    EQUAL(t3_sync_directory(-1), -EBADF);
    must(pipe2(pipes, O_CLOEXEC), "pipe2");
    EQUAL(t3_sync_file(pipes[0]), -EINVAL); /* only a directory may lack fsync */
    EQUAL(t3_sync_directory(pipes[0]), 0);
    close(pipes[0]);
    close(pipes[1]);
    close(fd);
    close(dir);
}

/* ---- copying ---------------------------------------------------------------------------- */

static void each_method_makes_the_same_bytes(void)
{
    int src = make_source(), dst = unnamed_file();
    int method = t3_copy(src, dst, SOURCE_BYTES, T3_COPY_ANY);

    TRUE(method == T3_COPY_REFLINK || method == T3_COPY_RANGE);
    TRUE(same_from(src, dst, 0));
    close(src);
    close(dst);
    expect_copy(T3_COPY_RANGE, T3_COPY_RANGE);
    expect_copy(T3_COPY_READ_WRITE, T3_COPY_READ_WRITE);
    expect_copy(0, -EOPNOTSUPP);
}

static int64_t blocks_of(int fd)
{
    struct stat status;

    must(fstat(fd, &status), "fstat");
    return status.st_blocks * 512;
}

static void holes_stay_holes_and_zeros_become_some(void)
{
    for (int method = T3_COPY_RANGE; method <= T3_COPY_READ_WRITE; method *= 2) {
        int src = make_source(), dst = unnamed_file();
        EQUAL(t3_copy(src, dst, SOURCE_BYTES, method), method);
        TRUE(blocks_of(dst) < 2 << 20);
        close(src);
        close(dst);
    }
    {
        static const char zeros[1 << 20];
        int src = make_source(), dst = unnamed_file();
        must((int)pwrite(src, zeros, sizeof zeros, 1 << 20), "pwrite");
        TRUE(blocks_of(src) >= 2 << 20);
        EQUAL(t3_copy(src, dst, SOURCE_BYTES, T3_COPY_READ_WRITE), T3_COPY_READ_WRITE);
        TRUE(blocks_of(dst) < 2 << 20);
        TRUE(same_from(src, dst, 0));
        close(src);
        close(dst);
    }
}

static void only_the_first_bytes_are_copied_if_so_asked(void)
{
    for (int method = T3_COPY_RANGE; method <= T3_COPY_READ_WRITE; method *= 2) {
        int src = make_source(), dst = unnamed_file();
        EQUAL(t3_copy(src, dst, 4097, method), method);
        EQUAL(size_of(dst), 4097);
        close(dst);
        dst = unnamed_file();
        EQUAL(t3_copy(src, dst, (1 << 20) + 5, method), method); /* ends in a hole */
        EQUAL(size_of(dst), (1 << 20) + 5);
        close(dst);
        dst = unnamed_file();
        EQUAL(t3_copy(src, dst, 0, method), method);
        EQUAL(size_of(dst), 0);
        close(src);
        close(dst);
    }
}

static void a_source_that_is_too_short_is_an_error(void)
{
    int src = make_source(), dst = unnamed_file();

    EQUAL(t3_copy(src, dst, SOURCE_BYTES + 1, T3_COPY_ANY), -EIO);
    EQUAL(size_of(dst), 0);
    EQUAL(t3_copy(-1, dst, 1, T3_COPY_ANY), -EBADF);
    close(src);
    close(dst);
}

/* ---- confine --------------------------------------------------------------------------- */

/* The exit status of a child that runs t3_confine(parent) and `then`. */
static int confined(int parent, int (*then)(int))
{
    int status;
    pid_t pid = must(fork(), "fork");

    if (pid == 0) {
        int result = then(t3_confine(parent));
        __gcov_dump();
        _exit(result);
    }
    must(waitpid(pid, &status, 0), "waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int is_confined(int rc)
{
    int death = 0;

    if (rc != 0 || prctl(PR_GET_PDEATHSIG, &death) < 0)
        return 1;
    return !(death == SIGKILL && prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0 &&
             prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
}

static int error_of(int rc)
{
    return -rc;
}

static void a_worker_is_confined(void)
{
    EQUAL(confined(getpid(), is_confined), 0);
}

static void a_worker_whose_parent_is_gone_says_so(void)
{
    EQUAL(confined(getppid(), error_of), ESRCH);
}

/* ---- faults ----------------------------------------------------------------------------- */

#ifdef T3_FAULTS

static void a_fault_that_never_happens_is_counted(void)
{
    int fd = unnamed_file();

    t3_fault_set("fsync", 2, -EIO);
    t3_fault_set("pwrite", 1, 7);
    EQUAL(t3_sync_file(fd), 0);
    EQUAL(t3_fault_clear(), 2);
    for (int i = 0; i < 20; i++) /* more than the table holds */
        t3_fault_set("fsync", 1, -EIO);
    EQUAL(t3_fault_clear(), 16);
    close(fd);
}

static void opening_tries_again_where_the_kernel_asks_for_it(void)
{
    int dir = directory(), fd;

    t3_fault_set("syscall", 1, -EAGAIN);
    t3_fault_set("syscall", 2, -EINTR);
    fd = t3_open_beneath(dir, ".", O_RDONLY | O_DIRECTORY);
    TRUE(fd >= 0);
    expect_faults_happened();
    close(fd);
    for (int i = 1; i <= 16; i++)
        t3_fault_set("syscall", i, -EAGAIN);
    fd = t3_open_beneath(dir, ".", O_RDONLY | O_DIRECTORY);
    TRUE(fd >= 0);
    expect_faults_happened();
    close(fd);
    t3_fault_set("syscall", 1, -EACCES);
    EQUAL(t3_open_beneath(dir, ".", O_RDONLY | O_DIRECTORY), -EACCES);
    expect_faults_happened();
    close(dir);
}

/* Now the kernel has no openat2, now a container's filter doesn't know it. */
static int open_without_openat2(int dir, const char *path, int flags)
{
    static int opened;
    int fd;

    t3_fault_set("syscall", 1, ++opened % 2 ? -ENOSYS : -EPERM);
    fd = t3_open_beneath(dir, path, flags);
    expect_faults_happened();
    return fd;
}

static void a_filter_that_hides_openat2_opens_no_way_out(void)
{
    int dir = directory(), lowest = free_descriptor(), fd;
    char long_path[PATH_MAX + 1];

    must(mkdirat(dir, "sub", 0700), "mkdirat");
    must(symlinkat("sub", dir, "middle"), "symlinkat");
    touch(dir, "sub/made");
    fd = open_without_openat2(dir, "sub//made", O_RDWR);
    TRUE(fd >= 0);
    EQUAL(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
    must(symlinkat("made", dir, "sub/last"), "symlinkat");
    EQUAL(open_without_openat2(dir, "sub/last", O_RDONLY), -ELOOP);
    EQUAL(open_without_openat2(dir, "middle/made", O_RDONLY), -ELOOP);
    EQUAL(open_without_openat2(dir, "sub/made/x", O_RDONLY), -ENOTDIR);
    EQUAL(open_without_openat2(dir, "sub/missing", O_RDONLY), -ENOENT);
    EQUAL(open_without_openat2(dir, "sub/../../x", O_RDONLY), -EXDEV);
    EQUAL(open_without_openat2(dir, "..", O_RDONLY), -EXDEV);
    EQUAL(open_without_openat2(dir, "/etc/passwd", O_RDONLY), -EXDEV);
    EQUAL(open_without_openat2(dir, "", O_RDONLY), -ENOENT);
    memset(long_path, 'x', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = 0;
    EQUAL(open_without_openat2(dir, long_path, O_RDONLY), -ENAMETOOLONG);
    t3_fault_set("openat", 1, -EIO);
    EQUAL(open_without_openat2(dir, "sub/made", O_RDONLY), -EIO);
    t3_fault_set("readlinkat", 1, -EIO);
    EQUAL(open_without_openat2(dir, "middle/made", O_RDONLY),
          -ENOTDIR); /* it may be a link or not */
    t3_fault_set("close", 1, -EIO);
    fd = open_without_openat2(dir, "sub/made", O_RDONLY);
    TRUE(fd >= 0); /* Linux has closed the directory all the same */
    close(fd);
    EQUAL(free_descriptor(), lowest);
    unlinkat(dir, "sub/made", 0);
    unlinkat(dir, "sub/last", 0);
    unlinkat(dir, "sub", AT_REMOVEDIR);
    unlinkat(dir, "middle", 0);
    close(dir);
}

static void a_directory_may_lack_fsync_but_not_fail_it(void)
{
    int dir = directory();

    t3_fault_set("fsync", 1, -EINVAL);
    EQUAL(t3_sync_directory(dir), 0);
    expect_faults_happened();
    t3_fault_set("fsync", 1, -EIO);
    EQUAL(t3_sync_directory(dir), -EIO);
    expect_faults_happened();
    t3_fault_set("fsync", 1, -EIO);
    EQUAL(t3_sync_file(dir), -EIO);
    expect_faults_happened();
    close(dir);
}

static void naming_reports_failures(void)
{
    int dir = directory(), fd = unnamed_file();

    t3_fault_set("linkat", 1, -ENOSPC);
    EQUAL(t3_link_unnamed(fd, dir, "name"), -ENOSPC);
    expect_faults_happened();
    t3_fault_set("renameat2", 1, -EINVAL);
    EQUAL(t3_rename_noreplace(dir, "a", "b"), -EINVAL);
    expect_faults_happened();
    t3_fault_set("renameat2", 1, -EINVAL);
    EQUAL(t3_rename_exchange(dir, "a", "b"), -EINVAL);
    expect_faults_happened();
    close(fd);
    close(dir);
}

static void no_reflink_falls_to_the_range(void)
{
    static const int errors[] = {EXDEV, EOPNOTSUPP, ENOTTY, ENOSYS, EINVAL, EPERM, ETXTBSY};

    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        t3_fault_set("ioctl", 1, -errors[i]);
        expect_copy(T3_COPY_ANY, T3_COPY_RANGE);
        expect_faults_happened();
    }
    t3_fault_set("ioctl", 1, -EOPNOTSUPP);
    expect_copy(T3_COPY_REFLINK, -EOPNOTSUPP);
    expect_faults_happened();
}

static void a_reflink_is_cut_to_what_was_asked_for(void)
{
    int src = make_source(), dst = unnamed_file();

    t3_fault_set("ioctl", 1, T3_FAULT_SUCCESS);
    EQUAL(t3_copy(src, dst, 4096, T3_COPY_ANY), T3_COPY_REFLINK);
    EQUAL(size_of(dst), 4096);
    expect_faults_happened();
    t3_fault_set("ioctl", 1, T3_FAULT_SUCCESS);
    t3_fault_set("ftruncate", 1, -EIO);
    EQUAL(t3_copy(src, dst, 4096, T3_COPY_ANY), -EIO);
    expect_faults_happened();
    close(src);
    close(dst);
}

static void no_range_falls_to_read_and_write_from_where_it_got_to(void)
{
    t3_fault_set("copy_file_range", 1, -EXDEV);
    expect_copy(T3_COPY_RANGE | T3_COPY_READ_WRITE, T3_COPY_READ_WRITE);
    expect_faults_happened();
    t3_fault_set("copy_file_range", 1, 5000);
    t3_fault_set("copy_file_range", 2, -EINTR);
    t3_fault_set("copy_file_range", 3, -EOPNOTSUPP);
    expect_copy(T3_COPY_RANGE | T3_COPY_READ_WRITE, T3_COPY_READ_WRITE);
    expect_faults_happened();
    t3_fault_set("copy_file_range", 1, 0); /* some file systems say 0 for "can't" */
    expect_copy(T3_COPY_RANGE | T3_COPY_READ_WRITE, T3_COPY_READ_WRITE);
    expect_faults_happened();
    t3_fault_set("copy_file_range", 1, 0);
    expect_copy(T3_COPY_RANGE, -EIO);
    expect_faults_happened();
}

static void a_failure_of_the_data_falls_to_nothing(void)
{
    t3_fault_set("ioctl", 1, -EIO);
    expect_copy(T3_COPY_ANY, -EIO);
    expect_faults_happened();
    t3_fault_set("copy_file_range", 1, -ENOSPC);
    expect_copy(T3_COPY_RANGE | T3_COPY_READ_WRITE, -ENOSPC);
    expect_faults_happened();
    t3_fault_set("pwrite", 1, -ENOSPC);
    expect_copy(T3_COPY_READ_WRITE, -ENOSPC);
    expect_faults_happened();
    t3_fault_set("pread", 1, -EIO);
    expect_copy(T3_COPY_READ_WRITE, -EIO);
    expect_faults_happened();
    t3_fault_set("pread", 1, 0); /* it shrank meanwhile */
    expect_copy(T3_COPY_READ_WRITE, -EIO);
    expect_faults_happened();
    for (int method = T3_COPY_RANGE; method <= T3_COPY_READ_WRITE; method *= 2) {
        t3_fault_set("ftruncate", 1, -EIO);
        expect_copy(method, -EIO);
        expect_faults_happened();
    }
    t3_fault_set("malloc", 1, -ENOMEM);
    expect_copy(T3_COPY_READ_WRITE, -ENOMEM);
    expect_faults_happened();
}

static void short_and_interrupted_calls_are_carried_on(void)
{
    t3_fault_set("pread", 1, -EINTR);
    t3_fault_set("pread", 2, 777);
    t3_fault_set("pwrite", 1, 5);
    t3_fault_set("pwrite", 2, -EINTR);
    expect_copy(T3_COPY_READ_WRITE, T3_COPY_READ_WRITE);
    expect_faults_happened();
}

static void a_file_system_without_holes_is_read_whole(void)
{
    t3_fault_set("lseek", 1, -EINVAL);
    expect_copy(T3_COPY_READ_WRITE, T3_COPY_READ_WRITE);
    expect_faults_happened();
    t3_fault_set("lseek", 2, -EINVAL);
    expect_copy(T3_COPY_READ_WRITE, T3_COPY_READ_WRITE);
    expect_faults_happened();
}

static void confinement_reports_each_refusal(void)
{
    for (int nth = 1; nth <= 3; nth++) {
        t3_fault_set("prctl", nth, -EPERM);
        EQUAL(confined(getpid(), error_of), EPERM);
        EQUAL(t3_fault_clear(), 1); /* it happened in the child */
    }
}

#endif

int main(void)
{
    begin();
    RUN(opens_a_file_beneath_and_closes_it_on_exec);
    RUN(refuses_symlinks_and_ways_out);
    RUN(an_unnamed_file_gets_a_name_once);
    RUN(a_name_that_is_a_symlink_is_not_followed);
    RUN(renaming_replaces_nothing);
    RUN(two_names_change_places);
    RUN(syncs_files_and_directories);
    RUN(each_method_makes_the_same_bytes);
    RUN(holes_stay_holes_and_zeros_become_some);
    RUN(only_the_first_bytes_are_copied_if_so_asked);
    RUN(a_source_that_is_too_short_is_an_error);
    RUN(a_worker_is_confined);
    RUN(a_worker_whose_parent_is_gone_says_so);
#ifdef T3_FAULTS
    RUN(a_fault_that_never_happens_is_counted);
    RUN(opening_tries_again_where_the_kernel_asks_for_it);
    RUN(a_directory_may_lack_fsync_but_not_fail_it);
    RUN(a_filter_that_hides_openat2_opens_no_way_out);
    RUN(naming_reports_failures);
    RUN(no_reflink_falls_to_the_range);
    RUN(a_reflink_is_cut_to_what_was_asked_for);
    RUN(no_range_falls_to_read_and_write_from_where_it_got_to);
    RUN(a_failure_of_the_data_falls_to_nothing);
    RUN(short_and_interrupted_calls_are_carried_on);
    RUN(a_file_system_without_holes_is_read_whole);
    RUN(confinement_reports_each_refusal);
#endif
    return summary("files");
}
