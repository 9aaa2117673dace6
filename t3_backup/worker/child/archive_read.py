"""Read an archive of the files beside a database, and bring them back, as their owner.

Nothing in it is believed. Regular files, folders and symlinks beneath the names that are kept, and
nothing else: no second name, no way out, nothing through a symlink.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import zstandard

from t3_backup.errors import SourceError
from t3_backup.store.replacement import STAGED_FILES
from t3_backup.system import native
from t3_backup.t3.files import KEPT_FILES
from t3_backup.worker.child.archive_walk import LATEST_S, LONGEST_PATH
from t3_backup.worker.child.live_files import LiveFiles
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations.archive import InspectArchive, Inspected, StageArchive

_PIECE_BYTES = 1 << 20
_WINDOW_BYTES = 1 << 27  # of memory that a frame of zstd may ask for


@dataclass(frozen=True)
class Member:
    """A file, folder or symlink of an archive, as it may be made again."""

    path: str
    is_folder: bool
    target: str  # where a symlink leads; else empty
    bytes: int
    mode: int
    mtime_ns: int


def serve_inspect_archive(task: Task, operation: InspectArchive) -> Inspected:
    """Read the archive in the job's file."""
    return inspect_archive(task.job.file, operation.limit, task.report_alive)


def serve_stage_archive(task: Task, operation: StageArchive) -> Inspected:
    """Unpack the archive in the job's file beside the live database."""
    place = LiveFiles.of(task.job)
    return stage_archive(place, task.job.file, operation.aside, operation.limit, task.report_alive)


def stage_archive(
    place: LiveFiles, file: int, aside: str, limit: int, alive: Callable[[int], None]
) -> Inspected:
    """Unpack the archive `file` beside the live database, durably.

    Nothing is in place yet. Raises SourceError, OSError.
    """
    name = aside + STAGED_FILES
    os.mkdir(name, 0o700, dir_fd=place.folder)
    for part in ("new", "old"):
        os.mkdir(f"{name}/{part}", 0o700, dir_fd=place.folder)
    new = native.open_beneath(place.folder, f"{name}/new", os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = extract_archive(file, new, limit, alive)
    finally:
        os.close(new)
    place.sync_staged_files(name)
    place.sync()
    return found


def inspect_archive(file: int, limit: int, alive: Callable[[int], None]) -> Inspected:
    """Read all of the archive in `file`.

    Raises SourceError where it is none of ours, or holds more than `limit` bytes.
    """
    entries = total = 0
    with _archive(file) as tar:
        for member, info in _members(tar, limit):
            entries += 1
            total += member.bytes
            if info.isreg():
                for _ in _pieces(tar, info):
                    alive(total)
    return Inspected(entries, total)


def extract_archive(file: int, folder: int, limit: int, alive: Callable[[int], None]) -> Inspected:
    """Make all that is in the archive `file` beneath the empty, open `folder`.

    It is durable when this returns. Raises as `inspect_archive` does.
    """
    entries = total = 0
    folders: list[Member] = []
    with _archive(file) as tar:
        for member, info in _members(tar, limit):
            entries += 1
            total += member.bytes
            parent, _, name = member.path.rpartition("/")
            above = native.open_beneath(folder, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
            try:
                if member.is_folder:
                    # its own mode may keep us out: it comes last
                    os.mkdir(name, 0o700, dir_fd=above)
                    folders.append(member)
                elif member.target:
                    times = (member.mtime_ns, member.mtime_ns)
                    os.symlink(member.target, name, dir_fd=above)
                    os.utime(name, ns=times, dir_fd=above, follow_symlinks=False)
                else:
                    _make_file(above, name, member, _pieces(tar, info))
                    alive(total)
            finally:
                os.close(above)
    for member in reversed(folders):
        fd = native.open_beneath(folder, member.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
            os.fchmod(fd, member.mode)
            native.sync_directory(fd, member.path)
        finally:
            os.close(fd)
    native.sync_directory(folder)
    return Inspected(entries, total)


def _make_file(above: int, name: str, member: Member, pieces: Iterator[bytes]) -> None:
    fd = os.open(
        name,
        os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC,
        0o600,
        dir_fd=above,
    )
    with os.fdopen(fd, "wb") as out:
        for piece in pieces:
            out.write(piece)
        out.flush()
        os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        os.fchmod(fd, member.mode)
        native.sync_file(fd, member.path)


@contextmanager
def _archive(file: int) -> Iterator[tarfile.TarFile]:
    os.lseek(file, 0, os.SEEK_SET)
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
    try:
        with (
            os.fdopen(file, "rb", closefd=False) as source,
            decompressor.stream_reader(source, closefd=False) as stream,
            tarfile.open(fileobj=stream, mode="r|", bufsize=_PIECE_BYTES) as tar,
        ):
            yield tar
            while stream.read(_PIECE_BYTES):  # to the end, where the checksum is
                pass
    except (tarfile.TarError, zstandard.ZstdError, EOFError, ValueError) as error:
        raise SourceError(f"the archive can't be read: {error}") from error


def _members(tar: tarfile.TarFile, limit: int) -> Iterator[tuple[Member, tarfile.TarInfo]]:
    seen: set[str] = set()
    folders = {""}
    total = 0
    for info in tar:
        member = check_member(info)
        total += member.bytes
        if member.path.rpartition("/")[0] not in folders:
            raise SourceError(f"the archive has {member.path} without its folder")
        if member.path in seen:
            raise SourceError(f"the archive has {member.path} twice")
        if total > limit:
            raise SourceError(f"the archive holds more than {limit} bytes")
        seen.add(member.path)
        if member.is_folder:
            folders.add(member.path)
        yield member, info
        tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all


def check_member(info: tarfile.TarInfo) -> Member:
    """Return the member, if it is one that we make. Raises SourceError."""
    parts = info.name.split("/")
    if (
        not (info.isreg() or info.isdir() or (info.issym() and _may_lead_to(info.linkname)))
        or info.issparse()
        or parts[0] not in KEPT_FILES
        or any(part in ("", ".", "..") or "\0" in part for part in parts)
        or len(os.fsencode(info.name)) >= LONGEST_PATH
        or info.size < 0
        or abs(info.mtime) > LATEST_S
    ):
        raise SourceError(f"the archive holds what is none of ours: {info.name!r}")
    return Member(
        info.name,
        info.isdir(),
        info.linkname if info.issym() else "",
        info.size if info.isreg() else 0,
        info.mode & 0o777,
        _mtime_ns(info),
    )


def _may_lead_to(target: str) -> bool:
    """Tell whether the system could make a symlink of it. Where it leads to nobody asks."""
    return bool(target) and "\0" not in target and len(os.fsencode(target)) < LONGEST_PATH


def _mtime_ns(info: tarfile.TarInfo) -> int:
    exact = re.fullmatch(r"(\d{1,12})\.(\d{9})", info.pax_headers.get("mtime", ""))
    return int(exact[1]) * 10**9 + int(exact[2]) if exact else round(info.mtime * 1e9)


def _pieces(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    source = tar.extractfile(info)
    assert source is not None
    left = info.size
    while left:
        piece = source.read(min(left, _PIECE_BYTES))
        if not piece:
            raise SourceError(f"the archive ends within {info.name}")
        left -= len(piece)
        yield piece
