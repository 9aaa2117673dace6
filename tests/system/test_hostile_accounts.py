"""One user who is hostile by each of twelve means: all others are backed up, and can be given
theirs back, in about the time that it takes without that."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import sandbox
from support.databases import commit_row, give_database
from support.host import Host
from support.hostile_means import MEANS, burden_of, in_force
from support.paths import DATA, ROOT
from support.processes import run_within
from support.sampling import amount, sample
from support.users import needs_root, user_name

from demo.users import User, throwaway_user

pytestmark = [
    needs_root,
    pytest.mark.alone,  # what it compares is time
    pytest.mark.skipif(sandbox.ACTIVE, reason="mounts of a test are not in the unit"),
]

TINY = DATA / "state-0.0.24.sqlite"
ACCOUNTS = amount(60, 10)
ROUNDS = amount(3, 2)
# So long are ten accounts kept by a silent one, before the next is begun: they are done in a second.
# Of sixty, that is within the ratio.
SILENCE_S = amount(0, 3)
RATIO = 1.5
LIMITS = {"T3_BACKUP_TIMEOUT": "25", "T3_BACKUP_STALL": "15", "T3_BACKUP_WAL_BUDGET": "64M"}
RUN_S = 120 + 2 * ACCOUNTS


class Group:
    """Users on one machine, of whom the first in the run's order is the hostile one."""

    def __init__(self, host: Host, hostile: User, others: list[User]) -> None:
        self.host, self.hostile, self.others = host, hostile, others
        for user in (hostile, *others):
            give_database(user, TINY)
        host.write_map(hostile, *others)
        self.call("run")

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        host = self.host
        return run_within(RUN_S, host.command(*words), host.env(**LIMITS), ROOT)

    def seconds_until_the_others_are_done(self) -> float:
        """Back up all after a commit of each of the others, who all must be."""
        commit_row(*self.others)
        waiting, began, done = {one.name for one in self.others}, time.monotonic(), []
        with subprocess.Popen(
            self.host.command("run"),
            env=self.host.env(**LIMITS),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as run:
            guard = threading.Timer(RUN_S, run.kill)
            guard.start()
            try:
                assert run.stdout is not None
                for line in run.stdout:
                    done.append(line)
                    words = line.split()
                    if words[:2] == ["backed", "up"] and words[2] in waiting:
                        waiting.remove(words[2])
                        took = time.monotonic() - began
            finally:
                guard.cancel()
        assert not waiting, "".join(done)
        return took

    def give_back(self, user: User) -> None:
        """Put back, to its place and elsewhere, what the newest snapshot of one has."""
        target = self.host.folder / f"{user.name}.sqlite"
        for words in (["--yes", "--no-service"], ["--to", str(target)]):
            done = self.call("restore", user.name, *words)
            assert done.returncode == 0, done
        assert user.database.read_bytes() == target.read_bytes()
        target.unlink()


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    """One for all means, each of which leaves the hostile one as they were."""
    folder = Path("/var/tmp") / f"t3-test-hostile-{os.getpid()}"
    folder.mkdir(mode=0o755)
    names = ["ha-hostile", *(f"hb-{number:02}" for number in range(ACCOUNTS - 1))]
    try:
        with ExitStack() as stack:
            hostile, *others = [
                stack.enter_context(throwaway_user(user_name(name), folder / name))
                for name in names
            ]
            yield Group(Host(folder), hostile, others)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("means", sample(list(MEANS), len(MEANS), "means of a hostile user"))
def test_a_hostile_user_costs_the_others_neither_backup_nor_time(
    group: Group, means: str, tell: Callable[[str], None]
) -> None:
    """Row 22."""
    most = 0.0
    for _ in range(3):  # against noise
        without, beside = [], []
        for number in range(ROUNDS):
            with burden_of(means, group.hostile):
                without.append(group.seconds_until_the_others_are_done())
            with in_force(means, group.hostile, TINY):
                beside.append(group.seconds_until_the_others_are_done())
                if number == 0:
                    for user in group.others[:: len(group.others) // amount(10, 2)]:
                        group.give_back(user)
        before, after = statistics.median(without), statistics.median(beside)
        tell(
            f"{ACCOUNTS} accounts, {means}: {after:.1f} s, and {before:.1f} s without it "
            f"({after / before:.2f})"
        )
        most = RATIO * before + SILENCE_S
        if after <= most:
            return
    raise AssertionError(f"{means}: {after:.1f} s of {most:.1f}")
