"""Describe a stored snapshot as the JSON interface has it."""

from __future__ import annotations

from typing import Any

from t3_backup.store.account_dir import AccountDir
from t3_backup.store.manifest import Manifest


def snapshot_document(shelf: AccountDir, snapshot: Manifest) -> dict[str, Any]:
    """A snapshot as the interface has it: its manifest, and where and in which form its data is."""
    return snapshot.as_json() | {
        "path": str(shelf.data_path(snapshot)),
        "form": "plain" if shelf.is_plain(snapshot) else "delta",
    }
