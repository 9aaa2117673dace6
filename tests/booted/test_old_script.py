"""The package comes to a machine where a script put there by hand has made the backups: nothing it
kept is lost, and it is gone."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from support.booted.machine import Machine, boot, install_package
from support.booted.users import SERVICE, STORE, TIMER, add_user, list_snapshots

DATA = Path(__file__).parent / "data"
SCRIPT = "/usr/local/bin/t3-backup-state"
# The script's names, in local time, oldest first: what a person made by hand before a change of
# version has a label.
NIGHTS = ["20261024-033004", "20261025-033002", "20261101-033007"]
LABELLED = "state-prebump-0.0.25-20261031-101500.sqlite"


def by_hand(machine: Machine) -> None:
    """Install the script and its units as a person did."""
    machine.run("apt", "install", "--yes", "sqlite3")
    machine.copy_in(DATA / "old-script.sh", SCRIPT, 0o755)
    for unit, file in ((SERVICE, "old.service"), (TIMER, "old.timer")):
        machine.copy_in(DATA / file, f"/etc/systemd/system/{unit}")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", "--now", TIMER)


def a_night(machine: Machine, name: str) -> None:
    """Let the script run; what it made is of the night `name`."""
    machine.start_unit(SERVICE)
    machine.sh(
        f'for new in {STORE}/*/state-$(date +%Y%m%d)-*.sqlite; do mv "$new" "${{new%/*}}/$1"; done',
        name,
    )


def utc(name: str) -> str:
    """The time in a name of the script's, as the list has it."""
    local = datetime.strptime(name.removesuffix(".sqlite")[-15:], "%Y%m%d-%H%M%S").replace(
        tzinfo=ZoneInfo("Europe/Berlin")
    )
    return local.astimezone(ZoneInfo("UTC")).strftime("%Y-%m-%dT%H:%M:%SZ")


def commands(said: str) -> list[str]:
    """The commands that the installation's message names: its indented lines."""
    _, message, rest = said.partition("t3-backup: an earlier, hand-made installation")
    assert message
    assert "hand-made installation" not in rest
    return re.findall(r"^    (\S.*)$", rest, re.MULTILINE)


def test_the_package_takes_over_from_a_script_that_was_put_there_by_hand(
    suite: str, deb: Path, small: Path
) -> None:
    """Row 31. It is told once how to remove what hides the package, and the command that makes all
    old snapshots root's."""
    with boot(suite, prepared=True) as machine:
        by_hand(machine)
        for user in ("alice", "bob"):
            add_user(machine, user, small)
        names = [f"state-{night}.sqlite" for night in NIGHTS] + [LABELLED]
        for name in names:
            a_night(machine, name)
        old = machine.run(
            "find", STORE, "-type", "f", "-user", "alice", "-o", "-type", "f", "-user", "bob"
        ).lines
        assert len(old) == 2 * len(names)
        damaged = f"{STORE}/bob/{names[1]}"
        machine.sh(
            'dd if=/dev/urandom of="$1" bs=4096 seek=20 count=1 conv=notrunc status=none', damaged
        )

        todo = commands(install_package(machine, deb))
        # Until they are called the script is what runs, and the doctor says so.
        assert machine.run("sh", "-c", "command -v t3-backup-state").out == f"{SCRIPT}\n"
        sick = machine.run("/usr/bin/t3-backup-state", "doctor", check=False)
        assert sick.code == 1
        for path in (SCRIPT, f"/etc/systemd/system/{SERVICE}", f"/etc/systemd/system/{TIMER}"):
            assert path in sick.text
        assert machine.run("find", STORE, "-name", "state-*", "-user", "root").out == ""

        assert "/usr/bin/t3-backup-state import-legacy" in todo
        for line in todo:
            machine.sh(line)
        assert (
            machine.run("sh", "-c", "command -v t3-backup-state").out
            == "/usr/bin/t3-backup-state\n"
        )
        assert machine.show(TIMER, "ActiveState", "UnitFileState", "FragmentPath")[
            "FragmentPath"
        ].startswith(("/lib/", "/usr/lib/"))
        assert machine.show(TIMER, "ActiveState", "UnitFileState") == {
            "ActiveState": "active",
            "UnitFileState": "enabled",
        }
        machine.start_unit(SERVICE)

        found = list_snapshots(machine)
        for user, kept in (
            ("alice", names),
            ("bob", [name for name in names if name not in damaged]),
        ):
            now, *before = found[user]
            assert now["sequence"] == 1
            assert [(s["taken_at"], s["label"], s["verdict"]) for s in before] == [
                (utc(name), "prebump-0.0.25" if name == LABELLED else None, "verified")
                for name in sorted(kept, key=utc, reverse=True)
            ]
        assert machine.run("find", STORE, "-name", "state-*", "!", "-user", "root").lines == [
            f"{STORE}/bob+leftover/{names[1]}"
        ]
        accounts = machine.run("t3-backup-state", "list", "--json").document["accounts"]
        assert [account["leftovers"] for account in accounts] == [[], [f"{STORE}/bob+leftover"]]
        assert (
            machine.run("stat", "-c", "%a %U:%G", STORE, f"{STORE}/alice").lines
            == ["700 root:root"] * 2
        )
        machine.run("t3-backup-state", "verify")
        machine.run("t3-backup-state", "doctor")
        assert machine.failed() == []
        # Nothing more to say when the package is installed again.
        assert "hand-made" not in install_package(machine, deb, "--reinstall")
