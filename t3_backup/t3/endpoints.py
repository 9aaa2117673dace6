"""Name what a T3 server answers to over HTTP: its address, its paths and its login cookie."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HOST = "127.0.0.1"
# Which of them takes a credential: the first from 0.0.25 on, the second until 0.0.24.
PAIRING_PATHS = ("/api/auth/browser-session", "/api/auth/bootstrap")
SESSION_PATH = "/api/auth/session"
ENVIRONMENT_PATH = "/.well-known/t3/environment"
# What the login cookie is called where the server does not say. From 0.0.29 on an ending follows:
# of the base directory on loopback (with the port), and of the environment-id elsewhere.
COOKIE = "t3_session"
_COOKIE_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # a token of RFC 9110
_SHOWN = 5


def told_cookie_name(session: Mapping[str, Any]) -> str | None:
    """Read the name of the login cookie in what SESSION_PATH answers; None where it is not told."""
    auth = session.get("auth")
    name = auth.get("sessionCookieName") if isinstance(auth, dict) else None
    return name if isinstance(name, str) and _COOKIE_NAME.fullmatch(name) else None


def login_cookies(cookies: Mapping[str, str], told: str | None) -> dict[str, str]:
    """Choose the login cookies of those that a login has set: the one that was told, or by name."""
    if told is not None and cookies.get(told):
        return {told: cookies[told]}
    return {
        name: value
        for name, value in cookies.items()
        if value and (name == COOKIE or name.startswith(f"{COOKIE}_"))
    }


def no_login_cookie(cookies: Mapping[str, str], told: str | None) -> str:
    """Say which cookie a login has not set, and which ones it has."""
    missing = f"set no cookie {told or f'{COOKIE} or {COOKIE}_...'}"
    names = [name[:128] for name in cookies][:_SHOWN]
    return f"{missing}, but {', '.join(names)}" if names else missing
