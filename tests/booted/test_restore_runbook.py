"""The runbook of a restore is followed to the letter: each command that stands in it is run, and
what it shows is what is seen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import programs
from support.booted.machine import Machine, boot
from support.booted.runbook import Page, Reader
from support.booted.users import (
    ALICE_UNIT,
    SERVICE,
    STORE,
    add_user,
    count_events,
    database_path,
    install_server_units,
    list_snapshots,
    paused_worker,
    server_state,
)
from support.paths import DATA, ROOT

PAGE = Page.read(ROOT / "docs" / "runbooks" / "restore.md")
USERDATA = str(Path(database_path("alice")).parent)
EMPTY = programs.text("empty_database.py")
DAMAGE = programs.text("scribble.py")


@pytest.fixture(scope="module")
def reader(suite: str, deb: Path, grown: Callable[[int], Path]) -> Iterator[Reader]:
    """In a machine with two servers at work, and a snapshot of each user; all of it kept as it was,
    for each test to begin with."""
    with boot(suite, packages=[deb]) as machine:
        for user in ("alice", "bob"):
            add_user(machine, user, grown(24))
        machine.sh(
            'cd "$1"; mkdir secrets attachments; echo key >secrets/key; echo {} >settings.json; '
            "head -c 50000 /dev/urandom >attachments/image.png; chown -R alice:alice .",
            USERDATA,
        )
        install_server_units(machine)
        machine.run("t3-backup-state", "run")
        machine.sh('mkdir /srv/kept; cp -a "$1" /home/alice /home/bob /srv/kept', STORE)
        yield Reader(machine, PAGE)


@pytest.fixture(autouse=True)
def begun(reader: Reader) -> None:
    """Both users as they were, with their servers at work."""
    reader.machine.sh(
        "systemctl stop t3-serve@alice t3-serve@bob; systemctl reset-failed; "
        'rm -rf /home/alice /home/bob /mnt/t3-state "$1"; cp -a /srv/kept/t3-state "$1"; '
        "cp -a /srv/kept/alice /srv/kept/bob /home",
        STORE,
    )
    serve(reader.machine, "alice", "bob")


def serve(machine: Machine, *users: str) -> None:
    """Start their servers, and wait until each has committed something."""
    for user in users:
        machine.run("systemctl", "start", f"t3-serve@{user}")
        wal = f"{database_path(user)}-wal"
        machine.until(
            lambda wal=wal: machine.run("test", "-s", wal, check=False).code == 0,
            f"{wal} with something in it",
        )


def as_alice(machine: Machine, script: str) -> None:
    """Run a script of Python on alice's database, with the server stopped meanwhile."""
    machine.run("systemctl", "stop", ALICE_UNIT)
    machine.run("python3", "-c", script, database_path("alice"), user="alice")


def sealed(machine: Machine) -> int:
    """How many events are in the first snapshot of alice's."""
    return int(list_snapshots(machine)["alice"][-1]["census"]["rows"]["orchestration_events"])


def interrupted(machine: Machine, operation: str) -> None:
    """A restore that is killed when its worker is about to do what `operation` says."""
    machine.write("/opt/python3", f"""#!/bin/sh
case "$*" in *' {operation}') echo $$ >/run/held; exec sleep 999 ;; esac
exec /usr/bin/python3 "$@"
""", 0o755)  # fmt: skip
    machine.sh("""
    rm -f /run/held
    restore='/usr/bin/python3 /usr/bin/t3-backup-state restore alice --yes'
    (exec -a /opt/python3 $restore >/dev/null 2>&1) &
    until [ -s /run/held ]; do :; done
    kill -9 $!
    pkill -9 -F /run/held || :
    """)


def test_a_server_that_was_begun_anew_gets_its_threads_back(reader: Reader) -> None:
    machine = reader.machine
    as_alice(machine, EMPTY)
    serve(machine, "alice")
    assert machine.run("t3-backup-state", "run", "--user", "alice", check=False).code == 1
    reader.follow("Which case is it?")
    reader.follow("Put the last good state back")
    assert count_events(machine, "alice") >= sealed(machine)
    assert [snapshot["verdict"] for snapshot in list_snapshots(machine)["alice"]] == [
        "verified",
        "suspect",
        "suspect",
        "verified",
    ]


@pytest.mark.parametrize("how", ["damaged", "deleted", "emptied"])
def test_a_database_that_can_t_be_opened_any_more_comes_back(reader: Reader, how: str) -> None:
    machine = reader.machine
    as_alice(machine, DAMAGE if how == "damaged" else "import os, sys; os.truncate(sys.argv[1], 0)")
    if how == "deleted":
        machine.sh('rm "$1"*', database_path("alice"))
    reader.follow("Put the last good state back", shown=False)
    assert count_events(machine, "alice") >= sealed(machine)


def test_the_way_back_to_an_older_t3(reader: Reader) -> None:
    machine = reader.machine
    machine.run("systemctl", "stop", ALICE_UNIT)
    machine.sh('rm -r "$1"/* "$2/alice" "$2/alice+catalog"', USERDATA, STORE)
    for version in ("0.0.24", "0.0.25"):
        machine.copy_in(
            DATA / f"state-{version}.sqlite", database_path("alice"), 0o644, "alice:alice"
        )
        machine.run("t3-backup-state", "run", "--user", "alice")
    reader.follow("Back to an older T3")
    query = "SELECT max(migration_id) FROM effect_sql_migrations"
    line = programs.booted_line("print_query.py", database_path("alice"), query)
    assert machine.run(*line, user="alice").out.strip() == "30"
    assert server_state(machine)["ActiveState"] == "active"


def test_files_come_back_and_the_database_stays(reader: Reader) -> None:
    machine = reader.machine
    machine.sh('echo lost >"$1/secrets/key"; rm -r "$1/attachments"', USERDATA)
    before = count_events(machine, "alice")
    reader.follow("The files alone")
    assert machine.read(f"{USERDATA}/secrets/key") == "key\n"
    assert machine.sh('stat -c %s "$1/attachments/image.png"', USERDATA).out.strip() == "50000"
    assert count_events(machine, "alice") >= before


def test_several_users_come_back(reader: Reader) -> None:
    machine = reader.machine
    machine.sh("systemctl stop t3-serve@alice t3-serve@bob; rm -r /home/alice/.t3 /home/bob/.t3")
    assert "NOT RESTORED" not in "".join(reader.follow("Several users"))
    assert machine.sh(
        "stat -c %U /home/alice/.t3/userdata/state.sqlite /home/bob/.t3/userdata/state.sqlite"
    ).lines == [
        "alice",
        "bob",
    ]


def test_a_new_machine_gets_all_of_a_copied_store(reader: Reader, deb: Path) -> None:
    """A second machine, with other numbers for its users, and a copy of the store that somebody
    else's account has made."""
    with boot(reader.machine.suite, packages=[deb]) as machine:
        machine.run("useradd", "--uid=4000", "somebody")
        add_user(machine, "bob")
        add_user(machine, "alice")
        machine.sh("rm -r /home/alice/.t3 /home/bob/.t3")
        copy_tree(reader.machine, "/srv/kept/t3-state", machine, "/mnt/t3-state")
        machine.sh("chown -R somebody /mnt/t3-state; chmod -R a+rX /mnt/t3-state")
        for path in (
            "/opt/t3",
            "/opt/serve.py",
            "/run/linger",
            "/etc/systemd/system/t3-serve@.service",
        ):
            machine.write(path, reader.machine.read(path))
        machine.run("systemctl", "daemon-reload")
        elsewhere = Reader(machine, PAGE)
        assert "NOT RESTORED" not in "".join(elsewhere.follow("A new machine"))
        assert count_events(machine, "alice") >= sealed(machine)
        assert machine.sh(f'stat -c %U:%a "$1" {USERDATA}', f"{STORE}/alice").lines == [
            "root:700",
            "alice:700",
        ]
        assert len(list_snapshots(machine)["bob"]) == 2
        reader.followed |= elsewhere.followed


def copy_tree(source: Machine, folder: str, target: Machine, place: str) -> None:
    """A folder of one machine, as it is, in another."""
    for name in source.run("find", folder, "-type", "f", "-printf", "%P\\n").lines:
        encoded = source.run("base64", f"{folder}/{name}").out
        target.sh('mkdir -p "$(dirname "$1")"; base64 -d >"$1"', f"{place}/{name}", stdin=encoded)


def test_an_interrupted_restore_is_ended(reader: Reader) -> None:
    machine = reader.machine
    interrupted(machine, "checkpoint_databases")
    assert server_state(machine)["LoadState"] == "masked"
    reader.follow("A restore was interrupted")
    assert server_state(machine)["LoadState"] == "loaded"
    assert machine.sh(f"ls {USERDATA}").out.count("replaced") == 0


def test_an_interrupted_restore_whose_file_is_gone_is_ended(reader: Reader) -> None:
    machine = reader.machine
    interrupted(machine, "swap_databases")
    machine.sh('rm -f "$1"', database_path("alice"))
    [aside] = re.findall(
        r"state\.sqlite\.(replaced-\w+-\w+)$", machine.sh(f"ls {USERDATA}").out, re.MULTILINE
    )
    reader.follow("It says that a file is gone", {"replaced-20261126T054858Z-790bbc": aside})
    machine.until(lambda: server_state(machine)["ActiveState"] == "active", "server")
    assert count_events(machine, "alice") >= sealed(machine)


@contextmanager
def holder(machine: Machine) -> Iterator[str]:
    """The pid, in the machine, of a process of alice's that has the database open."""
    line = programs.booted_line("hold_open.py", "idle", database_path("alice"))
    with machine.start(*line, user="alice") as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def test_who_has_it_open_is_ended_and_then_it_is_restored(reader: Reader) -> None:
    machine = reader.machine
    as_alice(machine, EMPTY)
    with holder(machine) as pid:
        reader.follow("Somebody has the database open", {"4711": pid})
    serve(machine, "alice")
    assert count_events(machine, "alice") >= sealed(machine)


def test_a_run_that_is_at_work_is_stopped_and_then_it_is_restored(reader: Reader) -> None:
    machine = reader.machine
    as_alice(machine, EMPTY)
    with paused_worker(machine, "alice", operation="check_databases"):
        reader.follow("A run is at work")
    machine.run("systemctl", "reset-failed", SERVICE, check=False)
    serve(machine, "alice")
    assert count_events(machine, "alice") >= sealed(machine)


def test_a_restore_is_undone_and_done_again(reader: Reader) -> None:
    machine = reader.machine
    statement = "CREATE TABLE mine (x)"
    line = programs.booted_line("run_sql.py", "close", database_path("alice"), statement)
    machine.run(*line, user="alice")
    machine.run("t3-backup-state", "restore", "alice", "--yes")
    first = list_snapshots(machine)["alice"][0]["name"]
    query = "SELECT name FROM sqlite_schema WHERE name = 'mine'"
    tables = programs.booted_line("print_query.py", database_path("alice"), query)
    assert machine.run(*tables, user="alice").out.strip() == ""
    reader.follow("Undo a restore", {"state-20261126T054852Z-prerestore": first})
    assert "mine" in machine.run(*tables, user="alice").out


def test_every_step_of_the_page_was_followed() -> None:
    """By the tests above: each heading with commands stands in one of them."""
    assert PAGE.not_followed(Path(__file__)) == set()
    assert sum(len(steps) for steps in PAGE.sections.values()) == PAGE.commands


def test_each_link_of_the_page_leads_to_a_heading() -> None:
    assert PAGE.dead_links == set()
