"""Where the bytes of files lie on the disk, and how many are several files' at once (FIEMAP, docs.kernel.org)."""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Iterable

_FIEMAP = 0xC020660B
_HEADER = struct.Struct("=QQIIII")  # start, length, flags, mapped, count, reserved
_EXTENT = struct.Struct("=QQQ16xI12x")  # logical, physical, length, flags
_AT_ONCE = 1000
_SYNC = 1
_LAST, _SHARED = 0x1, 0x2000

Stretch = tuple[int, int]  # bytes of the disk, from and to


def shared(fd: int) -> list[Stretch]:
    """The stretches of an open file that other files have, too; none where the file system can't tell. Raises OSError."""
    found: list[Stretch] = []
    start = 0
    while True:
        buffer = bytearray(_HEADER.size + _AT_ONCE * _EXTENT.size)
        _HEADER.pack_into(buffer, 0, start, (1 << 64) - 1 - start, _SYNC, 0, _AT_ONCE, 0)
        fcntl.ioctl(fd, _FIEMAP, buffer)
        count = _HEADER.unpack_from(buffer)[3]
        if not count:
            return found
        for number in range(count):
            logical, physical, length, flags = _EXTENT.unpack_from(buffer, _HEADER.size + number * _EXTENT.size)
            if flags & _SHARED:
                found.append((physical, physical + length))
        if flags & _LAST:
            return found
        start = logical + length


def counted_twice(stretches: Iterable[Stretch]) -> int:
    """By how many bytes the sum of the stretches is more than what they take. Pure."""
    total, end = 0, 0
    for first, last in sorted(stretches):
        total += max(0, min(end, last) - first)
        end = max(end, last)
    return total
