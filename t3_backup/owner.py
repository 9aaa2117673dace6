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

from t3_backup import protocol
from t3_backup.accounts import Account
from t3_backup.errors import Failure, WorkerLost
from t3_backup.protocol import Copied, Proven, Request, Source
from t3_backup.watch import Limits, Listener, Watch, supervise

_PACKAGE = Path(__file__).resolve().parent.parent

# The worker finds this very package, wherever it is, before it gives up the right to read it. -I keeps the environment, the working
# folder and the user's site-packages out.
_BOOT = (
    "import sys; p = sys.argv.pop(1); p in sys.path or sys.path.insert(0, p); from t3_backup.worker import main; sys.exit(main())"
)

_ANSWERS = {"look": Source, "copy": Copied, "prove": Proven}


def look(account: Account, limits: Limits, stopping: threading.Event) -> Source:
    """Find the account's database and its sizes. Raises as `copy` does."""
    found = _work(account, "look", limits, -1, stopping=stopping)
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
    method: str = "online",
    mmap: bool = True,
    share: int = 0,
    shares: int = 1,
) -> Source | Copied | Proven:
    """Start a worker, watch over it until it is dead, and judge what it said."""
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
                method=method,
                seconds=limits.seconds,
                wal_budget=limits.wal_budget,
                mmap=mmap,
                share=share,
                shares=shares,
            )
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, str(_PACKAGE), request.to_text()],
                stdin=subprocess.DEVNULL,
                stdout=theirs.fileno(),
                stderr=theirs.fileno(),
                pass_fds=[fd for fd in (theirs.fileno(), file) if fd >= 0],
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            )
        watch = Watch(limits)
        pidfd = os.pidfd_open(process.pid)
        try:
            supervise(process, pidfd, ours, watch, file if mode == "copy" else -1, stopping, listen)
        finally:
            os.close(pidfd)
            if watch.folder >= 0:
                os.close(watch.folder)
    return _judge(process, watch, mode)


def _judge(process: subprocess.Popen[bytes], watch: Watch, mode: str) -> Source | Copied | Proven:
    if isinstance(watch.result, Failure):
        raise watch.result
    code = process.returncode
    found = watch.source if mode == "look" else watch.result
    if code == 0 and found is not None and isinstance(found, _ANSWERS[mode]):
        return found
    if code == -signal.SIGBUS:
        raise _BusError("the worker died by SIGBUS: the database was cut short under it")
    said = watch.noise.strip().splitlines()
    last = f": {protocol.printable(said[-1])}" if said else ""
    if code < 0:
        raise WorkerLost(f"the worker was killed by {_signal_name(-code)}{last}")
    raise WorkerLost(f"the worker ended with {code} and no result{last}")


def _signal_name(number: int) -> str:
    """SIGKILL and its like; most of the real-time signals have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
