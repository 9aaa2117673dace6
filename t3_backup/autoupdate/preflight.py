"""Check ports, databases and disks before a bump takes a server down."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from t3_backup.autoupdate.faults import AccountFault
from t3_backup.autoupdate.forecast import Forecast, why_no_room
from t3_backup.autoupdate.programs import room
from t3_backup.autoupdate.programs.installations import Installations
from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.errors import Failure
from t3_backup.store.manifest import Manifest
from t3_backup.t3 import port_owner
from t3_backup.t3.files import state_database
from t3_backup.t3.servers import Server
from t3_backup.t3.unit import PORT_VARIABLE
from t3_backup.text import quote

UNTOUCHED = "nothing was changed"
_SPARE_BYTES = 256 << 20  # for what comes in the meantime
_TRIED_IN = Path("/var/lib")  # beneath it systemd has the folders of transient users
# of data: what is tried, and what a version makes of it there, which may be a copy that grows
_TRIED_TIMES = 4


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
    back = f"bring it back first (t3-backup-state restore {quote(one.user)})"
    gone = f"{state_database(one.account.home)} is gone"
    return f"{gone}, and there are {len(known)} snapshots of it: {back}"


def check_disk_space(
    installations: Installations, version: str, known: Mapping[str, Sequence[Manifest]]
) -> None:
    """Check that there is room for the version and the gate. Raises Failure, OSError."""
    largest = max((found[0].total_bytes for found in known.values() if found), default=0)
    there = installations.is_installed(version)
    needed = {installations.root: _SPARE_BYTES} if there else room.version_room(installations)
    needed[_TRIED_IN] = needed.get(_TRIED_IN, 0) + _TRIED_TIMES * largest
    by_disk: dict[int, tuple[Path, int]] = {}
    for place, size in needed.items():
        found = next(path for path in (place, *place.parents) if path.exists())
        first, before = by_disk.get(device := os.stat(found).st_dev, (found, 0))
        by_disk[device] = (first, before + size)
    for place, size in by_disk.values():
        status = os.statvfs(place)
        if why := why_no_room(status.f_bavail * status.f_frsize, size):
            raise Failure(f"{place}: {why}")


def check_home(one: Server, forecast: Forecast) -> None:
    """Check that the disk of a home has room for the way there and back. Raises AccountFault."""
    if forecast.why_no_room:
        raise AccountFault(f"{one.account.home}: {forecast.why_no_room}")
