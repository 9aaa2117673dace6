"""Try a version of T3 where it can do no harm.

It is tried on an empty state, and on a copy of each account's newest snapshot. Each trial is in a
sandbox: no home, no store, no other account's copy, no credential, no network, and nothing but its
own folder to write to. The folder goes with the unit; what a power cut leaves is removed by
`sandbox.remove_leftovers`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from t3_backup.autoupdate.gate import sandbox
from t3_backup.autoupdate.gate.steps import GATE, STEPS
from t3_backup.records import MORE, decode_record, one_of, parse_object
from t3_backup.system import transient_unit
from t3_backup.system.systemd import PATH
from t3_backup.t3.endpoints import PAIRING_PATHS
from t3_backup.text import printable

EMPTY = "empty"  # the subject of a trial without data
_PORT = 4773  # on a loopback of its own
_SLACK_S = 240  # for all steps of a trial but its watch and what grows with the data
LIMITS: tuple[str, ...] = ()  # of the steps of a trial, where they are others than its own
# of data, which is read and checked three times, and migrated: far less than any disk does
_BYTES_PER_S = 5 << 20
_LIMIT_BYTES = 256 << 10
_LINES, _CHARS = 40, 500


_Text = Annotated[str, lambda text: printable(text, _CHARS)]
_Number = Annotated[int, range(1 << 31)]  # no level and no status is as great
_Log = Annotated[tuple[_Text, ...], lambda lines: lines[:_LINES]]


@dataclass(frozen=True)
class Trial:
    """What a candidate did with one state."""

    JSON_KEYS = MORE

    subject: str  # a user, or EMPTY; the rest is what it printed
    passed: bool
    step: Annotated[str, one_of(("", *STEPS, GATE))] = ""  # GATE: there was no verdict at all
    reason: _Text = ""
    endpoint: Annotated[str, one_of(PAIRING_PATHS)] | None = None
    probe: _Number | None = None
    level_before: _Number | None = None
    level_after: _Number | None = None
    log: _Log = ()


def try_version(
    program: Path,
    accounts: Sequence[str],
    write_snapshot: Callable[[str, Path], bool],
    *,
    watch_seconds: int,
    say: Callable[[str], None],
) -> Iterator[Trial]:
    """Try the version in `program` on an empty state, then on each account's data.

    The first that fails is the last. `write_snapshot` writes an account's newest verified snapshot
    to a new file; False where there is none. Raises Failure, OSError.
    """
    for user in (None, *accounts):
        say(f"gate: trying {'an empty state' if user is None else f'a copy of the data of {user}'}")
        write = None if user is None else write_snapshot
        trial = run_trial(program, user or EMPTY, write, watch_seconds)
        if trial is not None:
            yield trial
            if not trial.passed:
                return


def run_trial(
    program: Path,
    subject: str,
    write_snapshot: Callable[[str, Path], bool] | None,
    watch_seconds: int,
) -> Trial | None:
    """Run one trial, on the snapshot that is written; None where there is none."""
    name = sandbox.unit_name(subject if write_snapshot else None)
    try:
        state = sandbox.build_root(name)
        if write_snapshot is not None and not write_snapshot(subject, state):
            return None
        given = state.stat().st_size if write_snapshot else 0
        # The candidate must not see what an admin has put into the environment of all units.
        home = sandbox.home_dir(name)
        line = ["/usr/bin/env", "-i", f"HOME={home}", f"TMPDIR={home}", f"PATH={PATH}"]
        line += ["LANG=C.UTF-8", sys.executable, "-I", "-m", "t3_backup.autoupdate.gate.trial"]
        line += [f"--t3={program}/bin/t3", f"--base-dir={home}", f"--port={_PORT}"]
        line += [f"--watch={watch_seconds}", *LIMITS, "--alone"]
        done = transient_unit.run(
            line,
            name=name,
            properties=sandbox.unit_properties(name, program, given),
            seconds=_SLACK_S + watch_seconds + given / _BYTES_PER_S,
            limit_bytes=_LIMIT_BYTES,
        )
        return read_trial(subject, done)
    finally:
        sandbox.remove_root(name)


def read_trial(subject: str, done: transient_unit.Done) -> Trial:
    """Read the verdict of a trial, of which not a word is trusted.

    A type that is wrong is no verdict, and no verdict is a failure.
    """
    if done.timed_out:
        return Trial(subject, passed=False, step=GATE, reason="the trial took too long")
    try:
        found = decode_record(Trial, parse_object(done.out) | {"subject": subject})
        _check_verdict(found, done.code)
        return found
    except ValueError:
        said = (done.err.strip().splitlines() or [""])[-1]
        reason = f"the trial gave no verdict (exit status {done.code}): {printable(said, _CHARS)}"
        return Trial(subject, passed=False, step=GATE, reason=reason)


def _check_verdict(found: Trial, code: int) -> None:
    """Raise ValueError where the parts of a verdict do not agree."""
    if found.passed != (code == 0):
        raise ValueError("its verdict and its exit status differ")
    if found.passed != (found.step == "") or (found.passed and found.endpoint is None):
        raise ValueError("no step, or no endpoint")
    after = found.level_after
    if found.passed and (after is None or after < (found.level_before or 0)):
        raise ValueError("no level, or a lower one")
