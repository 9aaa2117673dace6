"""A copy of a live database: it ends, it is one moment, and the server never notices."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
from support import programs
from support.databases import MIB, give_database
from support.host import Answer, Host, started
from support.paths import DATA
from support.processes import child_pids, process_status
from support.users import needs_root
from support.workers import serves

from demo.users import User
from demo.writer import Writer, moment
from t3_backup.errors import TryLater
from t3_backup.worker.child import connection as child_connection
from t3_backup.worker.child import copy as child_copy
from t3_backup.worker.child import copy_all, pinned_read, source
from t3_backup.worker.child.pinned_read import STEP_PAGES, Budget, Unfinished
from t3_backup.worker.child.source import LiveDatabase
from t3_backup.worker.child.task import Task
from t3_backup.worker.child.vfs import Destination, register_vfs
from t3_backup.worker.operations import Job
from t3_backup.worker.operations.backup import Copied

pytestmark = [needs_root, pytest.mark.alone]

PATIENCE_S = 60  # a bound on waiting for what must come; nothing is measured by it
BIG = 500  # MiB: the copy takes long enough to be met in the middle
# the bytes of a -shm that a reader locks (sqlite.org/walformat.html, section 2.3.1)
READ_MARKS = range(123, 128)
WRITER_AND_CHECKPOINTER = {120, 121}  # and those that a writer and a checkpointer lock


@contextmanager
def heavy_writer(user: User) -> Iterator[None]:
    """Until the block is left, a process of the user's commits as fast as it can."""
    process = subprocess.Popen(
        programs.line("write_mebibytes.py", str(user.database)),
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        user=user.name,
        group=user.name,
        extra_groups=[],
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.communicate()


@contextmanager
def in_process(user: User, host: Host) -> Iterator[tuple[LiveDatabase, Destination]]:
    """What a worker works with, in this process: a source, and a destination without a name."""
    register_vfs()
    found = source.find_database(user.home, user.uid)
    fd = os.open(host.folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        with Destination(fd) as destination:
            yield found, destination
    finally:
        os.close(fd)
        os.close(found.folder)


def wait_for(what: str, look: Callable[[], Any], run: subprocess.Popen[str]) -> Any:
    """The first answer of `look` that is not None; the run must not end before."""
    until = time.monotonic() + PATIENCE_S
    while (found := look()) is None:
        assert run.poll() is None, f"the run ended before {what}: {run.communicate()[0]}"
        assert time.monotonic() < until, f"waited in vain for {what}"
    return found


def worker_of(run: subprocess.Popen[str], user: User) -> int | None:
    """The process id of the run's worker that copies this user's database, once there is one."""
    for pid in child_pids(run.pid):
        uids = process_status(pid).get("Uid", "").split()
        if str(user.uid) in uids and serves(pid, "copy_databases"):
            return pid
    return None


def holds_the_pin(pid: int, user: User) -> bool:
    """Whether the process has a reader's lock on the user's -shm, as the kernel has it."""
    inode = user.database.with_name("state.sqlite-shm").stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        _, _, _, kind, owner, file, start, _ = line.split()[-8:]
        if (
            kind == "READ"
            and owner == str(pid)
            and file.endswith(f":{inode}")
            and int(start) in READ_MARKS
        ):
            return True
    return False


def new_file_bytes(pid: int, host: Host) -> int:
    """The size of the file without a name that the worker writes."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(fd).startswith(str(host.store)):
                return fd.stat().st_size
    return 0


def stop_in_the_middle(host: Host, run: subprocess.Popen[str], user: User) -> int:
    """Send SIGSTOP to the worker while it copies, and see that it holds the pin. Its process id."""

    def copying() -> int | None:
        pid = worker_of(run, user)
        return pid if pid is not None and new_file_bytes(pid, host) > 0 else None

    pid = wait_for("its worker copied", copying, run)
    os.kill(pid, signal.SIGSTOP)
    wait_for(
        "its worker stopped", lambda: " T " in Path(f"/proc/{pid}/stat").read_text() or None, run
    )
    assert holds_the_pin(pid, user)
    assert new_file_bytes(pid, host) < user.database.stat().st_size
    return pid


def ended(run: subprocess.Popen[str]) -> Answer:
    """The answer of a run that was left running (its standard error is in its output)."""
    out, _ = run.communicate(timeout=PATIENCE_S)
    return Answer(run.returncode, out, "")


def wal_can_be_reset(user: User) -> bool:
    """Whether the server's own connection could empty the -wal now, which a pin prevents."""
    with closing(sqlite3.connect(user.database, timeout=0)) as server:
        return server.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def census_of(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".json").read_text())["databases"][0]["census"]


def open_snapshot(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?immutable=1", uri=True)


@pytest.fixture
def carol(make_user: Callable[..., User], host: Host, grown: Callable[[int], Path]) -> User:
    """A user whose database takes a while to copy; the map names them alone."""
    user = make_user("carol", grown(BIG))
    host.write_map(user)
    return user


@pytest.fixture
def bob(make_user: Callable[..., User], small: Path) -> User:
    """Another account, to go on with."""
    return make_user("lbob", small)


# The copy ends, and is one moment.


def test_a_copy_under_a_busy_writer_ends_at_once_and_is_one_moment(host: Host, carol: User) -> None:
    """Row 1: a commit every few milliseconds starts nothing over, and no commit fails."""
    with Writer(carol.database, user=carol.name) as writer:
        writer.mark("run")
        answer = host.t3("run", "--json")
        stats = writer.stop()
    assert answer.code == 0, answer
    assert stats.windows["run"].commits > 10, "the writer was too slow to prove anything"
    assert stats.total.errors == 0
    [found] = answer.account(carol.name)["snapshots"]
    assert (found["method"], found["verdict"], found["restarts"]) == ("online", "verified", 0)
    with closing(open_snapshot(Path(found["path"]))) as copy:
        assert len(moment(copy)) == 1


@pytest.mark.parametrize("pinned", [True, False])
def test_the_copy_ends_because_of_the_pin(
    host: Host, carol: User, monkeypatch: pytest.MonkeyPatch, pinned: bool
) -> None:
    """Row 1, the other way round: with its BEGIN taken out, the same copy is not done after five
    times the steps it needs."""
    if not pinned:

        def without_transaction(connection: apsw.Connection, *statements: str) -> None:
            child_connection.execute(
                connection,
                *(one for one in statements if one not in ("BEGIN", "COMMIT", "ROLLBACK")),
            )

        monkeypatch.setattr(pinned_read, "execute", without_transaction)
    steps_needed = carol.database.stat().st_size // (STEP_PAGES * 4096) + 1
    with (
        in_process(carol, host) as (found, destination),
        Writer(carol.database, user=carol.name) as writer,
    ):
        # The clock of this budget counts how often it is asked: once a step.
        budget = Budget(found, 5 * steps_needed, 1 << 40, clock=itertools.count().__next__)
        if pinned:
            assert child_copy._online(found, destination, budget, mmap=True).method == "online"
            assert budget.clock() <= 2 * steps_needed
        else:
            with pytest.raises(Unfinished):
                child_copy._online(found, destination, budget, mmap=True)
        assert writer.stop().total.errors == 0


# What the pin costs is bounded.


def test_a_copy_that_makes_the_wal_outgrow_its_budget_gives_up(host: Host, carol: User) -> None:
    """Row 2: try again later, nothing named, and the server may empty its -wal."""
    with Writer(carol.database, user=carol.name) as writer:
        writer.pause()
        with heavy_writer(carol):
            answer = host.t3("run", T3_BACKUP_WAL_BUDGET="1M")
        assert wal_can_be_reset(carol)
    assert answer.code == 1, answer
    assert f"backup FAILED for {carol.name} (the -wal grew by " in answer.out
    assert "try again later" in answer.out
    assert list(host.account_dir(carol).iterdir()) == []


def test_the_worker_itself_gives_up_over_the_wal_budget(host: Host, carol: User) -> None:
    """Row 2: it need not be killed for it."""
    with in_process(carol, host) as (found, destination), heavy_writer(carol):
        with pytest.raises(TryLater, match="the -wal grew"):
            child_copy.copy_database(found, destination, Budget(found, 3600, MIB))


def test_a_worker_that_stops_with_the_pin_in_its_hand_is_ended(
    host: Host, carol: User, bob: User
) -> None:
    """Row 2: no sign of life for T3_BACKUP_STALL seconds: its pin is free again, and the others are
    backed up."""
    host.write_map(carol, bob)
    with (
        Writer(carol.database, user=carol.name) as writer,
        started(host, "run", T3_BACKUP_STALL="2") as run,
    ):
        pid = stop_in_the_middle(host, run, carol)
        writer.pause()
        assert not wal_can_be_reset(carol)
        answer = ended(run)
        assert not Path(f"/proc/{pid}").exists()
        assert wal_can_be_reset(carol)
    assert answer.code == 1, answer
    assert f"backup FAILED for {carol.name} (no progress for 2 s" in answer.out
    assert list(host.account_dir(carol).iterdir()) == []
    assert len(host.snapshots(bob)) == 1


def test_a_stopped_worker_is_ended_for_the_wal_it_holds_before_it_counts_as_stalled(
    host: Host, carol: User
) -> None:
    """Row 2: nobody knows how the -wal grows then, and it may grow for seconds only."""
    stall = {"T3_BACKUP_STALL": "600"}
    with Writer(carol.database, user=carol.name) as writer, started(host, "run", **stall) as run:
        pid = stop_in_the_middle(host, run, carol)
        writer.pause()
        answer = ended(run)
        assert not Path(f"/proc/{pid}").exists()
        assert wal_can_be_reset(carol)
    assert answer.code == 1, answer
    assert f"backup FAILED for {carol.name} (its worker has not said for 5 s" in answer.out
    assert "try again later" in answer.out
    assert list(host.account_dir(carol).iterdir()) == []


# Nothing is done to the server.

_READS = re.compile(
    r"BEGIN|COMMIT|ROLLBACK|SELECT .*"
    r"|PRAGMA (trusted_schema=0|temp_store=memory|cache_size=-\d+|mmap_size=\d+)"
    r"|PRAGMA (query_only=1|synchronous=off|journal_mode|encoding)"
    r"|PRAGMA main\.(page_size|page_count|user_version|application_id)"
    r"|PRAGMA main\.(table_list|table_x?info\(.*\))"
    r"|VACUUM INTO 'file:t3copy-\d+\?vfs=t3copy'",
    re.DOTALL,
)


@pytest.mark.parametrize(
    ("journal_mode", "method", "took"),
    [
        ("wal", "online", "online"),
        ("wal", "vacuum", "vacuum"),
        ("delete", "online", "online"),
        ("wal", "all", "online"),
        ("delete", "all", "online"),
    ],
)
def test_no_statement_on_the_source_writes_checkpoints_or_changes_its_mode(
    host: Host,
    alice: User,
    monkeypatch: pytest.MonkeyPatch,
    journal_mode: str,
    method: str,
    took: str,
) -> None:
    """Row 3: every statement on every connection to the source is one of a few that only read."""
    statements: list[str] = []

    def traced(*arguments: Any, **options: Any) -> apsw.Connection:
        connection = child_connection.connect(*arguments, **options)

        def heard(_: apsw.Cursor, statement: str, __: object) -> bool:
            statements.append(statement)
            return True

        connection.setexectrace(heard)
        return connection

    monkeypatch.setattr(child_copy, "connect", traced)
    monkeypatch.setattr(copy_all, "connect", traced)
    monkeypatch.setattr(child_connection, "execute", lambda *given: _noted(statements, *given))
    with Writer(
        alice.database, user=alice.name, journal_mode=journal_mode, busy_timeout_ms=1000
    ) as writer:
        if method == "all":
            copy = copy_as_a_run_does(alice, host)
        else:
            with in_process(alice, host) as (found, destination):
                copy = child_copy.copy_database(
                    found, destination, Budget(found, 3600, 1 << 40), method=method
                )
        assert writer.stop().total.errors == 0
    assert copy.method == took
    assert "PRAGMA mmap_size=1099511627776" in statements, "what connect itself says is not traced"
    assert "PRAGMA journal_mode" in statements, "what a copy says is not traced"
    assert [statement for statement in statements if not _READS.fullmatch(statement)] == []


def copy_as_a_run_does(user: User, host: Host) -> Copied:
    """The copy of the one database of the user's, made in this process."""
    register_vfs()
    found = source.find_database(user.home, user.uid)
    fd = os.open(host.folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        task = Task(Job(str(user.home), user.uid, user.gid, (), False, 0, 3600, 1 << 40))
        task.report = lambda _: None  # type: ignore[method-assign]
        task.sources, task.files = (found,), {found.name: fd}
        [one] = copy_all.copy_databases(task, mmap=True).databases
    finally:
        os.close(fd)
        os.close(found.folder)
    assert one.copied is not None
    return one.copied


def _noted(statements: list[str], connection: apsw.Connection, *given: str) -> None:
    for statement in given:
        statements.append(statement)
        connection.cursor().execute(statement).fetchall()


def test_no_commit_of_a_server_that_never_waits_fails(host: Host, alice: User) -> None:
    """Row 3: busy_timeout 0, commits back to back, runs back to back and a VACUUM INTO: no error at
    the server."""
    with Writer(alice.database, user=alice.name, interval_s=0) as writer:
        for _ in range(5):
            assert host.t3().code == 0
        for _ in range(10):
            with in_process(alice, host) as (found, destination):
                assert (
                    child_copy.copy_database(
                        found, destination, Budget(found, 3600, 1 << 40), method="vacuum"
                    ).method
                    == "vacuum"
                )
        stats = writer.stop()
    assert stats.total.errors == 0
    assert stats.total.commits > 0


class SourceTrace:
    """The system calls of a run that concern the live database and its sidecars, by process."""

    def __init__(self, host: Host, user: User) -> None:
        # One file a thread: no call is torn in two by another. -y resolves every descriptor to its
        # path.
        line = [
            "strace",
            "-ff",
            "-y",
            "-s",
            "300",
            "-e",
            "trace=%file,%desc,fcntl",
            "-o",
            str(host.folder / "trace"),
        ]
        done = subprocess.run(
            [*line, *host.command("run")],
            env=host.env(),
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done
        assert len(host.snapshots(user)) == 1
        self.calls: list[tuple[str, str, str]] = []  # process, name, the whole line
        for file in host.folder.glob("trace.*"):
            for text in file.read_text(errors="replace").splitlines():
                if match := re.match(r"(\w+)\(", text):
                    self.calls.append((file.suffix, match[1], text))
        self.on_source = [
            call for call in self.calls if re.search(rf"{user.database}(-\w+)?[\">]", call[2])
        ]
        folder = user.database.parent
        # A path that is an argument, or a descriptor's: a message that names one is neither.
        self.in_folder = [call for call in self.calls if re.search(rf'["<]{folder}', call[2])]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_sqlite_opens_each_live_file_once_and_nothing_else_does(host: Host, alice: User) -> None:
    """Row 4: a second descriptor of the database, -wal or -shm in the worker would drop SQLite's
    locks when it is closed."""
    with Writer(alice.database, user=alice.name):
        traced = SourceTrace(host, alice)
    opens, closes, by = Counter[str](), Counter[str](), set[str]()
    descriptors: dict[tuple[str, str], str] = {}
    for process, name, text in sorted(traced.on_source, key=lambda call: call[0]):
        if opened := re.search(r"= (\d+)<([^>]*)>$", text):
            assert name in ("open", "openat", "openat2"), f"another descriptor by {text}"
            if "O_PATH" not in text:
                descriptors[process, opened[1]] = Path(opened[2]).name
                opens[Path(opened[2]).name] += 1
                by.add(process)
        elif (closed := re.match(r"close\((\d+)<([^>]*)>\)", text)) and descriptors.pop(
            (process, closed[1]), None
        ):
            closes[Path(closed[2]).name] += 1
    assert opens == {"state.sqlite": 1, "state.sqlite-wal": 1, "state.sqlite-shm": 1}
    assert closes == opens
    [worker] = by
    assert any(process == worker and name == "openat2" for process, name, _ in traced.in_folder), (
        "not the worker's"
    )


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_no_system_call_changes_a_live_file_or_takes_a_writers_lock(
    host: Host, alice: User
) -> None:
    """Row 3, Row 5: beside a running server, the run reads; the locks of a writer and a
    checkpointer are never taken."""
    with Writer(alice.database, user=alice.name):
        traced = SourceTrace(host, alice)
    reading = {
        "open",
        "openat",
        "openat2",
        "close",
        "read",
        "pread64",
        "mmap",
        "fcntl",
        "lseek",
        "getcwd",
        "readlink",
        "fstatfs",
    }
    reading |= {
        "stat",
        "lstat",
        "fstat",
        "newfstatat",
        "statx",
        "access",
        "faccessat",
        "faccessat2",
    }
    # The names in the folder are listed, since one of them may be a database that is not copied; no
    # file has such a call.
    assert {name for _, name, _ in traced.in_folder} <= reading | {"getdents64"}
    assert {name for _, name, _ in traced.on_source} <= reading
    for_writing = {
        re.search(r'"([^"]*)"', text)[1]
        for _, _, text in traced.on_source
        if re.search("O_RDWR|O_WRONLY", text)
    }  # type: ignore[index]
    assert str(alice.database) not in for_writing
    locks = [text for _, name, text in traced.on_source if name == "fcntl" and "F_WRLCK" in text]
    assert all("state.sqlite-shm>" in text for text in locks), locks
    taken = {int(re.search(r"l_start=(\d+)", text)[1]) for text in locks}  # type: ignore[index]
    assert not taken & WRITER_AND_CHECKPOINTER


# All of it is copied, and nothing of another moment.


def test_what_is_only_in_the_wal_is_in_the_snapshot(
    host: Host, make_user: Callable[..., User]
) -> None:
    """Row 7: of a fresh server's database, the main file is one page."""
    alice = make_user("alice")
    host.write_map(alice)
    alice.database.touch(mode=0o644)
    alice.give(alice.database)
    with closing(sqlite3.connect(alice.database, isolation_level=None)) as server:
        server.execute("PRAGMA wal_autocheckpoint=0")
        server.execute("PRAGMA journal_mode=WAL")
        with closing(
            sqlite3.connect(f"file:{DATA / 'state-0.0.24.sqlite'}?immutable=1", uri=True)
        ) as fresh:
            fresh.backup(server)
        server.execute("INSERT INTO projection_state VALUES ('only.in.the.wal', 7, '')")
        rows = list(server.iterdump())
        assert alice.database.stat().st_size == 4096
        answer = host.t3()
        assert alice.database.stat().st_size == 4096
    assert answer.code == 0, answer
    [path] = host.snapshots(alice)
    with closing(open_snapshot(path)) as copy:
        assert list(copy.iterdump()) == rows
        assert copy.execute(
            "SELECT count(*) FROM projection_state WHERE projector = 'only.in.the.wal'"
        ).fetchone() == (1,)


def test_what_changes_in_the_middle_of_a_copy_is_in_neither_the_copy_nor_its_manifest(
    host: Host, carol: User
) -> None:
    """Row 25: user_version, application_id, the schema and rows, all changed while the worker
    stands still."""
    with Writer(carol.database, user=carol.name, interval_s=0.01), started(host, "run") as run:
        pid = stop_in_the_middle(host, run, carol)
        with closing(
            sqlite3.connect(carol.database, timeout=PATIENCE_S, isolation_level=None)
        ) as server:
            server.execute("BEGIN IMMEDIATE")
            server.execute("PRAGMA user_version=77")
            server.execute("PRAGMA application_id=78")
            server.execute("CREATE TABLE afterwards(content)")
            server.execute(
                "INSERT INTO effect_sql_migrations(migration_id, name) VALUES (99, 'Afterwards')"
            )
            server.execute("COMMIT")
        os.kill(pid, signal.SIGCONT)
        first = ended(run)
        second = host.t3()
    assert (first.code, second.code) == (0, 0), (first, second)
    before, after = host.snapshots(carol)
    for path, version, application, level, tables in (
        (before, 0, 0, 30, 0),
        (after, 77, 78, 99, 1),
    ):
        manifest = census_of(path)
        with closing(open_snapshot(path)) as copy:
            assert (
                copy.execute("PRAGMA user_version").fetchone()[0]
                == manifest["user_version"]
                == version
            )
            assert (
                copy.execute("PRAGMA application_id").fetchone()[0]
                == manifest["application_id"]
                == application
            )
            assert (
                copy.execute("SELECT max(migration_id) FROM effect_sql_migrations").fetchone()[0]
                == manifest["t3_level"]
                == level
            )
            assert (
                copy.execute(
                    "SELECT count(*) FROM sqlite_schema WHERE name = 'afterwards'"
                ).fetchone()[0]
                == tables
            )
            assert len(moment(copy)) == 1
        assert ("afterwards" in manifest["rows"]) == bool(tables)


# Somebody handles the file itself.


def test_a_database_cut_short_under_the_copy_ends_it_and_no_other(
    host: Host, carol: User, bob: User
) -> None:
    """A truncated file takes its pages out of the worker's memory (SIGBUS): an alarm, never a hang,
    and nothing passes for good."""
    host.write_map(carol, bob)
    with started(host, "run") as run:
        pid = stop_in_the_middle(host, run, carol)
        os.truncate(carol.database, carol.database.stat().st_size // 2)
        os.kill(pid, signal.SIGCONT)
        answer = ended(run)
    assert answer.code == 1, answer
    listing = host.t3("list", "--json")
    assert [entry["verdict"] for entry in listing.account(bob.name)["snapshots"]] == ["verified"]
    accounts = {entry["user"]: entry["snapshots"] for entry in listing.document["accounts"]}
    assert "verified" not in [entry["verdict"] for entry in accounts.get(carol.name, [])]


def test_a_file_copied_over_the_database_under_the_copy_is_copied_whole(
    host: Host, carol: User, bob: User, small: Path
) -> None:
    """`cp other state.sqlite` empties the file and fills it anew: the copy is tried once more, and
    is the other one, whole."""
    host.write_map(carol, bob)
    with started(host, "run") as run:
        pid = stop_in_the_middle(host, run, carol)
        give_database(carol, small)
        os.kill(pid, signal.SIGCONT)
        answer = ended(run)
    listing = host.t3("list", "--json")
    assert [entry["verdict"] for entry in listing.account(bob.name)["snapshots"]] == ["verified"]
    accounts = {entry["user"]: entry["snapshots"] for entry in listing.document["accounts"]}
    good = [
        Path(entry["path"])
        for entry in accounts.get(carol.name, [])
        if entry["verdict"] == "verified"
    ]
    assert (answer.code, len(good)) == (0, 1), answer
    with closing(open_snapshot(small)) as other:
        rows = list(other.iterdump())
    for path in good:
        with closing(open_snapshot(path)) as copy:
            assert list(copy.iterdump()) == rows
