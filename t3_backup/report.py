"""What people and programs are told: lines, journal priorities, progress bars on a terminal, one JSON document.

Nothing is decided here. A line begins with what happened and names the account, and under systemd carries its priority.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TextIO

from t3_backup import protocol
from t3_backup.backup import Result
from t3_backup.protocol import Event, Phase, Progress
from t3_backup.verify import Check

# syslog(3); sd-daemon(3) has the prefixes.
ERROR, WARNING, INFO = 3, 4, 6
_LONGEST_LINE = 20_000  # characters


def is_journal(stream: TextIO) -> bool:
    """Whether `stream` goes to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def _give_up(stream: TextIO) -> None:
    """Nobody reads it any more, and what is still buffered must not fail the exit, too."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class Lines:
    """Plain lines, for a pipe, a file or the journal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._journal = is_journal(stream)
        self._lock = threading.Lock()
        self.broken = False
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the locale can't say is no reason to stop

    def line(self, priority: int, text: str) -> None:
        """One line. Its text may hold what a user chose: nothing in it is obeyed by a terminal.

        A stream that can't be written to any more costs nobody his backup: it is remembered in `broken`.
        """
        with self._lock:
            try:
                self._write(priority, protocol.printable(text, _LONGEST_LINE))
            except OSError:
                self.broken = True
                _give_up(self._stream)

    def _write(self, priority: int, text: str) -> None:
        print(f"<{priority}>{text}" if self._journal else text, file=self._stream, flush=True)

    def warn(self, text: str) -> None:
        """A line that begins with WARN."""
        self.line(WARNING, f"WARN: {text}")

    def listen(self, user: str, event: Event) -> None:
        """Progress of an account; plain lines have none."""

    def finished(self, result: Result) -> None:
        """What became of an account."""
        for priority, text in describe(result):
            self.line(priority, text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None


class Bars(Lines):
    """On a terminal: a bar for each account at work (bytes done of all, speed, phase), and the lines above the bars."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as RichProgress

        columns = ("{task.fields[user]}", "{task.fields[phase]}")
        self._bars = RichProgress(
            *(TextColumn(column) for column in columns),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            console=Console(file=stream),
            transient=True,
        )
        self._tasks: dict[str, Any] = {}
        self._phases: dict[str, str] = {}

    def _write(self, priority: int, text: str) -> None:
        style = "bold red" if priority <= WARNING else ""
        self._bars.console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True, style=style)

    def listen(self, user: str, event: Event) -> None:
        """Move the account's bar. Two workers may prove one account: one at a time is heard."""
        with self._lock:
            self._move(user, event)

    def _move(self, user: str, event: Event) -> None:
        if isinstance(event, Phase):
            self._phases[user] = event.phase
            if user in self._tasks:
                self._bars.remove_task(self._tasks[user])
            total = event.total if event.phase == "copy" else None  # a proof reads some pages often: no share can be told
            self._tasks[user] = self._bars.add_task("", total=total, user=user, phase=event.phase)
        elif isinstance(event, Progress) and user in self._tasks:
            done = event.written if self._phases[user] == "copy" else event.read
            self._bars.update(self._tasks[user], completed=done)

    def finished(self, result: Result) -> None:
        """Take the bar away and print the lines."""
        with self._lock:
            if result.user in self._tasks:
                self._bars.remove_task(self._tasks.pop(result.user))
        super().finished(result)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()


def reporter(stream: TextIO) -> Lines:
    """What suits `stream`: bars on a terminal where python3-rich is there, else lines."""
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        try:
            return Bars(stream)
        except ImportError:
            pass
    return Lines(stream)


def describe(result: Result) -> list[tuple[int, str]]:
    """The lines of one account, each with its priority."""
    user, lines = result.user, []
    if result.outcome == "failed":
        lines.append((ERROR, f"WARN: backup FAILED for {user} ({result.reason})"))
    elif result.outcome == "skipped":
        lines.append((INFO, f"skip {user} ({result.reason})"))
    elif result.outcome == "planned":
        lines.append((INFO, f"would back up {user}: {result.reason}"))
    for snapshot in reversed(result.snapshots):
        seconds = snapshot["copy_seconds"] + snapshot["proof_seconds"]
        detail = f"{snapshot['bytes']} bytes, {seconds:.1f} s, {snapshot['method']}, {snapshot['verdict']}"
        line = f"backed up {user} -> {snapshot['path']} ({detail})"
        if snapshot["verdict"] == "verified":
            lines.append((INFO, line))
        else:
            lines.append(
                (ERROR, f"WARN: {line}: {'; '.join(snapshot['reasons'])}; nothing is pruned until: t3-backup-state accept {user}")
            )
    lines += [(INFO, f"pruned {user}: {name}") for name in result.pruned]
    return lines + [(WARNING, f"WARN: {warning}") for warning in result.warnings]


def run_document(results: Sequence[Result]) -> dict[str, Any]:
    """The JSON document of `run`."""
    return {
        "accounts": [
            {
                "user": result.user,
                "outcome": result.outcome,
                "reason": result.reason,
                "snapshots": list(result.snapshots),
                "pruned": list(result.pruned),
                "warnings": list(result.warnings),
            }
            for result in results
        ]
    }


def print_document(document: dict[str, Any]) -> None:
    """One JSON document on standard output. Raises OSError where nobody takes it."""
    try:
        json.dump(document, sys.stdout, indent=1)
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        _give_up(sys.stdout)
        raise


def list_lines(user: str, snapshots: Sequence[dict[str, Any]], strays: Sequence[str], now: datetime) -> list[str]:
    """The table of one account's snapshots, newest first."""
    rows = [("WHEN (UTC)", "AGE", "SIZE", "PAGES", "METHOD", "LEVEL", "LABEL", "VERDICT", "NAME")]
    for s in snapshots:
        age = _age((now - datetime.fromisoformat(s["taken_at"])).total_seconds())
        verdict = s["verdict"] + (" (accepted)" if s["accepted_at"] else "")
        level = "-" if s["t3_level"] is None else str(s["t3_level"])
        when = s["taken_at"].replace("T", " ").removesuffix("Z")
        rows.append((when, age, size(s["bytes"]), str(s["page_count"]), s["method"], level, s["label"] or "-", verdict, s["name"]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"{user}: {len(snapshots)} snapshots, {size(sum(s['bytes'] for s in snapshots))}"]
    if snapshots:
        right = {1, 2, 3, 5}
        for row in rows:
            cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
            lines.append("  " + "  ".join(cells).rstrip())
    lines += [f"  not counted, since it has no sound manifest: {name}" for name in strays]
    return lines


def check_line(check: Check) -> tuple[int, str]:
    """The line of one snapshot that was proven again."""
    snapshot = check.snapshot
    if not check.holds:
        return ERROR, f"WARN: {snapshot.user} {snapshot.name} does NOT verify: {'; '.join(check.reasons[:5])}"
    if snapshot.verdict != "verified":
        return (
            INFO,
            f"unchanged {snapshot.user} {snapshot.name} ({snapshot.verdict} when it was taken: {'; '.join(snapshot.reasons)})",
        )
    return INFO, f"verified {snapshot.user} {snapshot.name} ({snapshot.bytes} bytes)"


def size(count: float) -> str:
    """Bytes as people read them: 61.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def utc_now() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"
