"""Whatever is wrong is told, and where: the table in docs/monitoring.md is what is found here.

Each thing is made by real means on a host where all is well. Channels that only look are asked at
once, after the next run, and after the next proof. T3_TEST_WRITE=1 writes what was found into the
document.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import sandbox
from support.channels import CHANNELS, NEVER, Told, Watch, read_table, write_row
from support.databases import commit_row, give_database
from support.host import Host, succeeded
from support.paths import DATA
from support.sampling import sample
from support.scene import Scene
from support.troubles import TROUBLES, Trouble
from support.users import needs_root, user_name

from demo.users import User, throwaway_user

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="by hand")]

TINY = DATA / "state-0.0.24.sqlite"
WRITES = os.environ.get("T3_TEST_WRITE") == "1"
TRIED = TROUBLES if WRITES else sample(TROUBLES, 2, "what is told where")


@dataclass(frozen=True)
class Healthy:
    """A host where all is well: an account with two snapshots."""

    host: Host
    user: User
    said: dict[str, str]  # what each channel says of it

    def lend(self, host: Host) -> None:
        """Make `host` the same, and let the account's home be as it was."""
        for name in ("store", "textfiles", "map"):
            subject, target = self.host.folder / name, host.folder / name
            shutil.copytree(subject, target) if subject.is_dir() else shutil.copy(subject, target)
        host.store.chmod(0o700)
        shutil.rmtree(self.user.home)
        for folder in (self.user.home, self.user.home / ".t3", self.user.database.parent):
            folder.mkdir(mode=0o755)
            self.user.give(folder)
        self.user.home.chmod(0o700)
        give_database(self.user, self.host.folder / "kept.sqlite")
        host.environ["T3_BACKUP_TEXTFILE_DIR"] = str(host.folder / "textfiles")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Healthy]:
    folder = Path("/var/tmp") / f"t3-test-told-{os.getpid()}"
    folder.mkdir(mode=0o755)
    host = Host(folder)
    try:
        with throwaway_user(user_name("told"), folder / "home") as user:
            give_database(user, TINY)
            host.write_map(user)
            (folder / "textfiles").mkdir()
            host.environ["T3_BACKUP_TEXTFILE_DIR"] = str(folder / "textfiles")
            succeeded(host.t3("run"))
            commit_row(user)
            succeeded(host.t3("run"))
            shutil.copyfile(user.database, folder / "kept.sqlite")
            watch = Watch(host, Told("no such thing", critical=False))
            watch.ask_all()
            yield Healthy(host, user, watch.seen)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def scene(host: Host, healthy: Healthy) -> Iterator[Scene]:
    """A host where all was well a moment ago."""
    healthy.lend(host)
    with ExitStack() as stack:
        yield Scene(host, healthy.user, stack)


@pytest.mark.parametrize("trouble", TRIED, ids=[one.name for one in TRIED])
def test_what_is_wrong_is_told_where_the_table_says(
    scene: Scene, healthy: Healthy, trouble: Trouble
) -> None:
    for channel, text in healthy.said.items():
        assert channel == "metrics" or not re.search(trouble.told.says, text), (channel, text)
    trouble.make(scene)
    watch = Watch(scene.host, trouble.told)
    watch.ask_all()
    rows = read_table()
    if WRITES:
        write_row(trouble.name, watch.cells, [one.name for one in TROUBLES])
    else:
        assert watch.cells == rows[trouble.name], watch.seen


def test_whatever_is_wrong_is_told_by_two_at_least() -> None:
    rows = read_table()
    assert list(rows) == [trouble.name for trouble in TROUBLES]
    assert len(rows) >= 25
    for name, cells in rows.items():
        assert sum(cells[channel] != NEVER for channel in CHANNELS) >= 2, name
