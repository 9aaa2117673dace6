"""A restore of an account that has several databases: all of them, or none.

What the snapshot lacks goes aside and is sealed; what can't be sealed stays aside and is named.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support import sandbox
from support.fault_injection import needs_strace
from support.host import Host, list_snapshots, succeeded
from support.live_database import (
    IN_USE,
    dump_database,
    hash_live_folder,
    process_holding,
    run_sql,
)
from support.processes import BOUND_S, until
from support.released import Released
from support.t3_data import real_database
from support.users import needs_root
from support.workers import start_wrapped, wrap_workers

from demo.users import User
from t3_backup.t3.databases import SUCCESSOR

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="by hand")]

LATER = "CREATE TABLE later (x)"
V1, V2 = "state.sqlite", SUCCESSOR


@pytest.fixture
def mover(host: Host, make_user: Callable[..., User], tmp_path: Path) -> User:
    """Somebody with a database of V1."""
    user = make_user("mover", real_database("v1-from26-54", tmp_path / "v1"))
    host.write_map(user)
    return user


@pytest.fixture
def both(host: Host, mover: User) -> User:
    """The same with a database of V2, a snapshot of both, and changed since."""
    give_v2(mover)
    succeeded(host.t3("run"))
    for name in (V1, V2):
        run_sql(mover, LATER, path=path_of(mover, name))
    return mover


def path_of(user: User, name: str) -> Path:
    return user.database.with_name(name)


def give_v2(user: User) -> None:
    """Let them have a database of V2."""
    path = real_database("v2-from-real-0.0.42-61", path_of(user, V2))
    path.chmod(0o644)
    user.give(path)


def give_junk(user: User) -> bytes:
    """Let them have a file that is no database."""
    path = path_of(user, "junk.sqlite")
    make_junk(path)
    user.give(path)
    return path.read_bytes()


def leave_wal(user: User, name: str, statement: str) -> None:
    """Let the statement be in a -wal alone, as a server that was killed leaves it."""
    statements = ("PRAGMA journal_mode=wal", "PRAGMA wal_autocheckpoint=0", statement)
    with pytest.raises(subprocess.CalledProcessError):
        run_sql(user, *statements, end="die", path=path_of(user, name))


def state(user: User, folder: Path | None = None) -> dict[str, list[str]]:
    """All that is in each of the databases, or those in `folder`, which nobody has open."""
    found = sorted((folder or user.database.parent).glob("*.sqlite"))
    return {path.name: dump_database(path) for path in found}


def taken(host: Host, user: User, *, label: str | None = None) -> dict[str, list[str]]:
    """The same of the newest snapshot of that label."""
    newest = next(one for one in list_snapshots(host, user) if one["label"] == label)
    found = {}
    for one in newest["databases"]:
        target = host.folder / f"taken-{one['file']}"
        target.unlink(missing_ok=True)
        words = ("--at", newest["name"], "--database", one["file"], "--to", str(target))
        succeeded(host.t3("restore", user.name, *words))
        found[one["file"]] = dump_database(target)
    return found


def must_be_alone(user: User) -> None:
    """Nothing of a restore is left, and nothing beside the databases."""
    assert set(hash_live_folder(user)) == set(state(user))


def test_all_databases_come_back_as_they_were_and_one_command_undoes_it(
    host: Host, both: User
) -> None:
    before, then = state(both), taken(host, both)
    assert before.keys() == then.keys() == {V1, V2}
    document = succeeded(host.t3("restore", both.name, "--yes", "--json")).document
    assert state(both) == then
    must_be_alone(both)
    assert sorted(one["file"] for one in document["databases"]) == [V1, V2]
    assert {one["action"] for one in document["databases"]} == {"put back"}
    assert taken(host, both, label="prerestore") == before
    words = document["undo"].split()[1:]
    succeeded(host.t3(*words, "--yes"))
    assert state(both) == before
    must_be_alone(both)
    succeeded(host.t3("verify", both.name))


def test_what_is_newer_than_the_snapshot_goes_aside_whole_and_comes_back(
    host: Host, mover: User
) -> None:
    """V2 beside a snapshot of before it, with rows in its -wal: left there, the next server would
    go on with it as if nothing had been restored."""
    succeeded(host.t3("run"))
    then = state(mover)
    give_v2(mover)
    leave_wal(mover, V2, LATER)
    assert path_of(mover, f"{V2}-wal").stat().st_size > 0
    answer = succeeded(host.t3("restore", mover.name, "--dry-run"))
    assert f"  {V2} is not in it: it is put aside, and kept" in answer.out
    document = succeeded(host.t3("restore", mover.name, "--dry-run", "--json")).document
    assert {"file": V2, "action": "put aside"} in document["databases"]
    assert path_of(mover, V2).exists()

    answer = succeeded(host.t3("restore", mover.name, "--yes"))
    assert f"{V2}: not in the snapshot, so put aside" in answer.out
    assert state(mover) == then
    must_be_alone(mover)
    assert f"{LATER};" in taken(host, mover, label="prerestore")[V2]
    succeeded(host.t3("restore", mover.name, "--label", "prerestore", "--yes"))
    assert state(mover).keys() == {V1, V2}
    assert f"{LATER};" in state(mover)[V2]
    must_be_alone(mover)


def test_to_v2_and_back_and_forth_is_no_loss_to_be_alarmed_of(host: Host, mover: User) -> None:
    """Neither is a level said to have fallen, nor a database to be gone."""
    succeeded(host.t3("run"))
    give_v2(mover)
    run_sql(mover, LATER, path=path_of(mover, V2))
    document = succeeded(host.t3("run", "--json")).account(mover.name)
    assert document["snapshots"][0]["t3_level"] == 61, "V2 is the live one"
    first = list_snapshots(host, mover)[-1]["name"]
    for words, files in ((("--at", first), {V1}), (("--label", "prerestore"), {V1, V2})):
        succeeded(host.t3("restore", mover.name, *words, "--yes"))
        assert state(mover).keys() == files
        run_sql(mover, f"CREATE TABLE later_{len(files)} (x)", path=path_of(mover, max(files)))
        [snapshot] = succeeded(host.t3("run", "--json")).account(mover.name)["snapshots"]
        assert (snapshot["verdict"], snapshot["reasons"]) == ("verified", [])
        assert {one["file"] for one in snapshot["databases"]} == files


def test_a_database_of_the_old_state_that_is_none_stays_aside_and_is_named(
    host: Host, both: User
) -> None:
    junk, then, before = give_junk(both), taken(host, both), state_of_known(both)
    document = succeeded(host.t3("restore", both.name, "--yes", "--json")).document
    [kept] = map(Path, document["kept"])
    assert kept.name.startswith("junk.sqlite.replaced-")
    assert kept.read_bytes() == junk
    assert state(both) == then
    sealed = document["prerestore"]
    assert [one["file"] for one in sealed["missing"]] == ["junk.sqlite"]
    assert taken(host, both, label="prerestore") == before
    assert any("kept next to the new one" in text for text in document["warnings"])


def state_of_known(user: User) -> dict[str, list[str]]:
    return {name: dump_database(path_of(user, name)) for name in (V1, V2)}


def make_junk(path: Path) -> None:
    """No database at all."""
    path.write_bytes(os.urandom(5000))


def make_longer(path: Path) -> None:
    """It opens, and is found not to be whole only when its copy is proven."""
    os.truncate(path, path.stat().st_size + 100)


@pytest.mark.parametrize("broken", [V1, V2])
@pytest.mark.parametrize("harm", [make_junk, make_longer])
def test_a_known_one_that_can_not_be_sealed_costs_the_other_nothing(
    host: Host, both: User, harm: Callable[[Path], None], broken: str
) -> None:
    """Not even where it changed last, and so is the one that its server worked with."""
    then = taken(host, both)
    harm(path_of(both, broken))
    left = path_of(both, broken).read_bytes()
    [other] = {V1, V2} - {broken}
    before = dump_database(path_of(both, other))
    document = succeeded(host.t3("restore", both.name, "--yes", "--json")).document
    assert state(both) == then
    assert Path(*document["kept"]).read_bytes() == left
    assert [one["file"] for one in document["prerestore"]["missing"]] == [broken]
    assert taken(host, both, label="prerestore") == {other: before}


def test_one_that_can_not_be_moved_is_told_and_stays(host: Host, both: User) -> None:
    """A symlink is followed by nobody, and is no file of their own."""
    victim = host.folder / "victim"
    victim.write_bytes(b"theirs")
    link = path_of(both, "link.sqlite")
    link.symlink_to(victim)
    document = succeeded(host.t3("restore", both.name, "--yes", "--json")).document
    assert any("link.sqlite is a symlink" in text for text in document["warnings"])
    assert link.is_symlink()
    assert victim.read_bytes() == b"theirs"
    link.unlink()
    assert state(both) == taken(host, both)


def test_lock_databases_and_empty_files_of_no_name_are_left_alone(host: Host, both: User) -> None:
    for name in ("server-lock.sqlite", "empty.sqlite"):
        path_of(both, name).touch()
        both.give(path_of(both, name))
    inodes = [path_of(both, name).stat().st_ino for name in ("server-lock.sqlite", "empty.sqlite")]
    with process_holding(both, "only_open", path_of(both, "server-lock.sqlite")):
        succeeded(host.t3("restore", both.name, "--yes"))
    names = ("server-lock.sqlite", "empty.sqlite")
    assert [path_of(both, name).stat().st_ino for name in names] == inodes


@pytest.mark.parametrize("held", [V1, V2, "third.sqlite"])
def test_who_has_any_of_them_open_is_named_and_nothing_is_changed(
    host: Host, both: User, held: str
) -> None:
    if held not in (V1, V2):
        run_sql(both, LATER, path=path_of(both, held))
    before = state(both)
    with process_holding(both, "only_open", path_of(both, held)) as holder:
        answer = host.t3("restore", both.name, "--yes")
    assert answer.code == IN_USE, answer
    assert held in answer.err
    assert f"pid {holder.pid} (" in answer.err
    assert state(both) == before
    assert not [*both.database.parent.glob("*.replaced-*")]


# --- one of them


@pytest.mark.parametrize("one", [V1, V2])
def test_one_database_comes_back_and_the_others_stay(host: Host, both: User, one: str) -> None:
    run_sql(both, LATER, path=path_of(both, "third.sqlite"))
    before, then = state(both), taken(host, both)
    settings = path_of(both, "settings.json")
    settings.write_text("of today")
    both.give(settings)
    inodes = {path.name: path.stat().st_ino for path in both.database.parent.iterdir()}
    answer = succeeded(host.t3("restore", both.name, "--database", one, "--dry-run"))
    assert f"  {one} alone of it: " in answer.out
    words = ("--database", one, "--yes", "--json")
    document = succeeded(host.t3("restore", both.name, *words)).document
    assert document["databases"] == [{"file": one, "action": "put back"}]
    assert state(both) == before | {one: then[one]}
    after = {path.name: path.stat().st_ino for path in both.database.parent.iterdir()}
    assert {name for name, inode in after.items() if inodes.get(name) != inode} == {one}
    assert taken(host, both, label="prerestore") == before, "the whole old state is sealed"


def test_a_database_that_the_snapshot_has_not_is_one_line_and_wrong_use(
    host: Host, both: User
) -> None:
    before = state(both)
    for words, said in (
        (("--database", "statev3.sqlite"), f"has none of that name, but {V1}, {V2}"),
        (("--database", V1, "--only", "files"), "--only files puts none back"),
    ):
        answer = host.t3("restore", both.name, *words, "--yes")
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer
        assert said in answer.err
    assert state(both) == before


def test_written_elsewhere_is_the_live_one_or_the_one_that_is_named(host: Host, both: User) -> None:
    [newest] = list_snapshots(host, both)
    live = next(one["file"] for one in newest["databases"] if one["live"])
    target = host.folder / "out.sqlite"
    succeeded(host.t3("restore", both.name, "--to", str(target)))
    assert dump_database(target) == taken(host, both)[live]


def test_only_the_files_leave_all_databases(host: Host, both: User) -> None:
    settings = path_of(both, "settings.json")
    settings.write_text("sealed")
    both.give(settings)
    run_sql(both, "CREATE TABLE once_more (x)")
    succeeded(host.t3("run"))
    settings.write_text("changed")
    inodes = {name: path_of(both, name).stat().st_ino for name in (V1, V2)}
    document = succeeded(host.t3("restore", both.name, "--only", "files", "--yes", "--json"))
    assert document.document["databases"] == []
    assert settings.read_text() == "sealed"
    assert {name: path_of(both, name).stat().st_ino for name in (V1, V2)} == inodes


# --- others are there, or it is cut short


def start_restore(
    host: Host, user: User, held: str, *, operation: str = "swap_databases", **env: str
) -> subprocess.Popen[str]:
    """A restore whose worker of that operation is held by strace, as `held` says."""
    strace = f"strace -D -qq -o /dev/null -e trace={held.partition(':')[0]} -e inject={held}"
    instead = f'exec {strace} {sys.executable} "$@"'
    wrapper = wrap_workers(host.folder, **{operation: instead})
    where = {"env": host.env() | env, "cwd": env.get("PYTHONPATH", "/")}
    words = ("restore", user.name, "--yes")
    return start_wrapped(host, wrapper, *words, stderr=subprocess.PIPE, **where)


def inode(user: User, name: str) -> int:
    return path_of(user, name).stat().st_ino


def live_last(host: Host, user: User) -> list[str]:
    """The databases in the order of their exchange."""
    found = list_snapshots(host, user)[0]["databases"]
    return [one["file"] for one in sorted(found, key=lambda one: (one["live"], one["file"]))]


@needs_strace
def test_who_opens_one_between_the_exchanges_has_all_put_back(host: Host, both: User) -> None:
    first, last = live_last(host, both)
    before, old = state(both), {name: inode(both, name) for name in (first, last)}
    with start_restore(host, both, "renameat2:delay_exit=1500000:when=1") as process:
        until(lambda: inode(both, first) != old[first], "first exchange")
        assert inode(both, last) == old[last]
        with process_holding(both, "opened_to_write", path_of(both, last)) as holder:
            out, err = process.communicate(timeout=BOUND_S)
            assert process.returncode == IN_USE, out + err
            assert f"pid {holder.pid} (" in err
    assert {name: inode(both, name) for name in old} == old
    assert state(both) == before
    must_be_alone(both)


@needs_strace
@pytest.mark.parametrize("name", [V1, V2])
def test_what_was_written_to_an_old_one_after_a_kill_stays_aside(
    host: Host, both: User, name: str
) -> None:
    """The restore is gone forward with; the work is in no snapshot, and is named."""
    first, last = live_last(host, both)
    then, old = taken(host, both), inode(both, first)
    with start_restore(host, both, "renameat2:delay_exit=5000000:when=1") as process:
        until(lambda: inode(both, first) != old, "first exchange")
        end_all(process, both)
    work = path_of(both, last)
    run_sql(both, "CREATE TABLE work (x)", path=work)
    if name == V1:  # and in a -wal alone
        leave_wal(both, last, "CREATE TABLE more_work (x)")
    answer = succeeded(host.t3("accept", both.name))
    assert "an interrupted restore was completed" in answer.out + answer.err
    assert state(both) == then
    [kept] = both.database.parent.glob(f"{last}.replaced-*[0-9a-f]")
    assert str(kept) in answer.out + answer.err
    with closing(sqlite3.connect(kept)) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    assert {"work", "more_work"} & names == ({"work", "more_work"} if name == V1 else {"work"})


def end_all(process: subprocess.Popen[str], user: User) -> None:
    """SIGKILL for a restore, and for its worker."""
    process.kill()
    process.communicate(timeout=BOUND_S)
    for pid in processes_of(user):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not processes_of(user), "end of the worker")


def processes_of(user: User) -> list[int]:
    """The processes that act as the user."""
    line = ["pgrep", "-u", str(user.uid)]
    return [
        int(pid) for pid in subprocess.run(line, capture_output=True, check=False).stdout.split()
    ]


@needs_strace
@pytest.mark.parametrize("done", [0, 1])
def test_where_t3_is_elsewhere_its_restore_is_ended_there_whatever_is_set_by_then(
    host: Host, both: User, done: int
) -> None:
    elsewhere = both.home / "elsewhere"
    then, folder = taken(host, both), elsewhere / "userdata"
    (both.home / ".t3").rename(elsewhere)
    before, first = state(both, folder), folder / live_last(host, both)[0]
    old = first.stat().st_ino
    held = f"renameat2:delay_{'exit' if done else 'enter'}=5000000:when=1"
    setting = f"{both.name}={elsewhere}"
    with start_restore(host, both, held, T3_BACKUP_BASE_DIRS=setting) as process:
        intent = host.store / f"{both.name}+restore.json"
        until(lambda: intent.exists() and '"begun": true' in intent.read_text(), "exchange")
        if done:
            until(lambda: first.stat().st_ino != old, "first exchange")
        end_all(process, both)
    succeeded(host.t3("accept", both.name))
    assert state(both, folder) == (then if done else before)
    assert not [*folder.glob("*.replaced-*")]
    assert not (both.home / ".t3").exists()
    succeeded(host.t3("restore", both.name, "--yes", T3_BACKUP_BASE_DIRS=setting))
    assert state(both, folder) == then


@needs_strace
@pytest.mark.parametrize("done", [0, 1])
def test_a_restore_that_the_released_version_began_is_ended_by_this_one(
    host: Host, mover: User, released: Released, done: int
) -> None:
    """Its intent is of format 1, and of the one database that it knew."""
    succeeded(released.t3(host, "run"))
    then = state(mover)
    run_sql(mover, LATER)
    before, old = state(mover), inode(mover, V1)
    held = f"renameat2:delay_{'exit' if done else 'enter'}=5000000:when=1"
    with start_restore(host, mover, held, PYTHONPATH=str(released.folder)) as process:
        intent = host.store / f"{mover.name}+restore.json"
        until(lambda: intent.exists() and '"begun": true' in intent.read_text(), "exchange")
        if done:
            until(lambda: inode(mover, V1) != old, "exchange")
        end_all(process, mover)
    assert json.loads(intent.read_text())["format"] == 1
    answer = succeeded(host.t3("accept", mover.name))
    assert f"was {'completed' if done else 'undone'}" in answer.out + answer.err
    assert not intent.exists()
    assert state(mover) == (then if done else before)
    must_be_alone(mover)


def test_a_damaged_one_alone_keeps_the_whole_back_and_another_comes_back(
    host: Host, both: User
) -> None:
    """`--database` is the way to the rest of such a snapshot."""
    with closing(sqlite3.connect(f"file:{path_of(both, V2)}?mode=ro", uri=True)) as connection:
        query = (
            "SELECT rootpage FROM sqlite_schema WHERE type = 'index' "
            "AND tbl_name = 'orchestration_events' ORDER BY name LIMIT 1"
        )
        [(page,)] = connection.execute(query)
    with path_of(both, V2).open("r+b") as file:
        file.seek((page - 1) * 4096 + 2000)
        file.write(b"\x55" * 2000)
    assert host.t3("run").code == 1
    name = next(
        one["name"]
        for one in list_snapshots(host, both)
        if one["verdict"] == "damaged" and len(one["databases"]) == 2
    )
    answer = host.t3("restore", both.name, "--at", name, "--yes")
    assert answer.code == 1
    assert "is damaged" in answer.err
    run_sql(both, "CREATE TABLE since (x)")
    succeeded(host.t3("restore", both.name, "--at", name, "--database", V1, "--yes"))
    assert "CREATE TABLE since (x);" not in dump_database(both.database)
