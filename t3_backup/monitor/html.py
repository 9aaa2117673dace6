"""Make the report, one page of HTML: values in, text out.

The page needs nothing but itself: no script, no font, no image of elsewhere, and its policy forbids
them. Every text is escaped by the template engine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import t3_backup
from t3_backup.errors import Failure
from t3_backup.monitor import chart
from t3_backup.monitor.chart import Chart
from t3_backup.monitor.health import CRITICAL, OK, STATES, WARNING, Freshness, Health
from t3_backup.output.messages import missing_texts
from t3_backup.store.manifest import Manifest
from t3_backup.text import format_age, format_size

_TEMPLATES = Path(__file__).parent / "templates"
_FEW = 12  # rows of a table that is shown at once
_BRIEF = re.compile(r"; |: | \(")  # ends the first words of what is not well
_LOOKS = {OK: "good", WARNING: "late", CRITICAL: "bad"}


@dataclass(frozen=True)
class AccountHistory:
    """What is known of one account, as the status judges it."""

    health: Health
    notes: Sequence[str] = ()  # what somebody should know besides


@dataclass(frozen=True)
class Section:
    """What is shown of one account."""

    user: str
    state: str  # good, late (a warning) or bad (critical)
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
    warnings: tuple[str, ...]  # of no account: the map, the list of attempts
    sections: tuple[Section, ...]
    count: int
    size: str
    free: str

    @property
    def wanting(self) -> tuple[Section, ...]:
        """The accounts that want a look."""
        return tuple(section for section in self.sections if section.state != "good")


def build_page(
    accounts: Sequence[AccountHistory],
    place: str,
    free: int,
    now: datetime,
    warnings: Sequence[str] = (),
) -> Page:
    """Build the page of a store at `place` that has `free` bytes left."""
    snapshots = [snapshot for account in accounts for snapshot in account.health.view.snapshots]
    return Page(
        place=place,
        made=f"{now:%Y-%m-%d %H:%M} UTC",
        version=t3_backup.__version__,
        warnings=tuple(warnings),
        sections=tuple(_section(account, now) for account in accounts),
        count=len(snapshots),
        size=format_size(sum(snapshot.total_bytes for snapshot in snapshots)),
        free=format_size(free),
    )


def _summary(health: Health, now: datetime) -> str:
    """Say how an account is, in few words."""
    if health.troubles:
        worst = max(health.troubles, key=lambda trouble: STATES.index(trouble.state))
        return _BRIEF.split(worst.text, maxsplit=1)[0].strip()
    return health.note or _verified(health.fresh, now)


def _verified(fresh: Freshness, now: datetime) -> str:
    told = f"verified {_ago(fresh.good[0].when, now)}"
    if fresh.confirmed:
        told += f", unchanged {_ago(fresh.confirmed, now)}"
    return told


def _ago(when: datetime, now: datetime) -> str:
    return f"{format_age((now - when).total_seconds())} ago"


def _section(account: AccountHistory, now: datetime) -> Section:
    health, snapshots = account.health, account.health.view.snapshots
    ordered = sorted(health.troubles, key=lambda trouble: -STATES.index(trouble.state))
    return Section(
        user=health.view.user,
        state=_LOOKS[health.state],
        says=_summary(health, now),
        snapshots=snapshots,
        bytes=sum(snapshot.total_bytes for snapshot in snapshots),
        notes=(
            *(trouble.text for trouble in ordered),
            *(missing_texts(snapshots[0]) if snapshots else ()),  # with what to do
            *account.notes,
        ),
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
