"""History in little room: an older snapshot becomes a delta on its newer neighbour, once that is proven to give it back.

The newest verified snapshot, on which all others hang in the end, stays plain, and so does what came after it. Nothing goes
before what takes its place is on the disk, has been put together out of what the disk holds, and has the same SHA-256.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from t3_backup.errors import NotTheSame
from t3_backup.history import chain, delta, page_hashes
from t3_backup.history.delta import Delta, Header
from t3_backup.history.image import Image
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import Content, hash_content
from t3_backup.store.manifest import FORMAT, Manifest
from t3_backup.store.names import DELTA
from t3_backup.store.staged_file import StagedFile

_WORTH = 0.9  # what is not smaller by this than the plain file is not worth hanging on another
_TOO_DIFFERENT = 0.5  # of its pages: a delta is then no smaller than the image packed by itself
_PAGE_SIZES = frozenset(1 << power for power in range(9, 17))  # sqlite.org/fileformat.html


def bases(snapshots: Iterable[Manifest]) -> dict[str, Manifest]:
    """By name, what each snapshot is to hang on: the nearest newer verified one. Who isn't there stays plain. Pure."""
    found: dict[str, Manifest] = {}
    newer: list[Manifest] = []  # verified ones, the nearest last
    for snapshot in sorted(snapshots, key=lambda one: one.sequence, reverse=True):
        if base := next((one for one in reversed(newer) if one.sequence > snapshot.sequence), None):
            found[snapshot.name] = base
        if snapshot.verdict == "verified":
            newer.append(snapshot)
    return found


def moves(
    kept: Sequence[Manifest], gone: Sequence[Manifest], headers: Mapping[str, Header | None]
) -> tuple[list[tuple[Manifest, Manifest]], set[str]]:
    """Before `gone` goes: which of `kept` must hang on another base, and on which; and names of those that can't go for it.

    `headers`, by name, are of those that are deltas. Pure.
    """
    everyone, to = [*kept, *gone], bases(kept)
    found, stuck = [], set()
    for snapshot in kept:
        header = headers.get(snapshot.name)
        if header is None or header.base_sha256 is None:
            continue
        if chain.base_among(kept, snapshot, header.base_sha256) is not None:
            continue
        if snapshot.name in to:
            found.append((snapshot, to[snapshot.name]))
        elif (base := chain.base_among(everyone, snapshot, header.base_sha256)) is not None:
            stuck.add(base.name)
    return found, stuck


@dataclass(frozen=True)
class Compaction:
    """On which shelf, and what is asked between small steps: whether there is room, and time, to go on."""

    account_dir: AccountDir
    snapshots: Sequence[Manifest]  # all that are there
    check: Callable[[], None]  # raises what ends it

    def pack(self, snapshot: Manifest, base: Manifest) -> bool:
        """Let `snapshot` be a delta on `base`, or, where they are too different, packed by itself; False where that is not smaller.

        Raises Failure, OSError, and what `check` raises; then it is as it was.
        """
        if snapshot.page_size not in _PAGE_SIZES:  # no database has such pages: it is damaged
            return False
        pages = self._hinted(snapshot, base)
        try:
            return self._pack(snapshot, base, self._found(snapshot, base) if pages is None else pages)
        except NotTheSame:
            if pages is None:
                raise
            return self._pack(snapshot, base, self._found(snapshot, base))

    def _hinted(self, snapshot: Manifest, base: Manifest) -> list[int] | None:
        """The pages in which they differ, by what is known without reading them; None: it is not known."""
        if snapshot.sha256 == base.sha256:
            return []
        if snapshot.page_size != base.page_size:
            return list(range(snapshot.page_count))
        if self.account_dir.is_plain(snapshot):
            one, two = page_hashes.beside(self.account_dir, snapshot), page_hashes.beside(self.account_dir, base)
            return None if one is None or two is None else one.differing(two)
        between = chain.chain_of(self.account_dir, self.snapshots, snapshot)
        if base not in between:
            return None
        # Two images can only differ in pages that some delta on the way from one to the other holds.
        return sorted({page for one in between[: between.index(base)] for page in self._pages(one)})

    def _pages(self, snapshot: Manifest) -> list[int]:
        with chain.opened(self.account_dir, snapshot.name + DELTA) as fd:
            return list(Delta(fd).pages())

    def _found(self, snapshot: Manifest, base: Manifest) -> list[int]:
        """The pages in which they differ, all compared. Raises Failure and OSError."""
        size = snapshot.page_size
        count = -(-max(snapshot.bytes, base.bytes) // size)
        if not (self.account_dir.is_plain(snapshot) and self.account_dir.is_plain(base)):
            with self._image(snapshot) as old, self._image(base) as new:
                return [page for page in range(count) if old.read([page]) != new.read([page])]
        one, two = self.account_dir.open_data(snapshot), self.account_dir.open_data(base)
        try:
            return page_hashes.compared(one, two, count, size, self.check)
        finally:
            os.close(one)
            os.close(two)

    def _pack(self, snapshot: Manifest, base: Manifest, pages: Sequence[int]) -> bool:
        alone = snapshot.page_size != base.page_size or len(pages) > _TOO_DIFFERENT * max(snapshot.page_count, 1)
        header = Header(delta.FORMAT, snapshot.page_size, snapshot.bytes, snapshot.sha256, base.bytes, base.sha256)
        if alone:
            header = Header(delta.FORMAT, snapshot.page_size, snapshot.bytes, snapshot.sha256, 0, None)
            pages = range(-(-snapshot.bytes // snapshot.page_size))
        with self.account_dir.begin() as staged_file:
            size = self._write(staged_file, header, snapshot, base, pages)
            if self.account_dir.is_plain(snapshot) and size > _WORTH * snapshot.bytes:
                return False
            staged_file.settle()
            os.posix_fadvise(staged_file.reader, 0, 0, os.POSIX_FADV_DONTNEED)
            self._must_give_back(staged_file, snapshot, None if alone else base)
            if snapshot.format < FORMAT:  # an older version of this tool would take a manifest without plain data for a leftover
                self.account_dir.replace_manifest(snapshot)
            self.account_dir.replace_data(snapshot, staged_file, DELTA)
        return True

    def _write(self, staged_file: StagedFile, header: Header, snapshot: Manifest, base: Manifest, pages: Iterable[int]) -> int:
        with self._image(snapshot) as old:
            if header.base_sha256 is None:
                nothing = bytes(delta.GROUP_BYTES)
                return delta.write(
                    staged_file.writer, header, pages, old.read, lambda n: nothing[: len(n) * header.page_size], self.check
                )
            with self._image(base) as new:
                return delta.write(staged_file.writer, header, pages, old.read, new.read, self.check)

    def _image(self, snapshot: Manifest) -> Image:
        return chain.image_of(self.account_dir, self.snapshots, snapshot, self.check)

    def _must_give_back(self, staged_file: StagedFile, snapshot: Manifest, base: Manifest | None) -> None:
        """Put the snapshot together as it will have to be. Raises NotTheSame where it or its base is not what was sealed."""
        if base is not None and chain.base_among(self.snapshots, snapshot, base.sha256) is None:
            raise NotTheSame(f"{base.name} would not be found as the base of {snapshot.name}")
        fd = staged_file.open()
        try:
            if base is not None and self.account_dir.is_plain(base):
                content = self._over_plain(Delta(fd), snapshot, base)
            else:
                content = self._together(Delta(fd), snapshot, base)
        except ValueError as error:
            raise NotTheSame(f"what was written for {snapshot.name} can't be read: {error}") from None
        finally:
            os.close(fd)
        _must_be(content, snapshot)

    def _together(self, written: Delta, snapshot: Manifest, base: Manifest | None) -> Content:
        with self._image(base) if base else chain.empty_image(self.account_dir, snapshot.page_size, self.check) as image:
            image.apply(written)
            return image.hash()

    def _over_plain(self, written: Delta, snapshot: Manifest, base: Manifest) -> Content:
        """The image, out of what the disk holds of its base, and not the page cache. The base itself is hashed beside it."""
        reader = self.account_dir.open_data(base)
        try:
            os.posix_fadvise(reader, 0, 0, os.POSIX_FADV_DONTNEED)
            with ThreadPoolExecutor(1, thread_name_prefix="base") as pool:
                hashing = pool.submit(hash_content, reader)
                content = self._together(written, snapshot, base)
                _must_be(hashing.result(), base)
            os.posix_fadvise(reader, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(reader)
        return content


def _must_be(content: Content, snapshot: Manifest) -> None:
    if (content.bytes, content.sha256) != (snapshot.bytes, snapshot.sha256):
        raise NotTheSame(
            f"{snapshot.name} has {content.bytes} bytes and SHA-256 {content.sha256} when it is put together, another was sealed"
        )
