"""Listen on sockets of every kind that all may connect to, until standard input ends.

Each is a way out of a network of one's own, or of a file system. Prints `listens` once all are
there.
"""

import os
import selectors
import socket
import sys

_PATH = "/run/t3-test/socket"
_ADDRESS = ("127.0.0.1", 4999)


def main() -> None:
    os.makedirs(os.path.dirname(_PATH), exist_ok=True)
    with (
        socket.socket() as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as path,
        socket.socket(socket.AF_UNIX) as abstract,
        selectors.DefaultSelector() as selector,
    ):
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for server in (tcp, udp):
            server.bind(_ADDRESS)
        path.bind(_PATH)
        os.chmod(_PATH, 0o777)
        abstract.bind("\0t3-test-abstract")
        for server in (tcp, path, abstract):
            server.listen(50)
            selector.register(server, selectors.EVENT_READ, server)
        selector.register(udp, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        print("listens", flush=True)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    os.unlink(_PATH)
                    sys.exit()
                elif key.fileobj is udp:
                    udp.sendto(b"!", udp.recvfrom(10)[1])
                else:
                    key.data.accept()[0].close()


if __name__ == "__main__":
    main()
