"""The metrics: what Prometheus' own parser reads of them, and that the file is there whole or not
at all."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from support.manifests import NOON, make_manifest

import t3_backup
from t3_backup.monitor import metrics, status
from t3_backup.monitor.attempts import Attempt
from t3_backup.monitor.collect import AccountView, Overview
from t3_backup.monitor.health import Thresholds
from t3_backup.store.manifest import Missing
from t3_backup.text import format_time

parser = pytest.importorskip("prometheus_client.parser")

HOUR = timedelta(hours=1)
GOOD = make_manifest(1, NOON - 9 * HOUR, wal_growth_bytes=4096)
SUSPECT = make_manifest(2, NOON - HOUR, verdict="suspect", reasons=("fewer rows",), bytes=8192)
FAILED = Attempt(format_time(NOON), "run", "failed", None, "busy", 1.5, 0, 0)
SKIPPED = replace(FAILED, outcome="skipped")

ALICE = AccountView(
    "alice", in_map=True, snapshots=(SUSPECT, GOOD), attempts=(FAILED,), used_bytes=77
)
BOB = AccountView("bob", in_map=False, snapshots=(GOOD,))
CAROL = AccountView("carol", in_map=True, attempts=(FAILED,))
DAVE = AccountView("dave", in_map=True, attempts=(SKIPPED,))


def rendered(*views: AccountView) -> bytes:
    overview = Overview(Path("/store"), 10 << 30, views)
    return metrics.render(status.status_of(overview, NOON, Thresholds()))


def samples(content: bytes) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels."""
    families = parser.text_string_to_metric_families(content.decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_the_parser_of_prometheus_reads_what_is_known_of_an_account() -> None:
    found = samples(rendered(ALICE))
    alice = {key[:1] + key[2:]: value for key, value in found.items() if key[1:2] == ("alice",)}
    assert alice == {
        ("t3_backup_account_in_map",): 1,
        ("t3_backup_last_success_timestamp_seconds",): GOOD.when.timestamp(),
        ("t3_backup_failed_proofs",): 0,
        ("t3_backup_unchecked_proofs",): 0,
        ("t3_backup_last_attempt_timestamp_seconds",): NOON.timestamp(),
        ("t3_backup_last_attempt_ok",): 0,
        ("t3_backup_last_attempt_duration_seconds",): 1.5,
        ("t3_backup_last_snapshot_bytes",): 8192,
        ("t3_backup_last_snapshot_wal_growth_bytes",): 0,
        ("t3_backup_last_snapshot_verdict", "verified"): 0,
        ("t3_backup_last_snapshot_verdict", "suspect"): 1,
        ("t3_backup_last_snapshot_verdict", "damaged"): 0,
        ("t3_backup_last_snapshot_verdict", "unproven"): 0,
        ("t3_backup_snapshots", "verified"): 1,
        ("t3_backup_snapshots", "suspect"): 1,
        ("t3_backup_snapshots", "damaged"): 0,
        ("t3_backup_snapshots", "unproven"): 0,
        ("t3_backup_snapshots_held",): 1,
        ("t3_backup_snapshots_lost",): 0,
        ("t3_backup_used_bytes",): 77,
        ("t3_backup_uncovered_databases",): 0,
        ("t3_backup_missing_databases",): 0,
    }
    assert found[("t3_backup_store_free_bytes",)] == 10 << 30
    assert found[("t3_backup_build_info", t3_backup.__version__)] == 1


def test_what_is_not_known_is_left_out_and_never_is_0() -> None:
    found = samples(rendered(BOB, CAROL, DAVE))
    assert found[("t3_backup_account_in_map", "bob")] == 0
    assert ("t3_backup_last_attempt_ok", "bob") not in found
    assert found[("t3_backup_last_success_timestamp_seconds", "carol")] == 0
    assert ("t3_backup_last_snapshot_bytes", "carol") not in found
    assert not [key for key in found if "dave" in key]


def test_an_accepted_one_is_held_no_longer() -> None:
    accepted = replace(ALICE, snapshots=(replace(SUSPECT, accepted_at=format_time(NOON)), GOOD))
    assert samples(rendered(accepted))[("t3_backup_snapshots_held", "alice")] == 0


def test_a_database_that_is_not_copied_is_counted_and_what_was_taken_beside_it_is_no_success() -> (
    None
):
    """Row 39."""
    bare = replace(FAILED, uncovered=("statev2.sqlite",), at=format_time(GOOD.when))
    found = samples(rendered(replace(ALICE, attempts=(bare,))))
    assert found[("t3_backup_uncovered_databases", "alice")] == 1
    assert found[("t3_backup_last_success_timestamp_seconds", "alice")] == 0


def test_a_database_that_could_not_be_copied_is_counted_and_is_no_success() -> None:
    lacking = replace(GOOD, missing=(Missing("junk.sqlite", "it is not a SQLite database"),))
    tried = replace(FAILED, outcome="backed_up", reason="", missing=("junk.sqlite",))
    found = samples(rendered(replace(ALICE, snapshots=(lacking,), attempts=(tried,))))
    assert found[("t3_backup_missing_databases", "alice")] == 1
    assert found[("t3_backup_last_success_timestamp_seconds", "alice")] == 0
    assert found[("t3_backup_last_attempt_ok", "alice")] == 0


def test_two_files_in_one_process_know_nothing_of_each_other() -> None:
    rendered(ALICE)
    assert not [key for key in samples(rendered(BOB)) if "alice" in key]
    assert rendered(ALICE) == rendered(ALICE)


def test_it_is_for_all_to_read_whatever_the_umask_and_alone_in_its_folder(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        metrics.write(tmp_path, b"first")
        metrics.write(tmp_path, b"second")
    finally:
        os.umask(old)
    assert os.listdir(tmp_path) == [metrics.NAME]
    assert (tmp_path / metrics.NAME).read_bytes() == b"second"
    assert stat.S_IMODE((tmp_path / metrics.NAME).stat().st_mode) == 0o644


def test_the_collector_reads_no_half_of_it() -> None:
    """It takes every file that ends in .prom (node exporter's textfile.go)."""
    source = Path(sys.modules["t3_backup.system.atomic_file"].__file__ or "").read_text()
    assert '_NEW = ".new"' in source
    assert metrics.NAME.endswith(".prom")


def test_a_link_in_the_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    """Debian's lies in a folder of the user prometheus, who may put anything there."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError):
        metrics.write(tmp_path / "link", b"content")
    assert os.listdir(tmp_path / "real") == []
    assert metrics.why_not_writable(tmp_path / "link") == "it is a symlink or no folder"
    assert metrics.why_not_writable(tmp_path / "none") == "No such file or directory"
