"""What is accepted alarms no more, whatever the clock said when it was found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.account_folders import open_account_dir, publish_image, publish_images

from t3_backup.accounts import UserMap
from t3_backup.monitor.collect import AccountView, collect_overview
from t3_backup.monitor.health import explain_holes
from t3_backup.store.catalog import Proof
from t3_backup.store.marks import accept_snapshots
from t3_backup.store.names import DATA
from t3_backup.store.store import Store

NOW = datetime.now(UTC)
IMAGE = b"SQLite format 3\0" + bytes(4080)


def view(store: Store) -> AccountView:
    [found] = collect_overview(store, UserMap(("alice",), ())).accounts
    return found


def test_a_snapshot_that_lost_an_image_can_be_accepted_and_is_no_good_one(tmp_path: Path) -> None:
    """Its database has changed since: no run can bring the image back."""
    with open_account_dir(tmp_path) as account_dir, Store.open(tmp_path / "store") as store:
        images = {"state.sqlite": IMAGE, "other.sqlite": IMAGE + IMAGE}
        made = publish_images(account_dir, images, "state.sqlite").snapshot
        gone = made.image_of("other.sqlite")
        assert gone is not None
        account_dir.remove_file(gone.name + DATA)
        told = explain_holes(view(store))
        assert f"{made.name} has lost other.sqlite" in told
        assert "t3-backup-state accept alice" in told
        assert [one.name for one in accept_snapshots(store, "alice", NOW)] == [made.name]
        assert explain_holes(view(store)) == ""
        assert made.name in view(store).unsound
        assert accept_snapshots(store, "alice", NOW) == []


def test_what_failed_under_a_clock_that_was_ahead_can_be_accepted(tmp_path: Path) -> None:
    with open_account_dir(tmp_path) as account_dir, Store.open(tmp_path / "store") as store:
        made = publish_image(account_dir, IMAGE).snapshot
        ahead = Proof(NOW + timedelta(days=3650), "failed", "4096 bytes")
        account_dir.record_proof(made.name, ahead)
        assert view(store).unsound.waiting == {made.name}
        accept_snapshots(store, "alice", NOW)
        assert view(store).unsound.waiting == frozenset()
        assert view(store).unsound.reasons == {made.name: "4096 bytes"}
