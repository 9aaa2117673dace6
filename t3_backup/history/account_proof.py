"""Prove the snapshots of one account, one after the other."""

from __future__ import annotations

import threading
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


class AccountProof:
    """Prove snapshots of one account: what several have in common is proven once."""

    def __init__(self, account_dir: AccountDir, limits: Limits, stopping: threading.Event) -> None:
        self._account_dir, self._limits, self._stopping = account_dir, limits, stopping
        self._readers = ChainReaders(account_dir, limits, stopping)
        self._bases = BaseFinder(account_dir)
        self._archives: dict[str, Finding] = {}  # by SHA-256

    def verify(self, listing: Listing, snapshot: Manifest) -> VerifyResult:
        """Prove a snapshot, its databases and its archive. Raises Cancelled."""
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
