"""Show the main job on three accounts, one of them written to all the time.

As root it makes three throw-away users and their state in one temporary folder, and leaves the
system as it was. Without root there is no becoming another user: then it backs up the caller's own
state, if there is any.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from demo.grow import grow
from demo.server import Window
from demo.users import User, missing, signals_as_exit, throwaway_user
from demo.writer import Writer

_PYTHON = "/usr/bin/python3"
_ROOT = Path(__file__).resolve().parent.parent
# a demo is nothing for the records of the machine
_ENVIRON = os.environ | {"T3_BACKUP_LOG": "/dev/null", "T3_BACKUP_TEXTFILE_DIR": "none"}
_ENVIRON["T3_BACKUP_STATE"] = "/dev/null/none"
_STALL_NOTICED_MS = 100.0  # a stall that a person may notice


@dataclass(frozen=True)
class Plan:
    """One account of the demo; `version` "" stands for one who never started T3."""

    name: str
    size: int
    version: str
    live: bool
    says: str


PLANS = (
    Plan("alice", 60_000_000, "0.0.24", True, "T3 0.0.24, 60 MB, a server that commits every 2 ms"),
    Plan("bob", 20_000_000, "0.0.25", False, "T3 0.0.25, 20 MB, server stopped"),
    Plan("carol", 0, "", False, "has never started T3: nothing to back up"),
)


class Demo:
    """Says what it does, runs commands, and remembers whether one failed."""

    def __init__(self, dest: Path, map_file: Path) -> None:
        self._dest, self._map_file = dest, map_file
        self.failures: list[str] = []

    def say(self, text: str = "") -> None:
        print(text, flush=True)

    def title(self, text: str) -> None:
        bold = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.say(f"\n\033[1m{text}\033[0m" if bold else f"\n== {text}")

    def command(self, *words: str) -> None:
        """Run one subcommand, its output below a line that shows it as it is typed."""
        arguments = [*words, "--dest", str(self._dest)]
        if words[0] == "run":
            arguments += ["--map", str(self._map_file)]
        self.say(f"$ t3-backup-state {shlex.join(arguments)}")
        line, null = [_PYTHON, "-m", "t3_backup", *arguments], subprocess.DEVNULL
        done = subprocess.run(line, cwd=_ROOT, env=_ENVIRON, stdin=null, check=False)
        if done.returncode:
            self.failures.append(f"t3-backup-state {words[0]} ended with {done.returncode}")

    def check(self, holds: bool, claim: str) -> None:
        """Say whether a claim held."""
        self.say(f"  {'ok' if holds else 'NOT OK':<6} {claim}")
        if not holds:
            self.failures.append(claim)

    def writer(self, title: str, window: Window) -> None:
        """Say what the live server noticed."""
        self.say(
            f"  {title:<24} {window.commits:6,} commits {window.errors:3} busy errors   "
            f"p50 {window.p50:6.2f} ms   p99 {window.p99:6.2f} ms   "
            f"longest stall {window.longest:6.1f} ms"
        )

    def end(self) -> int:
        """Say how it went, and return the exit code."""
        for failure in self.failures:
            self.say(f"FAILED: {failure}")
        self.say("" if self.failures else "\nAll went well. The demo's users and files are gone.")
        return 1 if self.failures else 0


def as_root(folder: Path) -> int:
    """Give the whole demo, in `folder`, with users of its own."""
    map_file, dest = folder / "user-map", folder / "backups"
    demo = Demo(dest, map_file)
    # The users must reach their homes; what else lies in the folder is closed by its own mode.
    folder.chmod(0o711)
    dest.mkdir(mode=0o700)
    lines = [f"{plan.name}=t3demo-{plan.name}\n" for plan in PLANS]
    map_file.write_text("".join(lines), encoding="utf-8")
    with ExitStack() as stack:
        demo.title("Three accounts")
        users: dict[str, User] = {}
        for plan in PLANS:
            user = stack.enter_context(throwaway_user(f"t3demo-{plan.name}", folder / plan.name))
            users[plan.name] = user
            if plan.version:
                grow(user.database, plan.size, plan.version)
                user.give(user.database)
            demo.say(f"  {user.name:<14} {plan.says}")
        live = next(plan for plan in PLANS if plan.live)
        user = users[live.name]
        with Writer(user.database, user=user.name) as writer:
            _tour(demo, writer)
        others = [entry for entry in user.database.parent.iterdir() if entry != user.database]
        claim = f"{user.name}'s server stopped cleanly: no -wal and no -shm left behind"
        demo.check(not others, claim)
    return demo.end()


def _tour(demo: Demo, writer: Writer) -> None:
    writer.mark("before")
    demo.title("A first backup, while alice's server is being used")
    time.sleep(1)  # a second without a backup, to compare with
    windows = [("nothing running, 1 s", writer.mark("first"))]
    demo.command("run")
    windows.append(("during the first run", writer.mark("between")))
    demo.title("A second one: there is something new for alice, nothing for bob")
    writer.mark("second")
    demo.command("run")
    windows.append(("during the second run", writer.mark("after")))
    demo.title("What is in the store")
    demo.command("list")
    demo.title("Is it still what it was?")
    demo.command("verify")
    demo.title("What alice's server noticed")
    for name, window in windows:
        demo.writer(name, window)
    during = windows[1:]
    demo.check(all(window.errors == 0 for _, window in during), "no commit of alice's failed")
    demo.check(all(window.commits > 0 for _, window in during), "alice's server went on committing")
    worst = max(window.longest for _, window in during)
    if worst > _STALL_NOTICED_MS:
        note = f"the longest stall, {worst:.0f} ms, is long; this machine's disk was busy"
        demo.say(f"  note   {note}")


def as_caller(folder: Path) -> int:
    """Give the demo without root: the caller's own account, or what is needed."""
    entry = pwd.getpwuid(os.geteuid())
    if not (Path(entry.pw_dir) / ".t3" / "userdata" / "state.sqlite").is_file():
        print("The demo makes throw-away users, for which it needs root:  sudo make demo")
        print("(Without root it backs up your own ~/.t3, and you have none.)")
        return 1
    map_file, dest = folder / "user-map", folder / "backups"
    dest.mkdir(mode=0o700)
    map_file.write_text(f"{entry.pw_name}={entry.pw_name}\n", encoding="utf-8")
    demo = Demo(dest, map_file)
    demo.title(f"Not root: only {entry.pw_name}'s own account")
    for word in ("run", "list", "verify"):
        demo.command(word)
    return demo.end()


def _apt_line() -> str | None:
    """Say what to install first, if something is missing."""
    packages = [("apsw", "python3-apsw"), ("_cffi_backend", "python3-cffi-backend")]
    absent = [package for module, package in packages if importlib.util.find_spec(module) is None]
    if shutil.which("useradd") is None:
        absent.append("passwd")
    return f"apt install {' '.join(absent)}" if absent else None


def main() -> int:
    """Run the demo, and return the exit code."""
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="demo.run", description=about)
    keep = "keep the temporary folder (not the users)"
    parser.add_argument("--keep", action="store_true", help=keep)
    given = parser.parse_args()
    needed = _apt_line()
    if needed is not None:
        print(f"Something is missing; first:  {needed}")
        return 1
    folder = Path(tempfile.mkdtemp(prefix="t3-backup-demo-"))
    try:
        with signals_as_exit():
            return as_root(folder) if missing() is None else as_caller(folder)
    finally:
        if given.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
