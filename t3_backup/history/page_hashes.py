"""Keep the hashes of a snapshot's pages, to find those that change without reading two images.

They are kept for the newest snapshot alone, and are a hint: what was made by them is proven by
SHA-256, and where they are missing or wrong the images themselves are compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from t3_backup.history import checksummed_file
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import StoredDatabase
from t3_backup.store.names import PAGES
from t3_backup.system import native
from t3_backup.system.native import HASH_BYTES

_AT_ONCE = 4096 * HASH_BYTES
_COMPARED_PAGES = 1 << 16


@dataclass(frozen=True)
class PageHashes:
    """The hashes of one image's pages."""

    sha256: str  # of the image
    page_size: int  # bytes
    hashes: bytes  # HASH_BYTES a page

    def write(self, fd: int) -> None:
        """Write them to an empty file. Raises OSError."""
        file = checksummed_file.ChecksummedWriter(
            fd, {"sha256": self.sha256, "page_size": self.page_size}
        )
        file.write(self.hashes)
        file.finish()

    @staticmethod
    def read(fd: int) -> PageHashes:
        """Read what `write` wrote. Raises ValueError and OSError."""
        found = checksummed_file.read_whole(fd)
        sha256, page_size = found.header.get("sha256"), found.header.get("page_size")
        if type(sha256) is not str or type(page_size) is not int or page_size < 1:
            raise ValueError("they are of no image")
        return PageHashes(sha256, page_size, os.pread(fd, found.end - found.start, found.start))

    def find_changes(self, other: PageHashes) -> list[int]:
        """Return the numbers, ascending, of the pages that are not the same in both.

        Past its end an image is zeros.
        """
        size = max(len(self.hashes), len(other.hashes))
        zero = native.hash_pages(bytes(self.page_size), self.page_size)
        one, two = (
            hashes + zero * ((size - len(hashes)) // HASH_BYTES)
            for hashes in (self.hashes, other.hashes)
        )
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


def compare_pages(
    one: int, other: int, count: int, page_size: int, check: Callable[[], None] = lambda: None
) -> list[int]:
    """Return the same of two open files, whose first `count` pages are all read.

    Raises OSError. `check` is called now and then.
    """
    found: list[int] = []
    for first in range(0, count, _COMPARED_PAGES):
        check()
        found += native.differing_pages(
            one, other, first, min(_COMPARED_PAGES, count - first), page_size
        )
    return found


def read_page_hashes(account_dir: AccountDir, stored: StoredDatabase) -> PageHashes | None:
    """Read the page hashes that are kept for a snapshot.

    None where there are none, or they are not its own.
    """
    try:
        fd = account_dir.open_file(stored.name + PAGES)
    except OSError:
        return None
    try:
        found = PageHashes.read(fd)
    except (ValueError, OSError):
        return None
    finally:
        os.close(fd)
    return found if (found.sha256, found.page_size) == (stored.sha256, stored.page_size) else None


def find_problem(account_dir: AccountDir, listing: Listing, stored: StoredDatabase) -> str:
    """Tell what is wrong with the page hashes of a snapshot.

    Empty: nothing, or there are none.
    """
    if (
        stored.name + PAGES not in listing.names
        or read_page_hashes(account_dir, stored) is not None
    ):
        return ""
    return f"{stored.name}{PAGES} is not what was written; the next run makes it anew"


def write_page_hashes(account_dir: AccountDir, stored: StoredDatabase, hashes: PageHashes) -> None:
    """Write the page hashes of a snapshot. Raises OSError."""
    with account_dir.stage_file() as file:
        hashes.write(file.writer)
        native.sync_file(file.writer, stored.name + PAGES)
        account_dir.replace_file(file.name_as, stored.name + PAGES)


def remove_other_page_hashes(
    account_dir: AccountDir, listing: Listing, newest: Iterable[StoredDatabase]
) -> Listing:
    """Remove the page hashes of all images but the `newest`, and return the new listing.

    Raises OSError.
    """
    staying = {image.name + PAGES for image in newest}
    others = [name for name in listing.page_hash_names() if name not in staying]
    for name in others:
        account_dir.remove_file(name)
    return listing.without_files(others)
