"""Be a T3 server to systemd: SIGTERM is answered with exit code 130, after a while.

Usage: DATABASE. How many seconds it takes is in /run/linger. /opt/t3 does the work: T3 by its name.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    awaited = {signal.SIGTERM, signal.SIGCHLD}
    # The child inherits it, and ends when its input does.
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    line = [sys.executable, "/opt/t3", "--interval=0.01", sys.argv[1]]
    server = subprocess.Popen(line, stdin=subprocess.PIPE)
    if signal.sigwait(awaited) == signal.SIGCHLD:
        sys.exit(server.wait())
    time.sleep(float(Path("/run/linger").read_text()))
    assert server.stdin is not None
    server.stdin.close()
    server.wait()
    sys.exit(130)


if __name__ == "__main__":
    main()
