#!/usr/bin/python3
"""The stand-in for T3 Code as one program; what it knows of itself is in variant.json beside it.
See the package's own text."""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import re
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TextIO

HERE = Path(__file__).resolve().parent
ABOUT = json.loads((HERE / "variant.json").read_text())
VERSION = ABOUT["version"]
RELEASE = tuple(int(part) for part in VERSION.partition("-")[0].split("."))
LEVEL = 30 if RELEASE <= (0, 0, 24) else 31 if RELEASE == (0, 0, 25) else 32
VARIANT = (
    ABOUT["variant"] if not ABOUT["live_only"] or os.path.exists("/run/t3-fake-live") else "good"
)
ENDPOINT = "/api/auth/bootstrap" if LEVEL == 30 else "/api/auth/browser-session"
if VARIANT == "pairing-renamed":
    ENDPOINT = "/api/auth/web-session"
NAMES = {31: "AuthAuthorizationScopes", 32: "AuthPairingProofKeyThumbprint"}
MIGRATIONS = [
    "OrchestrationEvents",
    "OrchestrationCommandReceipts",
    "CheckpointDiffBlobs",
    "ProviderSessionRuntime",
    "Projections",
    "ProjectionThreadSessionRuntimeModeColumns",
    "ProjectionThreadMessageAttachments",
    "ProjectionThreadActivitySequence",
    "ProviderSessionRuntimeMode",
    "ProjectionThreadsRuntimeMode",
    "OrchestrationThreadCreatedRuntimeMode",
    "ProjectionThreadsInteractionMode",
    "ProjectionThreadProposedPlans",
    "ProjectionThreadProposedPlanImplementation",
    "ProjectionTurnsSourceProposedPlan",
    "CanonicalizeModelSelections",
    "ProjectionThreadsArchivedAt",
    "ProjectionThreadsArchivedAtIndex",
    "ProjectionSnapshotLookupIndexes",
    "AuthAccessManagement",
    "AuthSessionClientMetadata",
    "AuthSessionLastConnectedAt",
    "ProjectionThreadShellSummary",
    "BackfillProjectionThreadShellSummary",
    "CleanupInvalidProjectionPendingApprovals",
    "CanonicalizeModelSelectionOptions",
    "ProviderSessionRuntimeInstanceId",
    "ProjectionThreadSessionInstanceId",
    "ProjectionThreadDetailOrderingIndexes",
    "ProjectionThreadShellArchiveIndexes",
]
ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"


def now(later: timedelta = timedelta()) -> str:
    return (datetime.now(UTC) + later).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# -- the database


def database(base: Path, log: TextIO) -> sqlite3.Connection:
    """One connection, in WAL mode, without a busy timeout; every opening migrates, and says so in
    `log`."""
    folder = base / "userdata"
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(
        folder / "state.sqlite", timeout=0, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA foreign_keys=ON")
    migrate(connection, log)
    return connection


def migrate(connection: sqlite3.Connection, log: TextIO) -> None:
    tables = {
        row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    if "effect_sql_migrations" not in tables:
        connection.executescript("BEGIN;" + (HERE / "schema.sql").read_text() + ";COMMIT;")
        for number, name in enumerate(MIGRATIONS, 1):
            connection.execute(
                "INSERT INTO effect_sql_migrations (migration_id, name) VALUES (?, ?)",
                (number, name),
            )
    level = connection.execute("SELECT max(migration_id) FROM effect_sql_migrations").fetchone()[0]
    for step in range(level + 1, LEVEL + 1):
        print(f"Running migration {step} {NAMES[step]}", file=log, flush=True)
        if VARIANT == "slow-migration":
            time.sleep(600)
        if VARIANT == "half-migration":
            connection.execute("DROP TABLE auth_sessions")
            print(f"SqlError: migration {step} failed: disk I/O error", flush=True)
            sys.exit(1)
        connection.execute("BEGIN IMMEDIATE")
        if step == 31:
            for statement in (HERE / "auth-31.sql").read_text().split(";"):
                connection.execute(statement)
            if VARIANT == "unreadable":
                connection.execute("DELETE FROM projection_thread_messages")
                connection.execute("DELETE FROM projection_threads")
            if VARIANT == "blanked":
                connection.execute("UPDATE projection_thread_messages SET text = ''")
        else:
            connection.execute(
                "ALTER TABLE auth_pairing_links ADD COLUMN proof_key_thumbprint TEXT"
            )
        connection.execute(
            "INSERT INTO effect_sql_migrations (migration_id, name) VALUES (?, ?)",
            (step, NAMES[step]),
        )
        connection.execute("COMMIT")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block or nothing of it; it fails at once where somebody else writes."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def role() -> tuple[str, str]:
    """The column that says what a login may do, and its value."""
    return ("role", "client") if LEVEL == 30 else ("scopes", '["client"]')


def mint(connection: sqlite3.Connection, seconds: float) -> dict[str, object]:
    column, value = role()
    made = {
        "id": str(uuid.uuid4()),
        "credential": "".join(secrets.choice(ALPHABET) for _ in range(12)),
    }
    expires = now(timedelta(seconds=seconds))
    connection.execute(
        f"INSERT INTO auth_pairing_links (id, credential, method, {column}, subject, created_at, "
        "expires_at)"
        " VALUES (?, ?, 'one-time-token', ?, 'one-time-token', ?, ?)",
        (made["id"], made["credential"], value, now(), expires),
    )
    shown: object = value if LEVEL == 30 else json.loads(value)
    return made | {column: shown, "expiresAt": expires}


class Sessions:
    """Cookies, signed with a key that is beside the database, and known to it."""

    def __init__(self, base: Path, connection: sqlite3.Connection) -> None:
        self.connection = connection
        path = base / "userdata" / "secrets" / "cookie-signing.bin"
        if not path.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.write_bytes(secrets.token_bytes(32))
            path.chmod(0o600)
        self.key = path.read_bytes()

    def begin(self, credential: str) -> tuple[str, str] | None:
        """Id and time of its end; None where the credential is wrong, used or old. All of it or, by
        sqlite3.Error, nothing."""
        with transaction(self.connection):
            return self._begin(credential)

    def _begin(self, credential: str) -> tuple[str, str] | None:
        column, _ = role()
        found = self.connection.execute(
            f"SELECT id, subject, {column} FROM auth_pairing_links WHERE credential = ? AND "
            "consumed_at IS NULL AND expires_at > ?",
            (credential, now()),
        ).fetchone()
        if found is None:
            return None
        name, expires = str(uuid.uuid4()), now(timedelta(days=30))
        self.connection.execute(
            "UPDATE auth_pairing_links SET consumed_at = ? WHERE id = ?", (now(), found[0])
        )
        self.connection.execute(
            f"INSERT INTO auth_sessions (session_id, subject, {column}, method, issued_at, "
            "expires_at)"
            " VALUES (?, ?, ?, 'browser-session-cookie', ?, ?)",
            (name, found[1], found[2], now(), expires),
        )
        return f"{name}.{self.sign(name)}", expires

    def sign(self, name: str) -> str:
        return hmac.new(self.key, name.encode(), hashlib.sha256).hexdigest()

    def is_good(self, cookie: str) -> bool:
        match = re.search(r"t3_session=([0-9a-f-]+)\.([0-9a-f]+)", cookie or "")
        if not match or not hmac.compare_digest(self.sign(match[1]), match[2]):
            return False
        query = "SELECT count(*) FROM auth_sessions WHERE session_id = ? AND revoked_at IS NULL AND expires_at > ?"
        return self.connection.execute(query, (match[1], now())).fetchone()[0] == 1


# -- the server


class Handler(BaseHTTPRequestHandler):
    """What a browser may ask."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *words: object) -> None:
        pass

    def do_GET(self) -> None:
        if VARIANT == "hung":
            time.sleep(3600)
        if self.path == "/api/auth/session":
            good = (
                self.server.is_good(self.headers.get("Cookie", ""))
                and VARIANT != "not-authenticated"
            )
            self.say(200, {"authenticated": good})
            if VARIANT == "crash-loop" and good:
                threading.Timer(1, os._exit, (1,)).start()
        elif self.path == "/.well-known/t3/environment":
            self.say(200, {"environmentId": self.server.environment, "serverVersion": VERSION})
        elif self.path == "/fake/tab":
            self.close_connection = True
            self.server.tabs.add(self)  # before it says so
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b": open\n\n")
            self.wfile.flush()
            while not self.server.ended.is_set() and self.is_open():
                pass
            self.server.tabs.discard(self)
        else:
            self.say(200, b"<!doctype html><title>T3 Code</title>")

    def is_open(self) -> bool:
        """Whether the other side is still there, after a moment."""
        self.connection.settimeout(0.1)
        try:
            return bool(self.connection.recv(1))
        except TimeoutError:
            return True
        except OSError:
            return False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if VARIANT == "hung":
            time.sleep(3600)
        if self.path == ENDPOINT:
            self.exchange(body)
        elif self.path.startswith("/fake/") and self.server.is_good(self.headers.get("Cookie", "")):
            try:
                answer = self.server.fake(self.path, json.loads(body or b"{}"))
            except sqlite3.Error as error:
                print(f"error: {error}", flush=True)
                return self.say(500, {"error": "internal"})
            self.say(200, answer)
        else:
            self.say(404, b"")
        return None

    def exchange(self, body: bytes) -> None:
        if LEVEL > 30 and "json" not in self.headers.get("Content-Type", ""):
            return self.say(415, b"")
        try:
            credential = json.loads(body)["credential"]
        except (ValueError, KeyError, TypeError):
            return self.say(400, {"error": "invalid request"})
        try:
            with self.server.lock:
                made = self.server.sessions.begin(credential)
        except sqlite3.Error as error:
            print(f"error: {error}", flush=True)
            return self.say(500, {"error": "internal"})
        if made is None:
            return self.say(401, {"error": "invalid credential"})
        cookie, expires = made
        stamp = datetime.fromisoformat(expires).strftime("%a, %d %b %Y %H:%M:%S GMT")
        column, value = role()
        headers = {
            "Set-Cookie": f"t3_session={cookie}; Path=/; Expires={stamp}; HttpOnly; SameSite=Lax"
        }
        answer = {
            "authenticated": True, column: value if LEVEL == 30 else json.loads(value),
            "sessionMethod": "browser-session-cookie", "expiresAt": expires,
        }  # fmt: skip
        self.say(200, answer, {} if VARIANT == "no-cookie" else headers)
        return None

    def say(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header(
            "Content-Type", "text/html" if isinstance(body, bytes) else "application/json"
        )
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """A running one: one connection to its database, as T3 has it."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, port: int, base: Path) -> None:
        self.connection = database(base, sys.stdout)
        self.sessions = Sessions(base, self.connection)
        self.lock = threading.Lock()
        self.tabs: set[object] = set()
        self.ended = threading.Event()
        self.agents: list[subprocess.Popen[bytes]] = []
        path = base / "userdata" / "environment-id"
        if not path.exists():
            path.write_text(str(uuid.uuid4()))
        self.environment = path.read_text()
        super().__init__((host, port), Handler)
        (base / "server-runtime.json").write_text(json.dumps({"pid": os.getpid(), "port": port}))

    def is_good(self, cookie: str) -> bool:
        try:
            with self.lock:
                return self.sessions.is_good(cookie)
        except sqlite3.Error:
            return False

    def fake(self, path: str, words: dict[str, str]) -> dict[str, int]:
        """What an agent or a person would do with it; of a new agent, its `pid`."""
        with self.lock:
            if path == "/fake/agent":
                agent = subprocess.Popen(
                    ["claude", words.get("seconds", "3600")], executable="/bin/sleep"
                )
                self.agents.append(agent)
                return {"pid": agent.pid}
            if path == "/fake/no-agent":
                for agent in self.agents:
                    agent.kill()
                    agent.wait()
                return {}
            found = self.connection.execute("SELECT thread_id FROM projection_threads").fetchone()
            name, thread = str(uuid.uuid4()), found[0] if found else "fake-thread"
            with transaction(self.connection):
                if path == "/fake/event":
                    self.event(thread, name)
                elif path == "/fake/turn":
                    self.turn(thread, name if words["state"] == "running" else None)
            return {}

    def event(self, thread: str, name: str) -> None:
        """Somebody says something in a thread."""
        self.connection.execute(
            "INSERT INTO orchestration_events (event_id, aggregate_kind, stream_id, "
            "stream_version, event_type, occurred_at,"
            " actor_kind, payload_json, metadata_json) VALUES (?, 'thread', ?, 1, "
            "'thread.message-sent', ?, 'client', '{}', '{}')",
            (name, name, now()),
        )
        self.connection.execute(
            "INSERT INTO projection_thread_messages (message_id, thread_id, role, text, "
            "is_streaming, created_at, updated_at)"
            " VALUES (?, ?, 'user', ?, 0, ?, ?)",
            (name, thread, f"said at {now()}", now(), now()),
        )

    def turn(self, thread: str, begun: str | None) -> None:
        """A turn of this name begins in a thread, or the one that it is at ends."""
        if begun is None:
            self.connection.execute(
                "UPDATE projection_turns SET state = 'completed', completed_at = ? WHERE thread_id "
                "= ? AND state = 'running'",
                (now(), thread),
            )
        else:
            self.connection.execute(
                "INSERT INTO projection_turns (thread_id, turn_id, state, requested_at, "
                "started_at, checkpoint_files_json)"
                " VALUES (?, ?, 'running', ?, ?, '[]')",
                (thread, begun, now(), now()),
            )
        self.connection.execute(
            "INSERT INTO projection_thread_sessions (thread_id, status, active_turn_id, "
            "updated_at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (thread_id) DO UPDATE SET status = excluded.status, active_turn_id = "
            "excluded.active_turn_id,"
            " updated_at = excluded.updated_at",
            (thread, "running" if begun else "ready", begun, now()),
        )


def serve(args: argparse.Namespace) -> int:
    # Handled, not blocked, which an agent would inherit; and by a pipe, since a handler that takes
    # a lock may meet its own thread.
    asked, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    if VARIANT == "exits":
        print("error: Cannot find module 'node:sqlite'", flush=True)
        return 1
    if VARIANT == "hostile":
        import hostile  # beside it

        os.environ["STATE_DIRECTORY"] = str(args.base_dir)  # what it was given is its own
        print("hostile: " + json.dumps(hostile.reached(ABOUT["targets"])), flush=True)
        return 1
    server = Server(args.host, args.port, args.base_dir)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    print(f"T3 Code {VERSION} listens on http://{args.host}:{args.port}", flush=True)
    os.read(asked, 1)
    while VARIANT == "ignores-term":
        time.sleep(3600)
    server.shutdown()
    server.server_close()  # the listener closes at once
    until = time.monotonic() + float(os.environ.get("T3_FAKE_LINGER", "20"))
    while server.tabs and time.monotonic() < until:
        time.sleep(0.05)
    if VARIANT == "slow-stop":
        time.sleep(45)
    server.ended.set()
    with server.lock:
        server.connection.close()  # checkpoints, and removes -wal and -shm
    (args.base_dir / "server-runtime.json").unlink(missing_ok=True)
    return 130


def pairing(args: argparse.Namespace) -> int:
    print("(node:1) ExperimentalWarning: SQLite is an experimental feature", file=sys.stderr)
    try:
        if VARIANT == "mint-broken":
            raise sqlite3.OperationalError("no such column: subject")
        connection = database(args.base_dir, sys.stderr)  # standard output is the answer's alone
        if args.action == "create":
            print(json.dumps(mint(connection, seconds_of(args.ttl)), indent=2))
        else:
            rows = connection.execute(
                "SELECT id, expires_at FROM auth_pairing_links WHERE consumed_at IS NULL"
            ).fetchall()
            print(json.dumps([{"id": row[0], "expiresAt": row[1]} for row in rows], indent=2))
        connection.close()
    except sqlite3.Error as error:
        print(f"SqlError: {error}")
        return 1
    return 0


def seconds_of(text: str) -> float:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    assert match, text
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def main() -> int:
    if sys.argv[1:] == ["--version"]:
        print(f"t3 v{VERSION}")
        return 0
    parser = argparse.ArgumentParser(prog="t3")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve")
    serving.add_argument("--host", default="127.0.0.1")
    serving.add_argument("--port", type=int, default=3773)
    auth = commands.add_parser("auth").add_subparsers(dest="what", required=True)
    minting = auth.add_parser("pairing")
    minting.add_argument("action", choices=("create", "list"))
    minting.add_argument("--ttl", default="5m")
    minting.add_argument("--json", action="store_true")
    for one in (serving, minting):
        one.add_argument("--base-dir", type=Path, default=Path.home() / ".t3")
    args = parser.parse_args()
    return serve(args) if args.command == "serve" else pairing(args)


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
