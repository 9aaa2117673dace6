"""Manifests for tests of pure functions: those that only count, order and name snapshots."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from t3_backup.store.census import Census
from t3_backup.store.listing import Form, StoredSnapshot
from t3_backup.store.manifest import FORMAT, DatabaseRecord, Manifest, _checksum
from t3_backup.store.names import snapshot_name
from t3_backup.t3.files import DATABASE_NAME
from t3_backup.text import format_time

RECORD_KEYS = frozenset(one.name for one in fields(DatabaseRecord))
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
    """A manifest of a verified snapshot of one database, with `changes` of either."""
    record: dict[str, Any] = {
        "file": DATABASE_NAME,
        "live": True,
        "bytes": 409_600,
        "sha256": "a1" * 32,
        "method": "online",
        "verdict": "verified",
        "reasons": (),
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
    }
    record |= {key: value for key, value in changes.items() if key in RECORD_KEYS}
    values: dict[str, Any] = {
        "format": FORMAT,
        "sequence": sequence,
        "user": "alice",
        "name": snapshot_name(when, label, set()),
        "taken_at": format_time(when),
        "label": label,
        "verdict": record["verdict"],
        "reasons": record["reasons"],
        "accepted_at": None,
        "databases": (DatabaseRecord(**record),),
        "tool_version": "1.0",
    }
    own = {key: value for key, value in changes.items() if key not in RECORD_KEYS}
    return Manifest(**values | own)


def stored_snapshot(manifest: Manifest, path: Path, form: Form = "plain") -> StoredSnapshot:
    """A snapshot of one database whose image is at `path`."""
    file = manifest.live.file
    return StoredSnapshot(manifest, {file: path}, {file: form})


def change_manifest(manifest: Manifest, **changes: Any) -> Manifest:
    """The same with other values, of the snapshot or of its live database."""
    of_live = {key: value for key, value in changes.items() if key in RECORD_KEYS}
    own = {key: value for key, value in changes.items() if key not in RECORD_KEYS}
    both = {key: of_live[key] for key in ("verdict", "reasons") if key in of_live}
    return replace(manifest.with_live(**of_live), **own, **both)


def beside(manifest: Manifest, file: str, **changes: Any) -> Manifest:
    """The same snapshot with one more database, which is not the live one."""
    return manifest.with_database(replace(manifest.live, file=file, live=False, **changes))


def manifest_text(value: dict[str, Any]) -> str:
    """The file of these keys, with the checksum that belongs to them: what is wrong with the keys
    is all that is wrong with it."""
    keys = {key: one for key, one in value.items() if key != "checksum"}
    return json.dumps(keys | {"checksum": _checksum(keys)})


def with_keys(value: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The keys of a manifest of one database with other values, of it or of its database."""
    of_one = {key: change for key, change in changes.items() if key in RECORD_KEYS}
    own = {key: change for key, change in changes.items() if key not in RECORD_KEYS or key in value}
    [record] = value["databases"]
    return value | own | {"databases": own.get("databases", [record | of_one])}


def rewrite_manifest(path: Path, **changes: Any) -> None:
    """Write other values into a manifest of one database, as if it had been sealed so."""
    path.write_text(manifest_text(with_keys(json.loads(path.read_text()), **changes)))
