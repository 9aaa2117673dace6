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
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    BOUND_S,
    DATA,
    ROOT,
    Land,
    children,
    give_database,
    needs_root,
    started,
    status_of,
    until,
)
from support.descriptors import leaves_no_file_open
from support.sampling import sample

from demo.users import User
from demo.writer import Writer
from t3_backup import accounts
from t3_backup.accounts import Account
from t3_backup.backup import run as backup_run
from t3_backup.backup import snapshot
from t3_backup.backup.account import BackupRun
from t3_backup.backup.result import AccountResult
from t3_backup.errors import Failure, WorkerLost
from t3_backup.settings import Settings
from t3_backup.store import staged_file
from t3_backup.store.content import hash_content, read_database_bytes
from t3_backup.store.staged_file import StagedFile
from t3_backup.store.store import Store
from t3_backup.system import native
from t3_backup.worker import client, supervisor
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations import Operation
from t3_backup.worker.operations.backup import FindDatabase
from t3_backup.worker.proof import prove_file

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


def as_user(user: User, script: str, *words: str) -> subprocess.Popen[str]:
    """A Python script in a process of the user's, which talks by standard input and output."""
    return subprocess.Popen(
        [sys.executable, "-I", "-c", textwrap.dedent(script), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        user=user.uid,
        group=user.gid,
        extra_groups=[],
    )


@contextlib.contextmanager
def locked(user: User) -> Iterator[Callable[[], None]]:
    """The user's server holds an exclusive lock on the database, so that a worker waits; call it to
    let go."""
    script = """
        import sqlite3, sys
        database = sqlite3.connect(sys.argv[1], isolation_level=None)
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        database.execute("BEGIN EXCLUSIVE")
        print("locked", flush=True)
        sys.stdin.read()
    """
    with as_user(user, script, str(user.database)) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            yield lambda: process.communicate()[0]
        finally:
            process.kill()


def confined_worker(parent: int, user: User) -> int:
    """The pid of the user's worker, once it has given up everything that it gives up."""

    def look() -> int | None:
        for pid in children(parent):
            status = status_of(pid)
            if status.get("Uid", "").split() == [str(user.uid)] * 4 and status["Seccomp"] == "2":
                return pid
        return None

    return until(look, "confined worker")


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=BOUND_S)
    return process.returncode, out


# ---- what the processes of its user can do to a worker

ATTACK = """
    import ctypes, errno, json, os, sys
    libc = ctypes.CDLL(None, use_errno=True)
    PTRACE_ATTACH, PTRACE_SEIZE, PTRACE_DETACH, PIDFD_GETFD = 16, 0x4206, 17, 438
    pid, fds = int(sys.argv[1]), range(32)
    got = {}

    def call(name, result):
        got[name] = errno.errorcode[ctypes.get_errno()] if result < 0 else "done"

    def attempt(name, step):
        try:
            step()
            got[name] = "done"
        except OSError as error:
            got[name] = errno.errorcode[error.errno]

    pidfd = os.pidfd_open(pid)
    taken = [libc.syscall(PIDFD_GETFD, pidfd, fd, 0) for fd in fds]
    call("pidfd_getfd", max(taken))
    attempt("list its descriptors", lambda: os.listdir(f"/proc/{pid}/fd"))
    opened = {}
    for fd in fds:
        try:
            opened[fd] = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR)
        except OSError as error:
            failed = errno.errorcode[error.errno]
    got["open a descriptor"] = "done" if opened else failed
    attempt("open its memory", lambda: os.open(f"/proc/{pid}/mem", os.O_RDWR))
    attempt("read its environment", lambda: open(f"/proc/{pid}/environ").read())
    attempt("read its maps", lambda: open(f"/proc/{pid}/maps").read())
    buffer = ctypes.create_string_buffer(8)
    address = ctypes.c_void_p(0x400000)  # where a program may or may not be: EFAULT is past the question of the right to
    class Vec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
    mine, its = Vec(ctypes.addressof(buffer), 8), Vec(address.value, 8)
    result = libc.process_vm_readv(pid, ctypes.byref(mine), 1, ctypes.byref(its), 1, 0)
    got["read its memory"] = "done" if result > 0 or ctypes.get_errno() == errno.EFAULT else errno.errorcode[ctypes.get_errno()]
    call("ptrace seize", libc.ptrace(PTRACE_SEIZE, pid, None, None))
    if got["ptrace seize"] != "done":
        call("ptrace attach", libc.ptrace(PTRACE_ATTACH, pid, None, None))
    print(json.dumps(got))
"""

REFUSED = {"EPERM", "EACCES"}


def attack(user: User, pid: int) -> dict[str, str]:
    with as_user(user, ATTACK, str(pid)) as process:
        out, _ = process.communicate(timeout=BOUND_S)
    return json.loads(out)


def test_no_process_of_the_user_reaches_into_the_worker(land: Land, mallory: User) -> None:
    """Row 36. The same attack on an ordinary process of the user's succeeds in all of its ways."""
    land.write_map(mallory)
    script = "import sys; own = open(sys.argv[1], 'w+'); print('up', flush=True); sys.stdin.read()"
    with as_user(mallory, script, str(mallory.home / "own")) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "up\n"
        assert set(attack(mallory, victim.pid).values()) == {"done"}
        victim.communicate()
    with locked(mallory) as unlock, started(land, "run") as run:
        worker = confined_worker(run.pid, mallory)
        answers = attack(mallory, worker)
        assert set(answers.values()) <= REFUSED, answers
        unlock()
        code, out = finish(run)
    assert code == 0, out
    assert len(land.snapshots(mallory)) == 1


def test_a_worker_of_a_users_own_run_is_closed_to_the_users_other_processes(
    land: Land, mallory: User
) -> None:
    """Row 36. Here it never changes its user, which would have closed it too."""
    shutil.copytree(
        ROOT / "t3_backup",
        land.folder / "lib" / "t3_backup",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    environ = {
        "PYTHONPATH": str(land.folder / "lib"),
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


def test_a_worker_dies_with_its_run(land: Land, mallory: User) -> None:
    """Row 2, row 27. Even a stopped one: nobody is left who holds a pin, a lock or the new file;
    and the next run has the lock of the store."""
    land.write_map(mallory)
    with locked(mallory), started(land, "run") as run:
        worker = confined_worker(run.pid, mallory)
        os.kill(worker, signal.SIGSTOP)
        run.kill()
        run.wait()
        try:
            until(lambda: status_of(worker).get("State", "Z")[0] == "Z", "end of the worker")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
    assert os.listdir(land.account_dir(mallory)) == []
    assert land.t3().code == 0


LURK = """
    import ctypes, os, select, sys
    libc = ctypes.CDLL(None, use_errno=True)
    there = lambda: {int(name) for name in os.listdir("/proc") if name.isdigit()}
    before, tries, got, seen = there() | {os.getpid()}, 0, 0, set()
    print("lurking", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        for pid in there() - before:
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                continue
            for fd in range(3, 12):
                tries += 1
                taken = libc.syscall(438, pidfd, fd, 0)
                if taken >= 0:
                    got += 1
                    os.close(taken)
            os.close(pidfd)
            seen.add(pid)
    print(tries, got, *seen)
"""


def test_no_moment_of_a_workers_life_is_open_to_its_user(land: Land, mallory: User) -> None:
    """Row 36. From its first to its last: a worker that became the user before its exec could be
    opened while it imports."""
    land.write_map(mallory)
    with locked(mallory) as unlock, as_user(mallory, LURK) as lurker:
        assert lurker.stdout is not None
        assert lurker.stdout.readline() == "lurking\n"
        with started(land, "run") as run:
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
    land: Land, mallory: User, honest: User
) -> None:
    """Row 22. The run ends by itself, the lock of the store is free, and nothing of the stopped
    worker is left."""
    land.write_map(mallory, honest)
    with locked(mallory), started(land, "run", T3_BACKUP_STALL="5", T3_BACKUP_JOBS="2") as run:
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
    assert status_of(worker) == {}
    assert os.listdir(land.account_dir(mallory)) == []
    assert land.t3("run").code == 0


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGBUS, signal.SIGRTMIN + 6]
)
def test_a_worker_killed_by_its_user_fails_its_account_alone(
    land: Land, mallory: User, honest: User, number: int
) -> None:
    """Row 22. SIGBUS is tried once more, and the user kills that one too; real-time signals have no
    name."""
    land.write_map(mallory, honest)
    with locked(mallory), started(land, "run", T3_BACKUP_TIMEOUT="6") as run:
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
    assert os.listdir(land.account_dir(mallory)) == []


def test_an_exclusive_lock_on_the_source_times_out_its_account_alone(
    land: Land, mallory: User, honest: User
) -> None:
    """Row 22."""
    land.write_map(mallory, honest)
    with locked(mallory):
        answer = land.t3("run", "--timeout", "8", timeout=BOUND_S)
    assert answer.code == 1
    assert f"backup FAILED for {mallory.name} (" in answer.out
    assert f"backed up {honest.name} -> " in answer.out
    assert os.listdir(land.account_dir(mallory)) == []


# ---- what a worker that turns hostile can do

WITHIN = """
    import array, ctypes, errno, fcntl, json, os, socket, sys

    package, uid, gid, folder, home, gives_up = sys.argv[1:]
    sys.path.insert(0, package)
    from t3_backup.worker.child import sandbox, vfs

    libc = ctypes.CDLL(None, use_errno=True)
    PR_SET_DUMPABLE, KEEP_SIZE, IO_URING_SETUP, CLONE3, FICLONE, EXECVEAT = 4, 1, 425, 435, 0x40049409, 322
    AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_FOLLOW = -100, 0x1000, 0x400
    fd = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o400)
    ours, theirs = socket.socketpair()
    sandbox.become_user(int(uid), int(gid), ())
    if gives_up == "all":
        vfs.register_vfs()
        sandbox.confine_process(os.getppid())
        sandbox.filter_calls()

    got = {}

    def attempt(name, step):
        try:
            step()
            got[name] = "done"
        except OSError as error:
            got[name] = errno.errorcode[error.errno]
        except MemoryError:
            got[name] = "ENOMEM"

    def call(name, result):
        got[name] = errno.errorcode[ctypes.get_errno()] if result < 0 else "done"

    def fork():
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    attempt("fork", fork)
    attempt("execve", lambda: os.execv("/nonexistent", ["x"]))
    call("execveat", libc.syscall(EXECVEAT, -1, b"/nonexistent", None, None, 0))
    call("clone3", libc.syscall(CLONE3, None, 0))
    attempt("pass the descriptor on", lambda: socket.send_fds(ours, [b"x"], [fd]))
    attempt("a new socket", lambda: socket.socket(socket.AF_UNIX).close())
    call("fallocate", libc.fallocate(fd, KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(1 << 20)))
    attempt("ioctl", lambda: fcntl.ioctl(fd, FICLONE, fd))
    call("io_uring_setup", libc.syscall(IO_URING_SETUP, 1, ctypes.create_string_buffer(256)))
    call("become dumpable", libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
    call("ptrace", libc.ptrace(0, 0, None, None))
    # Refused by more than the filter alone.
    name = f"{home}/mine".encode()
    call("name the file", libc.linkat(fd, b"", AT_FDCWD, name, AT_EMPTY_PATH))
    call("name the file by way of /proc", libc.linkat(AT_FDCWD, f"/proc/self/fd/{fd}".encode(), AT_FDCWD, name, AT_SYMLINK_FOLLOW))
    call("name the link in /proc", libc.link(f"/proc/self/fd/{fd}".encode(), name))
    attempt("setuid", lambda: os.setuid(0))
    attempt("setgroups", lambda: os.setgroups([0]))
    attempt("open the file again", lambda: os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
    attempt("chmod the file", lambda: os.fchmod(fd, 0o666))
    attempt("chown the file", lambda: os.fchown(fd, int(uid), int(gid)))
    attempt("reach the store", lambda: os.listdir(folder))
    attempt("a gigabyte of memory", lambda: bytearray(1 << 30))
    attempt("write", lambda: os.pwrite(fd, b"still mine", 0))
    print(json.dumps(got))
"""

BY_THE_FILTER = {
    *("fork", "execve", "execveat", "clone3", "pass the descriptor on", "a new socket"),
    *("fallocate", "ioctl", "io_uring_setup", "become dumpable"),
}
BY_MORE_THAN_THE_FILTER = {
    *(
        "ptrace",
        "name the file",
        "name the file by way of /proc",
        "name the link in /proc",
        "setuid",
        "setgroups",
    ),
    *("open the file again", "chmod the file", "chown the file", "reach the store"),
}


@pytest.fixture
def within(land: Land, mallory: User) -> Callable[[str], dict[str, str]]:
    """What a process can do that is the worker as far as its rights go, from within; it begins as
    root, as a worker does."""
    private = land.folder / "private"
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
        command = [sys.executable, "-I", "-c", textwrap.dedent(WITHIN), *words]
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
def folder(land: Land) -> Iterator[int]:
    private = land.folder / "private"
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


# ---- a worker that lies, floods, or never ends: a script in its place

PRELUDE = """\
import json, os, signal, sys, time
request = json.loads(sys.argv[2])
operation, job = request["operation"], request["job"]
channel, file = job["channel"], job["file"]

def say(**event):
    os.write(channel, json.dumps(event).encode() + b"\\n")

def honest():
    sys.path.insert(0, sys.argv.pop(1))
    from t3_backup.worker.child.main import main
    sys.exit(main())

def lie(**changes):
    # The real worker, which makes the real copy, but for what it says of it.
    import dataclasses
    sys.path.insert(0, sys.argv.pop(1))
    from t3_backup.worker.child.main import main
    from t3_backup.worker.child.task import Task
    from t3_backup.worker.operations.backup import Proven
    report = Task.report
    def reported(task, event):
        if isinstance(event, Proven):
            census = dataclasses.replace(event.census, **{k: v(event.census) for k, v in changes.items()})
            event = dataclasses.replace(event, census=census)
        report(task, event)
    Task.report = reported
    sys.exit(main())

def leave_behind(*closed):
    # A child that holds what the worker holds, but for `closed`, until the test lets it go.
    if os.fork() == 0:
        for fd in closed:
            os.close(fd)
        with open(HOLDER + ".new", "w") as note:
            note.write(str(os.getpid()))
        os.rename(HOLDER + ".new", HOLDER)
        signal.alarm(60)
        time.sleep(60)
        os._exit(0)
    while not os.path.exists(HOLDER):
        time.sleep(0.01)

if job["uid"] != HOSTILE:
    honest()
"""


@dataclass
class Stage:
    """A run over two accounts, the first one's worker replaced by a script."""

    land: Land
    mallory: User
    honest: User
    monkeypatch: pytest.MonkeyPatch

    @property
    def holder_note(self) -> Path:
        return self.land.folder / "holder"

    @property
    def holder(self) -> int:
        return int(self.holder_note.read_text())

    def run(
        self, script: str, *, timeout: int = 15, stall: int = 10
    ) -> tuple[AccountResult, float]:
        """What became of the hostile account, and how many seconds the run took. The other account is backed up, always.

        The limits are the hostile one's: the other's interpreter may be slow to start.
        """
        self.monkeypatch.setattr(client, "ask", self.patient(client.ask))
        boot = PRELUDE.replace("HOSTILE", str(self.mallory.uid)).replace(
            "HOLDER", repr(str(self.holder_note))
        )
        self.monkeypatch.setattr(client, "_BOOT", boot + textwrap.dedent(script))
        values = Settings(
            dest=self.land.store,
            map=self.land.map,
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
        for pid in children(os.getpid()) if hangs else []:
            os.kill(pid, signal.SIGKILL)
        assert not hangs, f"the run was not over after {BOUND_S} s"
        hostile, honest = results
        assert honest.outcome == "backed_up", honest
        assert children(os.getpid()) == []
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


@pytest.fixture
def stage(
    land: Land, mallory: User, honest: User, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    made = Stage(land, mallory, honest, monkeypatch)
    yield made
    if made.holder_note.exists():
        os.kill(made.holder, signal.SIGKILL)


FILL = """
say(event="source", bytes=4096, wal_bytes=0, others=[])
while True:
    os.write(file, b"x" * (1 << 20))
"""

PAST = """
import ctypes
ctypes.CDLL(None).fallocate(file, 1, ctypes.c_long(0), ctypes.c_long(256 << 20))
time.sleep(60)
"""
PROGRESS = """
line = json.dumps({"event": "progress", "written": 1, "read": 1}).encode() + b"\\n"
while True:
    os.write(channel, line * 1000)
"""
COPIED = """
say(event="copied", method="online", source_bytes=1, wal_growth_bytes=0, restarts=0, seconds=0.0, pinned=None, before=None, after=None, beside=None)
"""
PROVEN = """
census = dict(page_size=4096, page_count=1, user_version=0, application_id=0, schema_sha256="", t3_level=30, ends={"t": 1}, rows={})
say(event="proven", problems=[], census=census, seconds=0.0, sqlite_version="3")
"""
CLAIM = (
    "if operation == 'check_integrity':"
    + PROVEN.replace("\n", "\n    ")
    + "\nelse:"
    + COPIED.replace("\n", "\n    ")
)
DESCRIPTORS = """
import socket
with socket.socket(fileno=os.dup(channel)) as s:
    for _ in range(100):
        socket.send_fds(s, [b"noise\\n"], [file] * 100)
time.sleep(60)
"""

FAKES = {
    "fills the disk": (FILL, "grew past"),
    "fills the disk at the far end": (
        'os.pwrite(file, b"x", 1 << 40)\ntime.sleep(60)',
        "grew past",
    ),
    "allocates blocks past the end": (PAST, "grew past"),
    "claims a source larger than the disk": (
        'say(event="source", bytes=1 << 61, wal_bytes=0, others=[])\ntime.sleep(60)',
        "no room",
    ),
    "claims a source that cannot be": (
        'say(event="source", bytes=1 << 62, wal_bytes=0, others=[])\ntime.sleep(60)',
        "cannot be",
    ),
    "floods with noise": (
        'while True: os.write(channel, b"garbage\\n" * 8000)',
        "no progress for 1 s",
    ),
    "floods with empty lines": (
        'while True: os.write(channel, b"\\n" * 60000)',
        "no progress for 1 s",
    ),
    "floods with progress": (PROGRESS, "timed out after 3 s"),
    "sends a line without an end": (
        'while True: os.write(channel, b"x" * 65536)',
        "a line without an end",
    ),
    "sends a line without an end, a byte at a time": (
        'while True: os.write(channel, b"x")',
        "no progress for 1 s",
    ),
    "sends what is no event": ('say(event="sudo")\ntime.sleep(60)', "no event"),
    "sends markup for the terminal": (
        'say(event="phase", phase="[/x]\\x1b[2J", total=1)\ntime.sleep(60)',
        "cannot be",
    ),
    "closes the socket and sleeps": (
        "os.close(channel)\nos.close(1)\nos.close(2)\ntime.sleep(60)",
        "no progress for 1 s",
    ),
    "says nothing": ("time.sleep(60)", "no progress for 1 s"),
    "stops itself": ("os.kill(os.getpid(), signal.SIGSTOP)", "no progress for 1 s"),
    "ends without a result": ("sys.exit(0)", "ended with 0 and no result"),
    "dies talking to the terminal": (
        'sys.exit("\\x1b]0;owned\\x07")',
        "ended with 1 and no result: ?]0;owned?",
    ),
    "dies by a signal without a name": ("os.kill(os.getpid(), 40)", "killed by signal 40"),
    "claims an error of the command's own": (
        'say(event="failed", error="LockHeld", reason="no")\nsys.exit(1)',
        "no",
    ),
    "claims a copy that it never made": (
        "honest() if operation == 'check_integrity' else None\n" + COPIED,
        "no table at all",
    ),
    "claims a copy and a proof of it": (CLAIM, "the copy has 0 bytes"),
    "gives another answer than it was asked for": (PROVEN, "no result"),
    "counts other rows than were there": (
        "lie(ends=lambda c: c.ends | {'orchestration_events': 9})",
        "not what the source was",
    ),
    "counts one page too many": ("lie(page_count=lambda c: c.page_count + 1)", "its census counts"),
    "counts pages of half the size": (
        "lie(page_size=lambda c: c.page_size // 2)",
        "its census counts",
    ),
    "counts more pages than can be printed": (
        "lie(page_count=lambda c: 10**4000, page_size=lambda c: 10**4000)",
        "cannot be",
    ),
    "passes on many descriptors": (DESCRIPTORS, "no progress for 1 s"),
}
# for what is to run out
SHORT = {"no progress for 1 s": {"stall": 1}, "timed out after 3 s": {"timeout": 3}}


@pytest.mark.parametrize("what", FAKES)
def test_the_run_goes_on_beside_a_worker_that(stage: Stage, what: str) -> None:
    """Row 36, and row 22: it is ended in time, nothing of it gets a name, and the next account is
    backed up."""
    script, reason = FAKES[what]
    with leaves_no_file_open():
        hostile, seconds = stage.run(script, **SHORT.get(reason, {}))
    assert hostile.outcome == "failed"
    assert reason in hostile.reason
    assert hostile.reason.isprintable()
    assert os.listdir(stage.land.account_dir(stage.mallory)) == []
    assert seconds < BOUND_S / 2


def test_a_worker_that_will_not_stop_is_killed(stage: Stage) -> None:
    """Row 22. Whoever stops the run waits for a moment, not for the worker."""
    stage.monkeypatch.setattr(supervisor, "_POLITE_SECONDS", 0.2)
    note = stage.land.folder / "deaf"
    boot = PRELUDE.replace("HOSTILE", str(stage.mallory.uid)).replace("HOLDER", "''")
    boot += f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen({str(note)!r}, 'w').close()\ntime.sleep(60)"
    stage.monkeypatch.setattr(client, "_BOOT", boot)
    stopping = threading.Event()
    limits = Limits(BOUND_S, BOUND_S, MIB, 0, lambda: 1 << 40)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(client.ask, account(stage.mallory), FindDatabase(), limits, stopping)
        until(note.exists, "deaf worker")
        stopping.set()
        with pytest.raises(Failure, match="stopped before it was done"):
            work.result(BOUND_S / 2)
    assert children(os.getpid()) == []


def test_the_blocks_of_a_worker_past_its_limit_are_given_back_at_once(stage: Stage) -> None:
    """Row 36. Even where another process still has the file open."""
    hostile, _ = stage.run("leave_behind()\n" + FILL)
    assert "grew past" in hostile.reason
    [held] = [
        status
        for status in map(os.stat, Path(f"/proc/{stage.holder}/fd").iterdir())
        if status.st_nlink == 0
    ]
    assert (held.st_size, held.st_blocks) == (0, 0)


def test_a_perfect_copy_that_somebody_can_still_write_to_gets_no_name(stage: Stage) -> None:
    """Row 36, row 22. The holder has the worker's socket too, and the parent doesn't wait for its
    end."""
    stage.monkeypatch.setattr(staged_file, "_LEASE_SECONDS", 0.3)
    hostile, seconds = stage.run("leave_behind()\nhonest()")
    assert hostile.outcome == "failed"
    assert "can still write to the new snapshot" in hostile.reason
    assert os.listdir(stage.land.account_dir(stage.mallory)) == []
    assert seconds < BOUND_S / 2


def test_a_socket_that_is_held_open_keeps_nobody_waiting(stage: Stage) -> None:
    """Row 22. Without the descriptor of the file, the holder is of no consequence."""
    result, seconds = stage.run("leave_behind(file)\nhonest()")
    assert result.outcome == "backed_up", result
    assert seconds < BOUND_S  # the socket ends after a minute


def test_a_socket_that_is_written_to_after_the_workers_end_keeps_nobody_waiting(
    stage: Stage,
) -> None:
    """Row 22. What is left in the socket at the worker's death is read, and no more."""
    script = """
        if os.fork() == 0:
            os.close(file)
            with open(HOLDER, "w") as note:
                note.write(str(os.getpid()))
            signal.alarm(60)
            while True:
                os.write(channel, b"noise\\n" * 10000)
        os._exit(0)
    """
    hostile, seconds = stage.run(script.replace("HOLDER", repr(str(stage.holder_note))))
    assert hostile.outcome == "failed"
    assert seconds < BOUND_S / 2


def test_a_look_that_found_nothing_fails_its_account_alone(stage: Stage) -> None:
    """Row 36. A dry run believes a worker no more than a run does."""
    stage.monkeypatch.setattr(client, "_BOOT", "pass")
    limits = Limits(BOUND_S, BOUND_S, MIB, 0, lambda: 1 << 40)
    with pytest.raises(WorkerLost, match="no result"):
        client.ask(account(stage.mallory), FindDatabase(), limits, threading.Event())


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
    land: Land, mallory: User, honest: User, left_wal: bytes
) -> None:
    """Row 32. Each is copied, found damaged or refused in time by a worker of bounded memory, and
    the next one has its turn."""
    whole = TINY.read_bytes()
    limits = Limits(10, 10, MIB, 0, lambda: 1 << 40)
    private = land.folder / "private"
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
                    snapshot._check_agreement(
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
    land.write_map(honest)
    assert land.t3().code == 0
