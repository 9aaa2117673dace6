"""Try all ways of one process into another one of the same user's.

Usage: PID. Prints a JSON object: each way, and `done` or the name of the error.
"""

import ctypes
import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

_PTRACE_ATTACH, _PTRACE_SEIZE, _PIDFD_GETFD = 16, 0x4206, 438
# Where a program may or may not be: EFAULT is past the question of the right to.
_ADDRESS = 0x400000

_libc = ctypes.CDLL(None, use_errno=True)
_got: dict[str, str] = {}


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


def _call(name: str, result: int) -> None:
    _got[name] = errno.errorcode[ctypes.get_errno()] if result < 0 else "done"


def _attempt(name: str, step: Callable[[], object]) -> None:
    try:
        step()
        _got[name] = "done"
    except OSError as error:
        _got[name] = errno.errorcode[error.errno or 0]


def _open_descriptors(pid: int, fds: range) -> None:
    """Open any of its descriptors again."""
    opened, failed = 0, ""
    for fd in fds:
        try:
            os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR)
            opened += 1
        except OSError as error:
            failed = errno.errorcode[error.errno or 0]
    _got["open a descriptor"] = "done" if opened else failed


def _read_memory(pid: int) -> None:
    buffer = ctypes.create_string_buffer(8)
    mine, its = _Vector(ctypes.addressof(buffer), 8), _Vector(_ADDRESS, 8)
    result = _libc.process_vm_readv(pid, ctypes.byref(mine), 1, ctypes.byref(its), 1, 0)
    failed = ctypes.get_errno()
    done = result > 0 or failed == errno.EFAULT
    _got["read its memory"] = "done" if done else errno.errorcode[failed]


def main() -> None:
    pid, fds = int(sys.argv[1]), range(32)
    pidfd = os.pidfd_open(pid)
    _call("pidfd_getfd", max(_libc.syscall(_PIDFD_GETFD, pidfd, fd, 0) for fd in fds))
    proc = Path("/proc", str(pid))
    _attempt("list its descriptors", lambda: os.listdir(proc / "fd"))
    _open_descriptors(pid, fds)
    _attempt("open its memory", lambda: os.open(proc / "mem", os.O_RDWR))
    _attempt("read its environment", (proc / "environ").read_bytes)
    _attempt("read its maps", (proc / "maps").read_bytes)
    _read_memory(pid)
    _call("ptrace seize", _libc.ptrace(_PTRACE_SEIZE, pid, None, None))
    if _got["ptrace seize"] != "done":
        _call("ptrace attach", _libc.ptrace(_PTRACE_ATTACH, pid, None, None))
    print(json.dumps(_got))


if __name__ == "__main__":
    main()
