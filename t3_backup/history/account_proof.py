"""Prove the snapshots of one account, one after the other."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Self

from t3_backup.history import verify
from t3_backup.history.chain_reader import ChainReaders
from t3_backup.history.dependents import BaseFinder
from t3_backup.history.verify import Finding, VerifyResult
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.companion import Companion
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest
from t3_backup.worker.limits import Limits

# Snapshots of one account that may end at a limit: whoever stops their workers must not keep the
# proofs of the others waiting as often as they have snapshots.
_MOST_ENDED = 2
_NOT_TRIED = Finding(
    unchecked=(f"not tried, since the proofs of {_MOST_ENDED} others came to no end",)
)


class AccountProof:
    """Prove snapshots of one account: what several have in common is proven once."""

    def __init__(self, account_dir: AccountDir, limits: Limits, stopping: threading.Event) -> None:
        self._account_dir, self._limits, self._stopping = account_dir, limits, stopping
        self._readers = ChainReaders(account_dir, limits, stopping)
        self._bases = BaseFinder(account_dir)
        self._archives: dict[str, Finding] = {}  # by SHA-256
        self._ended = 0  # snapshots whose proof was ended at a limit

    def verify(self, listing: Listing, snapshot: Manifest) -> VerifyResult:
        """Prove a snapshot, its databases and its archive. Raises Cancelled.

        Once two could not be checked in the time that a worker may be silent, no other is tried.
        """
        if self._ended >= _MOST_ENDED:
            return VerifyResult(snapshot, _NOT_TRIED)
        began = time.monotonic()
        result = self._verify(listing, snapshot)
        took = time.monotonic() - began
        if result.outcome == "unchecked" and took >= min(self._limits.stall, self._limits.seconds):
            self._ended += 1
        return result

    def _verify(self, listing: Listing, snapshot: Manifest) -> VerifyResult:
        result = verify.verify_snapshot(
            self._account_dir, listing, snapshot, self._limits, self._stopping, self._readers
        )
        if result.finding.failed:
            broken = self._bases.find_broken_base(listing, snapshot)
            result = replace(result, broken_base="" if broken is None else broken.name)
        if (archive := snapshot.companion) is not None:
            result = replace(result, finding=result.finding + self._verify_archive(archive))
        return result

    def _verify_archive(self, archive: Companion) -> Finding:
        found = self._archives.get(archive.sha256)
        if found is None:
            found = verify.verify_archive(self._account_dir, archive, self._limits, self._stopping)
            self._archives[archive.sha256] = found
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._readers.close()
