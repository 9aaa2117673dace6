"""List what one account's folder holds: its snapshots, how each is stored, every other file.

A folder is read once into a listing (`AccountDir.read_listing`), and the listing is passed on.
Whoever changes the folder goes on with the listing that the change makes of it; where a change
failed half way, the folder is read again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from t3_backup.store.manifest import Companion, Manifest
from t3_backup.store.names import DATA, DELTA, MANIFEST, PAGES, parse_name

Form = Literal["plain", "delta"]

_ARCHIVE = re.compile(r"files-[0-9a-f]{64}\.tar\.zst")


@dataclass(frozen=True)
class StoredSnapshot:
    """One snapshot in the store: its manifest, and where and how its data is kept."""

    manifest: Manifest
    path: Path
    form: Form


@dataclass(frozen=True)
class Listing:
    """The files of one account's folder at one moment."""

    folder: Path
    names: frozenset[str]  # of all files
    snapshots: tuple[Manifest, ...]  # newest first: those with data and a sound manifest
    # data files that don't count, sorted: no manifest, or none that can be read
    strays: tuple[str, ...]

    def is_plain(self, snapshot: Manifest) -> bool:
        """Tell whether the data of a snapshot is a database as it was, and no delta."""
        return snapshot.name + DELTA not in self.names or snapshot.name + DATA in self.names

    def data_name(self, snapshot: Manifest) -> str:
        """Return the name of the file that holds the data of a snapshot."""
        return snapshot.name + (DATA if self.is_plain(snapshot) else DELTA)

    def stored_snapshot(self, snapshot: Manifest) -> StoredSnapshot:
        """Return a snapshot with the path and the form of its data."""
        form: Form = "plain" if self.is_plain(snapshot) else "delta"
        return StoredSnapshot(snapshot, self.folder / self.data_name(snapshot), form)

    def stored_snapshots(self) -> tuple[StoredSnapshot, ...]:
        """Return all snapshots so, newest first."""
        return tuple(map(self.stored_snapshot, self.snapshots))

    def used_stems(self) -> set[str]:
        """Return every name that a new snapshot must not have."""
        return {stem_of(name) for name in self.names}

    def next_sequence(self) -> int:
        """Return the number of the next snapshot.

        One whose manifest can't be read now may have one, too.
        """
        hidden = [name for name in self.strays if stem_of(name) + MANIFEST in self.names]
        return max([0, *(snapshot.sequence for snapshot in self.snapshots)]) + 1 + len(hidden)

    def unused_archives(self) -> list[str]:
        """Return the names of the archives that no snapshot names.

        None where a manifest can't be read.
        """
        if self.strays:
            return []
        used = {
            archive_name(snapshot.companion)
            for snapshot in self.snapshots
            if snapshot.companion is not None
        }
        return sorted(name for name in self.names if _ARCHIVE.fullmatch(name) and name not in used)

    def page_hash_names(self) -> list[str]:
        """Return the names of the files of page hashes."""
        return sorted(
            name
            for name in self.names
            if name.endswith(PAGES) and parse_name(name.removesuffix(PAGES)) is not None
        )

    def with_snapshot(self, manifest: Manifest) -> Listing:
        """Return the listing after a plain snapshot was published."""
        names = self.names | {manifest.name + MANIFEST, manifest.name + DATA}
        return replace(self, names=names)._with_snapshots([*self.snapshots, manifest])

    def without_snapshot(self, snapshot: Manifest) -> Listing:
        """Return the listing after a snapshot was removed."""
        names = self.names - {snapshot.name + ending for ending in (PAGES, DELTA, DATA, MANIFEST)}
        return replace(self, names=names)._with_snapshots(
            one for one in self.snapshots if one.name != snapshot.name
        )

    def with_manifest(self, manifest: Manifest) -> Listing:
        """Return the listing after the manifest of a snapshot was replaced."""
        return self._with_snapshots(
            manifest if one.name == manifest.name else one for one in self.snapshots
        )

    def with_form(self, snapshot: Manifest, form: Form) -> Listing:
        """Return the listing after a snapshot has got data of that form."""
        gone, ending = ((DELTA,), DATA) if form == "plain" else ((DATA, PAGES), DELTA)
        names = self.names - {snapshot.name + other for other in gone} | {snapshot.name + ending}
        return replace(self, names=names)._with_snapshots(self.snapshots)

    def with_file(self, name: str) -> Listing:
        """Return the listing after a file got a name that makes no snapshot."""
        return replace(self, names=self.names | {name})

    def without_files(self, names: Iterable[str]) -> Listing:
        """Return the listing after files were removed that are no snapshot's data."""
        return replace(self, names=self.names - set(names))

    def _with_snapshots(self, snapshots: Iterable[Manifest]) -> Listing:
        return replace(self, snapshots=sort_snapshots(snapshots, self.data_name))


def sort_snapshots(
    snapshots: Iterable[Manifest], data_name: Callable[[Manifest], str]
) -> tuple[Manifest, ...]:
    """Sort snapshots newest first; those with one number by the names of their files."""
    by_name = sorted(snapshots, key=data_name)
    return tuple(sorted(by_name, key=lambda snapshot: snapshot.sequence, reverse=True))


def data_stems(names: Iterable[str]) -> dict[str, str]:
    """Return the data files that may be a snapshot's, sorted, and the stem of each.

    Plain data counts before a delta.
    """
    everything = frozenset(names)
    found = {}
    for name in sorted(everything):
        stem = stem_of(name)
        if name not in (stem + DATA, stem + DELTA) or parse_name(stem) is None:
            continue
        if name == stem + DATA or stem + DATA not in everything:
            found[name] = stem
    return found


def stem_of(name: str) -> str:
    """Return the name of the snapshot that a file is of, else the file's own name."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot + ending in (DATA, DELTA, MANIFEST) else name


def archive_name(companion: Companion) -> str:
    """Return the name of an archive's file, which is its content's."""
    return f"files-{companion.sha256}.tar.zst"
