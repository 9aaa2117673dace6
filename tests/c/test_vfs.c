/* test_vfs.c - tests vfs.c: SQLite's own backup and VACUUM INTO through it, the methods of its
 * files one by one and, in the fault build, with each system call made to fail.
 */
#include "copier.h"
#include "fault.h"
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <sqlite3ext.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/wait.h>
#include <time.h>

int sqlite3_t3copy_init(sqlite3 *connection, char **message, const sqlite3_api_routines *api);

enum {
    MIB = 1 << 20,
    HEADER_BYTES = 100,
    DATABASE = SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
};

static sqlite3_vfs *vfs;

/* ---- databases -------------------------------------------------------------------------- */

static void sql(sqlite3 *db, const char *text)
{
    char *message = NULL;

    if (sqlite3_exec(db, text, NULL, NULL, &message) != SQLITE_OK) {
        fprintf(stderr, "%s: %s\n", text, message);
        exit(2);
    }
}

static const char *path_of(const char *name)
{
    static char path[192];

    snprintf(path, sizeof path, "%s/%s", scratch, name);
    return path;
}

/* A database of about `mib` MiB, most of it zeros; in WAL mode if `wal`. */
static sqlite3 *make_source(int page_bytes, int mib, int wal)
{
    char text[160];
    sqlite3 *db;

    must(-sqlite3_open(path_of("source"), &db), "sqlite3_open");
    snprintf(text, sizeof text,
             "pragma page_size=%d; pragma journal_mode=%s; pragma synchronous=off", page_bytes,
             wal ? "wal" : "off");
    sql(db, text);
    sql(db, "pragma cache_size=-2000; create table t(id integer primary key, body); begin");
    for (int done = 0; done < mib; done += 512) {
        snprintf(text, sizeof text, "insert into t(body) values (zeroblob(%d))",
                 (mib - done < 512 ? mib - done : 512) * MIB);
        sql(db, text);
    }
    sql(db, "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000)"
            " insert into t(body) select randomblob(300) from n;"
            " create index by_body on t(body) where length(body) < 1000; commit");
    if (wal)
        sql(db, "pragma wal_checkpoint(truncate)");
    return db;
}

static void close_source(sqlite3 *db)
{
    EQUAL(sqlite3_close(db), SQLITE_OK);
    must(unlink(path_of("source")), "unlink");
}

static sqlite3 *open_copy(int fd, const char *parameters)
{
    char uri[96];
    sqlite3 *db;

    snprintf(uri, sizeof uri, "file:t3copy-%d?vfs=t3copy%s", fd, parameters);
    EQUAL(sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI,
                          NULL),
          SQLITE_OK);
    return db;
}

static sqlite3 *open_target(int fd)
{
    sqlite3 *db = open_copy(fd, "");

    sql(db, "pragma locking_mode=exclusive; pragma journal_mode=off; pragma synchronous=off;"
            " pragma cache_size=-64");
    return db;
}

/* Run SQLite's online backup. Returns its error, or SQLITE_OK. */
static int back_up(sqlite3 *from, int fd)
{
    sqlite3 *to = open_target(fd);
    sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");
    int rc = SQLITE_OK;

    while (rc == SQLITE_OK)
        rc = sqlite3_backup_step(backup, 1000);
    EQUAL(sqlite3_backup_finish(backup), rc == SQLITE_DONE ? SQLITE_OK : rc);
    EQUAL(sqlite3_close(to), SQLITE_OK);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int vacuum_into(sqlite3 *from, int fd)
{
    char text[96];

    snprintf(text, sizeof text, "vacuum into 'file:t3copy-%d?vfs=t3copy'", fd);
    return sqlite3_exec(from, text, NULL, NULL, NULL);
}

static int first_value(void *result, int n, char **values, char **names)
{
    (void)n;
    (void)names;
    snprintf(result, 32, "%s", values[0]);
    return 0;
}

/* Check the copy as the worker does: opened immutable, and mapped. */
static void expect_sound(int fd, const char *rows)
{
    sqlite3 *db = open_copy(fd, "&mode=ro&immutable=1");
    char result[32] = "";

    sql(db, "pragma mmap_size=17179869184");
    sqlite3_exec(db, "pragma integrity_check", first_value, result, NULL);
    EQUAL(strcmp(result, "ok"), 0);
    sqlite3_exec(db, "select count(*) from t where length(body) = 300", first_value, result, NULL);
    EQUAL(strcmp(result, rows), 0);
    EQUAL(sqlite3_close(db), SQLITE_OK);
}

static void expect_same_as_source(int fd)
{
    int other = must(open(path_of("source"), O_RDONLY | O_CLOEXEC), "the source");

    EQUAL(size_of(fd), size_of(other));
    TRUE(same_from(fd, other, HEADER_BYTES)); /* the header's change counter differs */
    close(other);
}

/* ---- whole copies ----------------------------------------------------------------------- */

static void backup_copies_every_byte(void)
{
    for (int page_bytes = 512; page_bytes <= 65536; page_bytes *= 2) {
        int fd = unnamed_file();
        sqlite3 *from = make_source(page_bytes, 9, 0);
        t3_destination *d = t3_destination_new(fd, -1);
        t3_counters counters;

        EQUAL(back_up(from, fd), SQLITE_OK);
        EQUAL(t3_destination_finish(d), 0);
        expect_same_as_source(fd);
        expect_sound(fd, "5000");
        counters = t3_destination_counters(d);
        TRUE(counters.written >= size_of(fd));
        EQUAL(counters.synced, counters.written);
        TRUE(counters.read > 0);
        EQUAL(counters.error, 0);
        t3_destination_free(d);
        close(fd);
        close_source(from);
    }
}

static void vacuum_into_makes_a_sound_copy(void)
{
    int fd = unnamed_file();
    sqlite3 *from = make_source(4096, 20, 0);
    t3_destination *d = t3_destination_new(fd, -1);

    EQUAL(vacuum_into(from, fd), SQLITE_OK);
    EQUAL(t3_destination_finish(d), 0);
    expect_sound(fd, "5000");
    EQUAL(vacuum_into(from, fd), SQLITE_ERROR); /* "output file already exists" */
    t3_destination_free(d);
    close(fd);
    close_source(from);
}

static void a_destination_is_reused_for_the_fallback(void)
{
    int fd = unnamed_file();
    sqlite3 *from = make_source(4096, 1, 0);
    t3_destination *d = t3_destination_new(fd, -1);

    EQUAL(back_up(from, fd), SQLITE_OK);
    EQUAL(t3_destination_reset(d), 0);
    EQUAL(size_of(fd), 0);
    EQUAL(t3_destination_counters(d).written, 0);
    EQUAL(vacuum_into(from, fd), SQLITE_OK);
    EQUAL(t3_destination_finish(d), 0);
    expect_sound(fd, "5000");
    t3_destination_free(d);
    close(fd);
    close_source(from);
}

/* SQLite never writes the page that holds its lock byte: the copy has a hole there. */
static void copy_past_the_lock_byte_page(int lock_byte, int mib)
{
    enum { PAGE_BYTES = 65536 };
    static char page[PAGE_BYTES], zeros[PAGE_BYTES];
    int fd = unnamed_file();
    sqlite3 *from = make_source(PAGE_BYTES, mib, 0);
    t3_destination *d = t3_destination_new(fd, -1);

    EQUAL(back_up(from, fd), SQLITE_OK);
    EQUAL(t3_destination_finish(d), 0);
    TRUE(size_of(fd) > lock_byte + PAGE_BYTES);
    EQUAL(pread(fd, page, PAGE_BYTES, lock_byte), PAGE_BYTES);
    EQUAL(memcmp(page, zeros, PAGE_BYTES), 0);
    expect_same_as_source(fd);
    expect_sound(fd, "5000");
    EQUAL(t3_destination_reset(d), 0);
    EQUAL(vacuum_into(from, fd), SQLITE_OK);
    EQUAL(t3_destination_finish(d), 0);
    TRUE(size_of(fd) > lock_byte + PAGE_BYTES);
    expect_sound(fd, "5000");
    t3_destination_free(d);
    close(fd);
    close_source(from);
}

/* The lock byte is at 1 GiB, so the copy must be larger. */
static void copies_reach_past_the_lock_byte_page(void)
{
    copy_past_the_lock_byte_page(0x40000000, 1100);
}

/* SQLite can be told to have it elsewhere, so that a small copy has the hole too. */
static void small_copies_reach_past_a_moved_lock_byte_page(void)
{
    enum { MOVED = 4 * MIB };
    int standard = sqlite3_test_control(SQLITE_TESTCTRL_PENDING_BYTE, MOVED);

    EQUAL(standard, 0x40000000);
    copy_past_the_lock_byte_page(MOVED, 9);
    sqlite3_test_control(SQLITE_TESTCTRL_PENDING_BYTE, standard);
}

static void a_copy_of_a_wal_database_can_leave_wal_mode(void)
{
    unsigned char header[20];
    int fd = unnamed_file();
    sqlite3 *from = make_source(4096, 1, 1), *to;
    t3_destination *d = t3_destination_new(fd, -1);

    EQUAL(back_up(from, fd), SQLITE_OK);
    EQUAL(t3_destination_finish(d), 0);
    EQUAL(pread(fd, header, sizeof header, 0), sizeof header);
    EQUAL(header[18], 2);
    expect_sound(fd, "5000");
    to = open_copy(fd, "");
    sql(to, "pragma locking_mode=exclusive; pragma synchronous=off");
    EQUAL(sqlite3_exec(to, "create table lost(x)", NULL, NULL, NULL), SQLITE_IOERR);
    EQUAL(sqlite3_close(to), SQLITE_OK);
    to = open_copy(fd, "");
    sql(to, "pragma locking_mode=exclusive; pragma synchronous=off; pragma journal_mode=delete");
    EQUAL(sqlite3_close(to), SQLITE_OK);
    EQUAL(t3_destination_finish(d), 0);
    EQUAL(pread(fd, header, sizeof header, 0), sizeof header);
    EQUAL(header[18], 1);
    EQUAL(header[19], 1);
    expect_sound(fd, "5000");
    t3_destination_free(d);
    close(fd);
    close_source(from);
}

static void a_wide_sort_on_the_copy_may_spill(void)
{
    int fd = unnamed_file();
    sqlite3 *from = make_source(4096, 1, 0), *to;
    t3_destination *d = t3_destination_new(fd, -1);

    EQUAL(back_up(from, fd), SQLITE_OK);
    EQUAL(t3_destination_finish(d), 0);
    to = open_copy(fd, "&mode=ro&immutable=1");
    sql(to, "pragma cache_size=10; pragma temp_store=file");
    sql(to,
        "select count(*) from (select distinct hex(body) || id from t order by hex(body) || id)");
    EQUAL(sqlite3_close(to), SQLITE_OK);
    t3_destination_free(d);
    close(fd);
    close_source(from);
}

/* ---- cancelling ------------------------------------------------------------------------- */

static void a_cancelled_copy_fails_until_it_is_reset(void)
{
    int fd = unnamed_file();
    sqlite3 *from = make_source(4096, 1, 0);
    t3_destination *d = t3_destination_new(fd, -1);

    EQUAL(t3_destination_reset(d), 0);
    raise(SIGUSR1);
    EQUAL(back_up(from, fd), SQLITE_IOERR_WRITE);
    EQUAL(t3_destination_finish(d), -ECANCELED);
    EQUAL(t3_destination_counters(d).error, -ECANCELED);
    EQUAL(t3_destination_reset(d), 0);
    EQUAL(vacuum_into(from, fd), SQLITE_OK);
    EQUAL(t3_destination_finish(d), 0);
    t3_destination_free(d);
    close(fd);
    close_source(from);
}

static void a_signal_cancels_every_destination(void)
{
    int fds[] = {unnamed_file(), unnamed_file(), unnamed_file()};
    t3_destination *first = t3_destination_new(fds[0], -1);
    t3_destination *second = t3_destination_new(fds[1], -1);
    t3_destination *late;

    EQUAL(t3_cancel_on_signal(SIGKILL), -EINVAL);
    EQUAL(t3_cancel_on_signal(SIGUSR1), 0);
    EQUAL(t3_destination_finish(first), 0);
    raise(SIGUSR1);
    EQUAL(t3_destination_finish(first), -ECANCELED);
    EQUAL(t3_destination_reset(first), 0);
    EQUAL(t3_destination_finish(first), 0);
    EQUAL(t3_destination_finish(second),
          -ECANCELED); /* the reset of one is not that of the other */

    late = t3_destination_new(fds[2], -1);
    EQUAL(t3_destination_finish(late), -ECANCELED); /* a signal before the start is not lost */
    t3_destination_free(late);
    t3_destination_free(first);
    t3_destination_free(second);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
}

/* Open the file of `fd` for writing in another process. Returns whether it could within a while. */
static bool another_opens_it(int fd)
{
    pid_t child = fork();
    int status = 0;

    if (child == 0) {
        char path[64];

        alarm(20);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        _exit(open(path, O_WRONLY) < 0);
    }
    EQUAL(waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void whoever_opens_what_is_leased_is_not_kept_waiting(void)
{
    int writable = unnamed_file(), copy = unnamed_file(), fd;
    t3_destination *d = t3_destination_new(copy, -1);
    char path[64];

    snprintf(path, sizeof path, "/proc/self/fd/%d", writable);
    fd = open(path, O_RDONLY);
    EQUAL(t3_take_lease(fd, SIGUSR2), -EAGAIN); /* it is open for writing */
    close(writable);
    EQUAL(t3_destination_reset(d), 0); /* earlier signals are forgotten */
    EQUAL(t3_take_lease(fd, SIGUSR2), 0);
    EQUAL(fcntl(fd, F_GETLEASE), F_RDLCK);
    EQUAL(t3_destination_finish(d), 0);
    TRUE(another_opens_it(fd));
    EQUAL(fcntl(fd, F_GETLEASE), F_UNLCK);
    EQUAL(t3_destination_finish(d), -ECANCELED); /* nothing is believed that was copied of it */
    EQUAL(t3_give_lease_back(), -EAGAIN);
    EQUAL(t3_destination_reset(d), 0);
    EQUAL(t3_destination_finish(d), 0);
    EQUAL(t3_take_lease(fd, SIGUSR2), 0);
    EQUAL(t3_give_lease_back(), 0);
    raise(SIGUSR2); /* one that comes late cancels nothing */
    EQUAL(t3_destination_finish(d), 0);
    t3_destination_free(d);
    close(fd);
    close(copy);
}

static void *cancel_soon(void *destination)
{
    while (t3_destination_counters(destination).written < 8 * MIB)
        usleep(100);
    kill(getpid(), SIGUSR1);
    return NULL;
}

static void a_running_copy_can_be_cancelled(void)
{
    int fd = unnamed_file();
    sqlite3 *from = make_source(512, 200, 0);
    t3_destination *d = t3_destination_new(fd, -1);
    pthread_t thread;

    EQUAL(t3_destination_reset(d), 0);
    EQUAL(pthread_create(&thread, NULL, cancel_soon, d), 0);
    EQUAL(back_up(from, fd), SQLITE_IOERR_WRITE);
    EQUAL(pthread_join(thread, NULL), 0);
    EQUAL(t3_destination_finish(d), -ECANCELED);
    t3_destination_free(d);
    close(fd);
    close_source(from);
}

/* ---- one file's methods ----------------------------------------------------------------- */

typedef struct {
    int fd;
    t3_destination *destination;
    sqlite3_file *file;
    const sqlite3_io_methods *io;
} test_file;

static test_file open_file(int flags)
{
    test_file o = {.fd = unnamed_file(), .file = calloc(1, (size_t)vfs->szOsFile)};
    char name[32];
    int out = 0;

    snprintf(name, sizeof name, "t3copy-%d%s", o.fd, flags & SQLITE_OPEN_MAIN_DB ? "" : "-journal");
    o.destination = t3_destination_new(o.fd, -1);
    EQUAL(t3_destination_reset(o.destination), 0); /* earlier signals are forgotten */
    EQUAL(vfs->xOpen(vfs, name, o.file, flags, &out), SQLITE_OK);
    EQUAL(out, flags);
    o.io = o.file->pMethods;
    return o;
}

static void close_file(test_file *o)
{
    EQUAL(o->io->xClose(o->file), SQLITE_OK);
    free(o->file);
    t3_destination_free(o->destination);
    close(o->fd);
}

static char pattern(int64_t offset)
{
    return (char)((uint64_t)offset * 2654435761u >> 17);
}

/* Write `bytes` of the pattern that belongs at `offset`. */
static int write_pattern(test_file *o, int64_t offset, int bytes)
{
    char *data = malloc((size_t)bytes);
    int rc;

    for (int i = 0; i < bytes; i++)
        data[i] = pattern(offset + i);
    rc = o->io->xWrite(o->file, data, bytes, offset);
    free(data);
    return rc;
}

static int check_pattern(test_file *o, int64_t offset, int bytes)
{
    char *data = malloc((size_t)bytes);
    int rc = o->io->xRead(o->file, data, bytes, offset);

    for (int i = 0; i < bytes && rc == SQLITE_OK; i++) {
        if (data[i] != pattern(offset + i))
            rc = SQLITE_CORRUPT;
    }
    free(data);
    return rc;
}

static int64_t file_bytes(test_file *o)
{
    sqlite3_int64 bytes = -1;

    EQUAL(o->io->xFileSize(o->file, &bytes), SQLITE_OK);
    return bytes;
}

static void writes_are_gathered_and_read_back_whole(void)
{
    test_file o = open_file(DATABASE);

    EQUAL(write_pattern(&o, 0, 4096), SQLITE_OK);
    EQUAL(write_pattern(&o, 4096, 4096), SQLITE_OK);
    EQUAL(size_of(o.fd), 0);
    EQUAL(file_bytes(&o), 8192);
    EQUAL(check_pattern(&o, 4096, 4096), SQLITE_OK); /* from the buffer */
    EQUAL(size_of(o.fd), 0);
    EQUAL(write_pattern(&o, 2048, 2048), SQLITE_OK); /* over what is gathered */
    EQUAL(size_of(o.fd), 0);
    EQUAL(write_pattern(&o, 16384, 4096), SQLITE_OK); /* past a gap */
    EQUAL(size_of(o.fd), 8192);
    EQUAL(file_bytes(&o), 20480);
    EQUAL(check_pattern(&o, 0, 8192), SQLITE_OK); /* from the file, beside the buffer */
    EQUAL(size_of(o.fd), 8192);
    EQUAL(write_pattern(&o, 8192, 8192), SQLITE_OK);
    EQUAL(check_pattern(&o, 12288, 8192), SQLITE_OK); /* from both */
    EQUAL(check_pattern(&o, 0, 20480), SQLITE_OK);
    EQUAL(o.io->xSync(o.file, SQLITE_SYNC_FULL), SQLITE_OK);
    EQUAL(size_of(o.fd), 20480);
    EQUAL(t3_destination_counters(o.destination).written, 20480);
    close_file(&o);
}

static void a_write_across_the_end_of_the_buffer_is_split(void)
{
    test_file o = open_file(DATABASE);

    EQUAL(write_pattern(&o, 1000, 5 * MIB), SQLITE_OK);
    EQUAL(size_of(o.fd), 5 * MIB);
    EQUAL(write_pattern(&o, 1000 + 5 * MIB, 10 * MIB), SQLITE_OK);
    EQUAL(check_pattern(&o, 1000, 15 * MIB), SQLITE_OK);
    EQUAL(t3_destination_finish(o.destination), 0);
    EQUAL(size_of(o.fd), 1000 + 15 * MIB);
    close_file(&o);
}

/* Write `bytes` zeros at `offset`. */
static void write_zeros(test_file *o, int64_t offset, int bytes)
{
    char *data = calloc(1, (size_t)bytes);

    EQUAL(o->io->xWrite(o->file, data, bytes, offset), SQLITE_OK);
    free(data);
}

static int64_t blocks_of(test_file *o)
{
    struct stat status;

    must(fstat(o->fd, &status), "fstat");
    return status.st_blocks * 512;
}

static void zeros_at_the_end_take_no_room_and_are_written_over_what_is_there(void)
{
    test_file o = open_file(DATABASE);
    char byte = 1;

    EQUAL(write_pattern(&o, 0, 100), SQLITE_OK); /* beside it, the block is not all zero */
    write_zeros(&o, 100, 40 * MIB);
    EQUAL(file_bytes(&o), 100 + 40 * MIB);
    EQUAL(write_pattern(&o, 100 + 40 * MIB, 5000), SQLITE_OK);
    write_zeros(&o, 5100 + 40 * MIB, 20 * MIB);
    EQUAL(t3_destination_finish(o.destination), 0);
    EQUAL(size_of(o.fd), 5100 + 60 * MIB);
    TRUE(blocks_of(&o) < MIB);
    EQUAL(check_pattern(&o, 0, 100), SQLITE_OK);
    EQUAL(check_pattern(&o, 100 + 40 * MIB, 5000), SQLITE_OK);
    EQUAL(o.io->xRead(o.file, &byte, 1, 30 * MIB), SQLITE_OK);
    EQUAL(byte, 0);
    write_zeros(&o, 0, 8192);
    EQUAL(t3_destination_finish(o.destination), 0);
    EQUAL(o.io->xRead(o.file, &byte, 1, 10), SQLITE_OK);
    EQUAL(byte, 0);
    EQUAL(size_of(o.fd), 5100 + 60 * MIB);
    EQUAL(o.io->xTruncate(o.file, 8192), SQLITE_OK);
    write_zeros(&o, 8192, 8192);
    EQUAL(t3_destination_finish(o.destination), 0);
    EQUAL(size_of(o.fd), 16384);
    close_file(&o);
}

static void what_a_file_holds_already_is_written_over(void)
{
    int fd = unnamed_file();
    test_file o = {.fd = fd};
    char byte = 1;

    must((int)pwrite(fd, &byte, 1, 5), "pwrite");
    o.file = calloc(1, (size_t)vfs->szOsFile);
    o.destination = t3_destination_new(fd, -1);
    {
        char name[32];
        snprintf(name, sizeof name, "t3copy-%d", fd);
        EQUAL(vfs->xOpen(vfs, name, o.file, DATABASE, NULL), SQLITE_OK);
    }
    o.io = o.file->pMethods;
    write_zeros(&o, 0, 4096);
    EQUAL(t3_destination_finish(o.destination), 0);
    EQUAL(pread(fd, &byte, 1, 5), 1);
    EQUAL(byte, 0);
    close_file(&o);
}

static void offsets_past_4_gib_are_kept_whole(void)
{
    test_file o = open_file(DATABASE);
    const int64_t offset = (5ll << 30) + 12345;

    EQUAL(write_pattern(&o, offset, MIB), SQLITE_OK);
    EQUAL(file_bytes(&o), offset + MIB);
    EQUAL(t3_destination_finish(o.destination), 0);
    EQUAL(size_of(o.fd), offset + MIB);
    EQUAL(check_pattern(&o, offset, MIB), SQLITE_OK);
    EQUAL(o.io->xTruncate(o.file, offset), SQLITE_OK);
    EQUAL(size_of(o.fd), offset);
    close_file(&o);
}

static void a_read_past_the_end_is_short_and_zero(void)
{
    test_file o = open_file(DATABASE);
    char data[4096];

    memset(data, 1, sizeof data);
    EQUAL(write_pattern(&o, 0, 100), SQLITE_OK);
    EQUAL(o.io->xRead(o.file, data, sizeof data, 0), SQLITE_IOERR_SHORT_READ);
    EQUAL(data[99], pattern(99));
    EQUAL(data[100], 0);
    EQUAL(data[4095], 0);
    close_file(&o);
}

static void truncating_keeps_what_was_gathered_before_the_cut(void)
{
    test_file o = open_file(DATABASE);

    EQUAL(write_pattern(&o, 0, 8192), SQLITE_OK);
    EQUAL(o.io->xTruncate(o.file, 4096), SQLITE_OK);
    EQUAL(file_bytes(&o), 4096);
    EQUAL(check_pattern(&o, 0, 4096), SQLITE_OK);
    close_file(&o);
}

static void pages_are_mapped_within_the_limit_only(void)
{
    test_file o = open_file(DATABASE);
    sqlite3_int64 limit = 65536;
    void *page, *other;

    EQUAL(write_pattern(&o, 0, 131072), SQLITE_OK);
    EQUAL(o.io->xFileControl(o.file, SQLITE_FCNTL_MMAP_SIZE, &limit), SQLITE_OK);
    EQUAL(limit, 0);
    EQUAL(o.io->xFetch(o.file, 0, 4096, &page), SQLITE_OK);
    TRUE(page == NULL); /* not while anything is gathered */
    EQUAL(t3_destination_finish(o.destination), 0);
    EQUAL(o.io->xFetch(o.file, 4096, 4096, &page), SQLITE_OK);
    TRUE(page != NULL && *(char *)page == pattern(4096));
    EQUAL(o.io->xFetch(o.file, 65536, 4096, &other), SQLITE_OK);
    TRUE(other == NULL);
    limit = -1;
    EQUAL(o.io->xFileControl(o.file, SQLITE_FCNTL_MMAP_SIZE, &limit), SQLITE_OK);
    EQUAL(limit, 65536);
    limit = 1 << 30;
    EQUAL(o.io->xFileControl(o.file, SQLITE_FCNTL_MMAP_SIZE, &limit), SQLITE_OK);
    EQUAL(o.io->xFetch(o.file, 131072 - 4096, 4096, &other), SQLITE_OK);
    TRUE(other == NULL); /* SQLite may read a little past a page: never past the map */

    /* It grew: mapped anew, but not while a page of the old map is out. */
    EQUAL(write_pattern(&o, 131072, 131072), SQLITE_OK);
    EQUAL(t3_destination_finish(o.destination), 0);
    EQUAL(o.io->xFetch(o.file, 200000, 4096, &other), SQLITE_OK);
    TRUE(other == NULL);
    EQUAL(*(char *)page, pattern(4096));
    EQUAL(o.io->xUnfetch(o.file, 4096, page), SQLITE_OK);
    EQUAL(o.io->xFetch(o.file, 200000, 4096, &other), SQLITE_OK);
    TRUE(other != NULL && *(char *)other == pattern(200000));
    EQUAL(o.io->xUnfetch(o.file, 200000, other), SQLITE_OK);
    EQUAL(o.io->xUnfetch(o.file, 0, NULL), SQLITE_OK);
    EQUAL(o.io->xFetch(o.file, 0, 4096, &page), SQLITE_OK);
    EQUAL(o.io->xUnfetch(o.file, 0, page), SQLITE_OK);
    close_file(&o);
}

/* Whether the kernel was told that the mapping which holds `page` is read in no order
 * (proc(5): "rr"). */
static int is_read_at_random(const void *page)
{
    FILE *maps = fopen("/proc/self/smaps", "r");
    char line[512];
    int within = 0, found = 0;

    while (fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            within = from <= (unsigned long)page && (unsigned long)page < to;
        else if (within && strncmp(line, "VmFlags:", 8) == 0)
            found = strstr(line, " rr") != NULL;
    }
    fclose(maps);
    return found;
}

static void a_map_is_read_without_what_lies_around_a_page(void)
{
    test_file o = open_file(DATABASE);
    sqlite3_int64 limit = 1 << 30;
    void *page;

    EQUAL(write_pattern(&o, 0, 131072), SQLITE_OK);
    EQUAL(t3_destination_finish(o.destination), 0);
    EQUAL(o.io->xFileControl(o.file, SQLITE_FCNTL_MMAP_SIZE, &limit), SQLITE_OK);
    EQUAL(o.io->xFetch(o.file, 4096, 4096, &page), SQLITE_OK);
    TRUE(page != NULL && is_read_at_random(page));
    EQUAL(o.io->xUnfetch(o.file, 4096, page), SQLITE_OK);
    close_file(&o);
}

static void a_file_that_shrank_is_read_only_where_it_is(void)
{
    test_file o = open_file(DATABASE);
    sqlite3_int64 limit = 1 << 30;
    void *page, *other;

    EQUAL(write_pattern(&o, 0, 131072), SQLITE_OK);
    EQUAL(t3_destination_finish(o.destination), 0);
    EQUAL(o.io->xFileControl(o.file, SQLITE_FCNTL_MMAP_SIZE, &limit), SQLITE_OK);
    EQUAL(o.io->xFetch(o.file, 0, 4096, &page), SQLITE_OK);
    TRUE(page != NULL);
    EQUAL(o.io->xTruncate(o.file, 65536), SQLITE_OK);
    EQUAL(o.io->xFetch(o.file, 98304, 4096, &other), SQLITE_OK);
    TRUE(other == NULL);
    EQUAL(o.io->xFetch(o.file, 4096, 4096, &other), SQLITE_OK);
    TRUE(other != NULL && *(char *)other == pattern(4096));
    EQUAL(o.io->xUnfetch(o.file, 4096, other), SQLITE_OK);
    EQUAL(o.io->xUnfetch(o.file, 0, page), SQLITE_OK);
    close_file(&o);
}

static void an_empty_file_is_not_mapped(void)
{
    test_file o = open_file(DATABASE);
    sqlite3_int64 limit = 65536;
    void *page;

    EQUAL(o.io->xFileControl(o.file, SQLITE_FCNTL_MMAP_SIZE, &limit), SQLITE_OK);
    EQUAL(o.io->xFetch(o.file, 0, 4096, &page), SQLITE_OK);
    TRUE(page == NULL);
    close_file(&o);
}

static void a_destination_is_private(void)
{
    test_file o = open_file(DATABASE);
    int reserved = 1;

    EQUAL(o.io->xLock(o.file, SQLITE_LOCK_EXCLUSIVE), SQLITE_OK);
    EQUAL(o.io->xCheckReservedLock(o.file, &reserved), SQLITE_OK);
    EQUAL(reserved, 0);
    EQUAL(o.io->xUnlock(o.file, SQLITE_LOCK_NONE), SQLITE_OK);
    EQUAL(o.io->xSectorSize(o.file), 4096);
    TRUE(o.io->xDeviceCharacteristics(o.file) & SQLITE_IOCAP_SAFE_APPEND);
    EQUAL(o.io->xFileControl(o.file, SQLITE_FCNTL_SIZE_HINT, NULL), SQLITE_NOTFOUND);
    close_file(&o);
}

static void a_journal_is_always_empty_and_a_wal_refuses_writes(void)
{
    char data[8] = "written";

    for (int wal = 0; wal <= 1; wal++) {
        test_file o = open_file(SQLITE_OPEN_CREATE |
                                (wal ? SQLITE_OPEN_WAL : SQLITE_OPEN_MAIN_JOURNAL));
        EQUAL(o.io->xWrite(o.file, data, sizeof data, 0), wal ? SQLITE_IOERR_WRITE : SQLITE_OK);
        EQUAL(file_bytes(&o), 0);
        EQUAL(o.io->xRead(o.file, data, sizeof data, 0), SQLITE_IOERR_SHORT_READ);
        EQUAL(data[0], 0);
        EQUAL(o.io->xTruncate(o.file, 0), SQLITE_OK);
        EQUAL(o.io->xSync(o.file, SQLITE_SYNC_NORMAL), SQLITE_OK);
        EQUAL(o.io->xFileControl(o.file, SQLITE_FCNTL_MMAP_SIZE, NULL), SQLITE_NOTFOUND);
        EQUAL(size_of(o.fd), 0);
        close_file(&o);
    }
}

/* ---- the VFS ---------------------------------------------------------------------------- */

static void an_unknown_name_cannot_be_opened(void)
{
    sqlite3_file *file = calloc(1, (size_t)vfs->szOsFile);

    EQUAL(vfs->xOpen(vfs, "t3copy-999", file, SQLITE_OPEN_MAIN_DB, NULL), SQLITE_CANTOPEN);
    TRUE(file->pMethods == NULL);
    free(file);
}

static void the_vfs_finds_and_deletes_nothing(void)
{
    char text[16] = "";
    int found = 1;

    EQUAL(vfs->xAccess(vfs, "t3copy-1-journal", SQLITE_ACCESS_EXISTS, &found), SQLITE_OK);
    EQUAL(found, 0);
    EQUAL(vfs->xDelete(vfs, "t3copy-1-journal", 1), SQLITE_OK);
    EQUAL(vfs->xFullPathname(vfs, "t3copy-1", sizeof text, text), SQLITE_OK);
    EQUAL(strcmp(text, "t3copy-1"), 0);
    EQUAL(vfs->xFullPathname(vfs, "a name that is too long", sizeof text, text), SQLITE_CANTOPEN);
    errno = 0;
    EQUAL(vfs->xGetLastError(vfs, sizeof text, text), 0);
    errno = EDQUOT;
    EQUAL(vfs->xGetLastError(vfs, sizeof text, text), EDQUOT);
    EQUAL(vfs->xRandomness(vfs, sizeof text, text), sizeof text);
    TRUE(vfs->xSleep(vfs, 1) >= 1);
}

/* An SQLite that is built without what is deprecated has no xCurrentTime, an old one no other. */
static void the_time_is_that_of_whichever_function_there_is(void)
{
    sqlite3_vfs *other = sqlite3_vfs_find(NULL);
    sqlite3_vfs had = *other;
    double days = 0, old_days = 0;

    other->xCurrentTime = NULL;
    EQUAL(vfs->xCurrentTime(vfs, &days), SQLITE_OK);
    other->xCurrentTime = had.xCurrentTime;
    other->iVersion = 1;
    EQUAL(vfs->xCurrentTime(vfs, &old_days), SQLITE_OK);
    other->iVersion = had.iVersion;
    TRUE(days > 2450000);
    TRUE(old_days >= days && old_days < days + 1);
}

/* SQLite does not check the four methods that load an extension for NULL. */
static void extensions_load_on_a_connection_through_the_vfs(void)
{
    int fd = unnamed_file();
    t3_destination *d = t3_destination_new(fd, -1);
    sqlite3 *db;
    char *message = NULL;
    void *library;

    EQUAL(t3_destination_reset(d), 0);
    db = open_copy(fd, "");
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
    EQUAL(sqlite3_load_extension(db, "/no/such/extension", NULL, &message), SQLITE_ERROR);
    TRUE(message && strstr(message, "/no/such/extension")); /* the dynamic linker's words */
    sqlite3_free(message);
    EQUAL(sqlite3_load_extension(db, "libm.so.6", "sqlite3_absent_init", &message), SQLITE_ERROR);
    TRUE(message && strstr(message, "sqlite3_absent_init")); /* opened, searched and closed */
    sqlite3_free(message);
    EQUAL(sqlite3_close(db), SQLITE_OK);
    t3_destination_free(d);
    close(fd);

    library = vfs->xDlOpen(vfs, "libm.so.6");
    TRUE(library != NULL);
    TRUE(vfs->xDlSym(vfs, library, "cos") != NULL);
    vfs->xDlClose(vfs, library);
}

static void one_descriptor_is_one_destination(void)
{
    int fd = unnamed_file();
    t3_destination *d = t3_destination_new(fd, -1);

    errno = 0;
    TRUE(t3_destination_new(fd, -1) == NULL);
    EQUAL(errno, EEXIST);
    t3_destination_free(d);
    d = t3_destination_new(fd, -1);
    TRUE(d != NULL);
    t3_destination_free(d);
    close(fd);
}

static void registering_again_is_harmless_but_not_from_another_sqlite(void)
{
    sqlite3_api_routines other = {.mprintf = sqlite3_mprintf};
    char *message = NULL;

    EQUAL(sqlite3_t3copy_init(NULL, &message, NULL), SQLITE_OK_LOAD_PERMANENTLY);
    TRUE(sqlite3_vfs_find("t3copy") == vfs);
    TRUE(message == NULL);
    EQUAL(sqlite3_t3copy_init(NULL, &message, &other), SQLITE_ERROR);
    TRUE(message != NULL);
    sqlite3_free(message);
}

static void a_sqlite_without_a_vfs_is_refused(void)
{
    sqlite3_vfs *all[16];
    char *message = NULL;
    int n = 0;

    while (n < 16 && (all[n] = sqlite3_vfs_find(NULL))) {
        sqlite3_vfs_unregister(all[n]);
        n++;
    }
    EQUAL(sqlite3_t3copy_init(NULL, &message, NULL), SQLITE_ERROR);
    TRUE(message != NULL);
    sqlite3_free(message);
    while (n-- > 0)
        sqlite3_vfs_register(all[n], n == 0);
    message = NULL;
    EQUAL(sqlite3_t3copy_init(NULL, &message, NULL), SQLITE_OK_LOAD_PERMANENTLY);
    vfs = sqlite3_vfs_find("t3copy");
}

/* ---- progress --------------------------------------------------------------------------- */

static int64_t milliseconds(void)
{
    struct timespec now;

    must(clock_gettime(CLOCK_MONOTONIC, &now), "clock_gettime");
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void progress_is_a_json_line_every_half_second(void)
{
    test_file o = open_file(DATABASE);
    char line[128] = "";
    int pipes[2], fd = unnamed_file();
    ssize_t found;
    int64_t began = milliseconds();
    sqlite3_int64 limit = 1 << 30;
    void *page;

    must(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), "pipe2");
    close_file(&o);
    o = (test_file){.fd = fd, .destination = t3_destination_new(fd, pipes[1])};
    EQUAL(t3_destination_reset(o.destination), 0);
    snprintf(line, sizeof line, "t3copy-%d", fd);
    o.file = calloc(1, (size_t)vfs->szOsFile);
    EQUAL(vfs->xOpen(vfs, line, o.file, SQLITE_OPEN_MAIN_DB, NULL), SQLITE_OK);
    o.io = o.file->pMethods;

    for (int i = 0; i < 200; i++)
        EQUAL(write_pattern(&o, i * 4096, 4096), SQLITE_OK);
    found = read(pipes[0], line, sizeof line);
    TRUE(found == -1 || milliseconds() - began >= 500); /* else it is too soon */
    usleep(520000);
    began = milliseconds();
    for (int i = 200; i < 400; i++)
        EQUAL(write_pattern(&o, i * 4096, 4096), SQLITE_OK);
    memset(line, 0, sizeof line);
    TRUE(read(pipes[0], line, sizeof line) > 0);
    EQUAL(strncmp(line, "{\"event\":\"progress\",\"written\":", 30), 0);
    TRUE(strcmp(strchr(line, '}'), "}\n") == 0 ||
         milliseconds() - began >= 500); /* one line, no more */

    EQUAL(t3_destination_finish(o.destination), 0);
    EQUAL(o.io->xFileControl(o.file, SQLITE_FCNTL_MMAP_SIZE, &limit), SQLITE_OK);
    usleep(520000);
    for (int i = 0; i < 200; i++) {
        EQUAL(o.io->xFetch(o.file, i * 4096, 4096, &page), SQLITE_OK);
        EQUAL(o.io->xUnfetch(o.file, i * 4096, page), SQLITE_OK);
    }
    TRUE(read(pipes[0], line, sizeof line) > 0); /* reading is life too */

    signal(SIGPIPE, SIG_IGN);
    close(pipes[0]);
    usleep(520000);
    for (int i = 0; i < 200; i++)
        EQUAL(check_pattern(&o, i * 4096, 4096), SQLITE_OK); /* nobody listens: no harm */
    close(pipes[1]);
    close_file(&o);
}

/* ---- faults ----------------------------------------------------------------------------- */

#ifdef T3_FAULTS

/* A copy during which one call fails: what SQLite says, what the destination says, and that
 * the fallback works afterwards. */
static void expect_failure(const char *call, int nth, int error, int code, int finish)
{
    int fd = unnamed_file();
    sqlite3 *from = make_source(4096, 30, 0);
    t3_destination *d = t3_destination_new(fd, -1);

    EQUAL(t3_destination_reset(d), 0);
    t3_fault_set(call, nth, -error);
    EQUAL(back_up(from, fd), code);
    EQUAL(t3_destination_finish(d), finish);
    expect_faults_happened();
    EQUAL(t3_destination_counters(d).error, finish);
    EQUAL(t3_destination_finish(d), finish); /* it stays */
    EQUAL(t3_destination_reset(d), 0);
    EQUAL(vacuum_into(from, fd), SQLITE_OK);
    EQUAL(t3_destination_finish(d), 0);
    expect_sound(fd, "5000");
    t3_destination_free(d);
    close(fd);
    close_source(from);
}

static void a_failed_write_is_final_and_the_fallback_still_works(void)
{
    expect_failure("pwrite", 1, EIO, SQLITE_IOERR_WRITE, -EIO);
    expect_failure("pwrite", 3, ENOSPC, SQLITE_FULL, -ENOSPC);
    expect_failure("pwrite", 2, EDQUOT, SQLITE_FULL, -EDQUOT);
}

static void a_failure_to_leave_a_hole_is_a_failed_write(void)
{
    test_file o = open_file(DATABASE);
    int fd = unnamed_file();
    t3_destination *d;

    write_zeros(&o, 0, 8192);
    t3_fault_set("ftruncate", 1, -EINTR);
    EQUAL(t3_destination_finish(o.destination), 0);
    expect_faults_happened();
    EQUAL(size_of(o.fd), 8192);
    write_zeros(&o, 8192, 8192);
    t3_fault_set("ftruncate", 1, -EIO);
    EQUAL(t3_destination_finish(o.destination), -EIO);
    expect_faults_happened();
    EQUAL(t3_destination_reset(o.destination), 0);
    EQUAL(write_pattern(&o, 0, 4096), SQLITE_OK);
    write_zeros(&o, 4096, 4096);
    t3_fault_set("pwrite", 1, -ENOSPC);
    EQUAL(t3_destination_finish(o.destination), -ENOSPC);
    expect_faults_happened();
    close_file(&o);
    t3_fault_set("fstat", 1, -EIO);
    d = t3_destination_new(fd, -1);
    expect_faults_happened();
    t3_destination_free(d);
    close(fd);
}

static void a_failed_write_back_is_a_failed_write(void)
{
    expect_failure("sync_file_range", 1, EIO, SQLITE_IOERR_WRITE, -EIO); /* to start one */
    expect_failure("sync_file_range", 4, EIO, SQLITE_IOERR_WRITE, -EIO); /* to wait for one */
    expect_failure("sync_file_range", 3, ENOSPC, SQLITE_FULL, -ENOSPC);
}

static void a_failure_at_the_end_is_not_missed(void)
{
    test_file o = open_file(DATABASE);

    EQUAL(write_pattern(&o, 0, 4096), SQLITE_OK);
    t3_fault_set("sync_file_range", 1, -EIO);
    EQUAL(t3_destination_finish(o.destination), -EIO);
    expect_faults_happened();
    EQUAL(write_pattern(&o, 4096, 4096), SQLITE_IOERR_WRITE);
    EQUAL(t3_destination_reset(o.destination), 0);
    EQUAL(write_pattern(&o, 0, 4096), SQLITE_OK);
    t3_fault_set("pwrite", 1, -ENOSPC);
    EQUAL(t3_destination_finish(o.destination), -ENOSPC);
    expect_faults_happened();
    EQUAL(write_pattern(&o, 4096, 4096), SQLITE_FULL);
    close_file(&o);
}

static void a_file_system_without_sync_file_range_gets_fdatasync(void)
{
    static const int errors[] = {ENOSYS, EINVAL, ESPIPE};

    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        test_file o = open_file(SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
        t3_fault_set("sync_file_range", 1, -errors[i]);
        EQUAL(write_pattern(&o, 0, 20 * MIB), SQLITE_OK);
        expect_faults_happened();
        EQUAL(t3_destination_counters(o.destination).synced, 0);
        EQUAL(t3_destination_finish(o.destination), 0);
        EQUAL(t3_destination_counters(o.destination).synced, 20 * MIB);
        t3_fault_set("fdatasync", 1, -EIO);
        EQUAL(t3_destination_finish(o.destination), -EIO);
        expect_faults_happened();
        close_file(&o);
    }
}

static void short_and_interrupted_calls_are_carried_on(void)
{
    test_file o = open_file(DATABASE);

    EQUAL(write_pattern(&o, 0, 3 * MIB), SQLITE_OK);
    t3_fault_set("pwrite", 1, 1000);
    t3_fault_set("pwrite", 2, -EINTR);
    t3_fault_set("pwrite", 3, 1);
    EQUAL(t3_destination_finish(o.destination), 0);
    expect_faults_happened();
    EQUAL(t3_destination_counters(o.destination).written, 3 * MIB);
    t3_fault_set("pread", 1, 1000);
    t3_fault_set("pread", 2, -EINTR);
    EQUAL(check_pattern(&o, 0, 3 * MIB), SQLITE_OK);
    expect_faults_happened();
    t3_fault_set("ftruncate", 1, -EINTR);
    EQUAL(o.io->xTruncate(o.file, MIB), SQLITE_OK);
    expect_faults_happened();
    close_file(&o);
}

static void failures_of_one_call_reach_sqlite(void)
{
    test_file o = open_file(DATABASE);
    sqlite3_int64 bytes;
    char data[8192];

    EQUAL(write_pattern(&o, 0, 4096), SQLITE_OK);
    t3_fault_set("fstat", 1, -EIO);
    EQUAL(o.io->xFileSize(o.file, &bytes), SQLITE_IOERR_FSTAT);
    expect_faults_happened();
    EQUAL(t3_destination_finish(o.destination), -EIO);
    EQUAL(t3_destination_reset(o.destination), 0);
    EQUAL(write_pattern(&o, 0, 4096), SQLITE_OK);
    EQUAL(t3_destination_finish(o.destination), 0);
    t3_fault_set("pread", 1, -EIO);
    EQUAL(check_pattern(&o, 0, 4096), SQLITE_IOERR_READ);
    expect_faults_happened();
    errno = 0;
    EQUAL(write_pattern(&o, 4096, 4096), SQLITE_IOERR_WRITE);
    EQUAL(vfs->xGetLastError(vfs, 0, NULL), EIO); /* the first cause, again */
    EQUAL(t3_destination_reset(o.destination), 0);
    EQUAL(write_pattern(&o, 0, 4096), SQLITE_OK);
    EQUAL(t3_destination_finish(o.destination), 0);
    EQUAL(write_pattern(&o, 4096, 4096), SQLITE_OK);
    t3_fault_set("pwrite", 1, -EIO);
    EQUAL(o.io->xRead(o.file, data, sizeof data, 0), SQLITE_IOERR_READ); /* it had to write first */
    expect_faults_happened();
    EQUAL(o.io->xSync(o.file, SQLITE_SYNC_FULL), SQLITE_IOERR_FSYNC);
    EQUAL(o.io->xTruncate(o.file, 0), SQLITE_IOERR_TRUNCATE);
    EQUAL(t3_destination_reset(o.destination), 0);
    t3_fault_set("ftruncate", 1, -EIO);
    EQUAL(o.io->xTruncate(o.file, 0), SQLITE_IOERR_TRUNCATE);
    expect_faults_happened();
    t3_fault_set("ftruncate", 1, -EROFS);
    EQUAL(t3_destination_reset(o.destination), -EROFS);
    expect_faults_happened();
    EQUAL(t3_destination_reset(o.destination), 0);
    close_file(&o);
}

static void what_cannot_be_mapped_is_read(void)
{
    static const char *const calls[] = {"mmap", "fstat"};

    for (int i = 0; i < 2; i++) {
        test_file o = open_file(SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
        sqlite3_int64 limit = 1 << 30;
        void *page;
        EQUAL(write_pattern(&o, 0, 65536), SQLITE_OK);
        EQUAL(t3_destination_finish(o.destination), 0);
        EQUAL(o.io->xFileControl(o.file, SQLITE_FCNTL_MMAP_SIZE, &limit), SQLITE_OK);
        t3_fault_set(calls[i], 1, -ENOMEM);
        EQUAL(o.io->xFetch(o.file, 0, 4096, &page), SQLITE_OK);
        TRUE(page == NULL);
        expect_faults_happened();
        EQUAL(o.io->xFetch(o.file, 0, 4096, &page), SQLITE_OK);
        TRUE(page == NULL); /* once is enough */
        EQUAL(check_pattern(&o, 0, 65536), SQLITE_OK);
        EQUAL(t3_destination_counters(o.destination).error, 0);
        close_file(&o);
    }
}

/* SQLite alone says "disk I/O error" where a read of the copy fails. */
static void a_failed_read_keeps_its_errno(void)
{
    int fd = unnamed_file();
    sqlite3 *from = make_source(4096, 1, 0), *copy;
    t3_destination *d = t3_destination_new(fd, -1);

    EQUAL(t3_destination_reset(d), 0);
    EQUAL(back_up(from, fd), SQLITE_OK);
    EQUAL(t3_destination_finish(d), 0);
    copy = open_copy(fd, "&mode=ro&immutable=1");
    t3_fault_set("pread", 1, -EUCLEAN);
    EQUAL(sqlite3_exec(copy, "select sum(length(body)) from t", NULL, NULL, NULL), SQLITE_IOERR);
    expect_faults_happened();
    EQUAL(sqlite3_extended_errcode(copy), SQLITE_IOERR_READ);
    EQUAL(sqlite3_system_errno(copy), EUCLEAN);
    EQUAL(t3_destination_counters(d).error, -EUCLEAN);
    EQUAL(t3_destination_finish(d), -EUCLEAN);
    EQUAL(sqlite3_close(copy), SQLITE_OK);
    t3_destination_free(d);
    close(fd);
    close_source(from);
}

static void a_map_that_gets_no_advice_or_stays_does_no_harm(void)
{
    static const char *const calls[] = {"madvise", "munmap"};

    for (int i = 0; i < 2; i++) {
        test_file o = open_file(DATABASE);
        sqlite3_int64 limit = 1 << 30;
        void *page;
        EQUAL(write_pattern(&o, 0, 65536), SQLITE_OK);
        EQUAL(t3_destination_finish(o.destination), 0);
        EQUAL(o.io->xFileControl(o.file, SQLITE_FCNTL_MMAP_SIZE, &limit), SQLITE_OK);
        t3_fault_set(calls[i], 1, -ENOMEM);
        EQUAL(o.io->xFetch(o.file, 4096, 4096, &page), SQLITE_OK);
        TRUE(page != NULL && *(char *)page == pattern(4096));
        EQUAL(o.io->xUnfetch(o.file, 4096, page), SQLITE_OK);
        EQUAL(write_pattern(&o, 65536, 65536), SQLITE_OK); /* it grows, and is mapped anew */
        EQUAL(t3_destination_finish(o.destination), 0);
        EQUAL(o.io->xFetch(o.file, 81920, 4096, &page), SQLITE_OK);
        expect_faults_happened();
        TRUE(page != NULL && *(char *)page == pattern(81920));
        EQUAL(o.io->xUnfetch(o.file, 81920, page), SQLITE_OK);
        EQUAL(t3_destination_counters(o.destination).error, 0);
        close_file(&o);
    }
}

/* The clock is read at the start and at every 64th call. */
static void a_failed_clock_or_progress_line_does_no_harm(void)
{
    test_file o = {.fd = unnamed_file(), .file = calloc(1, (size_t)vfs->szOsFile)};
    char line[128];
    int pipes[2];

    must(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), "pipe2");
    t3_fault_set("clock_gettime", 1, -EINVAL); /* the first line is due at once then */
    o.destination = t3_destination_new(o.fd, pipes[1]);
    expect_faults_happened();
    EQUAL(t3_destination_reset(o.destination), 0);
    snprintf(line, sizeof line, "t3copy-%d", o.fd);
    EQUAL(vfs->xOpen(vfs, line, o.file, DATABASE, NULL), SQLITE_OK);
    o.io = o.file->pMethods;
    t3_fault_set("clock_gettime", 1, -EINVAL);
    for (int i = 0; i < 64; i++)
        EQUAL(write_pattern(&o, i * 512, 512), SQLITE_OK);
    expect_faults_happened();
    EQUAL(read(pipes[0], line, sizeof line), -1);
    t3_fault_set("write", 1, -EPIPE);
    for (int i = 64; i < 128; i++)
        EQUAL(write_pattern(&o, i * 512, 512), SQLITE_OK);
    expect_faults_happened();
    EQUAL(read(pipes[0], line, sizeof line), -1);
    EQUAL(t3_destination_finish(o.destination), 0);
    EQUAL(check_pattern(&o, 0, 65536), SQLITE_OK);
    close(pipes[0]);
    close(pipes[1]);
    close_file(&o);
}

static void a_lack_of_memory_is_reported(void)
{
    static const char *const calls[] = {"calloc", "aligned_alloc"};
    int fd = unnamed_file();

    for (int i = 0; i < 2; i++) {
        t3_fault_set(calls[i], 1, -ENOMEM);
        errno = 0;
        TRUE(t3_destination_new(fd, -1) == NULL);
        EQUAL(errno, ENOMEM);
        expect_faults_happened();
    }
    t3_fault_set("sigaction", 1, -EPERM);
    EQUAL(t3_cancel_on_signal(SIGUSR1), -EPERM);
    expect_faults_happened();
    t3_fault_set("sigaction", 1, -EPERM);
    EQUAL(t3_take_lease(fd, SIGUSR2), -EPERM);
    expect_faults_happened();
    for (int nth = 1; nth <= 2; nth++) { /* of F_SETSIG, and of F_SETLEASE */
        t3_fault_set("fcntl", nth, -EINVAL);
        EQUAL(t3_take_lease(fd, SIGUSR2), -EINVAL);
        expect_faults_happened();
    }
    close(fd);
}

#endif

int main(void)
{
    char *message = NULL;

    begin();
    must(-sqlite3_initialize(), "sqlite3_initialize");
    EQUAL(sqlite3_t3copy_init(NULL, &message, NULL), SQLITE_OK_LOAD_PERMANENTLY);
    vfs = sqlite3_vfs_find("t3copy");
    if (!vfs)
        return 2;
    RUN(backup_copies_every_byte);
    RUN(vacuum_into_makes_a_sound_copy);
    RUN(a_destination_is_reused_for_the_fallback);
    RUN(small_copies_reach_past_a_moved_lock_byte_page);
    if (getenv("T3_SOAK"))
        RUN(copies_reach_past_the_lock_byte_page);
    RUN(a_copy_of_a_wal_database_can_leave_wal_mode);
    RUN(a_wide_sort_on_the_copy_may_spill);
    RUN(what_a_file_holds_already_is_written_over);
    RUN(a_signal_cancels_every_destination); /* from here on SIGUSR1 does so */
    RUN(whoever_opens_what_is_leased_is_not_kept_waiting);
    RUN(a_cancelled_copy_fails_until_it_is_reset);
    RUN(a_running_copy_can_be_cancelled);
    RUN(writes_are_gathered_and_read_back_whole);
    RUN(a_write_across_the_end_of_the_buffer_is_split);
    RUN(zeros_at_the_end_take_no_room_and_are_written_over_what_is_there);
    RUN(offsets_past_4_gib_are_kept_whole);
    RUN(a_read_past_the_end_is_short_and_zero);
    RUN(truncating_keeps_what_was_gathered_before_the_cut);
    RUN(pages_are_mapped_within_the_limit_only);
    RUN(a_map_is_read_without_what_lies_around_a_page);
    RUN(a_file_that_shrank_is_read_only_where_it_is);
    RUN(an_empty_file_is_not_mapped);
    RUN(a_destination_is_private);
    RUN(a_journal_is_always_empty_and_a_wal_refuses_writes);
    RUN(an_unknown_name_cannot_be_opened);
    RUN(the_vfs_finds_and_deletes_nothing);
    RUN(the_time_is_that_of_whichever_function_there_is);
    RUN(extensions_load_on_a_connection_through_the_vfs);
    RUN(one_descriptor_is_one_destination);
    RUN(registering_again_is_harmless_but_not_from_another_sqlite);
    RUN(a_sqlite_without_a_vfs_is_refused);
    RUN(progress_is_a_json_line_every_half_second);
#ifdef T3_FAULTS
    RUN(a_failed_write_is_final_and_the_fallback_still_works);
    RUN(a_failure_to_leave_a_hole_is_a_failed_write);
    RUN(a_failed_write_back_is_a_failed_write);
    RUN(a_failure_at_the_end_is_not_missed);
    RUN(a_file_system_without_sync_file_range_gets_fdatasync);
    RUN(short_and_interrupted_calls_are_carried_on);
    RUN(failures_of_one_call_reach_sqlite);
    RUN(what_cannot_be_mapped_is_read);
    RUN(a_failed_read_keeps_its_errno);
    RUN(a_map_that_gets_no_advice_or_stays_does_no_harm);
    RUN(a_failed_clock_or_progress_line_does_no_harm);
    RUN(a_lack_of_memory_is_reported);
#endif
    return summary("vfs");
}
