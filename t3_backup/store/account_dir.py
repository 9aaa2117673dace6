"""One account's folder in the store, and the order of steps that makes a snapshot durable.

A snapshot exists when its data has a name, and it gets that name last: first the proven bytes are synced and hashed,
then the manifest is named and synced, then the data. So a crash leaves at most a manifest without data, which the
next run removes and which was never a snapshot. Removal goes the other way round. A published file is never changed.
Data without a manifest is somebody else's: it is listed, never counted and never removed.

The data is a plain database or a delta, which hangs on a newer one's (`chain`); where both are there, the plain one counts.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from t3_backup.store.content import hash_content
from t3_backup.store.manifest import Companion, Manifest
from t3_backup.store.names import DATA, DELTA, MANIFEST, PAGES, parse_name
from t3_backup.store.staged_file import StagedFile
from t3_backup.system import native

_PARTIAL = ".partial-"
_ARCHIVE = re.compile(r"files-[0-9a-f]{64}\.tar\.zst")
_LONGEST_RUN_S = 2 * 86_400  # between the time in a manifest and its writing lies one copy and one proof


def archive_name(companion: Companion) -> str:
    """The file of an archive: its name is its content's."""
    return f"files-{companion.sha256}.tar.zst"


@dataclass(frozen=True)
class AccountDir:
    """One account's folder in the store, open."""

    user: str
    path: Path
    fd: int

    def snapshots(self) -> list[Manifest]:
        """What is there, newest first: data and manifest both, the manifest sound."""
        return self.read()[0]

    def strays(self) -> list[str]:
        """Names of files that look like snapshots and don't count: no manifest, or none that can be read."""
        return self.read()[1]

    def read(self) -> tuple[list[Manifest], list[str]]:
        """Snapshots and strays, of one and the same look."""
        found, strays = [], []
        names = self.names()
        for name in sorted(names):
            stem = _stem(name)
            if name not in (stem + DATA, stem + DELTA) or parse_name(stem) is None:
                continue
            if name == stem + DELTA and stem + DATA in names:
                continue
            try:
                found.append(self._manifest(stem))
            except (OSError, ValueError):
                strays.append(name)
        return sorted(found, key=lambda manifest: manifest.sequence, reverse=True), strays

    def _manifest(self, stem: str) -> Manifest:
        with open(self.open_file(stem + MANIFEST), encoding="utf-8") as file:
            manifest = Manifest.from_text(file.read())
        if manifest.name != stem:
            raise ValueError(f"the manifest of {manifest.name} lies beside {stem}")
        return manifest

    def data_path(self, snapshot: Manifest) -> Path:
        """Where its data lies."""
        return self.path / (snapshot.name + (DATA if self.is_plain(snapshot) else DELTA))

    def is_plain(self, snapshot: Manifest) -> bool:
        """Whether its data is a database as it was: always so, where it is no delta."""
        return not self.is_there(snapshot.name + DELTA) or self.is_there(snapshot.name + DATA)

    def is_there(self, name: str) -> bool:
        """Whether a file of that name is."""
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def stored(self, snapshot: Manifest) -> os.stat_result:
        """Of the file that its data is in. Raises OSError."""
        return os.stat(self.data_path(snapshot).name, dir_fd=self.fd, follow_symlinks=False)

    def holds(self, snapshot: Manifest) -> bool:
        """Whether its manifest is still there."""
        return snapshot.name + MANIFEST in self.names()

    def open_data(self, snapshot: Manifest) -> int:
        """A read-only descriptor of its data, which is plain. Raises OSError."""
        return self.open_file(snapshot.name + DATA)

    def open_file(self, name: str) -> int:
        """A read-only descriptor of the file of that name. Raises OSError."""
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)

    def has_archive(self, companion: Companion) -> bool:
        """Whether the archive of what was beside a database is there, in its whole length."""
        try:
            return os.stat(archive_name(companion), dir_fd=self.fd, follow_symlinks=False).st_size == companion.bytes
        except FileNotFoundError:
            return False

    def open_archive(self, companion: Companion) -> int:
        """A read-only descriptor of it. Raises OSError."""
        return self.open_file(archive_name(companion))

    def keep_archive(self, staged_file: StagedFile, companion: Companion) -> None:
        """Name the settled `blank` by its content, durably. One that has the name already stays, if it has the content, too."""
        name = archive_name(companion)
        try:
            staged_file.name_as(name)
        except FileExistsError:
            if self.is_whole(companion):
                return
            self.put(staged_file.name_as, name)
        native.sync_directory(self.fd, str(self.path))

    def is_whole(self, companion: Companion) -> bool:
        """Whether it is what was sealed, byte for byte. Raises OSError."""
        fd = self.open_archive(companion)
        try:
            content = hash_content(fd)
        finally:
            os.close(fd)
        return (content.bytes, content.sha256) == (companion.bytes, companion.sha256)

    def drop_archives(self) -> list[str]:
        """Remove the archives that no snapshot names any more; none where a manifest can't be read. Their names. Raises OSError."""
        archives = sorted(name for name in self.names() if _ARCHIVE.fullmatch(name))
        snapshots, strays = self.read() if archives else ([], [])
        if strays:
            return []
        named = {archive_name(snapshot.companion) for snapshot in snapshots if snapshot.companion is not None}
        gone = [name for name in archives if name not in named]
        for name in gone:
            os.unlink(name, dir_fd=self.fd)
        return gone

    def taken_names(self) -> set[str]:
        """Every name that a new snapshot must not have."""
        return {_stem(name) for name in self.names()}

    def next_sequence(self, snapshots: Sequence[Manifest]) -> int:
        """The number of the next one; whose manifest can't be read now may have one, too."""
        names = self.names()
        hidden = [name for name in self.strays() if _stem(name) + MANIFEST in names]
        return max([0, *(snapshot.sequence for snapshot in snapshots)]) + 1 + len(hidden)

    def clear(self) -> None:
        """Remove what an interrupted run left.

        That is: partial files, manifests whose data never got its name, deltas beside their plain data, page hashes and archives of
        nobody.
        """
        names = self.names()
        for name in names:
            stem = os.path.splitext(name)[0]
            if name.startswith(_PARTIAL) or (parse_name(stem) is not None and self._is_left(name, stem, names)):
                os.unlink(name, dir_fd=self.fd)
        self.drop_archives()

    def _is_left(self, name: str, stem: str, names: Container[str]) -> bool:
        plain, packed = stem + DATA in names, stem + DELTA in names
        return (
            (name == stem + MANIFEST and not plain and not packed and self._is_ours(stem))
            or (name == stem + DELTA and plain)
            or (name == stem + PAGES and not plain)
        )

    def _is_ours(self, stem: str) -> bool:
        """Whether the manifest is one that we have left, and not one that was brought back ahead of its data.

        It was written when its snapshot was taken; or so long ago that whoever brings back a store is done.
        """
        try:
            written = os.stat(stem + MANIFEST, dir_fd=self.fd, follow_symlinks=False).st_ctime
            old = time.time() - written > _LONGEST_RUN_S
            return abs(written - self._manifest(stem).when.timestamp()) < _LONGEST_RUN_S or old
        except (OSError, ValueError):
            return False

    def names(self) -> set[str]:
        """What is there now: btrfs lists what was there when a descriptor was opened or last rewound."""
        os.lseek(self.fd, 0, os.SEEK_SET)
        return set(os.listdir(self.fd))

    def begin(self) -> StagedFile:
        """A new, empty, unnamed file for a snapshot. Raises OSError."""
        try:
            return StagedFile.create(self.fd, f"{_PARTIAL}{os.urandom(8).hex()}")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def publish(self, staged_file: StagedFile, manifest: Manifest) -> None:
        """Name the settled `blank` by its `manifest`; durable when this returns. Raises OSError, and then nothing is named.

        ValueError for a manifest that could not be read again: its snapshot would never be seen.
        """
        self._publish(manifest, staged_file.name_as)

    def publish_again(self, image: Manifest, manifest: Manifest) -> None:
        """Name the plain data of `image` once more, by a further `manifest`. It takes no room, and goes with its last name."""
        self._publish(manifest, partial(self._link, image))

    def name_again(self, image: Manifest, snapshot: Manifest) -> None:
        """Let the plain data of `image` be that of `snapshot`, too, in the place of what it has. Raises OSError."""
        self.put(partial(self._link, image), snapshot.name + DATA)
        native.sync_directory(self.fd, str(self.path))

    def _link(self, image: Manifest, name: str) -> None:
        os.link(image.name + DATA, name, src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False)

    def put(self, name_as: Callable[[str], None], name: str) -> None:
        """Let `name_as` give a file a name, and that be `name`, in the place of what has it. Raises OSError."""
        first = f"{_PARTIAL}{os.urandom(8).hex()}"
        name_as(first)
        os.rename(first, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def _publish(self, manifest: Manifest, name_as: Callable[[str], None]) -> None:
        if Manifest.from_text(manifest.to_text()).name != manifest.name or parse_name(manifest.name) is None:
            raise ValueError(f"{manifest.name} is no name of a snapshot")
        with self._written(manifest) as file:
            file.name_as(manifest.name + MANIFEST)
        try:
            native.sync_directory(self.fd, str(self.path))
            name_as(manifest.name + DATA)
        except BaseException:
            os.unlink(manifest.name + MANIFEST, dir_fd=self.fd)
            raise
        try:
            native.sync_directory(self.fd, str(self.path))
        except OSError:
            self.remove(manifest)
            raise

    def replace_data(self, snapshot: Manifest, staged_file: StagedFile, ending: str) -> None:
        """Let the settled `blank` be the data of a snapshot, as a delta or (`DATA`) plain, and the former one go. Raises OSError.

        Durably there before anything goes. Until then, and where both are there, the plain one is what counts.
        """
        self.put(staged_file.name_as, snapshot.name + ending)
        native.sync_directory(self.fd, str(self.path))
        for other in (DELTA,) if ending == DATA else (DATA, PAGES):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(snapshot.name + other, dir_fd=self.fd)

    def replace_manifest(self, manifest: Manifest) -> None:
        """Put a new manifest in the place of the one of the same name, in one step. Raises OSError."""
        with self._written(manifest) as file:
            self.put(file.name_as, manifest.name + MANIFEST)
        native.sync_directory(self.fd, str(self.path))

    @contextlib.contextmanager
    def _written(self, manifest: Manifest) -> Iterator[StagedFile]:
        with self.begin() as file:
            data = manifest.to_text().encode()
            try:
                while data:
                    data = data[os.write(file.writer, data) :]
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self.path / (manifest.name + MANIFEST))) from error
            native.sync_file(file.writer, manifest.name + MANIFEST)
            yield file

    def remove(self, snapshot: Manifest) -> None:
        """Forget a snapshot on which nothing hangs: data, then, durably after it, the manifest. Raises OSError."""
        names = self.names()
        for ending in (PAGES, DELTA, DATA):  # the plain one last: what is left is the snapshot still
            if snapshot.name + ending in names:
                os.unlink(snapshot.name + ending, dir_fd=self.fd)
        with contextlib.suppress(OSError):  # on a failing disk an orphaned manifest is the next run's to clear
            native.sync_directory(self.fd, str(self.path))
            os.unlink(snapshot.name + MANIFEST, dir_fd=self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _stem(name: str) -> str:
    """The name of the snapshot that a file is of; or what there is instead of one."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot + ending in (DATA, DELTA, MANIFEST) else name
