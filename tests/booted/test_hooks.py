"""Hooks under the shipped units: a failed night is told over the network, whatever it was that the
night died of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import programs
from support.booted.machine import Machine, boot
from support.booted.users import (
    SERVICE,
    STORE,
    add_user,
    database_path,
    is_idle,
    list_snapshots,
    paused_worker,
)

from t3_backup.settings import DEFAULT_HOOKS

HOOKS = f"t3-backup-hooks@{SERVICE}.service"
EXAMPLE = "/usr/share/doc/t3-backup/examples/healthchecks-ping"
LEFT = "/run/t3-backup/failed-run.json"


@pytest.fixture
def machine(suite: str, deb: Path, grown: Callable[[int], Path]) -> Iterator[Machine]:
    """Of two accounts alice's will fail; a hook keeps what it is told."""
    with boot(suite, packages=[deb]) as booted:
        for user in ("alice", "bob"):
            add_user(booted, user, grown(4))
        booted.run("mv", database_path("alice"), "/home/alice/elsewhere")
        booted.run("ln", "-s", "/home/alice/elsewhere", database_path("alice"), user="alice")
        booted.write(f"{DEFAULT_HOOKS}/tell", programs.text("keep_what_is_told.sh"), 0o700)
        yield booted


def fail(machine: Machine) -> str:
    """Run the service, which fails; its invocation."""
    machine.run("systemctl", "start", SERVICE, check=False)
    machine.until(lambda: is_idle(machine), "end of the run")
    shown = machine.show(SERVICE, "ActiveState", "InvocationID")
    assert shown["ActiveState"] == "failed"
    return shown["InvocationID"]


def told(machine: Machine) -> dict[str, Any]:
    """What the hook was given."""
    path = "/var/lib/told/run"
    machine.until(
        lambda: machine.run("test", "-e", path, check=False).code == 0, "call of the hook"
    )
    return json.loads(machine.read(path))


def at_rest(machine: Machine) -> bool:
    return machine.show(HOOKS, "ActiveState")["ActiveState"] in ("inactive", "failed")


def test_an_account_that_fails_is_told_with_all_that_the_run_came_to(machine: Machine) -> None:
    invocation = fail(machine)
    document = told(machine)
    assert (document["unit"], document["run"], document["result"], document["exit"]) == (
        SERVICE,
        invocation,
        "exit-code",
        1,
    )
    assert [(account["user"], account["outcome"]) for account in document["accounts"]] == [
        ("alice", "failed"),
        ("bob", "backed_up"),
    ]
    assert (
        document["accounts"][1]["snapshots"][0]["name"] == list_snapshots(machine)["bob"][0]["name"]
    )
    machine.until(lambda: at_rest(machine), "end of the hooks")
    assert machine.show(HOOKS, "Result")["Result"] == "success"
    assert [
        entry["MESSAGE"]
        for entry in machine.journal(f"_SYSTEMD_UNIT={HOOKS}")
        if "hook" in entry["MESSAGE"]
    ] == ["called hook tell"]
    assert machine.run("stat", "-c", "%a %U", "/run/t3-backup", LEFT).lines == [
        "700 root",
        "600 root",
    ]
    # The README that the package has there is none.
    assert "ignored as hooks" not in "".join(
        entry["MESSAGE"] for entry in machine.journal(unit=HOOKS)
    )


def test_a_good_night_and_a_stopped_one_are_told_nobody(machine: Machine) -> None:
    with paused_worker(machine, "bob"):
        machine.run("systemctl", "stop", SERVICE)
    machine.run("mv", "/home/alice/elsewhere", database_path("alice"))
    machine.start_unit(SERVICE)
    assert machine.show(HOOKS, "ExecMainStartTimestamp") == {"ExecMainStartTimestamp": ""}
    assert machine.run("test", "-e", LEFT, check=False).code != 0


@pytest.mark.parametrize("how", ["killed", "settings", "program"])
def test_a_run_that_can_say_nothing_any_more_is_told_all_the_same(
    machine: Machine, how: str
) -> None:
    expected: tuple[str, int | None, str | None]
    fail(machine)  # what this one leaves is not what the next one came to
    told(machine)
    machine.until(lambda: at_rest(machine), "end of the hooks")
    machine.run("rm", "-r", "/var/lib/told")
    if how == "killed":
        machine.run("systemctl", "reset-failed", SERVICE)
        with paused_worker(machine, "bob") as pid:
            machine.run("kill", "-9", str(pid))
            machine.until(lambda: is_idle(machine), "end of the run")
        expected = ("signal", None, "KILL")
    elif how == "settings":
        machine.write("/etc/default/t3-backup", "T3_BACKUP_KEEP=many\n")
        fail(machine)
        expected = ("exit-code", 2, None)
    else:
        machine.write(
            f"/etc/systemd/system/{SERVICE}.d/broken.conf",
            "[Service]\nExecStart=\nExecStart=/usr/bin/not-there\n",
        )
        machine.run("systemctl", "daemon-reload")
        fail(machine)
        expected = ("exit-code", 203, None)
    document = told(machine)
    assert (document["result"], document["exit"], document["signal"]) == expected
    assert (document["accounts"], document["error"]) == ([], None)


def test_the_example_pings_a_check_over_the_network(machine: Machine) -> None:
    """As README.Debian has it; the service itself could not."""
    machine.run("install", "-m", "0700", EXAMPLE, f"{DEFAULT_HOOKS}/")
    machine.run(
        "sed",
        "-i",
        's|^URL = ""|URL = "http://127.0.0.1:8000/some-uuid"|',
        f"{DEFAULT_HOOKS}/healthchecks-ping",
    )
    with machine.start(*programs.booted_line("receive_pings.py")) as check:
        assert check.stdout is not None
        assert check.stdout.readline() == "listens\n"
        fail(machine)
        machine.until(
            lambda: machine.run("test", "-e", "/root/pings", check=False).code == 0, "ping"
        )
        [ping] = machine.read("/root/pings").splitlines()
        check.kill()
    assert ping.startswith(
        "/some-uuid/fail machine: t3-backup-state.service failed (exit-code, exit 1) | "
        "alice: failed: "
    )


def test_a_hook_that_fails_hangs_or_asks_for_what_it_may_not_have_changes_nothing_but_its_own_unit(
    machine: Machine,
) -> None:
    machine.write("/etc/default/t3-backup", "T3_BACKUP_HOOK_TIMEOUT=1\n")
    machine.write(f"{DEFAULT_HOOKS}/10-hangs", "#!/bin/sh\nsleep 1000\n", 0o755)
    machine.write(f"{DEFAULT_HOOKS}/20-missing", "#!/no/such/program\n", 0o755)
    tries = [
        f"rm -rf {STORE}/bob",
        "ls /home/bob",
        "touch /usr/x /etc/x",
        "mount -t tmpfs none /mnt",
    ]
    machine.write(
        f"{DEFAULT_HOOKS}/30-tries",
        "#!/bin/sh\n" + "".join(f"{line} && echo MAY {line}\n" for line in tries),
        0o755,
    )
    machine.write(f"{DEFAULT_HOOKS}/by.sh", "#!/bin/sh\n", 0o755)
    fail(machine)
    told(machine)
    machine.until(lambda: at_rest(machine), "end of the hooks")
    assert machine.show(SERVICE, "Result", "ExecMainStatus") == {
        "Result": "exit-code",
        "ExecMainStatus": "1",
    }
    assert list_snapshots(machine)["bob"][0]["verdict"] == "verified"
    lines = [
        (entry["PRIORITY"], entry["MESSAGE"]) for entry in machine.journal(f"_SYSTEMD_UNIT={HOOKS}")
    ]
    assert ("4", "WARN: hook 10-hangs was ended, since it took more than 1 s") in lines
    warned = "\n".join(message for priority, message in lines if priority == "4")
    assert "hook 20-missing can't be executed: " in warned
    assert "hook 30-tries failed" in warned
    assert "MAY" not in warned
    assert "by.sh (a name may have only letters, digits, - and _)" in warned
    assert ("6", "called hook tell") in lines
    assert HOOKS in machine.failed()
