"""Record in an account's catalog how the proofs of its snapshots ended.

Under the store's lock, shared or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from t3_backup.history.dependents import BaseFinder, find_hanging, read_forms
from t3_backup.history.verify import VerifyResult
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.catalog import Entry, Proof
from t3_backup.store.faults import hangs_on
from t3_backup.store.leftovers import check_catalog
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest, StoredDatabase

_NOT_AS_SEALED = "its data is not what was sealed"


def record_result(account_dir: AccountDir, result: VerifyResult, now: datetime) -> Proof:
    """Record how the proof of a snapshot that is there ended, and return that.

    Of one whose last proof failed it is no news that it could not be checked, or fails as before:
    what somebody has accepted stays accepted. Raises OSError.
    """
    name, proof = result.snapshot.name, Proof(now, result.outcome, result.reason)
    catalog = account_dir.read_catalog()
    if name not in catalog.entries:
        # As a run would: with its entry nobody knows any more that another version has worked here.
        check_catalog(account_dir, account_dir.read_listing())
    last = catalog.proof_of(name)
    if last is not None and last.outcome == "failed" and _is_no_news(proof, last):
        return last
    account_dir.record_proof(name, proof)
    return proof


def _is_no_news(proof: Proof, failed: Proof) -> bool:
    again = proof.outcome == "failed" and proof.reason == failed.reason
    return again or proof.outcome == "unchecked"


def trace_failure(
    account_dir: AccountDir, listing: Listing, snapshot: Manifest, reason: str
) -> dict[str, str]:
    """Find all that is not what was sealed, where the proof of `snapshot` failed.

    Where it breaks at a base, that is what is at fault, and all that hang on it break. Returns
    their names, with the reason of each.
    """
    base = BaseFinder(account_dir).find_broken_base(listing, snapshot)
    if base is not None:
        snapshot, reason = base, _NOT_AS_SEALED
    hanging = find_hanging(listing, read_forms(account_dir, listing))[snapshot.name]
    return dict.fromkeys(sorted(hanging), hangs_on(snapshot.name)) | {snapshot.name: reason}


def record_failures(account_dir: AccountDir, reasons: Mapping[str, str], now: datetime) -> None:
    """Record that the snapshots that `reasons` names are not what was sealed. Raises OSError."""
    entries = [
        Entry(name, "sealed", Proof(now, "failed", reason)) for name, reason in reasons.items()
    ]
    account_dir.change_catalog(lambda _: entries)


def record_if_broken(
    account_dir: AccountDir, listing: Listing, image: StoredDatabase, now: datetime
) -> None:
    """Record a failure where an image, or a base of it, is not what was sealed. Raises OSError."""
    finder = BaseFinder(account_dir)
    if finder.is_broken(listing, image) or finder.find_broken_base(listing, image.snapshot):
        found = trace_failure(account_dir, listing, image.snapshot, _NOT_AS_SEALED)
        record_failures(account_dir, found, now)
