"""Find out whether a snapshot that is there holds exactly what was copied now.

Its name is a hint: both are read, and it stands for the new one only where they are the same, the
databases and the files beside them. Four numbers in a database's header say how often SQLite has
written to it and has changed its schema, and which did last: no two ways of copying keep them, and
nothing depends on them where nobody has it open.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace

from t3_backup.backup.publish import SettledFile
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.companion import Companion
from t3_backup.store.content import hash_content, hash_on_disk
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest, StoredDatabase

# by sqlite.org/fileformat.html: change counter; schema cookie; version-valid-for, and the version
# of SQLite
_COUNTERS = (slice(24, 28), slice(40, 44), slice(92, 100))
_HEADER_BYTES = 100


def find_standing(
    account_dir: AccountDir,
    settled: Mapping[str, SettledFile],
    snapshot: Manifest,
    listing: Listing,
    name: str,
) -> Manifest | None:
    """Return the snapshot of this name where it holds what `snapshot` would; else None.

    `settled` are the files of that. A damaged one never stands for another: it could not be put
    back; nor does one whose files can't be read.
    """
    known = next((one for one in listing.snapshots if one.name == name), None)
    if known is None or known.verdict == "damaged" or known.live.file != snapshot.live.file:
        return None
    if _archive_of(known) != _archive_of(snapshot) or known.missing != snapshot.missing:
        return None
    images = {image.file: image for image in known.images}
    if images.keys() != settled.keys():
        return None
    same = (
        listing.is_plain(image) and _is_same(account_dir, image, settled[file])
        for file, image in images.items()
    )
    with contextlib.suppress(OSError):
        return known if all(same) else None
    return None


def _archive_of(snapshot: Manifest) -> Companion | None:
    """Return the archive beside; by what files it was made without reading them says nothing."""
    return snapshot.companion and replace(snapshot.companion, fingerprint="")


def _is_same(account_dir: AccountDir, image: StoredDatabase, new: SettledFile) -> bool:
    """Compare an image, as the disk has it and as it was sealed, with a new file."""
    sealed = (image.record.bytes, image.sha256)
    if new.content.bytes != image.record.bytes:
        return False
    fd = account_dir.open_plain_data(image)
    try:
        header = bytearray(os.pread(fd, _HEADER_BYTES, 0))
        found = hash_on_disk(fd)
    finally:
        os.close(fd)
    if (found.bytes, found.sha256) != sealed:
        return False
    of_new = bytearray(os.pread(new.file.reader, _HEADER_BYTES, 0))
    for counter in _COUNTERS:
        of_new[counter] = header[counter]
    again = hash_content(new.file.reader, header=bytes(of_new))
    return (again.bytes, again.sha256) == sealed
