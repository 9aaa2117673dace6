"""Make the JSON documents of the commands (docs/interface/json.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from t3_backup.text import format_time

if TYPE_CHECKING:  # some bring the worker's client, which only those need who verify
    from t3_backup.backup.result import AccountResult
    from t3_backup.history.retention import Decision
    from t3_backup.history.usage import Usage
    from t3_backup.history.verify import VerifyResult
    from t3_backup.restore.in_place import Restored
    from t3_backup.restore.pending import PendingRestore
    from t3_backup.store.catalog import Proof
    from t3_backup.store.listing import StoredSnapshot
    from t3_backup.store.manifest import Manifest


_VERIFIES = {"verified": True, "failed": False, "unchecked": None}


@dataclass(frozen=True)
class AccountContents:
    """What the store has of one account."""

    user: str
    snapshots: Sequence[StoredSnapshot] = ()  # newest first
    strays: Sequence[str] = ()  # names of files that look like snapshots and don't count
    leftovers: Sequence[str] = ()  # paths of what could not be taken over
    restore: PendingRestore | None = None  # one that has not ended
    lost: Sequence[str] = ()  # names of snapshots that were sealed, and are not there
    proofs: Mapping[str, Proof] = field(default_factory=dict)  # the last ones, by snapshot


def snapshot_document(snapshot: StoredSnapshot) -> dict[str, Any]:
    """Describe a snapshot: its manifest, and where and in which form each of its images is."""
    document = snapshot.manifest.as_json()
    databases = [
        one | {"path": str(snapshot.paths[one["file"]]), "form": snapshot.forms[one["file"]]}
        for one in document["databases"]
    ]
    return document | {
        "databases": databases,
        "path": str(snapshot.path),
        "form": snapshot.form,
    }


def run_document(results: Sequence[AccountResult]) -> dict[str, Any]:
    """Describe a run."""
    return {"accounts": [result_document(result) for result in results]}


def result_document(result: AccountResult) -> dict[str, Any]:
    """Describe what a run did for one account."""
    return {
        "user": result.user,
        "outcome": result.outcome,
        "reason": result.reason,
        "own": result.own,
        "snapshots": [snapshot_document(snapshot) for snapshot in result.snapshots],
        "unsaved": result.unsaved,
        "not_packed": list(result.not_packed),
        "uncovered": list(result.uncovered),
        "unproven": result.unproven,
        "lost": list(result.lost),
        "catalog_problem": result.catalog_problem,
        "taken_over": list(result.taken_over),
        "pruned": list(result.pruned),
        "compacted": list(result.compacted),
        "warnings": list(result.warnings),
    }


def needs_attention(account: Mapping[str, Any]) -> bool:
    """Judge one account in a run's document as `AccountResult.alarms` does."""
    bad = any(
        (
            snapshot["verdict"] not in ("verified", "unproven")
            and snapshot.get("accepted_at") is None
        )
        or bool(snapshot.get("missing"))
        for snapshot in account["snapshots"]
    )
    told = any(account.get(key) for key in ("unsaved", "unproven", "lost", "catalog_problem"))
    return account["outcome"] == "failed" or told or bad


def contents_document(contents: AccountContents) -> dict[str, Any]:
    """Describe what the store has of one account, as `list` does."""
    entries = [_listed_document(contents, snapshot) for snapshot in contents.snapshots]
    return _account_document(contents, entries)


def verify_document(
    contents: AccountContents, checked: Sequence[tuple[StoredSnapshot, VerifyResult]]
) -> dict[str, Any]:
    """Describe what the store has of one account, with the proof of each snapshot."""
    entries = [
        _listed_document(contents, snapshot)
        | {
            "verifies": _VERIFIES[result.outcome],
            "problems": [*result.finding.reasons, *result.remarks],
        }
        for snapshot, result in checked
    ]
    return _account_document(contents, entries)


def _listed_document(contents: AccountContents, snapshot: StoredSnapshot) -> dict[str, Any]:
    """Describe a snapshot with its last proof."""
    proof = contents.proofs.get(snapshot.manifest.name)
    return snapshot_document(snapshot) | {"proof": None if proof is None else proof_document(proof)}


def proof_document(proof: Proof) -> dict[str, str]:
    """Describe how a proof ended."""
    return {
        "when": format_time(proof.when),
        "outcome": proof.outcome,
        "reason": proof.reason,
    }


def _account_document(contents: AccountContents, snapshots: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "user": contents.user,
        "snapshots": snapshots,
        "strays": list(contents.strays),
        "leftovers": list(contents.leftovers),
        "lost": list(contents.lost),
        "restore": None if contents.restore is None else contents.restore.as_json(),
    }


def prune_document(
    user: str,
    decisions: Sequence[Decision],
    pruned: Sequence[str],
    compacted: Sequence[str],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Describe what retention decided of one account, and what was done."""
    return {
        "user": user,
        "decisions": [
            {"name": one.snapshot.name, "keep": one.keep, "reasons": list(one.reasons)}
            for one in decisions
        ],
        "pruned": list(pruned),
        "compacted": list(compacted),
        "warnings": list(warnings),
    }


def marks_document(user: str, changed: Sequence[Manifest]) -> dict[str, Any]:
    """Describe the snapshots of one account whose marks were changed."""
    return {"user": user, "snapshots": [manifest.as_json() for manifest in changed]}


def usage_document(usage: Usage) -> dict[str, Any]:
    """Describe the disk usage of one account."""
    snapshots = [
        {
            "name": one.snapshot.name,
            "bytes": one.snapshot.total_bytes,
            "form": one.form,
            "stored_bytes": one.bytes,
            "base": one.base,
            "hanging": one.dependents,
        }
        for one in usage.stored
    ]
    return {
        "user": usage.user,
        "stored_bytes": usage.bytes,
        "full_bytes": usage.full,
        "snapshots": snapshots,
    }


def database_changes(put_back: Iterable[str], put_aside: Iterable[str]) -> list[dict[str, str]]:
    """Describe what a restore does to each database."""
    return [
        *({"file": file, "action": "put back"} for file in put_back),
        *({"file": file, "action": "put aside"} for file in put_aside),
    ]


def restored_document(done: Restored, undo: str | None) -> dict[str, Any]:
    """Describe what a restore did; `undo` is the command that undoes it."""
    return {
        "action": "restored",
        "prerestore": None if done.prerestore is None else done.prerestore.as_json(),
        "databases": database_changes(done.put_back, done.put_aside),
        "kept": done.kept,
        "server": done.server,
        "warnings": done.warnings,
        "seconds": done.seconds,
        "undo": undo,
    }
