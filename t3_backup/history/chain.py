"""What each snapshot of a shelf hangs on, and its image out of that: plain ones, and chains of deltas down from them.

A delta names its base by SHA-256: that of a newer snapshot of the same shelf.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Self

from t3_backup.errors import Cancelled, Failure, NoRoom
from t3_backup.history import delta
from t3_backup.history.delta import Delta, Header
from t3_backup.history.image import Image
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import hash_content
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import DATA, DELTA, is_sealed_name
from t3_backup.worker.limits import Limits

_SPARE_FOLDER = "/var/tmp"  # noqa: S108 - for an unnamed file, where the store can't be written to


def header_of(account_dir: AccountDir, snapshot: Manifest) -> Header | None:
    """What the delta of a snapshot says of itself; None where it is plain. Raises Failure and OSError."""
    return None if account_dir.is_plain(snapshot) else _read_header(account_dir, snapshot.name + DELTA)


def _read_header(account_dir: AccountDir, name: str) -> Header:
    with opened(account_dir, name) as fd:
        return delta.peek(fd)


@contextlib.contextmanager
def opened(account_dir: AccountDir, name: str) -> Iterator[int]:
    """A read-only descriptor of a delta's file. What is found wrong with it (ValueError) becomes a Failure that names it."""
    fd = account_dir.open_file(name)
    try:
        yield fd
    except ValueError as error:
        raise Failure(f"{name}: {error}") from None
    finally:
        os.close(fd)


def needed_by(account_dir: AccountDir, strays: Iterable[str]) -> set[str]:
    """The SHA-256s of the images that those files hang on, if they are deltas. Raises OSError where that can't be told for now."""
    needed = set()
    for name in strays:
        if name.endswith(DELTA):
            with contextlib.suppress(Failure):  # no delta any more
                needed.add(_read_header(account_dir, name).base_sha256 or "")
    return needed


def base_among(snapshots: Iterable[Manifest], snapshot: Manifest, sha256: str) -> Manifest | None:
    """The nearest newer one of that SHA-256."""
    newer = (other for other in snapshots if other.sha256 == sha256 and other.sequence > snapshot.sequence)
    return min(newer, key=lambda other: other.sequence, default=None)


def chain_of(account_dir: AccountDir, snapshots: Sequence[Manifest], snapshot: Manifest) -> list[Manifest]:
    """The snapshot, its base, the base of that, and so on to one that hangs on nothing. Raises Failure and OSError."""
    chain = [snapshot]
    while (header := header_of(account_dir, chain[-1])) is not None and header.base_sha256 is not None:
        base = base_among(snapshots, chain[-1], header.base_sha256) or _stray(account_dir, chain, header)
        if base is None:
            raise Failure(f"{chain[-1].name} hangs on a newer snapshot of SHA-256 {header.base_sha256}, which is not there")
        chain.append(base)
    return chain


def _stray(account_dir: AccountDir, chain: Sequence[Manifest], header: Header) -> Manifest | None:
    """The base that `header` names, where it is there and its manifest is not: its image is what it was all the same."""
    assert header.base_sha256 is not None
    known = {one.name for one in chain}
    for name in account_dir.strays():
        found = replace(chain[-1], name=name.rpartition(".")[0], sha256=header.base_sha256, bytes=header.base_bytes)
        if is_sealed_name(found.name + DATA) and found.name not in known and _is_image(account_dir, found):
            return found
    return None


def _is_image(account_dir: AccountDir, stray: Manifest) -> bool:
    if (header := header_of(account_dir, stray)) is not None:
        return header.sha256 == stray.sha256
    fd = account_dir.open_data(stray)
    try:
        return os.fstat(fd).st_size == stray.bytes and hash_content(fd).sha256 == stray.sha256
    finally:
        os.close(fd)


def image_of(
    account_dir: AccountDir, snapshots: Sequence[Manifest], snapshot: Manifest, check: Callable[[], None], *, copied: bool = False
) -> Image:
    """The image of a snapshot, beside what is stored or (`copied`) in a file of its own. Raises Failure and OSError."""
    chain = chain_of(account_dir, snapshots, snapshot)
    plain = account_dir.open_data(chain[-1]) if account_dir.is_plain(chain[-1]) else None
    try:
        image = Image(plain, _unnamed(account_dir), snapshot.page_size, check)
    except BaseException:
        if plain is not None:
            os.close(plain)
        raise
    try:
        if copied:
            image.copy()
        for older in reversed(chain if plain is None else chain[:-1]):
            become(image, account_dir, older)
    except BaseException:
        image.close()
        raise
    return image


def empty_image(account_dir: AccountDir, page_size: int, check: Callable[[], None]) -> Image:
    """An image of nothing. Raises OSError."""
    return Image(None, _unnamed(account_dir), page_size, check)


def become(image: Image, account_dir: AccountDir, snapshot: Manifest) -> None:
    """Let the image of its base become that of a snapshot which is no plain one. Raises Failure and OSError."""
    with opened(account_dir, snapshot.name + DELTA) as fd:
        image.apply(Delta(fd))


def open_data(account_dir: AccountDir, snapshot: Manifest, limits: Limits, stopping: threading.Event) -> int:
    """A read-only descriptor of a snapshot's bytes, plain or put together; they are not proven by it.

    Raises Failure and OSError; Cancelled once `stopping` is set.
    """
    if account_dir.is_plain(snapshot):
        return account_dir.open_data(snapshot)
    _must_have_room(account_dir, snapshot, limits)
    with image_of(account_dir, account_dir.snapshots(), snapshot, partial(must_go_on, stopping), copied=True) as image:
        return image.open()


class Walk:
    """The snapshots of a shelf one after the other, newest first: of a chain, each is made out of the one before it."""

    def __init__(self, account_dir: AccountDir, limits: Limits, stopping: threading.Event) -> None:
        self._shelf, self._limits, self._stopping = account_dir, limits, stopping
        self._image: Image | None = None
        self._holds = ""  # the SHA-256 of what the image is to be

    def open(self, snapshot: Manifest) -> int:
        """As `open_data`; nobody may use what it gave before. Raises as that does."""
        header = header_of(self._shelf, snapshot)
        if header is None:
            return self._shelf.open_data(snapshot)
        try:
            if self._image is not None and header.base_sha256 == self._holds:
                become(self._image, self._shelf, snapshot)
            else:
                self.close()
                _must_have_room(self._shelf, snapshot, self._limits)
                check = partial(must_go_on, self._stopping)
                self._image = image_of(self._shelf, self._shelf.snapshots(), snapshot, check, copied=True)
        except BaseException:
            self.close()
            raise
        self._holds = snapshot.sha256
        return self._image.open()

    def close(self) -> None:
        """Give its room back. Again is harmless."""
        if self._image is not None:
            self._image.close()
        self._image, self._holds = None, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def must_go_on(stopping: threading.Event) -> None:
    """Raises Cancelled once `stopping` is set."""
    if stopping.is_set():
        raise Cancelled("stopped before it was done")


def _must_have_room(account_dir: AccountDir, snapshot: Manifest, limits: Limits) -> None:
    """Raises NoRoom where a copy of a snapshot would use up what must stay free, there where it will be written."""
    fd = _unnamed(account_dir)
    try:
        status = os.fstatvfs(fd)
    finally:
        os.close(fd)
    free = status.f_bavail * status.f_frsize
    if free - snapshot.bytes < limits.reserve:
        raise NoRoom(
            f"no room to put {snapshot.name} together: it takes {snapshot.bytes} bytes, {free} are free, and {limits.reserve} "
            "of them must stay so (T3_BACKUP_RESERVE); free some space"
        )


def _unnamed(account_dir: AccountDir) -> int:
    """An empty file without a name, to write to: in the store, or elsewhere where the store can't be written to."""
    try:
        with account_dir.begin() as staged_file:
            return os.dup(staged_file.writer)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        return os.open(_SPARE_FOLDER, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
