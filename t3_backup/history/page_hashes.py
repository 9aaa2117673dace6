"""The hashes of a snapshot's pages: by them the pages in which its neighbour differs are found without reading two images.

They are kept beside the newest snapshot alone, and are a hint: what was made by them is proven by SHA-256, and where they
are missing or wrong the images themselves are compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from t3_backup.history import checksummed_file
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import PAGES, parse_name
from t3_backup.system import native
from t3_backup.system.native import HASH_BYTES

_AT_ONCE = 4096 * HASH_BYTES
_COMPARED_PAGES = 1 << 16


@dataclass(frozen=True)
class PageHashes:
    """Of one image."""

    sha256: str  # of the image
    page_size: int  # bytes
    hashes: bytes  # HASH_BYTES a page

    def write(self, fd: int) -> None:
        """Write them to an empty file. Raises OSError."""
        file = checksummed_file.Writer(fd, {"sha256": self.sha256, "page_size": self.page_size})
        file.write(self.hashes)
        file.finish()

    @staticmethod
    def read(fd: int) -> PageHashes:
        """The inverse of `write`. Raises ValueError and OSError."""
        found = checksummed_file.check(fd)
        sha256, page_size = found.header.get("sha256"), found.header.get("page_size")
        if type(sha256) is not str or type(page_size) is not int or page_size < 1:
            raise ValueError("they are of no image")
        return PageHashes(sha256, page_size, os.pread(fd, found.end - found.start, found.start))

    def differing(self, other: PageHashes) -> list[int]:
        """Numbers, ascending, of the pages that are not the same in both; past its end an image is zeros."""
        size = max(len(self.hashes), len(other.hashes))
        zero = native.hash_pages(bytes(self.page_size), self.page_size)
        one, two = (hashes + zero * ((size - len(hashes)) // HASH_BYTES) for hashes in (self.hashes, other.hashes))
        found = []
        for start in range(0, size, _AT_ONCE):
            if one[start : start + _AT_ONCE] == two[start : start + _AT_ONCE]:
                continue
            found += [
                at // HASH_BYTES
                for at in range(start, min(size, start + _AT_ONCE), HASH_BYTES)
                if one[at : at + HASH_BYTES] != two[at : at + HASH_BYTES]
            ]
        return found


def compared(one: int, other: int, count: int, page_size: int, check: Callable[[], None] = lambda: None) -> list[int]:
    """The same of two open files, whose first `count` pages are all read; `check` is called now and then. Raises OSError."""
    found: list[int] = []
    for first in range(0, count, _COMPARED_PAGES):
        check()
        found += native.differing_pages(one, other, first, min(_COMPARED_PAGES, count - first), page_size)
    return found


def beside(account_dir: AccountDir, snapshot: Manifest) -> PageHashes | None:
    """Those that are kept beside a snapshot; None where there are none, or they are not its own."""
    try:
        fd = account_dir.open_file(snapshot.name + PAGES)
    except OSError:
        return None
    try:
        found = PageHashes.read(fd)
    except (ValueError, OSError):
        return None
    finally:
        os.close(fd)
    return found if (found.sha256, found.page_size) == (snapshot.sha256, snapshot.page_size) else None


def problem(account_dir: AccountDir, snapshot: Manifest) -> str:
    """What is wrong with those that are kept beside it; empty: nothing, or there are none."""
    if not account_dir.is_there(snapshot.name + PAGES) or beside(account_dir, snapshot) is not None:
        return ""
    return f"{snapshot.name}{PAGES} is not what was written; the next run makes it anew"


def keep(account_dir: AccountDir, snapshot: Manifest, hashes: PageHashes) -> None:
    """Keep them beside a snapshot. Raises OSError."""
    with account_dir.begin() as file:
        hashes.write(file.writer)
        native.sync_file(file.writer, snapshot.name + PAGES)
        account_dir.put(file.name_as, snapshot.name + PAGES)


def drop_others(account_dir: AccountDir, snapshot: Manifest) -> None:
    """Let go of those of all other snapshots. Raises OSError."""
    for name in account_dir.names():
        stem = name.removesuffix(PAGES)
        if stem not in (name, snapshot.name) and parse_name(stem) is not None:
            os.unlink(name, dir_fd=account_dir.fd)
