"""A restore where something is odd.

That is the live file, what lies beside it, the folder it is in, or what was asked for. A live
database that is broken is what people restore after, so it is no reason to refuse. What does stand
in the way is one line, found before anything is staged.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support import sandbox
from support.fault_injection import needs_strace
from support.filesystems import immutable
from support.host import Answer, Host, succeeded
from support.live_database import (
    change_database,
    dump_database,
    hash_live_folder,
    leave_newer_rows_in_a_wal,
    run_sql,
)
from support.users import needs_root

from demo.users import User

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="by hand")]

NOBODY_HERE = 60000  # a uid that nobody has
ACL_ANYONE = 0xFFFFFFFF


@pytest.fixture
def odd(host: Host, make_user: Callable[..., User], small: Path) -> User:
    """A user with one snapshot, and changed since."""
    user = make_user("odd-a", small)
    host.write_map(user)
    succeeded(host.t3("run"))
    change_database(user)
    return user


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """As a file system is after an error of its disk."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def mounted(path: Path) -> Iterator[None]:
    """A file that can't be renamed, since it is a mount point, as in a container."""
    subprocess.run(["mount", "--bind", path, path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


@contextmanager
def moved_away(folder: Path) -> Iterator[None]:
    """As a home is that is not mounted."""
    away = folder.with_name("away")
    folder.rename(away)
    try:
        yield
    finally:
        away.rename(folder)


@contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    """With another mode for a while."""
    before = path.stat().st_mode
    path.chmod(bits)
    try:
        yield
    finally:
        path.chmod(before)


def damage(user: User) -> None:
    """Overwrite a page of an index: integrity_check says so."""
    query = (
        "SELECT rootpage FROM sqlite_schema WHERE type = 'index' "
        "AND tbl_name = 'orchestration_events' ORDER BY name LIMIT 1"
    )
    with closing(
        sqlite3.connect(f"file:{user.database}?mode=ro&immutable=1", uri=True)
    ) as connection:
        [(page,)] = connection.execute(query)
    with user.database.open("r+b") as file:
        file.seek((page - 1) * 4096 + 2000)
        file.write(b"\x55" * 2000)


def undo_of(answer: Answer) -> list[str]:
    """The words of the command that the restore prints as the one that undoes it."""
    [line] = [line for line in answer.out.splitlines() if line.startswith("to undo it: ")]
    return line.removeprefix("to undo it: t3-backup-state ").split()


def prerestore(host: Host, user: User) -> list[Path]:
    """The snapshots of what restores took the place of, oldest first."""
    return [path for path in host.snapshots(user) if "prerestore" in path.name]


def must_be_untouched(host: Host, user: User, before: dict[str, str]) -> None:
    """Nothing is staged, moved or sealed, and no intent is left to the next command."""
    # who only reads a database in WAL mode may leave such a -wal, and its index
    empty = hashlib.sha256(b"").hexdigest()
    after = {
        name: text
        for name, text in hash_live_folder(user).items()
        if not name.endswith("-shm") and text != empty
    }
    assert after == before
    assert len(host.snapshots(user)) == 1
    there = {"+store", user.name, f"{user.name}+catalog", "attempts.json"}
    assert {path.name for path in host.store.iterdir()} == there


@pytest.mark.parametrize(
    "torn",
    [
        lambda size: size + 100,
        lambda size: size + 8192,
        lambda size: size - 100,
        lambda size: size // 2,
        lambda size: 4096,
    ],
    ids=["torn tail", "two pages more", "torn last page", "half of it", "its first page"],
)
def test_a_live_file_of_any_length_is_replaced_and_kept(
    host: Host, odd: User, torn: Callable[[int], int]
) -> None:
    taken = dump_database(host.snapshots(odd)[0])
    os.truncate(odd.database, torn(odd.database.stat().st_size))
    bytes_before = odd.database.read_bytes()
    document = succeeded(host.t3("restore", odd.name, "--yes", "--json")).document
    assert dump_database(odd.database) == taken
    if not document["kept"]:
        [sealed] = prerestore(host, odd)
        assert document["prerestore"]["name"] == sealed.stem
        # the header is of a database that is not in WAL mode
        assert sealed.read_bytes()[100:] == bytes_before[100:]
    else:
        assert Path(*document["kept"]).read_bytes() == bytes_before


@pytest.mark.parametrize("size", [512, 65536])
def test_newer_rows_in_a_wal_are_kept_whatever_the_size_of_a_page(
    host: Host, odd: User, size: int
) -> None:
    run_sql(
        odd,
        "PRAGMA journal_mode=delete",
        f"PRAGMA page_size={size}",
        "VACUUM",
        "PRAGMA journal_mode=wal",
    )
    leave_newer_rows_in_a_wal(odd)
    copy = host.folder / "copy"
    copy.mkdir()
    for ending in ("", "-wal"):
        shutil.copyfile(f"{odd.database}{ending}", copy / f"state.sqlite{ending}")
    with closing(sqlite3.connect(copy / "state.sqlite")) as connection:
        newest = list(connection.iterdump())
    succeeded(host.t3("restore", odd.name, "--yes"))
    assert set(hash_live_folder(odd)) == {"state.sqlite"}
    assert dump_database(prerestore(host, odd)[0]) == newest


def test_a_wal_that_breaks_off_in_the_middle_is_kept_with_its_database(
    host: Host, odd: User
) -> None:
    """Row 8. SQLite passes over the sound frames behind a bad one: a checkpoint would lose them for
    good."""
    statements = (
        "PRAGMA journal_mode=wal",
        "PRAGMA wal_autocheckpoint=0",
        "CREATE TABLE written (x)",
        *["INSERT INTO written VALUES (randomblob(1000))"] * 100,
    )
    with pytest.raises(subprocess.CalledProcessError):
        run_sql(odd, *statements, end="die")
    taken = dump_database(host.snapshots(odd)[0])
    wal = Path(f"{odd.database}-wal")
    with wal.open("r+b") as file:
        file.seek(32 + 5 * (24 + 4096) + 2000)
        file.write(b"\xff" * 8)
    before = wal.read_bytes()
    document = succeeded(host.t3("restore", odd.name, "--yes", "--json")).document
    assert dump_database(odd.database) == taken
    assert not wal.exists()
    assert Path(f"{document['kept'][0]}-wal").read_bytes() == before
    assert Path(*document["kept"]).stat().st_size > 0
    assert any("breaks off" in warning for warning in document["warnings"])


def test_a_database_that_a_killed_import_left_with_two_names_is_backed_up_and_put_back(
    host: Host, odd: User
) -> None:
    """Row 11. The other name keeps what was replaced, and joins nothing."""
    [first] = host.snapshots(odd)
    taken = dump_database(first)
    copy = odd.database.parent / ".v2-import-aB3xYz" / "snapshot.sqlite"
    copy.parent.mkdir()
    copy.hardlink_to(odd.database)
    odd.give(copy.parent)
    changed = dump_database(odd.database)
    succeeded(host.t3("run"))
    assert [dump_database(one) for one in host.snapshots(odd) if one != first] == [changed]
    succeeded(host.t3("restore", odd.name, "--yes", "--at", first.stem))
    assert dump_database(odd.database) == taken
    assert dump_database(copy) == dump_database(prerestore(host, odd)[0]) == changed
    assert odd.database.stat().st_nlink == copy.stat().st_nlink == 1


def test_where_a_wal_without_its_database_went_is_said(host: Host, odd: User) -> None:
    leave_newer_rows_in_a_wal(odd)
    odd.database.unlink()
    answer = succeeded(host.t3("restore", odd.name, "--yes"))
    [wal] = [name for name in hash_live_folder(odd) if name.endswith("-wal")]
    assert wal.removesuffix("-wal") in answer.out


def test_a_journal_that_is_done_with_is_not_taken_for_a_hot_one(host: Host, odd: User) -> None:
    """journal_mode=persist leaves it there, with a zeroed header."""
    run_sql(
        odd,
        "PRAGMA journal_mode=delete",
        "PRAGMA journal_mode=persist",
        "CREATE TABLE later (x)",
    )
    assert Path(f"{odd.database}-journal").stat().st_size > 0
    answer = succeeded(host.t3("restore", odd.name, "--yes"))
    assert "hot journal" not in answer.out
    assert set(hash_live_folder(odd)) == {"state.sqlite"}
    assert "CREATE TABLE later (x);" in dump_database(prerestore(host, odd)[0])


@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
def test_a_folder_that_has_the_name_of_a_sidecar_is_no_reason_to_refuse(
    host: Host, odd: User, ending: str
) -> None:
    taken = dump_database(host.snapshots(odd)[0])
    folder = Path(f"{odd.database}{ending}")
    folder.mkdir()
    odd.give(folder)
    (folder / "mine").write_text("kept")
    succeeded(host.t3("restore", odd.name, "--yes"))
    assert dump_database(odd.database) == taken
    [kept] = odd.database.parent.glob("state.sqlite*/mine")
    assert not folder.exists() or ending == "-shm", kept
    assert kept.read_text() == "kept"


def test_an_access_list_comes_along_so_that_nobody_more_may_read_it(host: Host, odd: User) -> None:
    """Of a file with an access list the bits of the group are its mask: as plain bits they would
    let the group in."""
    entries = [
        (0x01, 6, ACL_ANYONE),
        (0x02, 6, 1),
        (0x04, 0, ACL_ANYONE),
        (0x10, 6, ACL_ANYONE),
        (0x20, 0, ACL_ANYONE),
    ]
    access = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(odd.database, "system.posix_acl_access", access)
    odd.home.chmod(0o755)

    def group_reads() -> bool:
        line = [
            sys.executable,
            "-I",
            "-c",
            "import sys; open(sys.argv[1], 'rb')",
            str(odd.database),
        ]
        done = subprocess.run(
            line, user=NOBODY_HERE, group=odd.gid, extra_groups=[], capture_output=True, check=False
        )
        return done.returncode == 0

    assert not group_reads()
    succeeded(host.t3("restore", odd.name, "--yes"))
    assert os.getxattr(odd.database, "system.posix_acl_access") == access
    assert not group_reads()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda user: moved_away(user.home), "no home"),
        (lambda user: read_only(user.home), "Read-only file system"),
        (lambda user: mode(user.database.parent, 0), "Permission denied"),
        (lambda user: immutable(user.database), "chattr -i"),
        (lambda user: mounted(user.database), "umount it first"),
    ],
    ids=["no home", "read-only home", "closed folder", "immutable database", "mounted database"],
)
def test_a_place_that_nothing_can_be_put_into_is_one_line_and_leaves_nothing(
    host: Host, odd: User, broken: Callable[[User], object], said: str
) -> None:
    before = hash_live_folder(odd)
    with broken(odd):  # type: ignore[attr-defined]
        answer = host.t3("restore", odd.name, "--yes")
    assert answer.code == 1, answer
    assert said in answer.err.splitlines()[-1]
    must_be_untouched(host, odd, before)


@needs_strace
def test_a_file_system_that_exchanges_no_names_is_found_before_the_present_state_is_sealed(
    host: Host, odd: User
) -> None:
    """Else each try would leave a snapshot, and a server that was stopped for nothing."""
    before = hash_live_folder(odd)
    line = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=renameat2",
        "-e",
        "inject=renameat2:error=EINVAL",
    ]
    done = subprocess.run(
        [*line, *host.command("restore", odd.name, "--yes")],
        env=host.env(),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done
    assert "the file system can't exchange two files in one step" in done.stderr
    must_be_untouched(host, odd, before)


def test_a_group_that_its_user_is_not_in_is_refused_with_what_to_do(host: Host, odd: User) -> None:
    os.chown(odd.database, odd.uid, 1)
    before = hash_live_folder(odd)
    answer = host.t3("restore", odd.name, "--yes")
    assert answer.code == 1, answer
    assert "chgrp it to one of theirs" in answer.err.splitlines()[-1]
    must_be_untouched(host, odd, before)
    os.chown(odd.database, odd.uid, odd.gid)
    succeeded(host.t3("restore", odd.name, "--yes"))


def test_the_undo_of_a_damaged_state_works_as_it_is_printed(host: Host, odd: User) -> None:
    damage(odd)
    before = odd.database.read_bytes()
    answer = succeeded(host.t3("restore", odd.name, "--yes"))
    assert odd.database.read_bytes() != before
    succeeded(host.t3(*undo_of(answer), "--yes"))
    assert odd.database.read_bytes()[100:] == before[100:]


def test_the_undo_names_the_store_that_was_named(host: Host, odd: User) -> None:
    before = dump_database(odd.database)
    elsewhere = str(host.folder / "none")
    answer = succeeded(
        host.t3("restore", odd.name, "--yes", "--dest", str(host.store), T3_BACKUP_DEST=elsewhere)
    )
    succeeded(host.t3(*undo_of(answer), "--yes", T3_BACKUP_DEST=elsewhere))
    assert dump_database(odd.database) == before


def test_the_label_of_prerestores_finds_that_of_the_last_restore_whatever_its_verdict(
    host: Host, odd: User
) -> None:
    succeeded(host.t3("restore", odd.name, "--yes"))
    change_database(odd, "DROP TABLE orchestration_events")
    change_database(odd, "DROP TABLE orchestration_command_receipts")
    last = succeeded(host.t3("restore", odd.name, "--yes", "--json")).document["prerestore"]
    assert last["verdict"] == "suspect"
    found = succeeded(
        host.t3("restore", odd.name, "--label", "prerestore", "--dry-run", "--json")
    ).document
    assert found["snapshot"]["name"] == last["name"]


def test_as_many_prerestores_stay_as_labelled_ones_are_kept(host: Host, odd: User) -> None:
    names = []
    for number in range(2):
        change_database(odd, f"CREATE TABLE later_{number} (x)")
        names.append(
            succeeded(host.t3("restore", odd.name, "--yes", "--json")).document["prerestore"][
                "name"
            ]
        )
    succeeded(host.t3("run", "--keep", "1"))
    assert [path.stem for path in prerestore(host, odd)] == names
    succeeded(host.t3("run", T3_BACKUP_KEEP_LABELLED="1"))
    assert [path.stem for path in prerestore(host, odd)] == names[-1:]


@pytest.mark.parametrize("words", [("--schema", "1"), ("--label", "none-such")])
def test_a_snapshot_that_is_named_must_be_what_else_was_asked_for(
    host: Host, odd: User, words: tuple[str, str]
) -> None:
    before = hash_live_folder(odd)
    name = host.snapshots(odd)[0].stem
    succeeded(host.t3("restore", odd.name, "--at", name, "--dry-run"))
    answer = host.t3("restore", odd.name, "--at", name, *words, "--yes")
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer
    assert name in answer.err
    must_be_untouched(host, odd, before)


def test_who_is_not_root_restores_their_own_account_alone(
    host: Host, odd: User, make_user: Callable[..., User], small: Path
) -> None:
    """Even where the store, which is theirs, has an account folder of the other's name."""
    other = make_user("odd-b", small)
    store = host.folder / "own" / "store"
    store.parent.mkdir()
    odd.give(store.parent)
    theirs = other.database.read_bytes()

    def as_odd(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "t3_backup", *words, "--dest", str(store)],
            env=host.env(),
            cwd="/",
            user=odd.uid,
            group=odd.gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )

    before = dump_database(odd.database)
    assert as_odd("run").returncode == 0
    change_database(odd, "CREATE TABLE later (x)")
    done = as_odd("restore", odd.name, "--yes")
    assert done.returncode == 0, done
    assert dump_database(odd.database) == before
    shutil.copytree(store / odd.name, store / other.name)
    subprocess.run(["chown", "-R", f"{odd.uid}:{odd.gid}", store], check=True)
    done = as_odd("restore", other.name, "--yes")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
    assert "not root" in done.stderr
    assert other.database.read_bytes() == theirs
