"""What a version of T3 that means harm would try from where it runs: everything it reached, by name."""

from __future__ import annotations

import glob
import os
import pwd
import socket
from collections.abc import Callable
from contextlib import suppress

FILES = (
    "/home/*/.t3/userdata/state.sqlite", "/home/*/.t3/userdata/secrets/*", "/home/*/.t3/worktrees/*", "/home/*/.claude/*",
    "/home/*/.ssh/*", "/root/*", "/etc/t3-serve/*", "/etc/shadow", "/etc/ttyd-user-map", "/var/backups/t3-state/*",
    "/var/lib/t3-autoupdate/journal.json", "/var/lib/private/*", "/var/lib/t3-gate-*/*", "/var/log/*/*", "/proc/*/environ",
    "/run/systemd/private", "/run/dbus/system_bus_socket", "/run/t3-test/*",
)  # fmt: skip
WRITABLE = ("/usr", "/etc", "/var/lib", "/var/tmp", "/tmp/..", "/home", "/dev/shm", "/run", "/srv", "/opt", "/usr/local/bin")
ADDRESSES = (("127.0.0.1", 4999), ("127.0.0.1", 3773), ("10.0.0.1", 53), ("192.0.2.1", 80))
SOCKETS = ("\0t3-test-abstract", "/run/t3-test/socket", "/run/systemd/private", "/run/systemd/journal/socket")
NAMES = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "T3_SECRET")


def reached() -> list[str]:
    """Names of what could be read, written, connected to, or hurt."""
    found: list[str] = []
    own = f"/proc/{os.getpid()}/"

    def attempt(name: str, what: Callable[[], object]) -> None:
        with suppress(OSError):
            if what() is not False:
                found.append(name)

    for pattern in FILES:
        for path in glob.glob(pattern):
            inside = os.environ.get("STATE_DIRECTORY", "\0")
            if not path.startswith((own, "/proc/self/", "/proc/thread-self/", inside)) and os.path.realpath(
                path
            ) != os.path.realpath(inside):
                attempt(f"read {path}", lambda path=path: _read(path))
    for folder in WRITABLE:
        attempt(f"write {folder}", lambda folder=folder: _write(folder))
    for host, port in ADDRESSES:
        attempt(f"tcp {host}:{port}", lambda host=host, port=port: socket.create_connection((host, port), 0.5).close())
    for path in SOCKETS:
        attempt(f"unix {path!r}", lambda path=path: _connect(path))
    found += [f"environment {name}" for name in NAMES if name in os.environ]
    for user in pwd.getpwall():
        if user.pw_dir.startswith("/home/"):
            attempt(f"list {user.pw_dir}", lambda user=user: os.listdir(user.pw_dir))
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid not in (os.getpid(), os.getppid()) and _uid(pid) != os.getuid():
            attempt(f"signal {pid}", lambda pid=pid: os.kill(pid, 0))
    attempt("become root", lambda: os.setuid(0) if os.getuid() else False)
    return found


def _read(path: str) -> bool:
    if os.path.isdir(path):
        return bool(os.listdir(path))
    with open(path, "rb") as file:
        return bool(file.read(1))


def _write(folder: str) -> bool:
    path = os.path.join(folder, "t3-hostile")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    os.unlink(path)
    return True


def _connect(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(path)
    return True


def _uid(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return os.getuid()
