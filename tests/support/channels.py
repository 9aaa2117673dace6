"""Where a thing that is wrong is told: each channel is asked as whoever reads it does, and the table
of that in docs/monitoring.md."""

from __future__ import annotations

import fcntl
import html
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from support.host import Host
from support.paths import ROOT

CHANNELS = ("run", "verify", "status", "nagios", "doctor", "metrics", "report", "journal")
AT_ONCE, RUN, PROOF, NEVER = "at once", "run", "proof", "-"
PAGE = ROOT / "docs" / "monitoring.md"
_BEGIN, _END = "<!-- begin: told where -->", "<!-- end: told where -->"
# The exit code of each where something is critical, and where it is a warning.
_CODES = {"status": (1, 0), "nagios": (2, 1)}


@dataclass(frozen=True)
class Told:
    """What must be found where a channel tells of something."""

    says: str  # a pattern that names it, in a line of every channel but the metrics
    critical: bool  # or a warning
    # whether the metrics tell, by their values; those of an account are named without it
    measured: Callable[[Mapping[str, float]], bool] | None = None
    run_code: int = 1  # the exit code of a run that tells of it


class Watch:
    """The channels of one host, and since when each has told of something."""

    def __init__(self, host: Host, told: Told) -> None:
        self._host, self._told = host, told
        self.cells = dict.fromkeys(CHANNELS, NEVER)
        self.seen: dict[str, str] = {}  # what each printed last, for who wants to know

    def ask_all(self) -> None:
        """Ask at once, after the next run and after the next proof."""
        self.ask(AT_ONCE)
        self.run()
        self.ask(RUN)
        self.prove()
        self.ask(PROOF)

    def ask(self, when: str) -> None:
        """Ask those that only look, and have not told yet."""
        for channel in ("status", "nagios", "doctor", "metrics", "report"):
            if self.cells[channel] == NEVER and getattr(self, f"_{channel}")():
                self.cells[channel] = when

    def run(self) -> None:
        """Back up as the timer does: its lines are the journal's, with their priorities."""
        code, journal = self._as_service("run")
        self._note("run", RUN, journal, told=code == self._told.run_code)

    def prove(self) -> None:
        """Verify as the weekly timer does."""
        code, journal = self._as_service("verify")
        self._note("verify", PROOF, journal, told=code != 0)

    def _note(self, channel: str, when: str, journal: str, *, told: bool) -> None:
        """Note what a command told as a service: `told`, if its exit code is as it must be."""
        self.seen[channel] = journal
        if any(self._says(line) for line in journal.splitlines() if re.match(r"<[0-4]>", line)):
            if told:
                self.cells[channel] = when
            if self.cells["journal"] == NEVER:
                self.cells["journal"] = when

    def _as_service(self, command: str) -> tuple[int, str]:
        """A call whose output is the journal's, where python3-systemd is not there to take it: the
        exit code, and the lines with their priorities."""
        journal = self._host.folder / "journal"
        without = self._host.folder / "without"
        (without / "systemd").mkdir(parents=True, exist_ok=True)
        (without / "systemd" / "__init__.py").write_text("raise ImportError\n")
        with journal.open("w+") as output:
            status = journal.stat()
            environ = self._host.env() | {
                "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}",
                "PYTHONPATH": f"{without}:{ROOT}",
            }
            done = subprocess.run(
                self._host.command(command), env=environ, cwd=ROOT, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, timeout=120, check=False,
            )  # fmt: skip
        return done.returncode, journal.read_text()

    def _says(self, text: str) -> bool:
        return re.search(self._told.says, text) is not None

    def _status(self) -> bool:
        answer = self._host.t3("status")
        self.seen["status"] = answer.out + answer.err
        return self._says(answer.out + answer.err) and answer.code == self._code("status")

    def _nagios(self) -> bool:
        answer = self._host.t3("status", "--nagios")
        self.seen["nagios"] = answer.out
        line, _, _ = answer.out.partition(" | ")
        return self._says(line) and answer.code == self._code("nagios")

    def _code(self, channel: str) -> int:
        return _CODES[channel][0 if self._told.critical else 1]

    def _doctor(self) -> bool:
        answer = self._host.t3("doctor")
        self.seen["doctor"] = answer.out
        lines = [line for line in answer.out.splitlines() if re.match("FAIL|warn", line)]
        failed = any(line.startswith("FAIL") for line in lines)
        return self._says("\n".join(lines)) and answer.code == int(failed)

    def _metrics(self) -> bool:
        path = self._host.folder / "textfiles" / "t3_backup.prom"
        text = path.read_text() if path.exists() else ""
        self.seen["metrics"] = text
        return self._told.measured is not None and self._told.measured(samples(text))

    def _report(self) -> bool:
        answer = self._host.t3("report", "--html", "-")
        page, _, _ = html.unescape(answer.out).partition("<footer")  # what the words mean
        self.seen["report"] = page + answer.err
        return self._says(page + answer.err) and "All is well" not in page


def samples(text: str) -> dict[str, float]:
    """The values of metrics, `snapshots{verdict="damaged"}` by that name: of several accounts the
    greatest."""
    found: dict[str, float] = {}
    for name, labels, value in re.findall(
        r"^t3_backup_(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE
    ):
        own = re.sub(r'account="[^"]*",?', "", labels)
        key = f"{name}{{{own}}}" if own else name
        found[key] = max(float(value), found.get(key, float("-inf")))
    return found


def table_lines(rows: dict[str, dict[str, str]]) -> list[str]:
    """The table, a row for each thing that is wrong."""
    lines = [f"| what is wrong | {' | '.join(CHANNELS)} |", f"|---{'|---' * len(CHANNELS)}|"]
    return lines + [
        f"| {name} | {' | '.join(cells[channel] for channel in CHANNELS)} |"
        for name, cells in rows.items()
    ]


def read_table() -> dict[str, dict[str, str]]:
    """What the document says."""
    _, _, rest = PAGE.read_text().partition(_BEGIN)
    lines = rest.partition(_END)[0].strip().splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    return {name: dict(zip(CHANNELS, cells, strict=True)) for name, *cells in rows}


def write_row(name: str, cells: dict[str, str], order: Sequence[str]) -> None:
    """Put a row into the document, whose rows are in this order; workers do so one at a time."""
    with PAGE.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = read_table() | {name: cells}
        lines = table_lines({one: rows[one] for one in order if one in rows})
        before, _, rest = PAGE.read_text().partition(_BEGIN)
        _, _, after = rest.partition(_END)
        text = "\n".join(["", *lines, ""])
        PAGE.write_text(f"{before}{_BEGIN}{text}{_END}{after}")
