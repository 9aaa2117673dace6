"""Measure the longest time in which nobody answered on a port, until standard input ends.

Usage: USER=PORT... Prints `began`, and in the end the seconds of each user as JSON.
"""

import json
import select
import socket
import sys
import time


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 0.5) as there:
            there.settimeout(0.5)
            there.sendall(b"GET /.well-known/t3/environment HTTP/1.0\r\n\r\n")
            return bool(there.recv(1))
    except OSError:
        return False


def main() -> None:
    ports = {user: int(port) for user, port in (word.split("=") for word in sys.argv[1:])}
    last = {user: time.monotonic() for user in ports}
    longest = dict.fromkeys(ports, 0.0)
    print("began", flush=True)
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        for user, port in ports.items():
            if _answers(port):
                now = time.monotonic()
                longest[user], last[user] = max(longest[user], now - last[user]), now
    for user in ports:
        longest[user] = max(longest[user], time.monotonic() - last[user])
    print(json.dumps(longest))


if __name__ == "__main__":
    main()
