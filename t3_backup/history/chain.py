"""Find which image each delta needs, and rebuild an image along the chain of deltas.

A delta names its base by SHA-256: that of a newer image of the same database in the same account
folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from t3_backup.errors import Cancelled, Failure, NoRoom
from t3_backup.history import delta
from t3_backup.history.delta import Delta, Header
from t3_backup.history.image import Image
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import hash_content
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import StoredDatabase
from t3_backup.store.names import DATA, DELTA, is_sealed_name, snapshot_of_image
from t3_backup.store.outside import TAKES_NOTHING
from t3_backup.worker.limits import Limits

_SPARE_FOLDER = "/var/tmp"  # noqa: S108 - for an unnamed file
_UNNAMED = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC


def read_header(account_dir: AccountDir, listing: Listing, stored: StoredDatabase) -> Header | None:
    """Read the header of a snapshot's delta; None where the snapshot is plain.

    Raises Failure and OSError.
    """
    return (
        None if listing.is_plain(stored) else _read_delta_header(account_dir, stored.name + DELTA)
    )


def _read_delta_header(account_dir: AccountDir, name: str) -> Header:
    with opened_delta(account_dir, name) as fd:
        return delta.read_header(fd)


@contextlib.contextmanager
def opened_delta(account_dir: AccountDir, name: str) -> Iterator[int]:
    """Open a delta's file, read-only.

    What is found wrong with it (ValueError) becomes a Failure that names it.
    """
    fd = account_dir.open_file(name)
    try:
        yield fd
    except ValueError as error:
        raise Failure(f"{name}: {error}") from None
    finally:
        os.close(fd)


def bases_of(account_dir: AccountDir, names: Iterable[str]) -> set[str]:
    """Return the SHA-256s of the images that those files need, if they are deltas.

    Raises OSError where that can't be told for now.
    """
    needed = set()
    for name in names:
        if name.endswith(DELTA):
            with contextlib.suppress(Failure):  # no delta any more
                needed.add(_read_delta_header(account_dir, name).base_sha256 or "")
    return needed


def find_needed(account_dir: AccountDir, listing: Listing) -> set[str]:
    """Return the SHA-256s of the images that deltas need. Raises OSError."""
    return bases_of(account_dir, listing.names)


def find_base(
    images: Iterable[StoredDatabase], stored: StoredDatabase, sha256: str
) -> StoredDatabase | None:
    """Return the nearest newer snapshot of that SHA-256; None where there is none."""
    newer = (
        other
        for other in images
        if other.file == stored.file and other.sha256 == sha256 and other.sequence > stored.sequence
    )
    return min(newer, key=lambda other: other.sequence, default=None)


def read_chain(
    account_dir: AccountDir, listing: Listing, stored: StoredDatabase
) -> list[StoredDatabase]:
    """Return the snapshot, its base, the base of that, down to one that needs none.

    Raises Failure and OSError.
    """
    chain = [stored]
    while (
        header := read_header(account_dir, listing, chain[-1])
    ) is not None and header.base_sha256 is not None:
        base = find_base(listing.images, chain[-1], header.base_sha256) or _find_stray_base(
            account_dir, listing, chain, header
        )
        if base is None:
            raise Failure(
                f"{chain[-1].name} needs a newer snapshot of SHA-256 {header.base_sha256}, which "
                "is missing"
            )
        chain.append(base)
    return chain


def _find_stray_base(
    account_dir: AccountDir, listing: Listing, chain: Sequence[StoredDatabase], header: Header
) -> StoredDatabase | None:
    """Find the base that `header` names, where its manifest, or the live image beside it, is gone.

    Its image is what it was all the same.
    """
    assert header.base_sha256 is not None
    known = {image.name for image in listing.images} | {one.name for one in chain}
    for name in sorted(listing.names):
        stem, dot, ending = name.rpartition(".")
        if dot + ending not in (DATA, DELTA):
            continue
        record = replace(chain[-1].record, sha256=header.base_sha256, bytes=header.base_bytes)
        found = replace(chain[-1], name=stem, record=record)
        snapshot = snapshot_of_image(stem)
        if (
            snapshot is not None
            and is_sealed_name(snapshot + DATA)
            and stem not in known
            and _has_image(account_dir, listing, found)
        ):
            return found
    return None


def _has_image(account_dir: AccountDir, listing: Listing, stray: StoredDatabase) -> bool:
    if (header := read_header(account_dir, listing, stray)) is not None:
        return header.sha256 == stray.sha256
    fd = account_dir.open_plain_data(stray)
    try:
        return os.fstat(fd).st_size == stray.bytes and hash_content(fd).sha256 == stray.sha256
    finally:
        os.close(fd)


def build_image(
    account_dir: AccountDir,
    listing: Listing,
    stored: StoredDatabase,
    check: Callable[[], None],
    *,
    file: int = -1,
) -> Image:
    """Build the image of a snapshot.

    Over what is stored, or in the empty `file`, which is closed with it. Raises Failure and
    OSError.
    """
    with contextlib.ExitStack() as undo:
        if copied := file >= 0:
            undo.callback(os.close, file)
        chain = read_chain(account_dir, listing, stored)
        plain = account_dir.open_plain_data(chain[-1]) if listing.is_plain(chain[-1]) else None
        if plain is not None:
            undo.callback(os.close, plain)
        image = Image(
            plain, file if copied else _open_unnamed(account_dir), stored.page_size, check
        )
        undo.pop_all()
    try:
        if copied:
            image.copy_plain()
        for older in reversed(chain if plain is None else chain[:-1]):
            apply_delta(image, account_dir, older)
    except BaseException:
        image.close()
        raise
    return image


def empty_image(account_dir: AccountDir, page_size: int, check: Callable[[], None]) -> Image:
    """Make an image of nothing. Raises OSError."""
    return Image(None, _open_unnamed(account_dir), page_size, check)


def apply_delta(image: Image, account_dir: AccountDir, stored: StoredDatabase) -> None:
    """Turn the image of its base into that of a snapshot which is a delta.

    Raises Failure and OSError.
    """
    with opened_delta(account_dir, stored.name + DELTA) as fd:
        image.apply_delta(Delta(fd))


def open_data(
    account_dir: AccountDir,
    listing: Listing,
    stored: StoredDatabase,
    limits: Limits,
    stopping: threading.Event,
    folder: int = -1,
) -> int:
    """Open a snapshot's bytes read-only, plain or put together (in the open `folder`, if any).

    They are not proven by it. Raises Failure and OSError; Cancelled once `stopping` is set.
    """
    if listing.is_plain(stored):
        return account_dir.open_plain_data(stored)
    file, check = open_room(account_dir, stored, limits, folder), partial(check_stop, stopping)
    with build_image(account_dir, listing, stored, check, file=file) as image:
        return image.open_copy()


def check_stop(stopping: threading.Event) -> None:
    """Raise Cancelled once `stopping` is set."""
    if stopping.is_set():
        raise Cancelled("stopped before it was done")


def open_room(
    account_dir: AccountDir, stored: StoredDatabase, limits: Limits, folder: int = -1
) -> int:
    """Open an empty file without a name, to write an image to, where there is room for it.

    In the open `folder`, where there is such; in the store; or else in TMPDIR or /var/tmp. Raises
    NoRoom where the image would use up what must stay free of each, OSError.
    """
    spare, most = os.environ.get("TMPDIR") or _SPARE_FOLDER, 0
    ways: list[Callable[[], int]] = [
        partial(_open_unnamed, account_dir),
        partial(os.open, spare, _UNNAMED, 0o600),
    ]
    if folder >= 0:
        ways.insert(0, partial(os.open, ".", _UNNAMED, 0o600, dir_fd=folder))
    for way in ways:
        try:
            fd = way()
        except OSError as error:
            if error.errno not in (*TAKES_NOTHING, errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
                raise
            continue
        status = os.fstatvfs(fd)
        free = status.f_bavail * status.f_frsize
        if free - stored.bytes >= limits.reserve:
            return fd
        most = max(most, free)
        os.close(fd)
    raise NoRoom(
        f"no room to rebuild {stored.name}: it needs {stored.bytes} bytes, {most} are "
        f"free, and {limits.reserve} of them must stay so (T3_BACKUP_RESERVE), in the store and in "
        f"{spare}; free some space, or name another folder by TMPDIR"
    )


def _open_unnamed(account_dir: AccountDir) -> int:
    """Open an empty file without a name in the store, to write to."""
    with account_dir.stage_file() as staged_file:
        return os.dup(staged_file.writer)
