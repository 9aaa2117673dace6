"""A login that is too slow is told from one that is broken, and tried once more; how long a server
may take to listen grows with its databases."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_t3.served import free_port, laid_out

from t3_backup.accounts import Account
from t3_backup.errors import Failure
from t3_backup.system import transient_unit
from t3_backup.system.transient_unit import Done
from t3_backup.t3 import limits
from t3_backup.t3.databases import DatabaseState
from t3_backup.t3.servers import Activity, Server

GOOD = Done(0, json.dumps({"paired": True, "endpoint": "/e"}), "")


def failed(*, slow: bool, step: str = "mint") -> Done:
    said = {"paired": False, "step": step, "reason": "why", "slow": slow}
    return Done(1, json.dumps(said), "")


def server(look: Callable[[Account], Activity | None] = lambda _: None) -> Server:
    account = Account("alice", 1000, 1000, (1000,), Path("/home/alice"))
    return Server(account, Service(), 3773, Path("alice.env"), look)  # type: ignore[arg-type]


class Service:
    """One that runs."""

    unit = "t3-serve@alice.service"

    def runs(self) -> bool:
        return True

    def show(self, _name: str) -> str:
        return "active"


class Units:
    """What the units of an owner say, one after the other, and how long each may take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *said: Done) -> None:
        self.left, self.seconds, self.lines = list(said), [], []  # type: ignore[var-annotated]
        monkeypatch.setattr(transient_unit, "as_owner", self.run)

    def run(self, _user: str, line: list[str], seconds: float) -> Done:
        self.lines.append(line)
        self.seconds.append(seconds)
        return self.left.pop(0)


@pytest.mark.parametrize("slow", [failed(slow=True), Done(255, "", "", timed_out=True)])
def test_a_slow_login_is_told_and_tried_once_more(
    monkeypatch: pytest.MonkeyPatch, slow: Done
) -> None:
    units, heard = Units(monkeypatch, slow, GOOD), list[str]()
    assert server().log_in(Path("t3"), 60, heard.append) == "/e"
    assert units.left == []
    [said] = heard
    assert said.startswith("alice: no login on port 3773 yet, it is tried once more: ")


def test_a_login_that_is_slow_twice_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    units = Units(monkeypatch, failed(slow=True), failed(slow=True), GOOD)
    with pytest.raises(Failure, match="no login on port 3773: too slow, twice: mint: why"):
        server().log_in(Path("t3"), 60, print)
    assert units.left == [GOOD]


@pytest.mark.parametrize(
    "broken", [failed(slow=False), Done(1, "{}", ""), Done(1, '{"step": "x"}', "")]
)
def test_a_broken_login_has_failed_at_once(monkeypatch: pytest.MonkeyPatch, broken: Done) -> None:
    units, heard = Units(monkeypatch, broken, GOOD), list[str]()
    with pytest.raises(Failure, match="alice: no login on port 3773: "):
        server().log_in(Path("t3"), 60, heard.append)
    assert (units.left, heard) == ([GOOD], [])


def test_the_limit_of_a_login_leaves_each_of_its_steps_the_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    units = Units(monkeypatch, GOOD)
    server().log_in(Path("t3"), 100, print)
    assert units.seconds[0] > 5 * 100
    assert "--seconds=100" in units.lines[0]


def test_what_is_left_of_our_logins_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [Done(0, '{"left": ""}', ""), Done(1, '{"left": "two"}', ""), Done(1, "", "")]
    Units(monkeypatch, *said, Done(1, "", "", timed_out=True))
    found = [server().end_logins(Path("t3"), 60) for _ in range(4)]
    assert found == [
        "",
        "two",
        "a login of our checks: it ended with 1",
        "a login of our checks: it took too long",
    ]


def test_no_secret_that_an_owner_says_gets_into_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    Units(monkeypatch, Done(1, "", "Token: K7WQ2MZ4HXRT"))
    with pytest.raises(Failure) as found:
        server().log_in(Path("t3"), 60, print)
    assert "K7WQ2MZ4HXRT" not in str(found.value)


def test_a_server_with_large_databases_may_take_longer_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started when it is asked how large they are, which is when the patience has ended."""
    program, port = laid_out(tmp_path / "t3", "0.0.25"), free_port()
    line = [program, "serve", "--port", str(port), "--base-dir", tmp_path / "base"]
    started: list[subprocess.Popen[bytes]] = []

    def look(_account: Account) -> Activity:
        started.append(subprocess.Popen(line, stdout=subprocess.DEVNULL))
        return Activity(
            52, 0, databases=(DatabaseState("state.sqlite", 4_000_000_000, held=False),)
        )

    one = server(look)
    monkeypatch.setattr(Server, "_require_port", lambda _: port)
    try:
        one.await_answer(0.3)
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert len(started) == 1


def test_a_server_that_does_not_hear_yet_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As T3 is from 0.0.42 on: what it was asked too early it never answers."""
    program, port = laid_out(tmp_path / "t3", "0.0.42"), free_port()
    line = [program, "serve", "--port", str(port), "--base-dir", tmp_path / "base"]
    monkeypatch.setenv("T3_FAKE_DEAF", "2")
    monkeypatch.setattr(Server, "_require_port", lambda _: port)
    with subprocess.Popen(line, stdout=subprocess.DEVNULL) as process:
        try:
            server().await_answer(60)
            with socket.create_connection(("127.0.0.1", port), 5) as there:
                there.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert there.recv(4) == b"HTTP"
        finally:
            process.kill()


def test_a_server_that_listens_and_never_answers_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        monkeypatch.setattr(Server, "_require_port", lambda _: port)
        with pytest.raises(Failure, match=f"listens and does not answer on port {port} after 0.2"):
            server().await_answer(0.2)


@pytest.mark.parametrize("size", [None, 0, 1000])
def test_a_server_with_small_databases_may_not(
    monkeypatch: pytest.MonkeyPatch, size: int | None
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(Server, "_require_port", lambda _: closed.getsockname()[1])

        def look(_account: Account) -> Activity:
            if size is None:
                raise Failure("it can't be read")
            return Activity(52, 0, databases=(DatabaseState("state.sqlite", size, held=False),))

        with pytest.raises(Failure, match=r"does not listen on port [0-9]+ after 0\.2"):
            server(look).await_answer(0.2)


def test_a_database_of_five_gigabytes_has_time_to_be_copied_and_migrated() -> None:
    assert limits.start_seconds(60, 5_000_000_000) == 60 + 250
    assert limits.start_seconds(60, 0) == 60
