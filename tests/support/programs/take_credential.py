"""Listen on a port of somebody else's, and take the credential of the first who offers it.

Prints the port, then what it got.
"""

import socket


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as port:
        print(port.getsockname()[1], flush=True)
        port.settimeout(20)
        taken, _ = port.accept()
        print(taken.recv(65536), flush=True)


if __name__ == "__main__":
    main()
