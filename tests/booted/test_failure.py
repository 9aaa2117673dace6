"""What goes wrong is told, once and loudly, and costs no other account its backup; what is only
late is tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
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
from support.filesystems import never_answering

from t3_backup import settings
from t3_backup.doctor import units

ALARM = "t3-backup-failed@t3-backup-state.service.service"
ALERT = "1"  # syslog(3)
_STOP_US = 60_000_000  # TimeoutStopSec= of the unit, after which systemd sends SIGKILL, and again


@pytest.fixture
def machine(suite: str, deb: Path, grown: Callable[[int], Path]) -> Iterator[Machine]:
    with boot(suite, packages=[deb]) as booted:
        for user in ("alice", "bob"):
            add_user(booted, user, grown(24))
        yield booted


def alarms(machine: Machine) -> list[str]:
    return [
        entry["MESSAGE"]
        for entry in machine.journal("SYSLOG_IDENTIFIER=t3-backup-state", f"PRIORITY={ALERT}")
    ]


def run_to_the_end(machine: Machine) -> dict[str, str]:
    """Start the service and wait for its end; how it ended."""
    machine.run("systemctl", "start", SERVICE, check=False)
    machine.until(lambda: is_idle(machine), "end of the run")
    return machine.show(SERVICE, "ActiveState", "Result", "ExecMainStatus")


@pytest.mark.soak
def test_a_worker_that_can_t_die_delays_neither_the_end_nor_the_alarm(machine: Machine) -> None:
    """Row 64. systemd waits for nothing that SIGKILL does not end; the next run is none too many."""
    machine.sh("echo T3_BACKUP_STALL=20 >>/etc/default/t3-backup")
    uid = int(machine.run("id", "-u", "alice").out)
    with never_answering(Path("/home/alice"), uid, machine.command):
        assert run_to_the_end(machine)["ExecMainStatus"] == "1"
        machine.until(lambda: alarms(machine), "alarm")
        left = machine.pids("alice", "t3_backup")
        assert len(left) == 1
        names = ("ExecMainExitTimestampMonotonic", "StateChangeTimestampMonotonic")
        ended, done = (int(time) for time in machine.show(SERVICE, *names).values())
        assert done - ended < _STOP_US
        told = machine.journal("T3_BACKUP_USER=bob", unit=SERVICE)
        assert [one["verdict"] for one in list_snapshots(machine)["bob"]] == ["verified"], told
        assert run_to_the_end(machine)["ExecMainStatus"] == "1"
        assert machine.pids("alice", "t3_backup") == left
    machine.until(lambda: not machine.pids("alice", "t3_backup"), "end of what was left behind")
    assert run_to_the_end(machine)["ExecMainStatus"] == "0"


def test_an_account_that_fails_raises_an_alarm_and_costs_no_other(machine: Machine) -> None:
    """Row 20."""
    machine.run("mv", database_path("alice"), "/home/alice/elsewhere")
    machine.run("ln", "-s", "/home/alice/elsewhere", database_path("alice"), user="alice")
    assert run_to_the_end(machine) == {
        "ActiveState": "failed",
        "Result": "exit-code",
        "ExecMainStatus": "1",
    }
    assert [snapshot["verdict"] for snapshot in list_snapshots(machine)["bob"]] == ["verified"]
    [line] = machine.journal("T3_BACKUP_USER=alice", unit=SERVICE)
    assert line["MESSAGE"].startswith("WARN: backup FAILED for alice (")
    assert (line["PRIORITY"], line["T3_BACKUP_OUTCOME"]) == ("3", "failed")
    [alarm] = machine.until(lambda: alarms(machine), "alarm")
    assert alarm.startswith(f"{SERVICE} has FAILED")
    machine.until(
        lambda: machine.show(ALARM, "ActiveState")["ActiveState"] == "inactive",
        "end of the alarm's unit",
    )
    assert machine.show(ALARM, "Result")["Result"] == "success"
    # Mended, and all is well again by itself.
    machine.run("mv", "/home/alice/elsewhere", database_path("alice"))
    assert run_to_the_end(machine) == {
        "ActiveState": "inactive",
        "Result": "success",
        "ExecMainStatus": "0",
    }
    assert machine.failed() == []


def test_a_run_that_finds_the_store_held_is_tried_again_without_an_alarm(machine: Machine) -> None:
    machine.write(f"/etc/systemd/system/{SERVICE}.d/test.conf", "[Service]\nRestartSec=100ms\n")
    machine.run("systemctl", "daemon-reload")
    with machine.start("flock", STORE, "sh", "-c", "echo held; read line") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        machine.run("systemctl", "start", "--no-block", SERVICE)
        machine.until(lambda: machine.show(SERVICE, "NRestarts")["NRestarts"] != "0", "second try")
        holder.communicate("\n")
    machine.until(lambda: is_idle(machine), "end of the last try")
    assert machine.show(SERVICE, "Result")["Result"] == "success"
    assert sorted(list_snapshots(machine)) == ["alice", "bob"]
    assert any("status=75" in str(entry["MESSAGE"]) for entry in machine.journal(unit=SERVICE))
    assert alarms(machine) == []


def test_a_run_that_is_stopped_leaves_no_worker_no_file_and_no_alarm(machine: Machine) -> None:
    with paused_worker(machine, "alice"):
        machine.run("systemctl", "stop", SERVICE)
        assert machine.pids("alice,root", "t3_backup.worker|t3-backup-state") == []
    assert set(machine.run("find", STORE, "-type", "f").lines) == {
        f"{STORE}/+store",
        f"{STORE}/attempts.json",
    }
    assert machine.show(SERVICE, "ActiveState", "Result") == {
        "ActiveState": "inactive",
        "Result": "success",
    }
    assert alarms(machine) == []
    assert run_to_the_end(machine)["Result"] == "success"


def test_a_worker_that_hangs_is_ended_by_the_run_and_not_by_systemd(machine: Machine) -> None:
    """Row 22. The limit of the unit is for what nobody foresaw."""
    machine.write("/etc/default/t3-backup", "T3_BACKUP_TIMEOUT=15\n")
    with paused_worker(machine, "alice"):
        machine.until(lambda: is_idle(machine), "end of the run")
        assert machine.show(SERVICE, "Result", "ExecMainStatus") == {
            "Result": "exit-code",
            "ExecMainStatus": "1",
        }
    assert [snapshot["verdict"] for snapshot in list_snapshots(machine)["bob"]] == ["verified"]
    [line] = machine.journal("T3_BACKUP_USER=alice", unit=SERVICE)
    assert "T3_BACKUP_TIMEOUT" in line["MESSAGE"]
    limit = units.parse_span(machine.show(SERVICE, "TimeoutStartUSec")["TimeoutStartUSec"])
    assert limit is not None
    assert settings.load({}, {}, Path("/dev/null")).run_timeout(accounts=50) < limit
