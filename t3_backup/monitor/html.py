"""Make the report, one page of HTML: values in, text out.

The page needs nothing but itself: no script, no font, no image of elsewhere, and its policy forbids
them. Every text is escaped by the template engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import t3_backup
from t3_backup.errors import Failure
from t3_backup.monitor import chart, health
from t3_backup.monitor.attempts import Attempt
from t3_backup.monitor.chart import Chart
from t3_backup.monitor.health import Freshness
from t3_backup.output.messages import missing_texts
from t3_backup.store.manifest import Manifest
from t3_backup.t3 import databases
from t3_backup.text import format_age, format_size

_TEMPLATES = Path(__file__).parent / "templates"
_FEW = 12  # rows of a table that is shown at once


@dataclass(frozen=True)
class AccountHistory:
    """What the store has of one account."""

    user: str
    snapshots: Sequence[Manifest]  # newest first
    notes: Sequence[str] = ()  # what somebody should know besides
    attempts: Sequence[Attempt] = ()  # the oldest first


@dataclass(frozen=True)
class Section:
    """What is shown of one account."""

    user: str
    state: str  # good, late (suspect ones wait, the last good is old or of the future) or bad
    says: str
    snapshots: Sequence[Manifest]  # newest first
    bytes: int  # of all of them
    notes: tuple[str, ...]
    chart: Chart | None  # none where there is no snapshot
    shown: bool  # the table, without asking for it


@dataclass(frozen=True)
class Page:
    """What is shown of all accounts."""

    place: str
    made: str
    version: str
    sections: tuple[Section, ...]
    count: int
    size: str
    free: str

    @property
    def wanting(self) -> tuple[Section, ...]:
        """The accounts that want a look."""
        return tuple(section for section in self.sections if section.state != "good")


def build_page(accounts: Sequence[AccountHistory], place: str, free: int, now: datetime) -> Page:
    """Build the page of a store at `place` that has `free` bytes left."""
    snapshots = [snapshot for account in accounts for snapshot in account.snapshots]
    return Page(
        place=place,
        made=f"{now:%Y-%m-%d %H:%M} UTC",
        version=t3_backup.__version__,
        sections=tuple(_section(account, now) for account in accounts),
        count=len(snapshots),
        size=format_size(sum(snapshot.total_bytes for snapshot in snapshots)),
        free=format_size(free),
    )


def _judge(account: AccountHistory, fresh: Freshness, now: datetime) -> tuple[str, str]:
    """Judge how an account is, and in what words: good, late or bad."""
    if fresh.uncovered:
        return "bad", databases.summary(fresh.uncovered)
    if not account.snapshots:
        return "bad", "no snapshots"
    if missing := account.snapshots[0].missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        shown = databases.shown_name(missing[0].file)
        return "bad", f"{shown}{more}: not in the newest snapshot"
    doubt = health.explain_doubt(account.snapshots)
    if not fresh.good and doubt and not fresh.ahead:
        return "bad", "none is verified; the newest is unproven"
    if not fresh.good:
        future = "the verified ones are dated in the future"
        return "bad", future if fresh.ahead else "none is verified"
    waiting = {snapshot.verdict for snapshot in account.snapshots if snapshot.holds}
    if "damaged" in waiting:
        return "bad", "damaged, waits for accept"
    if waiting:
        return "late", "suspect, waits for accept"
    told = f"verified {_ago(fresh.good[0].when, now)}"
    if fresh.confirmed:
        told += f", unchanged {_ago(fresh.confirmed, now)}"
    if fresh.is_old(now):
        return "late", f"last {told}"
    if doubt:
        return "late", f"{told}; the newest is unproven"
    return ("late", f"{told}; one is dated in the future") if fresh.ahead else ("good", told)


def _ago(when: datetime, now: datetime) -> str:
    return f"{format_age((now - when).total_seconds())} ago"


def _section(account: AccountHistory, now: datetime) -> Section:
    fresh = health.judge_freshness(account.snapshots, account.attempts, now)
    state, says = _judge(account, fresh, now)
    snapshots = account.snapshots
    waiting = [snapshot for snapshot in snapshots if snapshot.holds]
    notes = [f"{one.name} is {one.verdict}: {'; '.join(one.reasons)}" for one in waiting]
    if waiting:
        until = f"t3-backup-state accept {account.user}"
        notes.append(f"Nothing of {account.user} is pruned until: {until}")
    if doubt := health.explain_doubt(snapshots):
        notes.append(doubt)
    if snapshots:
        notes = [*missing_texts(snapshots[0]), *notes]
    if fresh.uncovered:
        notes.insert(0, databases.explain(fresh.uncovered))
    return Section(
        user=account.user,
        state=state,
        says=says,
        snapshots=snapshots,
        bytes=sum(snapshot.total_bytes for snapshot in snapshots),
        notes=(*notes, *account.notes),
        chart=chart.draw(snapshots[::-1], now) if snapshots else None,
        shown=len(snapshots) <= _FEW,
    )


def seconds(count: float) -> str:
    """Write a duration as people read it: 0.8 s, 12 min."""
    return f"{count:.1f} s" if count < 120 else f"{count / 60:.0f} min"


def render_page(view: Page) -> str:
    """Write the page's text. Raises Failure where the template engine is not installed."""
    jinja2 = template_engine()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"size": format_size, "seconds": seconds}
    text: str = environment.get_template("report.html").render(page=view)
    return text


def template_engine() -> Any:
    """Import the template engine. Raises Failure where it is not installed."""
    try:
        import jinja2
    except ImportError:
        raise Failure(
            "the report needs the template engine jinja2: apt install python3-jinja2"
        ) from None
    return jinja2
