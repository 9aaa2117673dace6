"""Start other programs in process groups of their own, where no Ctrl-C reaches them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import IO

_OF_A_TERMINAL = (signal.SIGINT, signal.SIGHUP)
Stream = int | IO[bytes] | None


def start_in_own_group(
    line: Sequence[str],
    *,
    stdin: Stream,
    stdout: Stream,
    stderr: Stream,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    pass_fds: Sequence[int] = (),
    session: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program in a process group, or a `session`, of its own. Raises OSError.

    A Ctrl-C is the command's to hear: it ends its programs, or lets them finish. A new process is
    in the command's group for a moment, and would end there by a Ctrl-C: it never gets one.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_A_TERMINAL)
    try:
        return subprocess.Popen(
            line,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
            process_group=None if session else 0,
            start_new_session=session,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_in_own_group(
    line: Sequence[str],
    *,
    env: Mapping[str, str],
    seconds: float | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a program in a process group of its own, and return how it ended and what it printed.

    Its standard input is empty. Raises OSError where it can't be started, and TimeoutExpired where
    it has not ended after so many `seconds`: then it was killed.
    """
    with start_in_own_group(
        line,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        pass_fds=pass_fds,
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(
        line, process.returncode, out.decode(errors="replace"), err.decode(errors="replace")
    )


def open_end(pid: int) -> int:
    """Open what is readable once that child of this process has ended. Raises OSError.

    A pidfd; or, where the kernel has none or a container's filter refuses what it doesn't know, a
    pipe that a thread closes then. The child must not be reaped before it is open.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    ours, theirs = os.pipe()
    threading.Thread(target=_close_at_end, args=(pid, theirs), daemon=True).start()
    return ours


def _close_at_end(pid: int, fd: int) -> None:
    with contextlib.suppress(ChildProcessError):  # somebody has reaped it
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    os.close(fd)
