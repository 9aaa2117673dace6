"""Stop (SIGSTOP) each new process of the caller's own, again and again, as only its user can.

Usage: [SECONDS], to wait between two looks. A worker of root's that has become this user never
answers then. Prints `stops` first.
"""

import os
import signal
import sys
import time


def main() -> None:
    own = {str(os.getpid()), str(os.getppid())}
    print("stops", flush=True)
    pause = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
    while True:
        time.sleep(pause)
        for pid in set(filter(str.isdigit, os.listdir("/proc"))) - own:
            try:
                with open(f"/proc/{pid}/status") as status:
                    if f"\nUid:\t{os.getuid()}\t" in status.read():
                        os.kill(int(pid), signal.SIGSTOP)
            except OSError:
                continue


if __name__ == "__main__":
    main()
