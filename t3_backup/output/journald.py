"""Write to the journal: find out whether a stream goes there, and make fields.

The fields are an interface (docs/interface/log.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TextIO

from t3_backup.backup.result import AccountResult
from t3_backup.output.messages import Message
from t3_backup.store.listing import StoredSnapshot

IDENTIFIER = "t3-backup-state"


def is_journal(stream: TextIO) -> bool:
    """Tell whether `stream` goes to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def find_sender() -> Callable[..., object] | None:
    """Return what sends an entry: a keyword a field. None without python3-systemd."""
    try:
        from systemd import journal
    except ImportError:
        return None
    send: Callable[..., object] = journal.send
    return send


def entry_fields(line: Message, result: AccountResult, run: str) -> dict[str, str]:
    """Return the entry of one event of the run (systemd.journal-fields(7))."""
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
        found |= _snapshot_fields(line.snapshot)
    return found


def _snapshot_fields(snapshot: StoredSnapshot) -> dict[str, str]:
    manifest = snapshot.manifest
    found = {
        "T3_BACKUP_SNAPSHOT": manifest.name,
        "T3_BACKUP_PATH": str(snapshot.path),
        "T3_BACKUP_VERDICT": manifest.verdict,
        "T3_BACKUP_BYTES": str(manifest.live.bytes),
        "T3_BACKUP_METHOD": manifest.live.method,
    }
    return found if manifest.label is None else found | {"T3_BACKUP_LABEL": manifest.label}
