#!/usr/bin/python3
"""The stand-in for T3 Code: its commands. What it knows of itself is in variant.json beside it."""

from __future__ import annotations

import argparse
import json
import os
import re
import sqlite3
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # into an installed version, by the modules beside it

import about  # noqa: E402
import noise  # noqa: E402
import sessions  # noqa: E402
from database import open_database  # noqa: E402


def pairing(args: argparse.Namespace) -> int:
    """`t3 auth pairing create` and `list`; the exit status."""
    noise.warn_of_sqlite()
    try:
        if about.VARIANT == "mint-broken":
            raise sqlite3.OperationalError("no such column: subject")
        about.burn("mint")
        connection = open_database(args.base_dir, sys.stderr)  # stdout is the answer's alone
        if args.action == "create":
            print(json.dumps(sessions.mint(connection, _seconds(args.ttl)), indent=2))
        else:
            print(json.dumps(sessions.list_credentials(connection), indent=2))
        connection.close()
    except sqlite3.Error as error:
        noise.say_error("ServerAuthPairingLinkCreationError: Failed to create pairing link.", error)
        return 1
    return 0


def session(args: argparse.Namespace) -> int:
    """`t3 auth session list` and `revoke ID`; the exit status."""
    noise.warn_of_sqlite()
    try:
        connection = open_database(args.base_dir, sys.stderr)
        if args.action == "list":
            print(json.dumps(sessions.list_sessions(connection), indent=2))
        elif sessions.revoke(connection, args.id):
            print(f"Revoked session {args.id}.\n")
        else:
            print(f"No active session found for {args.id}.\n")
        connection.close()
    except sqlite3.Error as error:
        noise.say_error("ServerAuthSessionError: Failed to read sessions.", error)
        return 1
    return 0


def serve(args: argparse.Namespace) -> int:
    """`t3 serve`; the exit status."""
    from server import serve as run  # a command needs no server

    return run(args)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    assert match, text
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def main() -> int:
    if sys.argv[1:] == ["--version"]:
        about.burn("version")
        print(f"t3 v{about.VERSION}")
        return 0
    parser = argparse.ArgumentParser(prog="t3")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve")
    serving.add_argument("--host", default="127.0.0.1")
    serving.add_argument("--port", type=int, default=3773)
    serving.add_argument("--no-browser", action="store_true")
    serving.set_defaults(run=serve)
    auth = commands.add_parser("auth").add_subparsers(dest="what", required=True)
    minting = auth.add_parser("pairing")
    minting.add_argument("action", choices=("create", "list"))
    minting.add_argument("--ttl", default="5m")
    minting.add_argument("--json", action="store_true")
    minting.set_defaults(run=pairing)
    logins = auth.add_parser("session").add_subparsers(dest="action", required=True)
    listing, revoking = logins.add_parser("list"), logins.add_parser("revoke")
    listing.add_argument("--json", action="store_true")
    revoking.add_argument("id")
    for one in (listing, revoking):
        one.set_defaults(run=session)
    for one in (serving, minting, listing, revoking):
        one.add_argument("--base-dir", type=Path, default=Path.home() / ".t3")
    args = parser.parse_args()
    return int(args.run(args))


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
