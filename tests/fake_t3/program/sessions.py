"""Pairing and sessions: credentials, signed cookies, and which of them are good."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import about
from about import now
from database import transaction

_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
_DAYS = 30
_LISTED = (
    "session_id, method, {role}, subject, client_ip_address, client_user_agent, client_device_type,"
    " issued_at, expires_at, last_connected_at"
)


def _stored(value: str | list[str]) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def mint(connection: sqlite3.Connection, seconds: float) -> dict[str, Any]:
    """Make a credential that logs one browser in. Raises sqlite3.Error."""
    made: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "credential": "".join(secrets.choice(_ALPHABET) for _ in range(12)),
        about.ROLE: about.MAY,
        "expiresAt": now(timedelta(seconds=seconds)),
    }
    connection.execute(
        f"INSERT INTO auth_pairing_links (id, credential, method, {about.ROLE}, subject,"
        " created_at, expires_at) VALUES (?, ?, 'one-time-token', ?, 'one-time-token', ?, ?)",
        (made["id"], made["credential"], _stored(about.MAY), now(), made["expiresAt"]),
    )
    return made


def list_credentials(connection: sqlite3.Connection) -> list[dict[str, str]]:
    """Those that nobody has used."""
    query = "SELECT id, expires_at FROM auth_pairing_links WHERE consumed_at IS NULL"
    return [{"id": name, "expiresAt": ends} for name, ends in connection.execute(query)]


def list_sessions(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Those that are good."""
    rows = connection.execute(
        f"SELECT {_LISTED.format(role=about.ROLE)} FROM auth_sessions"
        " WHERE revoked_at IS NULL AND expires_at > ? ORDER BY issued_at DESC",
        (now(),),
    )
    return [
        {
            "sessionId": name,
            "method": method,
            about.ROLE: may if isinstance(about.MAY, str) else json.loads(may),
            "subject": subject,
            "client": {"ipAddress": address, "userAgent": agent, "deviceType": device},
            "connected": False,
            "issuedAt": issued,
            "expiresAt": expires,
            "lastConnectedAt": connected,
        }
        for name, method, may, subject, address, agent, device, issued, expires, connected in rows
    ]


def revoke(connection: sqlite3.Connection, session: str) -> bool:
    """End a session; false where none of this id is good."""
    done = connection.execute(
        "UPDATE auth_sessions SET revoked_at = ?1"
        " WHERE session_id = ?2 AND revoked_at IS NULL AND expires_at > ?1",
        (now(), session),
    )
    return done.rowcount == 1


def cookie_name(base: Path, environment: str, host: str, port: int) -> str:
    """What the cookie of a server that listens there is called."""
    if about.RELEASE < (0, 0, 29):
        return "t3_session"
    if host in ("localhost", "::1") or host.startswith("127."):
        return f"t3_session_{port}_{_hash(str(base / 'userdata'))}"
    return "t3_session" if about.RELEASE < (0, 0, 42) else f"t3_session_{_hash(environment)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Sessions:
    """Cookies, signed with a key that is beside the database, and known to it."""

    def __init__(
        self,
        base: Path,
        names: tuple[str, ...],
        writing: sqlite3.Connection,
        reading: sqlite3.Connection,
    ) -> None:
        """Take a cookie of any of the `names`. Reading does not wait for who writes."""
        self.names, self.writing, self.reading = names, writing, reading
        path = base / "userdata" / "secrets" / "server-signing-key.bin"
        if not path.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.write_bytes(secrets.token_bytes(32))
            path.chmod(0o600)
        self.key = path.read_bytes()

    def begin(self, credential: str, address: str, agent: str) -> tuple[str, str] | None:
        """A cookie's value and the time of its end; None where the credential is wrong, used or old.

        All of it or, by sqlite3.Error, nothing.
        """
        with transaction(self.writing):
            found = self.writing.execute(
                f"SELECT id, subject, {about.ROLE} FROM auth_pairing_links WHERE credential = ?"
                " AND consumed_at IS NULL AND expires_at > ?",
                (credential, now()),
            ).fetchone()
            if found is None:
                return None
            name, expires = str(uuid.uuid4()), now(timedelta(days=_DAYS))
            self.writing.execute(
                "UPDATE auth_pairing_links SET consumed_at = ? WHERE id = ?", (now(), found[0])
            )
            self.writing.execute(
                f"INSERT INTO auth_sessions (session_id, subject, {about.ROLE}, method,"
                " client_ip_address, client_user_agent, client_device_type, issued_at, expires_at)"
                " VALUES (?, ?, ?, 'browser-session-cookie', ?, ?, 'desktop', ?, ?)",
                (name, found[1], found[2], address, agent, now(), expires),
            )
        return self._token(name, found[1]), expires

    def is_good(self, cookies: str) -> bool:
        """Whether one of the cookies of a request is of a session that is good."""
        return any(
            self._is_known(value)
            for name, value in re.findall(r"([^=;\s]+)=([^;\s]+)", cookies)
            if name in self.names
        )

    def _token(self, session: str, subject: str) -> str:
        issued = int(time.time() * 1000)
        said = {
            "v": 1,
            "kind": "session",
            "sid": session,
            "sub": subject,
            about.ROLE: about.MAY,
            "method": "browser-session-cookie",
            "iat": issued,
            "exp": issued + _DAYS * 86_400_000,
        }
        payload = _encode(json.dumps(said, separators=(",", ":")).encode())
        return f"{payload}.{self._sign(payload)}"

    def _sign(self, payload: str) -> str:
        return _encode(hmac.new(self.key, payload.encode(), hashlib.sha256).digest())

    def _is_known(self, value: str) -> bool:
        payload, _, signature = value.partition(".")
        if not hmac.compare_digest(self._sign(payload).encode(), signature.encode()):
            return False
        said = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        query = (
            "SELECT count(*) FROM auth_sessions"
            " WHERE session_id = ? AND revoked_at IS NULL AND expires_at > ?"
        )
        found = self.reading.execute(query, (said["sid"], now())).fetchone()[0]
        return bool(found == 1)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
