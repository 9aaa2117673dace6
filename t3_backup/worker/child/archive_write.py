"""What is precious beside a database, as one archive: walked and packed as its owner, who alone ever parses it.

Regular files and folders of the names in KEPT, no symlink followed; all else is passed over, and named. The archive is a tar in
zstd. The same content gives the same bytes, so that it needs to be stored once.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import zstandard

from t3_backup.errors import SourceError
from t3_backup.system import native
from t3_backup.t3.files import KEPT_FILES
from t3_backup.worker.protocol import Packed

LEVEL = 3  # of zstd
_MOST_ENTRIES = 200_000
_PIECE_BYTES = 1 << 20
_MOST_PASSED = 100  # that are told of
_TRIES = 3
# What was changed so lately may be changed again with the same times: a file system's clock ticks every few milliseconds.
_FRESH_NS = 2_000_000_000


@dataclass(frozen=True)
class Entry:
    """A file or folder, by its path beneath the packed folder."""

    path: str
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        """Or else a file."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def bytes(self) -> int:
        """Of content."""
        return 0 if self.is_folder else self.status.st_size


def write_archive(
    folder: int, uid: int, file: int, limit: int, known: str, told: Callable[[int], None], alive: Callable[[int], None]
) -> Packed:
    """Pack what is in the open `folder` into the empty `file`, unless its fingerprint is the one that is `known`.

    `told` hears how many bytes there are, `alive` how many are done. Raises SourceError above `limit` bytes of content, OSError.
    """
    for number in range(_TRIES):
        last = number == _TRIES - 1  # then one that changes all the time costs only itself
        passed: list[str] = []
        entries = sorted(walk(folder, uid, passed), key=lambda entry: entry.path)
        total = sum(entry.bytes for entry in entries)
        if total > limit or len(entries) > _MOST_ENTRIES:
            raise SourceError(
                f"the files beside the database are {total} bytes in {len(entries)} entries, more than the limit of {limit} bytes "
                "(T3_BACKUP_FILES_LIMIT): they are not saved"
            )
        mark = fingerprint(entries, time.time_ns())
        if mark and mark == known:
            return _packed(len(entries), total, mark, True, entries, passed)
        told(total)
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        before = len(passed)
        if (written := _write(folder, entries, file, passed, alive, anyhow=last)) is not None:
            # Whoever takes this archive for the next one, too, must hear of what could not be read.
            again = "" if last or len(passed) > before else mark
            return _packed(*written, again, False, entries, passed)
    raise AssertionError("the last try takes what there is")


def _packed(count: int, total: int, mark: str, unchanged: bool, entries: list[Entry], passed: list[str]) -> Packed:
    sealed = tuple(f"{name}={digest}" for name, digest in marks(entries, passed).items())
    return Packed(count, total, mark, unchanged, tuple(passed[:_MOST_PASSED]), sealed)


def marks(entries: list[Entry], passed: list[str]) -> dict[str, str]:
    """What each name in KEPT held, where nothing beneath it was `passed` over: the same after a move, until somebody changes it.

    `entries` are in order. A folder is its names, a file also what changes with its content; a move changes no more than the ctime
    of what is moved itself.
    """
    digests = {name: hashlib.sha256() for name in KEPT_FILES}
    for entry in entries:
        s = entry.status
        known = (entry.path, s.st_mode) if entry.is_folder else (entry.path, s.st_mode, s.st_size, s.st_mtime_ns, s.st_ino)
        digests[top(entry.path)].update(repr(known).encode("utf-8", "surrogateescape") + b"\n")
    there = {top(entry.path) for entry in entries} - {top(told) for told in passed}
    return {name: digests[name].hexdigest() for name in sorted(there)}


def top(path: str) -> str:
    """The name in KEPT of a path, or of a text that begins with one and a colon."""
    return path.partition("/")[0].partition(":")[0]


def walk(folder: int, uid: int, passed: list[str]) -> Iterator[Entry]:
    """All that is to be packed; what is passed over is added to `passed`, with the reason."""
    waiting = list(KEPT_FILES)
    while waiting:
        path = waiting.pop()
        try:
            status, readable = _look(folder, path)
            if (reason := unfit(status, uid)) is None and not readable:
                reason = os.strerror(errno.EACCES)
            if reason is None:
                yield Entry(path, status)
                if stat.S_ISDIR(status.st_mode):
                    waiting += [f"{path}/{name}" for name in _names(folder, path)]
            else:
                passed.append(f"{path}: {reason}")
        except FileNotFoundError:
            continue  # it was never there, or has gone in the meantime
        except OSError as error:
            passed.append(f"{path}: {error.strerror}")


def unfit(status: os.stat_result, uid: int) -> str | None:
    """Why what has this status is not packed; None: it is."""
    if stat.S_ISLNK(status.st_mode):
        return "a symlink, which is not followed"
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return "no regular file"
    return f"it belongs to uid {status.st_uid}" if status.st_uid != uid else None


def _look(folder: int, path: str) -> tuple[os.stat_result, bool]:
    """What is there, and whether a file that it is can be read."""
    parent, _, name = path.rpartition("/")
    above = native.open_beneath(folder, parent or ".", os.O_PATH | os.O_DIRECTORY)
    try:
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        return status, not stat.S_ISREG(status.st_mode) or os.access(name, os.R_OK, dir_fd=above, follow_symlinks=False)
    finally:
        os.close(above)


def _names(folder: int, path: str) -> list[str]:
    fd = native.open_beneath(folder, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def fingerprint(entries: list[Entry], now_ns: int) -> str:
    """The same one: nothing was done to any of `entries`. Empty where that could not be told, since something is too fresh."""
    digest = hashlib.sha256()
    for entry in entries:
        s = entry.status
        if max(s.st_mtime_ns, s.st_ctime_ns) > now_ns - _FRESH_NS:
            return ""
        known = (entry.path, s.st_mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)
        digest.update(repr(known).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def _write(
    folder: int, entries: list[Entry], file: int, passed: list[str], alive: Callable[[int], None], *, anyhow: bool
) -> tuple[int, int] | None:
    """Write the archive: entries and bytes in it; None where something has changed meanwhile. What can't be read is passed over.

    `anyhow`: what changes goes in as it was read, and is named in `passed`.
    """
    written = done = 0
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    with (
        os.fdopen(file, "wb", closefd=False) as out,
        compressor.stream_writer(out, closefd=False) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE_BYTES) as tar,
    ):
        for entry in entries:
            if entry.is_folder:
                tar.addfile(_info(entry))
                written += 1
                continue
            try:
                fd = native.open_beneath(folder, entry.path, os.O_RDONLY | os.O_NONBLOCK)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and not anyhow:
                    return None
                passed.append(f"{entry.path}: {error.strerror}")
                continue
            with os.fdopen(fd, "rb", buffering=0) as source:
                now = Entry(entry.path, os.fstat(fd)) if anyhow else entry
                if not _add(tar, now, _Counted(source, alive, done, now.bytes)):
                    if not anyhow:
                        return None
                    passed.append(f"{entry.path}: it changes all the time, and was saved as it was read")
            written += 1
            done += now.bytes
    return written, done


def _add(tar: tarfile.TarFile, entry: Entry, source: _Counted) -> bool:
    """Add a file, in the length that `entry` says; False where it changed meanwhile."""
    before = _is_as(entry, source.status())
    tar.addfile(_info(entry), source)
    return before and _is_as(entry, source.status())


def _is_as(entry: Entry, status: os.stat_result) -> bool:
    then = entry.status
    return (then.st_ino, then.st_size, then.st_mtime_ns) == (status.st_ino, status.st_size, status.st_mtime_ns)


def _info(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(entry.path)
    info.type = tarfile.DIRTYPE if entry.is_folder else tarfile.REGTYPE
    info.size = entry.bytes
    info.mode = stat.S_IMODE(entry.status.st_mode) & 0o777
    seconds, ns = divmod(entry.status.st_mtime_ns, 10**9)
    info.mtime = seconds
    if seconds >= 0:
        info.pax_headers = {"mtime": f"{seconds}.{ns:09d}"}  # a float, as tarfile would write it, loses some of them
    return info


class _Counted(io.RawIOBase):
    """A file of `size` bytes that tells how far it has been read. Where it has become shorter, zeros stand for the rest."""

    def __init__(self, source: io.FileIO, alive: Callable[[int], None], done: int, size: int) -> None:
        self._source = source
        self._alive = alive
        self._done = done
        self._left = size

    def status(self) -> os.stat_result:
        """What stat(2) says of it now."""
        return os.fstat(self._source.fileno())

    def read(self, size: int = -1) -> bytes:
        """The next piece."""
        wanted = self._left if size < 0 else min(size, self._left)
        piece = (self._source.read(wanted) or b"").ljust(wanted, b"\0")
        self._left -= len(piece)
        self._done += len(piece)
        self._alive(self._done)
        return piece
