"""The timer's own run on a machine with users whose servers write all the time: all is backed up,
nobody notices, all is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.booted.machine import Machine, boot
from support.booted.users import (
    SERVICE,
    TIMER,
    Server,
    add_user,
    database_path,
    is_idle,
    list_snapshots,
    paused_worker,
    running_server,
)

STAMP = "/var/lib/systemd/timers/stamp-t3-backup-state.timer"
EVERY_SECOND = """
[Timer]
OnCalendar=
OnCalendar=*:*:0/1
RandomizedDelaySec=0
AccuracySec=1us
"""
AT_ONCE = "[Timer]\nRandomizedDelaySec=0\n"
# alice and bob have live servers, bob's home is open; carol's was stopped, dave's was killed; erin
# never had one.
USERS = ("alice", "bob", "carol", "dave")


@dataclass
class Night:
    """A machine on which the timer has fired, and how it was before."""

    machine: Machine
    servers: dict[str, Server]
    # what `state` told of the users whose servers were down
    before: dict[str, dict[str, list[str]]]


def state(machine: Machine, user: str) -> dict[str, list[str]]:
    """Of each file beside a user's database: owner, mode, inode, size and SHA-256."""
    script = """
    cd "$1"
    for name in *; do echo "$name $(stat -c "%U:%G %a %i %s" "$name") $(sha256sum <"$name")"; done
    """
    lines = machine.sh(script, str(Path(database_path(user)).parent)).lines
    return {line.split()[0]: line.split()[1:] for line in lines}


def override(machine: Machine, timer: str) -> None:
    """Give the timer a drop-in ("" for none) and start it with it."""
    path = f"/etc/systemd/system/{TIMER}.d/test.conf"
    machine.write(path, timer)
    machine.sh(f"systemctl daemon-reload; systemctl restart {TIMER}")


pytestmark = pytest.mark.releases


@pytest.fixture(scope="module")
def night(suite: str, deb: Path, grown: Callable[[int], Path]) -> Iterator[Night]:
    with boot(suite, packages=[deb]) as machine, ExitStack() as stack:
        for user, mode in (("alice", 0o700), ("bob", 0o755), ("carol", 0o700), ("dave", 0o700)):
            add_user(machine, user, grown(24), mode)
        add_user(machine, "erin")
        servers = {
            user: stack.enter_context(running_server(machine, user)) for user in ("alice", "bob")
        }
        with running_server(machine, "dave") as killed:
            killed.kill()
        before = {user: state(machine, user) for user in ("carol", "dave")}
        override(machine, EVERY_SECOND)
        machine.until(lambda: len(list_snapshots(machine).get("alice", [])) >= 2, "second run")
        override(machine, "")
        machine.until(lambda: is_idle(machine), "end of the last run")
        yield Night(machine, servers, before)


def test_the_timer_fires_and_every_database_is_backed_up_and_proven(night: Night) -> None:
    found = list_snapshots(night.machine)
    assert sorted(found) == sorted(USERS)
    for user in USERS:
        # what is unchanged is not kept twice
        assert len(found[user]) >= (2 if user in night.servers else 1)
        assert {snapshot["verdict"] for snapshot in found[user]} == {"verified"}
    assert night.machine.show(TIMER, "LastTriggerUSec")["LastTriggerUSec"] not in ("", "n/a")
    night.machine.run("t3-backup-state", "verify")
    assert night.machine.failed() == []


def test_no_commit_of_a_live_server_failed_and_they_go_on(night: Night) -> None:
    """Row 3. Their servers wait for no lock."""
    for running in night.servers.values():
        assert running.mark() > 0


@pytest.mark.parametrize("user", ["carol", "dave"])
def test_what_a_stopped_or_killed_server_left_is_as_it_was(night: Night, user: str) -> None:
    """Row 5. The index of the -wal alone may be built anew, and an empty -wal may come."""
    before, after = night.before[user], state(night.machine, user)
    assert ("state.sqlite-wal" in before) == (user == "dave")
    for name in set(before) - {"state.sqlite-shm"}:
        assert after[name] == before[name]
    came = {name: after[name] for name in set(after) - set(before)}
    assert set(came) <= {"state.sqlite-shm", "state.sqlite-wal"}
    assert came.get("state.sqlite-wal", ["", "", "", "0"])[3] == "0"


def test_every_file_in_a_home_is_still_its_users(night: Night) -> None:
    """Row 6. Under the shipped unit."""
    strangers = night.machine.sh(
        'for user in alice bob carol dave erin; do find "/home/$user" ! -user "$user" -o ! -group "$user"; done'
    )
    assert strangers.out == ""


@pytest.mark.parametrize("user", ["carol", "dave"])
def test_a_server_starts_after_the_run_and_goes_on_writing(night: Night, user: str) -> None:
    """Row 6. No -wal or -shm of root's is in its way, whether it had been stopped or killed."""
    with running_server(night.machine, user) as running:
        night.machine.start_unit(SERVICE)
        assert running.mark() > 0
    assert not night.machine.sh(f"ls {database_path(user)}-* 2>/dev/null || true").out


def test_the_journal_tells_of_each_account_by_its_field(night: Night) -> None:
    lines = night.machine.journal("T3_BACKUP_USER=bob", unit=SERVICE)
    assert len(lines) >= 2
    *_, newest = (line for line in lines if "T3_BACKUP_VERDICT" in line)
    assert newest["MESSAGE"].startswith("backed up bob -> /var/backups/t3-state/bob/state-")
    assert newest["PRIORITY"] == "6"
    assert newest["T3_BACKUP_OUTCOME"] == "backed_up"
    assert newest["T3_BACKUP_VERDICT"] == "verified"
    assert newest["T3_BACKUP_RUN"] == newest["_SYSTEMD_INVOCATION_ID"]
    assert [entry["MESSAGE"] for entry in night.machine.journal("T3_BACKUP_USER=erin")][:1] == [
        "skip erin (no state.sqlite)"
    ]
    messages = [entry["MESSAGE"] for entry in night.machine.journal(unit=SERVICE)]
    assert "done (5 accounts, 0 not well)" in messages


def test_the_log_has_one_object_for_each_account_and_run(night: Night) -> None:
    entries = [
        json.loads(line)
        for line in night.machine.read("/var/log/t3-backup/t3-backup-state.log").splitlines()
    ]
    runs = {entry["run"] for entry in entries}
    assert len(runs) >= 2
    for number, run in enumerate(dict.fromkeys(entry["run"] for entry in entries)):
        of_run = {entry["user"]: entry["outcome"] for entry in entries if entry["run"] == run}
        # Nobody writes to carol's and dave's between the first and the second; later their servers
        # run for a while.
        still = dict.fromkeys(set(USERS) - set(night.servers), "unchanged") if number == 1 else {}
        expected = dict.fromkeys(USERS, "backed_up") | still | {"erin": "skipped"}
        if number > 1:
            of_run = {
                user: "backed_up" if outcome == "unchanged" else outcome
                for user, outcome in of_run.items()
            }
        assert of_run == expected
    assert len(entries) == 5 * len(runs)


def test_the_status_says_who_is_being_copied_while_it_is_copied(night: Night) -> None:
    machine = night.machine
    with paused_worker(machine, "alice"):
        text = machine.until(lambda: machine.show(SERVICE, "StatusText")["StatusText"], "status")
        assert text.startswith("alice: "), text
        assert text.endswith("0 of 5 accounts done")
    machine.until(lambda: is_idle(machine), "end of the run")
    assert machine.show(SERVICE, "Result")["Result"] == "success"
    assert machine.show(SERVICE, "StatusText")["StatusText"].startswith(
        "done: 5 accounts, 0 not well"
    )


def test_a_night_that_was_slept_through_is_made_up_for(night: Night) -> None:
    machine = night.machine
    machine.run("systemctl", "stop", TIMER)
    machine.run("touch", "--date=3 days ago", STAMP)
    last = len(list_snapshots(machine)["alice"])
    override(machine, AT_ONCE)
    machine.until(lambda: len(list_snapshots(machine)["alice"]) > last, "run that was missed")
    machine.until(lambda: is_idle(machine), "its end")
    assert machine.failed() == []
