"""Row 47: a store without a free block, or on a read-only disk, gives everything back. What a restore has to write lies outside of it, and beside the live databases."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import sandbox
from support.databases import MIB, REAL
from support.filesystems import disk, fill_disk
from support.host import Host, list_snapshots, succeeded
from support.live_database import (
    change_database,
    dump_copy,
    dump_database,
    hash_state_files,
    paused_restore,
)
from support.users import needs_root

from demo.users import User

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="by hand")]


NEEDED = {"T3_BACKUP_RESERVE": "1T"}  # a restore may take what a backup must leave


@contextmanager
def full(where: Path) -> Iterator[None]:
    """Without a free block."""
    filler = fill_disk(where)
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def read_only(where: Path) -> Iterator[None]:
    """On a disk that was mounted read-only, as after an error."""
    subprocess.run(["mount", "-o", "remount,ro", where], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", where], check=True)


@pytest.fixture
def olga(host: Host, make_user: Callable[..., User]) -> User:
    user = make_user("flt-olga", REAL)
    host.write_map(user)
    secrets = user.database.parent / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "key.bin").write_text("first")
    user.give(secrets)
    user.give(secrets / "key.bin")
    return user


@pytest.fixture
def small_disk(host: Host, olga: User) -> Iterator[Path]:
    """The disk of the store alone: in that a delta with files, and a newer, plain snapshot."""
    with disk(host.folder, "ext4", 24 * MIB) as where:
        for place in (where / "store", host.store):
            place.mkdir(mode=0o700)
        subprocess.run(["mount", "--bind", where / "store", host.store], check=True)
        try:
            for text in ("first", "second"):
                (olga.database.parent / "secrets/key.bin").write_text(text)
                change_database(olga, f"CREATE TABLE {text} (x)")
                succeeded(host.t3("run", T3_BACKUP_COMPACT="delta"))
            assert len([*host.account_dir(olga).glob("*.delta")]) == 1
            yield where
        finally:
            subprocess.run(["umount", "-l", host.store], check=True)


def state_of(host: Host) -> list[str]:
    """What lies outside of the store."""
    return sorted(path.name for path in host.folder.glob("state/restores/*"))


@pytest.mark.parametrize("takes_nothing", [full, read_only])
def test_a_store_that_takes_nothing_more_gives_everything_back(
    host: Host,
    small_disk: Path,
    olga: User,
    tmp_path: Path,
    takes_nothing: Callable[[Path], contextlib.AbstractContextManager[None]],
) -> None:
    oldest = list_snapshots(host, olga)[1]["name"]
    change_database(olga, "CREATE TABLE third (x)")
    before = hash_state_files(olga)["state.sqlite"]
    with takes_nothing(small_disk):
        to = ("--to", str(tmp_path / "copy"))
        succeeded(host.t3("restore", olga.name, "--at", oldest, *to, **NEEDED, TMPDIR="/none"))
        succeeded(host.t3("verify", olga.name))
        words = ("restore", olga.name, "--at", oldest, "--yes", "--json")
        done = succeeded(host.t3(*words, **NEEDED)).document
        said = succeeded(host.t3("restore", olga.name, "--only", "files", "--yes")).out
    assert dump_copy(olga, host.folder / "work") == dump_database(tmp_path / "copy")
    assert (olga.database.parent / "secrets/key.bin").read_text() == "second"
    assert (done["action"], done["prerestore"], done["undo"]) == ("restored", None, None)
    assert any("can't be kept in the store" in one for one in done["warnings"])
    database, files = done["kept"]
    assert hash_state_files(olga)[Path(database).name] == before
    assert Path(files, "secrets/key.bin").read_text() == "second"
    assert "once nobody needs it: rm -rf" in said
    assert state_of(host) == [], "the restore has ended"
    succeeded(host.t3("run"))


def test_one_that_was_killed_is_told_and_ended_though_the_store_takes_nothing(
    host: Host, small_disk: Path, olga: User
) -> None:
    change_database(olga, "CREATE TABLE third (x)")
    with read_only(small_disk):
        with paused_restore(host, olga) as process:
            assert state_of(host) == [f"{olga.name}+restore.json"]
            assert "is running or was interrupted" in host.t3("list", olga.name).out
            process.kill()
            process.wait()
        assert "was interrupted" in host.t3("list", olga.name).out
        other = host.t3("run", "--dest", str(host.folder / "another"))
        assert "an interrupted restore was undone" in other.out + other.err, (
            "a run that keeps its snapshots elsewhere ends it, too"
        )
        assert state_of(host) == []
        assert host.t3("list", olga.name).out.count("interrupted") == 0


def test_a_store_that_becomes_read_only_in_the_middle_is_no_restore_that_never_ends(
    host: Host, small_disk: Path, olga: User
) -> None:
    change_database(olga, "CREATE TABLE third (x)")
    intent = host.store / f"{olga.name}+restore.json"
    with paused_restore(host, olga) as process:
        process.kill()
        process.wait()
    assert intent.exists()
    with read_only(small_disk):
        succeeded(host.t3("accept", olga.name))
        assert intent.exists()
        assert "interrupted" not in host.t3("list", olga.name).out, "it has ended"
        assert "interrupted" not in succeeded(host.t3("accept", olga.name)).out
    succeeded(host.t3("accept", olga.name))
    assert (intent.exists(), state_of(host)) == (False, [])
