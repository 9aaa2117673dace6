"""`make bench`: ways to copy a live T3 database side by side, in one table, from one run.

Every round starts from the same database and a fresh writer; within a round every way has its turn,
so that a disturbance of the machine meets them all alike. Results are deleted, and written-back
data has settled, before the next turn begins.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench import keeping, measure, methods, report, restores, start, storage, storage_report
from bench.methods import Method, Place
from bench.report import Sample
from demo.grow import grow, parse_size
from demo.users import User, missing, signals_as_exit, throwaway_user
from demo.writer import Writer

ROOT = Path(__file__).resolve().parent.parent
_IDLE_S = 3.0
# what a copy leaves to be done (a checkpoint of a WAL grown meanwhile) stalls the writer just after
# it
_TAIL_S = 0.5
_SETTLE_S = 0.5
_SWEEP = (100_000_000, 1_200_000_000, 4_000_000_000)
_DAYS, _YEAR_DAYS = 14, 365
_VERSION = "0.0.24"


class Bench:
    """A working folder, a user if one can be made, and the samples so far."""

    def __init__(self, work: Path, user: User | None, log: Path, *, touch: bool = True) -> None:
        self.work, self.user, self.log, self.touch = work, user, log, touch
        self.samples: dict[str, list[Sample]] = {}
        home = work / "home" if user is None else user.home
        self.source = home / ".t3" / "userdata" / "state.sqlite"
        self.source.parent.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def live(self, size: int) -> Iterator[Writer]:
        """A fresh source of `size` bytes in a warm cache, and its writer."""
        for name in ("", "-wal", "-shm"):
            self.source.with_name(self.source.name + name).unlink(missing_ok=True)
        shutil.copyfile(grown(self.work, size), self.source)
        if self.user is not None:
            self.user.give(self.source)
        os.sync()
        _read(self.source)
        with Writer(self.source, user=None if self.user is None else self.user.name) as writer:
            yield writer

    def idle(self, writer: Writer) -> None:
        """The writer alone."""
        writer.mark(methods.IDLE)
        time.sleep(_IDLE_S)
        window = writer.mark("")
        none = measure.Cost(0.0, 0.0, 0, 0, finished=True)
        self.samples.setdefault(methods.IDLE, []).append(
            Sample(none, window, None, self.source.stat().st_size)
        )

    def turn(self, method: Method, writer: Writer) -> Sample:
        """One way, once, from a settled machine to a settled machine."""
        folder = Path(tempfile.mkdtemp(prefix="turn-", dir=self.work))
        unnamed = methods.unnamed_file(folder)
        try:
            user = None if self.user is None else self.user.name
            place = Place(self.source, folder, user, unnamed)
            commands = method.commands(place)
            writer.pause()
            _settle()
            size = self.source.stat().st_size
            if self.touch:
                _touch_page_cache(folder, size)
            if method.live:
                writer.resume()
            writer.mark(method.title)
            cost = measure.Cost(0.0, 0.0, 0, 0, finished=True)
            with self.log.open("ab") as output:
                for command in commands:
                    fds = (unnamed,) if str(unnamed) in command else ()
                    cost = cost.then(
                        measure.run(
                            command, cwd=ROOT, output=output, limit_s=method.limit_s, pass_fds=fds
                        )
                    )
            if method.live:
                time.sleep(_TAIL_S)
            window = writer.mark("")
            writer.pause()
            product = method.product(place) if cost.finished else None
            shown = None if product is None else methods.moments(product)
            sample = Sample(cost, window if method.live else None, shown, size)
        finally:
            os.close(unnamed)
            shutil.rmtree(folder)
        _settle()
        writer.resume()
        self.samples.setdefault(method.title, []).append(sample)
        return sample


def grown(work: Path, size: int) -> Path:
    """The database that every round starts from; kept for the next time."""
    path = work / f"grown-{_VERSION}-{size}.sqlite"
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        _say(f"growing a database of {size / 1e6:.0f} MB")
        grow(partial, size, _VERSION)
        partial.rename(path)
    return path


def machine(work: Path) -> dict[str, str]:
    """What the figures depend on."""
    cpu = [
        line.split(":", 1)[1].strip()
        for line in _lines("/proc/cpuinfo")
        if line.startswith("model name")
    ]
    memory = next(
        int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")
    )
    mounts = [line.split()[1:4] for line in _lines("/proc/mounts")]
    inside = [mount for mount in mounts if work.is_relative_to(mount[0])]
    system = max(inside, key=lambda mount: len(mount[0]))
    sqlite = subprocess.run(
        [methods.SQLITE, "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{cpu[0] if cpu else platform.machine()}, {os.cpu_count()} cores, {memory / (1 << 20):.0f} GiB",
        "load": f"{os.getloadavg()[0]:.1f} over the last minute before",
        "kernel": platform.release(),
        "file system": f"{system[1]} ({system[2]})",
        "SQLite": f"{sqlite} (command line), {sqlite3.sqlite_version} (library)",
    }


def compare(bench: Bench, size: int, rounds: int, skipped: Mapping[str, str]) -> None:
    """All ways, `rounds` times."""
    for number in range(rounds):
        with bench.live(size) as writer:
            bench.idle(writer)
            for method in methods.METHODS:
                if method.title in skipped or (
                    method.rounds is not None and number >= method.rounds
                ):
                    continue
                sample = bench.turn(method, writer)
                stall = (
                    ""
                    if sample.window is None
                    else f", longest stall {sample.window.longest:.0f} ms"
                )
                _say(
                    f"round {number + 1}/{rounds}  {method.title}: {sample.cost.wall_s:.2f} s{stall}"
                )


def sweep(bench: Bench) -> list[tuple[int, Sample]]:
    """The whole run at growing sizes: is its memory flat?"""
    whole = next(method for method in methods.METHODS if method.title == methods.RUN)
    found = []
    for size in _SWEEP:
        with bench.live(size) as writer:
            found.append((size, bench.turn(whole, writer)))
    return found


@contextmanager
def scene(bench: Bench, size: int) -> Iterator[restores.Scene]:
    """Where restores and histories are measured."""
    user = bench.user
    assert user is not None
    folder = Path(tempfile.mkdtemp(prefix="scene-", dir=bench.work))

    def prepare(place: Path, most: int) -> None:
        _settle()
        if bench.touch and most:
            _touch_page_cache(place, most)

    try:
        with bench.log.open("ab") as output:
            yield restores.Scene(
                grown(bench.work, size),
                bench.source,
                user.name,
                user.give,
                folder,
                ROOT,
                output,
                prepare,
            )
    finally:
        shutil.rmtree(folder)


def on_scene(bench: Bench, about: dict[str, str], given: argparse.Namespace) -> int:
    """Measure a restore beside a plain copy and the ways of a hand, or a history beside other ways
    to keep it, and report."""
    size, rounds = given.size, given.rounds
    about |= {"database": f"{size / 1e6:.0f} MB at first, T3 {_VERSION}"}
    data: object
    with scene(bench, size) as place:
        if given.restore:
            seconds = restores.compare(place, rounds, _say)
            about |= {"rounds": str(rounds)}
            data, text, page = seconds, restores.plain(seconds), restores.markdown(about, seconds)
        elif given.storage:
            found = storage.compare(
                place, () if given.alone else keeping.WAYS, given.days or _DAYS, rounds, _say
            )
            about |= {"restores": f"{rounds} of each, in turns"}
            data, text, page = (
                asdict(found),
                storage_report.plain(found),
                storage_report.markdown(about, found),
            )
        else:
            year = storage.year(place, given.days or _YEAR_DAYS, _say)
            data, text, page = (
                asdict(year),
                storage_report.plain_year(year),
                storage_report.markdown_year(about, year),
            )
    about["load"] += f", {os.getloadavg()[0]:.1f} over the last one"
    if given.markdown is not None:
        given.markdown.write_text(page, encoding="utf-8")
    print(json.dumps({"machine": about, "found": data}, indent=1) if given.json else text)
    return 0


def starting(bench: Bench, about: dict[str, str], given: argparse.Namespace) -> int:
    """Measure small commands and runs beside those of an earlier revision, and report."""
    codes = (start.earlier_code(ROOT, bench.work, given.against), ROOT)
    with bench.log.open("ab") as output:
        found = start.compare(
            codes, bench.work, partial(grown, bench.work), given.rounds, output, _say
        )
    about |= {"before": given.against, "rounds": str(given.rounds), "jobs": "1"}
    about["load"] += f", {os.getloadavg()[0]:.1f} over the last one"
    if given.markdown is not None:
        given.markdown.write_text(start.markdown(about, found), encoding="utf-8")
    print(
        json.dumps({"machine": about, "found": asdict(found)}, indent=1)
        if given.json
        else start.plain(found)
    )
    return 0


def _touch_page_cache(folder: Path, size: int) -> None:
    """Fill as much page cache as a copy will take, and give it back unwritten.

    A virtual machine may return free memory to its host after seconds, and pays to get it again.
    Without this the same copy took 0.3 or 2.7 s of system time, at random, and the limit itself 0.4
    or 3.0 s. Anonymous memory won't do: the page cache takes its memory in larger pieces, from
    elsewhere.
    """
    piece = bytes(4 << 20)
    with open(methods.unnamed_file(folder), "wb", buffering=0) as file:
        file.writelines(piece for _ in range(size * 5 // 4 // len(piece)))


def _settle() -> None:
    os.sync()
    time.sleep(_SETTLE_S)


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 22):
            pass


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="bench.bench", description="Ways to copy a live T3 database, side by side."
    )
    parser.add_argument(
        "--size",
        type=parse_size,
        help="of the database: 1200M, 1G of a history, 50M of a year of it",
    )
    parser.add_argument("--rounds", type=int, help="5; 3 restores of a history")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "bench", help="where all data lies"
    )
    parser.add_argument(
        "--json", action="store_true", help="every sample, as JSON, instead of the table"
    )
    parser.add_argument("--markdown", type=Path, help="write the table there as well")
    parser.add_argument(
        "--memory-sweep", action="store_true", help="only the memory of the whole run, by size"
    )
    parser.add_argument("--restore", action="store_true", help="a restore, instead of a backup")
    parser.add_argument(
        "--storage", action="store_true", help="a history of days, beside other ways to keep it"
    )
    parser.add_argument("--year", action="store_true", help="a history of a year, of ours alone")
    parser.add_argument("--alone", action="store_true", help="of a history: ours alone")
    parser.add_argument(
        "--start", action="store_true", help="what starting costs, beside an earlier revision"
    )
    parser.add_argument(
        "--against",
        metavar="REV",
        default=start.BEFORE,
        help=f"the earlier revision ({start.BEFORE})",
    )
    parser.add_argument("--days", type=int, help="14; 365 of a year")
    parser.add_argument(
        "--no-touch", action="store_true", help="leave free memory as it is before each turn"
    )
    given = parser.parse_args()
    given.size = given.size or parse_size(
        "1G" if given.storage else "50M" if given.year else "1200M"
    )
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
            closed = [
                str(folder) for folder in (work, *work.parents) if not folder.stat().st_mode & 0o001
            ]
            if closed:
                parser.error(
                    f"{closed[-1]} is closed to others, so a user cannot reach a home beneath it; see --work"
                )
            home = work / f"home-{os.getpid()}"
            stack.callback(shutil.rmtree, home, ignore_errors=True)
            user = stack.enter_context(throwaway_user(f"t3x-bench-{os.getpid()}", home))
        bench = Bench(work, user, work / "output.log", touch=not given.no_touch)
        if given.start:
            if user is None:
                parser.error(str(missing()))
            return starting(bench, machine(work), given)
        if given.memory_sweep:
            if methods.RUN in skipped:
                parser.error(skipped[methods.RUN])
            for size, sample in sweep(bench):
                peak = sample.cost.peak_anon_bytes / (1 << 20)
                print(
                    f"{size / 1e6:6.0f} MB: peak anonymous memory {peak:5.1f} MiB, {sample.cost.wall_s:6.2f} s"
                )
            return 0
        about = machine(work)
        if given.restore or given.storage or given.year:
            if methods.RUN in skipped:
                parser.error(skipped[methods.RUN])
            return on_scene(bench, about, given)
        compare(bench, given.size, given.rounds, skipped)
    about |= {"database": f"{given.size / 1e6:.0f} MB, T3 {_VERSION}", "rounds": str(given.rounds)}
    about["memory for the copy"] = (
        "as it was" if given.no_touch else "touched before each turn, for all alike"
    )
    if given.markdown is not None:
        given.markdown.write_text(report.markdown(about, bench.samples, skipped), encoding="utf-8")
    if given.json:
        every = {
            title: [asdict(sample) for sample in found] for title, found in bench.samples.items()
        }
        checks = [asdict(one) for one in report.targets(bench.samples)]
        print(
            json.dumps(
                {"machine": about, "samples": every, "skipped": skipped, "targets": checks},
                indent=1,
            )
        )
    else:
        print(report.plain(about, bench.samples, skipped))
    return 0


if __name__ == "__main__":
    sys.exit(main())
