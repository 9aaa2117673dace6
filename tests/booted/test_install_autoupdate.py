"""A fresh system, `apt install` of both packages: commands and timers are there, and nobody's
version was changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.booted.machine import Machine, boot, install_package
from support.booted.users import MAP

SERVICES = ("t3-autoupdate.service", "t3-autoupdate-drain.service", "t3-autoupdate-resume.service")
TIMERS = ("t3-autoupdate.timer", "t3-autoupdate-drain.timer")
UNITS = (*SERVICES, *TIMERS, "t3-autoupdate-failed@t3-autoupdate.service.service")
# the last one is for the boot
STATES = dict.fromkeys(SERVICES, "static") | {"t3-autoupdate-resume.service": "enabled"}
ROOT = "/var/lib/t3-autoupdate"

pytestmark = pytest.mark.releases


@pytest.fixture(scope="module")
def machine(suite: str, deb: Path, autoupdate_deb: Path) -> Iterator[Machine]:
    """On which nothing but the packages was installed, and what they need."""
    with boot(suite) as fresh:
        install_package(fresh, deb)
        install_package(fresh, autoupdate_deb)
        yield fresh


def test_the_commands_work_at_once_and_on_a_machine_without_t3_they_find_nothing_to_do(
    machine: Machine,
) -> None:
    assert machine.run("t3-autoupdate", "--version").out.startswith("t3-autoupdate ")
    assert "usage: t3-pair" in machine.run("t3-pair", "--help").out
    machine.write(MAP, "# nobody yet\n")
    told = machine.run("t3-autoupdate", "status", check=False)
    assert (told.code, f"WARN: {MAP} names no account" in told.text) == (1, True)
    machine.run("systemctl", "start", "t3-autoupdate.service")
    assert machine.show("t3-autoupdate.service", "Result", "ExecMainStatus") == {
        "Result": "success",
        "ExecMainStatus": "0",
    }
    assert machine.run("ls", ROOT).out == "", "nothing was fetched"


@pytest.mark.parametrize("page", ["t3-autoupdate", "t3-pair"])
def test_its_manual_pages_are_there(machine: Machine, page: str) -> None:
    assert f"{page} " in machine.run("man", page, env={"MANWIDTH": "80"}).out


def test_the_timer_waits_until_the_backup_of_the_night_is_over(machine: Machine) -> None:
    for timer in TIMERS:
        assert machine.show(timer, "ActiveState", "UnitFileState") == {
            "ActiveState": "active",
            "UnitFileState": "enabled",
        }
    shown = machine.show("t3-autoupdate.timer", "NextElapseUSecRealtime")["NextElapseUSecRealtime"]
    hour = re.search(r" (\d\d:\d\d):\d\d CES?T$", shown)
    assert hour is not None, shown
    assert "05:10" <= hour[1] <= "05:20"


def test_the_bus_by_which_transient_units_are_asked_for_runs(machine: Machine) -> None:
    assert machine.show("dbus.socket", "ActiveState") == {"ActiveState": "active"}


@pytest.mark.parametrize("unit", SERVICES)
def test_systemd_calls_the_services_well_confined(machine: Machine, unit: str) -> None:
    assert machine.show(unit, "UnitFileState") == {"UnitFileState": STATES[unit]}
    machine.run("systemd-analyze", "security", "--threshold=30", "--no-pager", unit)  # 2.6


def test_no_unit_has_failed_and_systemd_finds_no_fault_in_ours(machine: Machine) -> None:
    assert machine.failed() == []
    verified = machine.run("systemd-analyze", "verify", *UNITS, check=False)
    assert (verified.code, verified.out + verified.err) == (0, "")


def test_a_purge_leaves_the_backup_alone_and_nothing_of_its_own(machine: Machine) -> None:
    machine.run("apt-get", "purge", "--yes", "t3-autoupdate")
    assert (
        machine.run("sh", "-c", f"ls -d {ROOT} /etc/default/t3-autoupdate", check=False).out == ""
    )
    machine.run("t3-backup-state", "--version")
    assert machine.failed() == []
