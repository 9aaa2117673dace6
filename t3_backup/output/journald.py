"""The journal: whether a stream goes there, and the fields that an account's event has in it (docs/interface/log.md)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TextIO

from t3_backup.backup.result import AccountResult
from t3_backup.output.messages import Message

IDENTIFIER = "t3-backup-state"

# A snapshot's fields, and its keys in the interface.
_SNAPSHOT = {
    "T3_BACKUP_SNAPSHOT": "name",
    "T3_BACKUP_PATH": "path",
    "T3_BACKUP_VERDICT": "verdict",
    "T3_BACKUP_BYTES": "bytes",
    "T3_BACKUP_METHOD": "method",
    "T3_BACKUP_LABEL": "label",
}


def is_journal(stream: TextIO) -> bool:
    """Whether `stream` goes to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def sender() -> Callable[..., object] | None:
    """What sends an entry: a keyword a field. None without python3-systemd."""
    try:
        from systemd import journal
    except ImportError:
        return None
    send: Callable[..., object] = journal.send
    return send


def fields(line: Message, result: AccountResult, run: str) -> dict[str, str]:
    """The entry of one event (systemd.journal-fields(7) has the first three); `run` is the run's id."""
    found = {
        "MESSAGE": line.text,
        "PRIORITY": str(line.priority),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "T3_BACKUP_RUN": run,
        "T3_BACKUP_USER": result.user,
        "T3_BACKUP_OUTCOME": result.outcome,
    }
    if result.reason:
        found["T3_BACKUP_REASON"] = result.reason
    if line.snapshot is not None:
        snapshot = line.snapshot
        found |= {name: str(snapshot[key]) for name, key in _SNAPSHOT.items() if snapshot[key] is not None}
    return found
