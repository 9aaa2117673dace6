"""Tell whether somebody works with a T3 server now: agents, terminals, turns in flight.

Not every child of a server is an agent. It runs helpers of its own package, and it probes the
agents that are installed, at its start and every few minutes. A probe ends by itself: what has been
there for longer is at work.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from t3_backup.errors import Failure
from t3_backup.t3.members import Member, describe_process, list_pids, read_member
from t3_backup.t3.servers import Server

# T3 0.0.42 ends its own probes, where an agent doesn't answer, after 4 s (`claude --version`), 10 s
# (`codex app-server`) and 27 s (what claude can do).
PROBE_SECONDS = 30.0
_POLL_S = 0.25
_MODULES = "node_modules"
_PACKAGE, _SCOPE = "t3", "@t3code"  # of npm: T3's own, and those of its programs by platform
_MONITOR = "resource-monitor"  # 0.0.42 keeps .../resource-monitor/linux-x64/t3-resource-monitor


def find_busy(
    everybody: Sequence[Server], probe_seconds: float = PROBE_SECONDS, *, wait: bool = True
) -> dict[str, str]:
    """Say of each account that is worked with who does; of one that can't be told, why.

    An idle account is not in it. What began within the last `probe_seconds` is waited for until it
    is that old, or gone: all accounts share this wait. Without `wait`, it does not count.
    """
    found: dict[str, str] = {}
    young: dict[str, list[Member]] = {}
    servers = {one.user: one for one in everybody}
    for user, one in servers.items():
        try:
            young[user] = _list_agents(one)
        except Failure as failure:
            found[user] = str(failure)
    until = time.monotonic() + probe_seconds
    while True:
        late = time.monotonic() >= until
        for user, before in list(young.items()):
            there = [one for one in before if one.is_there()]
            old = any(one.age >= probe_seconds for one in there)
            if old or (there and late):
                found[user] = _describe_agents(servers[user], there)
            if old or late or not there or not wait:
                del young[user]
        if not young:
            break
        time.sleep(_POLL_S)
    for user, one in servers.items():
        if user not in found and (why := _why_in_flight(one)):
            found[user] = why
    return found


def _list_agents(one: Server) -> list[Member]:
    """List what runs beneath a server and is none of its own helpers. Raises Failure."""
    if one.service is None or not one.service.runs():
        return []
    main = one.service.show("MainPID")
    server = one.running_program()
    members = map(read_member, list_pids(one.service.show("ControlGroup")))
    return [
        member
        for member in members
        if member and str(member.pid) != main and not is_own(member.program, server)
    ]


def is_own(program: Path | None, server: Path | None) -> bool:
    """Tell whether a program beneath a server is one of T3's own, by their paths. Pure.

    What another package has brought into T3's is none: an agent may be there.
    """
    if program is None:
        return False
    parts = program.parts
    if _MODULES in parts:
        innermost = len(parts) - parts[::-1].index(_MODULES)
        if parts[innermost] in (_PACKAGE, _SCOPE):
            return True
    helper = program.name == f"{_PACKAGE}-{_MONITOR}" and _MONITOR in parts
    return helper or program == server


def _describe_agents(one: Server, agents: Sequence[Member]) -> str:
    assert one.service is not None
    more = f", and {len(agents) - 1} more" if len(agents) > 1 else ""
    return f"{describe_process(agents[0].pid)} runs beneath {one.service.unit}{more}"


def _why_in_flight(one: Server) -> str:
    """Say how many turns are in flight in a database; why, where it can't be read."""
    try:
        if one.service is None or not one.service.runs():
            return ""
        live = one.read_activity()
    except Failure as failure:
        return str(failure)
    return f"{live.turns} turns are in flight" if live is not None and live.turns else ""
