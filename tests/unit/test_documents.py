"""The JSON documents: what they have of a snapshot with several databases, and that a run's document
alarms as its result does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.manifests import beside, make_manifest, stored_snapshot
from support.paths import ROOT

from t3_backup.backup.result import AccountResult
from t3_backup.output import documents
from t3_backup.store.listing import StoredSnapshot
from t3_backup.store.manifest import DatabaseRecord, Missing

JUNK = Missing("junk.sqlite", "it is not a SQLite database")
PAGE = (ROOT / "docs" / "interface" / "json.md").read_text()


def two_databases() -> StoredSnapshot:
    manifest = make_manifest(file="statev2.sqlite", t3_level=61, pin_seconds=0.25)
    manifest = beside(manifest, "state.sqlite", t3_level=54, bytes=1024, sha256="b2" * 32)
    return StoredSnapshot(
        manifest,
        {
            "state.sqlite": Path("/store/alice/NAME.sqlite"),
            "statev2.sqlite": Path("/store/alice/NAME.statev2.delta"),
        },
        {"state.sqlite": "plain", "statev2.sqlite": "delta"},
    )


def test_a_snapshot_has_a_path_and_a_form_for_each_database_and_as_its_own_the_live_ones() -> None:
    found = json.loads(json.dumps(documents.snapshot_document(two_databases())))
    assert [
        (one["file"], one["live"], one["t3_level"], one["bytes"], one["form"], one["path"])
        for one in found["databases"]
    ] == [
        ("state.sqlite", False, 54, 1024, "plain", "/store/alice/NAME.sqlite"),
        ("statev2.sqlite", True, 61, 409_600, "delta", "/store/alice/NAME.statev2.delta"),
    ]
    [live] = [one for one in found["databases"] if one["live"]]
    for key in ("file", "bytes", "sha256", "t3_level", "census", "form", "path", "page_count"):
        assert found[key] == live[key], key
    assert (found["missing"], found["pin_seconds"]) == ([], 0.25)


def test_a_snapshot_of_one_database_has_it_in_the_list_too() -> None:
    stored = stored_snapshot(make_manifest(missing=(JUNK,)), Path("/store/x.sqlite"))
    found = json.loads(json.dumps(documents.snapshot_document(stored)))
    assert [one["path"] for one in found["databases"]] == [found["path"]] == ["/store/x.sqlite"]
    assert found["missing"] == [{"file": JUNK.file, "reason": JUNK.reason}]


def test_every_key_of_a_database_is_documented() -> None:
    for key in [*DatabaseRecord.__dataclass_fields__, *Missing.__dataclass_fields__]:
        assert re.search(rf"`{key}`", PAGE), key


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"verdict": "suspect", "reasons": ("half is gone",)},
        {"missing": (JUNK,)},
        {"missing": (JUNK,), "accepted_at": "2026-11-24T12:00:00Z"},
    ],
)
def test_the_document_of_a_run_alarms_as_its_result_does(changes: dict[str, Any]) -> None:
    stored = stored_snapshot(make_manifest(**changes), Path("/store/x.sqlite"))
    for outcome in ("backed_up", "unchanged"):
        result = AccountResult("alice", outcome, snapshots=(stored,))
        document = json.loads(json.dumps(documents.result_document(result)))
        assert documents.needs_attention(document) is result.alarms is bool(changes)
