"""Try one version of T3 on one state, from start to stop.

It says at which step the version failed. It runs inside the gate's sandbox: `python3 -m
t3_backup.autoupdate.gate.trial` prints one JSON object. Candidate and trial are the same user, so
what it prints may be the candidate's word.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import apsw

from t3_backup.autoupdate.gate.candidate import Candidate
from t3_backup.autoupdate.gate.history import (
    History,
    check_content,
    check_ledger,
    find_database,
    read_history,
)
from t3_backup.autoupdate.gate.steps import GATE, MARK, STATE, TurnedAway
from t3_backup.system import native
from t3_backup.t3 import pairing
from t3_backup.t3.content import Brought
from t3_backup.t3.endpoints import ENVIRONMENT_PATH
from t3_backup.t3.files import STATE_IN_BASE
from t3_backup.t3.ledger import Ledger
from t3_backup.t3.limits import STEP_SECONDS
from t3_backup.t3.pairing import PairingFailed
from t3_backup.t3.unit import STOPPED_STATUS

_STOPPED = (0, STOPPED_STATUS)
_PROBE_S = 5.0  # for GET /, which is told and decides nothing
_END_S = 2.0  # for one that closes its connections since it is about to end
_POLL_S = 0.5


@dataclass
class Outcome:
    """What a trial came to; as JSON it is what the gate reads."""

    passed: bool = False
    step: str = ""
    reason: str = ""
    slow: bool = False
    endpoint: str | None = None
    probe: int | None = None  # status of GET /: all that a probe of liveness sees
    level_before: int | None = None
    level_after: int | None = None
    database: str = ""  # that it works with
    ledger: Ledger = ()  # of that, afterwards
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Patience:
    """The limit of each step, in seconds."""

    serve: float
    pair: float
    watch: float
    stop: float
    bring: float  # without anything more of what is brought over while it serves


@dataclass(frozen=True)
class Given:
    """What is tried: a program, on a state."""

    t3: Path
    base_dir: Path
    port: int
    live: str  # the database that was worked with so far; empty: there is none

    @property
    def userdata(self) -> Path:
        """Say where its databases are."""
        return (self.base_dir / STATE_IN_BASE).parent


def try_state(given: Given, patience: Patience) -> Outcome:
    """Try a program on a state, which this changes."""
    found = Outcome()
    try:
        before = read_history(given.userdata / given.live) if given.live else History()
    except (apsw.Error, ValueError) as error:
        found.step, found.reason = STATE, f"the database can't be read as it is: {error}"
        return found
    found.level_before = before.level
    try:
        with Candidate(given.t3, given.base_dir, given.port) as server:
            try:
                _take_steps(found, server, given, patience, before)
                found.passed = True
            except TurnedAway as failed:
                found.step, found.reason, found.slow = failed.step, str(failed), failed.slow
                if server.ended not in (None, *_STOPPED) and server.why_ended:
                    found.reason += f": {server.why_ended}"
    except OSError as error:
        found.passed = False
        found.step, found.reason = "start", f"it can't be started: {error.strerror}"
        return found
    if found.step:
        found.log = server.log
    return found


def _take_steps(
    found: Outcome, server: Candidate, given: Given, patience: Patience, before: History
) -> None:
    if not server.await_port(patience.serve):
        if server.ended is not None:
            raise TurnedAway("start", f"it ended with {server.ended} before it listened")
        raise TurnedAway("serve", f"it does not listen after {patience.serve:g} s", slow=True)
    if server.probe_status(ENVIRONMENT_PATH, patience.pair) is None:
        if (code := server.await_end(_END_S)) is not None:
            raise TurnedAway("start", f"it ended with {code} before it answered")
        text = f"it listens and does not answer within {patience.pair:g} s"
        raise TurnedAway("serve", text, slow=True)
    # not before: at first a good one, too, may take long
    found.probe = server.probe_status("/", min(patience.pair, _PROBE_S))
    try:
        found.endpoint = pairing.pair(given.t3, given.base_dir, given.port, patience.pair)
    except PairingFailed as failed:
        also = "" if server.ended is None else f" (the server ended with {server.ended})"
        raise TurnedAway("pairing", f"{failed}{also}", slow=failed.slow) from None
    found.database = find_database(given.userdata, server.open_names(given.userdata))
    _compare_history(found, given, before)
    _check_for_trouble(server)
    if (code := server.await_end(patience.watch)) is not None:
        when = f"within {patience.watch:g} s after a login"
        raise TurnedAway("steady", f"it ended with {code} {when}")
    _await_content(found, given, before, server, patience.bring)
    _check_for_trouble(server)
    server.terminate()
    code = server.await_end(patience.stop)
    if code is None:
        raise TurnedAway("stop", f"it still runs {patience.stop:g} s after SIGTERM")
    if code not in _STOPPED:
        raise TurnedAway("stop", f"it ended with {code} on SIGTERM")
    _check_for_trouble(server)
    # as the next start finds it
    check_content(before, _compare_history(found, given, before))


def _compare_history(found: Outcome, given: Given, before: History) -> History:
    """Read what it has made of the state. Raises TurnedAway unless its migrations are sound.

    What V2 brings over, or rebuilds, may come later: its content is looked for in the end.
    """
    try:
        after = read_history(given.userdata / (found.database or given.live or "none"), before)
    except (apsw.Error, ValueError) as error:
        raise TurnedAway("data", f"its database can't be read: {error}") from None
    found.level_after, found.ledger = after.level, after.ledger
    check_ledger(before, after)
    if not after.is_v2:
        check_content(before, after)
    return after


def _await_content(
    found: Outcome, given: Given, before: History, server: Candidate, seconds: float
) -> None:
    """Wait until all content is there, as long as more of it comes within so many seconds.

    Raises TurnedAway.
    """
    known, until = dict[Brought, int](), 0.0
    while True:
        after = _compare_history(found, given, before)
        try:
            check_content(before, after)
        except TurnedAway:
            if any(count > known.get(one, -1) for one, count in after.brought.items()):
                known = after.brought
                until = time.monotonic() + seconds
            elif time.monotonic() >= until:
                raise
        else:
            return
        if server.await_end(_POLL_S) is not None:
            raise TurnedAway("steady", f"it ended with {server.ended} while it brought data over")


def _check_for_trouble(server: Candidate) -> None:
    if server.trouble is not None:
        raise TurnedAway("migration", f"it said: {server.trouble}")


def _why_not_alone() -> str:
    """Say why this is not the gate's sandbox; empty where it is."""
    # systemd may leave out what it can't confine
    if os.getuid() == 0:
        return "it would run as root"
    if not MARK.exists():
        return "the file system is that of the machine"
    others = [name for _, name in socket.if_nameindex() if name != "lo"]
    return f"there is a network: {', '.join(others)}" if others else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: exit status 0 where the version passed, 1 where not."""
    parser = argparse.ArgumentParser(prog="t3_backup.autoupdate.gate.trial")
    parser.add_argument("--t3", type=Path, required=True)
    parser.add_argument("--base-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--live", default="")
    parser.add_argument("--serve", type=float, default=STEP_SECONDS)
    parser.add_argument("--pair", type=float, default=STEP_SECONDS)
    parser.add_argument("--watch", type=float, default=10.0)
    parser.add_argument("--stop", type=float, default=30.0)
    parser.add_argument("--bring", type=float, default=STEP_SECONDS)
    meaning = "go on inside of the gate's sandbox only"
    parser.add_argument("--alone", action="store_true", help=meaning)
    args = parser.parse_args(argv)
    # The candidate, which runs as the same user, must not write the outcome in our place.
    native.confine(os.getppid())
    if args.alone and (why := _why_not_alone()):
        found = Outcome(step=GATE, reason=f"the sandbox does not hold: {why}")
    else:
        patience = Patience(args.serve, args.pair, args.watch, args.stop, args.bring)
        given = Given(args.t3, args.base_dir, args.port, args.live)
        found = try_state(given, patience)
    print(json.dumps(asdict(found)))
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main())
