"""Ask a worker to act as the owner of a database, and judge its answer.

The worker is exec'd with root's rights and gives them up itself once it has imported all it needs.
It gets one descriptor of the store's, the socket on which it answers, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from t3_backup.accounts import Account
from t3_backup.errors import Cancelled, Failure, LeftBehind, WorkerLost
from t3_backup.system.process import open_end, start_in_own_group
from t3_backup.t3.files import DATABASE_NAME, state_place
from t3_backup.text import printable
from t3_backup.worker import installed, left_behind
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations import OPERATIONS, Job, Operation, encode_request, name_of
from t3_backup.worker.operations.backup import (
    Copied,
    CopiedAll,
    CopyDatabase,
    CopyDatabases,
    WriteArchive,
)
from t3_backup.worker.protocol import Event
from t3_backup.worker.sources import Source
from t3_backup.worker.supervisor import (
    Listener,
    Provider,
    WorkerState,
    kill_worker,
    supervise,
)

A = TypeVar("A", bound=Event)
# Whoever stops a unit stops its workers, too: a worker may have ended before the command has heard.
_HEARD_SECONDS = 2
_PACKAGE = Path(__file__).resolve().parent.parent.parent

# The worker finds this very package, wherever it is, before it gives up the right to read it. -I
# keeps the environment, the working folder and the user's site-packages out. Most of what a worker
# costs is its beginning and its end: so nothing is collected while it imports, until `main` says
# so, and nothing is taken down.
_BOOT = (
    "import gc; gc.disable(); import os, sys; p = sys.argv.pop(1); "
    "p in sys.path or sys.path.insert(0, p); "
    "from t3_backup.worker.child.boot import main; os._exit(main())"
)


def ignore_event(_: Event) -> None:
    """Listen to nothing."""


class Worker(Generic[A]):
    """A worker that is running, for one operation.

    It imports what the operation needs, and then reads its request. One that `waits` is started
    ahead of its time: it gets none before `hand_over`, which also gives it files to read.
    """

    def __init__(
        self,
        account: Account,
        operation: Operation[A],
        limits: Limits,
        *,
        file: int = -1,
        folder: int = -1,
        waits: bool = False,
    ) -> None:
        if not OPERATIONS[name_of(operation)].ends:
            installed.require_same()
        left_behind.require_none(account)
        self._account, self._operation, self._limits = account, operation, limits
        self._asked = False
        self._files = [file] if file >= 0 and OPERATIONS[name_of(operation)].writes else []
        home, folder_path = state_place(str(account.home), str(account.base_dir or ""))
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            self._channel = undo.enter_context(ours)
            self._job = Job(
                home=home,
                state_folder=folder_path,
                server_pid=account.server_pid,
                uid=account.uid,
                gid=account.gid,
                groups=account.groups,
                become=os.geteuid() == 0,
                parent=os.getpid(),
                seconds=limits.seconds,
                wal_budget=limits.wal_budget,
                room=limits.room(),
                file=file,
                folder=folder,
            )
            self._request = b"" if waits else encode_request(self._job, operation)
            with theirs:
                self._process = _start_process(theirs, self._job, operation, account.mark)
            self._end = open_end(self._process.pid)
            undo.pop_all()

    def hand_over(self, operation: Operation[A], limits: Limits, files: Sequence[int]) -> None:
        """Let one that waits begin, with `files` to read."""
        self._operation, self._limits = operation, limits
        job = replace(self._job, files=tuple(files), seconds=limits.seconds)
        self._request = encode_request(job, operation)

    def answer(
        self, stopping: threading.Event, listen: Listener, provide: Provider | None = None
    ) -> A:
        """Ask it, watch it until it is dead, and return its answer. Raises as `ask` does.

        What it has found is told to `provide`, which gives it files to write to.
        """
        self._asked = True  # whatever comes, it is dead then, or left behind
        pins = OPERATIONS[name_of(self._operation)].pins
        unsent = bytearray(self._request)
        state = WorkerState(self._limits, provide, self._files, unsent, pins=pins)
        try:
            supervise(self._process, self._end, self._channel, state, stopping, listen)
        except Failure as failure:
            if self._process.returncode is None and not isinstance(failure, Cancelled):
                raise LeftBehind(f"{failure}; {self._explain_left()}") from None
            raise
        if self._process.returncode is None and state.files:  # it answered, and can still write
            raise LeftBehind(self._explain_left())
        return _judge_answer(self._process, state, self._operation, stopping)

    def _explain_left(self) -> str:
        return left_behind.explain(self._account, f"its worker (pid {self._process.pid})")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._asked:
            kill_worker(self._process)
        if self._process.returncode is None:
            left_behind.note_left(self._account, self._process)
        os.close(self._end)
        self._channel.close()


def ask(
    account: Account,
    operation: Operation[A],
    limits: Limits,
    stopping: threading.Event,
    listen: Listener = ignore_event,
    *,
    file: int = -1,
    folder: int = -1,
    provide: Provider | None = None,
) -> A:
    """Let a worker serve one operation as the account's owner, and return its answer.

    It is watched until it is dead. It gets the descriptors `file` and `folder`, where there are
    such, and those of `provide` once it has told what it found. Raises what the worker reported,
    TryLater past a limit, WorkerLost where it died, Cancelled once `stopping` is set; then a file
    that it was to write is empty again.
    """
    with Worker(account, operation, limits, file=file, folder=folder) as worker:
        return worker.answer(stopping, listen, provide)


def copy_database(
    account: Account,
    file: int,
    limits: Limits,
    stopping: threading.Event,
    listen: Listener,
    *,
    method: str = "online",
    database: str = DATABASE_NAME,
) -> Copied:
    """Copy one of the account's databases into the empty `file`. Raises as `ask` does.

    A worker that SIGBUS killed (somebody cut the source short under its map) is tried once more
    without a map.
    """
    operation = CopyDatabase(method, database=database)
    try:
        return ask(account, operation, limits, stopping, listen, file=file)
    except _BusError:
        os.ftruncate(file, 0)
        operation = replace(operation, mmap=False)
        return ask(account, operation, limits, stopping, listen, file=file)


def copy_databases(
    account: Account,
    provide: Provider,
    limits: Limits,
    stopping: threading.Event,
    listen: Listener,
    *,
    archive: WriteArchive | None = None,
) -> CopiedAll:
    """Copy all of the account's databases into the empty files that `provide` gives.

    The answer also says whether the `archive` that is to follow need not be written. Raises as
    `ask` does; tried once more as in `copy_database`, then `provide` is asked again.
    """
    operation = CopyDatabases(archive=archive)
    try:
        return ask(account, operation, limits, stopping, listen, provide=provide)
    except _BusError:
        operation = replace(operation, mmap=False)
        return ask(account, operation, limits, stopping, listen, provide=provide)


def _start_process(
    channel: socket.socket, job: Job, operation: Operation[Any], mark: int
) -> subprocess.Popen[bytes]:
    """Start the process of a worker, with the descriptors that its job names."""
    return start_in_own_group(
        [sys.executable, "-I", "-c", _BOOT, str(_PACKAGE), name_of(operation)],
        stdin=channel.fileno(),
        stdout=channel.fileno(),
        stderr=channel.fileno(),
        pass_fds=[fd for fd in (job.file, job.folder, mark) if fd >= 0],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
    )


class _BusError(WorkerLost):
    pass


def _judge_answer(
    process: subprocess.Popen[bytes],
    state: WorkerState,
    operation: Operation[A],
    stopping: threading.Event,
) -> A:
    if isinstance(state.result, Cancelled) and not stopping.wait(_HEARD_SECONDS):
        raise WorkerLost("somebody told the worker to stop, and not this command")
    if isinstance(state.result, Failure):
        raise state.result
    code, kind = process.returncode, operation.answer_type()
    answer = state.source if kind is Source else state.result
    # An answer stands, however its worker ended: nothing of it is believed before it is proven.
    if isinstance(answer, kind) and (code == 0 or answer is state.result):
        return answer
    if code == -signal.SIGBUS:
        raise _BusError("the worker died by SIGBUS: the database was truncated while it was read")
    said = state.noise.strip().splitlines()
    last = f": {printable(said[-1])}" if said else ""
    if code < 0:
        raise WorkerLost(f"the worker was killed by {_signal_name(-code)}{last}")
    raise WorkerLost(f"the worker ended with {code} and no result{last}")


def _signal_name(number: int) -> str:
    """SIGKILL and its like; most of the real-time signals have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
