"""Start, watch and ask a server of the version that is tried.

It can't outlive whoever tries it. What it prints goes through a pipe, of which the last lines are
kept: one that prints without end fills no disk.
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
from contextlib import suppress
from pathlib import Path
from typing import Self

import aiohttp

from t3_backup.system.process import start_in_own_group
from t3_backup.t3.endpoints import HOST
from t3_backup.t3.program import serve_command
from t3_backup.text import printable

_POLL_S = 0.1
_END_S = 5.0
_CHUNK_BYTES = 64 << 10
_LINE_BYTES = 4096
_LINES, _CHARS = 20, 500  # of the log that is told
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
        self._said: deque[str] = deque(maxlen=_LINES)
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
        """Give the last lines that it printed, fit to be shown."""
        return tuple(self._said)

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
        """Get the status of a path; None without an answer in all this time."""
        try:
            return asyncio.run(_fetch(f"http://{HOST}:{self._port}{path}", seconds))
        except (TimeoutError, aiohttp.ClientError, ValueError, OSError):
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
        text = printable(line[:_LINE_BYTES].decode(errors="replace"), _LINE_BYTES)
        if text.strip():
            self._said.append(text[:_CHARS])
            if self.trouble is None and _TROUBLE.search(text):
                self.trouble = text[:_CHARS]


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
