"""Read of /proc what a user may see of their own processes. Nothing else is opened."""

from __future__ import annotations

import os

from t3_backup.system.proc_files import (
    DELETED,
    parse_control_group,
    parse_descriptor,
    parse_effective_user,
    parse_fields,
    parse_mounts,
    parse_start,
    parse_strings,
    parse_variables,
)
from t3_backup.t3.server_processes import VARIABLES, Process

_PIECE_BYTES = 1 << 16
_MOST_BYTES = 4 << 20  # of one file of /proc


def read_process(pid: int, uid: int) -> Process | None:
    """Read what /proc says of a process of `uid`; None where it is another's, hides, or is dead.

    Raises FileNotFoundError and ProcessLookupError where it has ended, OSError, and IndexError
    and ValueError where it is just ending.
    """
    folder = f"/proc/{pid}"
    # of one that hides, all is root's
    if os.stat(folder).st_uid not in (uid, 0):
        return None
    try:
        text = _text(f"{folder}/status")
    except PermissionError:
        return None
    if parse_effective_user(text) != uid:
        return None
    status = parse_fields(text)
    if status.get("State", "Z").startswith(("Z", "X")):
        return None
    start = read_start(pid)
    return Process(
        pid=pid,
        parent=int(status["PPid"]),
        arguments=parse_strings(_read(f"{folder}/cmdline")),
        program=_link(f"{folder}/exe"),
        cgroup=parse_control_group(_text(f"{folder}/cgroup")),
        environment=parse_variables(_environment(folder), VARIABLES),
        cwd=_link(f"{folder}/cwd"),
        start=start,
    )


def read_start(pid: int) -> str:
    """Say when the process of this pid began. Raises as `read_process`."""
    return parse_start(_text(f"/proc/{pid}/stat"))


def read_descriptor(process: str, fd: str) -> tuple[int, str, bool]:
    """Read inode and mount of a descriptor, and whether it is open. Raises OSError."""
    return parse_descriptor(_text(f"/proc/{process}/fdinfo/{fd}"))


def read_mounts(process: str) -> dict[str, str]:
    """Read the device of each mount, as the process sees them; none where it doesn't say."""
    try:
        return parse_mounts(_text(f"/proc/{process}/mountinfo"))
    except OSError:
        return {}


def identify(fd: int) -> tuple[int, str]:
    """Return inode and device of an open descriptor (O_PATH will do), as `Held` has them."""
    inode, mount, _ = read_descriptor("self", str(fd))
    return inode, read_mounts("self").get(mount, "")


def is_there(pid: int) -> bool:
    """Tell whether there is such a process, even if nothing is to be seen of it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _read(path: str) -> bytes:
    """Read a file of /proc. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    data = b""
    try:
        while len(data) < _MOST_BYTES and (piece := os.read(fd, _PIECE_BYTES)):
            data += piece
    finally:
        os.close(fd)
    return data


def _text(path: str) -> str:
    return os.fsdecode(_read(path))


def _link(path: str) -> str:
    """Read where a link of /proc leads; empty for a process that hides."""
    try:
        return os.readlink(path).removesuffix(DELETED)
    except PermissionError:
        return ""


def _environment(folder: str) -> bytes:
    try:
        return _read(f"{folder}/environ")
    except PermissionError:
        return b""
