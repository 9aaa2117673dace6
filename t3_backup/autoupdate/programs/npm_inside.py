"""Start npm in its cell, with the proxy outside of it as all of its network.

The cell's network is its own, with a loopback and nothing else. A socket that listens there is
handed to the proxy, over standard input, before npm runs: what connects to it speaks to a process
that is outside.
"""

from __future__ import annotations

import os
import socket
import sys

HOST, PORT = "127.0.0.1", 3128


def main() -> None:
    """Run the command line that is given as words."""
    with socket.create_server((HOST, PORT)) as listener, socket.socket(fileno=os.dup(0)) as proxy:
        socket.send_fds(proxy, [b"\n"], [listener.fileno()])
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    main()
