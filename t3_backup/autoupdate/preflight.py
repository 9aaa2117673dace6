"""Check ports, databases and disks before a bump takes a server down."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from t3_backup.autoupdate.faults import AccountFault
from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.errors import Failure
from t3_backup.store.manifest import Manifest
from t3_backup.t3 import port_owner
from t3_backup.t3.files import state_database
from t3_backup.t3.servers import Activity, Server
from t3_backup.t3.unit import PORT_VARIABLE

UNTOUCHED = "nothing was changed"
_SPARE_BYTES = 1 << 30  # for a version and what comes in the meantime


def check_port(one: Server, everybody: Sequence[Server]) -> None:
    """Check that a server has a known port, and that nobody else has it.

    Without it no login could tell how a move went. Raises AccountFault, which names who has it.
    """
    if one.port is None:
        if one.runs():
            why = f"a server runs, and no {PORT_VARIABLE} in {one.settings} says on which port"
            raise AccountFault(why)
        return
    if other := describe_taker(one):
        raise AccountFault(other)
    same = [other.user for other in everybody if other.port == one.port and other.user != one.user]
    if same and one.account.uid not in port_owner.listener_uids(one.port):
        which = f"{PORT_VARIABLE} in {one.settings} is {one.port}"
        raise AccountFault(f"{which}, which is that of {', '.join(same)}")


def describe_taker(one: Server) -> str:
    """Name who else has taken the port of a server, and what to do; empty for nobody."""
    who = "" if one.port is None else port_owner.describe_other(one.port, one.account.uid)
    return f"port {one.port} is taken by {who}: end that, or change {one.settings}" if who else ""


def why_no_database(one: Server, snapshots: Snapshots) -> str:
    """Say what to do where an account without a database had one, or has another.

    Its disk may not be mounted. Empty where it never had one.
    """
    if not (known := snapshots.list_snapshots(one.user)):
        return snapshots.why_uncovered(one.user)
    back = f"bring it back first (t3-backup-state restore {one.user})"
    gone = f"{state_database(one.account.home)} is gone"
    return f"{gone}, and there are {len(known)} snapshots of it: {back}"


def check_disk_space(root: Path, known: Mapping[str, Sequence[Manifest]]) -> None:
    """Check that there is room for the version and the gate. Raises Failure."""
    largest = max((found[0].total_bytes for found in known.values() if found), default=0)
    status = os.statvfs(root)
    needed = _SPARE_BYTES + 2 * largest
    if why := _why_no_room(status.f_bavail * status.f_frsize, needed):
        raise Failure(f"{root}: {why}")


def check_home(one: Server, live: Activity, known: Sequence[Manifest]) -> None:
    """Check that the disk of a home has room for the way there and back. Raises AccountFault."""
    # what the newer one makes of it, and the old one beside that
    needed = 2 * known[0].total_bytes if known else 0
    if needed and (why := _why_no_room(live.free_bytes, needed)):
        raise AccountFault(f"{one.account.home}: {why}")


def _why_no_room(free: int, needed: int) -> str:
    """Say what is lacking and what to do; empty where that many bytes are free."""
    if free >= needed:
        return ""
    return f"{free >> 20} MiB are free there, and a bump may take {needed >> 20}: make room"
