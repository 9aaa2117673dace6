"""Which file it is, and whether anything was done to it since. Pure."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Annotated, Any

from t3_backup.records import decode_record

Unsigned = Annotated[int, range(1 << 64)]  # as stat(2) has its numbers


@dataclass(frozen=True)
class FileIdentity:
    """Which file it is, and whether anything was done to it: from stat(2); sizes in bytes, times in nanoseconds.

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
        """From what stat(2) says."""
        mode = stat.S_IMODE(status.st_mode)
        times = status.st_mtime_ns, status.st_ctime_ns
        return FileIdentity(
            status.st_dev, status.st_ino, status.st_size, *times, mode, status.st_gid
        )

    @staticmethod
    def from_json(value: Any) -> FileIdentity:
        """Decode what `asdict` gave, from an untrusted value. Raises ValueError."""
        try:
            return decode_record(FileIdentity, value)
        except ValueError as error:
            raise ValueError(f"an identity has other fields: {error}") from None

    def holds_the_same(self, other: FileIdentity) -> bool:
        """Whether nothing was written to it since it was `other`; its names may have changed."""
        return (self.inode, self.bytes, self.modified_ns) == (
            other.inode,
            other.bytes,
            other.modified_ns,
        )
