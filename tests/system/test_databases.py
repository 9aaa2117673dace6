"""An account's databases are all in its snapshot; one that is not is missing by its name, and the
rest is kept all the same. Real users."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support import programs
from support.databases import MIB, put_database
from support.host import Host, list_snapshots, succeeded
from support.live_database import run_as, run_sql
from support.paths import DATA
from support.processes import BOUND_S, user_process
from support.t3_data import import_line, level_of, real_database
from support.t3_growth import grow
from support.users import needs_root

from demo.users import User
from demo.writer import Writer
from t3_backup.t3.databases import LOCKS

pytestmark = needs_root

TINY = DATA / "state-0.0.24.sqlite"
V2 = "statev2.sqlite"
V1_REAL, V2_REAL = "v1-real-0.0.42-from26-52", "v2-grown-61"


@pytest.fixture
def una(make_user: Callable[..., User], host: Host) -> User:
    """Who has a state.sqlite; the map names them alone."""
    user = make_user("un-una", TINY)
    host.write_map(user)
    return user


@pytest.fixture
def vic(make_user: Callable[..., User], host: Host) -> User:
    """Who has none."""
    user = make_user("un-vic")
    host.write_map(user)
    return user


def lay(user: User, real: str, file: str) -> Path:
    """A real database in a user's state folder."""
    path = real_database(real, user.database.parent / file)
    user.give(path)
    return path


def files_of(snapshot: dict[str, Any]) -> dict[str, bool]:
    """The databases of a snapshot, and which of them is live."""
    return {one["file"]: one["live"] for one in snapshot["databases"]}


def image_of(host: Host, user: User, snapshot: dict[str, Any], file: str) -> Path:
    """The plain image of one database of a snapshot that has `state.sqlite`."""
    part = "" if file == "state.sqlite" else f".{file.removesuffix('.sqlite')}"
    return host.account_dir(user) / f"{snapshot['name']}{part}.sqlite"


def room_of(host: Host, user: User) -> int:
    """Bytes on the disk of all that is in an account's folder."""
    found = {path.stat().st_ino: path.stat() for path in host.account_dir(user).iterdir()}
    return sum(status.st_blocks * 512 for status in found.values())


def change_v2(user: User) -> None:
    """Change the V2 database, as its user."""
    statement = "UPDATE orchestration_v2_projection_metadata SET last_sequence = last_sequence + 1"
    run_sql(user, statement, path=user.database.parent / V2)


def put(user: User, name: str = V2) -> Path:
    """A database as a server that runs leaves it: WAL mode, and what was committed is in its
    -wal."""
    return put_database(user, name, "orchestration_v2_projection_threads")


def remove(user: User, *names: str) -> None:
    for name in names:
        for path in user.database.parent.glob(f"{name}*"):
            path.unlink()


# ---- each one that can't be copied


def test_whatever_is_called_a_database_is_in_the_snapshot_or_named(host: Host, una: User) -> None:
    """Row 39. A later one, junk, a link, one that its owner can't read, a folder where T3's own
    was, names that a terminal would obey."""
    folder = una.database.parent
    put(una, "statev3.sqlite")
    (folder / V2).mkdir()
    (folder / "link.sqlite").symlink_to("/etc/passwd")
    for name in ("junk.sqlite", "closed.sqlite", "evil\n\x1b[2Jok.sqlite"):
        (folder / name).write_bytes(b"junk" * 3000)
        una.give(folder / name)
    (folder / "closed.sqlite").chmod(0)
    other = Path(os.fsdecode(os.fsencode(folder) + b"/\xff.sqlite"))
    other.write_bytes(b"junk" * 3000)
    una.give(other)
    answer = host.t3("run", "--json")
    account = answer.account(una.name)
    assert (answer.code, account["outcome"]) == (1, "backed_up"), account["reason"]
    [snapshot] = account["snapshots"]
    assert files_of(snapshot) == {"state.sqlite": False, "statev3.sqlite": True}
    reasons = {one["file"]: one["reason"] for one in snapshot["missing"]}
    expected = {
        "closed.sqlite": "closed.sqlite",
        "evil\n\x1b[2Jok.sqlite": "is not a SQLite database",
        "junk.sqlite": f"{folder}/junk.sqlite is not a SQLite database",
        "link.sqlite": f"{folder}/link.sqlite is a symlink",
        V2: f"{folder}/{V2} is not a regular file",
        other.name: "its name is not UTF-8",
    }
    assert set(reasons) == set(expected)
    for name, reason in expected.items():
        assert reason in reasons[name], name
    [listed] = host.t3("list", "--json").account(una.name)["snapshots"]
    assert listed["missing"] == snapshot["missing"]
    printed = host.t3("run")
    assert printed.code == 1
    assert f"junk.sqlite is not in {snapshot['name']}" in printed.out
    line = host.t3("status", "--nagios")
    assert (line.code, line.out.count("\n"), "\x1b" in line.out) == (2, 1, False)
    assert "\x1b" not in printed.out + printed.err
    assert host.t3("verify", una.name).code == 0


def test_a_link_in_the_place_of_the_old_database_leaves_the_new_one(
    host: Host, vic: User, tmp_path: Path
) -> None:
    lay(vic, V2_REAL, V2)
    vic.database.symlink_to(TINY)
    answer = host.t3("run", "--json")
    [snapshot] = answer.account(vic.name)["snapshots"]
    assert (answer.code, files_of(snapshot)) == (1, {V2: True})
    assert [one["file"] for one in snapshot["missing"]] == ["state.sqlite"]
    assert f"{vic.database} is a symlink" in snapshot["missing"][0]["reason"]
    assert (snapshot["verdict"], snapshot["t3_level"]) == ("verified", 61)


def test_what_is_not_whole_pushes_nothing_whole_out(host: Host, vic: User) -> None:
    few = {"T3_BACKUP_KEEP": "1"}
    lay(vic, V2_REAL, V2)
    assert host.t3("run", **few).code == 0
    [whole], [taken] = host.snapshots(vic), list_snapshots(host, vic)
    junk = vic.database.parent / "junk.sqlite"
    junk.write_bytes(b"junk" * 3000)
    vic.give(junk)
    for _ in range(2):
        change_v2(vic)
        answer = host.t3("run", "--json", **few)
        assert answer.code == 1
        assert whole in host.snapshots(vic), answer.account(vic.name)["pruned"]
    assert whole in host.snapshots(vic)
    found = host.t3("status", "--json").account(vic.name)
    assert (found["state"], found["last_good"]) == ("critical", taken["taken_at"])
    junk.unlink()
    change_v2(vic)
    answer = host.t3("run", "--json", **few)
    assert answer.code == 0, answer
    [newest] = answer.account(vic.name)["snapshots"]
    assert (newest["verdict"], newest["missing"]) == ("verified", [])


def test_an_empty_file_of_an_unknown_name_is_no_database(host: Host, una: User) -> None:
    empty = una.database.parent / "unknown.sqlite"
    empty.touch()
    una.give(empty)
    answer = host.t3("run", "--json")
    [snapshot] = answer.account(una.name)["snapshots"]
    assert (answer.code, files_of(snapshot), snapshot["missing"]) == (0, {"state.sqlite": True}, [])


def test_one_that_is_gone_is_suspect_by_name(host: Host, una: User) -> None:
    put(una, "statev3.sqlite")
    succeeded(host.t3("run"))
    [before] = {path.with_suffix(".json") for path in host.account_dir(una).glob("state-*.json")}
    remove(una, "statev3.sqlite")
    answer = host.t3("run", "--json")
    [snapshot] = answer.account(una.name)["snapshots"]
    assert (answer.code, snapshot["verdict"]) == (1, "suspect")
    assert snapshot["reasons"] == [f"statev3.sqlite is gone; {before.stem} has it"]
    assert [one["verdict"] for one in snapshot["databases"]] == ["verified"]


def test_a_frozen_one_that_rots_leaves_the_copy_of_the_live_one(host: Host, vic: User) -> None:
    """It is read and proven like the rest, though nothing of it has changed since."""
    few = {"T3_BACKUP_KEEP": "1"}
    frozen = lay(vic, V1_REAL, "state.sqlite")
    os.utime(frozen, (1e9, 1e9))
    lay(vic, V2_REAL, V2)
    succeeded(host.t3("run", **few))
    [sound] = host.snapshots(vic)[:1]
    with closing(sqlite3.connect(f"file:{frozen}?immutable=1", uri=True)) as database:
        query = "SELECT rootpage FROM sqlite_schema WHERE name = 'orchestration_events'"
        [root] = database.execute(query).fetchone()
    with frozen.open("r+b") as file:
        file.seek((root - 1) * 4096 + 8)
        file.write(b"\xa5" * 64)  # of the cells' places
    os.utime(frozen, (1e9, 1e9))
    change_v2(vic)
    answer = host.t3("run", "--json", **few)
    account = answer.account(vic.name)
    [snapshot] = account["snapshots"]
    assert (answer.code, account["pruned"]) == (1, [])
    verdicts = {one["file"]: one["verdict"] for one in snapshot["databases"]}
    assert verdicts == {"state.sqlite": "damaged", V2: "verified"}
    assert (files_of(snapshot), snapshot["verdict"]) == (
        {"state.sqlite": False, V2: True},
        "damaged",
    )
    assert snapshot["reasons"][0].startswith("state.sqlite: ")
    assert sound in host.snapshots(vic)


# ---- T3's own, as it really is


def write_line(path: Path) -> list[str]:
    return programs.line("write_t3.py", str(path), "-")


@contextmanager
def writing(user: User, *paths: Path) -> Iterator[None]:
    """A server of its own kind commits to each until the block is left; no commit fails because
    the database is locked."""
    with ExitStack() as running:
        servers = [running.enter_context(user_process(user, write_line(path))) for path in paths]
        yield
        for server in servers:
            out, _ = server.communicate(timeout=BOUND_S)
            counted = json.loads(out)
            assert counted["commits"] > 0
            assert counted["busy"] == 0, counted


HOMES = {
    "V1 alone": ({"state.sqlite": V1_REAL}, "state.sqlite"),
    "V1 of a server that never waits": ({"state.sqlite": "state-0.0.25"}, "state.sqlite"),
    "V2 alone": ({V2: V2_REAL}, V2),
    "both, V1 lives": ({"state.sqlite": V1_REAL, V2: V2_REAL}, "state.sqlite"),
    "both, V2 lives": ({"state.sqlite": V1_REAL, V2: V2_REAL}, V2),
    "a third": (
        {"state.sqlite": V1_REAL, V2: V2_REAL, "statev3.sqlite": "v2-from-real-0.0.42-61"},
        "statev3.sqlite",
    ),
}


@pytest.mark.parametrize("home", HOMES)
def test_a_home_is_backed_up_whole_under_its_server(
    host: Host, vic: User, tmp_path: Path, home: str
) -> None:
    """Verified, compacted, and restored byte for byte; the frozen ones take no further room."""
    there, live = HOMES[home]
    for file, real in there.items():
        os.utime(lay(vic, real, file), (1e9, 1e9))
    taken: list[tuple[str, str]] = []
    with writing(vic, vic.database.parent / live):
        for _ in range(3):
            answer = succeeded(host.t3("run", "--json", T3_BACKUP_COMPACT="delta"))
            account = answer.account(vic.name)
            assert (account["outcome"], account["uncovered"]) == ("backed_up", [])
            [snapshot] = account["snapshots"]
            assert files_of(snapshot) == {file: file == live for file in there}
            assert (snapshot["verdict"], snapshot["missing"]) == ("verified", [])
            assert {one["t3_level"] for one in snapshot["databases"]} == set(
                map(level_of, there.values())
            )
            taken.append((snapshot["name"], snapshot["sha256"]))
    listed = list_snapshots(host, vic)
    assert [one["form"] for one in listed] == ["plain", "delta", "delta"]
    proven = succeeded(host.t3("verify", vic.name, "--all", "--json")).account(vic.name)
    assert [one["verifies"] for one in proven["snapshots"]] == [True] * 3
    for name, sha256 in taken:
        target = tmp_path / name
        succeeded(host.t3("restore", vic.name, "--at", name, "--to", str(target)))
        assert hashlib.sha256(target.read_bytes()).hexdigest() == sha256
    for file in set(there) - {live}:
        images = [image_of(host, vic, one, file).stat() for one in listed]
        assert len({one.st_ino for one in images}) == 1, f"{file} is kept more than once"
        assert images[0].st_nlink == 3


def test_a_frozen_one_takes_no_room(host: Host, vic: User) -> None:
    """What a run adds to the store is what the live one needs."""
    frozen, live = lay(vic, V1_REAL, "state.sqlite"), lay(vic, "v2-from26-55", V2)
    grow(frozen, 32 * MIB)
    for path in (frozen, live):
        vic.give(path)
    os.utime(frozen, (1e9, 1e9))
    succeeded(host.t3("run"))
    before = room_of(host, vic)
    change_v2(vic)
    succeeded(host.t3("run"))
    added = room_of(host, vic) - before
    assert live.stat().st_size <= added < 2 * live.stat().st_size + MIB
    du = succeeded(host.t3("du", vic.name, "--json")).account(vic.name)
    assert before < du["stored_bytes"] < before + added + MIB
    assert du["full_bytes"] > 2 * frozen.stat().st_size


def test_the_moments_of_the_databases_are_near(host: Host, vic: User) -> None:
    """The live one is pinned last: nothing that it says of the frozen one is missing there. All are
    pinned before the first is copied, whatever that takes."""
    large, live = lay(vic, V1_REAL, "state.sqlite"), lay(vic, V2_REAL, V2)
    grow(large, 64 * MIB)
    vic.give(large)
    with writing(vic, large, live):
        [snapshot] = succeeded(host.t3("run", "--json")).account(vic.name)["snapshots"]
    found = {one["file"]: one for one in snapshot["databases"]}
    moments = {file: datetime.fromisoformat(one["moment"]) for file, one in found.items()}
    [live_file] = [file for file, one in found.items() if one["live"]]
    assert moments[live_file] == max(moments.values())
    between = (max(moments.values()) - min(moments.values())).total_seconds()
    assert abs(between - snapshot["pin_seconds"]) < 0.05
    assert snapshot["pin_seconds"] < found["state.sqlite"]["copy_seconds"]


def test_one_that_is_not_in_wal_mode_is_copied_without_a_pin(
    host: Host, make_user: Callable[..., User], grown: Callable[[int], Path]
) -> None:
    """A pin would be a lock there, and fail its server's commits for as long as the other's copy
    takes."""
    user = make_user("un-del", grown(4))
    host.write_map(user)
    other = lay(user, V2_REAL, V2)
    grow(other, 64 * MIB)
    user.give(other)
    with Writer(user.database, user=user.name, journal_mode="delete", busy_timeout_ms=1000) as one:
        one.mark("run")
        with writing(user, other):
            answer = host.t3("run", "--json", "--timeout", "120")
        stats = one.stop()
    assert answer.code == 0, answer
    assert stats.total.errors == 0
    assert stats.windows["run"].commits > 0
    [snapshot] = answer.account(user.name)["snapshots"]
    assert {one["file"]: one["method"] for one in snapshot["databases"]} == {
        "state.sqlite": "online",
        V2: "online",
    }
    assert snapshot["verdict"] == "verified"


def test_a_server_that_never_waits_loses_next_to_no_commit_while_another_is_copied(
    host: Host, make_user: Callable[..., User], grown: Callable[[int], Path]
) -> None:
    """As alone: at most one in a hundred."""
    user = make_user("un-del", grown(4))
    host.write_map(user)
    other = lay(user, V2_REAL, V2)
    grow(other, 64 * MIB)
    user.give(other)
    with Writer(
        user.database, user=user.name, journal_mode="delete", busy_timeout_ms=0, interval_s=0.02
    ) as writer:
        writer.mark("run")
        host.t3("run", "--timeout", "60")
        window = writer.mark("after")
        writer.stop()
    assert window.errors <= 0.01 * window.commits


def test_a_lock_that_is_held_for_ever_is_neither_copied_nor_told_of(host: Host, una: User) -> None:
    with ExitStack() as held:
        for name in LOCKS:
            path = put(una, name)
            line = programs.line("lock_database.py", str(path), "BEGIN EXCLUSIVE")
            held.enter_context(user_process(una, line, "locked"))
        answer = host.t3("run", "--json")
        doctor = host.t3("doctor")
    [snapshot] = answer.account(una.name)["snapshots"]
    assert (answer.code, files_of(snapshot), snapshot["missing"]) == (0, {"state.sqlite": True}, [])
    for name in LOCKS:
        assert name not in answer.out + answer.err + doctor.out


def test_a_killed_import_is_backed_up(host: Host, vic: User) -> None:
    """Its copy has two names for ever."""
    lay(vic, V1_REAL, "state.sqlite")
    with pytest.raises(subprocess.CalledProcessError):
        run_as(vic, import_line(vic.database.parent, "--kill-after-link"))
    assert (vic.database.parent / V2).stat().st_nlink == 2
    answer = succeeded(host.t3("run", "--json"))
    [snapshot] = answer.account(vic.name)["snapshots"]
    assert (set(files_of(snapshot)), snapshot["missing"]) == ({"state.sqlite", V2}, [])


def test_an_import_adds_a_database_and_the_old_one_stays(host: Host, vic: User) -> None:
    """From V1 to V2: the level doesn't fall, and nothing is gone."""
    old = lay(vic, V1_REAL, "state.sqlite")
    with writing(vic, old):
        succeeded(host.t3("run"))
    run_as(vic, import_line(vic.database.parent))
    with writing(vic, vic.database.parent / V2):
        answer = succeeded(host.t3("run", "--json"))
    [snapshot] = answer.account(vic.name)["snapshots"]
    assert files_of(snapshot) == {"state.sqlite": False, V2: True}
    assert snapshot["verdict"] == "verified"


def test_t3s_own_compaction_is_no_loss(host: Host, vic: User) -> None:
    path = lay(vic, V2_REAL, V2)
    succeeded(host.t3("run"))
    run_as(vic, programs.line("compact_v2.py", str(path)))
    answer = succeeded(host.t3("run", "--json"))
    [snapshot] = answer.account(vic.name)["snapshots"]
    assert snapshot["verdict"] == "verified"


def test_a_reader_makes_no_database_the_live_one(host: Host, vic: User) -> None:
    """Whoever reads a database in WAL mode may make an empty -wal beside it: its time says nothing
    of a server."""
    old, new = lay(vic, V1_REAL, "state.sqlite"), lay(vic, V2_REAL, V2)
    for number, path in enumerate((old, new)):
        wal = Path(f"{path}-wal")
        wal.touch()
        vic.give(wal)
        os.utime(path, (1e9 + number, 1e9 + number))
    os.utime(f"{new}-wal", (1e9, 1e9))
    [snapshot] = succeeded(host.t3("run", "--json")).account(vic.name)["snapshots"]
    assert files_of(snapshot) == {"state.sqlite": False, V2: True}


def test_junk_of_today_takes_no_database_s_place(host: Host, vic: User) -> None:
    """It changed last, and is not the live one: that one is backed up."""
    os.utime(lay(vic, V2_REAL, V2), (1e9, 1e9))
    junk = vic.database.parent / "statev9.sqlite"
    junk.write_bytes(b"junk" * 3000)
    vic.give(junk)
    answer = host.t3("run", "--json")
    [snapshot] = answer.account(vic.name)["snapshots"]
    assert (answer.code, files_of(snapshot)) == (1, {V2: True})
    assert [one["file"] for one in snapshot["missing"]] == ["statev9.sqlite"]


def test_one_that_is_locked_for_ever_costs_the_live_one_nothing(host: Host, vic: User) -> None:
    """By whoever holds it, and whatever it is: the time of the account is not theirs to take."""
    lay(vic, V2_REAL, V2)
    other = vic.database.parent / "other.sqlite"
    lay(vic, V1_REAL, other.name)
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("PRAGMA journal_mode=delete")
    vic.give(other)
    line = programs.line("lock_database.py", str(other), "BEGIN EXCLUSIVE")
    with user_process(vic, line, "locked"):
        answer = host.t3("run", "--json", T3_BACKUP_TIMEOUT="20")
    [snapshot] = answer.account(vic.name)["snapshots"]
    assert files_of(snapshot)[V2]
    assert [one["file"] for one in snapshot["missing"]] == [other.name]
    assert "locked" in snapshot["missing"][0]["reason"]
    assert answer.code == 1
