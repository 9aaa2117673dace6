"""A backup changes nothing of the database that it copies, and locks nobody out of it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.host import Answer, Host
from support.live_database import file_facts
from support.users import needs_root

from demo.users import User
from demo.writer import Writer

pytestmark = needs_root


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def back_up(host: Host, user: User) -> None:
    """A run that made a snapshot: it must have read what it is not to have changed."""
    answer = host.t3()
    assert answer.code == 0, answer
    assert len(host.snapshots(user)) == 1


def only_empty_sidecars_came(user: User, before: set[str]) -> None:
    """Beside a stopped server's database SQLite may leave an empty -wal and a -shm, both the user's
    own."""
    wal, shm = (user.database.with_name(f"state.sqlite{suffix}") for suffix in ("-wal", "-shm"))
    assert before <= names_in(user.database.parent) <= before | {wal.name, shm.name}
    for path in (wal, shm):
        if path.name not in before and path.exists():
            assert (path.stat().st_uid, path.stat().st_gid) == (user.uid, user.gid)
            assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(user.database.stat().st_mode)
    assert not wal.exists() or wal.name in before or wal.stat().st_size == 0


def the_user_can_write(user: User) -> None:
    """A server of the user's own starts on the database, and commits."""
    with Writer(user.database, user=user.name) as writer:
        stats = writer.stop()
    assert (stats.total.commits > 0, stats.total.errors) == (True, 0)


def test_a_backup_changes_no_byte_of_the_source_beside_a_running_server(
    host: Host, alice: User
) -> None:
    """Row 5: the server is up and idle, its WAL full of rows."""
    wal, shm = (alice.database.with_name(f"state.sqlite{suffix}") for suffix in ("-wal", "-shm"))
    with Writer(alice.database, user=alice.name) as writer:
        writer.pause()
        assert wal.stat().st_size > 0
        names, before = (
            names_in(alice.database.parent),
            [file_facts(alice.database), file_facts(wal)],
        )
        mapped = (shm.stat().st_ino, shm.stat().st_mode, shm.stat().st_uid, shm.stat().st_size)
        back_up(host, alice)
        assert [file_facts(alice.database), file_facts(wal)] == before
        assert (
            shm.stat().st_ino,
            shm.stat().st_mode,
            shm.stat().st_uid,
            shm.stat().st_size,
        ) == mapped
        assert names_in(alice.database.parent) == names
        writer.resume()
        assert writer.stop().total.errors == 0


def test_a_backup_changes_no_byte_of_the_source_of_a_stopped_server(
    host: Host, alice: User
) -> None:
    """Row 5, Row 6: it was stopped cleanly and left the database alone; afterwards its user can
    open and write."""
    with Writer(alice.database, user=alice.name) as writer:
        writer.stop()
    names, before = names_in(alice.database.parent), file_facts(alice.database)
    assert names == {"state.sqlite"}
    back_up(host, alice)
    assert file_facts(alice.database) == before
    only_empty_sidecars_came(alice, names)
    the_user_can_write(alice)


def test_a_backup_changes_no_byte_of_what_a_killed_server_left(host: Host, alice: User) -> None:
    """Row 5, Row 6: kill -9 left a WAL: it is neither written back nor removed; afterwards its user
    can open and write."""
    wal = alice.database.with_name("state.sqlite-wal")
    with Writer(alice.database, user=alice.name) as writer:
        writer.kill()
    assert wal.stat().st_size > 0
    names, before = names_in(alice.database.parent), [file_facts(alice.database), file_facts(wal)]
    back_up(host, alice)
    assert [file_facts(alice.database), file_facts(wal)] == before
    only_empty_sidecars_came(alice, names)
    the_user_can_write(alice)


def test_a_killed_servers_wal_without_its_index_is_left_as_it_is(host: Host, alice: User) -> None:
    """Row 5, Row 6: after a power cut there is a -wal and no -shm; SQLite rebuilds the index, and
    nothing else."""
    wal, shm = (alice.database.with_name(f"state.sqlite{suffix}") for suffix in ("-wal", "-shm"))
    with Writer(alice.database, user=alice.name) as writer:
        writer.kill()
    shm.unlink()
    names, before = names_in(alice.database.parent), [file_facts(alice.database), file_facts(wal)]
    back_up(host, alice)
    assert [file_facts(alice.database), file_facts(wal)] == before
    only_empty_sidecars_came(alice, names)
    the_user_can_write(alice)


def test_the_copy_of_a_killed_servers_database_has_what_is_in_its_wal(
    host: Host, alice: User
) -> None:
    """Row 5: left untouched does not mean left out."""
    with Writer(alice.database, user=alice.name) as writer:
        writer.kill()
    back_up(host, alice)
    rows = []
    for path in (host.snapshots(alice)[0], _rescued(alice, host)):
        with sqlite3.connect(path) as database:
            rows.append(list(database.iterdump()))
    assert rows[0] == rows[1]


def _rescued(user: User, host: Host) -> Path:
    """What a next server would see: the database and its WAL, copied together while nobody has them
    open."""
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{user.database}{suffix}", host.folder / f"rescued{suffix}")
    return host.folder / "rescued"


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
@pytest.mark.parametrize("wal_left", [False, True])
def test_a_user_is_not_locked_out_by_a_root_that_may_not_give_files_away(
    host: Host, alice: User, wal_left: bool
) -> None:
    """Row 6: without CAP_CHOWN, sidecars made by root would stay root's; here the user makes
    them."""
    with Writer(alice.database, user=alice.name) as writer:
        writer.kill() if wal_left else writer.stop()
    if wal_left:
        alice.database.with_name("state.sqlite-shm").unlink()
    names = names_in(alice.database.parent)
    line = ["setpriv", "--bounding-set=-chown,-fowner", *host.command("run")]
    done = subprocess.run(
        line, env=host.env(), cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, Answer(done.returncode, done.stdout, done.stderr)
    assert len(host.snapshots(alice)) == 1
    only_empty_sidecars_came(alice, names)
    the_user_can_write(alice)


def test_a_run_that_fails_changes_nothing_either(
    host: Host, make_user: Callable[..., User], small: Path
) -> None:
    """Row 5: a damaged database stays what it is, for whoever has to rescue it."""
    alice = make_user("alice", small)
    host.write_map(alice)
    with alice.database.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(4096 * 8))
    names, before = names_in(alice.database.parent), file_facts(alice.database)
    assert host.t3().code == 1
    assert file_facts(alice.database) == before
    only_empty_sidecars_came(alice, names)
