"""What a version of T3 that means harm would try from where it runs: everything it reached, by
name."""

from __future__ import annotations

import ctypes
import glob
import os
import pwd
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve()
FILES = (
    "/home/*/.t3/userdata/state.sqlite", "/home/*/.t3/userdata/secrets/*", "/home/*/.t3/worktrees/*", "/home/*/.claude/*",
    "/home/*/.codex/*", "/home/*/.ssh/*", "/root/*", "/root/.*", "/etc/t3-serve/*", "/etc/shadow", "/etc/ttyd-user-map",
    "/var/backups/t3-state/*", "/var/lib/t3-autoupdate/*", "/var/lib/t3-autoupdate/versions/*", "/var/lib/private/*",
    "/var/lib/t3-gate-*/*", "/var/log/*/*", "/run/systemd/private", "/run/dbus/system_bus_socket", "/run/t3-test/*", "/sys/*",
)  # fmt: skip
# without /tmp and /var/tmp: to write to one's own harms nobody, and whose they are is told by what
# can be read there
WRITABLE = (
    "/usr", "/etc", "/var/lib", "/tmp/..", "/home", "/dev/shm", "/run", "/srv", "/opt", "/usr/local/bin", str(HERE.parent),
)  # fmt: skip
ADDRESSES = (
    "127.0.0.1:4999",
    "127.0.0.1:3773",
    "127.0.0.53:53",
    "10.0.0.1:53",
    "169.254.169.254:80",
    "192.0.2.1:80",
)
SOCKETS = (
    "@t3-test-abstract",
    "/run/t3-test/socket",
    "/run/systemd/private",
    "/run/systemd/journal/socket",
)
NAMES = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "T3_SECRET")
_PATIENCE_S = 0.5
_SEIZE = 0x4206  # PTRACE_SEIZE stops nobody, and ends with the one who does it
_NEW_USER = 0x10000000  # CLONE_NEWUSER


def reached(targets: Sequence[str] = ()) -> list[str]:
    """Names of what could be read, written, connected to, or hurt. `targets` are tried besides, by
    such names."""
    names = [
        f"read {path}"
        for pattern in FILES
        for path in sorted(glob.glob(pattern))
        if not _is_own(path)
    ]
    names += [f"write {folder}" for folder in WRITABLE]
    names += [f"{kind} {address}" for address in ADDRESSES for kind in ("tcp", "udp")]
    names += [f"unix {path}" for path in SOCKETS]
    names += [
        f"read {user.pw_dir}"
        for user in pwd.getpwall()
        if user.pw_dir.startswith(("/home/", "/root"))
    ]
    for pid in _others():
        names += [f"read /proc/{pid}/environ", f"signal {pid}", f"ptrace {pid}"]
    found = [name for name in dict.fromkeys([*names, *targets]) if _try(name)]
    found += [f"environment {name}" for name in NAMES if name in os.environ]
    if os.getuid() != 0:
        with suppress(OSError):
            os.setuid(0)
            found.append("become root")
    return found


def _try(name: str) -> bool:
    kind, _, what = name.partition(" ")
    try:
        return TRIES[kind](what)
    except OSError:
        return False


def _is_own(path: str) -> bool:
    """Whether it is, holds, or lies in, what this program is of, or the folder that it was
    given."""
    real = os.path.realpath(path)
    given = os.environ.get("STATE_DIRECTORY")
    inside = [str(HERE), *([os.path.realpath(given)] if given else [])]
    return any(
        one == real or one.startswith(real + "/") or (given and real.startswith(one + "/"))
        for one in inside
    )


def _others() -> list[int]:
    """Processes of other users."""
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        with suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid != os.getuid():
                found.append(pid)
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


def _tcp(address: str) -> bool:
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), _PATIENCE_S).close()
    return True


def _udp(address: str) -> bool:
    """Whether it could be sent, and nobody refused it."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.settimeout(_PATIENCE_S)
        there.connect((host, int(port)))
        there.send(b"t3")
        with suppress(TimeoutError):
            there.recv(1)
    return True


def _unix(path: str) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_UNIX, kind) as there, suppress(OSError):
            there.settimeout(_PATIENCE_S)
            there.connect("\0" + path[1:] if path.startswith("@") else path)
            return True
    return False


def _signal(pid: str) -> bool:
    os.kill(int(pid), 0)
    return True


def _ptrace(pid: str) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    return bool(libc.ptrace(_SEIZE, int(pid), None, None) == 0)


def _parent(what: str) -> bool:
    """Write in the place of the one who started this, and says what came of it."""
    os.close(os.open(f"/proc/{os.getppid()}/{what}", os.O_WRONLY))
    return True


def _namespace(_: str) -> bool:
    return bool(ctypes.CDLL(None).unshare(_NEW_USER) == 0)


TRIES = {
    "read": _read, "write": _write, "tcp": _tcp, "udp": _udp, "unix": _unix, "signal": _signal, "ptrace": _ptrace, "parent": _parent,
    "namespace": _namespace,
}  # fmt: skip
