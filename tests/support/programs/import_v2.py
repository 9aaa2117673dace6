"""Make `statev2.sqlite` of `state.sqlite`, as a program of T3's V2 does when it first starts.

Usage: SCHEMA LEDGER USERDATA [--kill-after-link]. The first two are texts: the statements of the
V2 schema, and `ID|TIME|NAME` lines. With the flag it dies once the copy has both of its names.
The stand-in for T3 has it beside itself, and takes the same steps.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from pathlib import Path

_SESSION_TABLES = ("auth_pairing_links", "auth_sessions")  # migration 31 makes them anew
_OBJECTS = "SELECT name, sql FROM sqlite_schema WHERE type = ? AND sql IS NOT NULL"
_NOT_OURS = "sqlite_"  # tables that SQLite makes itself


def _copy(old: Path, new: Path) -> None:
    """Copy by SQLite's backup, from a connection that leaves -wal and -shm when it closes."""
    source = sqlite3.connect(f"file:{old}?mode=ro", uri=True, timeout=5)
    target = sqlite3.connect(new)
    source.backup(target)
    target.close()
    source.close()


def _columns(database: sqlite3.Connection, table: str) -> dict[str, str]:
    """The columns of a table, and how each is declared."""
    found = database.execute(f'PRAGMA table_info("{table}")')
    return {
        name: f'"{name}" {kind}'
        + (" NOT NULL" if notnull else "")
        + ("" if default is None else f" DEFAULT {default}")
        for _, name, kind, notnull, default, _ in found
    }


def migrate(database: sqlite3.Connection, schema: str, ledger: str) -> None:
    """Give it the tables, columns, indexes and ledger of V2."""
    wanted = sqlite3.connect(":memory:")
    wanted.executescript(
        "\n".join(part for part in schema.split("\n") if f"TABLE {_NOT_OURS}" not in part)
    )
    if not _columns(database, _SESSION_TABLES[0]).keys() >= {"scopes"}:
        for table in _SESSION_TABLES:
            database.execute(f"DROP TABLE IF EXISTS {table}")
    for table, sql in wanted.execute(_OBJECTS, ("table",)).fetchall():
        present = _columns(database, table)
        if table.startswith(_NOT_OURS):
            continue
        if not present:
            database.execute(sql)
        for name, declared in _columns(wanted, table).items():
            if present and name not in present:
                database.execute(f'ALTER TABLE "{table}" ADD COLUMN {declared}')
    known = dict(wanted.execute(_OBJECTS, ("index",)).fetchall())
    present = dict(database.execute(_OBJECTS, ("index",)).fetchall())
    for name in present:
        if name not in known:
            database.execute(f'DROP INDEX "{name}"')
    for name, sql in known.items():
        if name not in present:
            database.execute(sql)
    rows = [line.split("|", 2) for line in ledger.splitlines()]
    database.executemany(
        "INSERT OR IGNORE INTO effect_sql_migrations (migration_id, created_at, name)"
        " VALUES (?, ?, ?)",
        rows,
    )


def bring_over(database: sqlite3.Connection) -> None:
    """Bring the threads and messages of V1 into the projections of V2."""
    threads = database.execute(
        "SELECT thread_id, project_id, title, runtime_mode, interaction_mode, created_at,"
        " updated_at, archived_at, deleted_at FROM projection_threads"
    ).fetchall()
    for thread, project, title, mode, interaction, created, updated, archived, deleted in threads:
        payload = {
            "id": thread,
            "projectId": project,
            "title": title,
            "providerInstanceId": "codex",
            "pullRequests": [],
            "forkedFrom": None,
            "createdAt": created,
            "updatedAt": updated,
            "archivedAt": archived,
            "deletedAt": deleted,
            "historyOrigin": "v1_import",
        }
        database.execute(
            "INSERT INTO orchestration_v2_projection_threads (thread_id, project_id, title,"
            " default_provider, runtime_mode, interaction_mode, created_at, updated_at,"
            " archived_at, deleted_at, payload_json, provider_instance_id)"
            " VALUES (?, ?, ?, 'codex', ?, ?, ?, ?, ?, ?, ?, 'codex')",
            (thread, project, title, mode, interaction, created, updated, archived, deleted,
             json.dumps(payload)),
        )  # fmt: skip
        database.execute(
            "INSERT INTO orchestration_events (event_id, aggregate_kind, stream_id, stream_version,"
            " event_type, occurred_at, actor_kind, payload_json, metadata_json,"
            " application_event_version)"
            " SELECT 'migration:' || ?1, 'thread', ?1, coalesce(max(stream_version), -1) + 1,"
            " 'thread.created', ?2, 'server', ?3, '{\"applicationEventVersion\": 2}', 2"
            " FROM orchestration_events WHERE aggregate_kind = 'thread' AND stream_id = ?1",
            (thread, created, json.dumps(payload)),
        )
        database.execute(
            "INSERT INTO orchestration_v2_legacy_imports (thread_id, source_updated_at,"
            " shell_imported_at, transcript_imported_at, imported_message_count)"
            " SELECT ?1, ?2, ?2, ?2, count(*) FROM projection_thread_messages WHERE thread_id = ?1",
            (thread, updated),
        )
    database.execute(
        "INSERT INTO orchestration_v2_projection_messages (message_id, thread_id, role, streaming,"
        " created_at, updated_at, payload_json)"
        " SELECT message_id, thread_id, role, is_streaming, created_at, updated_at,"
        " json_object('id', message_id, 'threadId', thread_id, 'role', role, 'text', text)"
        " FROM projection_thread_messages ORDER BY rowid"
    )
    database.execute(
        "INSERT OR REPLACE INTO orchestration_v2_projection_metadata"
        " SELECT 'thread-projections', 1, max(sequence), max(occurred_at) FROM orchestration_events"
        " HAVING count(*)"
    )


def link_copy(userdata: Path, *, die: bool = False) -> None:
    """Give V2 a copy of V1's database by a hard link, where it has none and there is one.

    `die`: once the copy has both of its names.
    """
    old, new = userdata / "state.sqlite", userdata / "statev2.sqlite"
    if new.exists() or not old.exists():
        return
    work = Path(tempfile.mkdtemp(prefix=".v2-import-", dir=userdata))
    snapshot = work / "snapshot.sqlite"
    _copy(old, snapshot)
    with contextlib.suppress(FileExistsError):  # another one was faster
        new.hardlink_to(snapshot)
    if die:
        os.kill(os.getpid(), signal.SIGKILL)
    shutil.rmtree(work)


def main() -> None:
    schema, ledger, folder, *flags = sys.argv[1:]
    userdata = Path(folder)
    new = userdata / "statev2.sqlite"
    if new.exists():
        return
    link_copy(userdata, die=flags == ["--kill-after-link"])
    database = sqlite3.connect(new, isolation_level=None)
    database.execute("PRAGMA journal_mode=wal")
    database.execute("BEGIN IMMEDIATE")
    migrate(database, schema, ledger)
    bring_over(database)
    database.execute("COMMIT")
    database.close()


if __name__ == "__main__":
    main()
