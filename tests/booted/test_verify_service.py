"""The weekly proof under its shipped units: every snapshot is proven, what is not what was sealed
is told as a failed run is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.booted.machine import CONFINEMENT_PROBE, Machine, boot, install_package
from support.booted.users import (
    PROOF_SERVICE,
    PROOF_TIMER,
    SERVICE,
    STORE,
    add_user,
    commit_row,
    is_idle,
    list_snapshots,
    paused_worker,
)

from t3_backup.settings import DEFAULT_HOOKS

STAMP = "/var/lib/systemd/timers/stamp-t3-backup-verify.timer"
TOLD = "/var/lib/told"
TELL = f"#!/bin/sh\ncat >{TOLD}.new && mv {TOLD}.new {TOLD}\n"
FLIP = "import sys; f = open(sys.argv[1], 'r+b'); f.seek(-100, 2); b = f.read(1)[0] ^ 1; f.seek(-1, 1); f.write(bytes([b]))"
PRIVATE = {"/tmp", "/var/tmp"}  # others than the machine's, and gone with the service


@pytest.fixture
def machine(suite: str, deb: Path, grown: Callable[[int], Path]) -> Iterator[Machine]:
    """Alice and bob have two snapshots each; a hook keeps what it is told."""
    with boot(suite, packages=[deb]) as booted:
        for user in ("alice", "bob"):
            add_user(booted, user, grown(4))
        booted.start_unit(SERVICE)
        work_of_all(booted)
        booted.start_unit(SERVICE)
        booted.write(f"{DEFAULT_HOOKS}/tell", TELL, 0o700)
        yield booted


def work_of_all(machine: Machine) -> None:
    """The next run has something to keep: what is unchanged is not kept twice."""
    for user in ("alice", "bob"):
        commit_row(machine, user)


def prove(machine: Machine) -> dict[str, str]:
    """Start the proof and wait for its end; how it ended."""
    machine.run("systemctl", "start", PROOF_SERVICE, check=False)
    machine.until(lambda: is_idle(machine, PROOF_SERVICE), "end of the proof")
    return machine.show(PROOF_SERVICE, "ActiveState", "Result", "ExecMainStatus")


def said(machine: Machine) -> list[tuple[str, str]]:
    """What the proof has in the journal: priorities and lines."""
    entries = machine.journal("SYSLOG_IDENTIFIER=t3-backup-state", unit=PROOF_SERVICE)
    return [(entry["PRIORITY"], entry["MESSAGE"]) for entry in entries]


def content(machine: Machine) -> list[str]:
    """Of each file in the store, but the catalogs that note how a proof ended: its name, owner,
    mode, inode, size and time."""
    wanted = ("-type", "f", "-not", "-name", "*+catalog")
    return sorted(machine.run("find", STORE, *wanted, "-printf", "%p %u %m %i %s %T@\n").lines)


def alerts(machine: Machine) -> list[str]:
    """What was said with the priority "alert" of syslog(3)."""
    return [
        entry["MESSAGE"]
        for entry in machine.journal("SYSLOG_IDENTIFIER=t3-backup-state", "PRIORITY=1")
    ]


def test_every_snapshot_of_every_account_is_proven_and_none_is_touched(machine: Machine) -> None:
    before = content(machine)
    assert prove(machine) == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    snapshots = [
        (user, snapshot) for user, found in list_snapshots(machine).items() for snapshot in found
    ]
    assert len(snapshots) == 4
    assert set(said(machine)) == {
        ("6", f"verified {user} {one['name']} ({one['bytes']} bytes)") for user, one in snapshots
    }
    assert content(machine) == before
    assert alerts(machine) == []
    assert machine.run("test", "-e", TOLD, check=False).code != 0


def test_one_bit_that_is_not_as_it_was_fails_it_and_is_told_by_name_alarm_and_hook(
    machine: Machine,
) -> None:
    """The others are proven all the same."""
    bad = list_snapshots(machine)["alice"][1]
    machine.run("python3", "-c", FLIP, bad["path"])
    assert prove(machine) == {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "1"}
    lines = said(machine)
    [(priority, line)] = [
        (priority, line) for priority, line in lines if not line.startswith("verified ")
    ]
    assert line.startswith(f"WARN: alice {bad['name']} does NOT verify: ")
    assert "SHA-256" in line
    assert priority == "3"
    assert len(lines) == 4
    [alert] = machine.until(lambda: alerts(machine), "alarm")
    assert alert.startswith(f"{PROOF_SERVICE} has FAILED: ")
    machine.until(
        lambda: machine.run("test", "-e", TOLD, check=False).code == 0, "call of the hook"
    )
    told = json.loads(machine.read(TOLD))
    assert (told["unit"], told["result"], told["exit"], told["accounts"]) == (
        PROOF_SERVICE,
        "exit-code",
        1,
        [],
    )
    assert told["run"] == machine.show(PROOF_SERVICE, "InvocationID")["InvocationID"]
    sick = machine.run("t3-backup-state", "doctor", "--json", check=False)
    failed = {check["name"] for check in sick.document["checks"] if check["status"] == "fail"}
    assert failed == {"proofs alice", "last proof"}
    assert machine.run("t3-backup-state", "status", check=False).code == 1
    # The night goes on as ever, and once the bit is as it was, so is all.
    machine.start_unit(SERVICE)
    machine.run("python3", "-c", FLIP, bad["path"])
    assert prove(machine)["Result"] == "success"
    machine.run("t3-backup-state", "doctor")
    machine.run("t3-backup-state", "status")
    assert machine.failed() == []


def test_a_sunday_that_was_slept_through_is_made_up_for(machine: Machine) -> None:
    machine.run("systemctl", "stop", PROOF_TIMER)
    machine.run("touch", "--date=15 days ago", STAMP)
    machine.write(
        f"/etc/systemd/system/{PROOF_TIMER}.d/test.conf", "[Timer]\nRandomizedDelaySec=0\n"
    )
    machine.sh(f"systemctl daemon-reload; systemctl start {PROOF_TIMER}")
    machine.until(lambda: len(said(machine)) == 4, "proof that was missed")
    machine.until(lambda: is_idle(machine, PROOF_SERVICE), "its end")
    assert machine.show(PROOF_SERVICE, "Result") == {"Result": "success"}


def test_a_proof_that_is_due_while_a_run_is_at_work_begins_when_it_has_ended(
    machine: Machine,
) -> None:
    work_of_all(machine)
    with paused_worker(machine, "alice"):
        machine.run("systemctl", "start", "--no-block", PROOF_SERVICE)
        jobs = machine.run("systemctl", "list-jobs", "--no-legend", "--full").lines
        assert [line.split()[1:] for line in jobs if PROOF_SERVICE in line] == [
            [PROOF_SERVICE, "start", "waiting"]
        ]
    machine.until(lambda: len(said(machine)) == 6, "proof of all that is there then")
    machine.until(lambda: is_idle(machine, PROOF_SERVICE), "its end")
    assert machine.show(PROOF_SERVICE, "Result", "NRestarts") == {
        "Result": "success",
        "NRestarts": "0",
    }


def test_a_run_that_is_due_while_a_proof_is_at_work_is_made_between_two_snapshots(
    machine: Machine,
) -> None:
    """The night has its backup, however long the proof takes."""
    work_of_all(machine)
    with paused_worker(machine, "alice", PROOF_SERVICE):
        machine.run("systemctl", "start", "--no-block", SERVICE)
        machine.until(
            lambda: machine.show(SERVICE, "ActiveState")["ActiveState"] == "activating",
            "run that waits for the store",
        )
    machine.until(lambda: is_idle(machine), "end of the run")
    assert machine.show(SERVICE, "Result", "NRestarts") == {"Result": "success", "NRestarts": "0"}
    machine.until(lambda: is_idle(machine, PROOF_SERVICE), "end of the proof")
    assert machine.show(PROOF_SERVICE, "Result") == {"Result": "success"}
    assert {len(found) for found in list_snapshots(machine).values()} == {3}
    assert alerts(machine) == []


def test_a_store_that_is_held_is_tried_again_without_an_alarm(machine: Machine) -> None:
    machine.write(
        f"/etc/systemd/system/{PROOF_SERVICE}.d/test.conf", "[Service]\nRestartSec=100ms\n"
    )
    machine.run("systemctl", "daemon-reload")
    with machine.start("flock", STORE, "sh", "-c", "echo held; read line") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        machine.run("systemctl", "start", "--no-block", PROOF_SERVICE)
        machine.until(
            lambda: machine.show(PROOF_SERVICE, "NRestarts")["NRestarts"] != "0", "second try"
        )
        holder.communicate("\n")
    machine.until(lambda: is_idle(machine, PROOF_SERVICE), "end of the last try")
    assert machine.show(PROOF_SERVICE, "Result") == {"Result": "success"}
    assert any(
        "status=75" in str(entry["MESSAGE"]) for entry in machine.journal(unit=PROOF_SERVICE)
    )
    assert alerts(machine) == []


def test_an_upgrade_ends_no_proof_and_a_removal_does_without_an_alarm(
    machine: Machine, newer: Path
) -> None:
    snapshots = [line for line in content(machine) if "/state-" in line]
    with paused_worker(machine, "alice", PROOF_SERVICE) as pid:
        install_package(machine, newer)
        assert machine.show(PROOF_SERVICE, "MainPID", "ActiveState") == {
            "MainPID": str(pid),
            "ActiveState": "activating",
        }
        machine.run("apt", "remove", "--yes", "t3-backup")
        assert machine.pids("alice,root", "t3_backup.worker|t3-backup-state") == []
    assert machine.failed() == []
    assert [line for line in content(machine) if "/state-" in line] == snapshots
    assert machine.run("test", "-e", TOLD, check=False).code != 0


def test_it_can_write_to_the_store_and_to_no_log_nor_home(machine: Machine) -> None:
    """A probe in its place, under all the rest of the unit. In /home itself it could, where there
    is nothing."""
    machine.copy_in(CONFINEMENT_PROBE, "/usr/local/lib/confinement_probe.py")
    for place in ("/home", "/dev/shm", STORE):
        machine.run("install", "-m", "755", "/usr/bin/true", f"{place}/program")
    line = f"/usr/bin/python3 -I /usr/local/lib/confinement_probe.py /home /dev/shm {STORE}"
    machine.write(
        f"/etc/systemd/system/{PROOF_SERVICE}.d/probe.conf",
        f"[Service]\nExecStart=\nExecStart={line}\n",
    )
    machine.run("systemctl", "daemon-reload")
    machine.start_unit(PROOF_SERVICE)
    [text] = [
        entry["MESSAGE"]
        for entry in machine.journal(unit=PROOF_SERVICE)
        if str(entry["MESSAGE"]).startswith("{")
    ]
    found = json.loads(text)
    folders = {
        folder for folder in found["writable"]["folders"] if not folder.startswith(f"{STORE}/")
    }
    assert folders == {STORE, "/home"} | PRIVATE
    assert set(found["writable"]["files"]) <= {
        f"/sys/fs/cgroup/system.slice/{PROOF_SERVICE}/memory.pressure"
    }
    assert "/home/alice" in found["writable"]["unlistable"]
    assert found["execute"] == dict.fromkeys(("/home", "/dev/shm", STORE), "EACCES")
