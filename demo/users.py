"""Make throw-away system users for demo, benchmark and tests, and remove them.

Needs root and the `passwd` package. Gives no guarantee against SIGKILL: what a killed run left
behind is removed by the next one of the same name.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_COMMENT = "t3-backup throw-away"
"""The GECOS field by which a user is known as ours; no other is ever removed."""

# useradd and userdel give up, or wait for seconds, where another of them is at work.
_LOCK = Path("/run/lock/t3-backup-throw-away.lock")


@dataclass(frozen=True)
class User:
    """A user of the system and where the state of T3 lies in the home."""

    name: str
    uid: int
    gid: int
    home: Path

    @property
    def database(self) -> Path:
        """`~/.t3/userdata/state.sqlite`."""
        return self.home / ".t3" / "userdata" / "state.sqlite"

    def give(self, path: Path) -> None:
        """Make `path` this user's."""
        os.chown(path, self.uid, self.gid, follow_symlinks=False)


def missing() -> str | None:
    """Say what stands in the way of making users; None if nothing does."""
    if os.geteuid() != 0:
        return "making throw-away users needs root"
    if shutil.which("useradd") is None or shutil.which("userdel") is None:
        return "useradd is missing: apt install passwd"
    return None


@contextmanager
def throwaway_user(name: str, home: Path) -> Iterator[User]:
    """Make a system user without login, whose home is `home`.

    The home is made with mode 0700, and `.t3/userdata` in it with 0755, as T3 does. The user is
    removed on leaving; the home is the caller's to remove. End the user's processes before. Raises
    FileExistsError if there is such a user who is not one of ours or is in use, and
    CalledProcessError.
    """
    remove_leftover(name)
    options = ["--system", "--user-group", "--no-create-home", "--no-log-init"]
    options += ["--badname"]  # as those of a domain may be
    options += ["--home-dir", str(home), "--shell", "/usr/sbin/nologin", "--comment", _COMMENT]
    run_alone("useradd", *options, name)
    try:
        entry = pwd.getpwnam(name)
        user = User(name, entry.pw_uid, entry.pw_gid, home)
        for folder, mode in ((home, 0o700), (home / ".t3", 0o755), (user.database.parent, 0o755)):
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)
            user.give(folder)
        yield user
    finally:
        run_alone("userdel", name)


@contextmanager
def signals_as_exit() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack, so that everything is cleaned up.

    They end it by SystemExit (128 + number). A second one while cleaning up is ignored.
    """

    def leave(number: int, _: FrameType | None) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {one: signal.signal(one, leave) for one in numbers}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def remove_leftover(name: str) -> None:
    """Remove a user whom a killed run left behind. Raises as `throwaway_user` does."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return
    if entry.pw_gecos != _COMMENT or _is_at_work(entry.pw_uid):
        raise FileExistsError(f"there is a user {name} already (home {entry.pw_dir})")
    run_alone("userdel", name)


def _is_at_work(uid: int) -> bool:
    """Tell whether a process of that user is there."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                return True
    return False


def run_alone(*command: str) -> None:
    """Run a command that changes users, alone. Raises CalledProcessError."""
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
