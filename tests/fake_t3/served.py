"""A stand-in that runs here, in a folder of a test's own, and a browser that asks it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_t3

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """Of one request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A server, and what it is the server of."""

    process: subprocess.Popen[str]
    program: Path
    base: Path
    port: int

    @property
    def database(self) -> Path:
        """V2's where there is one, and so not always its own."""
        v2 = self.base / "userdata" / "statev2.sqlite"
        return v2 if v2.exists() else v2.with_name("state.sqlite")

    def ask(
        self,
        method: str,
        path: str,
        body: str | None = None,
        headers: Mapping[str, str] = JSON,
        cookie: str = "",
    ) -> Answer:
        there = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            there.request(
                method, path, body, dict(headers) | ({"Cookie": cookie} if cookie else {})
            )
            answer = there.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            there.close()

    def exchange(self, endpoint: str, credential: str) -> Answer:
        return self.ask("POST", endpoint, json.dumps({"credential": credential}))

    def is_logged_in(self, cookie: str) -> bool:
        answer = self.ask("GET", "/api/auth/session", cookie=cookie)
        assert answer.status == 200
        return bool(answer.document["authenticated"])

    def login(self, endpoint: str) -> str:
        """A browser's new cookie."""
        answer = self.exchange(endpoint, credential(self.program, self.base))
        assert answer.status == 200, answer
        return str(answer.headers["Set-Cookie"]).split(";")[0]


def call(program: Path, base: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one of its commands; the exit code is for the test to judge."""
    line = [program, *words, "--base-dir", base]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=20)


def credential(program: Path, base: Path) -> str:
    """A new one."""
    done = call(program, base, "auth", "pairing", "create", "--ttl", "5m", "--json")
    assert done.returncode == 0, done
    return str(json.loads(done.stdout)["credential"])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def laid_out(folder: Path, version: str, variant: str = "good", *, live_only: bool = False) -> Path:
    """The program of a new folder."""
    folder.mkdir()
    return fake_t3.unpack(folder, version, variant, live_only)


@contextmanager
def running(
    program: Path,
    base: Path,
    code: int = 130,
    host: str = "127.0.0.1",
    port: int = 0,
    **env: str,
) -> Iterator[Served]:
    """It runs in the block, and is asked to stop at its end: it must end with `code`."""
    port = port or free_port()
    line = [program, "serve", "--host", host, "--port", str(port), "--base-dir", base]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, text=True, env=dict(os.environ) | env
    ) as process:
        assert process.stdout is not None
        try:
            assert any("listens on" in said for said in process.stdout)
            yield Served(process, program, base, port)
            process.terminate()
            assert process.wait(20) == code
        finally:
            process.kill()
