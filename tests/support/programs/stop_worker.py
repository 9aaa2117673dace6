"""Stop (SIGSTOP) the first worker of an operation that runs as a user, and print its pid.

Usage: USER OPERATION. Prints `watching` first, on standard output; the pid goes to standard error.

A worker may live for a tenth of a second: so this runs before all others, knows workers by their
operation while they still import, and then looks at nothing but those.
"""

import os
import pwd
import signal
import sys


def _find_workers(operation: bytes) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if pid == str(os.getpid()):  # whose command line is this text, and names the operation
            continue
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as command:
                words = command.read().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if operation in words and any(b"t3_backup.worker" in word for word in words):
            found.append(pid)
    return found


def _stop_the_user_s(pids: list[str], uid: int) -> str | None:
    """Stop the first of them that becomes the user; None where all of them were others', or end."""
    others = f"\nUid:\t{os.getuid()}\t"
    while pids:
        for pid in tuple(pids):
            try:
                with open(f"/proc/{pid}/status") as status:
                    text = status.read()
            except (FileNotFoundError, ProcessLookupError):
                pids.remove(pid)
                continue
            if f"\nUid:\t{uid}\t" in text:
                os.kill(int(pid), signal.SIGSTOP)
                return pid
            if others not in text:
                pids.remove(pid)
    return None


def main() -> None:
    uid, operation = pwd.getpwnam(sys.argv[1]).pw_uid, sys.argv[2].encode()
    os.nice(-20)  # on a busy machine a worker would come and go before this looks again
    print("watching", flush=True)
    while True:
        if pid := _stop_the_user_s(_find_workers(operation), uid):
            sys.exit(pid)


if __name__ == "__main__":
    main()
