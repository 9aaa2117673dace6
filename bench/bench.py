"""Compare ways to copy a live T3 database, in one table, from one run.

Every round starts from the same database and a fresh writer; within a round every way has its turn,
so that a disturbance of the machine meets them all alike. Results are deleted, and written-back
data has settled, before the next turn begins.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from bench import keeping, live, methods, report, restores, start, storage, storage_report
from bench.live import ROOT, VERSION, Bench, say
from bench.report import Sample
from demo.grow import parse_size
from demo.users import missing, signals_as_exit, throwaway_user

_SWEEP = (100_000_000, 1_200_000_000, 4_000_000_000)
_DAYS, _YEAR_DAYS = 14, 365


def compare(bench: Bench, size: int, rounds: int, skipped: Mapping[str, str]) -> None:
    """Measure all ways, `rounds` times."""
    for number in range(rounds):
        with bench.live(size) as writer:
            bench.idle(writer)
            for method in methods.METHODS:
                enough = method.rounds is not None and number >= method.rounds
                if method.title in skipped or enough:
                    continue
                sample = bench.turn(method, writer)
                said = f"{method.title}: {sample.cost.wall_s:.2f} s"
                if sample.window is not None:
                    said += f", longest stall {sample.window.longest:.0f} ms"
                say(f"round {number + 1}/{rounds}  {said}")


def sweep(bench: Bench) -> list[tuple[int, Sample]]:
    """Measure the whole run at growing sizes: is its memory flat?"""
    whole = next(method for method in methods.METHODS if method.title == methods.RUN)
    found = []
    for size in _SWEEP:
        with bench.live(size) as writer:
            found.append((size, bench.turn(whole, writer)))
    return found


@contextmanager
def scene(bench: Bench, size: int) -> Iterator[restores.Scene]:
    """Make the place where restores and histories are measured."""
    user = bench.user
    assert user is not None
    folder = Path(tempfile.mkdtemp(prefix="scene-", dir=bench.work))

    def prepare(place: Path, most: int) -> None:
        live.settle()
        if bench.touch and most:
            live.touch_page_cache(place, most)

    try:
        with bench.log.open("ab") as output:
            fresh = live.grown(bench.work, size)
            yield restores.Scene(
                fresh, bench.source, user.name, user.give, folder, ROOT, output, prepare
            )
    finally:
        shutil.rmtree(folder)


def on_scene(bench: Bench, about: dict[str, str], given: argparse.Namespace) -> int:
    """Measure and report a restore or a history, each beside other ways to do it."""
    size, rounds = given.size, given.rounds
    about |= {"database": f"{size / 1e6:.0f} MB at first, T3 {VERSION}"}
    data: object
    with scene(bench, size) as place:
        if given.restore:
            seconds = restores.compare(place, rounds, say)
            about |= {"rounds": str(rounds)}
            data, text, page = seconds, restores.plain(seconds), restores.markdown(about, seconds)
        elif given.storage:
            ways = () if given.alone else keeping.WAYS
            found = storage.compare(place, ways, given.days or _DAYS, rounds, say)
            about |= {"restores": f"{rounds} of each, in turns"}
            data, text = asdict(found), storage_report.plain(found)
            page = storage_report.markdown(about, found)
        else:
            year = storage.year(place, given.days or _YEAR_DAYS, say)
            data, text = asdict(year), storage_report.plain_year(year)
            page = storage_report.markdown_year(about, year)
    about["load"] += f", {os.getloadavg()[0]:.1f} over the last one"
    if given.markdown is not None:
        given.markdown.write_text(page, encoding="utf-8")
    print(json.dumps({"machine": about, "found": data}, indent=1) if given.json else text)
    return 0


def starting(bench: Bench, about: dict[str, str], given: argparse.Namespace) -> int:
    """Measure small commands and runs beside those of an earlier revision, and report."""
    codes = (start.earlier_code(ROOT, bench.work, given.against), ROOT)
    with bench.log.open("ab") as output:
        grown = partial(live.grown, bench.work)
        found = start.compare(codes, bench.work, grown, given.rounds, output, say)
    about |= {"before": given.against, "rounds": str(given.rounds), "jobs": "1"}
    about["load"] += f", {os.getloadavg()[0]:.1f} over the last one"
    if given.markdown is not None:
        given.markdown.write_text(start.markdown(about, found), encoding="utf-8")
    document = json.dumps({"machine": about, "found": asdict(found)}, indent=1)
    print(document if given.json else start.plain(found))
    return 0


_FLAGS = {
    "--json": "every sample, as JSON, instead of the table",
    "--memory-sweep": "only the memory of the whole run, by size",
    "--restore": "a restore, instead of a backup",
    "--storage": "a history of days, beside other ways to keep it",
    "--year": "a history of a year, of ours alone",
    "--alone": "of a history: ours alone",
    "--start": "what starting costs, beside an earlier revision",
    "--no-touch": "leave free memory as it is before each turn",
}


def _arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    about = "Ways to copy a live T3 database, side by side."
    parser = argparse.ArgumentParser(prog="bench.bench", description=about)
    size = "of the database: 1200M, 1G of a history, 50M of a year of it"
    parser.add_argument("--size", type=parse_size, help=size)
    parser.add_argument("--rounds", type=int, help="5; 3 restores of a history")
    parser.add_argument("--days", type=int, help="14; 365 of a year")
    work = ROOT / "build" / "bench"
    parser.add_argument("--work", type=Path, default=work, help="where all data lies")
    parser.add_argument("--markdown", type=Path, help="write the table there as well")
    before = f"the earlier revision ({start.BEFORE})"
    parser.add_argument("--against", metavar="REV", default=start.BEFORE, help=before)
    for name, meaning in _FLAGS.items():
        parser.add_argument(name, action="store_true", help=meaning)
    given = parser.parse_args()
    size = "1G" if given.storage else "50M" if given.year else "1200M"
    given.size = given.size or parse_size(size)
    given.rounds = given.rounds or (3 if given.storage else 5)
    return parser, given


def main() -> int:
    """Measure and report; 0 even where a target is missed: a figure is no failure."""
    os.environ["T3_BACKUP_TEXTFILE_DIR"] = "none"
    os.environ["T3_BACKUP_LOG"] = "/dev/null"  # no run of these is one for the log of the machine
    parser, given = _arguments()
    work = given.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    skipped = methods.absent(ROOT)
    with ExitStack() as stack:
        stack.enter_context(signals_as_exit())
        user = None
        if missing() is None:
            folders = (work, *work.parents)
            closed = [folder for folder in folders if not folder.stat().st_mode & 0o001]
            if closed:
                why = "so a user cannot reach a home beneath it; see --work"
                parser.error(f"{closed[-1]} is closed to others, {why}")
            home = work / f"home-{os.getpid()}"
            stack.callback(shutil.rmtree, home, ignore_errors=True)
            user = stack.enter_context(throwaway_user(f"t3x-bench-{os.getpid()}", home))
        bench = Bench(work, user, work / "output.log", touch=not given.no_touch)
        if given.start:
            if user is None:
                parser.error(str(missing()))
            return starting(bench, live.machine(work), given)
        if given.memory_sweep:
            if methods.RUN in skipped:
                parser.error(skipped[methods.RUN])
            for size, sample in sweep(bench):
                peak = sample.cost.peak_anon_bytes / (1 << 20)
                said = f"peak anonymous memory {peak:5.1f} MiB, {sample.cost.wall_s:6.2f} s"
                print(f"{size / 1e6:6.0f} MB: {said}")
            return 0
        about = live.machine(work)
        if given.restore or given.storage or given.year:
            if methods.RUN in skipped:
                parser.error(skipped[methods.RUN])
            return on_scene(bench, about, given)
        compare(bench, given.size, given.rounds, skipped)
    about |= {"database": f"{given.size / 1e6:.0f} MB, T3 {VERSION}", "rounds": str(given.rounds)}
    touched = "touched before each turn, for all alike"
    about["memory for the copy"] = "as it was" if given.no_touch else touched
    if given.markdown is not None:
        given.markdown.write_text(report.markdown(about, bench.samples, skipped), encoding="utf-8")
    if given.json:
        every = {title: list(map(asdict, found)) for title, found in bench.samples.items()}
        checks = [asdict(one) for one in report.targets(bench.samples)]
        document = {"machine": about, "samples": every, "skipped": skipped, "targets": checks}
        print(json.dumps(document, indent=1))
    else:
        print(report.plain(about, bench.samples, skipped))
    return 0


if __name__ == "__main__":
    sys.exit(main())
