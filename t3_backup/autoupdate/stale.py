"""Know of a database that a newer T3 has made beside an account's own, and put it aside.

A newer `t3` that is called by hand copies V1's database into one of its own, once. What V1 writes
from then on is not in it, and the next version that works with it would go on from there.
"""

from __future__ import annotations

import secrets
import threading

from t3_backup.accounts import Account
from t3_backup.errors import Failure, SourceAbsent
from t3_backup.t3.databases import shown_name, stale_successor
from t3_backup.t3.servers import Activity, Server
from t3_backup.text import utc_now
from t3_backup.worker import client
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations.restore import PutAside

_SECONDS = 60.0


def find_stale(own: str | None, live: Activity | None) -> str:
    """Name the database of a newer T3 that lies beside what a program works with; empty: none.

    `own` is the name of the database which the account's program makes; None: not known. One that
    a server has open is not stale.
    """
    there = () if live is None else live.databases
    stale = stale_successor(own, [one.file for one in there])
    return "" if any(one.held for one in there if one.file == stale) else stale


def put_stale_aside(server: Server, own: str | None) -> str:
    """Put a stale database of an account aside, and say so; empty where there is none.

    `own`: as in `find_stale`. Nothing of it is lost. Raises Failure, also where somebody has it
    open.
    """
    stale = find_stale(own, server.read_activity())
    if not stale or not (name := _put_aside(server.account, stale)):
        return ""
    made = "a newer t3 that was called by hand had made it"
    return f"{shown_name(stale)} was put aside as {shown_name(name)}: {made}; it is kept"


def _put_aside(account: Account, file: str) -> str:
    """Give a database another name, and return that; empty: it isn't there any more."""
    aside = f".replaced-{utc_now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    limits = Limits(2 * _SECONDS, _SECONDS, wal_budget=0, reserve=0, free_bytes=lambda: 0)
    try:
        client.ask(account, PutAside(file, aside), limits, threading.Event())
    except SourceAbsent:
        return ""
    except Failure as failure:
        why = f"{shown_name(file)} could not be put aside: {failure}"
        raise Failure(f"{account.user}: {why}") from failure
    return file + aside
