"""The listing of an account's folder: what is carried on from change to change is what a fresh look
at the folder finds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.account_folders import (
    change_pages,
    database_image,
    list_snapshots,
    maintenance,
    open_account_dir,
    publish_image,
)

from t3_backup.history import chain
from t3_backup.history.maintenance import DELTA as DELTA_MODE
from t3_backup.history.maintenance import OFF
from t3_backup.history.retention import Policy
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.archives import remove_unused_archives
from t3_backup.store.companion import Companion, archive_name
from t3_backup.store.leftovers import remove_leftovers
from t3_backup.store.names import DATA, DELTA, PAGES

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "seal",
                "same",
                "again",
                "suspect",
                "tidy",
                "prune",
                "pin",
                "stray",
                "leftover",
                "archive",
                "clear",
            ]
        ),
        st.integers(0, 7),
    ),
    min_size=1,
    max_size=12,
)


def _stray(account_dir: AccountDir, number: int) -> str:
    """Data without a manifest, as somebody else may have put it there."""
    name = f"state-2020010{number + 1}T000000Z"
    (account_dir.path / (name + DATA)).write_bytes(b"x")
    return name


@given(STEPS)
def test_what_is_carried_on_is_what_is_there(steps: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as folder, open_account_dir(Path(folder)) as account_dir:
        data = database_image(12)
        listing = account_dir.read_listing()
        for count, (step, number) in enumerate(steps):
            assert listing == account_dir.read_listing()
            if step in ("seal", "same", "again", "suspect"):
                data = data if step == "same" else change_pages(data, [number + 1], count)
                more = (
                    {"label": "again"}
                    if step == "again"
                    else {"verdict": "suspect"}
                    if step == "suspect"
                    else {}
                )
                accepted = {"accepted_at": "2026-11-01T00:00:00Z"} if step == "suspect" else {}
                listing = publish_image(account_dir, data, **more, **accepted).listing
            elif step in ("tidy", "prune"):
                keep = 1 + number if step == "prune" else 1000
                policy = Policy(keep=keep, daily=0, weekly=0, monthly=0, yearly=0, labelled=keep)
                done = replace(maintenance(account_dir, policy, DELTA_MODE), listing=listing).tidy()
                assert done.warnings == []
                listing = done.listing
            elif step == "pin" and listing.snapshots:
                manifest = replace(
                    listing.snapshots[number % len(listing.snapshots)],
                    pinned_at="2026-11-01T00:00:00Z",
                )
                account_dir.replace_manifest(manifest)
                listing = listing.with_manifest(manifest)
            elif step == "stray":
                # not ours: it is found by the next that reads the folder
                _stray(account_dir, number)
                listing = account_dir.update_listing(listing)
            elif step == "leftover":
                (account_dir.path / f".partial-{number}").touch()
                (account_dir.path / f"state-2019010{number + 1}T000000Z{PAGES}").touch()
                listing = account_dir.update_listing(listing)
            elif step == "archive":
                name = archive_name(Companion(f"{number}" * 64, 1, 1, 1, "x"))
                (account_dir.path / name).touch()
                listing = listing.with_file(name)
            elif step == "clear":
                listing = remove_leftovers(account_dir, listing, chain.find_needed)
        assert listing == account_dir.read_listing()


@pytest.fixture
def account_dir(tmp_path: Path) -> Iterator[AccountDir]:
    with open_account_dir(tmp_path) as account_dir:
        yield account_dir


def test_a_folder_that_is_as_it_was_is_not_read_again(account_dir: AccountDir) -> None:
    publish_image(account_dir, database_image(4))
    listing = account_dir.read_listing()
    assert account_dir.update_listing(listing) is listing
    [snapshot] = list_snapshots(account_dir)
    os.rename(account_dir.path / (snapshot.name + DATA), account_dir.path / (snapshot.name + DELTA))
    assert account_dir.update_listing(listing).data_name(snapshot) == snapshot.name + DELTA


def test_what_came_after_the_look_is_not_removed(account_dir: AccountDir) -> None:
    """An archive that has come since the listing was read may be a snapshot's that has no name
    yet."""
    old, new = (archive_name(Companion(letter * 64, 1, 1, 1, "x")) for letter in "ab")
    (account_dir.path / old).touch()
    listing = account_dir.read_listing()
    (account_dir.path / new).touch()
    listing = remove_unused_archives(account_dir, listing)
    assert account_dir.read_names() == listing.names == {new}


def test_what_was_brought_back_since_the_look_is_seen_before_anything_is_removed(
    account_dir: AccountDir,
) -> None:
    """Somebody brings back a held snapshot while a run goes on: nothing is pruned, although the
    run's own listing knows of none."""
    for day in range(3):
        publish_image(account_dir, database_image(4, day))
    policy = Policy(keep=1, daily=0, weekly=0, monthly=0, yearly=0, labelled=1)
    run = maintenance(account_dir, policy, OFF)
    held = publish_image(
        account_dir, database_image(4, 9), verdict="damaged", reasons=("x",)
    ).snapshot
    done = run.tidy()
    assert done.pruned == []
    assert f"nothing is pruned: {held.name} is damaged" in done.warnings[0]
    assert len(list_snapshots(account_dir)) == 4
