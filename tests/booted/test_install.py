"""A fresh system, `apt install` of the package, and all is in place; nothing was backed up by the
installation itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.booted.machine import Machine, boot, install_package
from support.booted.users import MAP, PROOF_SERVICE, PROOF_TIMER, SERVICE, STORE, TIMER

SERVICES = (SERVICE, PROOF_SERVICE)
FOLLOWING = [
    f"t3-backup-{what}@{unit}.service" for what in ("failed", "hooks") for unit in SERVICES
]
UNITS = (*SERVICES, TIMER, PROOF_TIMER, *FOLLOWING)

pytestmark = pytest.mark.releases


@pytest.fixture(scope="module")
def machine(suite: str, deb: Path) -> Iterator[Machine]:
    """On which nothing but the package was installed, and what that needs."""
    with boot(suite) as fresh:
        assert fresh.run("sh", "-c", "command -v python3", check=False).code != 0
        install_package(fresh, deb)
        yield fresh


def test_the_command_works_at_once(machine: Machine) -> None:
    machine.run("rm", "-f", MAP)
    assert machine.run("t3-backup-state", "--version").out.startswith("t3-backup ")
    assert machine.run("t3-backup-state", "list").out == f"no snapshots in {STORE}\n"
    machine.write(MAP, "# nobody yet\n")
    assert "nothing to back up" in machine.run("t3-backup-state", "run").out


def test_the_report_can_be_made_with_what_apt_installs_beside_it(machine: Machine) -> None:
    assert machine.run("t3-backup-state", "report", "--html", "-").out.startswith("<!DOCTYPE html>")


def test_its_manual_page_is_there(machine: Machine) -> None:
    text = machine.run("man", "t3-backup-state", env={"MANWIDTH": "80"}).out
    assert "t3-backup-state run --user alice" in text
    assert "T3_BACKUP_KEEP" in text


def test_the_timer_waits_for_the_early_morning(machine: Machine) -> None:
    shown = machine.show(TIMER, "ActiveState", "UnitFileState", "NextElapseUSecRealtime")
    assert shown["ActiveState"] == "active"
    assert shown["UnitFileState"] == "enabled"
    hour = re.search(r" (\d\d:\d\d):\d\d CES?T$", shown["NextElapseUSecRealtime"])
    assert hour is not None, shown
    assert "04:10" <= hour[1] <= "04:30"


def test_the_other_timer_waits_for_sunday_morning(machine: Machine) -> None:
    shown = machine.show(PROOF_TIMER, "ActiveState", "UnitFileState", "NextElapseUSecRealtime")
    assert shown["ActiveState"] == "active"
    assert shown["UnitFileState"] == "enabled"
    hour = re.match(r"Sun .* (\d\d:\d\d):\d\d CES?T$", shown["NextElapseUSecRealtime"])
    assert hour is not None, shown
    assert "05:40" <= hour[1] <= "06:40"


@pytest.mark.parametrize("unit", SERVICES)
def test_the_installation_backs_up_nobody_and_proves_nothing(machine: Machine, unit: str) -> None:
    assert machine.show(unit, "ExecMainStartTimestamp", "UnitFileState") == {
        "ExecMainStartTimestamp": "",
        "UnitFileState": "static",
    }
    assert machine.journal(unit=unit) == []


def test_what_it_made_is_closed_to_others(machine: Machine) -> None:
    modes = machine.run(
        "stat",
        "-c",
        "%a %U:%G %n",
        STORE,
        "/var/log/t3-backup",
        "/var/log/t3-backup/t3-backup-state.log",
    ).lines
    assert modes == [
        f"700 root:root {STORE}",
        "750 root:adm /var/log/t3-backup",
        "640 root:adm /var/log/t3-backup/t3-backup-state.log",
    ]


def test_no_unit_has_failed_and_systemd_finds_no_fault_in_ours(machine: Machine) -> None:
    assert machine.failed() == []
    verified = machine.run("systemd-analyze", "verify", *UNITS, check=False)
    assert (verified.code, verified.out + verified.err) == (0, "")


@pytest.mark.parametrize("unit", SERVICES)
def test_systemd_calls_the_services_well_confined(machine: Machine, unit: str) -> None:
    machine.run("systemd-analyze", "security", "--threshold=16", "--no-pager", unit)  # 1.6


def test_the_doctor_finds_all_well(machine: Machine) -> None:
    machine.write(MAP, "# nobody yet\n")
    machine.run("t3-backup-state", "doctor")
