"""Commit to a T3-shaped database as T3's server does, and measure each commit.

One connection, WAL, synchronous FULL, foreign keys, busy_timeout 0. This file needs nothing but the
standard library: `demo.writer.Writer(user=...)` hands its text to an interpreter of that user's,
who may not be able to read this tree.

Lines on standard input: `mark NAME` (later commits count for the window NAME), `pause`, `resume`.
Each is answered by one line of JSON once it holds. SIGTERM or the end of the input closes the
database and prints the statistics.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import select
import signal
import sqlite3
import time
import uuid
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Window:
    """The commits of one stretch of time; ms from BEGIN IMMEDIATE to COMMIT's return."""

    commits: int
    errors: int
    p50: float
    p99: float
    p999: float
    longest: float


def summarize(latencies_ns: array[int], errors: int) -> Window:
    """Rank latencies in nanoseconds (nearest rank); zeros where there are none."""
    ordered = sorted(latencies_ns)

    def rank(share: float) -> float:
        at = max(0, math.ceil(share * len(ordered)) - 1)
        return round(ordered[at] / 1e6, 3) if ordered else 0.0

    return Window(len(ordered), errors, rank(0.5), rank(0.99), rank(0.999), rank(1.0))


class _Server:
    """The connection and the one transaction that it repeats."""

    def __init__(self, path: str, journal_mode: str, busy_timeout_ms: int) -> None:
        self._database = sqlite3.connect(path, timeout=busy_timeout_ms / 1000, isolation_level=None)
        # What node:sqlite and T3 set; synchronous FULL is the default and said here to keep it so.
        for pragma in (f"journal_mode={journal_mode}", "foreign_keys=ON", "synchronous=FULL"):
            self._database.execute(f"PRAGMA {pragma}")
        found = self._database.execute(
            "SELECT thread_id FROM projection_threads ORDER BY rowid DESC LIMIT 50"
        )
        self._threads = [str(row[0]) for row in found]
        self._turn = 0
        self._text = ("The quick server answers while somebody copies what it says. " * 20)[:1100]

    def commit(self) -> None:
        """Write an event, its message, its receipt and all counters in one transaction."""
        self._turn += 1
        thread = self._threads[self._turn // 20 % len(self._threads)]
        event, message, command, turn = (str(uuid.uuid4()) for _ in range(4))
        milliseconds = time.time_ns() // 10**6 % 1000
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{milliseconds:03d}Z"
        run = self._database.execute
        run("BEGIN IMMEDIATE")
        number = run("SELECT max(sequence) + 1 FROM orchestration_events").fetchone()[0]
        version = run(
            "SELECT coalesce(max(stream_version), -1) + 1 FROM orchestration_events"
            " WHERE aggregate_kind = 'thread' AND stream_id = ?",
            (thread,),
        ).fetchone()[0]
        payload = (
            f'{{"threadId":"{thread}","messageId":"{message}","moment":{number},'
            f'"text":"{self._text[:400]}"}}'
        )
        run(
            "INSERT INTO orchestration_events VALUES"
            " (?,?,'thread',?,?,'thread.message-sent',?,?,NULL,?,'provider',?,'{}')",
            (number, event, thread, version, at, command, command, payload),
        )
        run(
            "INSERT INTO projection_thread_messages VALUES (?,?,?,'assistant',?,0,?,?,NULL)",
            (message, thread, turn, f"{self._text}#{number}", at, at),
        )
        run(
            "INSERT INTO orchestration_command_receipts VALUES (?,'thread',?,?,?,'accepted',NULL)",
            (command, thread, at, number),
        )
        run("UPDATE projection_state SET last_applied_sequence = ?, updated_at = ?", (number, at))
        run("COMMIT")

    def give_up(self) -> None:
        """Roll back what a failed transaction left open."""
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def close(self) -> None:
        self._database.close()


class _Session:
    """The loop: commits at the pace asked for, and listens to standard input meanwhile."""

    def __init__(self, server: _Server, interval_s: float, seconds: float, linger: bool) -> None:
        self._server, self._interval_s, self._linger = server, interval_s, linger
        self._until = time.monotonic() + seconds if seconds else math.inf
        self._name = ""
        self._latencies: dict[str, array[int]] = {"": array("q")}
        self._errors: dict[str, int] = {"": 0}
        self._paused = self._stopping = False
        self._input = b""

    def stop(self, *_: object) -> None:
        self._stopping = True

    def run(self) -> None:
        """Commit until SIGTERM, the end of the input, or (without linger) of the time."""
        due, started = time.monotonic(), False
        while not self._stopping:
            over = time.monotonic() >= self._until
            if over and not self._linger:
                return
            idle = over or self._paused
            # A tenth of a second bounds how late SIGTERM is seen: no signal ends a select.
            if select.select([0], [], [], 0.1 if idle else max(0.0, due - time.monotonic()))[0]:
                self._listen()
            elif not idle and time.monotonic() >= due:
                self._measure()
                # No catching up after a stall: a browser's user does not type faster afterwards.
                due = max(due + self._interval_s, time.monotonic())
                if not started and self._latencies[self._name]:
                    started = True
                    _say({"started": os.getpid()})

    def report(self) -> dict[str, object]:
        everything = array("q")
        for latencies in self._latencies.values():
            everything.extend(latencies)
        total = summarize(everything, sum(self._errors.values()))
        windows = {name: asdict(self._window(name)) for name in self._latencies}
        return {**asdict(total), "windows": windows}

    def _window(self, name: str) -> Window:
        return summarize(self._latencies[name], self._errors[name])

    def _measure(self) -> None:
        began = time.perf_counter_ns()
        try:
            self._server.commit()
        except sqlite3.OperationalError as error:
            self._server.give_up()
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            self._errors[self._name] += 1
            return
        self._latencies[self._name].append(time.perf_counter_ns() - began)

    def _listen(self) -> None:
        data = os.read(0, 4096)
        if not data:
            self._stopping = True
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            verb, _, name = line.decode().partition(" ")
            answer: dict[str, object] = {"done": verb}
            if verb == "mark":
                answer.update(window=self._name, **asdict(self._window(self._name)))
                self._name = name
                self._latencies.setdefault(name, array("q"))
                self._errors.setdefault(name, 0)
            elif verb in ("pause", "resume"):
                self._paused = verb == "pause"
            _say(answer)


def _say(answer: Mapping[str, object]) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    """`python3 -m demo.writer PATH --interval 0.002`; see the top of this file."""
    about = "Commit as T3's server does, and measure it."
    parser = argparse.ArgumentParser(prog="demo.writer", description=about)
    parser.add_argument("path")
    pace = "seconds from one commit to the next"
    parser.add_argument("--interval", type=float, default=0.002, help=pace)
    patience = "milliseconds; T3's server has 0"
    parser.add_argument("--busy-timeout", type=int, default=0, help=patience)
    parser.add_argument("--journal-mode", choices=("wal", "delete"), default="wal")
    span = "commit for so long; 0: until it is stopped"
    parser.add_argument("--seconds", type=float, default=0.0, help=span)
    parser.add_argument("--linger", action="store_true", help="after that, keep the database open")
    given = parser.parse_args()
    server = _Server(given.path, given.journal_mode, given.busy_timeout)
    session = _Session(server, given.interval, given.seconds, given.linger)
    signal.signal(signal.SIGTERM, session.stop)
    try:
        session.run()
    finally:
        server.close()
    _say(session.report())


if __name__ == "__main__":
    main()
