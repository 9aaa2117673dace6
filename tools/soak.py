#!/usr/bin/python3 -I
"""Run everything there is, but what has passed for this commit already.

`tools/soak.py` goes on until all has passed or failed. `--slice 3` runs the fourth of seven parts;
a part of each seven commits is `--slice auto`. With `--seconds` no step is begun, or waited for,
beyond that; it is named as not run. `--list` shows the steps, `--proof` writes what is known of
this commit to docs/proof.md. What a step printed is in build/soak/COMMIT.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3"
SLICES = 7
RELEASES = ("bookworm", "trixie")
COUNTED = "\n## What the sweeps have counted\n"
# Nothing of SQLite's is in these.
NOT_SQLITE = ("doctor", "hooks", "html_report", "logfile", "recorder", "status")


@dataclass(frozen=True)
class Step:
    """A command that proves something, under a name."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    name: str
    passed: bool
    seconds: float
    said: str  # its closing line


def pytest(*words: str) -> tuple[str, ...]:
    """Say how tests are run whole."""
    return (PYTHON, "-m", "pytest", "-q", "--soak", "-p", "no:cacheprovider", *words)


def steps() -> list[Step]:
    """Name all steps, in an order that is the same while no test file comes or goes."""
    found = [
        Step("measured", ("tools/coverage",)),
        Step("c-coverage", ("make", "-C", "tests/c", "check", "asan", "coverage")),
    ]
    for folder in ("faults", "package"):
        found += [Step(f"{folder}-{path.stem}", pytest(str(path))) for path in files(folder)]
    for path in files("booted"):
        found += [
            Step(f"booted-{path.stem}-{release}", pytest(str(path), "-k", release))
            for release in RELEASES
            if has(path, release)
        ]
    units = [Path("tests/unit/test_census.py"), Path("tests/unit/test_integrity.py")]
    for path in [*files("system"), *units]:
        if path.stem.removeprefix("test_") not in NOT_SQLITE:
            line = ("tools/newest-apsw", "--soak", str(path))
            found.append(Step(f"newest-apsw-{path.stem}", line))
    return found


def files(folder: str) -> list[Path]:
    """Find the test files of a folder."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / "tests" / folder).glob("test_*.py"))


def has(path: Path, release: str) -> bool:
    """Tell whether tests of a file boot that release: some say which one they do."""
    named = re.findall(r"params=\[(.*)\]", (ROOT / path).read_text())
    return not named or any(release in names for names in named)


def commit() -> str:
    """Name the commit, or for a changed checkout, a new one with the changes."""

    def git(*words: str) -> str:
        line = ["git", "-c", f"safe.directory={ROOT}", *words]
        return subprocess.check_output(line, cwd=ROOT, text=True).strip()

    return git("stash", "create") or git("rev-parse", "HEAD")


class Soak:
    """What has come of the steps, for one commit."""

    def __init__(self, seconds: float | None) -> None:
        self.commit = commit()
        self.folder = ROOT / "build" / "soak" / self.commit[:12]
        self.end = None if seconds is None else time.monotonic() + seconds
        self._printing = threading.Lock()

    def packages(self) -> None:
        """Build what is booted and upgraded, once a commit.

        The steps find it by their environment.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = self.folder / "packages"
        if not folder.exists():
            environ = os.environ | {"PYTHONPATH": "."}
            unfinished = self.folder / f"packages-{os.getpid()}"
            line = [PYTHON, "-m", "support.packages", str(unfinished)]
            subprocess.run(line, cwd=ROOT / "tests", env=environ, check=True)
            unfinished.rename(folder)
        os.environ["T3_TEST_DEB"] = str(folder / "this")
        os.environ["T3_TEST_NEWER_DEB"] = str(folder / "newer")

    def known(self, step: Step) -> Outcome | None:
        """Say what came of it before."""
        path = self.folder / f"{step.name}.json"
        return Outcome(**json.loads(path.read_text())) if path.exists() else None

    def left(self) -> float | None:
        """Count the seconds until no step is waited for any more."""
        return None if self.end is None else self.end - time.monotonic()

    def run(self, step: Step) -> Outcome | None:
        """Run it, unless it has passed before; None where the time is up, or would be."""
        before = self.known(step)
        if before is not None and before.passed:
            self.say(f"passed before: {step.name} ({before.said})")
            return before
        left = self.left()
        if left is not None and left < max(60, expected().get(step.name, 0) * 1.5):
            self.say(f"NOT RUN, no time is left: {step.name}")
            return None
        began = time.monotonic()
        log = self.folder / f"{step.name}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                step.command,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                code = process.wait(left)
            except subprocess.TimeoutExpired:
                stop(process)
                self.say(f"NOT RUN to its end, no time is left: {step.name}")
                return None
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        took, said = round(time.monotonic() - began, 1), lines[-1].strip("= ") if lines else ""
        found = Outcome(step.name, code == 0, took, said)
        (self.folder / f"{step.name}.json").write_text(json.dumps(asdict(found)) + "\n")
        self.say(f"{'passed' if found.passed else 'FAILED'}: {step.name}: {found.said}")
        if not found.passed:
            self.say("\n".join(lines[-60:]))
        return found

    def say(self, text: str) -> None:
        """Print it, whole."""
        with self._printing:
            print(text, flush=True)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a step and all that it started.

    Tests end their machines and users when they hear of it.
    """
    for number, seconds in ((signal.SIGINT, 30), (signal.SIGKILL, 10)):
        os.killpg(process.pid, number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        return


def expected() -> dict[str, float]:
    """Read how long each step took when docs/proof.md was written."""
    page = ROOT / "docs" / "proof.md"
    text = page.read_text() if page.exists() else ""
    return {
        name: float(seconds)
        for name, seconds in re.findall(r"^\| `([\w-]+)` \| \w+ \| ([\d.]+) \|", text, re.MULTILINE)
    }


def proof(soak: Soak, wanted: list[Step]) -> str:
    """Write the page: what has come of each step."""
    found = [(step, soak.known(step)) for step in wanted]
    there = [outcome for _, outcome in found if outcome]
    failed = [outcome.name for outcome in there if not outcome.passed]
    counts = (
        f"{len(there) - len(failed)} of {len(wanted)} steps passed, {len(failed)} failed, "
        f"{len(wanted) - len(there)} were not run"
    )
    summary = f"{counts}; {sum(outcome.seconds for outcome in there) / 60:.0f} minutes in all"
    lines = [
        "# What the last soak has shown",
        "",
        "`tools/soak.py --proof` writes this page. A soak runs every test on each release that it",
        "is for, and every step of each sweep, of which `make check` tries a sample.",
        "[development.md](development.md) says what runs where.",
        "",
        f"Commit `{soak.commit[:12]}`: {summary}.",
        "",
        "| step | came to | seconds | its closing line |",
        "|---|---|---|---|",
    ]
    for step, outcome in found:
        if outcome is None:
            lines.append(f"| `{step.name}` | unknown | - | not run |")
        else:
            came = "passed" if outcome.passed else "failed"
            lines.append(
                f"| `{step.name}` | {came} | {outcome.seconds} | {outcome.said.replace('|', '/')} |"
            )
    return "\n".join(lines) + "\n" + counted()


def counted() -> str:
    """Read the end of the page, which people write: what the sweeps have counted."""
    page = ROOT / "docs" / "proof.md"
    _, title, rest = (page.read_text() if page.exists() else "").partition(COUNTED)
    return title + rest


def main() -> int:
    """Do what the command line says, and return the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--slice", help=f"a part alone: 0 to {SLICES - 1}, or auto: by the commit")
    parser.add_argument("--seconds", type=float, help="how long it may take")
    jobs = os.cpu_count() or 1
    parser.add_argument("--jobs", type=int, default=jobs, help="how many steps at a time")
    parser.add_argument("--list", action="store_true", help="name the steps and go")
    parser.add_argument("--proof", action="store_true", help="write docs/proof.md and go")
    parser.add_argument("names", nargs="*", metavar="STEP", help="these steps alone")
    words = parser.parse_args()
    soak, wanted = Soak(words.seconds), steps()
    if words.proof:
        (ROOT / "docs" / "proof.md").write_text(proof(soak, wanted))
        return 0
    title = f"{len(wanted)} steps"
    if words.slice is not None:
        number = int(soak.commit, 16) % SLICES if words.slice == "auto" else int(words.slice)
        wanted = wanted[number::SLICES]
        title = f"slice {number} of {SLICES}: {len(wanted)} of {title}"
    wanted = [step for step in wanted if step.name in words.names] if words.names else wanted
    print(f"== soak of {soak.commit[:12]}, {title}", flush=True)
    if words.list:
        print(*(step.name for step in wanted), sep="\n")
        return 0
    soak.packages()
    with ThreadPoolExecutor(words.jobs) as pool:
        found = list(pool.map(soak.run, wanted))
    not_run = [step.name for step, outcome in zip(wanted, found, strict=True) if outcome is None]
    failed = [outcome.name for outcome in found if outcome and not outcome.passed]
    passed = len(wanted) - len(not_run) - len(failed)
    print(f"== soak: {passed} steps passed, {len(failed)} failed, {len(not_run)} not run")
    for what, names in (("failed", failed), ("not run", not_run)):
        if names:
            print(f"{what}: {' '.join(names)}")
    # What a slice had no time for is no failure, nor a success: the whole soak has it.
    return 1 if failed or (not_run and words.seconds is None) else 0


if __name__ == "__main__":
    sys.exit(main())
