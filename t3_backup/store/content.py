"""Hash what is in a settled file and read its SQLite header, as root, by pread alone."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from t3_backup.system import native
from t3_backup.system.native import Hashes

_HASH_BYTES = 4 << 20
_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True)
class Content:
    """What is in a settled file."""

    bytes: int
    sha256: str
    page_hashes: Hashes = b""  # where they were asked for


def hash_content(fd: int, page_size: int = 0, *, header: bytes = b"") -> Content:
    """Return size and SHA-256 of an open file, from its beginning.

    With `page_size`, the hashes of its pages, too. With `header`, as if its first bytes were these.
    The file is read by pread alone. Raises OSError.
    """
    digest, pages = hashlib.sha256(), bytearray()
    buffer = memoryview(bytearray(_HASH_BYTES))
    offset = 0
    while count := os.preadv(fd, [buffer], offset):
        if offset == 0:
            buffer[: len(header)] = header
        digest.update(buffer[:count])
        if page_size:
            pages += native.hash_pages(buffer[:count], page_size)
        offset += count
    return Content(offset, digest.hexdigest(), bytes(pages))


def hash_on_disk(fd: int) -> Content:
    """Return the same of what the disk holds, and not the page cache.

    Nothing is left there, either. Raises OSError.
    """
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        return hash_content(fd)
    finally:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def read_page_size(fd: int) -> int:
    """Read the page size in bytes that a database's header names.

    0 where it is no such header.
    """
    header = os.pread(fd, _HEADER_BYTES, 0)
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        return 0
    size = int.from_bytes(header[16:18], "big")
    size = 65536 if size == 1 else size
    return size if size >= 512 and size & (size - 1) == 0 else 0


def read_database_bytes(fd: int) -> int | None:
    """Read the size in bytes that a database's header claims.

    None where it is no such header (sqlite.org/fileformat.html).
    """
    header = os.pread(fd, _HEADER_BYTES, 0)
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        return None
    page_size = int.from_bytes(header[16:18], "big")
    return int.from_bytes(header[28:32], "big") * (65536 if page_size == 1 else page_size)
