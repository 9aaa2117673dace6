"""Look at what T3 is at, by a worker that is the account's owner."""

from __future__ import annotations

import threading

from t3_backup.accounts import Account
from t3_backup.errors import Failure, SourceAbsent
from t3_backup.t3.servers import Activity
from t3_backup.worker import client
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations.activity import ReadActivity

_SECONDS = 30.0


def read_activity(account: Account, seconds: float = _SECONDS) -> Activity | None:
    """Read it from the account's databases; None where there is none, and from no other trouble.

    Else an account would be switched without a snapshot. Raises Failure, also where the home does
    not answer within so many seconds.
    """
    # it writes nothing, so the store's disk has no say in it
    limits = Limits(2 * seconds, seconds, wal_budget=0, reserve=0, free_bytes=lambda: 0)
    try:
        found = client.ask(account, ReadActivity(), limits, threading.Event())
    except SourceAbsent:
        return None
    except Failure as failure:
        raise Failure(f"{account.user}: {failure}") from failure
    return Activity(found.level, found.turns, found.live, found.databases, found.free_bytes)
