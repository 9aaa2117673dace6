"""Write the log: for each account and run one JSON object a line, in a file that logrotate takes away at any moment.

So the file is opened, written once and closed for each object. Root alone has a log, and where its
folder is not there (nothing was ever installed) there is none. A log that can't be written is said,
and costs nobody their backup.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import t3_backup
from t3_backup.backup.result import AccountResult
from t3_backup.output.documents import snapshot_document
from t3_backup.settings import DEFAULT_LOG
from t3_backup.text import format_time, utc_now

# O_NONBLOCK: a pipe that nobody reads must not hold the run.
_APPEND = (
    os.O_WRONLY
    | os.O_APPEND
    | os.O_CREAT
    | os.O_NOFOLLOW
    | os.O_CLOEXEC
    | os.O_NOCTTY
    | os.O_NONBLOCK
)
_SNAPSHOT_KEYS = (
    "name",
    "path",
    "bytes",
    "verdict",
    "method",
    "copy_seconds",
    "proof_seconds",
    "label",
    "reasons",
)


def is_service(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether systemd has started this very process."""
    return environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())


def run_id(environ: Mapping[str, str] = os.environ) -> str:
    """Return what all events of this run have in common.

    It is systemd's INVOCATION_ID, where systemd has started this very process.
    """
    if is_service(environ) and (invocation := environ.get("INVOCATION_ID")):
        return invocation
    return os.urandom(16).hex()


def log_entry(result: AccountResult, run: str, now: datetime) -> dict[str, Any]:
    """Return what the log says of one account."""
    return {
        "time": format_time(now),
        "run": run,
        "version": t3_backup.__version__,
        "user": result.user,
        "outcome": result.outcome,
        "reason": result.reason,
        "snapshots": [
            _snapshot_entry(snapshot_document(snapshot)) for snapshot in result.snapshots
        ],
        "unsaved": result.unsaved,
        "uncovered": list(result.uncovered),
        "taken_over": list(result.taken_over),
        "pruned": list(result.pruned),
        "compacted": list(result.compacted),
        "warnings": list(result.warnings),
    }


def _snapshot_entry(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    return {key: snapshot[key] for key in _SNAPSHOT_KEYS}


def append_entry(path: Path, value: Mapping[str, Any]) -> None:
    """Add one object as a line, whole or not at all. Raises OSError."""
    line = json.dumps(value).encode() + b"\n"
    fd = os.open(path, _APPEND, 0o640)
    try:
        written = os.write(fd, line)
        if written != len(line):  # the disk is full: a part of a line would spoil the next one, too
            end = os.fstat(fd).st_size
            os.ftruncate(fd, end - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(fd)


class Log:
    """The log of one run."""

    def __init__(self, path: Path, run: str) -> None:
        self._path = path
        self._run = run
        self.broken = False

    def finished(self, result: AccountResult) -> str | None:
        """Note what became of an account.

        Return what somebody should know, the first time that it can't be done.
        """
        try:
            append_entry(self._path, log_entry(result, self._run, utc_now()))
        except OSError as error:
            first, self.broken = not self.broken, True
            return f"the log {self._path} can't be written: {error.strerror}" if first else None
        return None


def open_log(path: Path, run: str) -> Log | None:
    """Return the log at `path`, where this run has one.

    The folder of the default one alone may be missing without a word.
    """
    if os.geteuid() != 0 or (path == DEFAULT_LOG and not path.parent.is_dir()):
        return None
    return Log(path, run)
