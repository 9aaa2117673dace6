"""Under the shipped unit: what T3's servers have open is backed up, wherever their units put it, or
fails its account by name. Row 39, row 43."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import programs
from support.booted.machine import Machine, boot
from support.booted.users import SERVICE, add_user, list_snapshots
from support.t3_data import real_database

pytestmark = pytest.mark.releases

V1, V2 = "v1-real-0.0.42-from26-52", "v2-grown-61"
# The main process is T3's, by its name and its words; $WORDS may name a base directory.
_UNIT = """
[Service]
User=%i
EnvironmentFile=/etc/t3-serve/%i.env
ExecStart=/opt/bin/t3 -I /opt/hold.py serve $WORDS -- --stay $DATABASES
"""
USERS = {
    "alice": "",  # V1 alone
    "bob": "",  # V2 alone
    "carol": "",  # both, and V2 is served
    "dan": "--base-dir /home/dan/other",  # his unit says so
    "eve": "",  # her unit says so by a variable
    "fay": "--base-dir /home/fay/.t3",  # and a server that she has started by hand
}


@pytest.fixture(scope="module")
def machine(suite: str, deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("databases")
    v1, v2 = real_database(V1, folder / "v1"), real_database(V2, folder / "v2")
    with boot(suite, packages=[deb]) as booted:
        booted.run("mkdir", "-p", "/opt/bin", "/etc/t3-serve")
        booted.sh('cp "$(readlink -f /usr/bin/python3)" /opt/bin/t3')
        booted.write("/opt/hold.py", programs.text("hold_databases.py"))
        booted.write("/etc/systemd/system/t3-serve@.service", _UNIT)
        booted.run("systemctl", "daemon-reload")
        for user, words in USERS.items():
            add_user(booted, user)
            base = {"dan": "other", "eve": "state"}.get(user, ".t3")
            place = f"/home/{user}/{base}/userdata"
            booted.run("mkdir", "-p", place, user=user)
            names = ["state.sqlite"] if user != "bob" else []
            names += ["statev2.sqlite"] if user != "alice" else []
            for name in names:
                source = v1 if name == "state.sqlite" else v2
                booted.copy_in(source, f"{place}/{name}", 0o644, f"{user}:{user}")
            variable = f"T3CODE_HOME=/home/{user}/{base}\n" if user == "eve" else ""
            served = f"DATABASES={place}/{names[-1]}\n"
            booted.write(f"/etc/t3-serve/{user}.env", f'{served}WORDS="{words}"\n{variable}')
            booted.run("systemctl", "start", f"t3-serve@{user}")
        yield booted


@pytest.fixture(scope="module")
def by_hand(machine: Machine) -> Iterator[None]:
    """Fay's own server, on a base directory that no unit names."""
    line = "/opt/bin/t3 -I /opt/hold.py serve --base-dir /home/fay/mine -- --stay"
    database = "/home/fay/mine/userdata/statev2.sqlite"
    machine.run(*("systemd-run", "--quiet", "--unit=by-hand", "--uid=fay", *line.split(), database))
    yield
    machine.run("systemctl", "stop", "by-hand", check=False)  # the last test has stopped it


@pytest.fixture(scope="module")
def snapshots(machine: Machine, by_hand: None) -> dict[str, list[dict[str, Any]]]:
    """Those of one run of the service, by user."""
    machine.run("systemctl", "start", SERVICE, check=False)
    found = list_snapshots(machine)
    told = [str(entry["MESSAGE"]) for entry in machine.journal(unit=SERVICE)]
    assert found.keys() == USERS.keys() and all(found.values()), "\n".join(told)
    return found


def files(snapshot: dict[str, Any]) -> dict[str, bool]:
    return {one["file"]: one["live"] for one in snapshot["databases"]}


def test_each_is_backed_up_whole_from_where_its_unit_puts_it(
    snapshots: dict[str, list[dict[str, Any]]],
) -> None:
    found = {user: files(taken[0]) for user, taken in snapshots.items()}
    both = {"state.sqlite": False, "statev2.sqlite": True}
    assert found == {
        "alice": {"state.sqlite": True},
        "bob": {"statev2.sqlite": True},
        **dict.fromkeys(("carol", "dan", "eve", "fay"), both),
    }
    assert {one["verdict"] for taken in snapshots.values() for one in taken} == {"verified"}


def test_a_server_that_no_unit_names_fails_its_account_alone(
    machine: Machine, snapshots: dict[str, list[dict[str, Any]]]
) -> None:
    path = "/home/fay/mine/userdata/statev2.sqlite"
    status = machine.run("t3-backup-state", "status", "--json", check=False)
    accounts = {one["user"]: one for one in status.document["accounts"]}
    assert accounts["fay"]["uncovered"] == [path]
    assert {user: one["state"] for user, one in accounts.items()} == {
        **dict.fromkeys(USERS, "ok"),
        "fay": "critical",
    }
    assert machine.show(SERVICE, "Result")["Result"] == "exit-code"
    told = [str(entry["MESSAGE"]) for entry in machine.journal(unit=SERVICE)]
    [failure] = [text for text in told if "backup FAILED for fay" in text]
    assert f"T3 has {path} open" in failure


def test_once_that_ends_all_is_well(
    machine: Machine, snapshots: dict[str, list[dict[str, Any]]]
) -> None:
    machine.run("systemctl", "stop", "by-hand")
    machine.start_unit(SERVICE)
    status = machine.run("t3-backup-state", "status", "--json")
    assert {one["state"] for one in status.document["accounts"]} == {"ok"}
    machine.run("t3-backup-state", "verify", "--all")
