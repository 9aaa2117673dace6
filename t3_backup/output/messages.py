"""Write the texts that people read of accounts and snapshots.

A line begins with what happened, names the account, and has a priority.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from t3_backup.backup.result import AccountResult
from t3_backup.output.documents import AccountContents
from t3_backup.store.catalog import Proof, explain_loss
from t3_backup.store.faults import find_faults
from t3_backup.store.listing import StoredSnapshot
from t3_backup.store.manifest import Manifest
from t3_backup.t3 import databases
from t3_backup.text import ERROR, INFO, WARNING, format_age, format_columns, format_size, quote

if TYPE_CHECKING:  # they bring the worker's client, which only those need who verify
    from t3_backup.history.usage import Usage
    from t3_backup.history.verify import VerifyResult


_HEADS: tuple[str, ...] = ("WHEN (UTC)", "AGE", "SIZE", "PAGES", "METHOD")
_HEADS += ("LEVEL", "FILES", "LABEL", "VERDICT", "LAST PROVEN", "NAME")


class Message(NamedTuple):
    """What is said of an account in one line, and the snapshot that it is about."""

    priority: int
    text: str
    snapshot: StoredSnapshot | None = None


def result_messages(result: AccountResult) -> list[Message]:
    """Return the lines of one account."""
    user = result.user
    lines: list[Message] = []
    if result.outcome == "failed":
        lines.append(Message(ERROR, f"WARN: backup FAILED for {user} ({result.reason})"))
    elif result.outcome == "skipped":
        lines.append(Message(INFO, f"skip {user} ({result.reason})"))
    elif result.outcome == "planned":
        lines.append(Message(INFO, f"would back up {user}: {result.reason}"))
    unchanged = result.unchanged or result.outcome == "unchanged"
    for one in reversed(result.snapshots):
        lines.append(_snapshot_message(user, one, unchanged, alarm=bool(result.unproven)))
        lines += [
            Message(ERROR, f"WARN: {user}: {text}", one) for text in missing_texts(one.manifest)
        ]
    for told in (explain_loss(user, result.lost), result.catalog_problem):
        lines += [Message(ERROR, f"WARN: {user}: {told}")] if told else []
    if result.unsaved:
        text = f"the files next to the database were not saved: {result.unsaved}"
        lines.append(Message(ERROR, f"WARN: {user}: {text}"))
    lines += [Message(INFO, f"pruned {user}: {name}") for name in result.pruned]
    return lines + [Message(WARNING, f"WARN: {warning}") for warning in result.warnings]


def _snapshot_message(
    user: str, snapshot: StoredSnapshot, unchanged: bool, *, alarm: bool
) -> Message:
    manifest = snapshot.manifest
    if unchanged:
        detail = f"{_count(manifest)}{manifest.total_bytes} bytes, {manifest.verdict}"
        text = f"unchanged {user}: still what {manifest.name} holds ({detail})"
    else:
        seconds = sum(one.copy_seconds + one.proof_seconds for one in manifest.databases)
        size, how = manifest.total_bytes, manifest.live.method
        detail = f"{_count(manifest)}{size} bytes, {seconds:.1f} s, {how}, {manifest.verdict}"
        text = f"backed up {user} -> {snapshot.path} ({detail})"
    if manifest.verdict == "unproven":
        priority = ERROR if alarm else WARNING
        return Message(priority, f"WARN: {text}: {'; '.join(manifest.reasons)}", snapshot)
    if not manifest.holds:
        return Message(INFO, text, snapshot)
    until = f"t3-backup-state accept {quote(user)}"
    why = f"{'; '.join(manifest.reasons)}; nothing is pruned until: {until}"
    return Message(ERROR, f"WARN: {text}: {why}", snapshot)


def _count(manifest: Manifest) -> str:
    """Say how many databases a snapshot has, where that is more than one."""
    count = len(manifest.databases)
    return f"{count} databases, " if count > 1 else ""


def missing_texts(manifest: Manifest) -> list[str]:
    """Say of each database that was there and is not in a snapshot why, and what to do."""
    return [
        databases.explain_missing(manifest.user, one.file, manifest.name, one.reason)
        for one in manifest.missing
    ]


def list_lines(contents: AccountContents, now: datetime) -> list[str]:
    """Return the table of one account's snapshots, and what is there besides."""
    manifests = [snapshot.manifest for snapshot in contents.snapshots]
    proofs = contents.proofs
    rows = [_HEADS, *(_list_row(one, proofs.get(one.name), now) for one in manifests)]
    if any(len(manifest.databases) > 1 for manifest in manifests):
        counts = ["DATABASES", *(str(len(manifest.databases)) for manifest in manifests)]
        rows = [(*row[:-1], count, row[-1]) for row, count in zip(rows, counts, strict=True)]
    companions = [one.companion for one in manifests if one.companion is not None]
    archives = {one.sha256: one.bytes for one in companions}
    total = sum(manifest.total_bytes for manifest in manifests) + sum(archives.values())
    lines = [f"{contents.user}: {len(manifests)} snapshots, {format_size(total)}"]
    if manifests:
        lines += [f"  {line}" for line in format_columns(rows, right={1, 2, 3, 5, 6})]
    return lines + [f"  {text}" for text in uncounted_lines(contents)]


def _list_row(manifest: Manifest, proof: Proof | None, now: datetime) -> tuple[str, ...]:
    accepted = " (accepted)" if manifest.accepted_at else ""
    pinned = " (pinned)" if manifest.pinned_at else ""
    missing = f", {len(manifest.missing)} missing" if manifest.missing else ""
    return (
        format_taken_at(manifest),
        format_age((now - manifest.when).total_seconds()),
        format_size(manifest.total_bytes),
        str(manifest.live.page_count),
        manifest.live.method,
        "-" if manifest.live.t3_level is None else str(manifest.live.t3_level),
        format_size(manifest.companion.bytes) if manifest.companion is not None else "-",
        manifest.label or "-",
        f"{manifest.verdict}{missing}{accepted}{pinned}",
        _last_proven(proof),
        manifest.name,
    )


def _last_proven(proof: Proof | None) -> str:
    """Write when a snapshot was last proven, with what came of it where it did not verify."""
    if proof is None:
        return "-"
    what = {"verified": "", "failed": "FAILED ", "unchecked": "unchecked "}[proof.outcome]
    return f"{what}{proof.when:%Y-%m-%d %H:%M}"


def format_taken_at(manifest: Manifest) -> str:
    """Write when a snapshot was taken, in UTC: `2026-11-24 03:30:12`."""
    return manifest.taken_at.replace("T", " ").removesuffix("Z")


def uncounted_lines(contents: AccountContents) -> list[str]:
    """Return a line for each thing that is there of one account, and is no snapshot; or is lost."""
    left = "not counted: could not be taken over:"
    return [
        *(
            f"lost: {name}; next: t3-backup-state accept {quote(contents.user)}"
            for name in contents.lost
        ),
        *(f"not counted: no valid manifest: {name}" for name in contents.strays),
        *(f"{left} the files in {path}" for path in contents.leftovers),
    ]


def verify_messages(result: VerifyResult) -> list[Message]:
    """Return the lines of one snapshot that was proven again.

    None where it has failed: `fault_messages` says so once of all that break together.
    """
    manifest = result.snapshot
    what = f"{manifest.user} {manifest.name}"
    lines = [Message(WARNING, f"WARN: {what}: {remark}") for remark in result.remarks]
    if result.outcome == "failed":
        return lines
    if result.outcome == "unchecked":
        next_step = f"next: t3-backup-state verify {quote(manifest.user)} --at {manifest.name}"
        text = f"WARN: {what} could not be checked: {result.reason}; {next_step}"
        return [*lines, Message(ERROR, text)]
    if manifest.verdict != "verified":
        when = f"{manifest.verdict} when it was taken: {'; '.join(manifest.reasons)}"
        return [*lines, Message(INFO, f"unchanged {what} ({when})")]
    return [*lines, Message(INFO, f"verified {what} ({manifest.total_bytes} bytes)")]


def fault_messages(results: Sequence[VerifyResult]) -> list[Message]:
    """Return a line for each fault that was found among the snapshots of one account."""
    failed = {one.snapshot.name: one.reason for one in results if one.outcome == "failed"}
    found = find_faults([one.snapshot for one in results], failed)
    return [Message(ERROR, f"WARN: {one.snapshot.user} {one.text}") for one in found]


def usage_lines(usage: Usage) -> list[str]:
    """Return the table of one account's disk usage."""
    times = f", {usage.full / usage.bytes:.1f} times as much" if usage.bytes else ""
    stored, full = format_size(usage.bytes), format_size(usage.full)
    first = f"{usage.user}: {len(usage.stored)} snapshots in {stored}; as full copies {full}{times}"
    rows = [("STORED", "SIZE", "FORM", "HANGING", "NAME", "ON")]
    rows += [
        (
            format_size(one.bytes),
            format_size(one.snapshot.total_bytes),
            one.form,
            str(one.dependents),
            one.snapshot.name,
            one.base or "-",
        )
        for one in usage.stored
    ]
    if not usage.stored:
        return [first]
    return [first, *(f"  {line}" for line in format_columns(rows, right={0, 1, 3}))]
