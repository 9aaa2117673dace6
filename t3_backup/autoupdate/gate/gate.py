"""Try a version of T3 where it can do no harm.

It is tried on an empty state, and on copies of all databases of each account's newest snapshot.
Each trial is in a sandbox: no home, no store, no other account's copy, no credential, no network,
and nothing but its own folder to write to. The folder goes with the unit; what a power cut leaves
is removed by `sandbox.remove_leftovers`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from t3_backup.autoupdate import cell
from t3_backup.autoupdate.faults import OF_ALL
from t3_backup.autoupdate.gate import sandbox
from t3_backup.autoupdate.gate.steps import STATE
from t3_backup.autoupdate.gate.verdict import EMPTY, Trial, is_decided, read_trial
from t3_backup.errors import Failure
from t3_backup.system import transient_unit
from t3_backup.system.systemd import PATH, insist
from t3_backup.t3 import ledger
from t3_backup.t3.limits import start_seconds
from t3_backup.t3.program import QUIET

_PORT = 4773  # on a loopback of its own
_SLACK_S = 60  # for the sandbox, and for what is beside the steps of a trial
_STEPS = 8  # that may each take all of the patience: several of pairing, and bringing data over
LIMITS: tuple[str, ...] = ()  # of the steps of a trial, where they are others than its own
# of data, which is read and checked several times: far less than any disk does
_READ_BYTES_PER_S = 5 << 20
_LIMIT_BYTES = 512 << 10

# Writes the databases of an account's newest good snapshot into a folder, and returns the name of
# the one that its server works with; empty where there is none.
WriteSnapshot = Callable[[str, Path], str]


def try_version(
    program: Path,
    accounts: Sequence[str],
    write_snapshot: WriteSnapshot,
    *,
    watch_seconds: int,
    patience: float,
    say: Callable[[str], None],
) -> Iterator[Trial]:
    """Try the version in `program` on an empty state, then on each account's data.

    It ends where `verdict.judge_trials` needs no more to turn the version away. A trial that was
    only too slow is tried once more. Raises Failure, OSError.
    """
    done: list[Trial] = []
    for user in (None, *accounts):
        on = "an empty state" if user is None else f"a copy of the data of {user}"
        say(f"gate: trying {on}")
        write = None if user is None else write_snapshot
        trial = run_trial(program, user or EMPTY, write, watch_seconds, patience)
        if trial is not None and trial.slow:
            say(f"gate: too slow at {trial.step} ({trial.reason}); trying {on} once more")
            trial = run_trial(program, user or EMPTY, write, watch_seconds, patience)
        if trial is None:
            continue
        done.append(_compare_with_empty(trial, done))
        yield done[-1]
        if is_decided(done):
            return


def _compare_with_empty(trial: Trial, done: Sequence[Trial]) -> Trial:
    """Turn a trial away that left another list of migrations than the one on an empty state."""
    empty = next((one for one in done if one.subject == EMPTY), None)
    if empty is None or not trial.passed:
        return trial
    if not (why := ledger.why_unfit(trial.ledger, empty.ledger)):
        return trial
    reason = f"its {trial.database} is none that it makes by itself: {why}"
    return replace(trial, passed=False, step="migration", reason=reason)


def run_trial(
    program: Path,
    subject: str,
    write_snapshot: WriteSnapshot | None,
    watch_seconds: int,
    patience: float,
) -> Trial | None:
    """Run one trial, on the snapshot that is written; None where there is none.

    It is run anew where systemd could not be asked to: that says nothing of the version.
    """
    return insist(partial(_run_trial, program, subject, write_snapshot, watch_seconds, patience))


def _run_trial(
    program: Path,
    subject: str,
    write_snapshot: WriteSnapshot | None,
    watch_seconds: int,
    patience: float,
) -> Trial | None:
    name = sandbox.unit_name(subject if write_snapshot else None)
    try:
        folder, live = sandbox.build_root(name).parent, ""
        if write_snapshot is not None:
            try:
                live = write_snapshot(subject, folder)
            except OF_ALL:
                raise
            except Failure as failure:
                return Trial(subject, passed=False, step=STATE, reason=str(failure))
            if not live:
                return None
        given = sum(one.stat().st_size for one in folder.iterdir())
        serve = start_seconds(patience, given)
        # The candidate must not see what an admin has put into the environment of all units.
        home = cell.home_dir(name)
        line = ["/usr/bin/env", "-i", f"HOME={home}", f"TMPDIR={home}", f"PATH={PATH}", QUIET]
        line += ["LANG=C.UTF-8", sys.executable, "-I", "-m", "t3_backup.autoupdate.gate.trial"]
        line += [f"--t3={program}/bin/t3", f"--base-dir={home}", f"--port={_PORT}"]
        line += [f"--live={live}", f"--watch={watch_seconds}", f"--serve={serve:g}"]
        line += [f"--pair={patience:g}", f"--bring={patience:g}", *LIMITS, "--alone"]
        seconds = _SLACK_S + watch_seconds + serve + _STEPS * patience + given / _READ_BYTES_PER_S
        done = transient_unit.run(
            line,
            name=name,
            properties=sandbox.unit_properties(name, program, given),
            seconds=seconds,
            limit_bytes=_LIMIT_BYTES,
        )
        return read_trial(subject, done)
    finally:
        cell.remove_cell(name)
