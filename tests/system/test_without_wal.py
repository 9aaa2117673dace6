"""A database that is not in WAL mode, where every read is a lock: its server's commits come
first."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from support import programs
from support.host import Host
from support.live_database import file_facts
from support.users import needs_root

from demo.users import User
from demo.writer import Writer, moment

pytestmark = [needs_root, pytest.mark.alone]

SIZE = 4  # MiB

# A server that dies in a transaction whose journal is already on the disk, as is half of its
# change.
_HALF_A_TRANSACTION = (
    "PRAGMA journal_mode=DELETE",
    "PRAGMA cache_size=10",
    "BEGIN",
    "UPDATE projection_thread_messages SET text = 'half of a transaction ' || text",
)
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


@pytest.fixture
def dora(make_user: Callable[..., User], host: Host, grown: Callable[[int], Path]) -> User:
    """A user to be served without WAL."""
    user = make_user("dora", grown(SIZE))
    host.write_map(user)
    return user


def test_a_server_that_waits_a_second_loses_no_commit(host: Host, dora: User) -> None:
    """Its database is copied, as one moment, while it commits all the time."""
    with Writer(
        dora.database, user=dora.name, journal_mode="delete", busy_timeout_ms=1000
    ) as writer:
        writer.mark("run")
        answer = host.t3("run", "--json", "--timeout", "120", T3_BACKUP_STALL="2")
        stats = writer.stop()
    assert answer.code == 0, answer
    assert stats.total.errors == 0
    [found] = answer.account(dora.name)["snapshots"]
    assert (found["method"], found["verdict"]) == ("online", "verified")
    assert stats.windows["run"].commits > 0
    with closing(sqlite3.connect(f"file:{found['path']}?immutable=1", uri=True)) as copy:
        assert len(moment(copy)) == 1


def test_a_server_that_never_waits_loses_at_most_one_commit_in_a_hundred(
    host: Host, dora: User
) -> None:
    """There is no copy without any loss there: the loss is bounded, and VACUUM INTO, which would
    lock for long, is not tried."""
    with Writer(
        dora.database, user=dora.name, journal_mode="delete", busy_timeout_ms=0, interval_s=0.02
    ) as writer:
        writer.mark("run")
        answer = host.t3("run", "--json", "--timeout", "60")
        window = writer.mark("after")
        assert writer.stop().total.errors == window.errors
    print(
        f"{window.errors} busy errors beside {window.commits} commits: "
        f"{window.errors / window.commits:.2%}"
    )
    assert window.errors <= 0.01 * window.commits
    [account] = answer.document["accounts"]
    if answer.code == 0:
        assert [snapshot["method"] for snapshot in account["snapshots"]] == ["online"]
        with closing(
            sqlite3.connect(f"file:{account['snapshots'][0]['path']}?immutable=1", uri=True)
        ) as copy:
            assert len(moment(copy)) == 1
    else:
        assert "not in WAL mode" in account["reason"]
        assert host.snapshots(dora) == []


def test_a_database_written_all_the_time_ends_as_a_failure_not_as_a_vacuum(
    host: Host, make_user: Callable[..., User], grown: Callable[[int], Path]
) -> None:
    """Too big for a moment's lock, and no time: it is said to be not in WAL mode, within the
    deadline, and the others go on."""
    dora, bob = make_user("dora", grown(SIZE)), make_user("wbob", grown(4))
    host.write_map(dora, bob)
    with Writer(
        dora.database, user=dora.name, journal_mode="delete", busy_timeout_ms=1000
    ) as writer:
        answer = host.t3("run", "--timeout", "8")
        assert writer.stop().total.errors == 0
    assert answer.code == 1, answer
    assert re.search(rf"FAILED for {dora.name} \(not in WAL mode", answer.out), answer
    assert host.snapshots(dora) == []
    assert len(host.snapshots(bob)) == 1


def test_an_idle_server_without_wal_is_copied_at_once(host: Host, dora: User) -> None:
    """Nothing restarts where nobody writes."""
    with Writer(dora.database, user=dora.name, journal_mode="delete") as writer:
        writer.pause()
        answer = host.t3("run", "--json")
        writer.resume()
        assert writer.stop().total.errors == 0
    [found] = answer.account(dora.name)["snapshots"]
    assert (answer.code, found["method"], found["restarts"], found["verdict"]) == (
        0,
        "online",
        0,
        "verified",
    )


def test_a_hot_journal_is_named_and_left_to_the_server(
    host: Host, make_user: Callable[..., User], grown: Callable[[int], Path]
) -> None:
    """Row 8: nobody but the server may play it back, and a copy without it would be half of a
    transaction."""
    dora, bob = make_user("dora", grown(SIZE)), make_user("wbob", grown(4))
    host.write_map(dora, bob)
    database, journal = dora.database, dora.database.with_name("state.sqlite-journal")
    with Writer(database, user=dora.name, journal_mode="delete") as writer:
        writer.stop()
    with closing(sqlite3.connect(f"file:{database}?immutable=1", uri=True)) as healthy:
        texts = healthy.execute(
            "SELECT message_id, text FROM projection_thread_messages ORDER BY 1"
        ).fetchall()
    subprocess.run(
        programs.line("run_sql.py", "die", str(database), *_HALF_A_TRANSACTION),
        cwd="/",
        user=dora.name,
        group=dora.name,
        extra_groups=[],
        check=False,
    )
    assert journal.read_bytes().startswith(_JOURNAL_MAGIC)
    assert _texts(database, None, host) != texts, (
        "the journal is not hot: nothing of the transaction is in the database"
    )
    assert _texts(database, journal, host) == texts, "the journal is not hot: it plays nothing back"
    folder = database.parent
    before = [file_facts(database), file_facts(journal), file_facts(folder)]
    answer = host.t3()
    assert [file_facts(database), file_facts(journal), file_facts(folder)] == before
    assert {path.name for path in folder.iterdir()} == {database.name, journal.name}
    assert answer.code == 1, answer
    assert re.search(rf"FAILED for {dora.name} \(.*hot journal.*start its T3 server", answer.out), (
        answer
    )
    assert host.snapshots(dora) == []
    assert len(host.snapshots(bob)) == 1
    with Writer(database, user=dora.name, journal_mode="wal") as server:  # what the line says to do
        server.stop()
    assert host.t3().code == 0


def _texts(database: Path, journal: Path | None, host: Host) -> list[tuple[str, str]]:
    """What a server would find in a copy of the database, with or without its journal."""
    copy = host.folder / "copy.sqlite"
    shutil.copyfile(database, copy)
    if journal is not None:
        shutil.copyfile(journal, host.folder / "copy.sqlite-journal")
    with closing(sqlite3.connect(copy)) as connection, suppress(sqlite3.DatabaseError):
        return connection.execute(
            "SELECT message_id, text FROM projection_thread_messages NOT INDEXED ORDER BY 1"
        ).fetchall()
    return []  # half of a transaction is not even a sound database
