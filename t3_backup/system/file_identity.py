"""Which file it is, and whether anything was done to it since. Pure."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class FileIdentity:
    """Which file it is, and whether anything was done to it: from stat(2); sizes in bytes, times in nanoseconds.

    Within one folder, and after a reboot, the inode alone says which it is: a device may have another number then.
    """

    device: int
    inode: int
    bytes: int
    modified_ns: int
    changed_ns: int
    mode: int
    gid: int

    @staticmethod
    def of(status: os.stat_result) -> FileIdentity:
        """From what stat(2) says."""
        mode = stat.S_IMODE(status.st_mode)
        times = status.st_mtime_ns, status.st_ctime_ns
        return FileIdentity(status.st_dev, status.st_ino, status.st_size, *times, mode, status.st_gid)

    @staticmethod
    def from_json(value: Any) -> FileIdentity:
        """The inverse of `asdict`, from an untrusted value. Raises ValueError."""
        if not isinstance(value, dict) or set(value) != {field.name for field in fields(FileIdentity)}:
            raise ValueError("an identity has other fields")
        if any(type(number) is not int or not 0 <= number < 1 << 64 for number in value.values()):
            raise ValueError("an identity has fields of another type")
        return FileIdentity(**value)

    def holds_the_same(self, other: FileIdentity) -> bool:
        """Whether nothing was written to it since it was `other`; its names may have changed."""
        return (self.inode, self.bytes, self.modified_ns) == (other.inode, other.bytes, other.modified_ns)
