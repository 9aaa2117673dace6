"""What the tests share: real users with real databases, a store, and the command as a person calls
it."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from support import sandbox
from support.sampling import is_soak, seed

from demo.grow import grow
from demo.users import User, remove_leftover, throwaway_user

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "demo" / "data"
MIB = 1 << 20
BOUND_S = 20  # how long anything here may take before it counts as hanging

# The tests may themselves be run by nohup(1) or in the background, and what they start must hear of
# a terminal that goes away, and of a Ctrl-C.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is the machine's.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


def _letters(number: int) -> str:
    """A number in base 36: a user's name has 32 characters at most."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return (_letters(number // 36) if number >= 36 else "") + digits[number % 36]


_US = _letters(os.getpid())  # not that of a child which a test forks


def user_name(name: str) -> str:
    """The name of a system user that no other process which runs tests has: two workers, or two
    checkouts, never share one."""
    return f"t3t-{_US}-{name}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--soak`: all there is."""
    parser.addoption(
        "--soak", action="store_true", help="run every test, and every step of each sweep"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose what sweeps try before any of them is read; workers of this run inherit it."""
    if config.getoption("--soak"):
        os.environ["T3_TEST_SOAK"] = "1"
    seed()


def pytest_report_header() -> str:
    """Say how to have the same run again."""
    return (
        "everything is run (--soak)"
        if is_soak()
        else f"sweeps are sampled: T3_TEST_SEED={seed()}; whole with --soak"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for a soak."""
    if not is_soak():
        left_out = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """What a test has measured or counted, for the end of the run."""
    return lambda text: record_property("told", text)


def pytest_sessionstart() -> None:
    """Remove the users of test processes that were killed."""
    for entry in pwd.getpwall() if os.geteuid() == 0 else []:
        owner = re.match(r"t3t-([0-9a-z]+)-", entry.pw_name)
        if owner and not Path("/proc", str(int(owner[1], 36))).exists():
            # another process was first
            with contextlib.suppress(FileExistsError, subprocess.CalledProcessError):
                remove_leftover(entry.pw_name)


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
    """A folder that every user may enter, with a store, a user map and users who have T3
    databases."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return (sandbox.STORE / self.folder.name if sandbox.ACTIVE else self.folder) / "store"

    @property
    def map(self) -> Path:
        return self.folder / "map"

    def account_dir(self, user: User) -> Path:
        return self.store / user.name

    def snapshots(self, user: User) -> list[Path]:
        """The sealed data files of a user, oldest first by name."""
        return (
            sorted(self.account_dir(user).glob("state-*.sqlite"))
            if self.account_dir(user).exists()
            else []
        )

    def write_map(self, *users: User | str) -> None:
        names = [user if isinstance(user, str) else user.name for user in users]
        self.map.write_text("".join(f"{name}@example={name}\n" for name in names))

    def command(self, *words: str, **more: str) -> list[str]:
        """The command line; where things are, `env` says."""
        if sandbox.ACTIVE:
            return sandbox.command(
                sandbox.new_name(), self.settings(**more), "/usr/bin/t3-backup-state", *words
            )
        return [sys.executable, "-m", "t3_backup", *words]

    def env(self, **more: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
        } | self.settings(**more)

    def settings(self, **more: str) -> dict[str, str]:
        base = {
            "T3_BACKUP_DEST": str(self.store),
            "T3_BACKUP_MAP": str(self.map),
            "T3_BACKUP_RESERVE": "1M",
        }
        base["T3_BACKUP_COMPACT"] = "off"  # each snapshot is a file of its own, to be looked into
        base["T3_BACKUP_LOG"] = str(self.folder / "log")
        base["T3_BACKUP_TEXTFILE_DIR"] = "none"  # the machine's may be there
        base["T3_BACKUP_HOOKS"] = str(self.folder / "hooks.d")
        return base | self.environ | more

    def t3(self, *words: str, timeout: float = 120, **more: str) -> Answer:
        """Call `t3-backup-state` as a person does; further settings as T3_BACKUP_... keywords."""
        done = subprocess.run(
            self.command(*words, **more),
            env=self.env(**more),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        """The same, left running."""
        if sandbox.ACTIVE:
            line = ["/usr/bin/t3-backup-state", *words]
            return sandbox.Process(
                self.settings(**more), line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )  # type: ignore[return-value]
        return subprocess.Popen(
            self.command(*words),
            env=self.env(**more),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextlib.contextmanager
def started(land: Land, *words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """The command, left running; ended by force, and its workers with it, where it is still there
    when the block is left."""
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
    return {
        name: value.strip()
        for name, _, value in (line.partition(":") for line in text.splitlines())
    }


def until(condition: Callable[[], Any], what: str) -> Any:
    """What `condition` gives as soon as it gives something; what vanishes while it looks is looked
    for again."""
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
    # The unit has a /var/tmp of its own, and homes in /home.
    folder = Path(
        tempfile.mkdtemp(prefix="t3-test-", dir="/home" if sandbox.ACTIVE else "/var/tmp")
    )
    folder.chmod(0o755)
    land = Land(folder)
    land.store.parent.mkdir(exist_ok=True)
    try:
        yield land
    finally:
        for place in {folder, land.store.parent}:
            shutil.rmtree(place, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what tests told, the seed, and how often the command ran under the sandbox: a suite that
    never did proves nothing of it."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
    ]
    for text in [
        value for report in reports for name, value in report.user_properties if name == "told"
    ]:
        terminalreporter.write_line(text)
    terminalreporter.write_line(pytest_report_header())
    if sandbox.ACTIVE:
        terminalreporter.write_line(
            f"{sandbox.count()} commands were run under the sandbox of {sandbox.UNIT}"
        )


@pytest.fixture
def make_user(land: Land) -> Iterator[Callable[..., User]]:
    """Makes users called `user_name(NAME)` with a home in the land; with `database` (a Path) they
    get a copy of it as their own."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def make(name: str, database: Path | None = None) -> User:
            user = stack.enter_context(throwaway_user(user_name(name), land.folder / name))
            if database is not None:
                give_database(user, database)
            return user

        yield make


def give_database(user: User, database: Path) -> None:
    """Put a copy of `database` where T3 has it, with the owner and mode that T3 gives it."""
    shutil.copyfile(database, user.database)
    user.database.chmod(0o644)
    user.give(user.database)


# What T3 does all day, in small: one more row, which says nothing.
_COMMIT = """
import os, sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=60) as database:
    database.execute("INSERT INTO projection_state VALUES (?, 4, '')", ("test." + os.urandom(8).hex(),))
database.close()
"""


def commit_row(*users: User) -> None:
    """Commit one row to the database of each, as its user: the next run finds something that no
    snapshot has."""
    for user in users:
        line = [sys.executable, "-I", "-c", _COMMIT, str(user.database)]
        subprocess.run(
            line, check=True, timeout=120, cwd="/", user=user.uid, group=user.gid, extra_groups=[]
        )


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
