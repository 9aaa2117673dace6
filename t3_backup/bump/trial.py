"""Try one version of T3 on one state, from start to stop, and say at which step it failed. It runs inside the gate's sandbox.

    start      it ended by itself
    serve      it never answered
    pairing    nobody can log in (step and reason as `pairing` has them)
    migration  the database went to a lower level, or the server speaks of a migration that failed
    data       rows of the user's history are gone, or can't be read
    steady     it ended later, after it had answered
    stop       it did not stop when it was asked to

`python3 -m t3_backup.bump.trial` prints one JSON object. What it says is the candidate's word, too: they are the same user.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apsw

from t3_backup.bump import pairing
from t3_backup.bump.pairing import PairingFailed

TABLES = ("projection_projects", "projection_threads", "projection_thread_messages", "orchestration_events")
STATE = Path("userdata/state.sqlite")
_STOPPED = (0, 130)  # T3 ends with 130 when it is asked to
_TAIL_LINES, _LINE_CHARS, _LOG_BYTES = 20, 500, 64 << 10
_POLL_S = 0.1
_TROUBLE = re.compile(r"migration.*(fail|error)|SqlError|SQLITE_", re.IGNORECASE)


@dataclass
class Verdict:
    """What it came to; as JSON it is what the gate reads."""

    passed: bool = False
    step: str = ""
    reason: str = ""
    endpoint: str | None = None
    probe: int | None = None  # status of GET /: all that a probe of liveness would have seen
    server_version: str | None = None
    level_before: int | None = None
    level_after: int | None = None
    log: tuple[str, ...] = ()


class TurnedAway(Exception):
    """It failed at a step."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(reason)
        self.step = step


@dataclass(frozen=True)
class Patience:
    """How long each step may take, in seconds."""

    serve: float
    pair: float
    watch: float
    stop: float


def trial(t3: Path, base_dir: Path, port: int, patience: Patience) -> Verdict:
    """Try the program `t3` on the state in `base_dir`, which it changes."""
    found = Verdict()
    try:
        before = _census(base_dir / STATE)
    except apsw.Error as error:
        found.step, found.reason = "data", f"the database can't be read as it is: {error}"
        return found
    found.level_before = before.get("level")
    with tempfile.TemporaryFile() as log:
        # Where this process is killed, the end of its unit is the server's, too.
        line = [str(t3), "serve", "--host", "127.0.0.1", "--port", str(port), "--base-dir", str(base_dir)]
        server = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, process_group=0)
        try:
            _steps(found, server, t3, base_dir, port, patience, before, log.fileno())
            found.passed = True
        except TurnedAway as failed:
            found.step, found.reason = failed.step, str(failed)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        found.log = () if found.passed else _tail(log.fileno())
    return found


def _steps(
    found: Verdict,
    server: subprocess.Popen[bytes],
    t3: Path,
    base_dir: Path,
    port: int,
    patience: Patience,
    before: dict[str, Any],
    log: int,
) -> None:
    _await(server, port, patience.serve)
    found.probe = _status(port, patience.pair)
    found.server_version = _version(port, patience.pair)
    if found.server_version is None:
        raise TurnedAway("serve", f"it listens and does not answer within {patience.pair:g} s")
    try:
        found.endpoint = pairing.pair(t3, base_dir, port, patience.pair).endpoint
    except PairingFailed as failed:
        raise TurnedAway("pairing", str(failed)) from None
    _watch(server, patience.watch)
    try:
        after = _census(base_dir / STATE)
    except apsw.Error as error:
        raise TurnedAway("data", f"its database can't be read: {error}") from None
    found.level_after = after.get("level")
    if found.level_after is None or (found.level_before or 0) > found.level_after:
        raise TurnedAway("migration", f"the database went from level {found.level_before} to {found.level_after}")
    if trouble := next((line for line in _tail(log, 10_000) if _TROUBLE.search(line)), None):
        raise TurnedAway("migration", f"it said: {trouble}")
    for table in TABLES:
        if after.get(table, 0) < before.get(table, 0):
            raise TurnedAway("data", f"{table} had {before[table]} rows, and has {after.get(table, 0)}")
    _stop(server, patience.stop)


def _await(server: subprocess.Popen[bytes], port: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (code := server.poll()) is not None:
            raise TurnedAway("start", f"it ended with {code} before it listened")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(_POLL_S)
    raise TurnedAway("serve", f"it does not listen after {seconds:g} s")


def _get(port: int, path: str, seconds: float) -> tuple[int, bytes] | None:
    """Status and body; None without an answer. No proxy of the environment is asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=seconds) as answer:
            return answer.status, answer.read(_LOG_BYTES)
    except urllib.error.HTTPError as error:
        return error.code, b""
    except (OSError, ValueError):
        return None


def _status(port: int, seconds: float) -> int | None:
    answer = _get(port, "/", min(seconds, 5.0))
    return None if answer is None else answer[0]


def _version(port: int, seconds: float) -> str | None:
    """What it says that it is; empty where it answers something else, None where it doesn't answer."""
    answer = _get(port, "/.well-known/t3/environment", seconds)
    if answer is None:
        return None
    try:
        return str(json.loads(answer[1])["serverVersion"])[:100]
    except (ValueError, KeyError, TypeError):
        return ""


def _watch(server: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        code = server.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    raise TurnedAway("steady", f"it ended with {code} within {seconds:g} s after a login")


def _stop(server: subprocess.Popen[bytes], seconds: float) -> None:
    server.terminate()
    try:
        code = server.wait(seconds)
    except subprocess.TimeoutExpired:
        raise TurnedAway("stop", f"it still runs {seconds:g} s after SIGTERM") from None
    if code not in _STOPPED:
        raise TurnedAway("stop", f"it ended with {code} on SIGTERM")


def _census(database: Path) -> dict[str, Any]:
    """Level and rows of each table, every row of which is read. Raises apsw.Error."""
    if not database.exists():
        return {}
    found: dict[str, Any] = {}
    with closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        connection.setbusytimeout(5000)
        cursor = connection.cursor()
        cursor.execute("PRAGMA query_only=1")
        tables = {row[0] for row in cursor.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        for table in TABLES:
            if table in tables:
                found[table] = sum(1 for _ in cursor.execute(f'SELECT * FROM "{table}"'))  # noqa: S608 - one of TABLES
        if "effect_sql_migrations" in tables:
            ((found["level"],),) = cursor.execute("SELECT max(migration_id) FROM effect_sql_migrations")
        ((checked,),) = list(cursor.execute("PRAGMA quick_check(1)"))[:1]
        if checked != "ok":
            raise apsw.CorruptError(checked)
    return found


def _tail(log: int, lines: int = _TAIL_LINES) -> tuple[str, ...]:
    """The last lines of the server, fit to be shown."""
    size = os.fstat(log).st_size
    text = os.pread(log, _LOG_BYTES, max(0, size - _LOG_BYTES)).decode(errors="replace")
    shown = ("".join(char if char.isprintable() else "?" for char in line)[:_LINE_CHARS] for line in text.splitlines())
    return tuple(line for line in shown if line.strip())[-lines:]


def main(argv: Sequence[str] | None = None) -> int:
    """The command: exit status 0 where it passed, 1 where not."""
    parser = argparse.ArgumentParser(prog="t3_backup.bump.trial")
    parser.add_argument("--t3", type=Path, required=True)
    parser.add_argument("--base-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--serve", type=float, default=45.0)
    parser.add_argument("--pair", type=float, default=10.0)
    parser.add_argument("--watch", type=float, default=10.0)
    parser.add_argument("--stop", type=float, default=30.0)
    args = parser.parse_args(argv)
    found = trial(args.t3, args.base_dir, args.port, Patience(args.serve, args.pair, args.watch, args.stop))
    print(json.dumps(asdict(found)))
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main())
