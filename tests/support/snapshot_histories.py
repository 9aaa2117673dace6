"""Random histories of snapshots for tests of retention, and what stays of them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

from hypothesis import assume
from hypothesis import strategies as st

from support.manifests import make_manifest
from t3_backup.history.retention import Policy, decide_retention
from t3_backup.store.manifest import Manifest
from t3_backup.text import format_time

YEARS = 3650 * 86400  # ten of them, in seconds
# Runs follow each other after minutes, hours, days or weeks; now and then the clock jumps.
ORDINARY = st.integers(0, 3600) | st.integers(0, 3 * 86400) | st.integers(0, 60 * 86400)
JUMPS = st.sampled_from([YEARS, -YEARS, 3 * 86400, -3 * 86400, -3600, -1])
VERDICTS = st.sampled_from(
    ["verified"] * 6 + ["suspect", "damaged", "accepted suspect", "accepted damaged"]
)
GOOD = st.sampled_from(["verified"] * 6 + ["accepted suspect", "accepted damaged"])
LABELS = st.sampled_from(
    [None] * 5 + ["prebump-0.0.25", "prebump-0.0.26", "prebump", "manual", "manual-2"]
)
KEEPS = st.integers(1, 6)
COUNTS = st.integers(0, 4)
POLICIES = st.builds(Policy, KEEPS, st.integers(0, 8), COUNTS, COUNTS, COUNTS, COUNTS)


def uniform_policy(keep: int) -> Policy:
    """As many of everything that is not asked for by a setting of its own."""
    return Policy(keep, 0, 0, 0, 0, keep)


def make_snapshot(
    sequence: int,
    when: datetime,
    verdict: str = "verified",
    label: str | None = None,
    *,
    legacy: bool = False,
    pinned: bool = False,
) -> Manifest:
    """One as it lies in an account folder: an accepted one keeps its verdict."""
    accepted = verdict.startswith("accepted ")
    kind = verdict.removeprefix("accepted ")
    local = when.strftime("%Y%m%d-%H%M%S")
    more = {"name": f"state-{label}-{local}" if label else f"state-{local}"} if legacy else {}
    return make_manifest(
        sequence,
        when,
        label,
        verdict=kind,
        reasons=() if kind == "verified" else ("for a reason",),
        accepted_at=format_time(when) if accepted else None,
        pinned_at=format_time(when) if pinned else None,
        **more,
    )


@st.composite
def histories(
    draw: st.DrawFn,
    verdicts: st.SearchStrategy[str] = VERDICTS,
    *,
    jumps: bool = True,
    pins: bool = False,
) -> list[Manifest]:
    """The snapshots of one account that nobody has ever pruned, oldest first; without `jumps`
    nothing looks like one either."""
    gaps = ORDINARY | JUMPS if jumps else ORDINARY
    pinned = st.sampled_from([False] * 5 + [True]) if pins else st.just(False)
    runs = draw(
        st.lists(
            st.tuples(gaps, verdicts, LABELS, st.integers(1, 3), st.booleans(), pinned), max_size=40
        )
    )
    sequence, when, account_dir = 0, datetime(2026, 3, 1, 3, 30, tzinfo=UTC), []
    for gap, verdict, label, step, legacy, pin in runs:
        sequence += step
        when += timedelta(seconds=gap)
        when = min(max(when, datetime(1980, 1, 1, tzinfo=UTC)), datetime(2090, 1, 1, tzinfo=UTC))
        account_dir.append(make_snapshot(sequence, when, verdict, label, legacy=legacy, pinned=pin))
    assume(
        jumps
        or all(
            new.when - old.when < timedelta(days=365)
            for new, old in pairwise(unlabelled(account_dir))
        )
    )
    return account_dir


def kept_snapshots(account_dir: Iterable[Manifest], policy: Policy | int) -> list[Manifest]:
    """What stays, newest first."""
    decisions = decide_retention(
        account_dir, uniform_policy(policy) if isinstance(policy, int) else policy
    )
    return [decision.snapshot for decision in decisions if decision.keep]


def sequences(account_dir: Iterable[Manifest]) -> set[int]:
    """Their sequence numbers: manifests have no hash."""
    return {one.sequence for one in account_dir}


def kept_sequences(account_dir: Iterable[Manifest], policy: Policy | int) -> set[int]:
    """The sequence numbers of what stays."""
    return sequences(kept_snapshots(account_dir, policy))


def newest_first(account_dir: Iterable[Manifest]) -> list[Manifest]:
    return sorted(account_dir, key=lambda one: one.sequence, reverse=True)


def verified(account_dir: Iterable[Manifest]) -> list[Manifest]:
    return [one for one in newest_first(account_dir) if one.verdict == "verified"]


def day(one: Manifest) -> date:
    return one.when.astimezone(UTC).date()


def unlabelled(account_dir: Iterable[Manifest]) -> list[Manifest]:
    return [one for one in verified(account_dir) if one.label is None]
