"""How systemctl is called: by one set of rules, whatever it does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from t3_backup.errors import Failure, SystemdUnanswered
from t3_backup.system import systemd
from t3_backup.system.systemd import Service, call_systemctl


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of systemctl."""
    path = tmp_path / "systemctl"
    monkeypatch.setattr(systemd, "_SYSTEMCTL", str(path))
    return path


def make(program: Path, text: str) -> None:
    program.write_text(text)
    program.chmod(0o755)


def test_it_gets_words_and_nothing_of_this_process_s_environment(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(
        program,
        "#!/usr/bin/python3 -I\nimport json, os, sys\n"
        "print(json.dumps([sys.argv[1:], dict(os.environ), sys.stdin.read(), os.getpgid(0) == "
        "os.getpid()]))\n",
    )
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("SYSTEMD_PAGER", "less")
    words, environment, typed, own_group = json.loads(
        call_systemctl("show", "--property=Id", "a b; $x.service")
    )
    assert words == ["--no-ask-password", "--no-pager", "show", "--property=Id", "a b; $x.service"]
    # which Python adds
    kept = {name: value for name, value in environment.items() if name != "LC_CTYPE"}
    assert kept == {"PATH": systemd.PATH, "LC_ALL": "C.UTF-8", "TZ": "UTC", "SYSTEMD_COLORS": "0"}
    assert (typed, own_group) == ("", True)


def test_what_it_says_of_a_failure_is_told_with_its_words(program: Path) -> None:
    make(program, "#!/bin/sh\necho out; echo 'Unit x is masked.' >&2; echo more >&2; exit 5\n")
    with pytest.raises(Failure, match=r"^systemctl start x failed: Unit x is masked\.$"):
        call_systemctl("start", "--now", "x")
    assert call_systemctl("start", "x", check=False) == "out\n"
    with pytest.raises(Failure, match="Unit x is masked"):
        Service("x").stop(mask=False)
    make(program, "#!/bin/sh\nexit 5\n")
    with pytest.raises(Failure, match=r"^systemctl start x failed: exit status 5$"):
        call_systemctl("start", "x")


def test_one_that_does_not_end_is_ended_and_one_that_is_not_there_is_named(
    program: Path, tmp_path: Path
) -> None:
    with pytest.raises(Failure, match=r"^systemctl start x: No such file or directory$"):
        call_systemctl("start", "x")
    make(program, f"#!/bin/sh\necho $$ >{tmp_path}/pid\nexec sleep 600\n")
    with pytest.raises(Failure, match=r"^systemctl start x does not end within 2 s$"):
        call_systemctl("start", "x", seconds=2)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_bytes_that_are_no_text_end_nothing(program: Path) -> None:
    make(program, "#!/bin/sh\nprintf 'Id=\\377\\n'\n")
    assert call_systemctl("show", "x") == "Id=\ufffd\n"


# as systemctl 252 and 257 say it while systemd executes itself anew, or is stopped
UNANSWERED = (
    "Failed to get properties: Connection reset by peer",
    "Failed to get properties: Connection timed out",
    "Failed to list units: Transport endpoint is not connected",
    "Failed to get LoadState: Message recipient disconnected from message bus without replying",
    "Failed to connect to system scope bus via local transport: Connection refused",
    "Failed to connect to bus: No such file or directory",
    "Warning! D-Bus connection terminated.",
)


def deaf(program: Path, times: int, said: str, answer: str = "echo active") -> Path:
    """A systemctl whose systemd doesn't answer so often; where it notes each call."""
    calls = program.parent / "calls"
    make(
        program,
        f'#!/bin/sh\necho "$3" >>{calls}\n'
        f"[ $(wc -l <{calls}) -gt {times} ] || {{ echo '{said}' >&2; exit 1; }}\n{answer}\n",
    )
    return calls


@pytest.mark.parametrize("said", UNANSWERED)
def test_a_question_that_systemd_does_not_answer_is_asked_again(program: Path, said: str) -> None:
    calls = deaf(program, 2, said)
    assert Service("x").show("ActiveState") == "active"
    assert calls.read_text().split() == ["show"] * 3


def test_one_that_is_never_answered_is_told_apart_from_a_state(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "_PAUSES_S", (0.0, 0.0))
    calls = deaf(program, 99, UNANSWERED[0])
    with pytest.raises(SystemdUnanswered, match=r"^systemctl show x failed: .* reset by peer$"):
        Service("x").runs()
    assert len(calls.read_text().split()) == 3
    # else a unit would be taken for one that isn't there
    with pytest.raises(SystemdUnanswered):
        call_systemctl("cat", "x", check=False)
    make(program, "#!/bin/sh\nexec sleep 600\n")
    with pytest.raises(SystemdUnanswered, match="does not end within 1 s"):
        call_systemctl("show", "x", seconds=1)


def test_an_answer_is_not_asked_for_again(program: Path) -> None:
    calls = deaf(program, 99, "Failed to start x.service: Unit x.service not found.")
    with pytest.raises(Failure, match="not found") as caught:
        call_systemctl("start", "x.service")
    assert not isinstance(caught.value, SystemdUnanswered)
    assert call_systemctl("cat", "x.service", check=False) == ""
    assert calls.read_text().split() == ["start", "cat"]


@pytest.mark.parametrize(
    ("verb", "again"),
    [("start", True), ("stop", True), ("mask", True), ("kill", False), ("restart", False)],
)
def test_what_changes_something_is_asked_for_again_where_that_does_it_once(
    program: Path, monkeypatch: pytest.MonkeyPatch, verb: str, again: bool
) -> None:
    monkeypatch.setattr(systemd, "_PAUSES_S", (0.0,))
    calls = deaf(program, 1, UNANSWERED[2], "echo done")
    if again:
        assert call_systemctl(verb, "x") == "done\n"
    else:
        with pytest.raises(SystemdUnanswered):
            call_systemctl(verb, "x")
    assert calls.read_text().split() == [verb] * (2 if again else 1)


def test_where_systemd_has_not_booted_the_machine_nobody_is_waited_for(program: Path) -> None:
    """As systemctl says it there, in two lines."""
    said = "System has not been booted with systemd as init system (PID 1). Can'\\''t operate."
    calls = deaf(program, 99, f"{said}\nFailed to connect to bus: Host is down")
    assert call_systemctl("cat", "x", check=False) == ""
    assert calls.read_text().split() == ["cat"]


def test_what_takes_time_itself_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_LONGER_S", (0.0, 0.0))
    calls: list[int] = []

    def answer_at(count: int) -> str:
        calls.append(1)
        if len(calls) < count:
            raise SystemdUnanswered("no answer")
        return "answered"

    assert systemd.insist(lambda: answer_at(3)) == "answered"
    calls.clear()
    with pytest.raises(SystemdUnanswered):
        systemd.insist(lambda: answer_at(4))
    assert len(calls) == 3


def test_it_is_asked_again_within_its_time_alone(program: Path) -> None:
    calls = deaf(program, 99, UNANSWERED[0])
    with pytest.raises(SystemdUnanswered):
        call_systemctl("show", "x", seconds=0.25)
    assert len(calls.read_text().split()) < 4
