"""Look at what T3 is at, by a worker that is the account's owner."""

from __future__ import annotations

import threading
from typing import TypeVar

from t3_backup.accounts import Account
from t3_backup.errors import Failure, SourceAbsent
from t3_backup.store.census import Census
from t3_backup.t3.servers import Activity
from t3_backup.worker import client
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations import Operation
from t3_backup.worker.operations.activity import ReadActivity
from t3_backup.worker.operations.restore import CountRows
from t3_backup.worker.protocol import Event

_SECONDS = 30.0
_COUNT_S = 300.0  # for all rows of 5 GB
A = TypeVar("A", bound=Event)


def read_activity(account: Account, seconds: float | None = None) -> Activity | None:
    """Read it from the account's databases; None where there is none, and from no other trouble.

    Else an account would be switched without a snapshot. Raises Failure, also where the home does
    not answer within so many seconds.
    """
    try:
        found = _ask(account, ReadActivity(), seconds or _SECONDS)
    except SourceAbsent:
        return None
    except Failure as failure:
        raise Failure(f"{account.user}: {failure}") from failure
    return Activity(found.level, found.turns, found.live, found.databases, found.free_bytes)


def count_rows(account: Account, database: str) -> Census | None:
    """Count what is in one of the account's databases now; None where that can't be."""
    try:
        return _ask(account, CountRows(database), _COUNT_S).census
    except Failure:
        return None


def _ask(account: Account, operation: Operation[A], seconds: float) -> A:
    """Ask a worker, which is ended where it shows no sign of life for so many seconds."""
    # it writes nothing, so the store's disk has no say in it
    limits = Limits(2 * seconds, seconds, wal_budget=0, reserve=0, free_bytes=lambda: 0)
    return client.ask(account, operation, limits, threading.Event())
