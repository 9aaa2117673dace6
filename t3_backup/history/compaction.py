"""Turn an older snapshot into a delta on its newer neighbour.

First the delta is proven to give the snapshot back. The newest verified snapshot, which all others
need in the end, stays plain, and so does what came after it. Nothing goes before what takes its
place is on the disk, has been put together out of what the disk holds, and has the same SHA-256.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from t3_backup.errors import NotTheSame
from t3_backup.history import chain, delta, page_hashes
from t3_backup.history.delta import Delta, Header
from t3_backup.history.image import Image
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import Content, hash_content
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import StoredDatabase
from t3_backup.store.names import DELTA
from t3_backup.store.staged_file import StagedFile

_WORTH = 0.9  # what is not smaller by this than the plain file is not worth a base
_TOO_DIFFERENT = 0.5  # of its pages: a delta is then no smaller than the image packed by itself
_WITH_DELTAS = 2  # the format of manifests from which on an image may be a delta
_PAGE_SIZES = frozenset(1 << power for power in range(9, 17))  # sqlite.org/fileformat.html


def choose_bases(
    images: Iterable[StoredDatabase], unsound: Container[str] = ()
) -> dict[str, StoredDatabase]:
    """Choose the base of each image of one database, by name.

    It is the nearest newer one of a snapshot that nothing speaks against. What isn't there stays
    plain, and so does the newest one of a good snapshot. One of the snapshots that are `unsound`,
    by name, is no base, and no good one. Pure.
    """
    found: dict[str, StoredDatabase] = {}
    newer: list[StoredDatabase] = []  # those that may be a base, the nearest last
    good = False  # whether the newest of a good snapshot was seen
    for stored in sorted(images, key=lambda one: one.sequence, reverse=True):
        sound = stored.snapshot.name not in unsound
        is_good = sound and stored.snapshot.is_good
        first_good, good = is_good and not good, good or is_good
        base = next((one for one in reversed(newer) if one.sequence > stored.sequence), None)
        if base is not None and not first_good:
            found[stored.name] = base
        if sound and stored.snapshot.verdict in ("verified", "unproven"):
            newer.append(stored)
    return found


def plan_rebases(
    kept: Sequence[StoredDatabase],
    gone: Sequence[StoredDatabase],
    headers: Mapping[str, Header | None],
    unsound: Container[str] = (),
) -> tuple[list[tuple[StoredDatabase, StoredDatabase]], set[str]]:
    """Plan, before `gone` goes, which of `kept` get which other base.

    And name those that can't go for lack of one. `headers`, by name, are of those that are deltas;
    `unsound` as in `choose_bases`. Pure.
    """
    everyone, to = [*kept, *gone], choose_bases(kept, unsound)
    found, stuck = [], set()
    for stored in kept:
        header = headers.get(stored.name)
        if header is None or header.base_sha256 is None:
            continue
        if chain.find_base(kept, stored, header.base_sha256) is not None:
            continue
        if stored.name in to:
            found.append((stored, to[stored.name]))
        elif (base := chain.find_base(everyone, stored, header.base_sha256)) is not None:
            stuck.add(base.name)
    return found, stuck


@dataclass(frozen=True)
class Compaction:
    """Compact the snapshots of one account.

    Between small steps `check` says whether there is space, and time, to go on.
    """

    account_dir: AccountDir
    listing: Listing
    check: Callable[[], None]  # raises what ends it

    def pack_image(self, stored: StoredDatabase, base: StoredDatabase) -> Listing | None:
        """Turn the image `stored` into a delta on `base`.

        Where they are too different, it becomes one without a base. Returns the new listing; None
        where a delta is not smaller. Raises Failure, OSError, and what `check` raises; then it is
        as it was.
        """
        if stored.page_size not in _PAGE_SIZES:  # no database has such pages: it is damaged
            return None
        pages = self._known_changes(stored, base)
        try:
            return self._pack(stored, base, self._compare(stored, base) if pages is None else pages)
        except NotTheSame:
            if pages is None:
                raise
            return self._pack(stored, base, self._compare(stored, base))

    def _known_changes(self, stored: StoredDatabase, base: StoredDatabase) -> list[int] | None:
        """Return the pages in which they differ, by what is known without reading them.

        None: it is not known.
        """
        if stored.sha256 == base.sha256:
            return []
        if stored.page_size != base.page_size:
            return list(range(stored.page_count))
        if self.listing.is_plain(stored):
            one, two = (
                page_hashes.read_page_hashes(self.account_dir, stored),
                page_hashes.read_page_hashes(self.account_dir, base),
            )
            return None if one is None or two is None else one.find_changes(two)
        between = chain.read_chain(self.account_dir, self.listing, stored)
        if base not in between:
            return None
        # Two images can only differ in pages that some delta on the way from one to the other
        # holds.
        return sorted(
            {
                page
                for one in between[: between.index(base)]
                for page in self._read_page_numbers(one)
            }
        )

    def _read_page_numbers(self, stored: StoredDatabase) -> list[int]:
        with chain.opened_delta(self.account_dir, stored.name + DELTA) as fd:
            return list(Delta(fd).pages())

    def _compare(self, stored: StoredDatabase, base: StoredDatabase) -> list[int]:
        """Return the pages in which they differ, all compared. Raises Failure and OSError."""
        size = stored.page_size
        count = -(-max(stored.bytes, base.bytes) // size)
        if not (self.listing.is_plain(stored) and self.listing.is_plain(base)):
            with self._build_image(stored) as old, self._build_image(base) as new:
                return [
                    page
                    for page in range(count)
                    if old.read_pages([page]) != new.read_pages([page])
                ]
        one, two = (
            self.account_dir.open_plain_data(stored),
            self.account_dir.open_plain_data(base),
        )
        try:
            return page_hashes.compare_pages(one, two, count, size, self.check)
        finally:
            os.close(one)
            os.close(two)

    def _pack(
        self, stored: StoredDatabase, base: StoredDatabase, pages: Sequence[int]
    ) -> Listing | None:
        listing = self.listing
        alone = stored.page_size != base.page_size or len(pages) > _TOO_DIFFERENT * max(
            stored.page_count, 1
        )
        header = Header(
            delta.FORMAT,
            stored.page_size,
            stored.bytes,
            stored.sha256,
            base.bytes,
            base.sha256,
        )
        if alone:
            header = Header(delta.FORMAT, stored.page_size, stored.bytes, stored.sha256, 0, None)
            pages = range(-(-stored.bytes // stored.page_size))
        with self.account_dir.stage_file() as staged_file:
            size = self._write_delta(staged_file, header, stored, base, pages)
            if self.listing.is_plain(stored) and size > _WORTH * stored.bytes:
                return None
            staged_file.settle()
            os.posix_fadvise(staged_file.reader, 0, 0, os.POSIX_FADV_DONTNEED)
            self._prove_delta(staged_file, stored, None if alone else base)
            # an older version of this tool would take a manifest without plain data for a leftover
            if (snapshot := stored.snapshot).format < _WITH_DELTAS:
                self.account_dir.replace_manifest(snapshot)
                listing = listing.with_manifest(replace(snapshot, format=_WITH_DELTAS))
            self.account_dir.replace_data(stored, staged_file, DELTA)
        return listing.with_form(stored, "delta")

    def _write_delta(
        self,
        staged_file: StagedFile,
        header: Header,
        stored: StoredDatabase,
        base: StoredDatabase,
        pages: Iterable[int],
    ) -> int:
        with self._build_image(stored) as old:
            if header.base_sha256 is None:
                nothing = bytes(delta.GROUP_BYTES)
                return delta.write_delta(
                    staged_file.writer,
                    header,
                    pages,
                    old.read_pages,
                    lambda n: nothing[: len(n) * header.page_size],
                    self.check,
                )
            with self._build_image(base) as new:
                return delta.write_delta(
                    staged_file.writer, header, pages, old.read_pages, new.read_pages, self.check
                )

    def _build_image(self, stored: StoredDatabase) -> Image:
        return chain.build_image(self.account_dir, self.listing, stored, self.check)

    def _prove_delta(
        self, staged_file: StagedFile, stored: StoredDatabase, base: StoredDatabase | None
    ) -> None:
        """Put the snapshot together as it will have to be.

        Raise NotTheSame where it or its base is not what was sealed.
        """
        if base is not None and chain.find_base(self.listing.images, stored, base.sha256) is None:
            raise NotTheSame(f"{base.name} would not be found as the base of {stored.name}")
        fd = staged_file.open()
        try:
            if base is not None and self.listing.is_plain(base):
                content = self._rebuild_over_plain(Delta(fd), stored, base)
            else:
                content = self._rebuild(Delta(fd), stored, base)
        except ValueError as error:
            raise NotTheSame(f"what was written for {stored.name} can't be read: {error}") from None
        finally:
            os.close(fd)
        _check_content(content, stored)

    def _rebuild(
        self, written: Delta, stored: StoredDatabase, base: StoredDatabase | None
    ) -> Content:
        with (
            self._build_image(base)
            if base
            else chain.empty_image(self.account_dir, stored.page_size, self.check) as image
        ):
            image.apply_delta(written)
            return image.hash_content()

    def _rebuild_over_plain(
        self, written: Delta, stored: StoredDatabase, base: StoredDatabase
    ) -> Content:
        """Rebuild the image out of what the disk holds of its base, and not the page cache.

        Hash the base at the same time.
        """
        reader = self.account_dir.open_plain_data(base)
        try:
            os.posix_fadvise(reader, 0, 0, os.POSIX_FADV_DONTNEED)
            with ThreadPoolExecutor(1, thread_name_prefix="base") as pool:
                hashing = pool.submit(hash_content, reader)
                content = self._rebuild(written, stored, base)
                _check_content(hashing.result(), base)
            os.posix_fadvise(reader, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(reader)
        return content


def _check_content(content: Content, stored: StoredDatabase) -> None:
    if (content.bytes, content.sha256) != (stored.bytes, stored.sha256):
        raise NotTheSame(
            f"{stored.name} has {content.bytes} bytes and SHA-256 {content.sha256} when it is "
            "put together, another was sealed"
        )
