"""A small file that is there whole, as it was or as it is to be, whatever happens while it is written.

Written to a temporary beside it, synced, and renamed into its place. The temporary has a name of its own that the next writer
takes over, so a crash leaves one at most; two writers at once must be kept apart by a lock of theirs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from t3_backup.system import native

_NEW = ".new"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def replace_file(folder: int, name: str, data: bytes, mode: int) -> None:
    """Have `data` under `name` in the open `folder`, durable when this returns. Raises OSError, and then the old one is there."""
    partial = name + _NEW
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial, dir_fd=folder)
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
            os.fchmod(fd, mode)
            native.sync_file(fd, name)
        finally:
            os.close(fd)
        os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(partial, dir_fd=folder)
        raise
    native.sync_directory(folder, name)


def replace_path(path: Path, data: bytes, mode: int) -> None:
    """The same of a file by its path. Raises OSError, where its folder is a symlink as well: nothing is followed."""
    with opened(path.parent) as folder:
        replace_file(folder, path.name, data, mode)


def remove_path(path: Path) -> bool:
    """Remove a file, durably; whether it was there. Raises OSError, as `replace_path` does."""
    with opened(path.parent) as folder:
        try:
            os.unlink(path.name, dir_fd=folder)
        except FileNotFoundError:
            return False
        native.sync_directory(folder, str(path.parent))
        return True


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    """A descriptor of a folder, for as long as the block. Raises OSError, where it is a symlink as well."""
    fd = os.open(folder, _FOLDER)
    try:
        yield fd
    finally:
        os.close(fd)
