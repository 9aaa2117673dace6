"""The database of this version: opened, imported from V1 where it is V2's, migrated forward.

Whatever opens it does all that, be it a server or one small command beside another version's.
"""

from __future__ import annotations

import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import about
import import_v2

_LEDGER = "effect_sql_migrations"
_FIRST_V2, _LAST_READ = 55, 61  # of V2's migrations, those whose source was read
_V1_MESSAGES, _V1_THREADS = "projection_thread_messages", "projection_threads"
_V2_MESSAGES = "orchestration_v2_projection_messages"
_V2_THREADS = "orchestration_v2_projection_threads"


def _read_names() -> dict[int, str]:
    """The names of the migrations; those after the last that was read are invented."""
    lines = [line.split("|") for line in about.read("ledger-61.txt").splitlines()]
    names = {int(number): name for number, _, name in lines}
    names |= {step: f"StandIn{step}" for step in range(_LAST_READ + 1, about.LEVEL + 1)}
    if about.VARIANT == "other-ledger":  # as a fork numbers them
        names[23], names[24] = names[24], names[23]
    return names


NAMES = _read_names()


def _read_statements() -> dict[int, str]:
    """What V1's migrations do; some only repair data that nobody here has."""
    parts = re.split(r"^-- (\d+)\n", about.read("migrations.sql"), flags=re.MULTILINE)[1:]
    return {int(number): text for number, text in zip(parts[::2], parts[1::2], strict=True)}


def open_database(base: Path, log: TextIO) -> sqlite3.Connection:
    """Open it for writing, in WAL mode; what is migrated is said in `log`. Raises sqlite3.Error."""
    folder = base / "userdata"
    folder.mkdir(parents=True, exist_ok=True)
    if about.IS_V2:
        import_v2.link_copy(folder)
    connection = sqlite3.connect(
        folder / about.DATABASE,
        timeout=about.BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA foreign_keys=ON")
    if about.IS_V2:
        connection.execute(f"PRAGMA journal_size_limit={32 << 20}")
    _migrate(connection, log)
    return connection


def open_reading(base: Path) -> sqlite3.Connection:
    """Open a second connection, as V2 has it, which reads only. Raises sqlite3.Error."""
    where = f"file:{base / 'userdata' / about.DATABASE}?mode=ro"
    return sqlite3.connect(where, uri=True, timeout=about.BUSY_S, check_same_thread=False)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def why_unreadable(connection: sqlite3.Connection) -> str:
    """Why a server of V1 can't read its database; empty where it can."""
    found = connection.execute(
        "SELECT count(*) FROM pragma_table_info('orchestration_events')"
        " WHERE name = 'application_event_version'"
    ).fetchone()[0]
    newer = "SELECT count(*) FROM orchestration_events WHERE application_event_version > 1"
    if not about.IS_V2 and found and connection.execute(newer).fetchone()[0]:
        return "PersistenceDecodeError: orchestration_events: no such event type"
    return ""


def _migrate(connection: sqlite3.Connection, log: TextIO) -> None:
    tables = "SELECT count(*) FROM sqlite_schema WHERE name = ?"
    if not connection.execute(tables, (_LEDGER,)).fetchone()[0]:
        with transaction(connection):
            _execute(connection, about.read("schema.sql"))
            for step in range(1, 31):
                _note(connection, step)
    ledger = dict(connection.execute(f"SELECT migration_id, name FROM {_LEDGER}"))
    _refuse_other(ledger)
    level, statements = max(ledger), _read_statements()
    for step in range(level + 1, about.LEVEL + 1):
        print(f"Running migration {step} {NAMES[step]}", file=log, flush=True)
        if about.VARIANT == "slow-migration":
            time.sleep(600)
        if about.VARIANT == "half-migration":
            connection.execute("DROP TABLE auth_sessions")
            print(f"SqlError: migration {step} failed: disk I/O error", flush=True)
            sys.exit(1)
        with transaction(connection):
            _execute(connection, statements.get(step, ""))
            if step == _FIRST_V2:
                import_v2.migrate(connection, about.read("schema-61.sql"), "")
                import_v2.bring_over(connection)
            _note(connection, step)
            if step == about.LEVEL:
                _lose(connection)


def _execute(connection: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";"):
        connection.execute(statement)


def _note(connection: sqlite3.Connection, step: int) -> None:
    line = f"INSERT INTO {_LEDGER} (migration_id, name) VALUES (?, ?)"
    connection.execute(line, (step, NAMES[step]))


def _refuse_other(ledger: dict[int, str]) -> None:
    """V2 does not start where an id of its own has another name."""
    for step, name in ledger.items():
        if about.IS_V2 and step >= _FIRST_V2 and NAMES.get(step, name) != name:
            print(f"MigrationError: {step} is {name}, and not {NAMES[step]}", flush=True)
            sys.exit(1)


def _lose(connection: sqlite3.Connection) -> None:
    """What a bad version loses of what people have."""
    messages, threads = (_V2_MESSAGES, _V2_THREADS) if about.IS_V2 else (_V1_MESSAGES, _V1_THREADS)
    if about.VARIANT == "unreadable":
        connection.execute(f"DELETE FROM {messages}")
        connection.execute(f"DELETE FROM {threads}")
    elif about.VARIANT == "lost-threads":
        one = f"SELECT thread_id FROM {threads} ORDER BY created_at LIMIT 1"
        connection.execute(f"DELETE FROM {messages} WHERE thread_id = ({one})")
        connection.execute(f"DELETE FROM {threads} WHERE thread_id = ({one})")
    elif about.VARIANT == "blanked":
        blank = (
            "payload_json = json_set(payload_json, '$.text', '')" if about.IS_V2 else "text = ''"
        )
        connection.execute(f"UPDATE {messages} SET {blank}")
