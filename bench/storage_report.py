"""What a history takes, as text: tables, and the targets. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from bench.keeping import OURS
from bench.measure import Cost
from bench.report import Target, spread
from bench.storage import COLD, NEWEST, OLDEST, WARM, Compacted, Found, Year

_MIB = 1 << 20
_TOTAL, _YEAR_TOTAL, _READ, _TIMES, _MEMORY_MIB, _FETCH = 1.06, 1.6, 0.05, 2.5, 100, 2.0

HEADINGS = (
    "way", "disk MB", "x the newest", "a day s", "CPU s", "peak anon MiB", "peak RSS MiB", "oldest s", "newest s", "equal",
)  # fmt: skip


def rows(found: Found) -> list[tuple[str, ...]]:
    """A row a way. The first day, on which all is new to everybody, is not among the days."""
    table: list[tuple[str, ...]] = []
    for title, costs in found.days.items():
        later = costs[1:]
        table.append((
            title,
            f"{found.kept_bytes[title] / 1e6:.0f}",
            f"{found.kept_bytes[title] / found.newest_bytes:.3f}",
            spread([cost.wall_s for cost in later], 1),
            spread([cost.cpu_s for cost in later], 1),
            f"{max(cost.peak_anon_bytes for cost in costs) / _MIB:.0f}",
            f"{max(cost.peak_rss_bytes for cost in costs) / _MIB:.0f}",
            spread(found.fetched[title][OLDEST], 1),
            spread(found.fetched[title][NEWEST], 1),
            "NO" if any(one.startswith(f"{title}: ") for one in found.unequal) else "yes",
        ))  # fmt: skip
    return table


OUR_HEADINGS = (
    "of ours",
    "wall s",
    "CPU s",
    "peak anon MiB",
    "sha256sum s",
    "times it",
    "openssl s",
    "times it",
)


def our_rows(found: Found) -> list[tuple[str, ...]]:
    """Backup and compaction apart."""

    def row(title: str, costs: Sequence[Cost], *more: str) -> tuple[str, ...]:
        walls, cpus = (
            spread([getattr(cost, name) for cost in costs]) for name in ("wall_s", "cpu_s")
        )
        return (
            title,
            walls,
            cpus,
            f"{max(cost.peak_anon_bytes for cost in costs) / _MIB:.0f}",
            *more,
        )

    table = [row("backup: copied, proven, sealed", found.runs, *"----")]
    for state, done in found.compactions.items():
        hashed = ([one.sha256sum_s for one in done], [one.openssl_s for one in done])
        cells = [
            cell for seconds in hashed for cell in (spread(seconds), spread(_times(done, seconds)))
        ]
        table.append(row(f"compaction, {state}", [one.cost for one in done], *cells))
    return table


def _times(done: Sequence[Compacted], seconds: Sequence[float]) -> list[float]:
    return [one.cost.wall_s / other for one, other in zip(done, seconds, strict=True)]


def targets(found: Found) -> list[Target]:
    """What this project promises of a history, against what was measured."""
    days = len(found.runs)
    total = found.kept_bytes[OURS] / found.newest_bytes
    kept = [
        Target(
            f"{days} days of 1 % a day / the newest <= {_TOTAL}", f"{total:.3f}", total <= _TOTAL
        )
    ]
    if found.reads is not None:
        reads = found.reads
        hashes, packing, proof = (
            size / reads.images for size in (reads.hashes, reads.packing, reads.proof)
        )
        share = hashes + packing
        claim = f"read to find and pack what differs / the two images <= {_READ:.0%}"
        kept.append(
            Target(
                claim,
                f"{share:.2%}, of it page hashes {hashes:.2%} (and to prove it {proof:.0%})",
                share <= _READ,
            )
        )
    for state in (WARM, COLD):
        if done := found.compactions.get(state):
            times = median(_times(done, [one.sha256sum_s for one in done]))
            kept.append(
                Target(
                    f"compaction / sha256sum of the newest, {state} <= {_TIMES}",
                    f"{times:.2f}",
                    times <= _TIMES,
                )
            )
    if found.compactions:
        peak = (
            max(one.cost.peak_anon_bytes for done in found.compactions.values() for one in done)
            / _MIB
        )
        kept.append(
            Target(
                f"anonymous memory of compaction < {_MEMORY_MIB} MiB",
                f"{peak:.0f} MiB",
                peak < _MEMORY_MIB,
            )
        )
    oldest, newest = (median(found.fetched[OURS][which]) for which in (OLDEST, NEWEST))
    claim = f"restoring the oldest of {days} / the newest <= {_FETCH:.0f}"
    kept.append(Target(claim, f"{oldest / newest:.2f}", oldest / newest <= _FETCH))
    kept.append(
        Target(
            "what is restored is what was given",
            "; ".join(found.unequal) or "yes, each",
            not found.unequal,
        )
    )
    return kept


def year_targets(found: Year) -> list[Target]:
    """Of a year."""
    total = found.kept_bytes / found.newest_bytes
    claim = f"{found.days} days of 1 % of the first one's rows / the newest <= {_YEAR_TOTAL}"
    return [
        Target(claim, f"{total:.3f}", total <= _YEAR_TOTAL),
        Target(
            "what is restored is what was given",
            "; ".join(found.unequal) or "yes, each",
            not found.unequal,
        ),
    ]


def _year_lines(found: Year) -> list[str]:
    first, newest, kept = (
        size / 1e6 for size in (found.first_bytes, found.newest_bytes, found.kept_bytes)
    )
    oldest_s, newest_s = (found.fetched[which] for which in (OLDEST, NEWEST))
    return [
        f"The image grew from {first:.1f} to {newest:.1f} MB; {found.days} days of it are in {kept:.1f} MB.",
        f"A day took {spread(found.day_s)} s; a restore {oldest_s:.2f} s of the oldest, {newest_s:.2f} s of the newest.",
    ]


def plain(found: Found) -> str:
    """For a terminal."""
    lines = []
    for table in ([HEADINGS, *rows(found)], [OUR_HEADINGS, *our_rows(found)]):
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        lines.append("")
    return "\n".join([*lines, *_plain(targets(found))])


def plain_year(found: Year) -> str:
    """For a terminal."""
    return "\n".join([*_year_lines(found), *_plain(year_targets(found))])


def _plain(checks: Sequence[Target]) -> list[str]:
    return [f"{'PASS' if one.kept else 'MISS'}  {one.claim}: {one.shown}" for one in checks]


def markdown(about: Mapping[str, str], found: Found) -> str:
    """For the documentation: a section of the page."""
    lines = ["## A history", "", "`make bench BENCH=--storage` measured this.", "", *_about(about)]
    lines += ["", *_table(HEADINGS, rows(found)), "", *_table(OUR_HEADINGS, our_rows(found))]
    lines += [
        "",
        "Medians, in brackets the least and the most; memory is the most. All ways were given the same file each day, a snapshot",
        "of ours, warm; the first day is not among the days. Ours is backup and compaction: it copies a live database and proves",
        "the copy, which no other way does. Every third compaction was cold; its proof reads from the disk anyway. Restores are",
        "cold, go to a new file, and are synced; ours proves what it restores before it writes it. restic encrypts, borg was told",
        "not to; both keep a cache beside the repository, which is not counted. RSS has in it what is mapped of the live database,",
        "once for each process that maps it.",
        "",
        *_checks(targets(found)),
    ]
    return "\n".join(lines) + "\n"


def markdown_year(about: Mapping[str, str], found: Year) -> str:
    """For the documentation: a section of the page."""
    lines = [
        "## A year of it",
        "",
        "`make bench BENCH=--year` measured this.",
        "",
        *_about(about),
        "",
    ]
    return "\n".join([*lines, *_year_lines(found), "", *_checks(year_targets(found))]) + "\n"


def _about(about: Mapping[str, str]) -> list[str]:
    return [f"- {name}: {value}" for name, value in about.items()]


def _table(headings: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(headings) + " |",
        "|---|" + "---:|" * (len(headings) - 1),
        *("| " + " | ".join(row) + " |" for row in body),
    ]


def _checks(checks: Sequence[Target]) -> list[str]:
    table = [f"| {one.claim} | {one.shown} | {'pass' if one.kept else 'MISS'} |" for one in checks]
    return ["| target | measured | |", "|---|---|---|", *table]
