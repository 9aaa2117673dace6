"""How a proof ended is recorded so that what somebody has accepted alarms no more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.account_folders import open_account_dir, publish_image

from t3_backup.history.proof_record import record_failures, record_result
from t3_backup.history.verify import Finding, VerifyResult
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.catalog import Proof
from t3_backup.store.faults import NOT_AS_SEALED
from t3_backup.store.manifest import Manifest

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
WEEK = timedelta(days=7)
FAILED = Finding(failed=("SHA-256 x, y was sealed",))


@pytest.fixture
def account_dir(tmp_path: Path) -> Iterator[AccountDir]:
    with open_account_dir(tmp_path) as account_dir:
        yield account_dir


@pytest.fixture
def snapshot(account_dir: AccountDir) -> Manifest:
    return publish_image(account_dir, b"SQLite format 3\0" + bytes(4080)).snapshot


def record(account_dir: AccountDir, snapshot: Manifest, found: Finding, when: datetime) -> Proof:
    record_result(account_dir, VerifyResult(snapshot, found), when)
    proof = account_dir.read_catalog().proof_of(snapshot.name)
    assert proof is not None
    return proof


@pytest.mark.parametrize(
    "again", [FAILED, Finding(unchecked=("no room",))], ids=["as before", "unchecked"]
)
def test_that_it_fails_as_before_or_could_not_be_checked_is_no_news(
    account_dir: AccountDir, snapshot: Manifest, again: Finding
) -> None:
    """Row 58."""
    first = record(account_dir, snapshot, FAILED, NOON)
    assert (first.when, first.outcome) == (NOON, "failed")
    assert record(account_dir, snapshot, again, NOON + WEEK) == first


def test_nor_is_it_where_its_reason_is_too_long_to_be_kept_whole(
    account_dir: AccountDir, snapshot: Manifest
) -> None:
    found = Finding(failed=tuple(f"{name}.sqlite: " + "é" * 150 for name in "abc"))
    first = record(account_dir, snapshot, found, NOON)
    assert record(account_dir, snapshot, found, NOON + WEEK) == first


def test_a_run_or_restore_that_meets_it_again_makes_no_news_of_it(
    account_dir: AccountDir, snapshot: Manifest
) -> None:
    """Nor does the next proof, which says how it fails."""
    record_failures(account_dir, {snapshot.name: NOT_AS_SEALED}, NOON)
    assert record(account_dir, snapshot, FAILED, NOON + WEEK) == Proof(
        NOON, "failed", "SHA-256 x, y was sealed"
    )
    record_failures(account_dir, {snapshot.name: NOT_AS_SEALED}, NOON + 2 * WEEK)
    assert record(account_dir, snapshot, FAILED, NOON + 3 * WEEK).when == NOON


def test_that_it_fails_in_another_way_or_verifies_is_news(
    account_dir: AccountDir, snapshot: Manifest
) -> None:
    record(account_dir, snapshot, FAILED, NOON)
    other = record(account_dir, snapshot, Finding(failed=("4096 bytes",)), NOON + WEEK)
    assert other == Proof(NOON + WEEK, "failed", "4096 bytes")
    assert record(account_dir, snapshot, Finding(), NOON + 2 * WEEK).outcome == "verified"
