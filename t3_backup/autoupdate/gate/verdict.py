"""Read what each trial of a version came to, and decide what follows from all of them. Pure.

What comes out of a sandbox is the candidate's word: whatever is not exactly a verdict is a failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from t3_backup.autoupdate.gate.steps import GATE, STATE, STEPS
from t3_backup.records import MORE, decode_record, one_of, parse_object
from t3_backup.system import transient_unit
from t3_backup.t3.databases import require_name
from t3_backup.t3.endpoints import PAIRING_PATHS
from t3_backup.t3.ledger import Ledger, check_ledger
from t3_backup.t3.output import redact
from t3_backup.text import printable

EMPTY = "empty"  # the subject of a trial without data
_LINES, _CHARS = 80, 500
_ENOUGH = 2  # accounts on whose data it failed, while it passed on that of none


def _check_text(text: str) -> str:
    return printable(redact(text), _CHARS)


_Text = Annotated[str, _check_text]
_Number = Annotated[int, range(1 << 31)]  # no level and no status is as great
_Log = Annotated[tuple[_Text, ...], lambda lines: lines[:_LINES]]
_File = Annotated[str, lambda name: name and require_name(name)]


@dataclass(frozen=True)
class Trial:
    """What a candidate did with one state."""

    JSON_KEYS = MORE

    subject: str  # a user, or EMPTY; the rest is what it printed
    passed: bool
    step: Annotated[str, one_of(("", *STEPS, GATE))] = ""  # GATE: there was no verdict at all
    reason: _Text = ""
    slow: bool = False  # whether it failed since a step took longer than it may
    endpoint: Annotated[str, one_of(PAIRING_PATHS)] | None = None
    probe: _Number | None = None
    level_before: _Number | None = None
    level_after: _Number | None = None
    database: _File = ""  # that it works with; empty: there is none
    ledger: Annotated[Ledger, check_ledger] = ()  # of that database, afterwards
    log: _Log = ()


def read_trial(subject: str, done: transient_unit.Done) -> Trial:
    """Read the verdict of a trial, of which not a word is trusted.

    A type that is wrong is no verdict, and no verdict is a failure.
    """
    if done.timed_out:
        reason = "the trial took too long"
        return Trial(subject, passed=False, step=GATE, reason=reason, slow=True)
    try:
        found = decode_record(Trial, parse_object(done.out) | {"subject": subject})
        _check_trial(found, done.code)
        return found
    except ValueError:
        said = (done.err.strip().splitlines() or [""])[-1]
        reason = f"the trial gave no verdict (exit status {done.code}): {_check_text(said)}"
        return Trial(subject, passed=False, step=GATE, reason=reason)


def _check_trial(found: Trial, code: int) -> None:
    """Raise ValueError where the parts of a verdict do not agree."""
    if found.passed != (code == 0):
        raise ValueError("its verdict and its exit status differ")
    if found.passed != (found.step == "") or (found.passed and found.endpoint is None):
        raise ValueError("no step, or no endpoint")
    if not found.passed:
        return
    after = found.level_after
    if after is None or after < (found.level_before or 0):
        raise ValueError("no level, or a lower one")
    if not found.database or not found.ledger:
        raise ValueError("no database")


@dataclass(frozen=True)
class Verdict:
    """What follows from the trials of a version."""

    failed: Trial | None  # for which it is turned away; None: it is not
    left_out: tuple[Trial, ...]  # of those on whose data alone it failed, where it is not


def judge_trials(trials: Sequence[Trial]) -> Verdict:
    """Decide whether a version is turned away, and else who is left out of it.

    What fails on an empty state fails everybody. What fails on the data of some accounts, and
    passes on that of as many, is the matter of those: one that has next to no data passes on almost
    any version. So is data that can't be tried at all, but not where that is everybody's.
    """
    failed = [one for one in trials if not one.passed]
    empty = next((one for one in failed if one.subject == EMPTY), None)
    theirs = [one for one in failed if one.subject != EMPTY]
    tried = [one for one in theirs if one.step != STATE]
    passed = sum(one.passed and one.subject != EMPTY for one in trials)
    if empty is not None or len(tried) > passed or (not passed and len(theirs) > 1):
        return Verdict(empty or (tried or theirs)[0], ())
    return Verdict(None, tuple(theirs))


def is_decided(trials: Sequence[Trial]) -> bool:
    """Tell whether no further trial is needed to turn a version away."""
    failed = [one for one in trials if not one.passed and one.step != STATE]
    passed = any(one.passed and one.subject != EMPTY for one in trials)
    return any(one.subject == EMPTY for one in failed) or (len(failed) >= _ENOUGH and not passed)
