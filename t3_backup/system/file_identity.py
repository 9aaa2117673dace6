"""Tell which file it is, and whether anything was done to it since. Pure."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Annotated

from t3_backup.text import printable

_Text = Annotated[str, printable]
Unsigned = Annotated[int, range(1 << 64)]  # as stat(2) has its numbers


@dataclass(frozen=True)
class ProcFile:
    """A file as fdinfo and mountinfo know it (proc(5)).

    On btrfs and overlayfs stat(2) has other numbers for it.
    """

    inode: Unsigned
    device: _Text  # MAJOR:MINOR of its mount; empty: it isn't known


@dataclass(frozen=True)
class FileIdentity:
    """What stat(2) says of a file: bytes and nanoseconds.

    Within one folder, and after a reboot, the inode alone says which it is: a device may have
    another number then.
    """

    device: Unsigned
    inode: Unsigned
    bytes: Unsigned
    modified_ns: Unsigned
    changed_ns: Unsigned
    mode: Unsigned
    gid: Unsigned

    @staticmethod
    def of(status: os.stat_result) -> FileIdentity:
        """Make it of what stat(2) says."""
        mode = stat.S_IMODE(status.st_mode)
        times = status.st_mtime_ns, status.st_ctime_ns
        return FileIdentity(
            status.st_dev, status.st_ino, status.st_size, *times, mode, status.st_gid
        )

    def holds_the_same(self, other: FileIdentity) -> bool:
        """Tell whether nothing was written since it was `other`; names may differ."""
        mine, theirs = (self.inode, self.bytes), (other.inode, other.bytes)
        return mine == theirs and self.modified_ns == other.modified_ns
