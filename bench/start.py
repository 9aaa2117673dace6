"""Measure what starting costs, beside an earlier revision.

The earlier revision is taken from git and built beneath the working folder. Each code has a store
of its own; the accounts, which change before each run, are the same for both.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO

from bench import measure, methods, tables
from bench.measure import Cost
from bench.tables import Target
from demo.users import User, throwaway_user

BEFORE = "37d8cc2"  # what this is compared with, where nothing else is asked for
MOST_CPU = 0.55  # of before
MOST_TIMES = 6.0  # the wall time of the loop
_FEW, _MANY = 3, 40
_FEW_BYTES, _MANY_BYTES = 4 << 20, 1_000_000
_SMALL_ROUNDS = 15
VERSION = "--version"
LIST = f"list, {_FEW} accounts"
RUN = f"run, {_FEW} accounts of 4 MiB that changed"
LARGE = f"run, {_MANY} accounts of 1 MB that changed"
LOOP = f"a loop of VACUUM INTO as each of these {_MANY} users"
_CHANGE = """
CREATE TABLE IF NOT EXISTS bench_change (number INTEGER PRIMARY KEY);
INSERT INTO bench_change DEFAULT VALUES;
"""
_LOOP = """
for user in "$@"; do
    home="$0/$user"
    query="VACUUM INTO '$home/copy'"
    runuser -u "$user" -- sqlite3 "$home/.t3/userdata/state.sqlite" "$query" || exit
done
"""
_NOTES = (
    "Medians over the rounds; user and system time, with that of all child processes. Every "
    "account had changed before each run. The loop copies each database by `VACUUM INTO` as its "
    "user, and neither proves, syncs nor keeps anything."
)


@dataclass
class Started:
    """What each command cost, by its title: before and now, a pair a round; and the loop."""

    before: dict[str, list[Cost]] = field(default_factory=dict)
    now: dict[str, list[Cost]] = field(default_factory=dict)
    loop: list[Cost] = field(default_factory=list)


def earlier_code(root: Path, work: Path, revision: str) -> Path:
    """Take a revision from git and build it; the folder stays for the next time.

    Raises CalledProcessError.
    """
    line = ["git", "rev-parse", "--verify", f"{revision}^{{commit}}"]
    name = subprocess.check_output(line, cwd=root, text=True).strip()
    folder = work / f"code-{name}"
    if not folder.exists():
        partial = work / f"code-{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        line = ["git", "archive", name]
        with subprocess.Popen(line, cwd=root, stdout=subprocess.PIPE) as archive:
            subprocess.run(["tar", "-x"], cwd=partial, stdin=archive.stdout, check=True)
        if archive.returncode:
            raise subprocess.CalledProcessError(archive.returncode, "git archive")
        line = [methods.PYTHON, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(line, cwd=partial, check=True)
        partial.rename(folder)
    return folder


class _Accounts:
    """Users with a database each, and a map of them."""

    def __init__(self, folder: Path, users: Sequence[User], source: Path) -> None:
        self.folder, self.users = folder, users
        for user in users:
            shutil.copyfile(source, user.database)
            user.give(user.database)
        self.map = folder / "map"
        self.map.write_text("".join(f"someone={user.name}\n" for user in users))

    def change(self) -> None:
        """Commit a row to each database; nothing is left beside it."""
        for user in self.users:
            with closing(sqlite3.connect(user.database)) as database:
                database.executescript(_CHANGE)


def _made(stack: ExitStack, work: Path, prefix: str, count: int, source: Path) -> _Accounts:
    folder = work / f"{prefix}-{os.getpid()}"
    folder.mkdir()
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    users = []
    for number in range(count):
        name = f"t3x-{prefix}{number}-{os.getpid()}"
        users.append(stack.enter_context(throwaway_user(name, folder / name)))
    return _Accounts(folder, users, source)


def compare(
    codes: tuple[Path, Path],
    work: Path,
    grown: Callable[[int], Path],
    rounds: int,
    output: IO[bytes],
    say: Callable[[str], None],
) -> Started:
    """Measure the code of before and this one, in turns; who begins changes."""
    found = Started()
    with ExitStack() as stack:
        few = _made(stack, work, "few", _FEW, grown(_FEW_BYTES))
        many = _made(stack, work, "many", _MANY, grown(_MANY_BYTES))

        def measured(
            code: Path, title: str, accounts: _Accounts | None, words: Sequence[str]
        ) -> None:
            line = [methods.PYTHON, "-m", "t3_backup", *words]
            if accounts is not None:
                line += ["--dest", str(accounts.folder / f"store-{codes.index(code)}")]
            side = found.now if code == codes[1] else found.before
            side.setdefault(title, []).append(measure.run(line, cwd=code, output=output))

        def pairs(
            title: str,
            accounts: _Accounts | None,
            words: Sequence[str],
            times: int,
            *,
            change: bool = False,
        ) -> None:
            for number in range(times):
                for code in codes if number % 2 else codes[::-1]:
                    if change and accounts is not None:
                        accounts.change()
                    measured(code, title, accounts, words)
                if title == LARGE:
                    found.loop.append(_loop(many, output))
                    say(f"round {number + 1}/{times}: {LARGE}")

        run, run_many = ("run", "--map", str(few.map)), ("run", "--map", str(many.map))
        # the first of each is not measured: Python compiles, and the accounts have no history
        for code in codes:
            measured(code, "first", few, run)
            measured(code, "first", many, run_many)
        pairs(VERSION, None, ["--version"], _SMALL_ROUNDS)
        pairs(LIST, few, ["list"], _SMALL_ROUNDS)
        say(f"{VERSION} and {LIST}: done")
        pairs(RUN, few, run, rounds, change=True)
        pairs(LARGE, many, run_many, rounds, change=True)
    return found


def _loop(accounts: _Accounts, output: IO[bytes]) -> Cost:
    """Copy as a person would by hand: one after the other, each as its user."""
    names = [user.name for user in accounts.users]
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            (accounts.folder / name / "copy").unlink()
    line = ["/bin/sh", "-c", _LOOP, str(accounts.folder), *names]
    return measure.run(line, cwd=accounts.folder, output=output)


@dataclass(frozen=True)
class Row:
    """Medians of one command."""

    title: str
    cpu_before: float
    cpu_now: float
    wall_before: float
    wall_now: float

    @property
    def cpu_ratio(self) -> float:
        """Of now to before."""
        return self.cpu_now / self.cpu_before

    @property
    def wall_ratio(self) -> float:
        """Of now to before."""
        return self.wall_now / self.wall_before


def rows(found: Started) -> list[Row]:
    """Compute the medians of each command."""
    return [
        Row(
            title,
            median([cost.cpu_s for cost in found.before[title]]),
            median([cost.cpu_s for cost in found.now[title]]),
            median([cost.wall_s for cost in found.before[title]]),
            median([cost.wall_s for cost in found.now[title]]),
        )
        for title in (VERSION, LIST, RUN, LARGE)
    ]


def times_of_loop(found: Started, side: Mapping[str, Sequence[Cost]]) -> float:
    """Compute how many loops the run of many accounts takes, by rounds."""
    pairs = zip(side[LARGE], found.loop, strict=True)
    return median([run.wall_s / loop.wall_s for run, loop in pairs])


def targets(found: Started) -> list[Target]:
    """Compare what this project promises of its start with what was measured."""
    kept = []
    for row in rows(found)[:3]:
        claim, ratio = f"CPU of {row.title} / before <= {MOST_CPU}", row.cpu_ratio
        kept.append(Target(claim, f"{ratio:.2f}", ratio <= MOST_CPU))
    claim, times = f"wall of {LARGE} / {LOOP} <= {MOST_TIMES:.0f}", times_of_loop(found, found.now)
    return [*kept, Target(claim, f"{times:.1f}", times <= MOST_TIMES)]


_HEADINGS = ("command", "CPU s before", "now", "ratio", "wall s before", "now", "ratio")


def _table(found: Started) -> Iterator[tuple[str, ...]]:
    for row in rows(found):
        cpu = (f"{row.cpu_before:.3f}", f"{row.cpu_now:.3f}", f"{row.cpu_ratio:.2f}")
        wall = (f"{row.wall_before:.3f}", f"{row.wall_now:.3f}", f"{row.wall_ratio:.2f}")
        yield (row.title, *cpu, *wall)
    cpu_s = median([cost.cpu_s for cost in found.loop])
    wall_s = median([cost.wall_s for cost in found.loop])
    yield (LOOP, "-", f"{cpu_s:.3f}", "-", "-", f"{wall_s:.3f}", "-")
    before, now = times_of_loop(found, found.before), times_of_loop(found, found.now)
    times = (f"{before:.1f}", f"{now:.1f}", f"{now / before:.2f}")
    yield (f"the run of {_MANY}, in times of the loop", "-", "-", "-", *times)


def plain(found: Started) -> str:
    """Write it for a terminal."""
    lines = tables.plain_table(_HEADINGS, list(_table(found)), right=True)
    return "\n".join([*lines, *tables.plain_targets(targets(found))])


def markdown(about: Mapping[str, str], found: Started) -> str:
    """Write it for the documentation: a section of the page."""
    head = "`make bench BENCH=--start` measured this, in turns with an earlier revision."
    lines = ["## Starting", "", head, "", *tables.markdown_about(about)]
    lines += ["", *tables.markdown_table(_HEADINGS, list(_table(found)))]
    lines += ["", *tables.paragraph(_NOTES), "", *tables.markdown_targets(targets(found))]
    return "\n".join(lines) + "\n"
