"""Start, watch and ask a server of the version that is tried.

It can't outlive whoever tries it. What it prints goes through a pipe, of which the first
lines, those that tell of an error and the last ones are kept, without the secrets in them: one that
prints without end fills no disk.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import aiohttp

from t3_backup.system.proc_files import DELETED
from t3_backup.system.process import start_in_own_group
from t3_backup.t3.endpoints import HOST
from t3_backup.t3.output import innermost_error, redact
from t3_backup.t3.program import serve_command
from t3_backup.text import printable

_POLL_S = 0.1
_END_S = 5.0
_FIRST_TRY_S = 1.0
_CHUNK_BYTES = 64 << 10
_LINE_BYTES = 4096
_LINES, _CHARS = 20, 500  # of each part of the log that is told
_LAST_LINES = 200  # of which the reason of an end is found
_ERROR = re.compile(r"\b(ERROR|FATAL)\b|Error\b")
_TROUBLE = re.compile(r"migration.*(fail|error)|SqlError|SQLITE_", re.IGNORECASE)


class Candidate:
    """Run a server; at the end of the block it is gone with all of its group."""

    def __init__(self, t3: Path, base_dir: Path, port: int) -> None:
        """Start it. Raises OSError."""
        # Whoever kills this process ends the server, too.
        line = ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--"]
        line += serve_command(t3, HOST, port, base_dir)
        nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
        self._process = start_in_own_group(
            line, stdin=nothing, stdout=pipe, stderr=subprocess.STDOUT
        )
        self._port = port
        self._count = 0  # lines so far
        self._first: list[tuple[int, str]] = []
        self._errors: list[tuple[int, str]] = []
        self._last: deque[tuple[int, str]] = deque(maxlen=_LAST_LINES)
        self.trouble: str | None = None  # the first line on a database it could not migrate
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(_END_S)  # what has left its group may hold the pipe

    @property
    def ended(self) -> int | None:
        """Give its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    @property
    def log(self) -> tuple[str, ...]:
        """Give the first lines that it printed, those of errors and the last, fit to be shown."""
        kept = {*self._first, *self._errors, *list(self._last)[-_LINES:]}
        shown = (_show(text) for _, text in sorted(kept))
        return tuple(text for text in shown if text.strip())

    @property
    def why_ended(self) -> str:
        """Give the line that says why it ended; empty without one."""
        return innermost_error("\n".join(text for _, text in self._last))

    def open_names(self, folder: Path) -> set[str]:
        """Name the files of a folder that it, or a process of its group, has open."""
        found = set()
        for path in _open_paths(self._process.pid):
            if os.path.dirname(path) == os.path.realpath(folder):
                found.add(os.path.basename(path))
        return found

    def await_port(self, seconds: float) -> bool:
        """Tell whether it listens within so many seconds; false where it ends before."""
        until = time.monotonic() + seconds
        while self.ended is None and time.monotonic() < until:
            with suppress(OSError), socket.create_connection((HOST, self._port), 1):
                return True
            time.sleep(_POLL_S)
        return False

    def await_end(self, seconds: float) -> int | None:
        """Wait for its exit code; None where it runs for longer."""
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(seconds)
            self._reader.join(_END_S)
            return code
        return None

    def terminate(self) -> None:
        """Ask it to stop."""
        self._process.terminate()

    def probe_status(self, path: str, seconds: float) -> int | None:
        """Get the status of a path; None without an answer in all this time.

        It is asked again and again, for twice as long each time: what a server is asked when it has
        just begun to listen, it may never answer.
        """
        until, patience = time.monotonic() + seconds, _FIRST_TRY_S
        while self.ended is None and (left := until - time.monotonic()) > 0:
            try:
                return asyncio.run(_fetch(f"http://{HOST}:{self._port}{path}", min(patience, left)))
            except TimeoutError:
                patience *= 2
            except (aiohttp.ClientError, ValueError, OSError):
                return None
        return None

    def _read_log(self) -> None:
        """Read what it prints, up to the end of the pipe, and keep the last lines."""
        assert self._process.stdout is not None
        rest = b""
        while data := os.read(self._process.stdout.fileno(), _CHUNK_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._keep_line(line)
            if len(rest) > _LINE_BYTES:
                self._keep_line(rest)
                rest = b""
        self._keep_line(rest)

    def _keep_line(self, line: bytes) -> None:
        text = line[:_LINE_BYTES].decode(errors="replace")
        if not text.strip():
            return
        self._count += 1
        kept = (self._count, text)
        self._last.append(kept)
        if len(self._first) < _LINES:
            self._first.append(kept)
        elif len(self._errors) < _LINES and _ERROR.search(text):
            self._errors.append(kept)
        if self.trouble is None and _TROUBLE.search(text):
            self.trouble = _show(text)


def _show(text: str) -> str:
    return printable(redact(text), _CHARS)


def _open_paths(group: int) -> Iterator[str]:
    """List what the processes of a group have open."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended, or is another's
            if os.getpgid(int(pid)) == group:
                for name in os.listdir(f"/proc/{pid}/fd"):
                    yield os.readlink(f"/proc/{pid}/fd/{name}").removesuffix(DELETED)


async def _fetch(url: str, seconds: float) -> int:
    """Get a URL's status, once its first bytes came; no redirect, no proxy."""
    async with (
        aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
        ) as client,
        client.get(url, allow_redirects=False) as answer,
    ):
        left = _CHUNK_BYTES
        while left > 0 and (more := await answer.content.read(left)):
            left -= len(more)
        return answer.status
