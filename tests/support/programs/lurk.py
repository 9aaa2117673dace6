"""Try to take the descriptors of every process that begins, until a line is read.

Prints `lurking` first; in the end how often it tried, how often it got one, and the pids it saw.
"""

import ctypes
import os
import select
import sys

_PIDFD_GETFD = 438


def _processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    before, seen = _processes() | {os.getpid()}, set[int]()
    tries = got = 0
    print("lurking", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        for pid in _processes() - before:
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                continue
            for fd in range(3, 12):
                tries += 1
                taken = libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
                if taken >= 0:
                    got += 1
                    os.close(taken)
            os.close(pidfd)
            seen.add(pid)
    print(tries, got, *seen)


if __name__ == "__main__":
    main()
