"""List what one account's folder holds: its snapshots, how each is stored, every other file.

A folder is read once into a listing (`AccountDir.read_listing`), and the listing is passed on.
Whoever changes the folder goes on with the listing that the change makes of it; where a change
failed half way, the folder is read again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from t3_backup.store.companion import ARCHIVE_PREFIXES, archive_name
from t3_backup.store.manifest import Manifest, StoredDatabase
from t3_backup.store.names import DATA, DELTA, MANIFEST, PAGES, snapshot_of_image

Form = Literal["plain", "delta"]

_ARCHIVE = re.compile(rf"({'|'.join(ARCHIVE_PREFIXES)})-[0-9a-f]{{64}}\.tar\.zst")


@dataclass(frozen=True)
class StoredSnapshot:
    """One snapshot in the store: its manifest, and where and how its images are kept."""

    manifest: Manifest
    paths: Mapping[str, Path]  # by database
    forms: Mapping[str, Form]  # the same

    @property
    def path(self) -> Path:
        """Where the image of its live database is."""
        return self.paths[self.manifest.live.file]

    @property
    def form(self) -> Form:
        """How the image of its live database is kept."""
        return self.forms[self.manifest.live.file]


@dataclass(frozen=True)
class Listing:
    """The files of one account's folder at one moment."""

    folder: Path
    names: frozenset[str]  # of all files
    snapshots: tuple[Manifest, ...]  # newest first: those with live data and a sound manifest
    # data files that don't count, sorted: no manifest, or none that can be read
    strays: tuple[str, ...]

    @cached_property
    def images(self) -> tuple[StoredDatabase, ...]:
        """The images of all snapshots, newest first."""
        return tuple(image for snapshot in self.snapshots for image in snapshot.images)

    @cached_property
    def lost_images(self) -> tuple[StoredDatabase, ...]:
        """The images whose files are gone: their snapshots are not whole any more."""
        return tuple(image for image in self.images if not self.has_data(image))

    def images_of(self, file: str) -> tuple[StoredDatabase, ...]:
        """Return the images of one database, newest first."""
        return tuple(image for image in self.images if image.file == file)

    def is_plain(self, image: StoredDatabase) -> bool:
        """Tell whether an image is a database as it was, and no delta."""
        return image.name + DELTA not in self.names or image.name + DATA in self.names

    def has_data(self, image: StoredDatabase) -> bool:
        """Tell whether there is a file of an image, plain or delta."""
        return not self.names.isdisjoint({image.name + DATA, image.name + DELTA})

    def data_name(self, image: StoredDatabase) -> str:
        """Return the name of the file that holds an image."""
        return image.name + (DATA if self.is_plain(image) else DELTA)

    def stored_snapshot(self, snapshot: Manifest) -> StoredSnapshot:
        """Return a snapshot with the paths and the forms of its images."""
        images = snapshot.images
        return StoredSnapshot(
            snapshot,
            {image.file: self.folder / self.data_name(image) for image in images},
            {image.file: "plain" if self.is_plain(image) else "delta" for image in images},
        )

    def stored_snapshots(self) -> tuple[StoredSnapshot, ...]:
        """Return all snapshots so, newest first."""
        return tuple(map(self.stored_snapshot, self.snapshots))

    def used_stems(self) -> set[str]:
        """Return every name that a new snapshot, or an image of it, must not have."""
        return {stem_of(name) for name in self.names}

    def next_sequence(self) -> int:
        """Return the number of the next snapshot.

        One whose manifest can't be read now may have one, too.
        """
        hidden = {snapshot_of_image(stem_of(name)) for name in self.strays}
        unread = [stem for stem in hidden if f"{stem}{MANIFEST}" in self.names]
        return max([0, *(snapshot.sequence for snapshot in self.snapshots)]) + 1 + len(unread)

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
            if name.endswith(PAGES) and snapshot_of_image(name.removesuffix(PAGES)) is not None
        )

    def with_snapshot(self, manifest: Manifest) -> Listing:
        """Return the listing after a snapshot was published, whose images are plain."""
        data = {image.name + DATA for image in manifest.images}
        names = self.names | {manifest.name + MANIFEST, *data}
        return replace(self, names=names, snapshots=sort_snapshots([*self.snapshots, manifest]))

    def without_snapshot(self, snapshot: Manifest) -> Listing:
        """Return the listing after a snapshot was removed."""
        gone = {image.name + end for image in snapshot.images for end in (PAGES, DELTA, DATA)}
        rest = [one for one in self.snapshots if one.name != snapshot.name]
        names = self.names - gone - {snapshot.name + MANIFEST}
        return replace(self, names=names, snapshots=tuple(rest))

    def with_manifest(self, manifest: Manifest) -> Listing:
        """Return the listing after the manifest of a snapshot was replaced."""
        found = [manifest if one.name == manifest.name else one for one in self.snapshots]
        return replace(self, snapshots=tuple(found))

    def with_form(self, image: StoredDatabase, form: Form) -> Listing:
        """Return the listing after an image has got that form."""
        gone, ending = ((DELTA,), DATA) if form == "plain" else ((DATA, PAGES), DELTA)
        names = self.names - {image.name + other for other in gone} | {image.name + ending}
        return replace(self, names=names)

    def with_file(self, name: str) -> Listing:
        """Return the listing after a file got a name that makes no snapshot."""
        return replace(self, names=self.names | {name})

    def without_files(self, names: Iterable[str]) -> Listing:
        """Return the listing after files were removed that are no snapshot's data."""
        return replace(self, names=self.names - set(names))


def sort_snapshots(snapshots: Iterable[Manifest]) -> tuple[Manifest, ...]:
    """Sort snapshots newest first; those with one number by their names."""
    by_name = sorted(snapshots, key=lambda snapshot: snapshot.name)
    return tuple(sorted(by_name, key=lambda snapshot: snapshot.sequence, reverse=True))


def find_strays(names: Iterable[str], known: Iterable[Manifest]) -> tuple[str, ...]:
    """Return the data files that no manifest of `known` names, sorted.

    Plain data counts before a delta.
    """
    everything = frozenset(names)
    claimed = {image.name for snapshot in known for image in snapshot.images}
    found = []
    for name in sorted(everything):
        stem = stem_of(name)
        if name not in (stem + DATA, stem + DELTA) or stem in claimed:
            continue
        if name == stem + DELTA and stem + DATA in everything:
            continue
        if snapshot_of_image(stem) is not None:
            found.append(name)
    return tuple(found)


def stem_of(name: str) -> str:
    """Return the name of the snapshot or image that a file is of, else the file's own name."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot + ending in (DATA, DELTA, MANIFEST) else name
