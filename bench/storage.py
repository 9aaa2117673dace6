"""Measure what a history of a growing database takes, kept in several ways.

A day is ours first, backup and compaction apart; what the backup made is then given to every other
way. What each way gives back of the first day and of the last has to have the SHA-256 that it was
given.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from bench import keeping, measure, tracing
from bench.keeping import NAME, OURS, Command, Ours, Way
from bench.measure import Cost
from bench.restores import Scene
from demo.grow import add_day

COLD, WARM = "cold", "warm"
OLDEST, NEWEST = "the oldest", "the newest"
_COLD_EVERY = 3  # of so many compactions, one finds nothing of the store in memory
_NOTHING = Cost(0.0, 0.0, 0, 0, finished=True)

Say = Callable[[str], None]


@dataclass
class Compacted:
    """One compaction, and the hashing of the newest image just before it, as warm or as cold."""

    cost: Cost
    sha256sum_s: float
    # a SHA-256 as fast as the processor can; sha256sum of Debian 12 does not use what it has for it
    openssl_s: float


@dataclass
class Found:
    """What was measured. By the title of a way, but for compactions: by what was in memory."""

    first_bytes: int = 0  # of the first day's image
    newest_bytes: int = 0  # of the last day's
    kept_bytes: dict[str, int] = field(default_factory=dict)  # of the disk
    days: dict[str, list[Cost]] = field(default_factory=dict)
    runs: list[Cost] = field(default_factory=list)  # our backup alone
    compactions: dict[str, list[Compacted]] = field(default_factory=dict)
    reads: tracing.Reads | None = None  # of the last compaction, which is not among the others
    # to OLDEST and NEWEST: seconds
    fetched: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    unequal: list[str] = field(default_factory=list)  # what came back otherwise than it was given


@dataclass(frozen=True)
class Year:
    """A year of dailies of ours."""

    days: int
    first_bytes: int  # of the first image
    newest_bytes: int  # of the last
    kept_bytes: int  # of the disk
    day_s: list[float]
    fetched: dict[str, float]
    unequal: list[str]


def compare(scene: Scene, ways: Sequence[Way], days: int, rounds: int, say: Say) -> Found:
    """Measure days of ours and of `ways`, then restores of the oldest and newest."""
    found, ours = Found(), Ours(scene.folder, scene.user)
    shutil.copyfile(scene.fresh, scene.live)
    scene.give(scene.live)
    names, hashes = [], []
    for way in ways:
        _folder(scene, way).mkdir()
        _run(scene, *way.begin(_folder(scene, way)))
    for day in range(1, days + 1):
        if day > 1:
            add_day(scene.live)
        snapshot = _our_day(scene, ours, day, found, last=day == days)
        image = scene.folder / NAME
        hashes.append(_sha256(image))
        names.append(snapshot)
        for way in ways:
            scene.prepare(scene.folder, image.stat().st_size)
            cost = _run(scene, *way.keep(_folder(scene, way), image, day))
            found.days.setdefault(way.title, []).append(cost)
        walls = [f"{title} {costs[-1].wall_s:.1f} s" for title, costs in found.days.items()]
        say(f"day {day}/{days}  {', '.join(walls)}")
        found.first_bytes = found.first_bytes or image.stat().st_size
        found.newest_bytes = image.stat().st_size
        image.unlink()
    found.kept_bytes = {OURS: disk_bytes(ours.store)} | {
        way.title: disk_bytes(_folder(scene, way)) for way in ways
    }
    for number in range(rounds):
        for which, day in ((OLDEST, 1), (NEWEST, days)):
            wanted, to = hashes[day - 1], _fetched(scene)
            _fetch(scene, found, OURS, which, wanted, ours.store, ours.fetch(names[day - 1], to))
            for way in ways:
                folder = _folder(scene, way)
                _fetch(scene, found, way.title, which, wanted, folder, way.fetch(folder, day, to))
            said = ", ".join(
                f"{title} {seconds[which][-1]:.1f} s" for title, seconds in found.fetched.items()
            )
            say(f"restore {number + 1}/{rounds} of {which}  {said}")
    return found


def year(scene: Scene, days: int, say: Say) -> Year:
    """Measure days of ours alone, each with a hundredth of the first one's rows."""
    ours = Ours(scene.folder, scene.user)
    shutil.copyfile(scene.fresh, scene.live)
    scene.give(scene.live)
    found, names, hashes, at_first = Found(), [], [], _turns(scene.live)
    spent = []
    for day in range(1, days + 1):
        if day > 1:
            add_day(scene.live, 0.01 * at_first / _turns(scene.live))
        before = _snapshots(ours)
        spent.append(_run(scene, ours.run("delta")).wall_s)
        [new] = _snapshots(ours) - before
        if day in (1, days):
            hashes.append(_sha256(ours.account_dir / f"{new}.sqlite"))
            names.append(new)
            size = (ours.account_dir / f"{new}.sqlite").stat().st_size
            found.first_bytes = found.first_bytes or size
            found.newest_bytes = size
        if day % 30 == 0 or day == days:
            kept = f"{disk_bytes(ours.store) / 1e6:.1f} MB kept"
            say(f"day {day}/{days}  {kept}, a day {spent[-1]:.2f} s")
    for which, name, sha256 in ((OLDEST, names[0], hashes[0]), (NEWEST, names[-1], hashes[-1])):
        _fetch(scene, found, OURS, which, sha256, ours.store, ours.fetch(name, _fetched(scene)))
    seconds = {which: values[0] for which, values in found.fetched[OURS].items()}
    sizes = (found.first_bytes, found.newest_bytes, disk_bytes(ours.store))
    return Year(days, *sizes, spent, seconds, found.unequal)


def _our_day(scene: Scene, ours: Ours, day: int, found: Found, *, last: bool) -> str:
    """Back up, copy that for the other ways, and compact; return the snapshot's name."""
    before = _snapshots(ours)
    scene.prepare(scene.folder, scene.live.stat().st_size)
    run = _run(scene, ours.run("off"))
    [name] = _snapshots(ours) - before
    plain = ours.account_dir / f"{name}.sqlite"
    shutil.copyfile(plain, scene.folder / NAME)
    found.runs.append(run)
    if day == 1:
        found.days.setdefault(OURS, []).append(run)
        return name
    scene.prepare(scene.folder, 0)
    if last:
        images = plain.stat().st_size + max(
            path.stat().st_size for path in ours.account_dir.glob("*.sqlite") if path != plain
        )
        found.reads = tracing.trace(
            ours.compact(), scene.root, scene.folder / "trace", ours.account_dir, images
        )
        return name
    state = COLD if day % _COLD_EVERY == 0 else WARM
    _cache(ours.store, state)
    sha256sum = _run(scene, ["sha256sum", str(plain)]).wall_s
    _cache(ours.store, state)
    openssl = _run(scene, ["openssl", "dgst", "-sha256", str(plain)]).wall_s
    _cache(ours.store, state)
    cost = _run(scene, ours.compact())
    found.compactions.setdefault(state, []).append(Compacted(cost, sha256sum, openssl))
    found.days[OURS].append(run.then(cost))
    return name


def _fetched(scene: Scene) -> Path:
    """Name the folder where restores go."""
    return scene.folder / "fetched"


def _fetch(
    scene: Scene,
    found: Found,
    title: str,
    which: str,
    sha256: str,
    source: Path,
    lines: Sequence[Command],
) -> None:
    """Restore out of `source`, of which nothing is in memory, to the disk."""
    to = _fetched(scene)
    to.mkdir()
    try:
        _cache(source, COLD)
        scene.prepare(to, 0)
        spent = _run(scene, *lines)
        [file] = to.rglob(NAME)
        spent = spent.then(_run(scene, ["sync", str(file)]))
        found.fetched.setdefault(title, {}).setdefault(which, []).append(spent.wall_s)
        if _sha256(file) != sha256:
            found.unequal.append(f"{title}: {which}")
    finally:
        shutil.rmtree(to)


def _run(scene: Scene, *commands: Command) -> Cost:
    cost = _NOTHING
    for command in commands:
        cost = cost.then(measure.run(command, cwd=scene.root, output=scene.output))
    return cost


def _folder(scene: Scene, way: Way) -> Path:
    return scene.folder / f"way-{keeping.WAYS.index(way)}"


def _snapshots(ours: Ours) -> set[str]:
    return {path.stem for path in ours.account_dir.glob("state-*.json")}


def _turns(database: Path) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        return int(opened.execute("SELECT count(*) FROM projection_turns").fetchone()[0])


def disk_bytes(folder: Path) -> int:
    """Sum what all files in a folder take of the disk."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def _cache(folder: Path, state: str) -> None:
    """Have all files of a folder in memory, or none of them."""
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        with path.open("rb", buffering=0) as file:
            os.fsync(file.fileno())
            if state == COLD:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 22):
                    pass


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
