"""Logging in across versions: what serves it is found out, and every way in which it can fail is told from the others."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fake_t3
import pytest

from t3_backup.bump import pairing
from t3_backup.bump.pairing import PairingFailed, pair

ROOT = Path(__file__).resolve().parent.parent.parent
BOOTSTRAP, BROWSER = "/api/auth/bootstrap", "/api/auth/browser-session"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(folder: Path, version: str, variant: str = "good") -> Iterator[tuple[Path, Path, int]]:
    """Program, base-dir and port of a running stand-in."""
    folder.mkdir()
    program, base, port = fake_t3.unpack(folder, version, variant), folder / "base", free_port()
    line = [program, "serve", "--port", str(port), "--base-dir", base]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert any("listens on" in said for said in process.stdout)
            yield program, base, port
        finally:
            process.terminate()
            assert process.wait(10) == 130


@pytest.mark.parametrize(("version", "endpoint"), [("0.0.24", BOOTSTRAP), ("0.0.25", BROWSER), ("0.0.26", BROWSER)])
def test_each_version_is_logged_in_to_by_its_own_endpoint(tmp_path: Path, version: str, endpoint: str) -> None:
    with serving(tmp_path / "t3", version) as (program, base, port):
        assert pair(program, base, port).endpoint == endpoint
        assert pair(program, base, port).endpoint == endpoint, "and again, by a new credential"


def test_servers_of_both_versions_at_once_are_told_apart(tmp_path: Path) -> None:
    with serving(tmp_path / "old", "0.0.24") as old, serving(tmp_path / "new", "0.0.25") as new:
        assert [pair(*one).endpoint for one in (old, new, old, new)] == [BOOTSTRAP, BROWSER] * 2


@pytest.mark.parametrize(
    ("variant", "step", "reason"),
    [
        ("pairing-renamed", "exchange", "this version pairs by another name"),
        ("mint-broken", "mint", "ended with 1: SqlError: no such column"),
        ("no-cookie", "exchange", "set no cookie t3_session"),
        ("not-authenticated", "session", "not authenticated"),
    ],
)
def test_a_version_that_nobody_can_log_in_to_is_told_by_its_step(tmp_path: Path, variant: str, step: str, reason: str) -> None:
    with serving(tmp_path / "t3", "0.0.25", variant) as (program, base, port), pytest.raises(PairingFailed, match=reason) as failed:
        pair(program, base, port)
    assert failed.value.step == step


def test_an_old_server_whose_database_a_newer_command_has_migrated_fails_at_the_mint(tmp_path: Path) -> None:
    """All else goes on answering 200."""
    with serving(tmp_path / "old", "0.0.24") as (old, base, port):
        newer = fake_t3.unpack(tmp_path / "new", "0.0.25") if (tmp_path / "new").mkdir() is None else None
        assert newer is not None
        subprocess.run([newer, "auth", "pairing", "list", "--base-dir", base], check=True, capture_output=True)
        with pytest.raises(PairingFailed, match="table auth_pairing_links has no column named role") as failed:
            pair(old, base, port)
        assert failed.value.step == "mint"
        with pytest.raises(PairingFailed, match="POST /api/auth/bootstrap answered 500"):
            pair(newer, base, port)


class Script:
    """A server that says what a test wants it to, request by request."""

    def __init__(self, *answers: bytes | Callable[[socket.socket], None]) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for answer in self._answers:
            there, _ = self._listener.accept()
            with there:
                text = b""
                while b"\r\n\r\n" not in text:
                    text += there.recv(65536)
                self.asked.append(text.decode().split("\r\n")[0])
                if callable(answer):
                    answer(there)
                else:
                    there.sendall(answer)


def http(status: int, body: str = "", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


AUTHENTICATED = '{"authenticated": true}'
COOKIE = "Set-Cookie: t3_session=abc.def; Path=/; HttpOnly; SameSite=Lax"
GOOD = http(200, AUTHENTICATED, COOKIE)


def hang(there: socket.socket) -> None:
    there.recv(1)  # until the other side has had enough


def trickle(there: socket.socket) -> None:
    there.sendall(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n")
    while True:
        try:
            there.sendall(b" ")
        except OSError:
            return
        time.sleep(0.05)


def flood(there: socket.socket) -> None:
    """More than anybody wants, for as long as it is taken."""
    try:
        there.sendall(b"HTTP/1.1 200 X\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            there.sendall(b" " * 65536)
    except OSError:
        return


@pytest.fixture
def mint(tmp_path: Path) -> Callable[[str], Path]:
    """A program whose `auth pairing create` is a script."""

    def make(script: str) -> Path:
        path = tmp_path / "t3"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


MINTS = """echo 'ExperimentalWarning' >&2; printf '{\\n "id": "1",\\n "credential": "ABCDEFGH2345"\\n}\\n'"""


@pytest.mark.parametrize(
    ("answers", "step", "reason"),
    [
        ([http(401)], "exchange", "browser-session answered 401"),
        ([http(500)], "exchange", "browser-session answered 500"),
        ([http(404), http(401)], "exchange", "bootstrap answered 401"),
        ([http(404), http(404)], "exchange", "there is none of"),
        ([http(302, "", "Location: /elsewhere")], "exchange", "answered 302"),
        ([hang], "exchange", "did not answer in time"),
        ([trickle], "exchange", "did not answer in time"),
        ([flood], "exchange", "more than 65536 bytes"),
        ([http(200, AUTHENTICATED, "X: " + "y" * 100_000, COOKIE)], "exchange", "POST"),
        ([b"nonsense\r\n\r\n"], "exchange", "POST"),
        ([http(200, "<html>", COOKIE)], "exchange", "no JSON"),
        ([http(200, "[]", COOKIE)], "exchange", "no object"),
        ([http(200, "[" * 60_000, COOKIE)], "exchange", "no JSON"),
        ([http(200, "{}", COOKIE)], "exchange", "does not say authenticated"),
        ([http(200, AUTHENTICATED)], "exchange", "set no cookie"),
        ([http(200, AUTHENTICATED, "Set-Cookie: other=1")], "exchange", "set no cookie"),
        ([GOOD, http(200, '{"authenticated": false}')], "session", "not authenticated"),
        ([GOOD, http(200, "{}")], "session", "not authenticated"),
        ([GOOD, http(500)], "session", "answered 500"),
        ([GOOD, hang], "session", "did not answer in time"),
    ],
)
def test_every_other_answer_is_the_verdict(
    mint: Callable[[str], Path], tmp_path: Path, answers: list[bytes], step: str, reason: str
) -> None:
    script = Script(*answers)
    began = time.monotonic()
    with pytest.raises(PairingFailed, match=reason) as failed:
        pair(mint(MINTS), tmp_path, script.port, seconds=1)
    assert failed.value.step == step
    assert len(script.asked) == len(answers), "no answer but a 404 has a second one asked"
    assert time.monotonic() - began < 10
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "ended with 3"),
        ("echo 'table is locked'; exit 1", "ended with 1: table is locked"),
        ("echo hello", "no JSON, but 'hello'"),
        ("echo '{}'", "no credential"),
        ("""echo '{"credential": "a b"}'""", "no credential"),
        ("echo '{' >&2; sleep 60", "did not end within"),
        ("sleep 60 & exit 0", "did not end within"),
        ("head -c 10000000 /dev/zero", "no JSON"),
    ],
)
def test_a_mint_that_fails_hangs_or_babbles_is_told(mint: Callable[[str], Path], tmp_path: Path, script: str, reason: str) -> None:
    with pytest.raises(PairingFailed, match=reason) as failed:
        pair(mint(script), tmp_path, 1, seconds=1)
    assert failed.value.step == "mint"


def test_a_server_that_is_not_there_is_told(mint: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(PairingFailed, match="POST /api/auth/browser-session: ") as failed:
        pair(mint(MINTS), tmp_path, free_port(), seconds=5)
    assert failed.value.step == "exchange"


def test_no_proxy_is_asked(mint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(GOOD, http(200, AUTHENTICATED))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert pair(mint(MINTS), tmp_path, script.port, seconds=5).endpoint == pairing.ENDPOINTS[0]
    assert script.asked == [f"POST {BROWSER} HTTP/1.1", "GET /api/auth/session HTTP/1.1"]


def test_the_command_says_it_in_its_exit_status_and_as_json(tmp_path: Path) -> None:
    def command(*words: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "t3_backup.bump.pairing", *map(str, words)]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)

    with serving(tmp_path / "t3", "0.0.24") as (program, base, port):
        words = ("--t3", program, "--base-dir", base, "--port", port)
        good = command(*words, "--json")
        assert (good.returncode, json.loads(good.stdout)) == (0, {"paired": True, "endpoint": BOOTSTRAP})
        assert command(*words).stdout == f"paired by {BOOTSTRAP}\n"
    bad = command(*words, "--json")
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["step"] == "exchange"
    assert command("--t3", program).returncode == 2
    assert command("--t3", program, "--base-dir", base, "--port", 0).returncode == 2
