"""Judge what T3's servers have open: what no snapshot covers, and servers that share their state.

Pure. What is wrong is said with what to type next.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from t3_backup.t3.files import STATE_IN_BASE
from t3_backup.t3.open_databases import Held, Server, Stranger, base_dirs_of, is_covered
from t3_backup.text import printable, quote

_FOLDER = os.path.dirname(STATE_IN_BASE)  # beneath the base directory
_SHOWN = 3


@dataclass(frozen=True)
class DoubleServers:
    """Several servers on one base directory, which harms its databases."""

    base_dir: str
    pids: tuple[int, ...]


def uncovered_open(
    held: Sequence[Held],
    base_dir: str,
    covered: Mapping[str, int],
    ignored: Sequence[str] = (),
    device: str = "",
) -> list[Held]:
    """Return what T3 has open and no snapshot has.

    A snapshot has the databases `covered` of `base_dir`: by name, the inode of each, and the
    `device` of their folder, as the worker that looked reads them (0 and empty: unknown). Such a
    file may have been opened by another path (a bind mount, a symlink to /home): it keeps its name
    and its inode. A file that was deleted is in no snapshot, whatever has its name now. `ignored`:
    shell patterns of whole paths, in which a `*` stands for no slash.
    """
    shown = {printable(name): inode for name, inode in covered.items()}
    folder = printable(f"{base_dir.rstrip('/')}/{_FOLDER}")
    return [
        one
        for one in held
        if not is_covered(one, folder, shown, device)
        and not any(_matches(one.path, pattern) for pattern in ignored)
    ]


def _matches(path: str, pattern: str) -> bool:
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def double_servers(servers: Sequence[Server], held: Sequence[Held] = ()) -> list[DoubleServers]:
    """Find servers that share a base directory, by its name or by a database that both hold."""
    pids: dict[str, set[int]] = {}
    for server in servers:
        pids.setdefault(server.base_dir, set()).add(server.pid)
    serving = {server.pid for server in servers}
    for one in held:
        if one.pid in serving and not one.deleted:
            for base in base_dirs_of([one.path]):
                pids.setdefault(base, set()).add(one.pid)
    found: dict[tuple[int, ...], DoubleServers] = {}
    for base, several in pids.items():
        if len(several) > 1:
            key = tuple(sorted(several))
            found.setdefault(key, DoubleServers(base, key))
    return list(found.values())


def explain_uncovered(
    user: str, uncovered: Sequence[Held], base_dir: str, setting: str, ignore: str
) -> str:
    """Say what T3 has open and no snapshot has, and what to type.

    `base_dir` is what is backed up. `setting` names another one, and `ignore` what is meant not to
    be backed up.
    """
    first = uncovered[0]
    shown = [f"{one.path}{' (deleted)' if one.deleted else ''}" for one in uncovered[:_SHOWN]]
    more = f" and {len(uncovered) - _SHOWN} more" if len(uncovered) > _SHOWN else ""
    what = f"T3 has {', '.join(shown)}{more} open (pid {first.pid}), which is not backed up"
    if first.deleted:
        why = "it was removed or replaced under the server, and is gone when that ends"
        from t3_backup.t3.unit import unit_name  # noqa: PLC0415 - a worker starts faster without it

        restart = f"systemctl restart {quote(unit_name(user))}"
        return f"{what}: {why}; next: save what it shows, then {restart}"
    others = base_dirs_of([first.path]) - {base_dir}
    cover = f'{setting}="{user}={others.pop()}", or ' if others else ""
    why = f"it is none of the databases in {base_dir} that are"
    return f'{what}: {why}; next: set {cover}{ignore}="{first.path}" to leave it out'


def explain_stranger(stranger: Stranger) -> str:
    """Say which process that is none of T3's has a database of T3's open."""
    who = f"{stranger.command} (pid {stranger.pid})"
    return f"{who} has {stranger.path} open and is no T3 server; next: end it, if it is not needed"


def explain_double(double: DoubleServers) -> str:
    """Say which servers share a base directory, and what to do."""
    first, *others = map(str, double.pids)
    pids = f"{first} and {', '.join(others)}"
    why = "each writes as if it were alone, which damages the databases"
    return f"two T3 servers use {double.base_dir} (pids {pids}): {why}; next: end one of them"
