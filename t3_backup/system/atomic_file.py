"""Write small files so that each is there whole, as before or as wanted.

Each is written to a temporary beside it, synced, and renamed into its place; then the folder is
synced. By default the temporary has a name of its own that the next writer takes over, so a crash
leaves one at most; two writers at once must be kept apart by a lock of theirs, or by names of their
own.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from t3_backup.errors import UsageError
from t3_backup.system import native

_NEW = ".new"
_PRIVATE = 0o600
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def replace_file(
    folder: int, name: str, data: bytes, mode: int, *, temporary: str | None = None
) -> None:
    """Have `data` under `name` in the open `folder`, durable when this returns.

    Raises OSError, and then the old file is there. `temporary` is a name that no other writer has,
    for those that no lock keeps apart.
    """
    if temporary is None:
        temporary = name + _NEW
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
    fd = os.open(temporary, _WRITE, _PRIVATE, dir_fd=folder)
    try:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
            os.fchmod(fd, mode)
            native.sync_file(fd, name)
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    native.sync_directory(folder, name)


def replace_path(path: Path, data: bytes, mode: int) -> None:
    """Replace a file by its path. Raises OSError, also where its folder is a symlink."""
    with opened(path.parent) as folder:
        replace_file(folder, path.name, data, mode)


def remove_path(path: Path) -> bool:
    """Remove a file, durably, and tell whether it was there.

    Raises OSError as `replace_path` does.
    """
    with opened(path.parent) as folder:
        try:
            os.unlink(path.name, dir_fd=folder)
        except FileNotFoundError:
            return False
        native.sync_directory(folder, str(path.parent))
        return True


def write_output(path: Path, text: str) -> None:
    """Make the file that somebody asked for hold `text`.

    A new one is for its owner alone; an own file keeps its mode. What is no regular file is
    refused, not replaced: a device or a link that root is told to write to is a slip of the hand.
    Its folder may be reached by a link. Raises UsageError, and OSError.
    """
    mode = _output_mode(path)
    data = text.encode(errors="backslashreplace")
    folder = os.open(path.parent, _FOLDER)
    temporary = f".{path.name[:200]}.{os.urandom(6).hex()}"
    try:
        replace_file(folder, path.name, data, mode, temporary=temporary)
    except OSError as error:
        error.filename = str(path)  # which is what was asked for
        raise
    finally:
        os.close(folder)


def _output_mode(path: Path) -> int:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return _PRIVATE
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise UsageError(f"{path} is {kind}; name a file, or - for standard output")
    return stat.S_IMODE(status.st_mode) if status.st_uid == os.geteuid() else _PRIVATE


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    """Open a folder for as long as the block; OSError where it is a symlink."""
    fd = os.open(folder, _FOLDER | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)
