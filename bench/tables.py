"""Write figures, tables and targets for a terminal and the documentation. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from t3_backup.text import format_columns

Row = Sequence[str]


@dataclass(frozen=True)
class Target:
    """One promise and whether it was kept. `shown` is what was measured against it."""

    claim: str
    shown: str
    kept: bool


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Write the median, and behind it the least and the most."""
    if not values:
        return "-"
    middle = f"{median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def plain_table(head: Row, body: Sequence[Row], *, right: bool = False) -> list[str]:
    """Align a table for a terminal; `right`: all columns but the first to the right."""
    return format_columns([head, *body], range(1, len(head)) if right else ())


def plain_targets(targets: Sequence[Target]) -> list[str]:
    """Say of each target whether it was met."""
    return [f"{'PASS' if one.kept else 'MISS'}  {one.claim}: {one.shown}" for one in targets]


def markdown_table(head: Row, body: Sequence[Row]) -> list[str]:
    """Write a table whose first column is words and whose others are numbers."""
    ruler = "|---|" + "---:|" * (len(head) - 1)
    return [_markdown_row(head), ruler, *map(_markdown_row, body)]


def markdown_targets(targets: Sequence[Target]) -> list[str]:
    """Write the table of the targets."""
    rows = [(one.claim, one.shown, "pass" if one.kept else "MISS") for one in targets]
    return ["| target | measured | |", "|---|---|---|", *map(_markdown_row, rows)]


def markdown_about(about: Mapping[str, str]) -> list[str]:
    """List what the figures depend on."""
    return [f"- {name}: {value}" for name, value in about.items()]


def paragraph(text: str) -> list[str]:
    """Break a paragraph into lines."""
    return textwrap.wrap(text, 100, break_on_hyphens=False)


def _markdown_row(row: Row) -> str:
    return f"| {' | '.join(row)} |".replace("|  |", "| |")
