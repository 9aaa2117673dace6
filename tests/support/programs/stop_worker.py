"""Stop (SIGSTOP) the first worker of an operation that runs as a user, and print its pid.

Usage: USER OPERATION. Prints `watching` first, on standard output; the pid goes to standard error.

A worker may live for a tenth of a second: so this runs before all others, knows a worker by its
request while it still imports, and then looks at nothing but that one.
"""

import os
import pwd
import re
import signal
import sys


def _stop_once_it_is_the_users(pid: str, uid: int) -> None:
    """Raises OSError where it ends before."""
    while True:
        with open(f"/proc/{pid}/status") as status:
            if f"\nUid:\t{uid}\t" in status.read():
                os.kill(int(pid), signal.SIGSTOP)
                return


def main() -> None:
    uid = pwd.getpwnam(sys.argv[1]).pw_uid
    pattern = rb't3_backup.worker.*"%b".*"uid": %d,' % (sys.argv[2].encode(), uid)
    words = re.compile(pattern, re.DOTALL)
    os.nice(-20)  # on a busy machine a worker would come and go before this looks again
    print("watching", flush=True)
    while True:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as command:
                    if not words.search(command.read()):
                        continue
                _stop_once_it_is_the_users(pid, uid)
                sys.exit(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue


if __name__ == "__main__":
    main()
