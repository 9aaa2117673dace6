"""Describe a stored snapshot as the JSON interface has it."""

from __future__ import annotations

from typing import Any

from t3_backup.store.account_dir import AccountDir
from t3_backup.store.manifest import Manifest


def snapshot_document(account_dir: AccountDir, snapshot: Manifest) -> dict[str, Any]:
    """A snapshot as the interface has it: its manifest, and where and in which form its data is."""
    return snapshot.as_json() | {
        "path": str(account_dir.data_path(snapshot)),
        "form": "plain" if account_dir.is_plain(snapshot) else "delta",
    }
