"""The install script of a package that means harm: write down all that it reached, by name.

Usage: TARGET... in the folder of the package, whose `dist/hostile.py` knows the means. It also asks
the proxy, if it was given one, for what the proxy must not reach.
"""

import importlib
import json
import os
import re
import socket
import sys
import urllib.parse

ANSWERED = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ")


def ask_proxy(request: str) -> bytes:
    """Return the status with which the proxy answers, or nothing."""
    proxy = urllib.parse.urlsplit(os.environ["https_proxy"])
    with socket.create_connection((proxy.hostname, proxy.port), 5) as there:
        there.sendall(f"{request}\r\nHost: x\r\n\r\n".encode())
        match = ANSWERED.match(there.recv(100))
    return match[1] if match else b""


def main() -> None:
    """Try all, and write it down."""
    sys.path.insert(0, "dist")
    found = importlib.import_module("hostile").reached(sys.argv[1:])
    said = {}
    if "https_proxy" in os.environ:
        for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1"):
            said[f"CONNECT {host}"] = ask_proxy(f"CONNECT {host}:4999 HTTP/1.1")
            said[f"GET {host}"] = ask_proxy(f"GET http://{host}:4999/ HTTP/1.1")
        said["CONNECT 169.254.169.254"] = ask_proxy("CONNECT 169.254.169.254:80 HTTP/1.1")
    report = {
        "reached": found,
        "proxy": {name: status.decode() for name, status in said.items()},
        "environment": sorted(os.environ),
    }
    with open("reached.json", "w", encoding="utf-8") as file:
        json.dump(report, file)


if __name__ == "__main__":
    main()
