"""Snapshots of made-up images in a real account folder, for tests of how they are kept: no database
is looked into there."""

from __future__ import annotations

import os
import threading
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.manifests import beside, make_manifest
from t3_backup.backup import publish
from t3_backup.backup.publish import Published, SettledFile
from t3_backup.history import chain
from t3_backup.history.maintenance import DELTA, Maintenance
from t3_backup.history.retention import Policy
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import hash_content
from t3_backup.store.leftovers import remove_leftovers
from t3_backup.store.manifest import Manifest
from t3_backup.store.staged_file import StagedFile
from t3_backup.store.store import Store
from t3_backup.t3.files import DATABASE_NAME
from t3_backup.worker.limits import Limits

PAGE = 4096
GENEROUS = Limits(60, 60, 0, 0, lambda: 1 << 40)
# a manifest without data is a leftover if it is about as old as it says
START = datetime.now(UTC).replace(microsecond=0)
ALL = Policy(keep=100_000, daily=0, weekly=0, monthly=0, yearly=0, labelled=100_000)
HEADER = b"SQLite format 3\0" + PAGE.to_bytes(2, "big")


@contextmanager
def open_account_dir(folder: Path) -> Iterator[AccountDir]:
    """An account folder in a new store in `folder`, or in the one that is there."""
    with Store.open(folder / "store", create=True) as store:
        account_dir = store.account_dir("alice", create=True)
        assert account_dir is not None
        with account_dir:
            yield account_dir


def make_page(number: int, seed: int = 0) -> bytes:
    """One that looks like a database's: something of its own, something that all have, nothing."""
    own = b"%d-%d-" % (number, seed)
    return (own * 400)[:900] + bytes(range(256)) * 8 + bytes(PAGE - 900 - 2048)


def database_image(pages: int, seed: int = 0) -> bytes:
    """So many pages; the first says that it is a database's."""
    return (
        HEADER
        + make_page(0, seed)[len(HEADER) :]
        + b"".join(make_page(number, seed) for number in range(1, pages))
    )


def change_pages(data: bytes, pages: Sequence[int], seed: int) -> bytes:
    """The same with other `pages`."""
    new = bytearray(data)
    for number in pages:
        new[number * PAGE : (number + 1) * PAGE] = make_page(number, seed)
    new[: len(HEADER)] = HEADER
    return bytes(new)


def publish_image(
    account_dir: AccountDir,
    data: bytes,
    *,
    share: bool = False,
    days: int | None = None,
    unsound: Container[str] = (),
    **changes: Any,
) -> Published:
    """Seal an image as the next snapshot; one a second, if it isn't said how many days from now it
    was taken."""
    listing = account_dir.read_listing()
    sequence = listing.next_sequence()
    when = START + (timedelta(seconds=sequence) if days is None else timedelta(days=days))
    with account_dir.stage_file() as staged_file:
        with open(os.dup(staged_file.writer), "wb") as file:
            file.write(data)
        staged_file.settle()
        content = hash_content(staged_file.reader, PAGE)
        changes = {"bytes": len(data), "sha256": content.sha256} | changes
        changes = {"page_count": len(data) // PAGE} | changes
        snapshot = make_manifest(sequence, when, changes.pop("label", None), **changes)
        if snapshot.name in listing.used_stems():
            snapshot = replace(
                snapshot, name=f"{snapshot.name[:22]}.{sequence + 1}{snapshot.name[22:]}"
            )
        settled = {DATABASE_NAME: SettledFile(staged_file, content)}
        return publish.publish_snapshot(
            account_dir, settled, snapshot, listing, share=share, unsound=unsound
        )


def publish_images(
    account_dir: AccountDir, images: Mapping[str, bytes], live: str, **changes: Any
) -> Published:
    """Seal images, by database, as the next snapshot."""
    listing = account_dir.read_listing()
    sequence = listing.next_sequence()
    with ExitStack() as held:
        settled = {}
        for file, data in images.items():
            staged_file = held.enter_context(account_dir.stage_file())
            with open(os.dup(staged_file.writer), "wb") as target:
                target.write(data)
            staged_file.settle()
            settled[file] = SettledFile(staged_file, hash_content(staged_file.reader, PAGE))
        records = {
            file: {
                "bytes": len(data),
                "sha256": settled[file].content.sha256,
                "page_count": len(data) // PAGE,
            }
            for file, data in images.items()
        }
        when = START + timedelta(seconds=sequence)
        snapshot = make_manifest(sequence, when, file=live, **records.pop(live), **changes)
        for file, record in records.items():
            snapshot = beside(snapshot, file, **record)
        return publish.publish_snapshot(account_dir, settled, snapshot, listing)


def publish_as(account_dir: AccountDir, staged_file: StagedFile, manifest: Manifest) -> None:
    """Name a settled file by a manifest of one database."""
    account_dir.publish_snapshot(manifest, {manifest.live.file: staged_file.name_as})


def read_image(account_dir: AccountDir, snapshot: Manifest) -> bytes:
    """The image of a snapshot, however it is kept."""
    fd = chain.open_data(
        account_dir, account_dir.read_listing(), snapshot.live_image, GENEROUS, threading.Event()
    )
    with open(fd, "rb") as file:
        return file.read()


def maintenance(
    account_dir: AccountDir, policy: Policy, mode: str = DELTA, limits: Limits = GENEROUS
) -> Maintenance:
    """What prunes and compacts the account folder."""
    return Maintenance(
        account_dir,
        account_dir.read_listing(),
        policy,
        mode,
        limits,
        threading.Event(),
        limits.free_bytes(),
    )


def list_snapshots(account_dir: AccountDir) -> list[Manifest]:
    """The snapshots that are there now, newest first."""
    return list(account_dir.read_listing().snapshots)


def strays_of(account_dir: AccountDir) -> list[str]:
    """The data files that are there now and don't count."""
    return list(account_dir.read_listing().strays)


def data_path(account_dir: AccountDir, snapshot: Manifest) -> Path:
    """Where the data of a snapshot is now."""
    return account_dir.path / account_dir.read_listing().data_name(snapshot.live_image)


def stat_data(account_dir: AccountDir, snapshot: Manifest) -> os.stat_result:
    """The status of the file that the data of a snapshot is in now."""
    return account_dir.stat_file(account_dir.read_listing().data_name(snapshot.live_image))


def clean_up(account_dir: AccountDir) -> None:
    """Remove what an interrupted run left."""
    remove_leftovers(account_dir, account_dir.read_listing(), chain.find_needed)


def storage_forms(account_dir: AccountDir) -> str:
    """Newest first: `p` for a plain one, `d` for a delta."""
    return "".join(
        "p" if account_dir.read_listing().is_plain(snapshot.live_image) else "d"
        for snapshot in list_snapshots(account_dir)
    )
