"""One account's folder in the store, and the order of steps that makes a snapshot durable.

A snapshot exists when its data has a name, and it gets that name last: first the proven bytes are
synced and hashed, then the manifest is named and synced, then the data. So a crash leaves at most a
manifest without data, which the next run removes and which was never a snapshot. Removal goes the
other way round. A published file is never changed. Data without a manifest is somebody else's: it
is listed, never counted and never removed.

The data is a plain database or a delta, which needs a newer one's (`chain`); where both are there,
the plain one counts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from t3_backup.store.listing import Listing, data_stems, sort_snapshots
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import DATA, DELTA, MANIFEST, PAGES, parse_name
from t3_backup.store.staged_file import StagedFile
from t3_backup.system import native

PARTIAL = ".partial-"  # begins the name of a file that is not whole yet


@dataclass(frozen=True)
class AccountDir:
    """One account's folder in the store, open."""

    user: str
    path: Path
    fd: int

    def read_listing(self) -> Listing:
        """Read the folder and every manifest in it. Raises OSError."""
        names = self.read_names()
        snapshots, strays, data_names = [], [], {}
        for name, stem in data_stems(names).items():
            try:
                snapshots.append(self.read_manifest(stem))
            except (OSError, ValueError):
                strays.append(name)
            data_names[stem] = name
        return Listing(
            self.path,
            names,
            sort_snapshots(snapshots, lambda one: data_names[one.name]),
            tuple(strays),
        )

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

    def open_plain_data(self, snapshot: Manifest) -> int:
        """Open the plain data of a snapshot, read-only. Raises OSError."""
        return self.open_file(snapshot.name + DATA)

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

    def publish_file(self, staged_file: StagedFile, manifest: Manifest) -> None:
        """Name a settled file by its `manifest`; durable when this returns.

        Raises OSError, and then nothing is named. ValueError for a manifest that could not be read
        again: its snapshot would never be seen.
        """
        self._publish(manifest, staged_file.name_as)

    def publish_link(self, image: Manifest, manifest: Manifest) -> None:
        """Name the plain data of `image` once more, by a further `manifest`.

        It takes no disk space, and goes with its last name. Raises as `publish_file` does.
        """
        self._publish(manifest, partial(self._link_data, image))

    def replace_data_by_link(self, image: Manifest, snapshot: Manifest) -> None:
        """Replace the data of `snapshot` by another name of the plain data of `image`.

        Raises OSError.
        """
        self.replace_file(partial(self._link_data, image), snapshot.name + DATA)
        self.sync()

    def _link_data(self, image: Manifest, name: str) -> None:
        os.link(
            image.name + DATA, name, src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False
        )

    def replace_file(self, name_as: Callable[[str], None], name: str) -> None:
        """Name a file by `name_as`, in the place of what has `name`.

        Raises OSError.
        """
        first = f"{PARTIAL}{os.urandom(8).hex()}"
        name_as(first)
        os.rename(first, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def _publish(self, manifest: Manifest, name_as: Callable[[str], None]) -> None:
        if (
            Manifest.from_text(manifest.to_text()).name != manifest.name
            or parse_name(manifest.name) is None
        ):
            raise ValueError(f"{manifest.name} is no name of a snapshot")
        with self._staged_manifest(manifest) as file:
            file.name_as(manifest.name + MANIFEST)
        try:
            self.sync()
            name_as(manifest.name + DATA)
        except BaseException:
            self.remove_file(manifest.name + MANIFEST)
            raise
        try:
            self.sync()
        except OSError:
            self.remove_snapshot(manifest)
            raise

    def replace_data(self, snapshot: Manifest, staged_file: StagedFile, ending: str) -> None:
        """Make a settled file the data of a snapshot, and remove the former.

        It is a delta or (`DATA`) plain. Raises OSError. Durably there before anything goes. Until
        then, and where both are there, the plain one is what counts.
        """
        self.replace_file(staged_file.name_as, snapshot.name + ending)
        self.sync()
        for other in (DELTA,) if ending == DATA else (DATA, PAGES):
            with contextlib.suppress(FileNotFoundError):
                self.remove_file(snapshot.name + other)

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

    def remove_snapshot(self, snapshot: Manifest) -> None:
        """Remove a snapshot that no delta needs.

        Data, then, durably after it, the manifest. Raises OSError.
        """
        # the plain one last: what is left is the snapshot still
        for ending in (PAGES, DELTA, DATA):
            with contextlib.suppress(FileNotFoundError):
                self.remove_file(snapshot.name + ending)
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
