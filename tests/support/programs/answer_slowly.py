"""Be a T3 that answers a byte at a time, and never to the end.

Usage: as a T3's; `--port PORT` is all that counts.
"""

import contextlib
import socket
import sys
import time


def main() -> None:
    port = int(sys.argv[sys.argv.index("--port") + 1])
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            there, _ = server.accept()
            with there, contextlib.suppress(ConnectionError):
                there.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while True:
                    there.sendall(b"x")
                    time.sleep(0.2)


if __name__ == "__main__":
    main()
