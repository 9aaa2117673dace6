"""Write the texts that people read before and after a restore."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from t3_backup.output.messages import Message, format_taken_at
from t3_backup.restore.finish import describe_remains, describe_removal
from t3_backup.restore.in_place import Restored
from t3_backup.store.census import Census, comparable_content
from t3_backup.store.manifest import DatabaseRecord, Manifest
from t3_backup.store.names import PRERESTORE
from t3_backup.t3 import content
from t3_backup.t3.logins import explain_ended
from t3_backup.text import INFO, WARNING, format_age, format_size, printable, quote

_MOST_TABLES = 8


@dataclass(frozen=True)
class Change:
    """What a restore is to change, beside what its snapshot says."""

    file: str | None = None  # the only database that is put back; None: all
    databases: bool = True  # whether databases are put back
    files: bool = True  # whether what is beside them is
    lacking: Sequence[str] = ()  # databases that are there, and not in the snapshot

    def compared(self, snapshot: Manifest) -> DatabaseRecord:
        """Return the database of the snapshot that the present one is compared with."""
        image = None if self.file is None else snapshot.image_of(self.file)
        return snapshot.live if image is None else image.record


def plan_lines(
    snapshot: Manifest, live: Census | None, problem: str, now: datetime, change: Change
) -> list[str]:
    """Say what is to be put back, and what differs from the `live` database.

    `problem` is why that can't be read.
    """
    old = format_age((now - snapshot.when).total_seconds())
    taken = f"taken {format_taken_at(snapshot)} UTC ({old} ago)"
    label = f", label {snapshot.label}" if snapshot.label else ""
    then = change.compared(snapshot)
    level, size = _level(snapshot.live.t3_level), format_size(snapshot.total_bytes)
    why = f" ({'; '.join(snapshot.reasons)})" if snapshot.reasons else ""
    lines = [
        f"snapshot of {snapshot.user}: {snapshot.name}",
        f"  {taken}{label}; T3 level {level}; {size}; {snapshot.verdict}{why}",
        *_database_lines(snapshot, change),
    ]
    if (files := snapshot.companion) is not None:
        size = format_size(files.content_bytes)
        lines.append(f"  with {files.entries} files and folders ({size})")
    else:
        lines.append("  without files: there were none, or they were not saved")
    logins = explain_ended(snapshot.when, now, files=change.files and files is not None)
    if logins and change.databases:
        lines.append(f"  {logins}")
    if live is None:
        return [*lines, f"  the live database can't be compared with it: {problem}"]
    rows = f"{live.total_rows:,} rows, {then.census.total_rows:,} in the snapshot"
    lines.append(f"  live: T3 level {_level(live.t3_level)}; {rows}")
    if (counted := comparable_content(live, then.census)) is not None:
        moved = [f"{word} {count:+,}" for word, count in content.changes(*counted).items()]
        lines.append(f"  content that the restore adds and removes: {', '.join(moved) or 'none'}")
    changes = row_changes(then.census, live)
    shown = [f"{table} {count:+,}" for table, count in changes[:_MOST_TABLES]]
    if len(changes) > _MOST_TABLES:
        shown.append(f"and {len(changes) - _MOST_TABLES} more tables")
    return [*lines, f"  rows that the restore adds and removes: {', '.join(shown) or 'none'}"]


def passed_over_line(passed: Manifest, failure: str | None) -> str:
    """Say that a newer snapshot is there which a restore does not choose, and how to have it.

    `failure` is why its last proof failed; None: it did not.
    """
    why = f"{passed.name} is newer and unproven ({'; '.join(passed.reasons)})"
    if failure is not None:
        why = f"{passed.name} is newer and does not verify ({failure})"
    command = f"t3-backup-state restore {quote(passed.user)} --at {passed.name}"
    return f"{passed.user}: {why}, and passed over; to put it back: {command}"


def instead_line(best: Manifest | None, options: Sequence[str]) -> str:
    """Say which snapshot to put back instead of one that is not what was sealed."""
    if best is None:
        return "there is no other good one"
    words = ["t3-backup-state", "restore", best.user, "--at", best.name, *options]
    return f"next: {shlex.join(words)}"


def _database_lines(snapshot: Manifest, change: Change) -> list[str]:
    """Say which databases there are beside the live one, and what becomes of others."""
    if change.file is not None:
        one = change.compared(snapshot)
        what = f"{printable(one.file)} alone of it: {_describe(one)}"
        return [f"  {what}; other databases stay as they are"]
    then = "it is put aside, and kept in a snapshot of the present state"
    return [
        *(
            f"  with {printable(one.file)}: {_describe(one)}"
            for one in snapshot.databases
            if not one.live
        ),
        *(
            f"  without {printable(one.file)}, which was there: {one.reason}"
            for one in snapshot.missing
        ),
        *(
            f"  {printable(file)} is not in it: {then}"
            for file in (change.lacking if change.databases else ())
        ),
    ]


def _describe(one: DatabaseRecord) -> str:
    return f"T3 level {_level(one.t3_level)}; {format_size(one.bytes)}"


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
    if restored.put_aside:
        files = ", ".join(printable(file) for file in restored.put_aside)
        text = f"{files}: not in the snapshot, so put aside"
        lines.append(Message(INFO, f"{user}: {text}"))
    lines += [Message(INFO, describe_remains(path)) for path in restored.kept]
    if restored.kept:
        lines.append(Message(INFO, describe_removal(restored.kept)))
    if restored.prerestore:
        lines.append(Message(INFO, f"to undo it: {undo_command(restored, options)}"))
    return lines


def undo_command(restored: Restored, options: str) -> str:
    """Return the one command that undoes a restore; it needs the same `options`."""
    user, old = restored.snapshot.user, restored.prerestore
    # the newest of its label, or one that had been there already
    which = f"--label {PRERESTORE}"
    if old is not None and old.label != PRERESTORE:
        which = f"--at {old.name}"
    return f"t3-backup-state restore {quote(user)} {which} {options}".rstrip()
