"""One account's folder in the store, and the order of steps that makes a snapshot durable.

A snapshot exists when the image of its live database has a name, and that gets it last: first the
proven bytes are synced and hashed, then the manifest is named and synced, then the images. So a
crash leaves at most a manifest without the live image, which the next run removes with all that it
names and which was never a snapshot. Removal begins with the live image. A published file is never
changed. Data without a manifest is somebody else's: it is listed, never counted and never removed.

An image is a plain database or a delta, which needs a newer one's (`chain`); where both are there,
the plain one counts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from t3_backup.store import catalog_file
from t3_backup.store.catalog import Catalog, Entry, Proof, State
from t3_backup.store.listing import Listing, find_strays, sort_snapshots
from t3_backup.store.manifest import Manifest, StoredDatabase
from t3_backup.store.names import DATA, DELTA, MANIFEST, PAGES, parse_name
from t3_backup.store.staged_file import StagedFile
from t3_backup.system import native
from t3_backup.text import utc_now

PARTIAL = ".partial-"  # begins the name of a file that is not whole yet
NameAs = Callable[[str], None]  # gives a file a name


@dataclass(frozen=True)
class AccountDir:
    """One account's folder in the store, open."""

    user: str
    path: Path
    fd: int
    store_fd: int  # of the store, where its catalog is

    def read_listing(self) -> Listing:
        """Read the folder and every manifest in it. Raises OSError."""
        names = self.read_names()
        known = self.read_manifests(names)
        listing = Listing(self.path, names, (), find_strays(names, known))
        there = [snapshot for snapshot in known if listing.has_data(snapshot.live_image)]
        return replace(listing, snapshots=sort_snapshots(there))

    def read_manifests(self, names: Iterable[str]) -> list[Manifest]:
        """Read those of `names` that are sound manifests, whatever else is there."""
        found = []
        for name in sorted(names):
            stem = name.removesuffix(MANIFEST)
            if name.endswith(MANIFEST) and parse_name(stem) is not None:
                with contextlib.suppress(OSError, ValueError):
                    found.append(self.read_manifest(stem))
        return found

    def update_listing(self, listing: Listing) -> Listing:
        """Return `listing` where the folder still has the same names, else read it again.

        Raises OSError.
        """
        return listing if self.read_names() == listing.names else self.read_listing()

    def read_names(self) -> frozenset[str]:
        """Read the names that are there now. Raises OSError."""
        # btrfs lists what was there when a descriptor was opened or last rewound
        os.lseek(self.fd, 0, os.SEEK_SET)
        return frozenset(os.listdir(self.fd))

    def read_manifest(self, stem: str) -> Manifest:
        """Read the manifest of the snapshot of that name. Raises ValueError and OSError."""
        with open(self.open_file(stem + MANIFEST), encoding="utf-8") as file:
            manifest = Manifest.from_text(file.read())
        if manifest.name != stem:
            raise ValueError(f"the manifest of {manifest.name} lies beside {stem}")
        return manifest

    def has_file(self, name: str) -> bool:
        """Tell whether there is a file of that name. Raises OSError."""
        try:
            self.stat_file(name)
        except FileNotFoundError:
            return False
        return True

    def stat_file(self, name: str) -> os.stat_result:
        """Return the status of the file of that name. Raises OSError."""
        return os.stat(name, dir_fd=self.fd, follow_symlinks=False)

    def has_manifest(self, snapshot: Manifest) -> bool:
        """Tell whether the manifest of a snapshot is still there."""
        return self.has_file(snapshot.name + MANIFEST)

    def open_plain_data(self, image: StoredDatabase) -> int:
        """Open an image that is plain, read-only. Raises OSError."""
        return self.open_file(image.name + DATA)

    def open_file(self, name: str) -> int:
        """Open the file of that name, read-only. Raises OSError."""
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)

    def remove_file(self, name: str) -> None:
        """Remove the file of that name. Raises OSError."""
        os.unlink(name, dir_fd=self.fd)

    def stage_file(self) -> StagedFile:
        """Make a new, empty, unnamed file for a snapshot. Raises OSError."""
        try:
            return StagedFile.create(self.fd, f"{PARTIAL}{os.urandom(8).hex()}")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def publish_snapshot(self, manifest: Manifest, images: Mapping[str, NameAs]) -> None:
        """Name settled files, by database, and their `manifest`; durable when this returns.

        The catalog has it then as sealed and proven. Raises OSError, and then nothing is named.
        ValueError for a manifest that could not be read again: its snapshot would never be seen.
        """
        if (
            Manifest.from_text(manifest.to_text()).name != manifest.name
            or parse_name(manifest.name) is None
        ):
            raise ValueError(f"{manifest.name} is no name of a snapshot")
        with self._staged_manifest(manifest) as file:
            file.name_as(manifest.name + MANIFEST)
        named = False
        try:
            self.sync()
            for image in _live_last(manifest):
                images[image.file](image.name + DATA)
                named = True
            self.sync()
        except BaseException:
            if named:
                self._remove_files(manifest)  # no image without a manifest, whatever comes next
            else:
                self.remove_file(manifest.name + MANIFEST)
            raise
        # a snapshot that is there and not known is taken in by the next run
        with contextlib.suppress(OSError):
            self.record_proof(manifest.name, Proof(utc_now(), "verified"))

    def link_data(self, image: StoredDatabase, name: str) -> None:
        """Give an image that is plain one more name.

        It takes no disk space, and goes with its last name. Raises OSError.
        """
        os.link(
            image.name + DATA, name, src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False
        )

    def replace_data_by_link(self, image: StoredDatabase, other: StoredDatabase) -> None:
        """Replace the image `other` by another name of `image`, which is plain.

        Raises OSError.
        """
        self.replace_file(partial(self.link_data, image), other.name + DATA)
        self.sync()

    def replace_file(self, name_as: NameAs, name: str) -> None:
        """Name a file by `name_as`, in the place of what has `name`.

        Raises OSError.
        """
        first = f"{PARTIAL}{os.urandom(8).hex()}"
        name_as(first)
        os.rename(first, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def replace_data(self, image: StoredDatabase, staged_file: StagedFile, ending: str) -> None:
        """Make a settled file the data of an image, and remove the former.

        It is a delta or (`DATA`) plain. Raises OSError. Durably there before anything goes. Until
        then, and where both are there, the plain one is what counts.
        """
        self.replace_file(staged_file.name_as, image.name + ending)
        self.sync()
        for other in (DELTA,) if ending == DATA else (DATA, PAGES):
            with contextlib.suppress(FileNotFoundError):
                self.remove_file(image.name + other)

    def replace_manifest(self, manifest: Manifest) -> None:
        """Put a new manifest in the place of the one of the same name, in one step.

        Raises OSError.
        """
        with self._staged_manifest(manifest) as file:
            self.replace_file(file.name_as, manifest.name + MANIFEST)
        self.sync()

    @contextlib.contextmanager
    def _staged_manifest(self, manifest: Manifest) -> Iterator[StagedFile]:
        with self.stage_file() as file:
            data = manifest.to_text().encode()
            try:
                while data:
                    data = data[os.write(file.writer, data) :]
            except OSError as error:
                raise OSError(
                    error.errno, error.strerror, str(self.path / (manifest.name + MANIFEST))
                ) from error
            native.sync_file(file.writer, manifest.name + MANIFEST)
            yield file

    def read_catalog(self) -> Catalog:
        """Read what is known of the account's snapshots."""
        return catalog_file.read_catalog(self.store_fd, self.user)

    def record_proof(self, name: str, proof: Proof) -> None:
        """Note how the proof of a snapshot that is there ended, durably. Raises OSError."""
        self.change_catalog(lambda _: [Entry(name, "sealed", proof)])

    def change_catalog(self, change: Callable[[Mapping[str, Entry]], Iterable[Entry]]) -> None:
        """Write the entries that `change` makes of those there are, durably. Raises OSError."""
        catalog_file.change_catalog(self.store_fd, self.user, change)

    def remove_snapshot(self, snapshot: Manifest) -> None:
        """Remove a snapshot that no delta needs.

        The catalog has it as let go, durably, before anything goes. Raises OSError.
        """
        self._note_removal(snapshot, "removing")
        self._remove_files(snapshot)
        # else the next run finds that nothing of it is left
        with contextlib.suppress(OSError):
            if not self.has_manifest(snapshot):
                self._note_removal(snapshot, "removed")

    def _note_removal(self, snapshot: Manifest, state: State) -> None:
        """Note it of a snapshot that is known; of another one nobody would miss anything."""
        self.change_catalog(
            lambda known: [
                replace(entry, state=state)
                for name, entry in known.items()
                if name == snapshot.name and entry.state != state
            ]
        )

    def _remove_files(self, snapshot: Manifest) -> None:
        """Remove its images, the live one's first, then, durably after them, the manifest."""
        for image in reversed(_live_last(snapshot)):
            # the plain one last: what is left is the image still
            for ending in (PAGES, DELTA, DATA):
                with contextlib.suppress(FileNotFoundError):
                    self.remove_file(image.name + ending)
        # on a failing disk an orphaned manifest is the next run's to clear
        with contextlib.suppress(OSError):
            self.sync()
            self.remove_file(snapshot.name + MANIFEST)

    def sync(self) -> None:
        """Bring the names in the folder to the disk. Raises OSError."""
        native.sync_directory(self.fd, str(self.path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        os.close(self.store_fd)


def _live_last(snapshot: Manifest) -> list[StoredDatabase]:
    """Its images, in the order that gives them names: the live one makes it a snapshot."""
    return sorted(snapshot.images, key=lambda image: image.record.live)
