"""The C extension, typed: a destination that SQLite writes a copy to, and files that survive.

Owns every call into `_copier` and turns a negative errno into `OSError`. Promises that no function here follows a
symlink or replaces an existing name. It neither opens a SQLite database nor decides anything.

Sizes and offsets are bytes; descriptors stay the caller's.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

import apsw

from t3_backup import _copier  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from types import TracebackType

Buffer = bytes | bytearray | memoryview
HASH_BYTES = 16  # of a page's hash
Hashes = bytes  # of pages, one after the other

_ffi: Any = _copier.ffi
_lib: Any = _copier.lib


class Method(IntFlag):
    """Ways to copy a file within the kernel or through memory, the cheapest first."""

    REFLINK = _lib.T3_COPY_REFLINK
    RANGE = _lib.T3_COPY_RANGE
    READ_WRITE = _lib.T3_COPY_READ_WRITE


ANY = Method(_lib.T3_COPY_ANY)
_WHAT = "the new snapshot"  # what a destination's failures are about, for people


@dataclass(frozen=True, slots=True)
class Counters:
    """What went through a destination since its last reset, in bytes; `error` is a positive errno, 0 if all is well."""

    written: int
    synced: int
    read: int
    error: int


def _check(result: int, path: str | None = None) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result), path)
    return result


def load(connection: apsw.Connection | None = None) -> None:
    """Register the VFS `t3copy` in the SQLite that apsw carries, for the life of the process. Again is harmless.

    Raises `apsw.Error` where that SQLite refuses extensions, or where another SQLite of this process has the VFS.
    """
    private = connection is None
    carrier = apsw.Connection(":memory:") if connection is None else connection
    try:
        # The names of apsw 3.40, which newer ones keep.
        carrier.enableloadextension(True)
        carrier.loadextension(_copier.__file__, "sqlite3_t3copy_init")
        carrier.enableloadextension(False)
    finally:
        if private:
            carrier.close()


class Destination:
    """A private file that SQLite writes and proves a copy in, through the VFS `t3copy` (see `load`).

    One thread at a time may use it; `cancel` alone may come from any. The copy may be believed only after `finish`
    returned: SQLite ignores what closing a file says. Connections to it need `temp_store=MEMORY` if nothing may be
    written elsewhere.
    """

    def __init__(self, fd: int, progress_fd: int = -1) -> None:
        """Take `fd`, open for reading and writing; progress lines (JSON) go to `progress_fd` every half second.

        A pipe for progress should not block. Raises `OSError`: ENOMEM, or EEXIST if `fd` is a destination already.
        """
        pointer = _lib.t3_destination_new(fd, progress_fd)
        if not pointer:
            raise OSError(_ffi.errno, os.strerror(_ffi.errno))
        self._pointer: Any = pointer
        self._fd = fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    @property
    def fd(self) -> int:
        """The descriptor that it was made of."""
        return self._fd

    @property
    def _open(self) -> Any:
        if self._pointer is None:
            raise ValueError("the destination is closed")
        return self._pointer

    def uri(self, **parameters: str | int) -> str:
        """What to open, or to VACUUM INTO. `parameters` are SQLite's own, as `mode="ro"`."""
        return f"file:t3copy-{self._fd}?{urlencode({'vfs': 't3copy', **parameters})}"

    @property
    def sealed_uri(self) -> str:
        """What to open to prove the copy: read-only and immutable, so without sidecars whatever its header says."""
        return self.uri(mode="ro", immutable=1)

    @property
    def counters(self) -> Counters:
        """What happened up to now. `error` is the first failure and stays."""
        now = _lib.t3_destination_counters(self._open)
        return Counters(written=now.written, synced=now.synced, read=now.read, error=-now.error)

    def reset(self) -> None:
        """Empty the file; forget counters, error and cancellation. No connection may have it open.

        Raises `OSError` if the file can't be truncated.
        """
        _check(_lib.t3_destination_reset(self._open), _WHAT)

    def finish(self) -> None:
        """Write what is still gathered, and wait until the disk has it all. It is no fsync.

        Raises `OSError`: the first failure of any write since the last reset; ECANCELED.
        """
        _check(_lib.t3_destination_finish(self._open), _WHAT)

    def cancel(self) -> None:
        """Make every later write fail (`apsw.IOError`, `counters.error` ECANCELED)."""
        _lib.t3_destination_cancel(self._open)

    def close(self) -> None:
        """Forget the destination; the descriptor stays open. No connection may have it open. Again is harmless."""
        if self._pointer is not None:
            _lib.t3_destination_free(self._pointer)
            self._pointer = None


def cancel_on_signal(signo: int) -> None:
    """Let the signal cancel every destination of this process, those still to come included, until they are reset.

    It replaces a handler of Python's. Raises `OSError`: EINVAL for a signal that can't be caught.
    """
    _check(_lib.t3_cancel_on_signal(signo))


def open_beneath(dir_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path`, relative to `dir_fd`, with no symlink anywhere on the way and no way out. Returns a descriptor.

    Raises `OSError`: ELOOP for a symlink, EXDEV for a way out, and what openat2(2) says.
    """
    return _check(_lib.t3_open_beneath(dir_fd, os.fsencode(path), flags, mode), path)


def link_unnamed(fd: int, dir_fd: int, name: str) -> None:
    """Give the unnamed file (`O_TMPFILE`) of `fd` a name in a directory of its file system.

    Raises `OSError`: EEXIST if there is such a name, and what linkat(2) says.
    """
    _check(_lib.t3_link_unnamed(fd, dir_fd, os.fsencode(name)), name)


def rename_noreplace(dir_fd: int, old: str, new: str) -> None:
    """Rename within one directory. Raises `OSError`: EEXIST if `new` is there, and what renameat2(2) says."""
    _check(_lib.t3_rename_noreplace(dir_fd, os.fsencode(old), os.fsencode(new)), old)


def rename_exchange(dir_fd: int, one: str, other: str) -> None:
    """Let two names of one directory change places in one step. Raises `OSError`: EINVAL where the file system can't."""
    _check(_lib.t3_rename_exchange(dir_fd, os.fsencode(one), os.fsencode(other)), one)


def sync_file(fd: int, path: str | None = None) -> None:
    """Wait until the file is on the disk. `path` is for the message.

    Raises `OSError`, which is final: the kernel has let go of what it could not write, and a second try would succeed.
    """
    _check(_lib.t3_sync_file(fd), path)


def sync_directory(fd: int, path: str | None = None) -> None:
    """Wait until the directory's names are on the disk; a file system that can't (EINVAL) is taken at its word.

    Raises `OSError`; `path` is for the message.
    """
    _check(_lib.t3_sync_directory(fd), path)


def copy(src: int, dst: int, size: int, methods: Method = ANY) -> Method:
    """Make the empty file `dst` the same as the first `size` bytes of `src`; returns the method that finished. No sync.

    Raises `OSError`: EIO if the source ended early, EOPNOTSUPP and its like if none of `methods` can be had.
    """
    return Method(_check(_lib.t3_copy(src, dst, size, int(methods))))


def hash_pages(data: Buffer, page_size: int) -> bytes:
    """The XXH3-128 of each page of `data`, HASH_BYTES each, one after the other; a last page may be cut short."""
    pages = -(-memoryview(data).nbytes // page_size)
    hashes = bytearray(pages * HASH_BYTES)
    _lib.t3_hash_pages(_ffi.from_buffer(data), memoryview(data).nbytes, page_size, _ffi.from_buffer(hashes))
    return bytes(hashes)


def differing_pages(one: int, other: int, first: int, count: int, page_size: int) -> array[int]:
    """Numbers, ascending, of those `count` pages from `first` on in which two files differ; past its end a file is zeros.

    Raises `OSError`.
    """
    found = array("I", bytes(4 * count))
    pointer = _ffi.from_buffer("uint32_t[]", found)
    number = _check(_lib.t3_differing_pages(one, other, first, count, page_size, pointer))
    return found[:number]


def read_pages(one: int, other: int, from_other: bytes, numbers: Sequence[int], page_size: int) -> bytearray:
    """Pages by their numbers, one after the other: from `other` where `from_other` has a 1, else from `one` (-1: zeros).

    Past its end a file is zeros. Raises `OSError`.
    """
    data = bytearray(len(numbers) * page_size)
    pages = _ffi.from_buffer("uint32_t[]", array("I", numbers))
    _check(_lib.t3_read_pages(one, other, from_other, pages, len(numbers), page_size, _ffi.from_buffer(data)))
    return data


def write_pages(fd: int, numbers: Sequence[int], page_size: int, data: Buffer) -> None:
    """Put the pages of `data` into their places. Raises `OSError`."""
    pages = _ffi.from_buffer("uint32_t[]", array("I", numbers))
    _check(_lib.t3_write_pages(fd, pages, len(numbers), page_size, _ffi.from_buffer(data)))


def confine(parent_pid: int) -> None:
    """Give up new privileges, core dumps and being traced, and die when the thread that started this process ends.

    Call it after the last change of user, which would undo it. Raises `OSError`: ESRCH if the parent is gone already.
    """
    _check(_lib.t3_confine(parent_pid))
