"""The texts that people read of a restore, before and after it: values in, lines out."""

from __future__ import annotations

from datetime import datetime

from t3_backup.output.messages import Message
from t3_backup.restore.in_place import Restored
from t3_backup.restore.recovery import describe_remains
from t3_backup.store.census import Census
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import PRERESTORE
from t3_backup.text import INFO, WARNING, format_age, format_size

_MOST_TABLES = 8


def plan_lines(snapshot: Manifest, live: Census | None, problem: str, now: datetime) -> list[str]:
    """Say what is to be put back, and what that gains and loses.

    It is compared with the `live` database; `problem` where that can't be read.
    """
    old = format_age((now - snapshot.when).total_seconds())
    when = snapshot.taken_at.replace("T", " ").removesuffix("Z")
    label = f", label {snapshot.label}" if snapshot.label else ""
    verdict = (
        f"{snapshot.verdict} ({'; '.join(snapshot.reasons)})"
        if snapshot.reasons
        else snapshot.verdict
    )
    lines = [
        f"snapshot of {snapshot.user}: {snapshot.name}",
        f"  taken {when} UTC ({old} ago){label}; T3 level {_level(snapshot.t3_level)}; {format_size(snapshot.bytes)}; {verdict}",
    ]
    if (files := snapshot.companion) is not None:
        lines.append(
            f"  with {files.entries} files and folders ({format_size(files.content_bytes)})"
        )
    else:
        lines.append("  without files: there were none, or they were not saved")
    if live is None:
        return [*lines, f"  the live database can't be compared with it: {problem}"]
    then, now_rows = snapshot.census.total_rows, live.total_rows
    lines.append(
        f"  live: T3 level {_level(live.t3_level)}; {now_rows:,} rows, {then:,} in the snapshot"
    )
    changes = row_changes(snapshot.census, live)
    shown = [f"{table} {count:+,}" for table, count in changes[:_MOST_TABLES]]
    more = [f"and {len(changes) - _MOST_TABLES} more tables"] if len(changes) > _MOST_TABLES else []
    return [
        *lines,
        f"  rows that the restore adds and removes: {', '.join(shown + more) or 'none'}",
    ]


def row_changes(then: Census, live: Census) -> list[tuple[str, int]]:
    """Tell by how many rows each table changes where `then` takes the place of `live`.

    The greatest change first.
    """
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
        lines.append(
            Message(
                INFO, f"{user}: the server did not run before the restore, so it was not started"
            )
        )
    lines += [Message(INFO, describe_remains(path)) for path in restored.kept]
    if restored.prerestore:
        lines.append(Message(INFO, f"to undo it: {undo_command(restored, options)}"))
    return lines


def undo_command(restored: Restored, options: str) -> str:
    """Return the one command that undoes a restore.

    `options` are those with which it was done, that the undoing needs, too.
    """
    assert restored.prerestore is not None
    return (
        f"t3-backup-state restore {restored.snapshot.user} --label {PRERESTORE} {options}".rstrip()
    )
