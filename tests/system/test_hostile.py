"""A worker is somebody else's process: what its user can do to it, what it can do to the store, and
to the run."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support import programs
from support.databases import give_database
from support.descriptors import leaves_no_file_open
from support.host import Host, started
from support.paths import DATA, ROOT
from support.processes import BOUND_S, as_user, child_pids, process_status, until
from support.sampling import sample
from support.users import needs_root

from demo.users import User
from demo.writer import Writer
from t3_backup import accounts
from t3_backup.accounts import Account
from t3_backup.backup import copied_files
from t3_backup.backup import run as backup_run
from t3_backup.backup.account import BackupRun
from t3_backup.backup.result import AccountResult
from t3_backup.errors import Cancelled, Failure, TryLater, WorkerLost
from t3_backup.settings import Settings
from t3_backup.store import staged_file
from t3_backup.store.content import hash_content, read_database_bytes
from t3_backup.store.staged_file import StagedFile
from t3_backup.store.store import Store
from t3_backup.system import native
from t3_backup.worker import client, protocol, supervisor
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations import Operation
from t3_backup.worker.operations.backup import FindDatabase
from t3_backup.worker.operations.proof import CheckIntegrity
from t3_backup.worker.operations.restore import CountRows, StageDatabase
from t3_backup.worker.proof import prove_file
from t3_backup.worker.sources import Source

pytestmark = needs_root

TINY = DATA / "state-0.0.24.sqlite"
MIB = 1 << 20


# ---- helpers


@pytest.fixture
def honest(make_user: Callable[..., User]) -> User:
    return make_user("honest", TINY)


@pytest.fixture
def mallory(make_user: Callable[..., User]) -> Iterator[User]:
    """A user whose processes, or whose worker, are hostile."""
    yield make_user("mallory", TINY)


def account(user: User) -> Account:
    return accounts.find(user.name)


@contextlib.contextmanager
def locked(user: User) -> Iterator[Callable[[], None]]:
    """The user's server holds an exclusive lock on the database, so that a worker waits; call it to
    let go."""
    line = programs.line("lock_database.py", str(user.database), "BEGIN EXCLUSIVE")
    with as_user(user, line) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            yield lambda: process.communicate()[0]
        finally:
            process.kill()


def confined_worker(parent: int, user: User) -> int:
    """The pid of the user's worker, once it has given up everything that it gives up."""

    def look() -> int | None:
        for pid in child_pids(parent):
            status = process_status(pid)
            if status.get("Uid", "").split() == [str(user.uid)] * 4 and status["Seccomp"] == "2":
                return pid
        return None

    return until(look, "confined worker")


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=BOUND_S)
    return process.returncode, out


# ---- what the processes of its user can do to a worker

REFUSED = {"EPERM", "EACCES"}


def attack(user: User, pid: int) -> dict[str, str]:
    with as_user(user, programs.line("attack_process.py", str(pid))) as process:
        out, _ = process.communicate(timeout=BOUND_S)
    return json.loads(out)


def test_no_process_of_the_user_reaches_into_the_worker(host: Host, mallory: User) -> None:
    """Row 36. The same attack on an ordinary process of the user's succeeds in all of its ways."""
    host.write_map(mallory)
    script = "import sys; own = open(sys.argv[1], 'w+'); print('up', flush=True); sys.stdin.read()"
    line = [sys.executable, "-I", "-c", script, str(mallory.home / "own")]
    with as_user(mallory, line) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "up\n"
        assert set(attack(mallory, victim.pid).values()) == {"done"}
        victim.communicate()
    with locked(mallory) as unlock, started(host, "run") as run:
        worker = confined_worker(run.pid, mallory)
        answers = attack(mallory, worker)
        assert set(answers.values()) <= REFUSED, answers
        unlock()
        code, out = finish(run)
    assert code == 0, out
    assert len(host.snapshots(mallory)) == 1


def test_a_worker_of_a_users_own_run_is_closed_to_the_users_other_processes(
    host: Host, mallory: User
) -> None:
    """Row 36. Here it never changes its user, which would have closed it too."""
    shutil.copytree(
        ROOT / "t3_backup",
        host.folder / "lib" / "t3_backup",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    environ = {
        "PYTHONPATH": str(host.folder / "lib"),
        "T3_BACKUP_DEST": str(mallory.home / "backups"),
        "T3_BACKUP_RESERVE": "1M",
    }
    with (
        locked(mallory) as unlock,
        subprocess.Popen(
            [sys.executable, "-m", "t3_backup", "run"],
            user=mallory.uid,
            group=mallory.gid,
            extra_groups=[],
            cwd="/",
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        ) as run,
    ):
        try:
            worker = confined_worker(run.pid, mallory)
            answers = attack(mallory, worker)
            unlock()
            code, out = finish(run)
        finally:
            run.kill()
    assert set(answers.values()) <= REFUSED, answers
    assert code == 0, out


def test_a_worker_dies_with_its_run(host: Host, mallory: User) -> None:
    """Row 2, row 27. Even a stopped one: nobody is left who holds a pin, a lock or the new file;
    and the next run has the lock of the store."""
    host.write_map(mallory)
    with locked(mallory), started(host, "run") as run:
        worker = confined_worker(run.pid, mallory)
        os.kill(worker, signal.SIGSTOP)
        run.kill()
        run.wait()
        try:
            until(lambda: process_status(worker).get("State", "Z")[0] == "Z", "end of the worker")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
    assert os.listdir(host.account_dir(mallory)) == []
    assert host.t3().code == 0


def test_no_moment_of_a_workers_life_is_open_to_its_user(host: Host, mallory: User) -> None:
    """Row 36. From its first to its last: a worker that became the user before its exec could be
    opened while it imports."""
    host.write_map(mallory)
    with locked(mallory) as unlock, as_user(mallory, programs.line("lurk.py")) as lurker:
        assert lurker.stdout is not None
        assert lurker.stdout.readline() == "lurking\n"
        with started(host, "run") as run:
            worker = confined_worker(run.pid, mallory)
            unlock()
            code, out = finish(run)
        answer, _ = lurker.communicate("enough\n", timeout=BOUND_S)
    tries, got, *seen = map(int, answer.split())
    assert code == 0, out
    assert got == 0
    assert tries > 100
    assert worker in seen


def test_a_worker_stopped_by_its_user_fails_its_account_alone(
    host: Host, mallory: User, honest: User
) -> None:
    """Row 22. The run ends by itself, the lock of the store is free, and nothing of the stopped
    worker is left."""
    host.write_map(mallory, honest)
    with locked(mallory), started(host, "run", T3_BACKUP_STALL="5", T3_BACKUP_JOBS="2") as run:
        worker = confined_worker(run.pid, mallory)
        subprocess.run(
            ["kill", "-STOP", str(worker)],
            check=True,
            user=mallory.uid,
            group=mallory.gid,
            extra_groups=[],
        )
        code, out = finish(run)
    assert code == 1
    assert f"backup FAILED for {mallory.name} (no progress for 5 s; its worker was ended)" in out
    assert f"backed up {honest.name} -> " in out
    assert process_status(worker) == {}
    assert os.listdir(host.account_dir(mallory)) == []
    assert host.t3("run").code == 0


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGBUS, signal.SIGRTMIN + 6]
)
def test_a_worker_killed_by_its_user_fails_its_account_alone(
    host: Host, mallory: User, honest: User, number: int
) -> None:
    """Row 22. SIGBUS is tried once more, and the user kills that one too; real-time signals have no
    name."""
    host.write_map(mallory, honest)
    with locked(mallory), started(host, "run", T3_BACKUP_TIMEOUT="6") as run:
        killed: set[int] = set()
        for _ in range(2 if number == signal.SIGBUS else 1):
            worker = until(lambda: {confined_worker(run.pid, mallory)} - killed, "worker").pop()
            killed.add(worker)
            subprocess.run(
                ["kill", f"-{int(number)}", str(worker)],
                check=True,
                user=mallory.uid,
                group=mallory.gid,
            )
        code, out = finish(run)
    assert code == 1, out
    assert f"backup FAILED for {mallory.name} (" in out
    assert f"backed up {honest.name} -> " in out
    assert "Traceback" not in out
    assert os.listdir(host.account_dir(mallory)) == []


def test_an_exclusive_lock_on_the_source_times_out_its_account_alone(
    host: Host, mallory: User, honest: User
) -> None:
    """Row 22."""
    host.write_map(mallory, honest)
    with locked(mallory):
        answer = host.t3("run", "--timeout", "8", timeout=BOUND_S)
    assert answer.code == 1
    assert f"backup FAILED for {mallory.name} (" in answer.out
    assert f"backed up {honest.name} -> " in answer.out
    assert os.listdir(host.account_dir(mallory)) == []


# ---- what a worker that turns hostile can do

BY_THE_FILTER = {
    *("fork", "execve", "execveat", "clone3", "pass the descriptor on", "a new socket"),
    "a new socket, in a thread",
    *("fallocate", "ioctl", "io_uring_setup", "become dumpable"),
}
BY_MORE_THAN_THE_FILTER = {
    *(
        "ptrace",
        "name the file",
        "name the file by way of /proc",
        "name the link in /proc",
        "setuid",
        "setuid, in a thread",
        "setgroups",
    ),
    *("open the file again", "chmod the file", "chown the file", "reach the store"),
}


@pytest.fixture
def within(host: Host, mallory: User) -> Callable[[str], dict[str, str]]:
    """What a process can do that is the worker as far as its rights go, from within; it begins as
    root, as a worker does."""
    private = host.folder / "private"
    private.mkdir(0o700)

    def run(gives_up: str) -> dict[str, str]:
        words = (
            str(ROOT),
            str(mallory.uid),
            str(mallory.gid),
            str(private),
            str(mallory.home),
            gives_up,
        )
        command = programs.line("confined.py", *words)
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=BOUND_S, cwd="/"
        )
        return json.loads(done.stdout)

    return run


def test_a_confined_worker_can_hand_its_descriptor_to_nobody(
    within: Callable[[str], dict[str, str]],
) -> None:
    """Row 36. It may go on writing to the descriptor it has, and that is all."""
    answers = within("all")
    for name in BY_THE_FILTER:
        assert answers.pop(name) == "EPERM", name
    for name in BY_MORE_THAN_THE_FILTER:
        assert answers.pop(name) in REFUSED, name
    assert answers == {"a gigabyte of memory": "ENOMEM", "write": "done"}


def test_without_the_filter_each_of_these_calls_would_pass_it(
    within: Callable[[str], dict[str, str]],
) -> None:
    """Row 36. So it is the filter that the test before is about, and not the kernel of the day."""
    answers = within("nothing")
    assert {name for name in BY_THE_FILTER if answers[name] != "EPERM"} == BY_THE_FILTER
    assert (
        answers["pass the descriptor on"]
        == answers["fallocate"]
        == answers["become dumpable"]
        == answers["fork"]
        == "done"
    )


# ---- a descriptor that is left open elsewhere


@pytest.fixture
def folder(host: Host) -> Iterator[int]:
    private = host.folder / "private"
    private.mkdir(0o700)
    fd = os.open(private, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_nothing_is_sealed_while_anybody_can_write_to_it(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 36. The same file settles once its last writer is gone."""
    monkeypatch.setattr(staged_file, "_LEASE_SECONDS", 0.2)
    with StagedFile.create(folder, "partial") as new:
        os.write(new.writer, b"proven")
        with subprocess.Popen(
            ["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[new.writer]
        ) as holder:
            with pytest.raises(WorkerLost, match="can still write to the new snapshot"):
                new.settle()
            assert os.listdir(folder) == []
            holder.communicate()
        new.settle()
        assert hash_content(new.reader).bytes == len(b"proven")


def test_nothing_is_sealed_while_it_is_mapped_for_writing(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 36. A map outlives its descriptor."""
    import mmap

    monkeypatch.setattr(staged_file, "_LEASE_SECONDS", 0.2)
    with StagedFile.create(folder, "partial") as new:
        os.ftruncate(new.writer, 4096)
        with mmap.mmap(new.writer, 4096):
            with pytest.raises(WorkerLost, match="can still write to the new snapshot"):
                new.settle()
        new.settle()
        assert hash_content(new.reader).bytes == 4096


def test_nothing_is_sealed_that_has_been_given_a_name(folder: int) -> None:
    """Row 36."""
    with StagedFile.create(folder, "partial") as new:
        native.link_unnamed(new.writer, folder, "elsewhere")
        with pytest.raises(WorkerLost, match="another owner, mode or name"):
            new.settle()


# ---- a worker that lies, floods, or never ends: another program in its place


@dataclass
class HostileRun:
    """A run over two accounts, the first one's worker replaced by a hostile one."""

    host: Host
    mallory: User
    honest: User
    monkeypatch: pytest.MonkeyPatch

    @property
    def holder_note(self) -> Path:
        return self.host.folder / "holder"

    @property
    def holder(self) -> int:
        return int(self.holder_note.read_text())

    def hire(self, behaviour: str, note: Path | None = None) -> None:
        """Let each worker be `hostile_worker.py`, which is so for one account alone."""
        words = str(self.mallory.uid), str(note or self.holder_note), behaviour
        boot = programs.text_with("hostile_worker.py", *words)
        self.monkeypatch.setattr(client, "_BOOT", boot)

    def run(
        self, behaviour: str, *, timeout: int = 15, stall: int = 10
    ) -> tuple[AccountResult, float]:
        """What became of the hostile account, and how many seconds the run took.

        The other account is backed up, always. The limits are the hostile one's: the other's
        interpreter may be slow to start.
        """
        self.monkeypatch.setattr(client, "ask", self.patient(client.ask))
        self.monkeypatch.setattr(
            client.Worker, "hand_over", self.patient_with_one_that_waits(client.Worker.hand_over)
        )
        self.hire(behaviour)
        values = Settings(
            dest=self.host.store,
            map=self.host.map,
            keep=14,
            keep_daily=0,
            keep_weekly=0,
            keep_monthly=0,
            keep_yearly=0,
            keep_labelled=14,
            timeout=timeout,
            jobs=2,
            stall=stall,
            wal_budget=1 << 30,
            reserve=MIB,
            max_bytes=0,
            compact="off",
            log=Path("/dev/null"),
            files_limit=0,
            textfiles=None,
            hooks=Path("/nonexistent"),
            hook_timeout=30,
        )
        results: list[AccountResult] = []
        stopping = threading.Event()

        def whole_run() -> None:
            with Store.open(values.dest, create=True) as store:
                job = BackupRun(values, store, None, stopping, lambda *_: None)
                results.extend(
                    backup_run.run_backups(
                        job, [account(self.mallory), account(self.honest)], lambda _: None
                    )
                )

        began = time.monotonic()
        thread = threading.Thread(target=whole_run, daemon=True)
        thread.start()
        thread.join(BOUND_S)
        seconds = time.monotonic() - began
        hangs = thread.is_alive()
        for pid in child_pids(os.getpid()) if hangs else []:
            os.kill(pid, signal.SIGKILL)
        assert not hangs, f"the run was not over after {BOUND_S} s"
        hostile, honest = results
        assert honest.outcome == "backed_up", honest
        assert child_pids(os.getpid()) == []
        return hostile, seconds

    def patient(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step, with the honest account under no limit that counts here."""

        def limited(
            who: Account, operation: Operation[Any], limits: Limits, *words: Any, **more: Any
        ) -> Any:
            if who.user == self.honest.name:
                limits = replace(limits, seconds=BOUND_S, stall=BOUND_S)
            return step(who, operation, limits, *words, **more)

        return limited

    def patient_with_one_that_waits(self, step: Callable[..., None]) -> Callable[..., None]:
        """The same for a worker that is asked later."""

        def limited(
            worker: client.Worker[Any],
            operation: Operation[Any],
            limits: Limits,
            files: Sequence[int],
        ) -> None:
            if worker._job.home == str(self.honest.home):
                limits = replace(limits, seconds=BOUND_S, stall=BOUND_S)
            step(worker, operation, limits, files)

        return limited


@pytest.fixture
def hostile_run(
    host: Host, mallory: User, honest: User, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HostileRun]:
    made = HostileRun(host, mallory, honest, monkeypatch)
    yield made
    if made.holder_note.exists():
        # it may be about to end by itself, where it talked to a socket that is closed by now
        with contextlib.suppress(ProcessLookupError):
            os.kill(made.holder, signal.SIGKILL)


# What the worker does, as `hostile_worker.py` has it, and why its account fails then.
FAKES = {
    "fills the disk": "grew past",
    "fills the disk at the far end": "grew past",
    "allocates blocks past the end": "grew past",
    "claims a source larger than the disk": "no room",
    "claims a source that cannot be": "cannot be",
    "floods with noise": "no progress for 1 s",
    "floods with empty lines": "no progress for 1 s",
    "floods with progress": "timed out after 3 s",
    "sends a line without an end": "a line without an end",
    "sends a line without an end, a byte at a time": "no progress for 1 s",
    "sends what is no event": "no event",
    "sends markup for the terminal": "cannot be",
    "closes the socket and sleeps": "no progress for 1 s",
    "says nothing": "no progress for 1 s",
    "stops itself": "no progress for 1 s",
    "ends without a result": "ended with 0 and no result",
    "dies talking to the terminal": "ended with 1 and no result: ?]0;owned?",
    "dies by a signal without a name": "killed by signal 40",
    "claims an error of the command's own": "no",
    "claims to be cancelled": "somebody told the worker to stop",
    "claims a copy that it never made": "no table at all",
    "claims a copy and a proof of it": "the copy has 0 bytes",
    "gives another answer than it was asked for": "no result",
    "counts other rows than were there": "not what the source was",
    "counts one page too many": "its census counts",
    "counts pages of half the size": "its census counts",
    "counts more pages than can be printed": "cannot be",
    "passes on many descriptors": "no progress for 1 s",
    "tells of a -wal that grows and grows": "more than the budget of",
    "tells of a home that is nearly full": "nearly filled the disk of the home",
}
# for what is to run out
SHORT = {"no progress for 1 s": {"stall": 1}, "timed out after 3 s": {"timeout": 3}}


@pytest.mark.parametrize("what", FAKES)
def test_the_run_goes_on_beside_a_worker_that(hostile_run: HostileRun, what: str) -> None:
    """Row 36, and row 22: it is ended in time, nothing of it gets a name, and the next account is
    backed up."""
    reason = FAKES[what]
    with leaves_no_file_open():
        hostile, seconds = hostile_run.run(what, **SHORT.get(reason, {}))
    assert hostile.outcome == "failed"
    assert reason in hostile.reason
    assert hostile.reason.isprintable()
    assert os.listdir(hostile_run.host.account_dir(hostile_run.mallory)) == []
    assert seconds < BOUND_S / 2


@pytest.mark.parametrize("what", ["answers and does not end", "answers and dies"])
def test_a_copy_that_was_answered_stands_whatever_its_worker_does_then(
    hostile_run: HostileRun, what: str
) -> None:
    """Row 22. It looks at the files beside it: on a file system of the user's that may never
    end."""
    result, _ = hostile_run.run(what, stall=1)
    assert result.outcome == "backed_up", result
    assert not result.unsaved


@pytest.mark.parametrize("what", ["proves one and does not end", "proves one and dies"])
def test_a_database_whose_proof_does_not_end_costs_only_itself(
    hostile_run: HostileRun, what: str
) -> None:
    """Row 22. The live one is proven first, whatever its name."""
    mallory = hostile_run.mallory
    for path in map(mallory.database.with_name, ("a.sqlite", "z.sqlite")):
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE note (text)")
        os.chown(path, mallory.uid, mallory.gid)
        os.utime(path, (0, 0))  # the live one is the one that changed last
    result, _ = hostile_run.run(what, stall=1)
    [kept] = result.snapshots
    manifest = kept.manifest
    assert [one.file for one in manifest.databases] == [mallory.database.name]
    assert [one.file for one in manifest.missing] == ["a.sqlite", "z.sqlite"]
    assert all("proof did not end" in one.reason for one in manifest.missing)


def test_a_worker_that_will_not_stop_is_killed(hostile_run: HostileRun) -> None:
    """Row 22. Whoever stops the run waits for a moment, not for the worker."""
    hostile_run.monkeypatch.setattr(supervisor, "_POLITE_SECONDS", 0.2)
    note = hostile_run.host.folder / "deaf"
    hostile_run.hire("is deaf to SIGTERM", note)
    stopping = threading.Event()
    limits = Limits(BOUND_S, BOUND_S, MIB, 0, lambda: 1 << 40)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(
            client.ask, account(hostile_run.mallory), FindDatabase(), limits, stopping
        )
        until(note.exists, "deaf worker")
        stopping.set()
        with pytest.raises(Failure, match="stopped before it was done"):
            work.result(BOUND_S / 2)
    assert child_pids(os.getpid()) == []


def test_the_blocks_of_a_worker_past_its_limit_are_given_back_at_once(
    hostile_run: HostileRun,
) -> None:
    """Row 36. Even where another process still has the file open."""
    hostile, _ = hostile_run.run("fills the disk and leaves a child with its file")
    assert "grew past" in hostile.reason
    [held] = [
        status
        for status in map(os.stat, Path(f"/proc/{hostile_run.holder}/fd").iterdir())
        if status.st_nlink == 0
    ]
    assert (held.st_size, held.st_blocks) == (0, 0)


def test_a_perfect_copy_that_somebody_can_still_write_to_gets_no_name(
    hostile_run: HostileRun,
) -> None:
    """Row 36, row 22. The holder has the worker's socket too, and the parent doesn't wait for its
    end."""
    hostile_run.monkeypatch.setattr(staged_file, "_LEASE_SECONDS", 0.3)
    hostile, seconds = hostile_run.run("is honest and leaves a child with its file")
    assert hostile.outcome == "failed"
    assert "can still write to the new snapshot" in hostile.reason
    assert os.listdir(hostile_run.host.account_dir(hostile_run.mallory)) == []
    assert seconds < BOUND_S / 2


def test_a_socket_that_is_held_open_keeps_nobody_waiting(hostile_run: HostileRun) -> None:
    """Row 22. Without the descriptor of the file, the holder is of no consequence."""
    result, seconds = hostile_run.run("is honest and leaves a child with its socket")
    assert result.outcome == "backed_up", result
    assert seconds < BOUND_S  # the socket ends after a minute


def test_a_socket_that_is_written_to_after_the_workers_end_keeps_nobody_waiting(
    hostile_run: HostileRun,
) -> None:
    """Row 22. What is left in the socket at the worker's death is read, and no more."""
    hostile, seconds = hostile_run.run("leaves a child that goes on talking")
    assert hostile.outcome == "failed"
    assert seconds < BOUND_S / 2


def test_a_look_that_found_nothing_fails_its_account_alone(hostile_run: HostileRun) -> None:
    """Row 36. A dry run believes a worker no more than a run does."""
    hostile_run.monkeypatch.setattr(client, "_BOOT", "pass")
    limits = Limits(BOUND_S, BOUND_S, MIB, 0, lambda: 1 << 40)
    with pytest.raises(WorkerLost, match="no result"):
        client.ask(account(hostile_run.mallory), FindDatabase(), limits, threading.Event())


LONG = StageDatabase("state.sqlite", "x" * (4 << 20))  # more than a socket holds


def test_a_worker_that_never_reads_its_request_is_ended_in_time(hostile_run: HostileRun) -> None:
    """Row 51. The request is longer than what the socket holds."""
    hostile_run.monkeypatch.setattr(client, "_BOOT", "import time; time.sleep(60)")
    limits, began = Limits(1, BOUND_S, MIB, 0, lambda: 1 << 40), time.monotonic()
    with pytest.raises(TryLater, match="timed out after 1 s"):
        client.ask(account(hostile_run.mallory), LONG, limits, threading.Event())
    assert time.monotonic() - began < BOUND_S / 2


def test_a_worker_that_answers_before_it_was_asked_is_lost(hostile_run: HostileRun) -> None:
    """Row 36."""
    answer = protocol.encode_event(Source(1, 0))
    boot = f"import os, time; os.write(0, {answer!r}); time.sleep(60)"
    hostile_run.monkeypatch.setattr(client, "_BOOT", boot)
    limits = Limits(BOUND_S, BOUND_S, MIB, 0, lambda: 1 << 40)
    with pytest.raises(WorkerLost, match="answered before it was asked"):
        client.ask(account(hostile_run.mallory), LONG, limits, threading.Event())


def test_of_a_worker_that_dies_before_it_has_read_its_request_it_is_said_how(
    hostile_run: HostileRun,
) -> None:
    """Row 51."""
    hostile_run.monkeypatch.setattr(client, "_BOOT", "raise SystemExit(7)")
    limits = Limits(BOUND_S, BOUND_S, MIB, 0, lambda: 1 << 40)
    with pytest.raises(WorkerLost, match="ended with 7"):
        client.ask(account(hostile_run.mallory), LONG, limits, threading.Event())


def test_a_worker_that_says_it_was_cancelled_is_lost_unless_somebody_did(
    hostile_run: HostileRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 52. As of `verify`, which would pass over the rest of its proofs."""
    monkeypatch.setattr(client, "_HEARD_SECONDS", 0.1)
    hostile_run.hire("claims to be cancelled")
    limits, stopping = Limits(BOUND_S, BOUND_S, MIB, 0, lambda: 1 << 40), threading.Event()
    who = account(hostile_run.mallory)
    for operation in (FindDatabase(), CheckIntegrity(), CountRows()):
        with pytest.raises(WorkerLost, match="somebody told the worker to stop"):
            client.ask(who, operation, limits, stopping)
    with client.Worker(who, FindDatabase(), limits) as worker:
        stopping.set()
        with pytest.raises(Cancelled):
            worker.answer(stopping, lambda _: None)


# ---- a hostile database

MUTANTS = 250
SEED = 32


def mutated(whole: bytes, chance: random.Random) -> bytes:
    """`whole` with some harm done to it: to its header, its schema, any page, its length or its
    order."""
    data = bytearray(whole)
    pages = len(data) // 4096

    def flip(first: int, last: int, most: int) -> None:
        for _ in range(chance.randint(1, most)):
            data[chance.randrange(first, last)] = chance.randrange(256)

    kind = chance.randrange(6)
    if kind == 0:
        flip(0, 100, 8)
    elif kind == 1:
        flip(100, 4096, 40)
    elif kind == 2:
        flip(4096, len(data), 400)
    elif kind == 3:
        del data[chance.randrange(len(data)) :]
    elif kind == 4:
        for _ in range(chance.randint(1, 10)):
            source, target = chance.randrange(pages) * 4096, chance.randrange(1, pages) * 4096
            data[target : target + 4096] = data[source : source + 4096]
    else:  # the heads of b-tree pages: kind, cells, offsets
        for _ in range(chance.randint(1, 20)):
            page = chance.randrange(1, pages) * 4096
            flip(page, page + 12, 4)
    return bytes(data)


def mutated_wal(whole: bytes, chance: random.Random) -> bytes:
    """A -wal with harm done to the pages in it, and checksums that are good again
    (sqlite.org/fileformat2.html#walformat)."""
    order = "big" if whole[3] & 1 else "little"
    one, two = 0, 0

    def add(data: bytes) -> bytes:
        nonlocal one, two
        for at in range(0, len(data), 8):
            one = (one + int.from_bytes(data[at : at + 4], order) + two) & 0xFFFFFFFF
            two = (two + int.from_bytes(data[at + 4 : at + 8], order) + one) & 0xFFFFFFFF
        return one.to_bytes(4, "big") + two.to_bytes(4, "big")

    made = bytearray(whole[:24] + add(whole[:24]))
    for at in range(32, len(whole) - 24 - 4096 + 1, 24 + 4096):
        head, page = bytearray(whole[at : at + 24]), bytearray(whole[at + 24 : at + 24 + 4096])
        for _ in range(chance.choice([0, 1, 10])):
            page[chance.choice([chance.randrange(100), chance.randrange(4096)])] = chance.randrange(
                256
            )
        if chance.random() < 0.1:
            head[0:4] = chance.randrange(1, 1 << 31).to_bytes(4, "big")  # which page it is
        if chance.random() < 0.1 and any(head[4:8]):
            # how many pages the database has
            head[4:8] = chance.randrange(1, 1 << 20).to_bytes(4, "big")
        made += head[:16] + add(head[:8] + page) + page
    return bytes(made)


@pytest.fixture
def left_wal(tmp_path: Path) -> bytes:
    """The -wal that a killed server leaves."""
    database = tmp_path / "state.sqlite"
    database.write_bytes(TINY.read_bytes())
    with Writer(database, seconds=0) as writer:
        writer.kill()
    return Path(f"{database}-wal").read_bytes()


def test_no_mutated_database_gets_out_of_its_limits(
    host: Host, mallory: User, honest: User, left_wal: bytes
) -> None:
    """Row 32. Each is copied, found damaged or refused in time by a worker of bounded memory, and
    the next one has its turn."""
    whole = TINY.read_bytes()
    limits = Limits(10, 10, MIB, 0, lambda: 1 << 40)
    private = host.folder / "private"
    private.mkdir(0o700)
    folder = os.open(private, os.O_RDONLY | os.O_DIRECTORY)

    def one(user: User, number: int) -> str:
        chance = random.Random(SEED * 100_000 + number)
        for ending in ("-wal", "-shm", "-journal"):
            Path(f"{user.database}{ending}").unlink(missing_ok=True)
        if number % 10 == 0:
            user.database.write_bytes(whole)
            wal = Path(f"{user.database}-wal")
            wal.write_bytes(mutated_wal(left_wal, chance))
            user.give(wal)
        else:
            user.database.write_bytes(mutated(whole, chance))
        began = time.monotonic()
        try:
            with StagedFile.create(folder, "partial") as new:
                copied = client.copy_database(
                    account(user), new.writer, limits, threading.Event(), lambda _: None
                )
                new.settle()
                content, proven = prove_file(account(user), new.reader, limits, threading.Event())
                if not proven.problems:
                    copied_files._check_agreement(
                        content, read_database_bytes(new.reader), copied, proven
                    )
                ending = "damaged" if proven.problems else "proven"
        except WorkerLost as lost:
            ending = "killed" if "killed" in str(lost) else "lost"
        except Failure:
            ending = "refused"
        assert time.monotonic() - began < limits.seconds + 2, f"mutant {number} of seed {SEED}"
        return ending

    numbers = sample(range(MUTANTS), 3, "mutants")

    def all_of(user: User, first: int) -> list[str]:
        return [one(user, number) for number in numbers[first::2]]

    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(all_of, (mallory, honest), (0, 1)))
    os.close(folder)
    endings = Counter(halves[0] + halves[1])
    print(endings)
    assert endings.total() == len(numbers)
    # the harm is neither nothing nor everything
    assert set(endings) >= {"proven", "damaged", "refused"}, endings
    # KiB, of the largest child ever
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert memory == largest or memory < 600 << 10
    give_database(honest, TINY)
    for ending in ("-wal", "-shm"):
        Path(f"{honest.database}{ending}").unlink(missing_ok=True)
    host.write_map(honest)
    assert host.t3().code == 0
