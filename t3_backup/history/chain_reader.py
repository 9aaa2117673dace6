"""Open the images of an account one after the other, each out of the one before it."""

from __future__ import annotations

import threading
from functools import partial
from typing import Self

from t3_backup.history import chain
from t3_backup.history.image import Image
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import StoredDatabase
from t3_backup.worker.limits import Limits


class ChainReader:
    """Open the images of one database of an account one after the other, newest first.

    Of a chain, each is made out of the one before it.
    """

    def __init__(self, account_dir: AccountDir, limits: Limits, stopping: threading.Event) -> None:
        self._account_dir, self._limits, self._stopping = account_dir, limits, stopping
        self._image: Image | None = None
        self._sha256 = ""  # the SHA-256 of what the image is to be

    def open_data(self, listing: Listing, stored: StoredDatabase) -> int:
        """Open a snapshot as the function `open_data` does.

        Nobody may use what was opened before.
        """
        header = chain.read_header(self._account_dir, listing, stored)
        if header is None:
            return self._account_dir.open_plain_data(stored)
        try:
            if self._image is not None and header.base_sha256 == self._sha256:
                chain.apply_delta(self._image, self._account_dir, stored)
            else:
                self.close()
                file = chain.open_room(self._account_dir, stored, self._limits)
                check = partial(chain.check_stop, self._stopping)
                self._image = chain.build_image(
                    self._account_dir, listing, stored, check, file=file
                )
        except BaseException:
            self.close()
            raise
        self._sha256 = stored.sha256
        return self._image.open_copy()

    def close(self) -> None:
        """Give its disk space back. Again is harmless."""
        if self._image is not None:
            self._image.close()
        self._image, self._sha256 = None, ""


class ChainReaders:
    """A reader for each database of an account."""

    def __init__(self, account_dir: AccountDir, limits: Limits, stopping: threading.Event) -> None:
        self._what = account_dir, limits, stopping
        self._readers: dict[str, ChainReader] = {}

    def of(self, file: str) -> ChainReader:
        """Return the reader of the database `file`."""
        return self._readers.setdefault(file, ChainReader(*self._what))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the disk space of all back. Again is harmless."""
        for reader in self._readers.values():
            reader.close()
