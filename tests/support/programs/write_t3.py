"""Commit to a T3 database as the server of its own kind does, V1 or V2, until standard input ends.

Usage: DATABASE SECONDS|- [--busy-ms N]. With SECONDS it ends after those, too. N is how long a
write waits for somebody else's lock; by itself it is what the server of that level has. Prints
`ready` once its first commit is durable, and in the end `{"commits": N, "busy": N}`: what was
committed, and what failed because somebody held a lock.
"""

from __future__ import annotations

import json
import math
import os
import select
import sqlite3
import sys
import time
import uuid

_INTERVAL_S = 0.003
_LAST_LEVEL_WITHOUT_PATIENCE = 40
_PATIENCE_MS = 5000
_WAL_LIMIT_BYTES = 32 << 20
_V2_THREADS = "orchestration_v2_projection_threads"
_TEXT = "The quick server answers while somebody copies what it says. " * 8


class _Server:
    """The one connection of a server, and the transaction that it repeats."""

    def __init__(self, path: str, busy_ms: int | None) -> None:
        self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
        level = self._number("SELECT max(migration_id) FROM effect_sql_migrations")
        known = {name for (name,) in self._database.execute("SELECT name FROM sqlite_schema")}
        self._is_v2 = _V2_THREADS in known
        patience = _PATIENCE_MS if level > _LAST_LEVEL_WITHOUT_PATIENCE else 0
        for pragma in (
            f"busy_timeout={patience if busy_ms is None else busy_ms}",
            "journal_mode=wal",
            "synchronous=FULL",
            "foreign_keys=ON",
            *([f"journal_size_limit={_WAL_LIMIT_BYTES}"] if self._is_v2 else []),
        ):
            self._database.execute(f"PRAGMA {pragma}")
        self._needed: dict[str, dict[str, object]] = {}
        self._threads = self._find_threads()
        self._turn = 0

    def _number(self, query: str, *values: object) -> int:
        return int(self._database.execute(query, values).fetchone()[0])

    def _find_threads(self) -> list[str]:
        """The newest threads: V1's where V2 has brought none over yet."""
        for table in [_V2_THREADS, "projection_threads"] if self._is_v2 else ["projection_threads"]:
            query = f"SELECT thread_id FROM {table} ORDER BY rowid DESC LIMIT 20"
            found = [str(name) for (name,) in self._database.execute(query)]
            if found:
                return found
        return [str(uuid.uuid4())]

    def _insert(self, table: str, **values: object) -> None:
        """Insert a row; what else must not be NULL is empty, as the type of its column has it."""
        if table not in self._needed:
            self._needed[table] = {
                name: 0 if kind.upper().startswith("INT") else ""
                for _, name, kind, notnull, default, key, hidden in self._database.execute(
                    f"PRAGMA table_xinfo({table})"
                )
                if notnull and default is None and not key and not hidden
            }
        row = self._needed[table] | values
        marks = ", ".join("?" * len(row))
        self._database.execute(
            f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", [*row.values()]
        )

    def commit(self) -> None:
        """Write a message, its event, its receipt and what counts them, in one transaction."""
        self._turn += 1
        thread = self._threads[self._turn // 20 % len(self._threads)]
        at = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        self._database.execute("BEGIN IMMEDIATE")
        number = self._number("SELECT coalesce(max(sequence), 0) + 1 FROM orchestration_events")
        version = self._number(
            "SELECT coalesce(max(stream_version), -1) + 1 FROM orchestration_events"
            " WHERE aggregate_kind = 'thread' AND stream_id = ?",
            thread,
        )
        (self._write_v2 if self._is_v2 else self._write_v1)(thread, number, version, at)
        self._database.execute("COMMIT")

    def _write_event(
        self, thread: str, number: int, version: int, at: str, payload: str, **more: object
    ) -> None:
        command = f"command:{uuid.uuid4()}"
        self._insert(
            "orchestration_events",
            sequence=number,
            event_id=f"event:{uuid.uuid4()}",
            aggregate_kind="thread",
            stream_id=thread,
            stream_version=version,
            occurred_at=at,
            command_id=command,
            correlation_id=command,
            actor_kind="provider",
            payload_json=payload,
            **more,
        )
        self._insert(
            "orchestration_command_receipts",
            command_id=command,
            aggregate_kind="thread",
            aggregate_id=thread,
            accepted_at=at,
            result_sequence=number,
            status="accepted",
        )

    def _write_v1(self, thread: str, number: int, version: int, at: str) -> None:
        message, text = str(uuid.uuid4()), f"{_TEXT}#{number}"
        payload = json.dumps({"threadId": thread, "messageId": message, "text": text})
        self._write_event(
            thread,
            number,
            version,
            at,
            payload,
            event_type="thread.message-sent",
            metadata_json="{}",
        )
        self._insert(
            "projection_thread_messages",
            message_id=message,
            thread_id=thread,
            role="assistant",
            text=text,
            is_streaming=0,
            created_at=at,
            updated_at=at,
        )
        self._database.execute(
            "UPDATE projection_state SET last_applied_sequence = ?, updated_at = ?", (number, at)
        )

    def _write_v2(self, thread: str, number: int, version: int, at: str) -> None:
        message = f"message:{uuid.uuid4()}"
        payload = json.dumps(
            {
                "createdBy": "agent",
                "id": message,
                "threadId": thread,
                "role": "assistant",
                "text": f"{_TEXT}#{number}",
                "createdAt": at,
                "updatedAt": at,
            }
        )
        self._write_event(
            thread,
            number,
            version,
            at,
            payload,
            event_type="message.updated",
            metadata_json='{"applicationEventVersion": 2}',
            application_event_version=2,
        )
        self._insert(
            "orchestration_v2_projection_messages",
            message_id=message,
            thread_id=thread,
            role="assistant",
            streaming=0,
            created_at=at,
            updated_at=at,
            payload_json=payload,
        )
        self._database.execute(
            "UPDATE orchestration_v2_projection_metadata SET last_sequence = ?, updated_at = ?",
            (number, at),
        )

    def give_up(self) -> None:
        """Roll back what a failed transaction left open."""
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def close(self) -> None:
        """End as a server does that is stopped."""
        self._database.close()


def main() -> None:
    path, seconds, *words = sys.argv[1:]
    busy_ms = int(words[1]) if words[:1] == ["--busy-ms"] else None
    server = _Server(path, busy_ms)
    commits = busy = 0
    until = time.monotonic() + (math.inf if seconds == "-" else float(seconds))
    while time.monotonic() < until:
        try:
            server.commit()
        except sqlite3.OperationalError as error:
            server.give_up()
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            busy += 1
        else:
            commits += 1
            if commits == 1:
                print("ready", flush=True)
        if select.select([0], [], [], _INTERVAL_S)[0] and not os.read(0, 4096):
            break
    server.close()
    print(json.dumps({"commits": commits, "busy": busy}), flush=True)


if __name__ == "__main__":
    main()
