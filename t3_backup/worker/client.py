"""Let a worker act as the owner of a database: start it, have it watched, and judge what came of it.

The worker is exec'd with root's rights and gives them up itself once it has imported all it needs. It gets one descriptor
of the store's, the socket on which it answers, and nothing else.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from t3_backup.accounts import Account
from t3_backup.errors import Failure, WorkerLost
from t3_backup.restore.intent_log import Intent
from t3_backup.store.census import Census
from t3_backup.system.file_identity import FileIdentity
from t3_backup.text import printable
from t3_backup.worker.limits import Limits
from t3_backup.worker.protocol import (
    Copied,
    Counted,
    Event,
    Folded,
    Healed,
    Inspected,
    Named,
    Packed,
    Proven,
    Request,
    Source,
    Staged,
    Swapped,
)
from t3_backup.worker.supervisor import Listener, WorkerState, supervise

_PACKAGE = Path(__file__).resolve().parent.parent.parent

# The worker finds this very package, wherever it is, before it gives up the right to read it. -I keeps the environment, the working
# folder and the user's site-packages out.
_BOOT = (
    "import sys; p = sys.argv.pop(1); p in sys.path or sys.path.insert(0, p); "
    "from t3_backup.worker.child.main import main; sys.exit(main())"
)

_ANSWERS: dict[str, type[Event]] = {
    "look": Source,
    "copy": Copied,
    "prove": Proven,
    "survey": Named,
    "fetch": Copied,
    "discard": Named,
    "count": Counted,
    "stage": Staged,
    "fold": Folded,
    "clone": Copied,
    "exchange": Healed,
    "heal": Healed,
    "pack": Packed,
    "inspect": Inspected,
    "unpack": Inspected,
    "swap": Swapped,
}
_WRITING = ("copy", "fetch", "clone", "pack")


def look(account: Account, limits: Limits, stopping: threading.Event, listen: Listener = lambda _: None) -> Source:
    """Find the account's database and its sizes; `listen` hears of those that are not copied. Raises as `copy` does."""
    found = _work(account, "look", limits, -1, stopping=stopping, listen=listen)
    assert isinstance(found, Source)
    return found


def copy(
    account: Account, file: int, limits: Limits, stopping: threading.Event, listen: Listener, *, method: str = "online"
) -> Copied:
    """Let a worker copy the account's database into the empty `file`, open for writing.

    Raises what the worker reported, TryLater past a limit, WorkerLost where it died, Cancelled once `stopping` is set; then
    the file is empty again. A worker killed by SIGBUS (somebody cut the source short under its map) is tried once more
    without a map.
    """
    try:
        copied = _work(account, "copy", limits, file, method=method, stopping=stopping, listen=listen)
    except _BusError:
        os.ftruncate(file, 0)
        copied = _work(account, "copy", limits, file, method=method, mmap=False, stopping=stopping, listen=listen)
    assert isinstance(copied, Copied)
    return copied


def prove(
    account: Account,
    file: int,
    limits: Limits,
    stopping: threading.Event,
    listen: Listener,
    *,
    share: int = 0,
    shares: int = 1,
) -> Proven:
    """Let a worker prove `file`, open read-only, which nobody writes any more: all of it, or a share.

    Raises as `copy` does; changes nothing.
    """
    proven = _work(account, "prove", limits, file, stopping=stopping, listen=listen, share=share, shares=shares)
    assert isinstance(proven, Proven)
    return proven


def survey(account: Account, folder: int, limits: Limits, stopping: threading.Event, after: str = "") -> tuple[str, ...]:
    """Names of the snapshots of earlier days in the account's own `folder` (an O_PATH descriptor): 100 at most, newest first.

    Those alone that come after the one called `after`. Raises as `copy` does.
    """
    found = _work(account, "survey", limits, -1, stopping=stopping, folder=folder, name=after)
    assert isinstance(found, Named)
    return found.names


def fetch(
    account: Account, folder: int, name: str, file: int, limits: Limits, stopping: threading.Event, listen: Listener
) -> Copied:
    """Copy the snapshot `name` in the account's own `folder` into the empty `file`, open for writing. Raises as `copy` does."""
    copied = _work(account, "fetch", limits, file, stopping=stopping, listen=listen, folder=folder, name=name)
    assert isinstance(copied, Copied)
    return copied


def discard(account: Account, folder: int, name: str, since: float, limits: Limits, stopping: threading.Event) -> None:
    """Remove the snapshot `name` from the account's own `folder`, if nobody has changed it `since` then.

    Raises SourceError where it was changed, and as `copy` does.
    """
    _work(account, "discard", limits, -1, stopping=stopping, folder=folder, name=name, since=since)


def count(account: Account, limits: Limits, stopping: threading.Event) -> Census:
    """The census of the account's live database, rows and all. Raises as `copy` does."""
    counted = _work(account, "count", limits, -1, stopping=stopping)
    assert isinstance(counted, Counted)
    return counted.census


def stage(account: Account, snapshot: int, aside: str, limits: Limits, stopping: threading.Event) -> Staged:
    """Write the open `snapshot` beside the account's live database, under the name `aside`. Raises as `copy` does, and OSError."""
    staged = _work(account, "stage", limits, snapshot, stopping=stopping, aside=aside)
    assert isinstance(staged, Staged)
    return staged


def fold(account: Account, limits: Limits, stopping: threading.Event) -> Folded:
    """Bring all of the live database into its one file. Raises InUse, and as `copy` does."""
    folded = _work(account, "fold", limits, -1, stopping=stopping)
    assert isinstance(folded, Folded)
    return folded


def clone(
    account: Account, file: int, old: FileIdentity, taken: Census, limits: Limits, stopping: threading.Event, listen: Listener
) -> Copied:
    """Copy the live database, folded and unchanged since it was `old`, into the empty `file`. Raises InUse, and as `copy` does."""
    copied = _work(account, "clone", limits, file, stopping=stopping, listen=listen, old=old, taken=taken)
    assert isinstance(copied, Copied)
    return copied


def exchange(account: Account, plan: Intent, limits: Limits) -> None:
    """Let what is staged and the live database change places, as `plan` has it. Nothing but a limit stops it.

    Raises InUse, and as `copy` does; what it got to, `heal` finds out.
    """
    asked: dict[str, Any] = {"aside": plan.aside, "old": plan.old, "beside": plan.beside}
    _work(account, "exchange", limits, -1, stopping=threading.Event(), **asked)


def heal(account: Account, plan: Intent, limits: Limits) -> Healed:
    """Complete or undo the exchange of `plan`, which ended somewhere; see `exchange.heal`. Raises as `copy` does."""
    asked: dict[str, Any] = {name: getattr(plan, name) for name in ("aside", "old", "staged", "beside", "begun", "keep")}
    healed = _work(account, "heal", limits, -1, stopping=threading.Event(), **asked)
    assert isinstance(healed, Healed)
    return healed


def pack(
    account: Account, file: int, limit: int, known: str, limits: Limits, stopping: threading.Event, listen: Listener
) -> Packed:
    """Pack what is beside the account's database (`limit` bytes at most) into the empty `file`, open for writing.

    Nothing is written where its fingerprint is the one that is `known`. Raises as `copy` does.
    """
    packed = _work(account, "pack", limits, file, stopping=stopping, listen=listen, limit=limit, known=known)
    assert isinstance(packed, Packed)
    return packed


def inspect(account: Account, file: int, limit: int, limits: Limits, stopping: threading.Event) -> Inspected:
    """What is in the archive `file`, open read-only: `limit` bytes of content at most. Raises as `copy` does."""
    found = _work(account, "inspect", limits, file, stopping=stopping, limit=limit)
    assert isinstance(found, Inspected)
    return found


def unpack(account: Account, file: int, aside: str, limit: int, limits: Limits, stopping: threading.Event) -> Inspected:
    """Unpack the archive `file` beside the live database, under names of their own. Raises as `copy` does."""
    found = _work(account, "unpack", limits, file, stopping=stopping, aside=aside, limit=limit)
    assert isinstance(found, Inspected)
    return found


def swap(account: Account, plan: Intent, limits: Limits, *, install: bool) -> Swapped:
    """Put what was unpacked for `plan` in place, or remove it; see `beside.swap`. Raises as `copy` does."""
    asked: dict[str, Any] = {"aside": plan.aside, "install": install, "sealed": plan.sealed}
    done = _work(account, "swap", limits, -1, stopping=threading.Event(), **asked)
    assert isinstance(done, Swapped)
    return done


class _BusError(WorkerLost):
    pass


def _work(
    account: Account,
    mode: str,
    limits: Limits,
    file: int,
    *,
    stopping: threading.Event,
    listen: Listener = lambda _: None,
    **asked: Any,
) -> Event:
    """Start a worker, watch over it until it is dead, and judge what it said. `asked` are fields of the request."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with theirs:
            request = Request(
                mode=mode,
                home=str(account.home),
                uid=account.uid,
                gid=account.gid,
                groups=account.groups,
                become=os.geteuid() == 0,
                channel=theirs.fileno(),
                file=file,
                parent=os.getpid(),
                seconds=limits.seconds,
                wal_budget=limits.wal_budget,
                **asked,
            )
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, str(_PACKAGE), request.to_text()],
                stdin=subprocess.DEVNULL,
                stdout=theirs.fileno(),
                stderr=theirs.fileno(),
                pass_fds=[fd for fd in (theirs.fileno(), file, request.folder) if fd >= 0],
                cwd="/",
                process_group=0,  # a Ctrl-C is the command's to hear: it ends them, or lets them finish
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            )
        watch = WorkerState(limits)
        pidfd = os.pidfd_open(process.pid)
        try:
            supervise(process, pidfd, ours, watch, file if mode in _WRITING else -1, stopping, listen)
        finally:
            os.close(pidfd)
            if watch.folder >= 0:
                os.close(watch.folder)
    return _judge(process, watch, mode)


def _judge(process: subprocess.Popen[bytes], watch: WorkerState, mode: str) -> Event:
    if isinstance(watch.result, Failure):
        raise watch.result
    code = process.returncode
    found = watch.source if mode == "look" else watch.result
    if code == 0 and found is not None and isinstance(found, _ANSWERS[mode]):
        return found
    if code == -signal.SIGBUS:
        raise _BusError("the worker died by SIGBUS: the database was cut short under it")
    said = watch.noise.strip().splitlines()
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
