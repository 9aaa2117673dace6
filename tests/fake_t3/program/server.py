"""A running server: what a browser may ask it, and how it ends."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import sys
import threading
import time
import uuid
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import about
import compact_v2
import noise
from about import VARIANT
from database import open_database, open_reading, why_unreadable
from sessions import Sessions, cookie_name, mint
from work import Work

_V1_EVENTS = "SELECT count(*) FROM orchestration_events WHERE application_event_version = 1"


class Handler(BaseHTTPRequestHandler):
    """What a browser may ask."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *words: object) -> None:
        pass

    def parse_request(self) -> bool:
        """Hear nobody who has asked too early."""
        if not self.server.hears.is_set():
            self.server.ended.wait()
            self.close_connection = True
            return False
        if VARIANT == "hung":
            time.sleep(3600)
        about.be_slow("answer")
        return super().parse_request()

    def do_GET(self) -> None:
        if self.path == "/api/auth/session":
            self._tell_session()
        elif self.path == "/.well-known/t3/environment":
            self._tell_environment()
        elif self.path == "/fake/tab":
            self._hold_tab()
        else:
            self._say(200, b"<!doctype html><title>T3 Code</title>")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == about.ENDPOINT:
            self._exchange(body)
        elif self.path.startswith("/fake/") and self.server.is_good(self.headers.get("Cookie", "")):
            try:
                with self.server.lock:
                    found = self.server.work.do(
                        self.path.removeprefix("/fake/"), json.loads(body or b"{}")
                    )
            except sqlite3.Error as error:
                noise.say_error("PersistenceSqlError", error)
                return self._say(500, {"error": "internal"})
            self._say(200, found)
        else:
            self._say(404, b"")
        return None

    def _tell_environment(self) -> None:
        found = {"environmentId": self.server.environment, "serverVersion": about.VERSION}
        if about.IS_EXECUTABLE:
            platform = {"os": "linux", "arch": "x64"}
            found |= {"label": "vm", "platform": platform, "capabilities": {}}
        self._say(200, found)

    def _tell_session(self) -> None:
        good = (
            self.server.is_good(self.headers.get("Cookie", "")) and VARIANT != "not-authenticated"
        )
        found: dict[str, object] = {"authenticated": good}
        if about.IS_EXECUTABLE:
            found["auth"] = {
                "policy": "loopback-browser" if self.server.host.startswith("127.") else "remote",
                "bootstrapMethods": ["one-time-token"],
                "sessionMethods": ["browser-session-cookie", "bearer-access-token"],
                "sessionCookieName": self.server.cookie,
            }
            if good:  # as if it were new
                found |= {"scopes": about.MAY, "sessionMethod": "browser-session-cookie"}
                found["expiresAt"] = about.now(timedelta(days=30))
        self._say(200, found)
        if VARIANT == "crash-loop" and good:
            threading.Timer(1, os._exit, (1,)).start()

    def _hold_tab(self) -> None:
        self.close_connection = True
        self.server.tabs.add(self)  # before it says so
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b": open\n\n")
        self.wfile.flush()
        while not self.server.ended.is_set() and self._is_open():
            pass
        self.server.tabs.discard(self)

    def _is_open(self) -> bool:
        """Whether the other side is still there, after a moment."""
        self.connection.settimeout(0.1)
        try:
            return bool(self.connection.recv(1))
        except TimeoutError:
            return True
        except OSError:
            return False

    def _exchange(self, body: bytes) -> None:
        if about.LEVEL > 30 and "json" not in self.headers.get("Content-Type", ""):
            return self._say(415, b"")
        try:
            credential = json.loads(body)["credential"]
        except (ValueError, KeyError, TypeError):
            return self._say(400, {"error": "invalid request"})
        try:
            with self.server.lock:
                agent = self.headers.get("User-Agent", "")
                made = self.server.sessions.begin(credential, self.client_address[0], agent)
        except sqlite3.Error as error:
            noise.say_error("PersistenceSqlError", error)
            return self._say(500, {"error": "internal"})
        if made is None:
            return self._say(401, {"error": "invalid credential"})
        token, expires = made
        stamp = datetime.fromisoformat(expires).strftime("%a, %d %b %Y %H:%M:%S GMT")
        cookie = f"{self.server.cookie}={token}; Path=/; Expires={stamp}; HttpOnly; SameSite=Lax"
        answer = {
            "authenticated": True,
            about.ROLE: about.MAY,
            "sessionMethod": "browser-session-cookie",
            "expiresAt": expires,
        }
        self._say(200, answer, {} if VARIANT == "no-cookie" else {"Set-Cookie": cookie})
        return None

    def _say(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "text/html" if isinstance(body, bytes) else "application/json"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """One connection to its database that writes, and in V2 a second one, which reads."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, port: int, base: Path, writing: sqlite3.Connection) -> None:
        self.host, self.base = host, base
        self.writing = writing
        self.reading = open_reading(base) if about.IS_V2 else writing
        self.lock = threading.Lock()
        # a connection is one thread's at a time
        self.reading_lock = threading.Lock() if about.IS_V2 else self.lock
        self.work = Work(writing)
        self.tabs: set[object] = set()
        self.hears, self.ended = threading.Event(), threading.Event()
        path = base / "userdata" / "environment-id"
        if not path.exists():
            path.write_text(str(uuid.uuid4()))
        self.environment = path.read_text()
        self.cookie = cookie_name(base, self.environment, host, port)
        self.sessions = Sessions(base, self._accepted(), writing, self.reading)
        super().__init__((host, port), Handler)
        self._runtime = base / "userdata" / "server-runtime.json"
        self._runtime.write_text(json.dumps({
            "version": 1,
            "pid": os.getpid(),
            "host": host,
            "port": port,
            "origin": f"http://{host}:{port}",
            "startedAt": about.now(),
        }))  # fmt: skip

    def _accepted(self) -> tuple[str, ...]:
        """Off loopback the name of earlier versions is still taken."""
        is_local = self.cookie.count("_") == 3
        return (self.cookie,) if is_local else (self.cookie, "t3_session")

    def is_good(self, cookies: str) -> bool:
        """Whether a request with these cookies is from somebody who is logged in."""
        try:
            with self.reading_lock:
                return self.sessions.is_good(cookies)
        except sqlite3.Error:
            return False

    def end(self) -> None:
        """Let go of its database, which removes -wal and -shm, and of its file."""
        self.ended.set()
        with self.reading_lock:
            if self.reading is not self.writing:
                self.reading.close()
        with self.lock:
            self.writing.close()
        self._runtime.unlink(missing_ok=True)


def serve(args: argparse.Namespace) -> int:
    """Run until it is asked to end; the exit status."""
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
        import hostile

        os.environ["STATE_DIRECTORY"] = str(args.base_dir)  # what it was given is its own
        print("hostile: " + json.dumps(hostile.reached(about.TARGETS)), flush=True)
        return 1
    about.be_slow("start")
    again = (args.base_dir / "userdata" / about.DATABASE).exists()
    writing = open_database(args.base_dir, sys.stdout)
    if VARIANT == "migrates-and-dies":
        noise.say_error("ProjectionError: projector failed", "no such projection: threads")
        return 1
    if why := why_unreadable(writing):
        noise.say_error("OrchestrationError: Failed to read events", why)
        return 1
    if about.IS_V2 and again and writing.execute(_V1_EVENTS).fetchone()[0]:
        compact_v2.compact(writing)  # not at the start that has imported them
    server = Server(args.host, args.port, args.base_dir, writing)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    if about.DEAF_S:
        threading.Timer(about.DEAF_S, server.hears.set).start()
    else:
        server.hears.set()
    thread.start()
    server.hears.wait()
    print(f"T3 Code {about.VERSION} listens on http://{args.host}:{args.port}", flush=True)
    if about.IS_EXECUTABLE:
        with server.lock:
            made = mint(writing, 3600)
        noise.show_pairing(args.host, args.port, made["credential"])
    noise.make()
    os.read(asked, 1)
    while VARIANT == "ignores-term":
        time.sleep(3600)
    server.shutdown()
    server.server_close()  # the listener closes at once
    until = time.monotonic() + about.LINGER_S
    while server.tabs and time.monotonic() < until:
        time.sleep(0.05)
    if VARIANT == "slow-stop":
        time.sleep(45)
    about.be_slow("stop")
    server.end()
    return 130
