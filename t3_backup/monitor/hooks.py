"""Call hooks, the admin's own programs, by their names, when a run has failed.

Which file is one is decided here, and each has a bounded time, with the run's document on its
standard input. What goes wrong with a hook is told in one line: it is never raised, costs no other
hook its turn, and no backup anything.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import stat
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from t3_backup.output.console import Console
from t3_backup.system.deadline import Deadline
from t3_backup.system.process import open_end, start_in_own_group
from t3_backup.text import INFO

_NAME = re.compile(r"[A-Za-z0-9_-]+")  # run-parts(8)
# What an editor or a package leaves beside a hook; nobody means it to be called.
_LEFT_BEHIND = re.compile(r"README|\..*|.*~|#.*#|.*\.(bak|orig|swp|(dpkg|ucf)-[a-z]+)")
_TICK_S = 0.2
_GRACE_S = 2.0  # between SIGTERM and SIGKILL
_REAP_S = 10.0  # for what is dead, but stuck in the kernel
_KEPT = 4096  # bytes of what a hook says: the last ones
_PIECE = 1 << 16
_OF_THE_RUN = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "JOURNAL_STREAM")  # alone


@dataclass(frozen=True)
class Found:
    """What is in the folder: hooks in the order of calls, and what may be meant so."""

    folder: Path
    hooks: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()  # each with why


def find_hooks(folder: Path) -> Found:
    """Find the hooks in `folder`.

    One that is missing holds none; one that others may write to holds none that could be trusted.
    """
    me = os.geteuid()
    try:
        if why := objection_to_owner(os.stat(folder), me):
            return Found(folder, (), (f"all of it ({why})",))
        names = [name for name in sorted(os.listdir(folder)) if not _LEFT_BEHIND.fullmatch(name)]
        judged = {name: objection(name, (folder / name).lstat(), me) for name in names}
    except FileNotFoundError:
        return Found(folder)
    except OSError as error:
        return Found(folder, (), (f"all of it ({error.strerror})",))
    hooks = tuple(name for name, why in judged.items() if not why)
    return Found(folder, hooks, tuple(f"{name} ({why})" for name, why in judged.items() if why))


def objection(name: str, status: os.stat_result, me: int) -> str:
    """Say why a file is no hook for a run of uid `me`; empty where it is one."""
    if not _NAME.fullmatch(name):
        return "a name may have only letters, digits, - and _"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if not status.st_mode & 0o111:
        return "not executable"
    return objection_to_owner(status, me)


def objection_to_owner(status: os.stat_result, me: int) -> str:
    """Say why somebody else could decide what is in it; empty where nobody could."""
    if status.st_uid not in (0, me):
        return f"belongs to uid {status.st_uid}"
    return "others may write to it" if status.st_mode & 0o022 else ""


def call_all(
    found: Found,
    document: bytes,
    environ: Mapping[str, str],
    seconds: float,
    stopping: threading.Event,
    out: Console,
) -> bool:
    """Call every hook, for `seconds` at most; tell whether all ended well."""
    if found.passed_over:
        out.warn(f"ignored as hooks in {found.folder}: {', '.join(found.passed_over)}")
    well = True
    for name in found.hooks:
        if stopping.is_set():
            return False
        if problem := call_hook(found.folder / name, document, environ, seconds, stopping):
            out.warn(f"hook {name} {problem}")
            well = False
        else:
            out.line(INFO, f"called hook {name}")
    return well


def call_hook(
    hook: Path,
    document: bytes,
    environ: Mapping[str, str],
    seconds: float,
    stopping: threading.Event,
) -> str:
    """Call a hook, and say what went wrong, with its last line; empty if nothing."""
    given = os.memfd_create("run")  # a file: who doesn't read it holds nobody up
    try:
        with open(given, "wb", closefd=False) as file:
            file.write(document)
        os.lseek(given, 0, os.SEEK_SET)
        inherited = {name: value for name, value in os.environ.items() if name not in _OF_THE_RUN}
        process = start_in_own_group(
            [str(hook)],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=inherited | dict(environ),
            session=True,
        )
    except OSError as error:
        return f"can't be executed: {error.strerror} (is the program of its first line there?)"
    finally:
        os.close(given)
    ended, said = _watch(process, Deadline.after(seconds), stopping)
    code = process.poll()
    last = said.decode(errors="replace").strip().rpartition("\n")[2]
    saying = f": {last}" if last else ""
    if not ended:
        late = f"it took more than {seconds:g} s"
        return f"was ended, since {'the run was stopped' if stopping.is_set() else late}{saying}"
    if code is not None and code < 0:
        return f"was killed by signal {-code}{saying}"
    return f"failed (exit {code}){saying}" if code else ""


def _watch(
    process: subprocess.Popen[bytes], deadline: Deadline, stopping: threading.Event
) -> tuple[bool, bytes]:
    """Wait for its end, or end its group; return whether it ended, and its last bytes.

    The end of its output is not waited for: what it left in the background may hold that open.
    """
    assert process.stdout is not None
    out, said = process.stdout.fileno(), b""
    os.set_blocking(out, False)
    end = open_end(process.pid)
    poll = select.poll()
    poll.register(end, select.POLLIN)
    poll.register(out, select.POLLIN)
    ended = False
    try:
        while not ended and not stopping.is_set() and not deadline.passed():
            events = {fd for fd, _ in poll.poll(min(deadline.left(), _TICK_S) * 1000)}
            ended = end in events
            if out in events:
                piece = _read(out)
                said = (said + piece)[-_KEPT:]
                if not piece:
                    poll.unregister(out)
        if not ended:
            _signal_group(process, signal.SIGTERM)
            select.select([end], [], [], _GRACE_S)
            # not yet reaped, so that its number is still its own
            _signal_group(process, signal.SIGKILL)
            select.select([end], [], [], _REAP_S)
        return ended, (said + _read(out))[-_KEPT:]
    finally:
        os.close(end)
        process.stdout.close()


def _read(fd: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(fd, _PIECE)
    return b""


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
