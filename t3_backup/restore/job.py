"""Say what one restore is about: whose databases, which snapshot, and who is to be told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from t3_backup.accounts import Account
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.manifest import Manifest, StoredDatabase
from t3_backup.store.store import Store
from t3_backup.system.systemd import Service
from t3_backup.worker.limits import Limits


@dataclass(frozen=True)
class RestoreJob:
    """Whose databases are to be replaced, with what, and who is to be told."""

    account: Account
    store: Store
    account_dir: AccountDir
    snapshot: Manifest
    service: Service | None  # the server's; None: there is none, or it is left alone
    limits: Limits
    stopping: threading.Event
    now: Callable[[], datetime]
    say: Callable[[str], None]  # a line of what was done
    database: bool = True  # whether databases are put back
    file: str | None = None  # the only one of them; None: all
    files: bool = False  # whether what was beside it is, which the snapshot must have
    files_limit: int = 0  # bytes of what is beside the live one, to be kept with it; 0: it is not
    # the snapshot that stands for the old state, if it turns out to hold exactly that
    kept: str | None = None

    @property
    def images(self) -> tuple[StoredDatabase, ...]:
        """The images that are proven, and put back where databases are; the live one last."""
        found = (one for one in self.snapshot.images if self.file in (None, one.file))
        return tuple(sorted(found, key=lambda one: (one.record.live, one.file)))

    @property
    def moves(self) -> frozenset[str]:
        """The databases that something takes the place of; others may go aside."""
        return frozenset(image.file for image in self.images) if self.database else frozenset()

    @property
    def whole(self) -> bool:
        """Whether all databases are put back, and what the snapshot lacks goes aside."""
        return self.database and self.file is None
