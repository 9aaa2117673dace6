"""Find which snapshots hang on which, and at which base one of them breaks.

Each image that is a delta needs its base, and the base of that. So one base that is not what was
sealed spoils all that hang on it. Nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from t3_backup.errors import Failure
from t3_backup.history import chain
from t3_backup.history.delta import Delta
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import hash_content
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest, StoredDatabase
from t3_backup.store.names import DELTA


@dataclass(frozen=True)
class StoredForm:
    """How an image is stored: plain, delta, packed (by itself); or missing. And on which base."""

    form: str
    base: StoredDatabase | None = None


def read_forms(account_dir: AccountDir, listing: Listing) -> dict[str, StoredForm]:
    """Read how each image is stored, by its name; one that can't be read is missing."""
    return {image.name: _read_form(account_dir, listing, image) for image in listing.images}


def _read_form(account_dir: AccountDir, listing: Listing, image: StoredDatabase) -> StoredForm:
    if not listing.has_data(image):
        return StoredForm("missing")
    try:
        header = chain.read_header(account_dir, listing, image)
    except (Failure, OSError):
        return StoredForm("missing")
    if header is None:
        return StoredForm("plain")
    if header.base_sha256 is None:
        return StoredForm("packed")
    return StoredForm("delta", chain.find_base(listing.images, image, header.base_sha256))


def find_hanging(listing: Listing, forms: Mapping[str, StoredForm]) -> dict[str, set[str]]:
    """Find for each snapshot, by name, the snapshots that need one of its images. Pure."""
    needing: dict[str, set[str]] = {image.name: set() for image in listing.images}
    # the oldest first: what needs one is known before that needs another
    for image in reversed(listing.images):
        if (base := forms[image.name].base) is not None:
            needing[base.name] |= {image.snapshot.name, *needing[image.name]}
    return {
        snapshot.name: set[str]().union(*(needing[image.name] for image in snapshot.images))
        for snapshot in listing.snapshots
    }


@dataclass
class BaseFinder:
    """Find the base at which snapshots of one account break; each base is read once."""

    account_dir: AccountDir
    _whole: dict[str, bool] = field(default_factory=dict)  # by image

    def find_broken_base(self, listing: Listing, snapshot: Manifest) -> Manifest | None:
        """Return the snapshot whose image, as it is stored, spoils one of `snapshot`.

        The one that all others in between need, too. None: what is wrong is its own.
        """
        for image in snapshot.images:
            for base in reversed(self._read_bases(listing, image)):
                if not self._is_whole(listing, base):
                    return base.snapshot
        return None

    def is_broken(self, listing: Listing, image: StoredDatabase) -> bool:
        """Tell whether the file of an image is not what was written."""
        return not self._is_whole(listing, image)

    def _read_bases(self, listing: Listing, image: StoredDatabase) -> list[StoredDatabase]:
        """Return the images that one needs, the nearest first, as far as that can be told."""
        found, form = list[StoredDatabase](), _read_form(self.account_dir, listing, image)
        while form.base is not None:
            found.append(form.base)
            form = _read_form(self.account_dir, listing, form.base)
        return found

    def _is_whole(self, listing: Listing, image: StoredDatabase) -> bool:
        """Tell whether the file of an image is what was written; true where it can't be told."""
        if image.name not in self._whole:
            self._whole[image.name] = _is_as_written(self.account_dir, listing, image)
        return self._whole[image.name]


def _is_as_written(account_dir: AccountDir, listing: Listing, image: StoredDatabase) -> bool:
    if not listing.has_data(image):
        return False
    try:
        if not listing.is_plain(image):
            with chain.opened_delta(account_dir, image.name + DELTA) as fd:
                return Delta(fd).header.sha256 == image.sha256
        fd = account_dir.open_plain_data(image)
        try:
            size = os.fstat(fd).st_size
            return size == image.bytes and hash_content(fd).sha256 == image.sha256
        finally:
            os.close(fd)
    except Failure:
        return False
    except OSError:
        return True
