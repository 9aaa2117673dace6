"""Copy and remove trees of programs, without trusting what is in them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from t3_backup.errors import Failure

_MOST_BYTES = 4 << 30  # of a version; one of T3 has some hundred MiB
_ENTRY_BYTES = 4096  # that any file or folder takes besides
_DEEPEST = 100  # folders
_BLOCK_BYTES = 512  # of st_blocks, whatever the file system has (stat(2))


def copy_package(source: Path, target: Path, allowed: Sequence[int]) -> None:
    """Copy the tree of a program to `target`, owned by root.

    What is set-id, special, too much, or leads out of the tree is refused. `allowed` are the uids
    that may own what is copied. Raises Failure and OSError.
    """
    _check_entry(source, source, allowed)
    left = _MOST_BYTES
    for folder, folders, files in os.walk(source, onerror=_raise):
        if len(Path(folder).parts) - len(source.parts) > _DEEPEST:
            raise Failure(f"{source} has folders in folders more than {_DEEPEST} deep")
        for name in (*folders, *files):
            left -= _check_entry(Path(folder, name), source, allowed)
            if left < 0:  # a hole counts: a copy has none
                raise Failure(f"{source} is greater than {_MOST_BYTES >> 30} GiB")
    shutil.copytree(source, target, symlinks=True)


def measure_tree(path: Path) -> int:
    """Count the bytes that a tree takes on the disk. Raises OSError."""
    total = 0
    for folder, _, files in os.walk(path, onerror=_raise):
        for name in ("", *files):
            total += os.lstat(os.path.join(folder, name)).st_blocks * _BLOCK_BYTES
    return total


def remove_tree(path: Path) -> None:
    """Remove a folder with all that somebody else has put in. Raises Failure and OSError."""
    # shutil.rmtree() ends where folders are deeper in each other than Python calls itself.
    done = subprocess.run(
        ["/usr/bin/rm", "-rf", "--", str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or ["no reason is given"])[0]
        raise Failure(f"{path} can't be removed: {why}")


def _raise(error: OSError) -> NoReturn:
    raise error


def _check_entry(path: Path, source: Path, allowed: Sequence[int]) -> int:
    """Refuse what must not be copied; return about how many bytes it takes. Raises Failure."""
    status = path.lstat()
    if status.st_uid not in allowed:
        raise Failure(f"{path} belongs to uid {status.st_uid}: what everybody runs must be root's")
    if stat.S_ISLNK(status.st_mode):
        target = Path(os.readlink(path))
        real = (path.parent / target).resolve()
        if target.is_absolute() or not real.is_relative_to(source.resolve()):
            raise Failure(f"{path} leads out of {source}")
    elif not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise Failure(f"{path} is neither a file nor a folder")
    elif status.st_mode & (stat.S_ISUID | stat.S_ISGID) and stat.S_ISREG(status.st_mode):
        raise Failure(f"{path} runs as another user (set-id)")
    elif status.st_mode & 0o022:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise Failure(f"{path} can be written to by others than its owner (mode {mode})")
    return status.st_size + _ENTRY_BYTES
