"""Many accounts, of which one is hostile by each of the means that an account has: the others are
moved.

In a soak they are sixty; else eleven. Of all of them the servers of a few run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import programs
from support.booted import t3_servers
from support.booted.machine import Machine, Result, boot
from support.booted.t3_servers import AUTOUPDATE_ROOT, FREEZE, autoupdate
from support.booted.users import MAP, database_path, server_unit
from support.sampling import amount

OLD, NEW = "0.0.24", "0.0.25"
# What each is hostile by, and what is said of it.
HOSTILE = {
    "garbage": "is not a SQLite database",
    "hangs": "",  # a worker that its user stops again and again: how it is told is up to its limits
    "full": "MiB are free there, and a bump may take",
    "robbed": "is taken by mallory (uid ",
    "doubled": "is taken by good01 (uid ",
    "own": "/home/own/.t3/runtime/versions/0.0.26/t3",
    "broken": f"{NEW} fails on its data at ",
}
# who has moved themselves to a T3 of their own is left alone, and not frozen
FROZEN = {user: why for user, why in HOSTILE.items() if user != "own"}
GOOD = [f"good{number:02}" for number in range(1, amount(60, 11) - len(HOSTILE) + 1)]
RUNNING = GOOD[:2]
PORTS = {user: 4001 + number for number, user in enumerate([*GOOD, *HOSTILE])}
PORTS["doubled"] = PORTS["good01"]
_SETTINGS = (
    "T3_NPM_SPEC=/srv/t3-{version}.tgz\nT3_AUTOUPDATE_WATCH=1\n"
    "T3_AUTOUPDATE_PATIENCE=20\nT3_AUTOUPDATE_SETTLE=0\n"
)
_ADD_USERS = """
map=$1; shift
for user; do
    if [ "$user" = full ]; then
        mkdir /home/full; mount -t tmpfs -o size=10M tmpfs /home/full
    fi
    useradd --create-home --user-group --shell=/bin/bash "$user" 2>/dev/null
    install -d -o "$user" -g "$user" -m 700 "/home/$user" "/home/$user/.t3" "/home/$user/.t3/userdata"
    install -o "$user" -g "$user" -m 644 /srv/small.sqlite "/home/$user/.t3/userdata/state.sqlite"
    echo "$user@example=$user" >>"$map"
done
"""
# A view in the place of a table that the next version drops: its migration fails.
_BREAK = "ALTER TABLE auth_sessions RENAME TO kept; CREATE VIEW auth_sessions AS SELECT * FROM kept"
_OWN = "[Service]\nExecStart=\nExecStart=/home/own/.t3/runtime/versions/0.0.26/t3 serve\n"
_SQL = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.executescript(sys.argv[2]); c.close()"
)
_TAKE = (
    "import socket, sys; s = socket.socket(); s.bind(('127.0.0.1', int(sys.argv[1])));"
    "s.listen(); print('listens', flush=True); sys.stdin.read()"
)


@pytest.fixture(scope="module")
def machine(deb: Path, autoupdate_deb: Path, small: Path) -> Iterator[Machine]:
    with boot("bookworm", packages=[deb, autoupdate_deb]) as booted:
        t3_servers.set_up_servers(booted, small, ())
        booted.run("systemctl", "disable", "--now", "t3-backup-state.timer")
        booted.copy_in(small, "/srv/small.sqlite")
        booted.sh(_ADD_USERS, MAP, *PORTS, timeout=300)
        booted.write("/etc/default/t3-autoupdate", _SETTINGS)
        for user, port in PORTS.items():
            booted.write(f"/etc/t3-serve/{user}.env", f"T3_PORT={port}\n")
        booted.run("systemctl", "enable", "--now", *map(server_unit, RUNNING))
        for user in RUNNING:
            booted.until(lambda user=user: listens(booted, user), f"server of {user}")
        booted.run("python3", "-c", _SQL, database_path("broken"), _BREAK, user="broken")
        # of when all else was well
        assert booted.run("t3-backup-state", "run", timeout=300, check=False).code == 0
        yield booted


def listens(machine: Machine, user: str) -> bool:
    script = 'exec 3<>"/dev/tcp/127.0.0.1/$1"'
    return machine.run("bash", "-c", script, "bash", str(PORTS[user]), check=False).code == 0


@contextmanager
def works_as(machine: Machine, user: str, said: str, *line: str) -> Iterator[None]:
    """A process of a user's that goes on meanwhile; it begins by saying something."""
    with machine.start(*line, user=user) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == said
            yield
        finally:
            machine.run("pkill", "-KILL", "-u", user, check=False)
            process.kill()
            with process:
                assert process.stdin is not None


@contextmanager
def hostile(machine: Machine) -> Iterator[None]:
    """Each does what it can, while that lasts."""
    garbage = ("dd", "if=/dev/urandom", f"of={database_path('garbage')}", "bs=1M", "count=1")
    machine.run(*garbage, user="garbage")
    machine.write(f"/etc/systemd/system/{server_unit('own')}.d/60-own.conf", _OWN)
    machine.run("systemctl", "daemon-reload")
    machine.add_user("mallory")
    taking = ("python3", "-c", _TAKE, str(PORTS["robbed"]))
    stopping = programs.booted_line("stop_own.py")
    with (
        works_as(machine, "mallory", "listens", *taking),
        works_as(machine, "hangs", "stops", *stopping),
    ):
        yield


def bump(machine: Machine, *words: str) -> Result:
    """The command, which waits less long for who does not answer."""
    hurry = "t3_backup.autoupdate.activity._SECONDS=4.0"
    line = programs.booted_line("call_with.py", hurry, "t3_backup.autoupdate.main", *words)
    return machine.run(*line, check=False, timeout=1800)


def accounts(machine: Machine) -> dict[str, dict[str, Any]]:
    said = bump(machine, "status", "--json").out
    return {one["user"]: one for one in json.loads(said)["accounts"]}


def test_all_are_moved_but_the_hostile_ones_and_only_these_are_frozen(machine: Machine) -> None:
    t3_servers.offer_version(machine, NEW)
    with hostile(machine):
        answer = bump(machine, "--to", NEW)
        found = accounts(machine)
    assert answer.code == 1, answer
    assert {user: found[user]["version"] for user in GOOD} == dict.fromkeys(GOOD, NEW), answer
    assert {user: found[user]["version"] for user in HOSTILE} == dict.fromkeys(HOSTILE, OLD)
    for user in RUNNING:
        line = programs.booted_line("print_version.py", str(PORTS[user]))
        assert machine.run(*line).out.strip() == NEW
    for user, why in FROZEN.items():
        assert f"WARN: {user}: left out: " in answer.out, answer
        assert why in (found[user]["frozen"] or ""), found[user]
        assert f"thaw --user {user}" in answer.out
    own = [line for line in answer.out.splitlines() if " own: " in line]
    assert [line for line in own if HOSTILE["own"] in line], own
    assert {user for user in GOOD if found[user]["frozen"]} == set()
    assert machine.run("cat", FREEZE, check=False).code != 0, "nobody else is frozen"
    # who comes later gets what the others have
    assert machine.run("readlink", f"{AUTOUPDATE_ROOT}/global/current").out.strip().endswith(NEW)


def test_the_nights_after_it_are_quiet_and_who_is_thawed_follows(machine: Machine) -> None:
    machine.sh('echo "T3_PIN=$1" >>/etc/default/t3-autoupdate', NEW)
    night = bump(machine)
    assert night.code == 0, night
    for user in FROZEN:
        assert f"{user}: stays on {OLD}: frozen: " in night.out
    assert autoupdate(machine, "thaw", "--user", "robbed").code == 0  # mallory has gone
    after = bump(machine)
    assert after.code == 0, after
    assert accounts(machine)["robbed"]["version"] == NEW
