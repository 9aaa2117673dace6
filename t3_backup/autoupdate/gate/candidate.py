"""A server of a version that is tried: started so that it can't outlive who tries it, watched, and asked as a browser would.

What it prints goes through a pipe, of which the last lines are kept: one that prints without end fills no disk.
"""

from __future__ import annotations

import asyncio
import json
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
from types import TracebackType
from typing import Self

import aiohttp

from t3_backup.t3.pairing import HOST
from t3_backup.text import printable

_POLL_S = 0.1
_ASK_S = 5.0  # for GET /, which is told and decides nothing
_END_S = 5.0
_CHUNK_BYTES = 64 << 10
_LINE_BYTES = 4096
_LINES, _CHARS = 20, 500  # of the log that is told
_TROUBLE = re.compile(r"migration.*(fail|error)|SqlError|SQLITE_", re.IGNORECASE)


class Candidate:
    """A running server; at the end of the block it and its group are gone, however far it came."""

    def __init__(self, t3: Path, base_dir: Path, port: int) -> None:
        """Start it. Raises OSError."""
        # Whoever kills this process ends the server, too.
        line = ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--", str(t3), "serve", "--host", HOST]
        line += ["--port", str(port), "--base-dir", str(base_dir)]
        nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
        self._process = subprocess.Popen(line, stdin=nothing, stdout=pipe, stderr=subprocess.STDOUT, process_group=0)
        self._port = port
        self._said: deque[str] = deque(maxlen=_LINES)
        self._trouble: str | None = None
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(_END_S)  # what has left its group may hold the pipe

    @property
    def ended(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    @property
    def trouble(self) -> str | None:
        """The first line that speaks of a database that it could not bring to its level."""
        return self._trouble

    @property
    def log(self) -> tuple[str, ...]:
        """The last lines that it printed, fit to be shown."""
        return tuple(self._said)

    def listens(self, seconds: float) -> bool:
        """Whether it does, within so many seconds, or ends before."""
        until = time.monotonic() + seconds
        while self.ended is None and time.monotonic() < until:
            with suppress(OSError), socket.create_connection((HOST, self._port), 1):
                return True
            time.sleep(_POLL_S)
        return False

    def wait(self, seconds: float) -> int | None:
        """Its exit code; None where it runs for longer."""
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(seconds)
            self._reader.join(_END_S)
            return code
        return None

    def terminate(self) -> None:
        """Ask it to stop."""
        self._process.terminate()

    def status(self, seconds: float) -> int | None:
        """The status of GET /: all that a probe of liveness sees. None without an answer."""
        answer = self._get("/", min(seconds, _ASK_S))
        return None if answer is None else answer[0]

    def version(self, seconds: float) -> str | None:
        """What it says that it is; empty where it answers something else, None where it doesn't answer."""
        answer = self._get("/.well-known/t3/environment", seconds)
        if answer is None:
            return None
        try:
            return printable(str(json.loads(answer[1])["serverVersion"]), 100)
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""

    def _get(self, path: str, seconds: float) -> tuple[int, bytes] | None:
        """Status and first bytes; None without an answer in all this time."""
        try:
            return asyncio.run(_ask(f"http://{HOST}:{self._port}{path}", seconds))
        except (TimeoutError, aiohttp.ClientError, ValueError, OSError):
            return None

    def _listen(self) -> None:
        """Keep the end of what it prints, up to the end of the pipe."""
        assert self._process.stdout is not None
        rest = b""
        while data := os.read(self._process.stdout.fileno(), _CHUNK_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(line)
            if len(rest) > _LINE_BYTES:
                self._take(rest)
                rest = b""
        self._take(rest)

    def _take(self, line: bytes) -> None:
        text = printable(line[:_LINE_BYTES].decode(errors="replace"), _LINE_BYTES)
        if text.strip():
            self._said.append(text[:_CHARS])
            if self._trouble is None and _TROUBLE.search(text):
                self._trouble = text[:_CHARS]


async def _ask(url: str, seconds: float) -> tuple[int, bytes]:
    """No redirect is followed, no proxy of the environment asked, nothing unpacked, and no more than some bytes are read."""
    limit, jar, headers = aiohttp.ClientTimeout(total=seconds), aiohttp.DummyCookieJar(), {"Accept-Encoding": "identity"}
    async with (
        aiohttp.ClientSession(timeout=limit, cookie_jar=jar, trust_env=False, auto_decompress=False, headers=headers) as client,
        client.get(url, allow_redirects=False) as answer,
    ):
        body = b""
        while len(body) < _CHUNK_BYTES and (more := await answer.content.read(_CHUNK_BYTES)):
            body += more
        return answer.status, body
