"""What is looked at before a bump begins, since it would come out only once somebody's server is down: ports, disks, room."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from t3_backup.autoupdate.snapshots import Snapshot
from t3_backup.errors import Failure
from t3_backup.t3.servers import Server

UNTOUCHED = "nothing was changed"
_SPARE_BYTES = 1 << 30  # for a version and what comes in the meantime


def must_be_told_apart(everybody: Sequence[Server]) -> None:
    """Where a server listens is known before it is stopped, else no login could tell how it went. Raises Failure."""
    users: dict[int, str] = {}
    for one in everybody:
        if one.port is None and one.runs():
            raise Failure(f"{one.user}: a server runs, and no T3_PORT in {one.settings} says on which port; {UNTOUCHED}")
        if one.port is not None and (other := users.setdefault(one.port, one.user)) != one.user:
            raise Failure(f"{one.user}: T3_PORT in {one.settings} is {one.port}, which is that of {other}; {UNTOUCHED}")


def must_have_room(root: Path, found: Sequence[Server], known: Mapping[str, Sequence[Snapshot]]) -> None:
    """For the version, a copy in the gate, and what is put back in the worst case, which may be on another disk. Raises Failure."""
    sizes = {one.user: known[one.user][0].bytes if known[one.user] else 0 for one in found}
    _must_have(root, _SPARE_BYTES + 2 * max(sizes.values(), default=0))
    for one in found:
        if sizes[one.user]:
            _must_have(one.account.home, 2 * sizes[one.user])  # what the newer one makes of it, and the old one beside that


def _must_have(path: Path, needed: int) -> None:
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise Failure(f"{path}: {free >> 20} MiB are free there, and a bump may take {needed >> 20}: make room")
