"""Room on a disk: how much of it stays free for whoever else writes to it, and how much is taken."""

from __future__ import annotations

import os
import stat

from t3_backup import extents

BLOCK_BYTES = 512  # of st_blocks (stat(2))
_SHARE = 0.05
_MOST_BYTES = 2 << 30
_LARGE_BYTES = 1 << 20  # smaller files are not worth asking about


def reserve_of(wanted: int | None, total: int) -> int:
    """Bytes that stay free of a file system of `total` bytes: as many as `wanted`, or 5 % of it, but 2 GiB at most."""
    return min(int(total * _SHARE), _MOST_BYTES) if wanted is None else wanted


def used_bytes(folder: int) -> int:
    """What all files in the open `folder` take on the disk; one with two names counts once, and so does what two files share."""
    os.lseek(folder, 0, os.SEEK_SET)  # btrfs lists what was there when it was last rewound
    blocks: dict[int, int] = {}
    stretches: list[extents.Stretch] = []
    for name in os.listdir(folder):
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:  # pruned in the meantime
            continue
        if status.st_ino not in blocks and status.st_size >= _LARGE_BYTES and stat.S_ISREG(status.st_mode):
            stretches += _shared(folder, name)
        blocks[status.st_ino] = status.st_blocks
    return sum(blocks.values()) * BLOCK_BYTES - extents.counted_twice(stretches)


def _shared(folder: int, name: str) -> list[extents.Stretch]:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return []
    try:
        return extents.shared(fd)
    except OSError:  # it can't be told here
        return []
    finally:
        os.close(fd)
