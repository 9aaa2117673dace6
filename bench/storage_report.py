"""What a history takes, as text: tables, and the targets. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from bench import tables
from bench.keeping import OURS
from bench.measure import Cost
from bench.storage import COLD, NEWEST, OLDEST, WARM, Compacted, Found, Year
from bench.tables import Target, spread

_MIB = 1 << 20
_TOTAL, _YEAR_TOTAL, _READ, _TIMES, _MEMORY_MIB, _FETCH = 1.06, 1.6, 0.05, 2.5, 100, 2.0

_NOTES = (
    "Medians, in brackets the least and the most; memory is the most. All ways were given the same "
    "file each day, a snapshot of ours, warm; the first day is not among the days. Ours is backup "
    "and compaction: it copies a live database and proves the copy, which no other way does. Every "
    "third compaction was cold; its proof reads from the disk anyway. Restores are cold, go to a "
    "new file, and are synced; ours proves what it restores before it writes it. restic encrypts, "
    "borg was told not to; both keep a cache beside the repository, which is not counted. RSS has "
    "in it what is mapped of the live database, once for each process that maps it."
)
HEADINGS = (
    "way", "disk MB", "x the newest", "a day s", "CPU s", "peak anon MiB", "peak RSS MiB",
    "oldest s", "newest s", "equal",
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
    "of ours", "wall s", "CPU s", "peak anon MiB", "sha256sum s", "times it", "openssl s",
    "times it",
)  # fmt: skip


def our_rows(found: Found) -> list[tuple[str, ...]]:
    """Backup and compaction apart."""

    def row(title: str, costs: Sequence[Cost], *more: str) -> tuple[str, ...]:
        walls, cpus = spread([one.wall_s for one in costs]), spread([one.cpu_s for one in costs])
        peak = max(cost.peak_anon_bytes for cost in costs) / _MIB
        return (title, walls, cpus, f"{peak:.0f}", *more)

    table = [row("backup: copied, proven, sealed", found.runs, *"----")]
    for state, done in found.compactions.items():
        cells: list[str] = []
        for seconds in ([one.sha256sum_s for one in done], [one.openssl_s for one in done]):
            cells += [spread(seconds), spread(_times(done, seconds))]
        table.append(row(f"compaction, {state}", [one.cost for one in done], *cells))
    return table


def _times(done: Sequence[Compacted], seconds: Sequence[float]) -> list[float]:
    return [one.cost.wall_s / other for one, other in zip(done, seconds, strict=True)]


def targets(found: Found) -> list[Target]:
    """Compare what this project promises of a history with what was measured."""
    days = len(found.runs)
    total = found.kept_bytes[OURS] / found.newest_bytes
    claim = f"{days} days of 1 % a day / the newest <= {_TOTAL}"
    kept = [Target(claim, f"{total:.3f}", total <= _TOTAL)]
    if reads := found.reads:
        sizes = (reads.hashes, reads.packing, reads.proof)
        hashes, packing, proof = (size / reads.images for size in sizes)
        share = hashes + packing
        claim = f"read to find and pack what differs / the two images <= {_READ:.0%}"
        shown = f"{share:.2%}, of it page hashes {hashes:.2%} (and to prove it {proof:.0%})"
        kept.append(Target(claim, shown, share <= _READ))
    for state in (WARM, COLD):
        if done := found.compactions.get(state):
            times = median(_times(done, [one.sha256sum_s for one in done]))
            claim = f"compaction / sha256sum of the newest, {state} <= {_TIMES}"
            kept.append(Target(claim, f"{times:.2f}", times <= _TIMES))
    if found.compactions:
        costs = [one.cost for done in found.compactions.values() for one in done]
        peak = max(cost.peak_anon_bytes for cost in costs) / _MIB
        claim = f"anonymous memory of compaction < {_MEMORY_MIB} MiB"
        kept.append(Target(claim, f"{peak:.0f} MiB", peak < _MEMORY_MIB))
    oldest, newest = (median(found.fetched[OURS][which]) for which in (OLDEST, NEWEST))
    claim = f"restoring the oldest of {days} / the newest <= {_FETCH:.0f}"
    kept.append(Target(claim, f"{oldest / newest:.2f}", oldest / newest <= _FETCH))
    return [*kept, _equal(found.unequal)]


def year_targets(found: Year) -> list[Target]:
    """Compare what is promised of a year with what was measured."""
    total = found.kept_bytes / found.newest_bytes
    claim = f"{found.days} days of 1 % of the first one's rows / the newest <= {_YEAR_TOTAL}"
    return [Target(claim, f"{total:.3f}", total <= _YEAR_TOTAL), _equal(found.unequal)]


def _equal(unequal: Sequence[str]) -> Target:
    shown = "; ".join(unequal) or "yes, each"
    return Target("what is restored is what was given", shown, not unequal)


def _year_lines(found: Year) -> list[str]:
    sizes = (found.first_bytes, found.newest_bytes, found.kept_bytes)
    first, newest, kept = (f"{size / 1e6:.1f}" for size in sizes)
    oldest_s, newest_s = (f"{found.fetched[which]:.2f} s" for which in (OLDEST, NEWEST))
    image = f"The image grew from {first} to {newest} MB"
    day = f"A day took {spread(found.day_s)} s"
    return [
        f"{image}; {found.days} days of it are in {kept} MB.",
        f"{day}; a restore {oldest_s} of the oldest, {newest_s} of the newest.",
    ]


def plain(found: Found) -> str:
    """Write it for a terminal."""
    lines = [*tables.plain_table(HEADINGS, rows(found)), ""]
    lines += [*tables.plain_table(OUR_HEADINGS, our_rows(found)), ""]
    return "\n".join([*lines, *tables.plain_targets(targets(found))])


def plain_year(found: Year) -> str:
    """Write it for a terminal."""
    return "\n".join([*_year_lines(found), *tables.plain_targets(year_targets(found))])


def markdown(about: Mapping[str, str], found: Found) -> str:
    """Write it for the documentation: a section of the page."""
    lines = ["## A history", "", "`make bench BENCH=--storage` measured this.", ""]
    lines += [*tables.markdown_about(about), "", *tables.markdown_table(HEADINGS, rows(found)), ""]
    lines += [*tables.markdown_table(OUR_HEADINGS, our_rows(found)), "", *tables.paragraph(_NOTES)]
    return "\n".join([*lines, "", *tables.markdown_targets(targets(found))]) + "\n"


def markdown_year(about: Mapping[str, str], found: Year) -> str:
    """Write it for the documentation: a section of the page."""
    lines = ["## A year of it", "", "`make bench BENCH=--year` measured this.", ""]
    lines += [*tables.markdown_about(about), "", *_year_lines(found), ""]
    return "\n".join([*lines, *tables.markdown_targets(year_targets(found))]) + "\n"
