"""Compile the extension: cffi's API mode over the C files, one abi3 object.

The object has two faces: the Python module `t3_backup._copier`, and a SQLite loadable extension
with the entry `sqlite3_t3copy_init`. It is not linked against libsqlite3, so a process never holds
a second SQLite.
"""

from cffi import FFI

ffibuilder = FFI()

ffibuilder.cdef("""
    typedef struct t3_destination t3_destination;
    typedef struct {
        int64_t written;
        int64_t synced;
        int64_t read;
        int error;
    } t3_counters;

    t3_destination *t3_destination_new(int fd, int progress_fd);
    int t3_destination_reset(t3_destination *destination);
    int t3_destination_finish(t3_destination *destination);
    t3_counters t3_destination_counters(const t3_destination *destination);
    void t3_destination_free(t3_destination *destination);
    int t3_cancel_on_signal(int signo);
    int t3_take_lease(int fd, int signo);
    int t3_give_lease_back(void);

    enum { T3_COPY_REFLINK, T3_COPY_RANGE, T3_COPY_READ_WRITE, T3_COPY_ANY, ... };

    int t3_open_beneath(int dirfd, const char *path, int flags);
    int t3_link_unnamed(int fd, int dirfd, const char *name);
    int t3_rename_noreplace(int dirfd, const char *from, const char *to);
    int t3_rename_exchange(int dirfd, const char *one, const char *other);
    int t3_sync_file(int fd);
    int t3_sync_directory(int fd);
    int t3_copy(int src, int dst, int64_t bytes, int methods);

    int64_t t3_hash_pages(const void *data, int64_t bytes, int page_bytes, void *hashes);
    int64_t t3_differing_pages(int one, int other, int64_t first, int64_t count, int page_bytes,
                               uint32_t *pages);
    int t3_read_pages(int one, int other, const uint8_t *from_other, const uint32_t *pages,
                      int64_t count, int page_bytes, void *data);
    int t3_write_pages(int fd, const uint32_t *pages, int64_t count, int page_bytes,
                       const void *data);

    int t3_confine(int parent);
""")

ffibuilder.set_source(
    "t3_backup._copier",
    '#include "copier.h"',
    sources=["csrc/vfs.c", "csrc/files.c", "csrc/pages.c", "csrc/io.c", "csrc/confine.c"],
    depends=["csrc/copier.h", "csrc/fault.h"],
    include_dirs=["csrc"],
    define_macros=[("_GNU_SOURCE", None)],
    # Hidden: another extension's `sqlite3_api` must never be taken for this one's.
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-fvisibility=hidden"],
    py_limited_api=True,
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
