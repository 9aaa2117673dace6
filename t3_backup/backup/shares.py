"""Share the room of a store out among its accounts, so that none takes that of the others.

Whoever has less than an equal share may take of it while the disk has room. Beyond that an account
may go on only as long as a part of the room stays free: an honest one is larger than others, and a
hostile one ends there. Copies that are damaged, suspect or unproven have a share of their own.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Self

from t3_backup.errors import StoreError
from t3_backup.store.store import Store
from t3_backup.system.disk import used_bytes

_FOR_OTHERS = 5  # a fifth of the room
_DOUBTFUL = 10  # a tenth


@dataclass(frozen=True)
class Shares:
    """How the room of a store is shared out."""

    room: int  # bytes that all snapshots together may take
    accounts: int

    @classmethod
    def measure(cls, store: Store, accounts: int, reserve: int) -> Self:
        """Measure what the snapshots of all take now, and what is free. Raises OSError.

        `accounts` is how many are backed up; those that have a folder in the store count, too.
        """
        users, taken = store.users(), 0
        for user in users:
            with contextlib.suppress(StoreError, OSError):  # told when it is that account's turn
                if (account_dir := store.account_dir(user)) is not None:
                    with account_dir:
                        taken += used_bytes(account_dir.fd)
        room = max(0, taken + store.free_bytes() - reserve)
        return cls(room, max(1, accounts, len(users)))

    @property
    def equal(self) -> int:
        """The bytes that each has where all have the same."""
        return self.room // self.accounts

    @property
    def doubtful(self) -> int:
        """The bytes that an account's copies of doubtful worth may take."""
        return min(self.room // _DOUBTFUL, self.equal)

    def allowance(self, taken: int, free: int) -> int | None:
        """Return the bytes that an account which has `taken` so many may still take.

        `free` bytes are, of the disk, on top of its reserve. None: there is nobody to leave it to.
        """
        if self.accounts == 1:
            return None
        return max(self.equal - taken, free - self.room // _FOR_OTHERS)
