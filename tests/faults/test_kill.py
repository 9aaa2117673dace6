"""Row 27: the run may die at any moment; no snapshot is lost, and the next run clears up and succeeds.

strace kills at the entry of the n-th call of one name, so the call isn't made: a sweep over n shows
the store between every two of its changes. `-f -b execve` lets the worker go, so that the counts
are the parent's alone.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from support.databases import REAL, hash_source, leave_rows_in_wal, make_snapshots
from support.fault_injection import KILLED, needs_strace, run_traced, trace_worker
from support.host import Answer, Host
from support.processes import processes_of
from support.sampling import amount, chance, counts
from support.store_checks import find_leftovers, hash_files, prove_snapshots
from support.users import needs_root

from demo.users import User

pytestmark = [needs_root, needs_strace]

SNAPSHOTS = 3  # before the run, of which --keep 2 lets two go
RUN = ("run", "--keep", "2")
MOST = 200  # calls of one name; a sweep that reaches it has lost its end

# Calls of the parent that change the store, and some at which its worker is alive. Those of the
# second group are made by other threads of the parent too, earlier: they are counted on the
# account's folder alone.
PARENT = (
    "mkdirat",
    "linkat",
    "unlinkat",
    "fsync",
    "write",
    "pidfd_open",
    "socketpair",
    "recvmsg",
    "poll",
    "wait4",
    "fadvise64",
    "renameat",
)
PARENT_ON_ACCOUNT_FOLDER = ("openat", "fsync", "linkat", "unlinkat", "getdents64")
WORKER = {
    "pwrite64": 1,
    "write": 1,
    "sync_file_range": 1,
    "ftruncate": 1,
    "openat2": 1,
    "sendmsg": 1,
    "fcntl": 9,
    "pread64": 9,
}


@pytest.fixture
def bob(make_user: Callable[..., User], host: Host) -> User:
    """A user with the real database, its newest rows in a -wal that a killed server left."""
    user = make_user("flt-bob")
    # the calls that are counted here are those of the database alone
    host.environ["T3_BACKUP_FILES_LIMIT"] = "0"
    leave_rows_in_wal(user)
    host.write_map(user)
    return user


class Kills:
    """Kill, look, heal, look: as often as wanted, from the same store each time."""

    def __init__(self, host: Host, user: User) -> None:
        self.host, self.user = host, user
        self.before = prove_snapshots(host, user)
        self.names = frozenset(snapshot.name for snapshot in self.before)
        self.template = host.folder / "template"
        subprocess.run(["cp", "-a", host.store, self.template], check=True)
        self.source = hash_source(user)
        self.points: Counter[str] = Counter()

    def fresh(self) -> None:
        """The store as it was before the kill."""
        shutil.rmtree(self.host.store)
        subprocess.run(["cp", "-a", self.template, self.host.store], check=True)

    def survived(self, point: str) -> None:
        """What must hold after a kill at `point`, and after the next run."""
        self.points[point.split(maxsplit=1)[0]] += 1
        found = prove_snapshots(self.host, self.user, known=self.names)
        names = {snapshot.name for snapshot in found}
        # Pruning begins when the new snapshot is named for good, so either all the old ones are
        # there, or that one is.
        assert self.names <= names or names - self.names, (
            f"{point}: lost {self.names - names}, and nothing is new"
        )
        assert self.before[0].name in names, (
            f"{point}: the newest old snapshot is one that --keep 2 keeps"
        )
        left = {
            name
            for name in find_leftovers(self.host, self.user)
            if not name.startswith(".partial-")
        }
        assert {name.rpartition(".")[2] for name in left} <= {"json"}, (
            f"{point}: data without a manifest"
        )
        self._must_be_free(point)
        answer = self.host.t3(*RUN)
        assert answer.code == 0, f"{point}: {answer}"
        healed = prove_snapshots(self.host, self.user, known=frozenset(names))
        assert len(healed) == 2, f"{point}: {answer}"
        new = names - self.names
        assert healed[0].name in new if new else healed[0].name not in names, (
            f"{point}: the next run took none, or one too many"
        )
        assert find_leftovers(self.host, self.user) == set(), (
            f"{point}: not cleared by the next run"
        )
        assert hash_source(self.user) == self.source, f"{point}: the source is another"

    def _must_be_free(self, point: str) -> None:
        # The worker dies by a signal of the kernel's as its parent dies; it may take a moment, but
        # it must not stay.
        for pid in processes_of(self.user):
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            ended, _, _ = select.select([pidfd], [], [], 5)
            os.close(pidfd)
            assert ended, f"{point}: worker {pid} outlives its parent"
        store = os.open(self.host.store, os.O_RDONLY)
        fcntl.flock(store, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(store)

    def report(self, what: str) -> str:
        """How many there were."""
        return f"{what}: {sum(self.points.values())} kill points: {dict(self.points)}"


@pytest.fixture
def kills(host: Host, bob: User) -> Kills:
    make_snapshots(host, bob, SNAPSHOTS)
    leave_rows_in_wal(bob)
    return Kills(host, bob)


def sweep(kills: Kills, name: str, run: Callable[[int], bool], step: int = 1) -> int:
    """Kill at call 1, 1+step... until a run isn't hit, which then must have succeeded. How many
    such calls there are, at most."""
    for n in counts(MOST, 8, f"kills at {name}", step):
        kills.fresh()
        if not run(n):
            return n // step
        kills.survived(f"{name} {n}")
    pytest.fail(f"{name} has no end")


def test_the_parent_may_be_killed_at_every_call_that_changes_the_store(
    kills: Kills, tell: Callable[[str], None]
) -> None:
    """Row 27: seal, name, prune, and everything between."""

    def killed(name: str, n: int, *options: str) -> bool:
        inject = ("-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={n}")
        answer = run_traced(kills.host, *options, *inject, words=RUN, parent_only=True)
        assert answer.code in (0, KILLED), answer
        return answer.code == KILLED

    account_dir = ("-P", str(kills.host.account_dir(kills.user)))
    for name in PARENT:
        least = {"linkat": 2, "fsync": 5, "unlinkat": 4, "write": 4}.get(name, 0)
        assert sweep(kills, name, lambda n, name=name: killed(name, n)) >= least
    for name in PARENT_ON_ACCOUNT_FOLDER:
        if name not in PARENT:
            assert (
                sweep(
                    kills,
                    f"{name}@account-folder",
                    lambda n, name=name: killed(name, n, *account_dir),
                )
                > 0
            )
    tell(kills.report("parent"))


def test_the_partial_way_may_be_killed_too(
    host: Host, bob: User, tell: Callable[[str], None]
) -> None:
    """Row 27: where a file has a name from the beginning, what a kill leaves of it is cleared by
    the next run."""
    make_snapshots(host, bob, 1)
    kills = Kills(host, bob)
    left = 0
    for n in range(1, 20):
        kills.fresh()
        options = ("-e", "trace=openat,renameat2", "-P", str(host.account_dir(bob)))
        # The first openat on the folder opens it, and the second reads a manifest. The third asks
        # for an unnamed file for the data, and the fifth for one for the manifest.
        refuse = (
            "-e",
            "inject=openat:error=EOPNOTSUPP:when=3..5+2",
            "-e",
            f"inject=renameat2:signal=KILL:when={n}",
        )
        answer = run_traced(host, *options, *refuse, words=("run",), parent_only=True)
        if answer.code != KILLED:
            assert answer.code == 0, answer
            break
        kills.points["renameat2"] += 1
        partial = {name for name in hash_files(host, bob) if name.startswith(".partial-")}
        left += len(partial)
        assert {
            snapshot.name for snapshot in prove_snapshots(host, bob, known=kills.names)
        } == kills.names
        assert host.t3("run").code == 0
        assert find_leftovers(host, bob) == set()
    assert left > 0, "no kill left a partial file behind, so nothing was shown"
    assert kills.points["renameat2"] == 2
    tell(kills.report("partial names"))


def test_the_worker_may_be_killed_at_any_call(kills: Kills, tell: Callable[[str], None]) -> None:
    """Row 27: a dead worker is one line and exit 1; nothing is named, nothing is pruned, the source
    is whole."""
    old = hash_files(kills.host, kills.user)

    def killed(name: str, n: int) -> bool:
        answer, log = trace_worker(
            kills.host,
            "-e",
            f"trace={name}",
            "-e",
            f"inject={name}:signal=KILL:when={n}",
            words=RUN,
        )
        if "killed by SIGKILL" not in log:
            assert answer.code == 0, answer
            return False
        _must_tell(answer, kills.user)
        assert hash_files(kills.host, kills.user) == old
        return True

    for name, step in WORKER.items():
        hits = sweep(kills, name, lambda n, name=name: killed(name, n), step)
        assert hits > 0, f"the worker makes no {name}"
    tell(kills.report("worker"))


def _must_tell(answer: Answer, user: User) -> None:
    assert answer.code == 1, answer
    assert f"backup FAILED for {user.name} (the worker was killed by SIGKILL" in answer.out, answer


def test_a_run_killed_at_any_instant_loses_nothing(
    kills: Kills, tell: Callable[[str], None]
) -> None:
    """Row 27: not between calls but at instants that nobody chose, some within SQLite and the
    kernel."""
    moments = chance("a run killed at any instant")
    hit = 0
    for n in range(amount(12, 3)):
        kills.fresh()
        process = kills.host.start(*RUN)
        pidfd = os.pidfd_open(process.pid)
        ended, _, _ = select.select([pidfd], [], [], moments.uniform(0.02, 0.35))
        os.close(pidfd)
        hit += not ended
        process.kill()
        process.communicate()
        kills.survived(f"instant {n}")
    assert hit > 0
    tell(f"a run killed at {hit} instants that nobody chose")


def test_a_stopped_worker_dies_with_its_parent(host: Host, bob: User) -> None:
    """Row 27: a worker that waits for a lock, and is stopped on top of it, is dead once its parent
    is."""
    shutil.copyfile(REAL, bob.database)
    Path(f"{bob.database}-wal").unlink()
    with closing(sqlite3.connect(bob.database, isolation_level=None)) as holder:
        assert holder.execute("PRAGMA journal_mode=delete").fetchone() == ("delete",)
        holder.execute("BEGIN EXCLUSIVE")
        process = host.start("run")
        [worker] = _wait_for_workers(bob)
        pidfd = os.pidfd_open(worker)
        try:
            os.kill(worker, signal.SIGSTOP)
            process.kill()
            process.communicate()
            ended, _, _ = select.select([pidfd], [], [], 10)
            assert ended, "the worker outlives its parent"
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        holder.execute("ROLLBACK")
    assert host.t3("run").code == 0


def _wait_for_workers(user: User) -> list[int]:
    """The user's processes once one has given up everything (its filter of system calls is in
    force)."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        confined = [
            pid
            for pid in processes_of(user)
            if "\nSeccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
        ]
        if confined:
            return confined
    pytest.fail("no worker came")


def test_a_kill_in_the_very_first_run_leaves_a_store_that_works(
    host: Host, bob: User, tell: Callable[[str], None]
) -> None:
    """Row 27: before the store, before the account folder, and before the first snapshot has its
    name."""
    shutil.copyfile(REAL, bob.database)
    points = 0
    for name in ("mkdir", "mkdirat", "fsync", "linkat"):
        for n in counts(20, 5, f"kills of the first run at {name}"):
            for there in (host.store, host.folder / "state"):  # nor is it remembered
                shutil.rmtree(there, ignore_errors=True)
            answer = run_traced(
                host,
                "-e",
                f"trace={name}",
                "-e",
                f"inject={name}:signal=KILL:when={n}",
                parent_only=True,
            )
            if answer.code != KILLED:
                assert answer.code == 0, answer
                break
            points += 1
            assert len(prove_snapshots(host, bob) if host.store.exists() else []) in (0, 1)
            assert host.t3("run").code == 0
            assert 1 <= len(prove_snapshots(host, bob)) <= 2
            assert find_leftovers(host, bob) == set()
    assert points >= amount(8, 3)
    tell(f"first run: {points} kill points")
