"""Print what a person finds of their account, as JSON: what runs, their login, and their rows.

Usage: USER PORT COOKIE [write]. With `write` they write something before, where they can. It is
run as the user.
"""

import json
import os
import sqlite3
import subprocess
import sys
import urllib.request
from typing import Any

_USER, _PORT, _COOKIE, *_WRITE = sys.argv[1:]
_MINT = ("t3", "auth", "pairing", "create", "--base-dir", f"/home/{_USER}/.t3")
_V2 = "0.1."  # how its versions begin
# V2's compaction removes events; what was said stays
_EVENTS = "SELECT event_id FROM orchestration_events"
_MESSAGES = "SELECT message_id FROM projection_thread_messages"
_V2_MESSAGES = "SELECT message_id FROM orchestration_v2_projection_messages"
_LEVEL = "SELECT max(migration_id) FROM effect_sql_migrations"


def _ask(
    path: str, cookie: str, body: bytes | None = None, seconds: float = 20
) -> tuple[dict[str, Any], str]:
    """Return the document of the answer, and the cookie that it sets."""
    headers = {"Cookie": cookie, "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{_PORT}{path}", body, headers)
    with urllib.request.urlopen(request, timeout=seconds) as answer:
        return json.load(answer), answer.headers.get("Set-Cookie", "").split(";")[0]


def _log_in(version: str) -> str:
    """Return the cookie of a new login."""
    minted = subprocess.run(
        [*_MINT, "--ttl", "5m", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    ).stdout
    path = "bootstrap" if version == "0.0.24" else "browser-session"
    body = json.dumps({"credential": json.loads(minted)["credential"]}).encode()
    return _ask(f"/api/auth/{path}", _COOKIE, body)[1]


def _ask_version() -> str:
    """What the server says that it is; asked too early, it says nothing, and is asked again."""
    for seconds in (1, 2, 20):
        try:
            found = _ask("/.well-known/t3/environment", _COOKIE, seconds=seconds)[0]
            return str(found["serverVersion"])
        except TimeoutError:
            continue
    raise TimeoutError


def _ask_server() -> dict[str, Any]:
    """What the server says, and whether it could be written to."""
    found: dict[str, Any] = {"running": None, "wrote": False, "session": False}
    try:
        found["running"] = _ask_version()
        found["session"] = _ask("/api/auth/session", _COOKIE)[0]["authenticated"]
        if _WRITE:
            cookie = _COOKIE if found["session"] else _log_in(found["running"])
            _ask("/fake/event", cookie, b"{}")
            found["wrote"] = True
    except (OSError, ValueError):
        pass
    return found


def _read_account() -> dict[str, Any]:
    """What is in the database, and on which program the account is."""
    root = f"/var/lib/t3-autoupdate/{_USER}"
    link = f"{root}/current"
    program = os.readlink(link).rpartition("/")[2] if os.path.islink(link) else ""
    is_v2 = program.startswith(_V2)
    file = "statev2.sqlite" if is_v2 else "state.sqlite"
    c = sqlite3.connect(f"/home/{_USER}/.t3/userdata/{file}", timeout=20)
    messages = _V2_MESSAGES if is_v2 else _MESSAGES
    return {
        "level": c.execute(_LEVEL).fetchone()[0],
        "scopes": "scopes" in [row[1] for row in c.execute("PRAGMA table_info(auth_sessions)")],
        "rows": [row[0] for row in c.execute(messages)],
        "events": [] if is_v2 else [row[0] for row in c.execute(_EVENTS)],
        "program": program,
        "held": os.path.exists(f"{root}/held"),
    }


def main() -> None:
    found = _ask_server()
    if found["running"] or not _WRITE:
        found |= _read_account()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
