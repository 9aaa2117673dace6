"""Upgrade, downgrade, reinstallation, removal and purge: what the admin decided stays, and no
snapshot is ever lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.booted.machine import Machine, boot, install_package
from support.booted.users import (
    SERVICE,
    STORE,
    TIMER,
    add_user,
    commit_row,
    is_idle,
    list_snapshots,
    paused_worker,
)
from support.packages import NEWER

STAMP = "/var/lib/systemd/timers/stamp-t3-backup-state.timer"
CONFIGURATION = "/etc/logrotate.d/t3-backup"
DROP_INS = {
    f"/etc/systemd/system/{TIMER}.d/admin.conf": "[Timer]\nRandomizedDelaySec=0\n",
    f"/etc/systemd/system/{SERVICE}.d/admin.conf": "[Service]\nNice=15\n",
}


@pytest.fixture
def machine(suite: str, deb: Path, grown: Callable[[int], Path]) -> Iterator[Machine]:
    """Alice has been backed up once by the service."""
    with boot(suite, packages=[deb]) as booted:
        add_user(booted, "alice", grown(24))
        booted.start_unit(SERVICE)
        yield booted


def version(machine: Machine) -> str:
    return machine.run("t3-backup-state", "--version").out.split()[-1]


def timer(machine: Machine) -> tuple[str, str]:
    shown = machine.show(TIMER, "ActiveState", "UnitFileState")
    return shown["ActiveState"], shown["UnitFileState"]


def override(machine: Machine) -> None:
    for path, text in DROP_INS.items():
        machine.write(path, text)
    machine.run("systemctl", "daemon-reload")


def installed_paths(machine: Machine) -> list[str]:
    """All files and links of the package."""
    return [
        path
        for path in machine.run("dpkg", "-L", "t3-backup").lines
        if machine.run("test", "-d", path, check=False).code != 0
    ]


def left(machine: Machine) -> list[str]:
    """What on the machine is called after the package, but the store and what the admin wrote or
    copied there."""
    found = machine.run(
        "find", "/", "-xdev", "(", "-iname", "*t3*backup*", "-o", "-iname", "*t3_backup*", ")"
    ).lines
    kept = [str(Path(path).parent) for path in DROP_INS]
    return [
        path for path in found if not path.startswith(("/root/", "/var/cache/apt/", "/tmp/", *kept))
    ]


def test_what_the_admin_decided_survives_upgrade_and_downgrade(
    machine: Machine, deb: Path, newer: Path
) -> None:
    older = version(machine)
    override(machine)
    machine.run("systemctl", "disable", "--now", TIMER)
    snapshots = list_snapshots(machine)
    for package, options, expected in (
        (newer, [], NEWER),
        (deb, ["--allow-downgrades"], older),
        (deb, ["--reinstall"], older),
    ):
        install_package(machine, package, *options)
        assert version(machine) == expected
        assert timer(machine) == ("inactive", "disabled")
        assert machine.show(SERVICE, "Nice") == {"Nice": "15"}
    assert list_snapshots(machine) == snapshots
    assert machine.failed() == []


def test_an_enabled_timer_is_so_after_an_upgrade_and_no_backup_was_run_by_it(
    machine: Machine, newer: Path
) -> None:
    before = machine.show(SERVICE, "InvocationID")
    override(machine)
    install_package(machine, newer)
    assert timer(machine) == ("active", "enabled")
    assert machine.show(SERVICE, "InvocationID") == before


def test_an_upgrade_stops_no_running_backup(machine: Machine, newer: Path) -> None:
    commit_row(machine, "alice")
    with paused_worker(machine, "alice", operation="check_databases") as pid:
        install_package(machine, newer)
        assert machine.show(SERVICE, "MainPID", "ActiveState") == {
            "MainPID": str(pid),
            "ActiveState": "activating",
        }
    machine.until(lambda: is_idle(machine), "end of the run")
    assert machine.show(SERVICE, "Result") == {"Result": "success"}
    assert [snapshot["verdict"] for snapshot in list_snapshots(machine)["alice"]] == [
        "verified",
        "verified",
    ]


def test_a_changed_configuration_is_asked_about_and_kept(machine: Machine, newer: Path) -> None:
    machine.sh(f"sed -i 's/weekly/monthly/' {CONFIGURATION}")
    said = install_package(machine, newer, stdin="N\n")
    assert f"Configuration file '{CONFIGURATION}'" in said
    assert "monthly" in machine.read(CONFIGURATION)


def test_a_configuration_that_was_not_changed_is_renewed_without_a_question(
    machine: Machine, newer: Path
) -> None:
    assert "Configuration file" not in install_package(machine, newer)
    assert "rotate 99" in machine.read(CONFIGURATION)


def test_a_removal_keeps_the_snapshots_and_a_new_installation_runs_no_backup_at_once(
    machine: Machine, deb: Path
) -> None:
    """The timer last fired three days ago, and would at once if it knew; the admin has taken its
    random delay away."""
    override(machine)
    machine.run("systemctl", "stop", TIMER)
    machine.run("touch", "--date=3 days ago", STAMP)
    snapshots = list_snapshots(machine)
    files = machine.run("find", STORE, "-type", "f").lines
    machine.run("apt", "remove", "--yes", "t3-backup")
    assert machine.run("find", STORE, "-type", "f").lines == files
    assert machine.show(TIMER, "ActiveState", "LoadState") == {
        "ActiveState": "inactive",
        "LoadState": "not-found",
    }
    assert machine.failed() == []
    install_package(machine, deb)
    assert timer(machine) == ("active", "enabled")
    assert machine.show(TIMER, "LastTriggerUSec") == {"LastTriggerUSec": ""}
    assert machine.show(SERVICE, "ActiveState", "ExecMainStartTimestamp") == {
        "ActiveState": "inactive",
        "ExecMainStartTimestamp": "",
    }
    assert list_snapshots(machine) == snapshots
    machine.run("t3-backup-state", "verify")


def test_a_removal_ends_a_running_backup(machine: Machine) -> None:
    files = machine.run("find", STORE, "-type", "f").lines
    with paused_worker(machine, "alice"):
        machine.run("apt", "remove", "--yes", "t3-backup")
        assert machine.pids("alice,root", "t3_backup.worker|t3-backup-state") == []
    assert machine.run("find", STORE, "-type", "f").lines == files
    assert machine.failed() == []


def test_a_purge_leaves_the_snapshots_says_where_and_leaves_nothing_else(machine: Machine) -> None:
    paths = installed_paths(machine)
    assert "/usr/bin/t3-backup-state" in paths
    machine.write("/etc/default/t3-backup", "T3_BACKUP_KEEP=20\n")
    snapshot = list_snapshots(machine)["alice"][0]["path"]
    said = machine.run("apt", "purge", "--yes", "t3-backup").text
    assert f"the snapshots stay in {STORE}" in said
    assert [path for path in paths if machine.run("test", "-e", path, check=False).code == 0] == []
    assert left(machine) == []
    assert machine.read(snapshot).startswith("SQLite format 3")
    assert machine.run("stat", "-c", "%a %U", STORE).out == "700 root\n"
    assert (
        machine.run("systemctl", "list-unit-files", "--no-legend", "t3-backup*", check=False).out
        == ""
    )
    assert machine.failed() == []


def test_a_purge_where_nothing_was_backed_up_leaves_nothing_at_all(installed: Machine) -> None:
    said = installed.run("apt", "purge", "--yes", "t3-backup").text
    assert "snapshots stay" not in said
    assert installed.run("test", "-e", STORE, check=False).code == 1
    assert left(installed) == []
