"""Commands as transient units: what they are given, what is taken of what they print, and that none
outlives its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import programs
from support.booted.gate_trials import gate_machine
from support.booted.machine import Machine
from support.paths import ROOT

_CALL = programs.booted_line("call_transient_unit.py")


@pytest.fixture(scope="module")
def machine(suite: str, deb: Path, autoupdate_deb: Path) -> Iterator[Machine]:
    with gate_machine(
        suite, [deb, autoupdate_deb], ROOT / "demo/data/state-0.0.24.sqlite"
    ) as found:
        yield found


def call(machine: Machine, function: str, *words: Any, **how: Any) -> dict[str, Any]:
    text = json.dumps([function, words, how])
    return machine.run(*_CALL, stdin=text, env={"SECRET": "x"}).document


def run(machine: Machine, *argv: str, **how: Any) -> dict[str, Any]:
    return call(
        machine, "run", argv, **({"name": "t3-test", "properties": [], "seconds": 20} | how)
    )


def gone(machine: Machine) -> bool:
    listed = machine.run(
        "systemctl", "list-units", "--all", "--plain", "--no-legend", "t3-test*", "t3-as-*"
    ).out
    return listed == "" and machine.run("pgrep", "-f", "[s]leep 1000", check=False).out == ""


def test_a_command_is_run_as_it_stands_and_its_streams_are_apart(machine: Machine) -> None:
    """No shell, and nothing of systemd's either: a $ is a $, and a % is a %."""
    words = ["$HOME", "${HOME}", "$$", "a$", "%n %%", "two words", '"', "\\n", "'", ";", ""]
    line = ["/usr/bin/python3", "-c", programs.text("show_words.py"), *words]
    found = run(machine, *line)
    assert (found["code"], json.loads(found["out"]), found["err"], found["timed_out"]) == (
        7,
        words,
        "e",
        False,
    )
    assert gone(machine)


def test_what_is_printed_beyond_the_limit_is_dropped(machine: Machine) -> None:
    found = run(
        machine,
        "/bin/sh",
        "-c",
        "head -c 5000000 /dev/zero | tr '\\0' x; head -c 5000000 /dev/zero | tr '\\0' y >&2",
        limit_bytes=1000,
    )
    assert (found["code"], found["out"], found["err"]) == (0, "x" * 1000, "y" * 1000)


def test_one_that_takes_too_long_is_gone_with_all_that_it_started(machine: Machine) -> None:
    found = run(machine, "/bin/sh", "-c", "echo begun; sleep 1000 & sleep 1000", seconds=1)
    assert (found["timed_out"], found["out"]) == (True, "begun\n")
    assert found["code"] != 0
    assert found["seconds"] < 10
    assert gone(machine)


def test_one_that_ignores_the_signal_is_killed(machine: Machine) -> None:
    """systemd itself would wait for a minute and a half."""
    found = run(machine, "/bin/sh", "-c", "trap '' TERM; while :; do sleep 1000; done", seconds=1)
    assert found["timed_out"]
    assert 10 < found["seconds"] < 30
    assert gone(machine)


def test_one_that_closes_its_streams_and_stays_is_ended_too(machine: Machine) -> None:
    found = run(machine, "/bin/sh", "-c", "exec >&- 2>&-; sleep 1000", seconds=1)
    assert found["timed_out"]
    assert gone(machine)


def test_what_can_not_be_started_says_why(machine: Machine) -> None:
    found = run(machine, "/nonexistent/program")
    assert found["code"] != 0
    assert found["err"]
    assert gone(machine)


def test_a_caller_who_is_interrupted_leaves_no_unit(machine: Machine) -> None:
    with machine.start(*programs.booted_line("sleep_in_unit.py")) as process:
        assert process.stdout is not None
        pid = process.stdout.readline().strip()
        machine.until(
            lambda: machine.run("pgrep", "-f", "[s]leep 1000", check=False).out, "command"
        )
        machine.run("kill", "-INT", pid)
        process.wait(20)
    assert gone(machine)


def test_an_owner_is_themselves_with_their_own_environment_and_no_more(machine: Machine) -> None:
    machine.run("systemctl", "set-environment", "ANTHROPIC_API_KEY=x")
    line = ["/usr/bin/python3", "-c", programs.text("show_self.py")]
    found = json.loads(call(machine, "as_owner", "alice", line, 20)["out"])
    machine.run("systemctl", "unset-environment", "ANTHROPIC_API_KEY")
    uid = int(machine.run("id", "-u", "alice").out)
    environment = {
        "HOME": "/home/alice",
        "USER": "alice",
        "LOGNAME": "alice",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
        "LANG": "C.UTF-8",
    }
    assert found.pop("env").items() - {("LC_CTYPE", "C.UTF-8")} == environment.items()
    assert found == {
        "ids": [uid, uid],
        "groups": [uid],
        "cwd": "/home/alice",
        "stdin": "",
        "nnp": "1",
        "caps": 0,
    }


def test_there_is_no_owner_who_is_root_or_nobody_at_all(machine: Machine) -> None:
    assert "uid 0 is refused" in call(machine, "as_owner", "root", ["/usr/bin/id"], 5)["failure"]
    assert "no such user" in call(machine, "as_owner", "mallory", ["/usr/bin/id"], 5)["failure"]


def test_units_are_ended_by_a_pattern_and_others_stay(machine: Machine) -> None:
    for name in ("t3-test-a", "t3-test-b", "other"):
        machine.run(
            "systemd-run",
            "--quiet",
            f"--unit={name}",
            "/bin/sh",
            "-c",
            "trap '' TERM; while :; do sleep 1; done",
        )
    end = programs.booted_line("end_units.py", "t3-test-*.service")
    machine.run(*end)
    assert (
        machine.run("systemctl", "is-active", "t3-test-a", "t3-test-b", "other", check=False).lines[
            2
        ]
        == "active"
    )
    assert machine.run("systemctl", "is-active", "t3-test-a", "t3-test-b", check=False).lines in (
        ["failed"] * 2,
        ["inactive"] * 2,
    )
    machine.run(*end)  # there is none
    machine.run("systemctl", "kill", "--signal=KILL", "other")
    machine.run("systemctl", "reset-failed")


def test_without_a_bus_it_says_what_to_do(machine: Machine) -> None:
    machine.run("systemctl", "stop", "dbus.socket", "dbus.service")
    machine.run("rm", "-f", "/run/dbus/system_bus_socket")
    try:
        assert "systemctl start dbus.socket" in run(machine, "/bin/true")["failure"]
    finally:
        machine.run("systemctl", "start", "dbus.socket")
    assert run(machine, "/bin/true")["code"] == 0
