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
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import apsw

from t3_backup.autoupdate.gate.candidate import Candidate
from t3_backup.autoupdate.gate.steps import GATE, MARK
from t3_backup.system import native
from t3_backup.t3 import content, pairing
from t3_backup.t3.content import Counted, Said
from t3_backup.t3.endpoints import ENVIRONMENT_PATH
from t3_backup.t3.files import STATE_IN_BASE
from t3_backup.t3.ledger import LEDGER_TABLE, LEVEL_QUERY
from t3_backup.t3.pairing import PairingFailed
from t3_backup.t3.unit import STOPPED_STATUS

_STOPPED = (0, STOPPED_STATUS)
_BUSY_MS = 5000
_PROBE_S = 5.0  # for GET /, which is told and decides nothing


@dataclass
class Outcome:
    """What a trial came to; as JSON it is what the gate reads."""

    passed: bool = False
    step: str = ""
    reason: str = ""
    endpoint: str | None = None
    probe: int | None = None  # status of GET /: all that a probe of liveness sees
    level_before: int | None = None
    level_after: int | None = None
    log: tuple[str, ...] = ()


class TurnedAway(Exception):
    """The candidate failed at a step."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(reason)
        self.step = step


@dataclass(frozen=True)
class Patience:
    """The limit of each step, in seconds."""

    serve: float
    pair: float
    watch: float
    stop: float


@dataclass(frozen=True)
class History:
    """What counts in a database, and what of it was looked for."""

    level: int | None
    content: dict[Counted, int]
    said: dict[Said, int]


def try_state(t3: Path, base_dir: Path, port: int, patience: Patience) -> Outcome:
    """Try the program `t3` on the state in `base_dir`, which this changes."""
    found = Outcome()
    try:
        before = _read_history(base_dir / STATE_IN_BASE)
    except apsw.Error as error:
        found.step, found.reason = "data", f"the database can't be read as it is: {error}"
        return found
    found.level_before = before.level
    try:
        with Candidate(t3, base_dir, port) as server:
            try:
                _take_steps(found, server, t3, base_dir, port, patience, before)
                found.passed = True
            except TurnedAway as failed:
                found.step, found.reason = failed.step, str(failed)
    except OSError as error:
        found.passed = False
        found.step, found.reason = "start", f"it can't be started: {error.strerror}"
        return found
    if found.step:
        found.log = server.log
    return found


def _take_steps(
    found: Outcome,
    server: Candidate,
    t3: Path,
    base_dir: Path,
    port: int,
    patience: Patience,
    before: History,
) -> None:
    if not server.await_port(patience.serve):
        if (code := server.ended) is not None:
            raise TurnedAway("start", f"it ended with {code} before it listened")
        raise TurnedAway("serve", f"it does not listen after {patience.serve:g} s")
    found.probe = server.probe_status("/", min(patience.pair, _PROBE_S))
    if server.probe_status(ENVIRONMENT_PATH, patience.pair) is None:
        raise TurnedAway("serve", f"it listens and does not answer within {patience.pair:g} s")
    try:
        found.endpoint = pairing.pair(t3, base_dir, port, patience.pair)
    except PairingFailed as failed:
        also = "" if server.ended is None else f" (the server ended with {server.ended})"
        raise TurnedAway("pairing", f"{failed}{also}") from None
    _compare_history(found, base_dir, before)
    _check_for_trouble(server)
    if (code := server.await_end(patience.watch)) is not None:
        when = f"within {patience.watch:g} s after a login"
        raise TurnedAway("steady", f"it ended with {code} {when}")
    _check_for_trouble(server)
    server.terminate()
    code = server.await_end(patience.stop)
    if code is None:
        raise TurnedAway("stop", f"it still runs {patience.stop:g} s after SIGTERM")
    if code not in _STOPPED:
        raise TurnedAway("stop", f"it ended with {code} on SIGTERM")
    _check_for_trouble(server)
    _compare_history(found, base_dir, before)  # as the next start finds it


def _compare_history(found: Outcome, base_dir: Path, before: History) -> None:
    """Raise TurnedAway unless all that was there still is."""
    try:
        after = _read_history(base_dir / STATE_IN_BASE, before)
    except apsw.Error as error:
        raise TurnedAway("data", f"its database can't be read: {error}") from None
    found.level_after = after.level
    if after.level is None or (before.level or 0) > after.level:
        text = f"the database went from level {before.level} to {after.level}"
        raise TurnedAway("migration", text)
    for counted, count in before.content.items():
        _check_left(counted.word, count, after.content.get(counted, 0))
    for said, count in before.said.items():
        # of a column that has gone, the rows still are compared
        _check_left(f"{said.what} in {said.table}", count, after.said.get(said, count))


def _check_left(what: str, before: int, after: int) -> None:
    if after < before:
        raise TurnedAway("data", f"there were {before} {what}, and there are {after}")


def _check_for_trouble(server: Candidate) -> None:
    if server.trouble is not None:
        raise TurnedAway("migration", f"it said: {server.trouble}")


def _read_history(database: Path, before: History | None = None) -> History:
    """Count what is in a database, and check the whole file. Raises apsw.Error.

    What counts is what counted `before`: a migration may leave tables behind.
    """
    if not database.exists():
        return History(None, {}, {})
    with closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        connection.setbusytimeout(_BUSY_MS)
        cursor = connection.cursor()
        cursor.execute("PRAGMA query_only=1")
        _read_schema(cursor)
        tables = {
            str(name)
            for (name,) in cursor.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        }
        kept = {
            one: _ask_number(cursor, one.query(_columns(cursor, one.table)))
            for one in (content.counted_in(tables) if before is None else before.content)
            if one.table in tables
        }
        said = {
            one: _ask_number(cursor, f'SELECT {one.measure} FROM "{one.table}"')  # noqa: S608 - of constants alone
            for one in (content.said_in(tables) if before is None else before.said)
            if one.column in _columns(cursor, one.table)
        }
        level = None
        if LEDGER_TABLE in tables:
            ((level,),) = cursor.execute(LEVEL_QUERY)
        ((checked,),) = cursor.execute("PRAGMA integrity_check(1)").fetchall()
        if checked != "ok":
            raise apsw.CorruptError(checked)
    return History(_integer(level), kept, said)


def _columns(cursor: apsw.Cursor, table: str) -> set[str]:
    """Name the columns of a table; none where it is not there."""
    return {str(row[1]) for row in cursor.execute(f'PRAGMA table_info("{table}")')}


def _ask_number(cursor: apsw.Cursor, query: str) -> int:
    ((value,),) = cursor.execute(query).fetchall()
    return _integer(value) or 0


def _read_schema(cursor: apsw.Cursor) -> None:
    """Have SQLite read the schema, as a worker does: trusted only where it can't be read else.

    Raises apsw.Error.
    """
    for trusted in (0, 1):
        cursor.execute(f"PRAGMA trusted_schema={trusted}")
        try:
            cursor.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        except apsw.Error as error:
            if trusted or "unsafe use of" not in str(error):
                raise
        else:
            return


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) else None


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
    parser.add_argument("--serve", type=float, default=45.0)
    parser.add_argument("--pair", type=float, default=10.0)
    parser.add_argument("--watch", type=float, default=10.0)
    parser.add_argument("--stop", type=float, default=30.0)
    meaning = "go on inside of the gate's sandbox only"
    parser.add_argument("--alone", action="store_true", help=meaning)
    args = parser.parse_args(argv)
    # The candidate, which runs as the same user, must not write the outcome in our place.
    native.confine(os.getppid())
    if args.alone and (why := _why_not_alone()):
        found = Outcome(step=GATE, reason=f"the sandbox does not hold: {why}")
    else:
        patience = Patience(args.serve, args.pair, args.watch, args.stop)
        found = try_state(args.t3, args.base_dir, args.port, patience)
    print(json.dumps(asdict(found)))
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main())
