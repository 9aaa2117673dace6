"""The C extension, typed: files that survive, and pages hashed and compared.

Owns every call into `_copier` but the VFS's (`worker.child.vfs`), and turns a negative errno into
`OSError`. No function here follows a symlink or replaces an existing name.

Sizes and offsets are bytes; descriptors stay the caller's.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from typing import Any

from t3_backup import _copier  # type: ignore[attr-defined]

Buffer = bytes | bytearray | memoryview
HASH_BYTES = 16  # of a page's hash
Hashes = bytes  # of pages, one after the other

ffi: Any = _copier.ffi
lib: Any = _copier.lib


# Ways to copy a file: sharing its extents, and whatever there is, the cheapest first.
REFLINK: int = lib.T3_COPY_REFLINK
_ANY: int = lib.T3_COPY_ANY


def check_result(result: int, path: str | None = None) -> int:
    """Return a result, or raise OSError, which names `path`, for a negative errno."""
    if result < 0:
        raise OSError(-result, os.strerror(-result), path)
    return result


def open_beneath(dir_fd: int, path: str, flags: int) -> int:
    """Open `path` beneath `dir_fd`, with no symlink on the way and no way out.

    Return a descriptor. Raises `OSError`: ELOOP for a symlink, EXDEV for a way out, and what
    openat2(2) says.
    """
    return check_result(lib.t3_open_beneath(dir_fd, os.fsencode(path), flags), path)


def link_unnamed(fd: int, dir_fd: int, name: str) -> None:
    """Give the unnamed file (`O_TMPFILE`) of `fd` a name on its file system.

    Raises `OSError`: EEXIST if there is such a name, and what linkat(2) says.
    """
    check_result(lib.t3_link_unnamed(fd, dir_fd, os.fsencode(name)), name)


def rename_noreplace(dir_fd: int, old: str, new: str) -> None:
    """Rename a file within one directory, never over another one.

    Raises `OSError`: EEXIST if `new` is there, and what renameat2(2) says.
    """
    check_result(lib.t3_rename_noreplace(dir_fd, os.fsencode(old), os.fsencode(new)), old)


def rename_exchange(dir_fd: int, one: str, other: str) -> None:
    """Let two names of one directory change places in one step.

    Raises `OSError`: EINVAL where the file system can't.
    """
    check_result(lib.t3_rename_exchange(dir_fd, os.fsencode(one), os.fsencode(other)), one)


def sync_file(fd: int, path: str | None = None) -> None:
    """Wait until the file is on the disk. `path` is for the message.

    Raises `OSError`, which is final: the kernel has let go of what it could not write, and a second
    try would succeed.
    """
    check_result(lib.t3_sync_file(fd), path)


def sync_directory(fd: int, path: str | None = None) -> None:
    """Wait until the directory's names are on the disk.

    A file system that can't sync one (EINVAL) is taken at its word. Raises `OSError`; `path` is for
    the message.
    """
    check_result(lib.t3_sync_directory(fd), path)


def copy(src: int, dst: int, size: int, methods: int = _ANY) -> int:
    """Copy the first `size` bytes of `src` to the empty file `dst`, without a sync.

    Return the method that finished. Raises `OSError`: EIO if the source ended early, EOPNOTSUPP and
    its like if none of `methods` can be had.
    """
    return check_result(lib.t3_copy(src, dst, size, methods))


def hash_pages(data: Buffer, page_size: int) -> bytes:
    """Hash each page of `data` by XXH3-128: HASH_BYTES each, one after the other.

    A last page may be cut short.
    """
    size = memoryview(data).nbytes
    hashes = bytearray(-(-size // page_size) * HASH_BYTES)
    lib.t3_hash_pages(ffi.from_buffer(data), size, page_size, ffi.from_buffer(hashes))
    return bytes(hashes)


def differing_pages(one: int, other: int, first: int, count: int, page_size: int) -> array[int]:
    """List the numbers of the pages that differ, of `count` from `first` on.

    Past its end a file is zeros. Raises `OSError`.
    """
    found = array("I", bytes(4 * count))
    pointer = ffi.from_buffer("uint32_t[]", found)
    number = check_result(lib.t3_differing_pages(one, other, first, count, page_size, pointer))
    return found[:number]


def read_pages(
    one: int, other: int, from_other: bytes, numbers: Sequence[int], page_size: int
) -> bytearray:
    """Read pages by their numbers, one after the other.

    Each is from `other` where `from_other` has a 1, else from `one` (-1: zeros). Past its end a
    file is zeros. Raises `OSError`.
    """
    count, data = len(numbers), bytearray(len(numbers) * page_size)
    pages, buffer = ffi.from_buffer("uint32_t[]", array("I", numbers)), ffi.from_buffer(data)
    check_result(lib.t3_read_pages(one, other, from_other, pages, count, page_size, buffer))
    return data


def write_pages(fd: int, numbers: Sequence[int], page_size: int, data: Buffer) -> None:
    """Put the pages of `data` into their places. Raises `OSError`."""
    pages = ffi.from_buffer("uint32_t[]", array("I", numbers))
    check_result(lib.t3_write_pages(fd, pages, len(numbers), page_size, ffi.from_buffer(data)))


def confine(parent_pid: int) -> None:
    """Give up new privileges, core dumps and being traced, and die with the parent.

    The parent is the thread that started this process. Call it after the last change of user, which
    would undo it. Raises `OSError`: ESRCH if the parent is gone already.
    """
    check_result(lib.t3_confine(parent_pid))


def cancel_on_signal(signo: int) -> None:
    """Let the signal cancel every VFS destination of this process, until it is reset.

    That holds for destinations still to come. It replaces a handler of Python's. Raises `OSError`:
    EINVAL for a signal that can't be caught.
    """
    check_result(lib.t3_cancel_on_signal(signo))


def take_lease(fd: int, signo: int) -> None:
    """Hold a lease on a file that is open for reading alone: nobody has it open for writing.

    As soon as somebody is about to open it so, the signal lets it go, so that nobody waits, and
    cancels every VFS destination of this process until it is given back. One is held at a time.
    Raises `OSError`: EAGAIN where somebody has the file open for writing, and what fcntl(2) says of
    F_SETLEASE.
    """
    check_result(lib.t3_take_lease(fd, signo))


def give_lease_back() -> bool:
    """End the lease, before its descriptor is closed; tell whether it has lasted until now."""
    return bool(lib.t3_give_lease_back() == 0)


def register_vfs(connection: Any) -> None:
    """Register the VFS `t3copy` in an apsw connection's SQLite, for good.

    Again is harmless. Raises `apsw.Error` where that SQLite refuses extensions, or where another
    SQLite of this process has the VFS.
    """
    # The names of apsw 3.40, which newer ones keep.
    connection.enableloadextension(True)
    connection.loadextension(_copier.__file__, "sqlite3_t3copy_init")
    connection.enableloadextension(False)
