"""Write the metrics for the textfile collector of Prometheus's node exporter.

A registry of its own, made anew for each file, which is there whole or not at all. Times are
seconds since 1970, sizes bytes. The names are an interface (docs/monitoring.md); alerts and
dashboard stand on them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import t3_backup
from t3_backup.monitor.status import Status
from t3_backup.store.manifest import VERDICTS
from t3_backup.system.atomic_file import replace_path

if TYPE_CHECKING:  # it need not be installed
    from prometheus_client import Gauge

NAME = "t3_backup.prom"


def render(status: Status) -> bytes:
    """Render the content of the file. Raises ImportError without python3-prometheus-client."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()

    def gauge(name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"t3_backup_{name}", meaning, labels, registry=registry)

    def by_account(name: str, meaning: str, *labels: str) -> Gauge:
        return gauge(name, meaning, "account", *labels)

    version = gauge("build_info", "1; the version that wrote this.", "version")
    version.labels(t3_backup.__version__).set(1)
    free = gauge("store_free_bytes", "Free space on the store's file system.")
    free.set(status.overview.free_bytes)
    in_map = by_account("account_in_map", "1 where the user map names the account, else 0.")
    success = by_account(
        "last_success_timestamp_seconds",
        "When the account was last known to have a good snapshot; 0: never.",
    )
    kept = by_account("snapshots", "Snapshots in the account's folder.", "verdict")
    held = by_account(
        "snapshots_held", "Suspect or damaged snapshots that wait for accept; nothing is pruned."
    )
    vanished = by_account(
        "snapshots_lost", "Snapshots that were sealed and can't be found; nothing is pruned."
    )
    bare = by_account(
        "uncovered_databases", "Databases of the account that are not copied; nothing is pruned."
    )
    lacking = by_account(
        "missing_databases",
        "Databases of the account that could not be copied and are not in the newest snapshot.",
    )
    used = by_account("used_bytes", "What the account's snapshots take on the store's disk.")
    attempt = by_account("last_attempt_timestamp_seconds", "When the last attempt ended.")
    well = by_account("last_attempt_ok", "1 where the last attempt succeeded in full, else 0.")
    duration = by_account(
        "last_attempt_duration_seconds", "How long the last attempt took, copy and proof together."
    )
    size = by_account("last_snapshot_bytes", "Size of the newest snapshot.")
    growth = by_account(
        "last_snapshot_wal_growth_bytes", "By how much the live -wal grew for the newest snapshot."
    )
    verdict = by_account(
        "last_snapshot_verdict",
        "1 for the verdict of the newest snapshot, 0 for the others.",
        "verdict",
    )

    for health in status.accounts:
        view = health.view
        user = view.user
        if not view.snapshots and health.note:
            continue  # no database, and nothing to be said of it
        in_map.labels(user).set(view.in_map)
        last_good = health.fresh.last_good
        success.labels(user).set(last_good.timestamp() if last_good else 0)
        for name in VERDICTS:
            kept.labels(user, name).set(sum(one.verdict == name for one in view.snapshots))
        vanished.labels(user).set(len(view.vanished))
        held.labels(user).set(sum(snapshot.holds for snapshot in view.snapshots))
        used.labels(user).set(view.used_bytes)
        if view.attempts:
            bare.labels(user).set(len(health.fresh.uncovered))
            last = view.attempts[-1]
            attempt.labels(user).set(last.when.timestamp())
            well.labels(user).set(not last.failed and not last.unsaved and not last.missing)
            duration.labels(user).set(last.seconds)
        if view.snapshots:
            newest = view.snapshots[0]
            lacking.labels(user).set(len(newest.missing))
            size.labels(user).set(newest.live.bytes)
            growth.labels(user).set(newest.live.wal_growth_bytes)
            for name in VERDICTS:
                verdict.labels(user, name).set(newest.verdict == name)
    _render_proofs(status, by_account)
    return bytes(generate_latest(registry))


def _render_proofs(status: Status, by_account: Callable[[str, str], Gauge]) -> None:
    broken = by_account(
        "failed_proofs", "Snapshots that are not what was sealed, and that nobody has accepted."
    )
    doubted = by_account("unchecked_proofs", "Snapshots that could not be checked at the last try.")
    proven = by_account(
        "oldest_proof_timestamp_seconds",
        "When the snapshot was proven whose last proof is the longest ago.",
    )
    for health in status.accounts:
        if not health.view.snapshots:
            continue
        user, proofs = health.view.user, health.proofs
        broken.labels(user).set(len(proofs.failed))
        doubted.labels(user).set(len(proofs.unchecked))
        if proofs.oldest is not None:
            proven.labels(user).set(proofs.oldest[1].timestamp())


def write(folder: Path, content: bytes) -> None:
    """Put the file into `folder`, to be read by all.

    Raises OSError, where it is a symlink as well: nothing is followed.
    """
    replace_path(folder / NAME, content, 0o644)


def why_not_writable(folder: Path) -> str:
    """Say why root can't write there by its own rights; empty where it can."""
    try:
        status = os.stat(folder, follow_symlinks=False)
    except OSError as error:
        return str(error.strerror)
    if not stat.S_ISDIR(status.st_mode):
        return "it is a symlink or no folder"
    of_group = stat.S_IWGRP if status.st_gid == 0 else stat.S_IWOTH
    if status.st_mode & (stat.S_IWUSR if status.st_uid == 0 else of_group):
        return ""
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    return f"root may not write there (owner {status.st_uid}, mode {mode})"
