"""Write a snapshot that shares extents with the one before it.

The file system must be able to (xfs, btrfs). A new snapshot is the one before it, cloned, with the
pages written over that differ. Every snapshot stays plain, and what is the same in both is on the
disk once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from t3_backup.history import page_hashes
from t3_backup.history.page_hashes import PageHashes
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import Content, hash_on_disk
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import StoredDatabase
from t3_backup.store.staged_file import StagedFile
from t3_backup.system import native

_WORTH = 0.5  # of the pages: where more of them differ, there is little to share
_WRITE_PAGES = 256
_PROBE_BYTES = 4096


def can_share(account_dir: AccountDir) -> bool:
    """Tell whether the file system of an account folder shares extents.

    Raises OSError where that can't be told.
    """
    with account_dir.stage_file() as one, account_dir.stage_file() as other:
        os.write(one.writer, bytes(_PROBE_BYTES))
        try:
            native.copy(one.writer, other.writer, _PROBE_BYTES, native.REFLINK)
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
                raise
            return False
    return True


def write_shared(
    account_dir: AccountDir,
    shared: StagedFile,
    staged_file: StagedFile,
    content: Content,
    page_size: int,
    listing: Listing,
    before: StoredDatabase,
) -> bool:
    """Write the `content` of a settled file into the new file `shared`.

    It shares with `before` what is the same in both. It is settled then. False where that is not
    possible or not worth it, or where what came out, read back from the disk, is not the same.
    Raises Failure and OSError.
    """
    if not page_size or page_size != before.page_size or not listing.is_plain(before):
        return False
    source = account_dir.open_plain_data(before)
    try:
        pages = _find_changes(account_dir, staged_file, content, page_size, before, source)
        if len(pages) * page_size > _WORTH * content.bytes:
            return False
        native.copy(source, shared.writer, before.bytes, native.REFLINK)
    finally:
        os.close(source)
    for first in range(0, len(pages), _WRITE_PAGES):
        group = pages[first : first + _WRITE_PAGES]
        data = native.read_pages(staged_file.reader, -1, bytes(len(group)), group, page_size)
        native.write_pages(shared.writer, group, page_size, data)
    os.ftruncate(shared.writer, content.bytes)
    shared.settle()
    found = hash_on_disk(shared.reader)
    return (found.bytes, found.sha256) == (content.bytes, content.sha256)


def _find_changes(
    account_dir: AccountDir,
    staged_file: StagedFile,
    content: Content,
    page_size: int,
    before: StoredDatabase,
    source: int,
) -> Sequence[int]:
    """Return the pages within the new image that differ."""
    count = -(-content.bytes // page_size)
    hashes = page_hashes.read_page_hashes(account_dir, before)
    if hashes is not None and content.page_hashes:
        return [
            page
            for page in hashes.find_changes(
                PageHashes(content.sha256, page_size, content.page_hashes)
            )
            if page < count
        ]
    return page_hashes.compare_pages(source, staged_file.reader, count, page_size)
