"""The ways to keep a history of a database that are compared: lists of commands.

Each keeps day after day in a folder of its own. All but ours are given the same file each day, a
snapshot of ours, under the same name. Nothing here measures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.methods import PYTHON

OURS = "this tool"
FULL = "full copies: cp, sync"
COMPARED_KEEP = 400  # more than the days of any of this: nothing is pruned
NAME = "state.sqlite"  # what is given to a way, and what comes of it again

Command = list[str]


@dataclass(frozen=True)
class Way:
    """One row. Its folder is there, and empty before `begin`; a day is a number from 1 on."""

    title: str
    begin: Callable[[Path], list[Command]]
    keep: Callable[[Path, Path, int], list[Command]]  # in a folder, an image, as that day's
    # out of a folder, a day's, to somewhere in another, empty one
    fetch: Callable[[Path, int, Path], list[Command]]


def _nothing(_: Path) -> list[Command]:
    return []


def _copied(folder: Path, image: Path, day: int) -> list[Command]:
    target = str(folder / f"{day}.sqlite")
    return [["cp", "--reflink=never", str(image), target], ["sync", target, str(folder)]]


def _copied_back(folder: Path, day: int, to: Path) -> list[Command]:
    return [["cp", "--reflink=never", str(folder / f"{day}.sqlite"), str(to / NAME)]]


def _packed(folder: Path, image: Path, day: int) -> list[Command]:
    target = str(folder / f"{day}.zst")
    return [["zstd", "-q", "-T0", str(image), "-o", target], ["sync", target, str(folder)]]


def _unpacked(folder: Path, day: int, to: Path) -> list[Command]:
    return [["zstd", "-q", "-d", str(folder / f"{day}.zst"), "-o", str(to / NAME)]]


def _restic() -> Way:
    def line(folder: Path, *words: str) -> Command:
        cache = folder.with_name(f"{folder.name}.cache")  # of its own, and not counted
        options = ["-q", "-r", str(folder), "--cache-dir", str(cache)]
        return ["env", "RESTIC_PASSWORD=bench", "restic", *options, *words]

    return Way(
        "restic --compression auto",  # max takes 5 % less, and three times as long
        lambda folder: [line(folder, "init")],
        lambda folder, image, day: [
            line(folder, "backup", "--compression", "auto", "--tag", f"day-{day}", str(image))
        ],
        lambda folder, day, to: [
            line(folder, "restore", "latest", "--tag", f"day-{day}", "--target", str(to))
        ],
    )


def _borg(title: str, *options: str) -> Way:
    def line(folder: Path, *words: str) -> Command:
        settings = [
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes",
            f"BORG_BASE_DIR={folder.with_name(f'{folder.name}.cache')}",
        ]
        return ["env", *settings, "borg", *words]

    return Way(
        title,
        lambda folder: [line(folder, "init", "--encryption", "none", str(folder))],
        lambda folder, image, day: [
            line(folder, "create", *options, f"{folder}::day-{day}", str(image))
        ],
        lambda folder, day, to: [
            ["env", "-C", str(to), *line(folder, "extract", f"{folder}::day-{day}")]
        ],
    )


_ZSTD = ("--compression", "zstd")
WAYS = (
    Way(FULL, _nothing, _copied, _copied_back),
    Way("zstd -T0 of each, sync", _nothing, _packed, _unpacked),
    _restic(),
    _borg("borg --compression zstd", *_ZSTD),
    # A chunk a page: the best that can be told it of a database, at the price of a large index.
    _borg("borg, zstd, --chunker-params fixed,4096", *_ZSTD, "--chunker-params", "fixed,4096"),
)


@dataclass(frozen=True)
class Ours:
    """Our own lines for one user, with a store in `folder`."""

    folder: Path
    user: str

    @property
    def store(self) -> Path:
        """All that it keeps."""
        return self.folder / "store"

    @property
    def account_dir(self) -> Path:
        """Where the snapshots of the user are."""
        return self.store / self.user

    def run(self, compact: str) -> Command:
        """Back up: copy and prove, and unless `compact` is off, do what comes after."""
        map_file = self.folder / "map"
        map_file.write_text(f"{self.user}={self.user}\n", encoding="utf-8")
        return self._line(compact, "run", "--user", self.user, "--map", str(map_file))

    def compact(self) -> Command:
        """Do what `run` would have done after its backup."""
        return self._line("delta", "prune", self.user)

    def fetch(self, name: str, to: Path) -> list[Command]:
        """Write a snapshot to somewhere in an empty folder."""
        return [self._line("delta", "restore", self.user, "--at", name, "--to", str(to / NAME))]

    def _line(self, compact: str, *words: str) -> Command:
        settings = [f"T3_BACKUP_COMPACT={compact}", f"T3_BACKUP_KEEP={COMPARED_KEEP}"]
        return ["env", *settings, PYTHON, "-m", "t3_backup", *words, "--dest", str(self.store)]
