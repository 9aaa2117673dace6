"""A file that somebody asked for is written whole or not at all: a new one beside it, brought to the disk, takes its name.

What is no regular file is refused, not replaced: a device or a link that root is told to write to is a slip of the hand.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from t3_backup.errors import UsageError

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE = 0o600


def write_output(path: Path, text: str) -> None:
    """Make `path` hold `text`. A new file is one's own alone; one's own keeps the mode that it had.

    Raises UsageError where something else than a file is there, and OSError.
    """
    mode = _mode(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    unfinished = f".{path.name[:200]}.{secrets.token_hex(6)}"
    try:
        fd = os.open(unfinished, _NEW, _PRIVATE, dir_fd=folder)
        try:
            with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
                file.flush()
                os.fchmod(fd, mode)
                os.fsync(fd)
            os.replace(unfinished, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(unfinished, dir_fd=folder)
            raise
        os.fsync(folder)
    except OSError as error:
        error.filename = str(path)  # which is what was asked for
        raise
    finally:
        os.close(folder)


def _mode(path: Path) -> int:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return _PRIVATE
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise UsageError(f"{path} is {kind}; name a file, or - for standard output")
    return stat.S_IMODE(status.st_mode) if status.st_uid == os.geteuid() else _PRIVATE
