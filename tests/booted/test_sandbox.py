"""What the shipped unit lets the service do, tried from inside: a probe runs in its place, under
all the rest of the unit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.booted.machine import CONFINEMENT_PROBE, Machine, boot
from support.booted.users import SERVICE, STORE, add_user, database_path
from support.paths import DATA

DATABASE = DATA / "state-0.0.24.sqlite"
LOG = "/var/log/t3-backup"
RUNTIME = "/run/t3-backup"  # what a failed run leaves for the hooks
STATE = "/var/lib/t3-backup/restores"  # what a restore is about to do, where no store takes it
PLACES = ("/home", "/home/alice", "/tmp", "/var/tmp", "/dev/shm", STORE, LOG, RUNTIME, STATE)
PRIVATE = {"/tmp", "/var/tmp"}  # others than the machine's, and gone with the service
CAP_KILL, CAP_SETGID, CAP_SETUID = (1 << number for number in (5, 6, 7))

pytestmark = pytest.mark.releases


@pytest.fixture(scope="module")
def machine(suite: str, deb: Path) -> Iterator[Machine]:
    with boot(suite, packages=[deb]) as booted:
        add_user(booted, "alice", mode=0o700)
        add_user(booted, "bob", mode=0o755)
        yield booted


@pytest.fixture(scope="module")
def found(machine: Machine) -> dict[str, Any]:
    """What the probe tells."""
    machine.copy_in(CONFINEMENT_PROBE, "/usr/local/lib/confinement_probe.py")
    for place in set(PLACES) - PRIVATE - {RUNTIME, STATE}:
        machine.run("install", "-m", "755", "/usr/bin/true", f"{place}/program")
    line = f"/usr/bin/python3 -I /usr/local/lib/confinement_probe.py {' '.join(PLACES)}"
    machine.write(
        f"/etc/systemd/system/{SERVICE}.d/probe.conf", f"[Service]\nExecStart=\nExecStart={line}\n"
    )
    machine.run("systemctl", "daemon-reload")
    machine.start_unit(SERVICE)
    [text] = [
        entry["MESSAGE"]
        for entry in machine.journal(unit=SERVICE)
        if str(entry["MESSAGE"]).startswith("{")
    ]
    machine.run("rm", f"/etc/systemd/system/{SERVICE}.d/probe.conf")
    machine.run("systemctl", "daemon-reload")
    return json.loads(text)


def test_it_can_write_to_the_store_and_the_log_and_to_what_is_its_own(
    machine: Machine, found: dict[str, Any]
) -> None:
    """And in /home itself, but in nobody's home: a worker, who is the user by then, has to write a
    -shm next to their database."""
    assert set(found["writable"]["folders"]) == {STORE, LOG, RUNTIME, STATE, "/home"} | PRIVATE
    # By which systemd lets a service ask to be told of scarce memory.
    assert set(found["writable"]["files"]) <= {
        f"/sys/fs/cgroup/system.slice/{SERVICE}/memory.pressure"
    }
    for place in PRIVATE:
        assert machine.run("ls", f"{place}/program", check=False).code != 0


def test_it_cannot_look_into_a_home_that_is_closed(found: dict[str, Any]) -> None:
    """Root's process has no right over files: a worker, who is their owner by then, opens a
    user's."""
    assert "/home/alice" in found["writable"]["unlistable"]


def test_it_can_run_nothing_from_where_users_can_write_nor_from_the_store(
    found: dict[str, Any],
) -> None:
    assert found["execute"] == dict.fromkeys(PLACES, "EACCES")


def test_it_has_no_network(found: dict[str, Any]) -> None:
    assert found["sockets"] == {
        "AF_INET": "EAFNOSUPPORT",
        "AF_INET6": "EAFNOSUPPORT",
        "AF_NETLINK": "EAFNOSUPPORT",
        "AF_UNIX": "done",
    }


def test_it_can_become_a_user_and_end_their_processes_and_no_more(found: dict[str, Any]) -> None:
    three = CAP_KILL | CAP_SETGID | CAP_SETUID
    assert found["capabilities"] == {"CapEff": three, "CapPrm": three, "CapBnd": three, "CapAmb": 0}
    assert found["no_new_privileges"] == "1"
    assert found["setuid"] == "done"
    refused = ("mount", "ptrace", "affinity", "namespace")
    assert {name: found[name] for name in refused} == dict.fromkeys(refused, "EPERM")


def test_it_writes_the_metrics_where_debian_has_their_folder(machine: Machine) -> None:
    """prometheus-node-exporter ships it as root's; all around it is the user prometheus'."""
    folder = "/var/lib/prometheus/node-exporter"
    machine.run("install", "-d", folder)
    machine.run("chown", "alice:", "/var/lib/prometheus")
    machine.copy_in(DATABASE, database_path("alice"), 0o644, "alice:alice")
    machine.start_unit(SERVICE)
    assert (
        machine.run("stat", "-c", "%a %U %n", f"{folder}/t3_backup.prom").out
        == f"644 root {folder}/t3_backup.prom\n"
    )
    assert 't3_backup_last_attempt_ok{account="alice"} 1.0' in machine.read(
        f"{folder}/t3_backup.prom"
    )
    machine.run("apt", "remove", "--yes", "t3-backup")
    assert machine.run("ls", folder).out == ""
