"""The database that is measured, its writer, and the turn of one way to copy it."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bench import measure, methods
from bench.methods import Method, Place
from bench.report import Sample
from demo.grow import grow
from demo.users import User
from demo.writer import Writer

ROOT = Path(__file__).resolve().parent.parent
VERSION = "0.0.24"
_IDLE_S = 3.0
# what a copy leaves to be done (a checkpoint of a WAL that grew) stalls the writer just after it
_TAIL_S = 0.5
_SETTLE_S = 0.5


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
        """Make a fresh source of `size` bytes in a warm cache, and start its writer."""
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
        """Measure the writer alone."""
        writer.mark(methods.IDLE)
        time.sleep(_IDLE_S)
        window = writer.mark("")
        none = measure.Cost(0.0, 0.0, 0, 0, finished=True)
        sample = Sample(none, window, None, self.source.stat().st_size)
        self.samples.setdefault(methods.IDLE, []).append(sample)

    def turn(self, method: Method, writer: Writer) -> Sample:
        """Measure one way, once, from a settled machine to a settled machine."""
        folder = Path(tempfile.mkdtemp(prefix="turn-", dir=self.work))
        unnamed = methods.unnamed_file(folder)
        try:
            user = None if self.user is None else self.user.name
            place = Place(self.source, folder, user, unnamed)
            commands = method.commands(place)
            writer.pause()
            settle()
            size = self.source.stat().st_size
            if self.touch:
                touch_page_cache(folder, size)
            if method.live:
                writer.resume()
            writer.mark(method.title)
            cost = measure.Cost(0.0, 0.0, 0, 0, finished=True)
            with self.log.open("ab") as output:
                for command in commands:
                    fds = (unnamed,) if str(unnamed) in command else ()
                    limit = method.limit_s
                    spent = measure.run(
                        command, cwd=ROOT, output=output, limit_s=limit, pass_fds=fds
                    )
                    cost = cost.then(spent)
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
        settle()
        writer.resume()
        self.samples.setdefault(method.title, []).append(sample)
        return sample


def grown(work: Path, size: int) -> Path:
    """Grow the database that every round starts from; it is kept for the next time."""
    path = work / f"grown-{VERSION}-{size}.sqlite"
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        say(f"growing a database of {size / 1e6:.0f} MB")
        grow(partial, size, VERSION)
        partial.rename(path)
    return path


def machine(work: Path) -> dict[str, str]:
    """Tell what the figures depend on."""
    models = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cpu = models[0].split(":", 1)[1].strip() if models else platform.machine()
    [total] = [line for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    memory = int(total.split()[1])
    mounts = [line.split()[1:4] for line in _lines("/proc/mounts")]
    inside = [mount for mount in mounts if work.is_relative_to(mount[0])]
    system = max(inside, key=lambda mount: len(mount[0]))
    sqlite = subprocess.check_output([methods.SQLITE, "--version"], text=True).split()[0]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{cpu}, {os.cpu_count()} cores, {memory / (1 << 20):.0f} GiB",
        "load": f"{os.getloadavg()[0]:.1f} over the last minute before",
        "kernel": platform.release(),
        "file system": f"{system[1]} ({system[2]})",
        "SQLite": f"{sqlite} (command line), {sqlite3.sqlite_version} (library)",
    }


def touch_page_cache(folder: Path, size: int) -> None:
    """Fill as much page cache as a copy will take, and give it back unwritten.

    A virtual machine may return free memory to its host after seconds, and pays to get it again.
    Without this the same copy took 0.3 or 2.7 s of system time, at random, and the limit itself 0.4
    or 3.0 s. Anonymous memory won't do: the page cache takes its memory in larger pieces, from
    elsewhere.
    """
    piece = bytes(4 << 20)
    with open(methods.unnamed_file(folder), "wb", buffering=0) as file:
        file.writelines(piece for _ in range(size * 5 // 4 // len(piece)))


def settle() -> None:
    """Have written back what waits for it."""
    os.sync()
    time.sleep(_SETTLE_S)


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 22):
            pass


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()


def say(text: str) -> None:
    """Say how far it is."""
    print(text, file=sys.stderr, flush=True)
