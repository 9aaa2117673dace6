"""Write the texts that people read before and after a restore."""

from __future__ import annotations

from datetime import datetime

from t3_backup.output.messages import Message, format_taken_at
from t3_backup.restore.in_place import Restored
from t3_backup.restore.recovery import describe_remains
from t3_backup.store.census import Census
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import PRERESTORE
from t3_backup.text import INFO, WARNING, format_age, format_size

_MOST_TABLES = 8


def plan_lines(snapshot: Manifest, live: Census | None, problem: str, now: datetime) -> list[str]:
    """Say what is to be put back, and what differs from the `live` database.

    `problem` is why that can't be read.
    """
    old = format_age((now - snapshot.when).total_seconds())
    taken = f"taken {format_taken_at(snapshot)} UTC ({old} ago)"
    label = f", label {snapshot.label}" if snapshot.label else ""
    level, size = _level(snapshot.t3_level), format_size(snapshot.bytes)
    why = f" ({'; '.join(snapshot.reasons)})" if snapshot.reasons else ""
    lines = [
        f"snapshot of {snapshot.user}: {snapshot.name}",
        f"  {taken}{label}; T3 level {level}; {size}; {snapshot.verdict}{why}",
    ]
    if (files := snapshot.companion) is not None:
        size = format_size(files.content_bytes)
        lines.append(f"  with {files.entries} files and folders ({size})")
    else:
        lines.append("  without files: there were none, or they were not saved")
    if live is None:
        return [*lines, f"  the live database can't be compared with it: {problem}"]
    rows = f"{live.total_rows:,} rows, {snapshot.census.total_rows:,} in the snapshot"
    lines.append(f"  live: T3 level {_level(live.t3_level)}; {rows}")
    changes = row_changes(snapshot.census, live)
    shown = [f"{table} {count:+,}" for table, count in changes[:_MOST_TABLES]]
    if len(changes) > _MOST_TABLES:
        shown.append(f"and {len(changes) - _MOST_TABLES} more tables")
    return [*lines, f"  rows that the restore adds and removes: {', '.join(shown) or 'none'}"]


def row_changes(then: Census, live: Census) -> list[tuple[str, int]]:
    """Count the rows by which tables change to `then`, the greatest change first."""
    before, after = live.rows or {}, then.rows or {}
    changes = [
        (table, max(0, after.get(table, 0)) - max(0, before.get(table, 0)))
        for table in sorted(before.keys() | after.keys())
    ]
    return sorted((change for change in changes if change[1]), key=lambda change: -abs(change[1]))


def _level(level: int | None) -> str:
    return "-" if level is None else str(level)


def done_lines(restored: Restored, options: str) -> list[Message]:
    """Say what was done, and the command that undoes it."""
    user, seconds = restored.snapshot.user, restored.seconds
    took = ", ".join(f"{step} {seconds[step]:.2f} s" for step in seconds)
    lines = [Message(WARNING, f"WARN: {user}: {warning}") for warning in restored.warnings]
    lines.append(Message(INFO, f"restored {user} from {restored.snapshot.name} ({took})"))
    if restored.server == "stopped":
        text = "the server did not run before the restore, so it was not started"
        lines.append(Message(INFO, f"{user}: {text}"))
    lines += [Message(INFO, describe_remains(path)) for path in restored.kept]
    if restored.prerestore:
        lines.append(Message(INFO, f"to undo it: {undo_command(restored, options)}"))
    return lines


def undo_command(restored: Restored, options: str) -> str:
    """Return the one command that undoes a restore; it needs the same `options`."""
    user = restored.snapshot.user
    return f"t3-backup-state restore {user} --label {PRERESTORE} {options}".rstrip()
