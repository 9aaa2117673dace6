"""Record in an account's catalog how the proofs of its snapshots ended.

Under the store's lock, shared or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from t3_backup.history.dependents import BaseFinder, find_hanging, read_forms
from t3_backup.history.verify import VerifyResult
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.catalog import Entry, Proof
from t3_backup.store.catalog_format import as_read
from t3_backup.store.faults import NOT_AS_SEALED, hangs_on
from t3_backup.store.leftovers import check_catalog
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest, StoredDatabase


def record_result(account_dir: AccountDir, result: VerifyResult, now: datetime) -> Proof:
    """Record how the proof of a snapshot that is there ended, and return that.

    Of one whose last proof failed it is no news that it could not be checked, or fails as before:
    what somebody has accepted stays accepted. Raises OSError.
    """
    name = result.snapshot.name
    proof = as_read(Entry(name, "sealed", Proof(now, result.outcome, result.reason))).proof
    assert proof is not None
    catalog = account_dir.read_catalog()
    if name not in catalog.entries:
        # As a run would: with its entry nobody knows any more that another version has worked here.
        check_catalog(account_dir, account_dir.read_listing())
    last = catalog.proof_of(name)
    if last is not None and last.outcome == "failed":
        proof = _after_failure(proof, last)
    if proof != last:
        account_dir.record_proof(name, proof)
    return proof


def _after_failure(proof: Proof, failed: Proof) -> Proof:
    """Return what is known after one more proof of a snapshot whose last one failed."""
    if proof.outcome == "unchecked":
        return failed
    if proof.outcome == "failed" and failed.reason in (proof.reason, NOT_AS_SEALED):
        return replace(failed, reason=proof.reason)  # said better, it is the same fault
    return proof


def trace_failure(
    account_dir: AccountDir, listing: Listing, snapshot: Manifest, reason: str
) -> dict[str, str]:
    """Find all that is not what was sealed, where the proof of `snapshot` failed.

    Where it breaks at a base, that is what is at fault, and all that hang on it break. Returns
    their names, with the reason of each.
    """
    base = BaseFinder(account_dir).find_broken_base(listing, snapshot)
    if base is not None:
        snapshot, reason = base, NOT_AS_SEALED
    hanging = find_hanging(listing, read_forms(account_dir, listing))[snapshot.name]
    return dict.fromkeys(sorted(hanging), hangs_on(snapshot.name)) | {snapshot.name: reason}


def record_failures(account_dir: AccountDir, reasons: Mapping[str, str], now: datetime) -> None:
    """Record that the snapshots that `reasons` names are not what was sealed.

    Of one that is known to fail it is no news. Raises OSError.
    """

    def change(known: Mapping[str, Entry]) -> Iterable[Entry]:
        for name, reason in reasons.items():
            last = known[name].proof if name in known else None
            if last is None or last.outcome != "failed":
                yield Entry(name, "sealed", Proof(now, "failed", reason))

    account_dir.change_catalog(change)


def record_if_broken(
    account_dir: AccountDir, listing: Listing, image: StoredDatabase, now: datetime
) -> None:
    """Record a failure where an image, or a base of it, is not what was sealed. Raises OSError."""
    finder = BaseFinder(account_dir)
    if finder.is_broken(listing, image) or finder.find_broken_base(listing, image.snapshot):
        found = trace_failure(account_dir, listing, image.snapshot, NOT_AS_SEALED)
        record_failures(account_dir, found, now)
