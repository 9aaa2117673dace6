"""Each operation that a worker can be asked for, served by a real child: what it answers, and what
it imports for it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support import programs
from support.host import Host
from support.paths import DATA, ROOT
from support.processes import BOUND_S, child_pids, process_status, until
from support.users import needs_root

from demo.users import User
from t3_backup import accounts
from t3_backup.errors import WorkerLost
from t3_backup.store.replacement import Replacement
from t3_backup.system.file_identity import FileIdentity
from t3_backup.worker import client
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations import OPERATIONS, Job, Operation, encode_request, name_of
from t3_backup.worker.operations.activity import ReadActivity
from t3_backup.worker.operations.archive import (
    InspectArchive,
    InstallArchive,
    RemoveReplaced,
    StageArchive,
)
from t3_backup.worker.operations.backup import (
    CopyDatabase,
    CopyDatabases,
    FindDatabase,
    WriteArchive,
)
from t3_backup.worker.operations.legacy import CopyLegacy, ListLegacy, RemoveLegacy
from t3_backup.worker.operations.proof import CheckDatabases, CheckIntegrity, ProvenAll
from t3_backup.worker.operations.restore import (
    CheckpointDatabases,
    CloneDatabase,
    CountRows,
    PutAside,
    RecoverSwap,
    StageDatabase,
    SwapDatabases,
)
from t3_backup.worker.protocol import CHANNEL, Event
from t3_backup.worker.sources import Source
from t3_backup.worker.supervisor import Provider

pytestmark = needs_root

TINY = DATA / "state-0.0.24.sqlite"
ENDING = ".replaced-x"
ASIDE = f"state.sqlite{ENDING}"
OLD = "state-20261101-033000.sqlite"
LIMITS = Limits(BOUND_S, BOUND_S, 1 << 30, 0, lambda: 1 << 40)
A = TypeVar("A", bound=Event)

READ_CALL = {"x86_64": 0, "aarch64": 63}[platform.machine()]  # read(2), as /proc has it

# What takes long to import, and who has a use for it.
CENSUS = {"apsw"}
LEGACY = {*CENSUS, "datetime"}  # the time in a name
ARCHIVES = {"zstandard", "tarfile"}
COSTLY = {
    *CENSUS,
    *ARCHIVES,
    *(
        "hashlib",
        "pathlib",
        "datetime",
        "argparse",
        "logging",
        "subprocess",
        "threading",
        "asyncio",
        "concurrent.futures",
        "multiprocessing",
    ),
    *(
        "tempfile",
        "email",
        "http",
        "sqlite3",
        "ssl",
        "t3_backup.settings",
        "t3_backup.store.manifest",
    ),
}
USES = {
    "find_database": set[str](),
    "copy_database": CENSUS,
    "copy_databases": CENSUS,
    "check_integrity": CENSUS,
    "check_databases": CENSUS,
    "write_archive": ARCHIVES,
    "inspect_archive": ARCHIVES,
    "stage_archive": ARCHIVES,
    "install_archive": set[str](),
    "remove_replaced": set[str](),
    "count_rows": CENSUS,
    "read_activity": CENSUS,
    "stage_database": CENSUS,
    "checkpoint_databases": CENSUS,
    "clone_database": set[str](),
    "swap_databases": CENSUS,
    "put_aside": CENSUS,
    "recover_swap": CENSUS,
    "list_legacy": LEGACY,
    "copy_legacy": LEGACY,
    "remove_legacy": LEGACY,
}


@dataclass
class Workers:
    """A user with a database, and workers that note what they import."""

    host: Host
    user: User
    # at the change of user, and at the end
    modules: dict[str, tuple[set[str], set[str]]] = field(default_factory=dict)

    def ask(
        self,
        operation: Operation[A],
        *,
        file: int = -1,
        folder: int = -1,
        provide: Provider | None = None,
    ) -> A:
        """Have a worker serve it."""
        who = accounts.find(self.user.name)
        answer = client.ask(
            who, operation, LIMITS, threading.Event(), file=file, folder=folder, provide=provide
        )
        self.note_modules(operation)
        return answer

    def hand_over(self, operation: Operation[A], *files: int) -> A:
        """Have a worker that waits serve it."""
        who = accounts.find(self.user.name)
        with client.Worker(who, operation, LIMITS, waits=True) as worker:
            worker.hand_over(operation, LIMITS, files)
            answer = worker.answer(threading.Event(), lambda _: None)
        self.note_modules(operation)
        return answer

    def note_modules(self, operation: Operation[Any]) -> None:
        before, after = json.loads(self.note.read_text())
        self.modules[name_of(operation)] = set(before), set(after)

    @property
    def note(self) -> Path:
        return self.host.folder / "imported"

    def file(self, name: str) -> int:
        """A new file of root's."""
        return os.open(self.host.folder / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)


@pytest.fixture
def workers(host: Host, make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch) -> Workers:
    made = Workers(host, make_user("opal", TINY))
    monkeypatch.setattr(client, "_BOOT", programs.text_with("note_imports.py", str(made.note)))
    return made


@pytest.fixture
def copied(workers: Workers) -> Iterator[int]:
    """A copy of the database in a file of root's."""
    fd = workers.file("copy")
    workers.ask(CopyDatabase(), file=fd)
    yield fd
    os.close(fd)


def rows(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM orchestration_events").fetchone()[0])


def backup_operations(workers: Workers) -> None:
    assert workers.ask(FindDatabase()).bytes == TINY.stat().st_size
    file = workers.file("copy")
    archive = WriteArchive(1 << 20, "")
    assert workers.ask(CopyDatabase(), file=file).method == "online"
    other = workers.file("archive")
    assert workers.ask(archive, file=other).entries == 0
    os.close(other)
    os.close(file)
    shutil.copy(TINY, workers.user.database.with_name("statev2.sqlite"))
    workers.user.give(workers.user.database.with_name("statev2.sqlite"))
    files = {}

    def provide(source: Source) -> list[int]:
        files.update({one.file: workers.file(one.file) for one in source.usable})
        return list(files.values())

    found = workers.ask(CopyDatabases(archive=archive), provide=provide)
    assert found.beside is not None
    assert (found.beside.entries, found.beside.unchanged) == (0, False)
    assert [one.file for one in found.databases] == ["state.sqlite", "statev2.sqlite"]
    for one in found.databases:
        assert one.copied is not None
        assert one.copied.method == "online"
        assert rows(workers.host.folder / one.file) == rows(TINY)
        os.close(files[one.file])


def proof_operations(workers: Workers) -> None:
    file = workers.file("copy")
    found = workers.ask(CopyDatabase(), file=file)
    proof = workers.ask(CheckIntegrity(), file=file)
    junk = workers.file("junk")
    os.write(junk, b"junk" * 2000)
    [sound, bad] = workers.hand_over(CheckDatabases(), file, junk).proofs
    assert sound.proven is not None
    assert (sound.proven.problems, sound.proven.census) == ((), proof.census)
    assert bad.proven is None
    assert "file is not a database" in bad.reason
    os.close(junk)
    os.close(file)
    assert proof.problems == ()
    assert found.pinned is not None
    assert found.pinned.differences(proof.census) == []
    assert (proof.census.rows or {})["orchestration_events"] == rows(TINY)


def activity_operations(workers: Workers) -> None:
    found = workers.ask(ReadActivity())
    assert (found.level, found.turns) == (30, 0)


def archive_operations(workers: Workers) -> None:
    place = workers.user.database.parent
    (place / "secrets").mkdir(mode=0o700)
    (place / "secrets" / "key").write_text("of before")
    for path in (place / "secrets", place / "secrets" / "key"):
        workers.user.give(path)
    file = workers.file("archive")
    packed = workers.ask(WriteArchive(1 << 20, ""), file=file)
    assert (packed.entries, packed.content_bytes) == (2, 9)
    assert workers.ask(InspectArchive(1 << 20), file=file) == workers.ask(
        StageArchive(ASIDE, 1 << 20), file=file
    )
    os.close(file)
    (place / "secrets" / "key").write_text("of today")
    assert workers.ask(InstallArchive(ASIDE)).missing == ()
    sealed = dict(mark.rsplit("=", 1) for mark in packed.sealed)
    done = workers.ask(RemoveReplaced(ASIDE, installed=True, sealed=sealed))
    assert (place / "secrets" / "key").read_text() == "of before"
    assert done.left == (f"{ASIDE}.files/old",), "what nobody has sealed stays"
    assert (place / done.left[0] / "secrets" / "key").read_text() == "of today"


def restore_operations(workers: Workers) -> None:
    assert (workers.ask(CountRows()).census.rows or {})["orchestration_events"] == rows(TINY)
    file, live = workers.file("copy"), workers.user.database
    workers.ask(CopyDatabase(), file=file)
    staged = workers.ask(StageDatabase(live.name, ENDING), file=file)
    os.close(file)
    [whole] = workers.ask(CheckpointDatabases((live.name,))).databases
    assert (whole.whole, whole.beside, whole.reason) == (True, (), "")
    assert whole.old is not None
    assert whole.census is not None
    clone = workers.file("clone")
    assert (
        workers.ask(CloneDatabase(live.name, whole.old, whole.census), file=clone).method == "clone"
    )
    assert os.fstat(clone).st_size == live.stat().st_size
    os.close(clone)
    one = Replacement(live.name, whole.old, staged.staged)
    assert workers.ask(SwapDatabases(ENDING, (one,))).state == "new"
    assert staged.staged is not None
    assert FileIdentity.of(live.stat()).inode == staged.staged.inode
    assert live.with_name(ASIDE).stat().st_ino == whole.old.inode
    assert workers.ask(RecoverSwap(ENDING, (one,), True)).state == "new"
    assert not live.with_name(ASIDE).exists()
    assert workers.ask(PutAside(live.name, ENDING)).state == "new"
    assert (live.exists(), live.with_name(ASIDE).exists()) == (False, True)


def legacy_operations(workers: Workers) -> None:
    folder = workers.host.folder / "old"
    folder.mkdir(mode=0o700)
    shutil.copy(TINY, folder / OLD)
    for path in (folder, folder / OLD):
        workers.user.give(path)
    place, file = os.open(folder, os.O_PATH | os.O_DIRECTORY), workers.file("copy")
    assert workers.ask(ListLegacy(), folder=place).names == (OLD,)
    assert workers.ask(ListLegacy(OLD), folder=place).names == ()
    assert workers.ask(CopyLegacy(OLD), file=file, folder=place).method == "vacuum"
    assert rows(workers.host.folder / "copy") == rows(TINY)
    assert workers.ask(RemoveLegacy(OLD, time.time() + 1), folder=place).names == (OLD,)
    assert os.listdir(folder) == []
    for fd in (place, file):
        os.close(fd)


GROUPS = {
    "backup": backup_operations,
    "proof": proof_operations,
    "activity": activity_operations,
    "archive": archive_operations,
    "restore": restore_operations,
    "legacy": legacy_operations,
}


@pytest.mark.parametrize("group", GROUPS)
def test_each_operation_of_a_group_is_served_by_a_child_that_imports_what_it_needs(
    workers: Workers, group: str
) -> None:
    GROUPS[group](workers)
    served = {
        name: known for name, known in workers.modules.items() if OPERATIONS[name].group == group
    }
    assert set(served) == {name for name, entry in OPERATIONS.items() if entry.group == group}
    for name, (before, after) in served.items():
        assert after & COSTLY == USES[name], name
        assert after - before == set(), (
            f"{name}: nothing is imported by whoever is the user already"
        )
        children = {entry.child for entry in OPERATIONS.values() if entry.group != group}
        # whose errors of SQLite's are the same
        children -= {"copy"} if name.endswith("_legacy") else set()
        ours = {
            module.removeprefix("t3_backup.worker.child.")
            for module in after
            if module.startswith("t3_backup.worker.child.")
        }
        assert ours & children == set(), f"{name}: another group's work"


def test_the_table_says_of_each_operation_what_it_uses() -> None:
    assert set(USES) == set(OPERATIONS)


@pytest.mark.parametrize("name", ["sudo", "serve_operation", "../copy", "os.system"])
def test_a_child_refuses_what_is_not_in_the_table_while_it_is_root_still(
    host: Host, make_user: Callable[..., User], name: str
) -> None:
    user = make_user("opal", TINY)
    job = Job(str(user.home), user.uid, user.gid, (), True, os.getpid(), BOUND_S, 0)
    request = encode_request(job, FindDatabase()).decode()
    line = [sys.executable, "-I", "-c", client._BOOT, str(ROOT), name]
    done = subprocess.run(
        line, input=request, capture_output=True, text=True, check=False, timeout=BOUND_S, cwd="/"
    )
    assert done.returncode == 1
    assert f"there is no operation {name!r}" in done.stderr
    assert done.stdout == ""


def test_an_operation_that_its_child_does_not_know_is_a_lost_worker(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent of another version than the files on the disk, as while a package is being
    upgraded."""
    monkeypatch.setitem(OPERATIONS, "find_state", OPERATIONS["find_database"])
    monkeypatch.setattr("t3_backup.worker.operations._NAMES", {"FindDatabase": "find_state"})
    with pytest.raises(WorkerLost, match="there is no operation 'find_state'"):
        workers.ask(FindDatabase())


@pytest.fixture
def prover(workers: Workers) -> Iterator[client.Worker[ProvenAll]]:
    """A worker that has imported all that it needs, and waits to be asked."""
    who = accounts.find(workers.user.name)
    with client.Worker(who, CheckDatabases(), LIMITS, waits=True) as prover:
        call = Path(f"/proc/{prover._process.pid}/syscall")
        reads = f"{READ_CALL} {CHANNEL:#x} "
        until(lambda: call.read_text().startswith(reads), "worker that waits")
        yield prover
    assert child_pids(os.getpid()) == []


def test_a_worker_that_waits_is_root_still_and_holds_nothing(
    workers: Workers, prover: client.Worker[ProvenAll]
) -> None:
    """So no process of the user reaches into it, and nothing could be taken from it."""
    pid = prover._process.pid
    assert process_status(pid)["Uid"].split() == ["0"] * 4
    opened = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    opened -= {"/dev/null", str(workers.note)}
    assert all(one.startswith("socket:") for one in opened), opened


def test_a_worker_that_waits_proves_what_it_is_handed_and_can_only_read_it(
    workers: Workers, copied: int
) -> None:
    expected = workers.ask(CheckIntegrity(), file=copied)
    [found] = workers.hand_over(CheckDatabases(), copied).proofs
    assert found.proven is not None
    assert (found.proven.problems, found.proven.census) == ((), expected.census)
    before, after = json.loads(workers.note.read_text())
    assert set(before) == set(after)
    assert set(after) & COSTLY == USES["check_databases"]


def test_a_worker_that_is_never_asked_ends_with_its_parent_s_end_of_the_channel(
    prover: client.Worker[ProvenAll],
) -> None:
    prover._channel.shutdown(socket.SHUT_WR)
    assert prover._process.wait(BOUND_S) == 0


def test_a_worker_that_died_while_it_waited_is_told_of(
    prover: client.Worker[ProvenAll], copied: int
) -> None:
    os.kill(prover._process.pid, signal.SIGKILL)
    prover._process.wait(BOUND_S)
    prover.hand_over(CheckDatabases(), prover._limits, [copied])
    with pytest.raises(WorkerLost, match="killed by SIGKILL"):
        prover.answer(threading.Event(), lambda _: None)
