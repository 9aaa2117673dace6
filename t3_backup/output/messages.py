"""What people and programs are told of accounts and snapshots, as texts and documents: values in, values out.

A line begins with what happened, names the account, and has a priority. `lines` brings it to whoever reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from t3_backup.backup.result import AccountResult
from t3_backup.text import ERROR, INFO, WARNING, format_age, format_columns, format_size

if TYPE_CHECKING:  # it brings the worker's client, which only those need who verify
    from t3_backup.history.verify import Check


class Message(NamedTuple):
    """What is said of an account in one line, and the snapshot (as the interface has it) that it is about."""

    priority: int
    text: str
    snapshot: Mapping[str, Any] | None = None


def result_messages(result: AccountResult) -> list[Message]:
    """The lines of one account."""
    user = result.user
    lines: list[Message] = []
    if result.outcome == "failed":
        lines.append(Message(ERROR, f"WARN: backup FAILED for {user} ({result.reason})"))
    elif result.outcome == "skipped":
        lines.append(Message(INFO, f"skip {user} ({result.reason})"))
    elif result.outcome == "planned":
        lines.append(Message(INFO, f"would back up {user}: {result.reason}"))
    say = _unchanged if result.unchanged or result.outcome == "unchanged" else _backed_up
    lines += [say(user, snapshot) for snapshot in reversed(result.snapshots)]
    if result.unsaved:
        lines.append(Message(ERROR, f"WARN: {user}: what is beside the database is not saved: {result.unsaved}"))
    lines += [Message(INFO, f"pruned {user}: {name}") for name in result.pruned]
    return lines + [Message(WARNING, f"WARN: {warning}") for warning in result.warnings]


def _backed_up(user: str, snapshot: Mapping[str, Any]) -> Message:
    seconds = snapshot["copy_seconds"] + snapshot["proof_seconds"]
    detail = f"{snapshot['bytes']} bytes, {seconds:.1f} s, {snapshot['method']}, {snapshot['verdict']}"
    text = f"backed up {user} -> {snapshot['path']} ({detail})"
    if snapshot["verdict"] == "verified":
        return Message(INFO, text, snapshot)
    why = "; ".join(snapshot["reasons"])
    return Message(ERROR, f"WARN: {text}: {why}; nothing is pruned until: t3-backup-state accept {user}", snapshot)


def _unchanged(user: str, snapshot: Mapping[str, Any]) -> Message:
    text = f"unchanged {user}: still what {snapshot['name']} holds ({snapshot['bytes']} bytes, {snapshot['verdict']})"
    if snapshot["verdict"] == "verified" or snapshot["accepted_at"]:
        return Message(INFO, text, snapshot)
    why = "; ".join(snapshot["reasons"])
    return Message(ERROR, f"WARN: {text}: {why}; nothing is pruned until: t3-backup-state accept {user}", snapshot)


def run_document(results: Sequence[AccountResult]) -> dict[str, Any]:
    """The JSON document of `run`."""
    return {
        "accounts": [
            {
                "user": result.user,
                "outcome": result.outcome,
                "reason": result.reason,
                "snapshots": list(result.snapshots),
                "unsaved": result.unsaved,
                "uncovered": list(result.uncovered),
                "taken_over": list(result.taken_over),
                "pruned": list(result.pruned),
                "compacted": list(result.compacted),
                "warnings": list(result.warnings),
            }
            for result in results
        ]
    }


def list_lines(entry: dict[str, Any], now: datetime) -> list[str]:
    """The table of one account's snapshots, newest first, and what is there besides."""
    user, snapshots = entry["user"], entry["snapshots"]
    rows = [("WHEN (UTC)", "AGE", "SIZE", "PAGES", "METHOD", "LEVEL", "FILES", "LABEL", "VERDICT", "NAME")]
    for s in snapshots:
        old = format_age((now - datetime.fromisoformat(s["taken_at"])).total_seconds())
        verdict = s["verdict"] + (" (accepted)" if s["accepted_at"] else "") + (" (pinned)" if s["pinned_at"] else "")
        level = "-" if s["t3_level"] is None else str(s["t3_level"])
        when = s["taken_at"].replace("T", " ").removesuffix("Z")
        files = format_size(s["companion"]["bytes"]) if s["companion"] else "-"
        sizes = format_size(s["bytes"]), str(s["page_count"]), s["method"], level, files
        rows.append((when, old, *sizes, s["label"] or "-", verdict, s["name"]))
    archives = {s["companion"]["sha256"]: s["companion"]["bytes"] for s in snapshots if s["companion"]}
    total = sum(s["bytes"] for s in snapshots) + sum(archives.values())
    lines = [f"{user}: {len(snapshots)} snapshots, {format_size(total)}"]
    if snapshots:
        lines += [f"  {line}" for line in format_columns(rows, right={1, 2, 3, 5, 6})]
    return lines + [f"  {text}" for text in not_counted(entry)]


def not_counted(entry: Mapping[str, Any]) -> list[str]:
    """What is there of one account, and is no snapshot."""
    return [
        *(f"not counted, since it has no sound manifest: {name}" for name in entry["strays"]),
        *(f"not counted, since it could not be taken over: what is in {path}" for path in entry["leftovers"]),
    ]


def check_line(check: Check) -> tuple[int, str]:
    """The line of one snapshot that was proven again."""
    snapshot = check.snapshot
    if not check.holds:
        return ERROR, f"WARN: {snapshot.user} {snapshot.name} does NOT verify: {'; '.join(check.reasons[:5])}"
    if snapshot.verdict != "verified":
        return (
            INFO,
            f"unchanged {snapshot.user} {snapshot.name} ({snapshot.verdict} when it was taken: {'; '.join(snapshot.reasons)})",
        )
    return INFO, f"verified {snapshot.user} {snapshot.name} ({snapshot.bytes} bytes)"
