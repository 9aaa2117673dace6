"""Write the log: one JSON object a line for each account and run.

Logrotate may take the file away at any moment, so it is opened, written once and closed for each
object. Root alone has a log, and where its folder is not there (nothing was ever installed) there
is none. A log that can't be written is said, and costs nobody their backup.
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
from t3_backup.output.documents import result_document
from t3_backup.settings import DEFAULT_LOG
from t3_backup.text import format_time, utc_now

# O_NONBLOCK: a pipe that nobody reads must not hold the run.
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND |= os.O_NOCTTY | os.O_NONBLOCK
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
    "missing",
)


def is_service(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether systemd has started this very process."""
    return environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())


def run_id(environ: Mapping[str, str] = os.environ) -> str:
    """Return the id of this run: systemd's INVOCATION_ID, or a new one."""
    if is_service(environ) and (invocation := environ.get("INVOCATION_ID")):
        return invocation
    return os.urandom(16).hex()


def log_entry(result: AccountResult, run: str, now: datetime) -> dict[str, Any]:
    """Return what the log says of one account."""
    entry = {"time": format_time(now), "run": run, "version": t3_backup.__version__}
    found = result_document(result)
    snapshots = [{key: one[key] for key in _SNAPSHOT_KEYS} for one in found["snapshots"]]
    return entry | found | {"snapshots": snapshots}


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
    """The log of one run; `broken` where it could not be written."""

    def __init__(self, path: Path, run: str) -> None:
        self._path = path
        self._run = run
        self.broken = False

    def finished(self, result: AccountResult) -> str | None:
        """Note what became of an account; return why that can't be done, the first time."""
        try:
            append_entry(self._path, log_entry(result, self._run, utc_now()))
        except OSError as error:
            first, self.broken = not self.broken, True
            return f"the log {self._path} can't be written: {error.strerror}" if first else None
        return None


def open_log(path: Path, run: str) -> Log | None:
    """Return the log at `path`, if this run has one."""
    if os.geteuid() != 0 or (path == DEFAULT_LOG and not path.parent.is_dir()):
        return None
    return Log(path, run)
