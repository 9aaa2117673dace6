"""Bring lines to whoever reads: plain, with fields, or above progress bars.

Nothing is decided here, and nothing in a line is obeyed by a terminal. A reader who has gone costs
nobody their backup.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TextIO

from t3_backup.backup.result import AccountResult
from t3_backup.errors import Failure, explain
from t3_backup.output import journald
from t3_backup.output.messages import result_messages
from t3_backup.system import standard_streams
from t3_backup.text import ERROR, WARNING, printable

if TYPE_CHECKING:
    from t3_backup.worker.protocol import Event

_LONGEST_LINE = 20_000  # characters


class Console:
    """Plain lines, for a pipe, a file or the journal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._journal = journald.is_journal(stream)
        self._lock = threading.Lock()
        self.broken = False
        if isinstance(stream, io.TextIOWrapper):
            # a name that the locale can't say is no reason to stop
            stream.reconfigure(errors="backslashreplace")

    def line(self, priority: int, text: str) -> None:
        """Write one line, of which a terminal obeys nothing, whatever is in it.

        A stream that can't be written to any more costs nobody their backup: `broken` tells.
        """
        with self._lock:
            try:
                self._write(priority, printable(text, _LONGEST_LINE))
            except OSError as error:
                self.broken = True
                standard_streams.give_up(self._stream, error)

    def _write(self, priority: int, text: str) -> None:
        print(f"<{priority}>{text}" if self._journal else text, file=self._stream, flush=True)

    def warn(self, text: str) -> None:
        """Write a line that begins with WARN."""
        self.line(WARNING, f"WARN: {text}")

    def listen(self, user: str, event: Event) -> None:
        """Hear of the progress of an account; plain lines show none."""

    def finished(self, result: AccountResult) -> None:
        """Write what became of an account."""
        for line in result_messages(result):
            self.line(line.priority, line.text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class JournalConsole(Console):
    """Entries with fields in the journal for an account's events; lines for all else."""

    def __init__(self, stream: TextIO, run: str, send: Callable[..., object]) -> None:
        super().__init__(stream)
        self._run = run
        self._send = send

    def finished(self, result: AccountResult) -> None:
        """Send each event with its fields; write it as a line where it can't be sent."""
        for line in result_messages(result):
            entry = journald.entry_fields(line, result, self._run)
            fields = {name: printable(value, _LONGEST_LINE) for name, value in entry.items()}
            try:
                self._send(**fields)
            except OSError:
                self.line(line.priority, line.text)


class ProgressBars(Console):
    """Bars on a terminal, one for each account at work, and the lines above them.

    A bar has the bytes done of all, the speed and the phase.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as RichProgress

        columns = ("{task.fields[user]}", "{task.fields[phase]}")
        self._bars = RichProgress(
            *(TextColumn(column) for column in columns),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            console=RichConsole(file=stream),
            transient=True,
        )
        self._tasks: dict[str, Any] = {}
        self._phases: dict[str, str] = {}

    def _write(self, priority: int, text: str) -> None:
        style = "bold red" if priority <= WARNING else ""
        self._bars.console.print(
            text, markup=False, highlight=False, emoji=False, soft_wrap=True, style=style
        )

    def listen(self, user: str, event: Event) -> None:
        """Move the account's bar."""
        with self._lock:  # two workers may prove one account
            self._move_bar(user, event)

    def _move_bar(self, user: str, event: Event) -> None:
        from t3_backup.worker.protocol import Phase, Progress

        if isinstance(event, Phase):
            self._phases[user] = event.phase
            if user in self._tasks:
                self._bars.remove_task(self._tasks[user])
            # a proof reads some pages often: no share can be told
            total = event.total if event.phase == "copy" else None
            self._tasks[user] = self._bars.add_task("", total=total, user=user, phase=event.phase)
        elif isinstance(event, Progress) and user in self._tasks:
            done = event.written if self._phases[user] == "copy" else event.read
            self._bars.update(self._tasks[user], completed=done)

    def finished(self, result: AccountResult) -> None:
        """Take the bar away and print the lines."""
        with self._lock:
            if result.user in self._tasks:
                self._bars.remove_task(self._tasks.pop(result.user))
        super().finished(result)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()


def make_console(stream: TextIO, run: str) -> Console:
    """Return the console that suits `stream`; `run` is the run's id.

    Bars on a terminal, fields in the journal (where their packages are there), else lines.
    """
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        with contextlib.suppress(ImportError):
            return ProgressBars(stream)
    if journald.is_journal(stream) and (send := journald.find_sender()):
        return JournalConsole(stream, run, send)
    return Console(stream)


def say_error(error: Failure | OSError) -> int:
    """Write on standard error what ended a command, and return its exit code."""
    Console(sys.stderr).line(ERROR, f"t3-backup-state: {explain(error)}")
    standard_streams.forget_lost()  # one word is enough, and the exit code is not 0
    return error.exit_code if isinstance(error, Failure) else Failure.exit_code


def check_output(program: str, code: int, lost_code: int = Failure.exit_code) -> int:
    """Return the exit code of a program, which is not 0 where its output was lost; say that."""
    lost = standard_streams.find_lost()
    if lost is None:
        return code
    if lost.errno != errno.EPIPE:  # who has gone wants no word
        why = f"what there was to tell can't be written: {explain(lost)}"
        Console(sys.stderr).line(ERROR, f"{program}: {why}")
    return code or lost_code


def print_document(document: dict[str, Any]) -> None:
    """Print one JSON document on standard output. Raises OSError where nobody takes it."""
    print_text(json.dumps(document, indent=1) + "\n")


def print_text(text: str) -> None:
    """Print a document on standard output. Raises OSError where nobody takes it."""
    standard_streams.write_out(text)
