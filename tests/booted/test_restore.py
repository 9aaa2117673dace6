"""A restore beside a real unit: the server is stopped and waited for, kept from starting, and
started again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.booted.machine import Machine, boot
from support.booted.users import (
    ALICE_UNIT,
    SERVICE,
    STORE,
    add_user,
    count_events,
    database_path,
    install_server_units,
    list_snapshots,
    server_state,
)

pytestmark = pytest.mark.releases

CONTENTS = ["+store", "alice", "alice+catalog", "attempts.json"]


@pytest.fixture(scope="module")
def there(suite: str, deb: Path, grown: Callable[[int], Path]) -> Iterator[Machine]:
    with boot(suite, packages=[deb]) as machine:
        add_user(machine, "alice", grown(24))
        install_server_units(machine)
        machine.run("systemctl", "start", ALICE_UNIT)
        machine.run("t3-backup-state", "run")
        yield machine


def test_a_running_server_is_named_where_it_is_to_be_left_alone(there: Machine) -> None:
    pid = there.sh("pgrep -f '^/usr/bin/python3 /opt/t3'").out.strip()
    answer = there.run("t3-backup-state", "restore", "alice", "--yes", "--no-service", check=False)
    assert answer.code == 4
    assert f"pid {pid} (" in answer.err
    assert server_state(there)["ActiveState"] == "active"


def test_a_server_that_takes_twenty_seconds_to_stop_is_waited_for_and_started_again(
    there: Machine,
) -> None:
    before = server_state(there)["MainPID"]
    snapshot = list_snapshots(there)["alice"][0]
    there.write("/run/linger", "20")
    document = there.run("t3-backup-state", "restore", "alice", "--yes", "--json").document
    there.write("/run/linger", "0")
    assert document["seconds"]["stop"] > 19
    assert document["server"] == "started"
    assert document["snapshot"]["name"] == snapshot["name"]
    now = server_state(there)
    assert (now["ActiveState"], now["LoadState"]) == ("active", "loaded")
    assert now["MainPID"] != before
    rows = document["snapshot"]["census"]["rows"]["orchestration_events"]
    assert count_events(there, "alice") >= rows
    assert there.sh(f"stat -c %U:%G:%a {database_path('alice')}").out.strip() == "alice:alice:644"
    assert there.failed() == []


def test_one_command_undoes_it_and_a_stopped_server_stays_stopped(there: Machine) -> None:
    there.run("systemctl", "stop", ALICE_UNIT)
    document = there.run(
        "t3-backup-state", "restore", "alice", "--label", "prerestore", "--yes", "--json"
    ).document
    assert document["server"] == "stopped"
    assert (
        count_events(there, "alice")
        == document["snapshot"]["census"]["rows"]["orchestration_events"]
    )
    assert server_state(there)["LoadState"] == "loaded"
    there.run("systemctl", "start", ALICE_UNIT)


# A restore that is killed while the server is down; and what it was about to do.
KILLED = """
t3-backup-state restore alice --yes >/dev/null 2>&1 &
until [ "$(systemctl show --property=LoadState --value "$1")" = masked ]; do :; done
kill -9 $!
cat "$2"
"""


def test_what_a_killed_restore_left_is_ended_by_the_next_timer_run(there: Machine) -> None:
    """Under the sandbox of the service: the files are healed, and the server runs again."""
    intent = json.loads(there.sh(KILLED, ALICE_UNIT, f"{STORE}/alice+restore.json").out)
    assert (intent["unit"], intent["ran"]) == (ALICE_UNIT, True)
    there.until(
        lambda: server_state(there)["ActiveState"] in ("inactive", "failed"), "stopped server"
    )
    there.start_unit(SERVICE)
    assert (server_state(there)["ActiveState"], server_state(there)["LoadState"]) == (
        "active",
        "loaded",
    )
    assert there.sh(f"ls -A {STORE}").lines == CONTENTS
    assert [
        name
        for name in there.sh(f"ls -A {Path(database_path('alice')).parent}").lines
        if "replaced" in name
    ] == []
    messages = [str(entry["MESSAGE"]) for entry in there.journal(unit=SERVICE)]
    assert [text for text in messages if "an interrupted restore was" in text]


def test_a_removal_after_a_killed_restore_leaves_no_server_stopped_or_masked(
    there: Machine,
) -> None:
    """The last one: the package is gone then."""
    there.sh(KILLED, ALICE_UNIT, f"{STORE}/alice+restore.json")
    there.run("apt", "remove", "--yes", "t3-backup")
    assert (server_state(there)["ActiveState"], server_state(there)["LoadState"]) == (
        "active",
        "loaded",
    )
    assert "alice+restore.json" not in there.sh(f"ls -A {STORE}").lines
