"""Manifests for tests of pure functions: those that only count, order and name snapshots."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from t3_backup.store.census import Census
from t3_backup.store.manifest import FORMAT, Manifest, _checksum
from t3_backup.store.names import snapshot_name
from t3_backup.text import format_time

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)

CENSUS = Census(
    page_size=4096,
    page_count=100,
    user_version=0,
    application_id=0,
    schema_sha256="5c" * 32,
    t3_level=30,
    ends={"events": 1000},
    rows={"events": 1000},
)


def make_manifest(
    sequence: int = 1, when: datetime = NOON, label: str | None = None, **changes: Any
) -> Manifest:
    """A manifest of a verified snapshot, with `changes`."""
    values: dict[str, Any] = {
        "format": FORMAT,
        "sequence": sequence,
        "user": "alice",
        "name": snapshot_name(when, label, set()),
        "taken_at": format_time(when),
        "label": label,
        "bytes": 409_600,
        "sha256": "a1" * 32,
        "method": "online",
        "verdict": "verified",
        "reasons": (),
        "accepted_at": None,
        "t3_level": 30,
        "page_size": 4096,
        "page_count": 100,
        "source_bytes": 409_600,
        "wal_growth_bytes": 0,
        "restarts": 0,
        "copy_seconds": 0.5,
        "proof_seconds": 0.25,
        "census": CENSUS,
        "sqlite_version": "3.40.1",
        "tool_version": "1.0",
    }
    return Manifest(**values | changes)


def manifest_text(value: dict[str, Any]) -> str:
    """The file of these keys, with the checksum that belongs to them: what is wrong with the keys
    is all that is wrong with it."""
    keys = {key: one for key, one in value.items() if key != "checksum"}
    return json.dumps(keys | {"checksum": _checksum(keys)})


def rewrite_manifest(path: Path, **changes: Any) -> None:
    """Write other values into a manifest, as if it had been sealed so."""
    path.write_text(manifest_text(json.loads(path.read_text()) | changes))
