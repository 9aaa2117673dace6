"""Write the table and the targets of a benchmark. Pure: samples in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench import methods, tables
from bench.measure import Cost
from bench.tables import Target, spread
from demo.server import Window

_MIB = 1 << 20


@dataclass(frozen=True)
class Sample:
    """One way, once. `window` is what the writer saw while it ran and half a second after; None
    without a writer."""

    cost: Cost
    window: Window | None
    moments: int | None  # how many moments the copy shows, 0: unreadable; None: not looked at
    source_bytes: int


Samples = Mapping[str, Sequence[Sample]]


def _walls(samples: Samples, title: str) -> list[float]:
    return [sample.cost.wall_s for sample in samples.get(title, ())]


def _windows(samples: Samples, title: str) -> list[Window]:
    return [sample.window for sample in samples.get(title, ()) if sample.window is not None]


_NOTES = (
    "Medians over the rounds, in brackets the least and the most; the memory is the most. The "
    "cache is warm. CPU, bytes and memory are those of the whole process tree, wall time of the "
    "whole process with its start. The writer is a process of its own (WAL, synchronous FULL, "
    "busy_timeout 0, a commit every 2 ms); its figures are of the time that a row took and half a "
    "second after it. A copy shows one moment if every counter in it agrees. Before each turn as "
    "much page cache as a copy takes is filled and given back: in a virtual machine memory that "
    "was not touched lately is slow, whoever writes to it (`--no-touch` leaves that out)."
)
HEADINGS = (
    "method", "n", "wall s", "CPU s", "written MB", "peak anon MiB",
    "p50 ms", "p99 ms", "p99.9 ms", "longest stall ms", "busy errors", "one moment",
)  # fmt: skip


def rows(samples: Samples) -> list[tuple[str, ...]]:
    """Write the cells of the table, a row a way."""
    table: list[tuple[str, ...]] = []
    for title, found in samples.items():
        costs, windows = [sample.cost for sample in found], _windows(samples, title)
        idle = title == methods.IDLE
        unfinished = sum(not cost.finished for cost in costs)
        wall = spread([cost.wall_s for cost in costs])
        if unfinished:
            wall = f"no result after {methods.BACKUP_LIMIT_S:.0f} s ({unfinished}x)"
        looked = [sample.moments for sample in found if sample.moments is not None]
        table.append((
            title,
            str(len(found)),
            "-" if idle else wall,
            "-" if idle else spread([cost.cpu_s for cost in costs]),
            "-" if idle else f"{median(cost.written_bytes for cost in costs) / 1e6:.0f}",
            "-" if idle else f"{max(cost.peak_anon_bytes for cost in costs) / _MIB:.0f}",
            spread([window.p50 for window in windows]),
            spread([window.p99 for window in windows], 1),
            spread([window.p999 for window in windows], 1),
            spread([window.longest for window in windows], 0),
            str(sum(window.errors for window in windows)) if windows else "-",
            _verdict(looked),
        ))  # fmt: skip
    return table


def _verdict(moments: Sequence[int]) -> str:
    if not moments:
        return "-"
    return "unreadable" if 0 in moments else "yes" if set(moments) == {1} else "NO"


def _ratio(samples: Samples, above: str, below: str) -> float | None:
    one, other = _walls(samples, above), _walls(samples, below)
    return median(one) / median(other) if one and other else None


def targets(samples: Samples) -> list[Target]:
    """What this project promises of its copy and its run, against what was measured. Leaves out
    what was not."""
    found = []
    for above, below, limit, claim in (
        (methods.OURS, methods.LIMIT_IDLE, 1.3, "our copy / limit of an idle machine <= 1.3"),
        (methods.OURS, methods.VACUUM_SYNC, 1 / 3, "our copy / VACUUM INTO with fsync <= 1/3"),
        (methods.RUN, methods.HAND_MADE, 0.8, "whole run / the same by hand <= 0.8"),
        (methods.RUN, methods.VACUUM, 2.0, "whole run / VACUUM INTO alone < 2"),
    ):
        ratio = _ratio(samples, above, below)
        if ratio is not None:
            kept = ratio <= limit if "<=" in claim else ratio < limit
            found.append(Target(claim, f"{ratio:.3f}", kept))
    idle, vacuum = (_windows(samples, title) for title in (methods.IDLE, methods.VACUUM_SYNC))
    for title, name in ((methods.OURS, "our copy"), (methods.RUN, "the whole run")):
        stalls = [window.longest for window in _windows(samples, title)]
        if not stalls or not idle or not vacuum:
            continue
        allowed = max(2 * median(window.longest for window in idle), 50.0)
        theirs = median(window.longest for window in vacuum)
        shown = f"median {median(stalls):.0f} ms, worst {max(stalls):.0f} ms"
        claim = f"longest stall during {name} <= max(2 x idle, 50 ms) = {allowed:.0f} ms"
        found.append(Target(claim, shown, median(stalls) <= allowed))
        claim = f"longest stall during {name} < that of VACUUM INTO with fsync = {theirs:.0f} ms"
        found.append(Target(claim, shown, median(stalls) < theirs))
        errors = sum(window.errors for window in _windows(samples, title))
        found.append(Target(f"busy errors during {name} = 0", str(errors), errors == 0))
    if samples.get(methods.RUN):
        peak = max(sample.cost.peak_anon_bytes for sample in samples[methods.RUN]) / _MIB
        claim = "anonymous memory of the whole run's tree < 100 MiB"
        found.append(Target(claim, f"{peak:.0f} MiB", peak < 100))
    return found


def stalls(samples: Samples) -> str:
    """Write the longest stalls side by side, in one line."""
    parts = []
    for title in (methods.IDLE, methods.OURS, methods.RUN, methods.VACUUM_SYNC):
        longest = [window.longest for window in _windows(samples, title)]
        if longest:
            parts.append(f"{title}: median {median(longest):.0f}, worst {max(longest):.0f}")
    return "Longest stall in ms - " + "; ".join(parts)


def plain(machine: Mapping[str, str], samples: Samples, skipped: Mapping[str, str]) -> str:
    """Write it all for a terminal."""
    lines = [f"{name + ':':<14} {value}" for name, value in machine.items()]
    lines += ["", *tables.plain_table(HEADINGS, rows(samples))]
    lines += [f"not measured: {title} ({reason})" for title, reason in skipped.items()]
    return "\n".join([*lines, "", stalls(samples), "", *tables.plain_targets(targets(samples))])


def markdown(machine: Mapping[str, str], samples: Samples, skipped: Mapping[str, str]) -> str:
    """Write it all for the documentation."""
    head = "`make bench` measured this; all rows in one run, one after the other, over and over."
    lines = ["# Benchmarks", "", head, "", *tables.markdown_about(machine)]
    lines += ["", *tables.markdown_table(HEADINGS, rows(samples)), "", *tables.paragraph(_NOTES)]
    lines += ["", *(f"Not measured: {title} ({reason})." for title, reason in skipped.items())]
    lines += [stalls(samples) + ".", "", *tables.markdown_targets(targets(samples))]
    return "\n".join(lines) + "\n"
