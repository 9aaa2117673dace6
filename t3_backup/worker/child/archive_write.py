"""Write the files beside a database into one archive, as their owner.

The owner alone ever parses it. The archive is a tar in zstd. The same content gives the same bytes,
so that it needs to be stored once.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from dataclasses import replace

import zstandard

from t3_backup.errors import SourceError
from t3_backup.system import native
from t3_backup.t3.files import MIXED
from t3_backup.worker.child import sandbox
from t3_backup.worker.child.archive_walk import LATEST_S, Entry, is_still, take_inventory
from t3_backup.worker.child.live_files import LiveFiles
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations.backup import Packed, WriteArchive
from t3_backup.worker.protocol import Phase
from t3_backup.worker.sources import Source

LEVEL = 3  # of zstd
_MOST_ENTRIES = 200_000
_PIECE_BYTES = 1 << 20
_TRIES = 3


def serve_write_archive(task: Task, operation: WriteArchive) -> Packed:
    """Write the archive into the job's file."""

    def report_total(total: int) -> None:
        task.report(Source(total, 0))
        sandbox.limit_file_size(total)
        task.report(Phase("pack", total))

    job, place = task.job, LiveFiles.of(task.job)
    return write_archive(
        place.folder,
        job.uid,
        job.file,
        operation.limit,
        operation.known,
        report_total,
        task.report_alive,
    )


def write_archive(
    folder: int,
    uid: int,
    file: int,
    limit: int,
    known: str,
    told: Callable[[int], None],
    alive: Callable[[int], None],
) -> Packed:
    """Pack what is in the open `folder` into the empty `file`.

    Nothing is written where its fingerprint is the one that is `known`. Settings and secrets are of
    one moment, or are named as of several. `told` hears how many bytes there are, `alive` how many
    are done. Raises SourceError above `limit` bytes of content, OSError.
    """
    for number in range(_TRIES):
        last = number == _TRIES - 1  # then one that changes all the time costs only itself
        found = take_inventory(folder, uid)
        assert found is not None
        entries, passed, total = found.entries, found.passed, found.bytes
        if total > limit or len(entries) > _MOST_ENTRIES:
            raise SourceError(
                f"the files beside the database are {total} bytes in {len(entries)} entries, more "
                f"than the limit of {limit} bytes "
                "(T3_BACKUP_FILES_LIMIT): they are not saved"
            )
        if found.fingerprint == known != "":
            return found.describe(unchanged=True)
        told(total)
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        before = len(passed)
        seen = replace(found, passed=passed.copy())
        if (written := _write(folder, entries, file, passed, alive, anyhow=last)) is not None:
            if not is_still(folder, uid, seen):
                if not last:
                    continue
                passed.insert(0, MIXED)  # of many, the first are told
            # Whoever takes this archive for the next one, too, must hear of what could not be read.
            mark = "" if last or len(passed) > before else found.fingerprint
            count, content_bytes = written
            return replace(
                found.describe(unchanged=False),
                entries=count,
                content_bytes=content_bytes,
                fingerprint=mark,
            )
    raise AssertionError("the last try takes what there is")


def _write(
    folder: int,
    entries: list[Entry],
    file: int,
    passed: list[str],
    alive: Callable[[int], None],
    *,
    anyhow: bool,
) -> tuple[int, int] | None:
    """Write the archive, and return how many entries and bytes are in it.

    Returns None where something has changed meanwhile. What can't be read is passed over. `anyhow`:
    what changes goes in as it was read, and is named in `passed`.
    """
    written = done = 0
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    with (
        os.fdopen(file, "wb", closefd=False) as out,
        compressor.stream_writer(out, closefd=False) as stream,
        tarfile.open(
            fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE_BYTES
        ) as tar,
    ):
        for entry in entries:
            if not entry.is_file:
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
                    passed.append(
                        f"{entry.path}: it changes all the time, and was saved as it was read"
                    )
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
    return (then.st_ino, then.st_size, then.st_mtime_ns) == (
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
    )


def _info(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(entry.path)
    if entry.is_folder:
        info.type = tarfile.DIRTYPE
    elif entry.target:
        info.type, info.linkname = tarfile.SYMTYPE, entry.target
    info.size = entry.bytes
    info.mode = stat.S_IMODE(entry.status.st_mode) & 0o777
    mtime_ns = max(-LATEST_S * 10**9, min(entry.status.st_mtime_ns, LATEST_S * 10**9))
    seconds, ns = divmod(mtime_ns, 10**9)
    info.mtime = seconds
    if seconds >= 0:
        # a float, as tarfile would write it, loses some of them
        info.pax_headers = {"mtime": f"{seconds}.{ns:09d}"}
    return info


class _Counted(io.RawIOBase):
    """A file of `size` bytes that tells how far it has been read.

    Where it has become shorter, zeros stand for the rest.
    """

    def __init__(
        self, source: io.FileIO, alive: Callable[[int], None], done: int, size: int
    ) -> None:
        self._source = source
        self._alive = alive
        self._done = done
        self._left = size

    def status(self) -> os.stat_result:
        """Return what stat(2) says of it now."""
        return os.fstat(self._source.fileno())

    def read(self, size: int = -1) -> bytes:
        """Read the next piece."""
        wanted = self._left if size < 0 else min(size, self._left)
        piece = (self._source.read(wanted) or b"").ljust(wanted, b"\0")
        self._left -= len(piece)
        self._done += len(piece)
        self._alive(self._done)
        return piece
