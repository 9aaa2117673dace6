"""Do what a browser does, and print what came of it as JSON.

Usage: USER PORT login (a new cookie), USER PORT session COOKIE (whether it is logged in), or USER
PORT PATH COOKIE BODY (the status of the answer).
"""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

_USER, _PORT, _WHAT, *_WORDS = sys.argv[1:]


def _call(path: str, body: object = None, cookie: str = "") -> tuple[int, bytes, str]:
    """Return the status, the body and the cookie of the answer."""
    headers = {"Content-Type": "application/json"} | ({"Cookie": cookie} if cookie else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{_PORT}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read(), answer.headers.get("Set-Cookie", "").split(";")[0]
    except urllib.error.HTTPError as error:
        return error.code, b"", ""


def _log_in() -> str:
    """Return a new cookie; "" where nobody gives one."""
    line = ["runuser", "-u", _USER, "--", "t3", "auth", "pairing", "create"]
    line += ["--base-dir", f"/home/{_USER}/.t3", "--ttl", "5m", "--json"]
    minted = json.loads(subprocess.run(line, stdout=subprocess.PIPE, check=True).stdout)
    cookie = ""
    for path in ("/api/auth/browser-session", "/api/auth/bootstrap"):
        status, _, cookie = _call(path, {"credential": minted["credential"]})
        if status == 200:
            break
    return cookie


def main() -> None:
    found: Any
    if _WHAT == "login":
        found = _log_in()
    elif _WHAT == "session":
        found = json.loads(_call("/api/auth/session", cookie=_WORDS[0])[1])["authenticated"]
    else:
        found = _call(_WHAT, json.loads(_WORDS[1]), _WORDS[0])[0]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
