"""What the tests share: real users with real databases, a store, and the command as a person calls it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from demo.grow import grow
from demo.users import User, throwaway_user

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "demo" / "data"
MIB = 1 << 20
BOUND_S = 20  # how long anything here may take before it counts as hanging

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes real users, so it needs root")


@dataclass
class Answer:
    """What a call of the command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document on standard output."""
        return json.loads(self.out)

    def account(self, user: str) -> dict[str, Any]:
        """The entry of one account in the document."""
        return next(entry for entry in self.document["accounts"] if entry["user"] == user)


@dataclass
class Land:
    """A folder that every user may enter, with a store, a user map and users who have T3 databases."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def map(self) -> Path:
        return self.folder / "map"

    def shelf(self, user: User) -> Path:
        return self.store / user.name

    def snapshots(self, user: User) -> list[Path]:
        """The sealed data files of a user, oldest first by name."""
        return sorted(self.shelf(user).glob("state-*.sqlite")) if self.shelf(user).exists() else []

    def write_map(self, *users: User | str) -> None:
        names = [user if isinstance(user, str) else user.name for user in users]
        self.map.write_text("".join(f"{name}@example={name}\n" for name in names))

    def command(self, *words: str) -> list[str]:
        """The command line; where things are, `env` says."""
        return [sys.executable, "-m", "t3_backup", *words]

    def env(self, **more: str) -> dict[str, str]:
        base = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), "T3_BACKUP_RESERVE": "1M"}
        return base | {"T3_BACKUP_DEST": str(self.store), "T3_BACKUP_MAP": str(self.map)} | self.environ | more

    def t3(self, *words: str, timeout: float = 120, **more: str) -> Answer:
        """Call `t3-backup-state` as a person does; further settings as T3_BACKUP_... keywords."""
        done = subprocess.run(
            self.command(*words), env=self.env(**more), cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        """The same, left running."""
        return subprocess.Popen(
            self.command(*words), env=self.env(**more), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


@contextlib.contextmanager
def started(land: Land, *words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """The command, left running; ended by force, and its workers with it, where it is still there when the block is left."""
    with land.start(*words, **more) as process:
        try:
            yield process
        finally:
            process.kill()


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status; empty where there is no such process any more."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def until(condition: Callable[[], Any], what: str) -> Any:
    """What `condition` gives as soon as it gives something; what vanishes while it looks is looked for again."""
    end = time.monotonic() + BOUND_S
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if found := condition():
                return found
        time.sleep(0.01)
    raise AssertionError(f"no {what} in {BOUND_S} s")


def children(pid: int) -> list[int]:
    """The pids of its child processes."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [int(word) for word in task.read_text().split()]
    return found


@pytest.fixture
def land() -> Iterator[Land]:
    """A fresh one, on the disk (not in memory), gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="t3-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield Land(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make_user(land: Land) -> Iterator[Callable[..., User]]:
    """Makes users t3t-NAME with a home in the land; with `database` (a Path) they get a copy of it as their own."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def make(name: str, database: Path | None = None) -> User:
            user = stack.enter_context(throwaway_user(f"t3t-{name}", land.folder / name))
            if database is not None:
                give_database(user, database)
            return user

        yield make


def give_database(user: User, database: Path) -> None:
    """Put a copy of `database` where T3 has it, with the owner and mode that T3 gives it."""
    shutil.copyfile(database, user.database)
    user.database.chmod(0o644)
    user.give(user.database)


@pytest.fixture
def alice(make_user: Callable[..., User], land: Land, small: Path) -> User:
    """A user with a small real T3 0.0.24 database (4 MiB); the map names her alone."""
    user = make_user("alice", small)
    land.write_map(user)
    return user


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Grown T3 databases by size in MiB, each made once a session. Copy before you change one."""
    made: dict[int, Path] = {}

    def get(mebibytes: int) -> Path:
        if mebibytes not in made:
            made[mebibytes] = tmp_path_factory.mktemp("grown") / f"state-{mebibytes}.sqlite"
            grow(made[mebibytes], mebibytes * MIB)
        return made[mebibytes]

    return get


@pytest.fixture(scope="session")
def small(grown: Callable[[int], Path]) -> Path:
    """A T3 database of 4 MiB."""
    return grown(4)
