"""Find restores that have not ended, for commands that take no lock.

Each runs, or was interrupted, and then it is said what to do. Nothing is ended here; `restore` does
that, under the lock.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from t3_backup.errors import StoreError
from t3_backup.restore import intent_log
from t3_backup.store import lock
from t3_backup.store.store import Store
from t3_backup.text import quote


@dataclass(frozen=True)
class PendingRestore:
    """A restore that has not ended."""

    user: str
    snapshot: str | None = None  # name of what is put back
    began: str | None = None  # RFC 3339
    unit: str | None = None  # of the server that is kept from starting meanwhile
    problem: str = ""  # why what it was about to do can't be read
    store: str = ""  # path of the store that it is of, where that is known by it alone
    running: bool = False  # whether it may run: somebody holds the store

    @property
    def text(self) -> str:
        """What was found and what to do, for people."""
        if self.problem:
            return self.problem
        what = f"a restore of {self.user} to {self.snapshot}, begun at {self.began},"
        if self.running:
            then = "if interrupted, the command that holds the store's lock ends it"
            return f"{what} is running or was interrupted; {then}"
        then = f"the next run ends it; to end it now: t3-backup-state accept {quote(self.user)}"
        then += f"; {self.unit} stays stopped until then" if self.unit else ""
        return f"{what} was interrupted; {then}"

    def as_json(self) -> dict[str, Any]:
        """Return what the interface says of it."""
        return {
            "snapshot": self.snapshot,
            "began": self.began,
            "interrupted": not self.running,
            "text": self.text,
        }


def find_pending(store: Store) -> list[PendingRestore]:
    """Find the restores that have not ended, by user.

    A restore holds the lock from before its intent is there until it is gone. So one that was there
    before and after the lock was seen to be free was interrupted.
    """
    before = {(found.user, found.began) for found in _pending_of(store)}
    held = lock.is_held(store.fd)
    return [
        replace(
            found,
            running=held or (found.user, found.began) not in before or _is_held(found.store),
        )
        for found in _pending_of(store)
    ]


def _is_held(path: str) -> bool:
    """Tell whether somebody holds the store at `path`, where there is one."""
    with contextlib.suppress(StoreError):
        if path:
            with Store.open(Path(path)) as store:
                return lock.is_held(store.fd)
    return False


def _pending_of(store: Store) -> list[PendingRestore]:
    found = []
    for user in intent_log.users_with_intent(store):
        try:
            plan = intent_log.load_intent(store, user)
        except StoreError as error:
            found.append(PendingRestore(user, problem=str(error)))
            continue
        if plan is not None:  # else it has ended meanwhile
            what = (user, plan.snapshot, plan.began, plan.unit)
            found.append(PendingRestore(*what, store=plan.store))
    return found
