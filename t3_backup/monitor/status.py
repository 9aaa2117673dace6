"""Tell how the backups are: as a table, as JSON, or as one line for Nagios.

Values in, texts out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from t3_backup.monitor.collect import Overview
from t3_backup.monitor.database_states import database_states, describe
from t3_backup.monitor.health import (
    CRITICAL,
    OK,
    WARNING,
    Health,
    Thresholds,
    format_span,
    judge_health,
    trend_text,
    worst,
)
from t3_backup.monitor.proofs import ProofStates
from t3_backup.text import format_columns, format_size, format_time

NOT_COPIED = ("worktrees", "logs", "caches")
EXIT_CODES = {OK: 0, WARNING: 1, CRITICAL: 2}  # of a check of Nagios'
UNKNOWN = 3

_HEADS = ("ACCOUNT", "LAST GOOD (UTC)", "AGE", "SIZE", "GOOD/ALL", "ON DISK", "TREND", "STATE")
_MOST_TEXTS = 3  # of accounts, in the line for Nagios
_LONGEST_TEXT = 200  # characters of each


@dataclass(frozen=True)
class Status:
    """How all backups are at one moment."""

    overview: Overview
    accounts: tuple[Health, ...]
    now: datetime
    limits: Thresholds

    @property
    def state(self) -> str:
        """The worst of it; what the map or the ledger is warned of counts."""
        warned = [WARNING for _ in self.overview.warnings]
        warned += [CRITICAL] if self.overview.store_problem else []
        return worst([health.state for health in self.accounts] + warned)


def status_of(overview: Overview, now: datetime, limits: Thresholds) -> Status:
    """Judge all of `overview` at `now`."""
    accounts = tuple(judge_health(view, now, limits) for view in overview.accounts)
    return Status(overview, accounts, now, limits)


def table(status: Status) -> list[str]:
    """Write the table for people. It may hold what a user chose."""
    rows = [_HEADS, *(_row(health, status.now) for health in status.accounts)]
    lines = format_columns(rows, right={2, 3, 4, 5, 6}) if status.accounts else []
    for health in status.accounts:
        if found := describe(database_states(health)):
            lines.append(f"{health.view.user}: {found}")
        if error := health.last_error:
            lines.append(f"{health.view.user}: last error {_when(error.when)}: {error.reason}")
    lines.append(f"{status.overview.store}: {format_size(status.overview.free_bytes)} free")
    lines.append(f"not copied: {', '.join(NOT_COPIED)}")
    return lines


def _row(health: Health, now: datetime) -> tuple[str, ...]:
    view, good, last_good = health.view, health.fresh.good, health.fresh.last_good
    return (
        view.user,
        _when(last_good) if last_good else "never",
        format_span((now - last_good).total_seconds()) if last_good else "-",
        format_size(good[0].total_bytes) if good else "-",
        f"{len(good)}/{len(view.snapshots)}",
        format_size(view.used_bytes),
        trend_text(health.trend),
        f"{health.state}: {health.text}" if health.text else health.state,
    )


def _when(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M}"


def nagios(status: Status) -> tuple[str, int]:
    """Write the line of a check, and its exit code (Monitoring Plugins' guidelines)."""
    bad = [health for health in status.accounts if health.state != OK]
    bad.sort(key=lambda health: health.state != CRITICAL)
    texts = [f"{health.view.user}: {health.text}" for health in bad]
    texts += status.overview.warnings
    shown = [status.overview.store_problem] if status.overview.store_problem else []
    shown += [
        text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
        for text in texts[:_MOST_TEXTS]
    ]
    if len(texts) > _MOST_TEXTS:
        shown.append(f"and {len(texts) - _MOST_TEXTS} more")
    if not shown:
        count = len(status.accounts)
        shown = [f"{count} account{'' if count == 1 else 's'}, {_oldest(status)}"]
    perfdata = [part for health in status.accounts for part in _perfdata(health, status)]
    perfdata.append(f"'store_free'={status.overview.free_bytes}B;;;0")
    return plugin_line(status.state.upper(), "; ".join(shown), perfdata), EXIT_CODES[status.state]


def plugin_line(word: str, text: str, perfdata: Sequence[str] = ()) -> str:
    """Write a line as checks print it, with no bar but that before the perfdata."""
    bar = f" | {' '.join(perfdata)}" if perfdata else ""
    return f"T3-BACKUP {word} - {text.replace('|', '/')}{bar}"


def _oldest(status: Status) -> str:
    goods = [one.fresh.last_good for one in status.accounts if one.fresh.last_good]
    if not goods:
        return "no database yet"
    return f"the oldest last good is {format_span((status.now - min(goods)).total_seconds())} old"


def _perfdata(health: Health, status: Status) -> list[str]:
    """List ages in seconds and sizes in bytes; an account without a database has none."""
    if not health.view.snapshots and health.state == OK:
        return []
    good, last_good = health.fresh.good, health.fresh.last_good
    user = health.view.user.replace("'", "''").replace("=", "_")  # as a label has to be
    age = "U"
    if last_good:
        age = f"{max(0, int((status.now - last_good).total_seconds()))}s"
    found = [
        f"'{user}_age'={age};;{int(status.limits.max_age.total_seconds())};0",
        f"'{user}_snapshots'={len(good)};{status.limits.min_snapshots}:;;0",
    ]
    return [*found, f"'{user}_size'={good[0].live.bytes}B;;;0"] if good else found


def document(status: Status) -> dict[str, Any]:
    """Write the JSON document of `status`."""
    return {
        "state": status.state,
        "store": {
            "path": str(status.overview.store),
            "free_bytes": status.overview.free_bytes,
            "problem": status.overview.store_problem,
        },
        "warnings": list(status.overview.warnings),
        "not_copied": list(NOT_COPIED),
        "accounts": [_account(health, status.now) for health in status.accounts],
    }


def _account(health: Health, now: datetime) -> dict[str, Any]:
    view, good, last_good = health.view, health.fresh.good, health.fresh.last_good
    return {
        "user": view.user,
        "state": health.state,
        "troubles": [asdict(trouble) for trouble in health.troubles],
        "note": health.note,
        "in_map": view.in_map,
        "last_good": format_time(last_good) if last_good else None,
        "age_seconds": int((now - last_good).total_seconds()) if last_good else None,
        "bytes": good[0].live.bytes if good else None,
        "good": len(good),
        "snapshots": len(view.snapshots),
        "used_bytes": view.used_bytes,
        "bytes_per_day": round(health.trend) if health.trend is not None else None,
        "uncovered": list(health.fresh.uncovered),
        "databases": [asdict(state) for state in database_states(health)],
        "proofs": _proofs(health.proofs),
        "missing": [asdict(one) for one in view.snapshots[0].missing] if view.snapshots else [],
        "last_attempt": asdict(view.attempts[-1]) if view.attempts else None,
        "last_error": asdict(health.last_error) if health.last_error else None,
        "login": asdict(view.login.login) if view.login.login else None,
    }


def _proofs(proofs: ProofStates) -> dict[str, Any]:
    failed = [
        {
            "snapshot": fault.snapshot.name,
            "reason": fault.reason,
            "hanging": list(fault.hanging),
        }
        for fault in proofs.faults
    ]
    unchecked = [{"snapshot": one.name, "reason": reason} for one, reason in proofs.unchecked]
    oldest = None if proofs.oldest is None else format_time(proofs.oldest[1])
    return {"failed": failed, "unchecked": unchecked, "oldest": oldest}
