"""Prove the snapshots of one account, one after the other."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from support.manifests import make_manifest

from t3_backup.history import verify
from t3_backup.history.account_proof import AccountProof
from t3_backup.history.verify import Finding, VerifyResult
from t3_backup.store.manifest import Manifest
from t3_backup.store.store import Store
from t3_backup.worker.limits import Limits

NOT_TRIED = "not tried, since the proofs of 2 others came to no end"


@pytest.mark.parametrize(
    ("stall", "found", "tried"),
    [
        (0, Finding(unchecked=("no progress",)), 2),
        (3600, Finding(unchecked=("no room",)), 4),  # which was said at once
        (0, Finding(), 4),
        (0, Finding(failed=("its SHA-256 is another",)), 4),
    ],
)
def test_whoever_stops_their_workers_keeps_no_other_proof_waiting_for_each_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stall: float, found: Finding, tried: int
) -> None:
    """Row 22. Two may take as long as a worker may be silent; the others could not be checked."""

    def find(_dir: object, _listing: object, snapshot: Manifest, *_: object) -> VerifyResult:
        return VerifyResult(snapshot, found)

    monkeypatch.setattr(verify, "verify_snapshot", find)
    with Store.open(tmp_path / "store", create=True) as store:
        account_dir = store.account_dir("alice", create=True)
        assert account_dir is not None
        limits = Limits(3600, stall, 0, 0, lambda: 0)
        with account_dir, AccountProof(account_dir, limits, threading.Event()) as proof:
            monkeypatch.setattr(proof, "_bases", NoBases())
            listing = account_dir.read_listing()
            results = [proof.verify(listing, make_manifest(number)) for number in range(4)]
    reasons = [one.reason for one in results]
    assert reasons.count(NOT_TRIED) == 4 - tried
    assert all(one.outcome == found.outcome for one in results)


class NoBases:
    """Of what is in no folder, no base can be found."""

    def find_broken_base(self, *_: object) -> None:
        return None
