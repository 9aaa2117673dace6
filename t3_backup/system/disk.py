"""Measure a disk: how much of it stays free for others, and how much files take."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterable

BLOCK_BYTES = 512  # of st_blocks (stat(2))
_SHARE = 0.05
_MOST_BYTES = 2 << 30
_LARGE_BYTES = 1 << 20  # smaller files are not worth asking about

# What an ioctl for a file's extents takes: see ioctl_fiemap(2).
_FIEMAP = 0xC020660B
_HEADER = struct.Struct("=QQIIII")  # start, length, flags, mapped, count, reserved
_EXTENT = struct.Struct("=QQQ16xI12x")  # logical, physical, length, flags
_AT_ONCE = 1000
_SYNC = 1
_LAST, _SHARED = 0x1, 0x2000

Stretch = tuple[int, int]  # bytes of the disk, from and to


def reserve_of(wanted: int | None, total: int) -> int:
    """Compute what stays free of `total` bytes: `wanted`, else 5 %, 2 GiB at most."""
    return min(int(total * _SHARE), _MOST_BYTES) if wanted is None else wanted


def used_bytes(folder: int) -> int:
    """Sum what the files in the open `folder` take; what two share counts once."""
    os.lseek(folder, 0, os.SEEK_SET)  # btrfs lists what was there when it was last rewound
    blocks: dict[int, int] = {}
    stretches: list[Stretch] = []
    for name in os.listdir(folder):
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:  # pruned in the meantime
            continue
        large = stat.S_ISREG(status.st_mode) and status.st_size >= _LARGE_BYTES
        if large and status.st_ino not in blocks:
            stretches += _shared(folder, name)
        blocks[status.st_ino] = status.st_blocks
    return sum(blocks.values()) * BLOCK_BYTES - counted_twice(stretches)


def _shared(folder: int, name: str) -> list[Stretch]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=folder)
    except OSError:
        return []
    try:
        return shared_stretches(fd)
    except OSError:  # it can't be told here
        return []
    finally:
        os.close(fd)


def shared_stretches(fd: int) -> list[Stretch]:
    """List the stretches that an open file shares; OSError where it can't be told."""
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
            logical, physical, length, flags = _EXTENT.unpack_from(
                buffer, _HEADER.size + number * _EXTENT.size
            )
            if flags & _SHARED:
                found.append((physical, physical + length))
        if flags & _LAST:
            return found
        start = logical + length


def counted_twice(stretches: Iterable[Stretch]) -> int:
    """Compute how much of the stretches is counted twice, in bytes. Pure."""
    total, end = 0, 0
    for first, last in sorted(stretches):
        total += max(0, min(end, last) - first)
        end = max(end, last)
    return total
