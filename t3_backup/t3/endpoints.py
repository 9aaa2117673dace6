"""Name what a T3 server answers to over HTTP: its address, paths and cookie."""

from __future__ import annotations

HOST = "127.0.0.1"
# Which of them takes a credential: the first from 0.0.25 on, the second until 0.0.24.
PAIRING_PATHS = ("/api/auth/browser-session", "/api/auth/bootstrap")
SESSION_PATH = "/api/auth/session"
COOKIE = "t3_session"
ENVIRONMENT_PATH = "/.well-known/t3/environment"
STEP_SECONDS = 15.0  # for each step of a login: no more than a person at a browser would wait
