"""One account's folder in the store, and the order of steps that makes a snapshot durable.

A snapshot exists when its data has a name, and it gets that name last: first the proven bytes are synced and hashed,
then the manifest is named and synced, then the data. So a crash leaves at most a manifest without data, which the
next run removes and which was never a snapshot. Removal goes the other way round. A published file is never changed.
Data without a manifest is somebody else's: it is listed, never counted and never removed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from t3_backup import copier
from t3_backup.blank import Blank
from t3_backup.manifest import DATA, MANIFEST, Manifest, parse_name

_PARTIAL = ".partial-"
_LONGEST_RUN_S = 2 * 86_400  # between the time in a manifest and its writing lies one copy and one proof


@dataclass(frozen=True)
class Shelf:
    """One account's folder in the store, open."""

    user: str
    path: Path
    fd: int

    def snapshots(self) -> list[Manifest]:
        """What is there, newest first: data and manifest both, the manifest sound."""
        return self._read()[0]

    def strays(self) -> list[str]:
        """Names of files that look like snapshots and don't count: no manifest, or none that can be read."""
        return self._read()[1]

    def _read(self) -> tuple[list[Manifest], list[str]]:
        found, strays = [], []
        for name in sorted(_names(self.fd)):
            stem = name.removesuffix(DATA)
            if stem == name or parse_name(stem) is None:
                continue
            try:
                found.append(self._manifest(stem))
            except (OSError, ValueError):
                strays.append(name)
        return sorted(found, key=lambda manifest: manifest.sequence, reverse=True), strays

    def _manifest(self, stem: str) -> Manifest:
        fd = os.open(stem + MANIFEST, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        with open(fd, encoding="utf-8") as file:
            manifest = Manifest.from_text(file.read())
        if manifest.name != stem:
            raise ValueError(f"the manifest of {manifest.name} lies beside {stem}")
        return manifest

    def data_path(self, snapshot: Manifest) -> Path:
        """Where its data lies."""
        return self.path / (snapshot.name + DATA)

    def holds(self, snapshot: Manifest) -> bool:
        """Whether its manifest is still there."""
        return snapshot.name + MANIFEST in _names(self.fd)

    def open_data(self, snapshot: Manifest) -> int:
        """A read-only descriptor of its data. Raises OSError."""
        return os.open(snapshot.name + DATA, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)

    def taken_names(self) -> set[str]:
        """Every name that a new snapshot must not have."""
        return {name.removesuffix(DATA).removesuffix(MANIFEST) for name in _names(self.fd)}

    def clear(self) -> None:
        """Remove what an interrupted run left: partial files, and manifests whose data never got its name."""
        names = _names(self.fd)
        for name in names:
            stem = name.removesuffix(MANIFEST)
            lonely = stem != name and parse_name(stem) is not None and stem + DATA not in names
            if name.startswith(_PARTIAL) or (lonely and self._is_ours(stem)):
                os.unlink(name, dir_fd=self.fd)

    def _is_ours(self, stem: str) -> bool:
        """Whether the manifest was written when its snapshot was taken, and not brought back later, ahead of its data."""
        try:
            written = os.stat(stem + MANIFEST, dir_fd=self.fd, follow_symlinks=False).st_ctime
            return abs(written - self._manifest(stem).when.timestamp()) < _LONGEST_RUN_S
        except (OSError, ValueError):
            return False

    def begin(self) -> Blank:
        """A new, empty, unnamed file for a snapshot. Raises OSError."""
        try:
            return Blank.create(self.fd, f"{_PARTIAL}{secrets.token_hex(8)}")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def publish(self, blank: Blank, manifest: Manifest) -> None:
        """Name the settled `blank` by its `manifest`; durable when this returns. Raises OSError, and then nothing is named."""
        with self._written(manifest) as file:
            file.name_as(manifest.name + MANIFEST)
        try:
            copier.sync_directory(self.fd, str(self.path))
            blank.name_as(manifest.name + DATA)
        except BaseException:
            os.unlink(manifest.name + MANIFEST, dir_fd=self.fd)
            raise
        try:
            copier.sync_directory(self.fd, str(self.path))
        except OSError:
            self.remove(manifest)
            raise

    def replace_manifest(self, manifest: Manifest) -> None:
        """Put a new manifest in the place of the one of the same name, in one step. Raises OSError."""
        partial = f"{_PARTIAL}{secrets.token_hex(8)}"
        with self._written(manifest) as file:
            file.name_as(partial)
        os.rename(partial, manifest.name + MANIFEST, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        copier.sync_directory(self.fd, str(self.path))

    @contextlib.contextmanager
    def _written(self, manifest: Manifest) -> Iterator[Blank]:
        with self.begin() as file:
            data = manifest.to_text().encode()
            try:
                while data:
                    data = data[os.write(file.writer, data) :]
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self.path / (manifest.name + MANIFEST))) from error
            copier.sync_file(file.writer, manifest.name + MANIFEST)
            yield file

    def remove(self, snapshot: Manifest) -> None:
        """Forget a snapshot: data, then, durably after it, the manifest. Raises OSError."""
        os.unlink(snapshot.name + DATA, dir_fd=self.fd)
        with contextlib.suppress(OSError):  # on a failing disk an orphaned manifest is the next run's to clear
            copier.sync_directory(self.fd, str(self.path))
            os.unlink(snapshot.name + MANIFEST, dir_fd=self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _names(folder: int) -> set[str]:
    """What is in the open `folder` now: btrfs lists what was there when a descriptor was opened or last rewound."""
    os.lseek(folder, 0, os.SEEK_SET)
    return set(os.listdir(folder))
