"""What the tests share: real users with real databases, a store, and the command as a person calls
it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from support import sandbox
from support.databases import MIB, give_database
from support.host import Host
from support.processes import processes_of, until
from support.released import Released, build_released
from support.sampling import is_soak, seed
from support.users import remove_leftover_users, user_name

from demo.grow import grow
from demo.users import User, throwaway_user
from t3_backup.store import outside

# The tests may themselves be run by nohup(1) or in the background, and what they start must hear of
# a terminal that goes away, and of a Ctrl-C.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is the machine's.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


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
    # what a test calls a store is nothing for the memory of this machine
    os.environ.setdefault("T3_BACKUP_STATE", f"{tempfile.gettempdir()}/t3-test-state.{os.getpid()}")


def pytest_unconfigure() -> None:
    """Remove what was remembered."""
    if os.environ["T3_BACKUP_STATE"].endswith(f"/t3-test-state.{os.getpid()}"):
        shutil.rmtree(os.environ["T3_BACKUP_STATE"], ignore_errors=True)


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
    remove_leftover_users()


@pytest.fixture(scope="session", autouse=True)
def _state_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let nothing that tests call here touch the machine's."""
    os.environ[outside.VARIABLE] = str(tmp_path_factory.mktemp("state") / "t3-backup")


@pytest.fixture
def host() -> Iterator[Host]:
    """A fresh one, on the disk (not in memory), gone afterwards."""
    # The unit has a /var/tmp of its own, and homes in /home.
    folder = Path(
        tempfile.mkdtemp(prefix="t3-test-", dir="/home" if sandbox.ACTIVE else "/var/tmp")
    )
    folder.chmod(0o755)
    host = Host(folder)
    host.store.parent.mkdir(exist_ok=True)
    try:
        yield host
    finally:
        for place in {folder, host.store.parent}:
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
def make_user(host: Host) -> Iterator[Callable[..., User]]:
    """Makes users called `user_name(NAME)` with a home in the folder of `host`; with `database` (a
    Path) they get a copy of it as their own."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def make(name: str, database: Path | None = None) -> User:
            user = stack.enter_context(throwaway_user(user_name(name), host.folder / name))
            # a worker dies with the run that a test killed, but a moment later
            stack.callback(until, lambda: not processes_of(user), f"end of what {name} ran")
            if database is not None:
                give_database(user, database)
            return user

        yield make


@pytest.fixture
def alice(make_user: Callable[..., User], host: Host, small: Path) -> User:
    """A user with a small real T3 0.0.24 database (4 MiB); the map names them alone."""
    user = make_user("alice", small)
    host.write_map(user)
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


@pytest.fixture(scope="session")
def released() -> Iterator[Released]:
    """Version 0.1.0, built once a session."""
    with build_released() as built:
        yield built
