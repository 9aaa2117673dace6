"""Check ports, databases and disks before a bump takes a server down."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.errors import Failure
from t3_backup.store.manifest import Manifest
from t3_backup.t3.files import state_database
from t3_backup.t3.servers import Server
from t3_backup.t3.unit import PORT_VARIABLE

UNTOUCHED = "nothing was changed"
_SPARE_BYTES = 1 << 30  # for a version and what comes in the meantime


def check_ports(everybody: Sequence[Server]) -> None:
    """Check that each running server has a known port of its own. Raises Failure.

    Without it no login could tell how a move went.
    """
    users: dict[int, str] = {}
    for one in everybody:
        if one.port is None and one.runs():
            why = f"a server runs, and no {PORT_VARIABLE} in {one.settings} says on which port"
            raise Failure(f"{one.user}: {why}; {UNTOUCHED}")
        if one.port is not None and (other := users.setdefault(one.port, one.user)) != one.user:
            why = f"{PORT_VARIABLE} in {one.settings} is {one.port}, which is that of {other}"
            raise Failure(f"{one.user}: {why}; {UNTOUCHED}")


def why_no_database(one: Server, snapshots: Snapshots) -> str:
    """Say what to do where an account without a database had one, or has another.

    Its disk may not be mounted. Empty where it never had one.
    """
    if not (known := snapshots.list_snapshots(one.user)):
        return snapshots.why_uncovered(one.user)
    back = f"bring it back first (t3-backup-state restore {one.user})"
    gone = f"{state_database(one.account.home)} is gone"
    return f"{gone}, and there are {len(known)} snapshots of it: {back}"


def check_disk_space(
    root: Path, found: Sequence[Server], known: Mapping[str, Sequence[Manifest]]
) -> None:
    """Check that there is room for the version, the gate and the way back. Raises Failure."""
    sizes = {one.user: known[one.user][0].total_bytes if known[one.user] else 0 for one in found}
    _check_free(root, _SPARE_BYTES + 2 * max(sizes.values(), default=0))
    for one in found:
        if sizes[one.user]:
            # what the newer one makes of it, and the old one beside that
            _check_free(one.account.home, 2 * sizes[one.user])


def _check_free(path: Path, needed: int) -> None:
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        found = f"{free >> 20} MiB are free there, and a bump may take {needed >> 20}"
        raise Failure(f"{path}: {found}: make room")
