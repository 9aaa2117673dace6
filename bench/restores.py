"""Measure a restore beside a plain copy, and beside what a hand would do.

All of it with the server stopped, and in turns: a disturbance of the machine meets every way alike.
The command says itself what each of its steps took; proof and safety snapshot are what a plain copy
does not have, and stand apart.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO

from bench import measure, methods, tables
from bench.tables import Target, spread

LIMIT = "limit: copy_file_range, fsync"
BY_HAND = "by hand: cp, sync"
SQLITE = "by hand: sqlite3 .restore, sync"
OURS = "restore: its copy and its exchange"
PROOF = "restore: proof of the snapshot before it"
SAFETY = "restore: the present state folded, sealed and proven"
WHOLE = "restore: all of the command"
MOST = 1.5  # times the limit that our copy and exchange may take

_NOTES = (
    "Medians over the rounds, in brackets the least and the most. The cache is warm. The limit has "
    "the start of a small Python in it, ours that of two workers. A copy by hand is not proven, "
    "keeps nothing of the present state, and leaves the old `-wal` beside the new database; "
    "`.restore` is not one step: whoever is interrupted in it has to begin anew."
)

Seconds = Mapping[str, Sequence[float]]  # of each way, a figure a round


@dataclass(frozen=True)
class Scene:
    """Where it is measured: a user with a live database, and a folder of ours on the same file
    system."""

    fresh: Path  # what the live database is a copy of, each time
    live: Path
    user: str
    give: Callable[[Path], None]  # a file to the user
    folder: Path
    root: Path  # of the tree
    output: IO[bytes]
    # settle the machine, and touch so many bytes of page cache
    prepare: Callable[[Path, int], None]


def compare(scene: Scene, rounds: int, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Measure all ways, `rounds` times."""
    found: dict[str, list[float]] = {}
    _begin(scene)
    store = scene.folder / "store"
    _run(scene, _ours(scene, "run", "--user", scene.user))
    [snapshot] = store.glob("*/state-*.sqlite")
    for number in range(rounds):
        for way in (_limit, _by_hand, _sqlite, _restore):
            _begin(scene)
            scene.prepare(scene.folder, snapshot.stat().st_size)
            if way is not _restore:
                # As the restore does it before its copy: what memory is warm, and what the disk is
                # about, is the same then.
                _run(scene, _ours(scene, "verify", scene.user, "--at", snapshot.stem))
            for title, seconds in way(scene, snapshot).items():
                found.setdefault(title, []).append(seconds)
                say(f"round {number + 1}/{rounds}  {title}: {seconds:.2f} s")
            for left in (*store.glob("*/*-prerestore.*"), *scene.folder.glob("copy*")):
                left.unlink()
    return found


def _begin(scene: Scene) -> None:
    """Make the live database as a server that was stopped has left it."""
    for left in scene.live.parent.glob("state.sqlite*"):
        left.unlink()
    shutil.copyfile(scene.fresh, scene.live)
    scene.give(scene.live)


def _run(scene: Scene, *commands: list[str]) -> float:
    """Run the commands, and return their wall time in seconds."""
    costs = [measure.run(command, cwd=scene.root, output=scene.output) for command in commands]
    return sum(cost.wall_s for cost in costs)


def _limit(scene: Scene, snapshot: Path) -> dict[str, float]:
    return {LIMIT: _run(scene, methods.plain_copy(snapshot, scene.folder / "copy"))}


def _by_hand(scene: Scene, snapshot: Path) -> dict[str, float]:
    copy = str(scene.folder / "copy")
    return {BY_HAND: _run(scene, ["cp", str(snapshot), copy], ["sync", copy, str(scene.folder)])}


def _sqlite(scene: Scene, snapshot: Path) -> dict[str, float]:
    """Restore into the live database, as people do it, through its -wal."""
    command = [methods.SQLITE, str(scene.live), f".restore '{snapshot}'"]
    return {SQLITE: _run(scene, command, ["sync", str(scene.live), str(scene.live.parent)])}


def _restore(scene: Scene, snapshot: Path) -> dict[str, float]:
    document = scene.folder / "document"
    with document.open("w+b") as out:
        line = _ours(scene, "restore", scene.user, "--at", snapshot.stem, "--yes")
        whole = measure.run(line, cwd=scene.root, output=out).wall_s
    text = document.read_text(encoding="utf-8")
    # lines for people come before it
    steps: dict[str, float] = json.loads(text[text.index("\n{") :])["seconds"]
    return {
        OURS: steps["copy"] + steps["exchange"],
        PROOF: steps["proof"],
        SAFETY: steps["fold"] + steps["prerestore"],
        WHOLE: whole,
    }


def _ours(scene: Scene, *words: str) -> list[str]:
    options = ["--dest", str(scene.folder / "store"), "--json"]
    return [methods.PYTHON, "-m", "t3_backup", *words, *options]


def targets(found: Seconds) -> list[Target]:
    """Compare what is promised with what was measured, by rounds: they are pairs."""
    ratios = [ours / limit for ours, limit in zip(found[OURS], found[LIMIT], strict=True)]
    middle, claim = median(ratios), f"copy and exchange of a restore / limit <= {MOST}"
    return [Target(claim, f"{middle:.2f}", middle <= MOST)]


def plain(found: Seconds) -> str:
    """Write it for a terminal."""
    width = max(len(title) for title in found)
    lines = [f"{title.ljust(width)}  {spread(seconds)} s" for title, seconds in found.items()]
    return "\n".join([*lines, *tables.plain_targets(targets(found))])


def markdown(about: Mapping[str, str], found: Seconds) -> str:
    """Write it for the documentation: a section of the page."""
    head = "`make bench BENCH=--restore` measured this, in turns, with the server stopped."
    lines = ["## A restore", "", head, "", *tables.markdown_about(about), ""]
    rows = [(title, spread(seconds)) for title, seconds in found.items()]
    lines += [*tables.markdown_table(("", "wall s"), rows), "", *tables.paragraph(_NOTES)]
    return "\n".join([*lines, "", *tables.markdown_targets(targets(found))]) + "\n"
