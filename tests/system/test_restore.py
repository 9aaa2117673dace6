"""A snapshot back in the place of the live database: whole, alone, its user's. Or nothing was
changed, and it is said why."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support import sandbox
from support.databases import commit_row, give_database
from support.host import Host, succeeded
from support.live_database import (
    IN_USE,
    change_database,
    dump_database,
    hash_live_folder,
    leases_of,
    leave_hot_journal,
    leave_newer_rows_in_a_wal,
    leave_unreadable_wal,
    process_holding,
    run_sql,
)
from support.paths import DATA
from support.processes import until
from support.users import needs_root
from support.workers import serves, start_wrapped, wrap_workers

from demo.users import User
from demo.writer import Writer
from t3_backup.worker.operations import OPERATIONS

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="by hand")]

VERSIONS = {"0.0.24": 30, "0.0.25": 31}


@pytest.fixture
def backed(host: Host, alice: User) -> User:
    """Alice with one snapshot, and changed since."""
    succeeded(host.t3("run"))
    change_database(alice)
    return alice


@pytest.mark.parametrize("version", VERSIONS)
def test_a_real_database_comes_back_as_it_was_at_the_snapshot(
    host: Host, make_user: Callable[..., User], version: str
) -> None:
    user = make_user("rita", DATA / f"state-{version}.sqlite")
    host.write_map(user)
    with Writer(user.database, user=user.name):
        succeeded(host.t3("run"))
    taken = dump_database(host.snapshots(user)[0])
    change_database(user)
    change_database(user, "CREATE TABLE later (x)")
    answer = succeeded(host.t3("restore", user.name, "--yes"))
    assert dump_database(user.database) == taken
    assert set(hash_live_folder(user)) == {"state.sqlite"}
    assert f"T3 level {VERSIONS[version]}" in answer.out


def test_what_it_took_the_place_of_is_kept_and_one_command_brings_it_back(
    host: Host, backed: User
) -> None:
    before = dump_database(backed.database)
    answer = succeeded(host.t3("restore", backed.name, "--yes"))
    assert dump_database(backed.database) != before
    [undo] = [
        line.removeprefix("to undo it: t3-backup-state ")
        for line in answer.out.splitlines()
        if line.startswith("to undo it")
    ]
    succeeded(host.t3(*undo.split(), "--yes"))
    assert dump_database(backed.database) == before
    succeeded(host.t3("verify", backed.name))


def test_a_database_of_thousands_of_tables_comes_back_and_no_name_of_one_is_on_a_command_line(
    host: Host, make_user: Callable[..., User], tmp_path: Path
) -> None:
    """Row 51. All that each worker was started with is noted; what was asked of it isn't there."""
    many = tmp_path / "many.sqlite"
    shutil.copyfile(DATA / "state-0.0.24.sqlite", many)
    tables = "".join(f"CREATE TABLE of_the_user_s_own_{number} (x);" for number in range(5000))
    with closing(sqlite3.connect(many)) as database:
        database.executescript(f"BEGIN; {tables} COMMIT")
    backed = make_user("rita", many)
    host.write_map(backed)
    noted = host.folder / "noted"
    wrapper = wrap_workers(host.folder, **dict.fromkeys(OPERATIONS, f'echo "$*" >>{noted}'))
    succeeded(host.t3("run"))
    taken = dump_database(backed.database)
    change_database(backed)
    line = [str(wrapper), "-m", "t3_backup", "restore", backed.name, "--yes"]
    subprocess.run(line, executable=sys.executable, env=host.env(), cwd="/", check=True, timeout=60)
    assert dump_database(backed.database) == taken
    lines = noted.read_text().splitlines()
    assert {line.rpartition(" ")[2] for line in lines} >= {"swap_databases", "clone_database"}
    assert [line for line in lines if "of_the_user" in line or backed.name in line] == []


def test_the_plan_says_what_is_gained_and_lost_and_touches_nothing(
    host: Host, backed: User
) -> None:
    before = hash_live_folder(backed)
    answer = succeeded(host.t3("restore", backed.name, "--dry-run"))
    assert "content that the restore adds and removes: none" in answer.out
    assert "rows that the restore adds and removes: checkpoint_diff_blobs +48" in answer.out
    document = succeeded(host.t3("restore", backed.name, "--dry-run", "--json")).document
    assert document["action"] == "planned"
    assert document["live"]["rows"]["checkpoint_diff_blobs"] == 0
    assert {
        name: text for name, text in hash_live_folder(backed).items() if name == "state.sqlite"
    } == before
    assert len(host.snapshots(backed)) == 1


def test_nobody_to_ask_and_no_yes_is_refused(host: Host, backed: User) -> None:
    before = backed.database.read_bytes()
    answer = host.t3("restore", backed.name)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "--yes" in answer.err
    assert backed.database.read_bytes() == before


def test_the_document_says_what_was_done(host: Host, backed: User) -> None:
    [snapshot] = host.snapshots(backed)
    document = succeeded(host.t3("restore", backed.name, "--yes", "--json")).document
    assert document["action"] == "restored"
    assert document["snapshot"]["name"] == snapshot.stem
    assert document["prerestore"]["label"] == "prerestore"
    assert document["prerestore"]["method"] == "clone"
    assert document["undo"] == f"t3-backup-state restore {backed.name} --label prerestore"
    assert set(document["seconds"]) == {"proof", "copy", "fold", "prerestore", "exchange"}


def leave_stray_index(user: User) -> None:
    """A -shm without a -wal."""
    path = Path(f"{user.database}-shm")
    path.write_bytes(os.urandom(32768))
    user.give(path)


@pytest.mark.parametrize(
    ("leave", "checkpointed"),
    [
        (leave_newer_rows_in_a_wal, True),
        (leave_stray_index, True),
        (leave_hot_journal, False),
        (leave_unreadable_wal, False),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_lies_beside_the_live_database_never_joins_the_restored_one(
    host: Host, backed: User, leave: Callable[[User], None], checkpointed: bool
) -> None:
    """Row 8. Newer rows, a hot journal, a stray index: the content is the snapshot's, and the old
    state is kept whole."""
    taken = dump_database(host.snapshots(backed)[0])
    leave(backed)
    before = hash_live_folder(backed)
    answer = succeeded(host.t3("restore", backed.name, "--yes"))
    assert dump_database(backed.database) == taken
    run_sql(backed, "PRAGMA journal_mode=wal")
    assert dump_database(backed.database) == taken, "what a server opens is another content"
    kept = sorted(path for path in backed.database.parent.iterdir() if ".replaced-" in path.name)
    if checkpointed:
        assert kept == []
        assert len(host.snapshots(backed)) == 2
    else:
        assert "was kept next to the new one" in answer.out
        assert str(kept[0]) in answer.out
        for path in kept:
            if not path.name.endswith("-shm"):  # an index, which whoever reads may make anew
                assert (
                    hash_live_folder(backed)[path.name]
                    == before[path.name.replace(kept[0].name, "state.sqlite")]
                )
        assert {path.name.removeprefix(kept[0].name) for path in kept} == {
            name.removeprefix("state.sqlite") for name in before
        }


def test_rows_that_were_only_in_the_wal_are_in_what_is_kept(host: Host, backed: User) -> None:
    leave_newer_rows_in_a_wal(backed)
    copy = host.folder / "copy"
    copy.mkdir()
    for ending in ("", "-wal"):
        shutil.copyfile(f"{backed.database}{ending}", copy / f"state.sqlite{ending}")
    with closing(sqlite3.connect(copy / "state.sqlite")) as connection:
        newest = list(connection.iterdump())
    succeeded(host.t3("restore", backed.name, "--yes"))
    assert (
        dump_database(next(path for path in host.snapshots(backed) if "prerestore" in path.name))
        == newest
    )


@pytest.mark.parametrize("how", ["reads", "writes", "idle", "only_open"])
def test_who_has_it_open_is_named_and_nothing_is_changed(
    host: Host, backed: User, how: str
) -> None:
    """Row 9. An idle holder has no lock that SQLite would show."""
    before = hash_live_folder(backed)["state.sqlite"]
    with process_holding(backed, how) as holder:
        answer = host.t3("restore", backed.name, "--yes")
        assert answer.code == IN_USE, answer
        assert f"pid {holder.pid} (" in answer.err
        assert "nothing was changed" in answer.err
        after = hash_live_folder(backed)
    assert after["state.sqlite"] == before
    assert {name for name in after if "replaced" in name} == set()
    assert {path.name for path in host.store.iterdir()} == {
        backed.name,
        f"{backed.name}+catalog",
        "+store",
        "attempts.json",
    }
    succeeded(host.t3("restore", backed.name, "--yes"))


def test_who_opens_it_just_before_the_exchange_keeps_what_they_opened(
    host: Host, backed: User
) -> None:
    """Row 9. They wait in open(2) while the two swap names, have the old file, and get it back
    under its name."""
    before = backed.database.stat().st_ino
    taken = dump_database(backed.database)
    late = "-qq -o /dev/null -e trace=renameat2 -e inject=renameat2:delay_enter=1000000"
    wrapper = wrap_workers(
        host.folder, swap_databases=f'exec strace -D {late} {sys.executable} "$@"'
    )
    words = ("restore", backed.name, "--yes")
    with start_wrapped(host, wrapper, *words, stderr=subprocess.PIPE) as process:

        def exchanging() -> bool:
            leases = [
                text.split()
                for text in Path("/proc/locks").read_text().splitlines()
                if "LEASE" in text
            ]
            workers = [pid for pid in leases_of(leases, before) if serves(pid, "swap_databases")]
            return bool(workers)

        until(exchanging, "lease of the exchange")
        with process_holding(backed, "opened_to_write") as holder:
            out, err = process.communicate(timeout=60)
            assert process.returncode == IN_USE, out + err
            assert f"pid {holder.pid} (" in err
    assert backed.database.stat().st_ino == before
    assert dump_database(backed.database) == taken
    assert set(hash_live_folder(backed)) == {"state.sqlite"}


def test_owner_group_and_mode_are_as_before_and_the_user_writes_at_once(
    host: Host, backed: User
) -> None:
    """Row 17. In a home of 0700, with a mode of one's own."""
    backed.database.chmod(0o640)
    backed.home.chmod(0o700)
    succeeded(host.t3("restore", backed.name, "--yes"))
    status = backed.database.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (
        backed.uid,
        backed.gid,
        0o640,
    )
    change_database(backed)
    with Writer(backed.database, user=backed.name) as writer:
        writer.mark("after")
    assert {path.stat().st_uid for path in backed.database.parent.rglob("*")} == {backed.uid}


@pytest.mark.parametrize("planted", [".t3", ".t3/userdata", ".t3/userdata/state.sqlite"])
def test_a_symlink_on_the_way_is_not_followed(host: Host, backed: User, planted: str) -> None:
    """Row 18. Not by a restore either: what it leads to is another's."""
    victim = host.folder / "victim"
    place = backed.home / planted
    shutil.move(place, victim)
    place.symlink_to(victim)
    before = hashlib.sha256(
        b"".join(p.read_bytes() for p in sorted([victim, *victim.rglob("*")]) if p.is_file())
    ).hexdigest()
    answer = host.t3("restore", backed.name, "--yes")
    assert answer.code == 1, answer
    assert "symlink" in answer.err
    after = hashlib.sha256(
        b"".join(p.read_bytes() for p in sorted([victim, *victim.rglob("*")]) if p.is_file())
    ).hexdigest()
    assert after == before
    assert place.is_symlink()
    assert {path.name for path in host.store.iterdir()} == {
        backed.name,
        f"{backed.name}+catalog",
        "+store",
        "attempts.json",
    }


def test_a_second_name_of_the_live_database_is_refused(host: Host, backed: User) -> None:
    """Row 10. The same file by a hard link."""
    os.link(backed.database, backed.home / "other")
    before = backed.database.read_bytes()
    answer = host.t3("restore", backed.name, "--yes")
    assert answer.code == 1
    assert "hard links" in answer.err
    assert backed.database.read_bytes() == before


@pytest.mark.parametrize("how", ["itself", "hard link", "symlink", "snapshot"])
def test_a_snapshot_is_never_written_over_a_file(host: Host, backed: User, how: str) -> None:
    """Row 10. Not over the live database, nor another name of it, nor over the snapshot itself."""
    path = {"itself": backed.database, "snapshot": host.snapshots(backed)[0]}.get(
        how, host.folder / "other"
    )
    if how == "hard link":
        os.link(backed.database, path)
    elif how == "symlink":
        path.symlink_to(backed.database)
    before = path.read_bytes()
    answer = host.t3("restore", backed.name, "--to", str(path))
    assert (answer.code, "nothing is overwritten" in answer.err) == (2, True), answer
    assert path.read_bytes() == before


def test_a_snapshot_is_written_elsewhere_as_a_plain_database(host: Host, backed: User) -> None:
    before = hash_live_folder(backed)
    path = host.folder / "out.sqlite"
    answer = succeeded(host.t3("restore", backed.name, "--to", str(path)))
    assert str(path) in answer.out
    assert path.stat().st_mode & 0o7777 == 0o600
    assert dump_database(path) == dump_database(host.snapshots(backed)[0])
    assert hash_live_folder(backed) == before
    assert len(host.snapshots(backed)) == 1


@pytest.mark.parametrize("where", ["nowhere/out.sqlite", "link/out.sqlite"])
def test_a_place_that_cannot_be_reached_is_one_line(host: Host, backed: User, where: str) -> None:
    (host.folder / "link").symlink_to(host.folder)
    answer = host.t3("restore", backed.name, "--to", str(host.folder / where))
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer
    assert not (host.folder / "out.sqlite").exists()


def test_the_newest_that_an_older_t3_can_open_is_found(
    host: Host, make_user: Callable[..., User]
) -> None:
    """Snapshots of both levels: migrated, gone back, migrated again."""
    user = make_user("sam", DATA / "state-0.0.24.sqlite")
    host.write_map(user)
    for version in ("0.0.24", "0.0.24", "0.0.25", "0.0.24", "0.0.25"):
        give_database(user, DATA / f"state-{version}.sqlite")
        commit_row(user)
        host.t3("run")
        host.t3("accept", user.name)
    account_dir = host.t3("list", user.name, "--json").account(user.name)["snapshots"]
    levels = [snapshot["t3_level"] for snapshot in account_dir]
    assert levels == [31, 30, 31, 30, 30]
    verified = [
        snapshot["name"]
        for snapshot in account_dir
        if snapshot["verdict"] == "verified" and snapshot["t3_level"] == 30
    ]
    answer = succeeded(host.t3("restore", user.name, "--schema", "30", "--yes", "--json")).document
    assert answer["snapshot"]["name"] == verified[0]
    assert answer["snapshot"]["t3_level"] == 30


def test_going_back_to_less_is_no_loss_to_be_alarmed_of(
    host: Host, make_user: Callable[..., User]
) -> None:
    """The snapshot after a restore is measured by what was put back."""
    user = make_user("gus", DATA / "state-0.0.24.sqlite")
    host.write_map(user)
    succeeded(host.t3("run"))
    give_database(user, DATA / "state-0.0.25.sqlite")
    succeeded(host.t3("run"))
    succeeded(host.t3("restore", user.name, "--schema", "30", "--yes"))
    answer = succeeded(host.t3("run", "--json")).account(user.name)["snapshots"]
    assert [(snapshot["verdict"], snapshot["t3_level"]) for snapshot in answer] == [
        ("verified", 30)
    ]


def test_one_that_does_not_verify_is_not_put_back(host: Host, backed: User) -> None:
    snapshot = host.snapshots(backed)[0]
    before = hash_live_folder(backed)
    with snapshot.open("r+b") as file:
        file.seek(snapshot.stat().st_size // 2)
        file.write(b"bit rot")
    answer = host.t3("restore", backed.name, "--yes")
    assert answer.code == 1
    assert "does not verify" in answer.err
    assert {
        name: text for name, text in hash_live_folder(backed).items() if name in before
    } == before
    assert len(host.snapshots(backed)) == 1


def test_what_is_suspect_is_put_back_by_its_name_alone(host: Host, backed: User) -> None:
    change_database(backed, "DROP TABLE orchestration_events")
    change_database(backed, "DROP TABLE orchestration_command_receipts")
    assert host.t3("run").code == 1
    suspect = host.t3("list", backed.name, "--json").account(backed.name)["snapshots"][0]["name"]
    document = succeeded(host.t3("restore", backed.name, "--dry-run", "--json")).document
    assert document["snapshot"]["name"] != suspect
    answer = succeeded(host.t3("restore", backed.name, "--at", suspect, "--dry-run"))
    assert "suspect (" in answer.out


def test_a_database_that_is_gone_comes_back(host: Host, backed: User) -> None:
    taken = dump_database(host.snapshots(backed)[0])
    shutil.rmtree(backed.home / ".t3")
    answer = succeeded(host.t3("restore", backed.name, "--yes"))
    assert "no state.sqlite" in answer.out
    assert dump_database(backed.database) == taken
    assert (backed.database.stat().st_uid, backed.database.stat().st_mode & 0o777) == (
        backed.uid,
        0o644,
    )
    assert backed.database.parent.stat().st_uid == backed.uid


def test_a_wal_without_its_database_does_not_join_it(host: Host, backed: User) -> None:
    """Row 8. Somebody removed the main file alone."""
    taken = dump_database(host.snapshots(backed)[0])
    leave_newer_rows_in_a_wal(backed)
    backed.database.unlink()
    succeeded(host.t3("restore", backed.name, "--yes"))
    assert dump_database(backed.database) == taken
    assert not Path(f"{backed.database}-wal").exists()


def test_a_live_file_that_is_no_database_stays_beside_it(host: Host, backed: User) -> None:
    taken = dump_database(host.snapshots(backed)[0])
    junk = os.urandom(50_000)
    backed.database.write_bytes(junk)
    answer = succeeded(host.t3("restore", backed.name, "--yes"))
    assert dump_database(backed.database) == taken
    [kept] = [path for path in backed.database.parent.iterdir() if ".replaced-" in path.name]
    assert kept.read_bytes() == junk
    assert str(kept) in answer.out


def test_an_empty_database_in_its_place_is_no_reason_to_stop(host: Host, backed: User) -> None:
    """A server that was started on an empty database is just what people restore after."""
    taken = dump_database(host.snapshots(backed)[0])
    backed.database.write_bytes(b"")
    succeeded(host.t3("restore", backed.name, "--yes"))
    assert dump_database(backed.database) == taken


def test_a_damaged_live_database_is_sealed_as_it_is(host: Host, backed: User) -> None:
    taken = dump_database(host.snapshots(backed)[0])
    with closing(
        sqlite3.connect(f"file:{backed.database}?mode=ro&immutable=1", uri=True)
    ) as connection:
        query = (
            "SELECT rootpage FROM sqlite_schema WHERE type = 'index' "
            "AND tbl_name = 'orchestration_events' ORDER BY name LIMIT 1"
        )
        [(page,)] = connection.execute(query)
    with backed.database.open("r+b") as file:
        file.seek((page - 1) * 4096 + 2000)
        file.write(b"\x55" * 2000)
    answer = succeeded(host.t3("restore", backed.name, "--yes", "--json")).document
    assert dump_database(backed.database) == taken
    assert answer["prerestore"]["verdict"] == "damaged"
    assert answer["undo"] == f"t3-backup-state restore {backed.name} --label prerestore"


def test_a_restore_waits_for_a_run_and_then_says_who_it_is(host: Host, backed: User) -> None:
    """Row 16. Prune and restore take the same lock."""
    before = hash_live_folder(backed)
    store = os.open(host.store, os.O_RDONLY)
    try:
        fcntl.flock(store, fcntl.LOCK_EX)
        answer = host.t3("restore", backed.name, "--yes")
        assert answer.code == 75
        assert f"pid {os.getpid()} (" in answer.err
        assert hash_live_folder(backed)["state.sqlite"] == before["state.sqlite"]
    finally:
        os.close(store)


def test_a_run_waits_for_a_restore(host: Host, backed: User) -> None:
    """Row 16. Nothing is pruned, nor copied, while a snapshot is put back."""
    held = host.folder / "held"
    os.mkfifo(held)
    wrapper = wrap_workers(host.folder, swap_databases=f"read line <{held}")
    with start_wrapped(host, wrapper, "restore", backed.name, "--yes") as process:
        until(
            lambda: [path for path in host.store.iterdir() if path.name.endswith("+restore.json")],
            "restore",
        )
        answer = host.t3("run", "--keep", "1")
        assert answer.code == 75, answer
        assert f"pid {process.pid} (" in answer.err
        assert len(host.snapshots(backed)) >= 1
        release = threading.Thread(target=held.write_text, args=("go\n",))
        release.start()
        assert process.wait(60) == 0
        release.join()
    succeeded(host.t3("run", "--keep", "1"))


def test_an_unknown_user_and_an_empty_account_folder_are_one_line(host: Host, backed: User) -> None:
    for words, code in (
        (("nobody-at-all",), 1),
        ((backed.name, "--label", "none-such"), 1),
        ((backed.name, "--at", "soon"), 2),
    ):
        answer = host.t3("restore", *words, "--yes")
        assert (answer.code, answer.err.count("\n")) == (code, 1), answer
    assert host.t3("restore", backed.name, "--schema", "x").code == 2


def test_an_intent_that_cannot_be_read_is_said_and_stops_that_account_alone(
    host: Host, make_user: Callable[..., User], small: Path
) -> None:
    users = [make_user(name, small) for name in ("ann", "bea")]
    host.write_map(*users)
    succeeded(host.t3("run"))
    (host.store / f"{users[0].name}+restore.json").write_text(json.dumps({"format": 1}))
    commit_row(*users)
    answer = host.t3("run", "--json")
    assert answer.code == 1
    assert [answer.account(user.name)["outcome"] for user in users] == ["failed", "backed_up"]
    assert "look at it, then remove it" in answer.account(users[0].name)["reason"]
