"""Run a live writer, and tell whether a copy shows one moment of it.

Each of its transactions writes the same number into many places; `moment` reads them back. The
process itself is `demo.server`, which `python3 -m demo.writer PATH` runs by hand.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from demo import server
from demo.server import Window

MISSING = -1
"""What `moment` holds for a row that the newest event says is there, and is not."""


@dataclass(frozen=True)
class Stats:
    """What a writer did in all, and by the windows that `mark` began ("" before the first)."""

    total: Window
    windows: Mapping[str, Window]


def moment(connection: sqlite3.Connection) -> set[int]:
    """Read the numbers that must agree in a snapshot: one value means one moment.

    They come from every projector, the newest event, its payload, its receipt, its message and the
    sequence table: pages far apart. Any object with sqlite3's or apsw's `execute` will do; only
    reads.
    """

    def rows(query: str, *arguments: object) -> list[tuple[object, ...]]:
        return list(connection.execute(query, arguments))

    found: list[object] = []
    for query in (
        "SELECT DISTINCT last_applied_sequence FROM projection_state",
        "SELECT seq FROM sqlite_sequence WHERE name = 'orchestration_events'",
        "SELECT max(result_sequence) FROM orchestration_command_receipts",
    ):
        found += [row[0] for row in rows(query)]
    newest = rows(
        "SELECT sequence, payload_json FROM orchestration_events ORDER BY sequence DESC LIMIT 1"
    )
    for sequence, payload_json in newest:
        payload = json.loads(str(payload_json))
        found.append(sequence)
        if "moment" in payload:
            found.append(payload["moment"])
            query = "SELECT text FROM projection_thread_messages WHERE message_id = ?"
            text = rows(query, payload["messageId"])
            found.append(int(str(text[0][0]).rsplit("#", 1)[1]) if text else MISSING)
    return {MISSING if value is None else int(str(value)) for value in found}


class Writer:
    """A live writer in a process of its own.

    It is ready (its first commit is durable) when `with` has been entered. `interval_s` and
    `seconds` are in seconds, `busy_timeout_ms` in milliseconds. With `user` (needs root) it runs as
    that user. Leaving the block stops it, if nobody did before.
    """

    def __init__(
        self,
        path: Path,
        *,
        interval_s: float = 0.002,
        busy_timeout_ms: int = 0,
        journal_mode: str = "wal",
        seconds: float = 0.0,
        linger: bool = False,
        user: str | None = None,
    ) -> None:
        options = [f"--interval={interval_s}", f"--busy-timeout={busy_timeout_ms}"]
        options += [f"--journal-mode={journal_mode}", f"--seconds={seconds}"]
        options += ["--linger"] if linger else []
        text = Path(server.__file__).read_text(encoding="utf-8")
        self._command = [sys.executable, "-I", "-c", text, str(path.absolute()), *options]
        self._user = user
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """The process id of the writer."""
        return self._running().pid

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
        )
        try:
            self._answer()
        except BaseException:
            self.kill()
            raise
        return self

    def mark(self, name: str) -> Window:
        """Begin the window `name` (again); the statistics of the one that ends here."""
        return _window_of(self._ask(f"mark {name}"))

    def pause(self) -> None:
        """No commits until `resume`; the connection stays open."""
        self._ask("pause")

    def resume(self) -> None:
        """Commit again."""
        self._ask("resume")

    def stop(self) -> Stats:
        """Let it close its database and end; what it measured."""
        process = self._running()
        assert process.stdin is not None
        process.stdin.close()
        answer = self._answer()
        process.wait()
        self._close()
        windows = answer["windows"]
        assert isinstance(windows, dict)
        by_name = {name: _window_of(window) for name, window in windows.items()}
        return Stats(_window_of(answer), by_name)

    def kill(self) -> None:
        """SIGKILL: the -wal and the -shm stay as they are."""
        process = self._running()
        process.kill()
        process.wait()
        self._close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        if kind is None:
            self.stop()
        else:
            self.kill()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the writer is not running")
        return self._process

    def _close(self) -> None:
        process, self._process = self._running(), None
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()

    def _ask(self, line: str) -> dict[str, object]:
        process = self._running()
        assert process.stdin is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, object]:
        process = self._running()
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the writer ended with status {process.wait()}")
        answer: dict[str, object] = json.loads(line)
        return answer


def _window_of(answer: Mapping[str, object]) -> Window:
    names = ("commits", "errors", "p50", "p99", "p999", "longest")
    return Window(*(answer[name] for name in names))  # type: ignore[arg-type]


if __name__ == "__main__":
    server.main()
