"""Whether a version is turned away, and who is left out of it, follows from all of its trials."""

from __future__ import annotations

import pytest

from t3_backup.autoupdate.gate.verdict import EMPTY, Trial, is_decided, judge_trials


def trials(outcomes: str) -> list[Trial]:
    """An empty state, then an account for each letter: p(assed), f(ailed), u(nreadable data)."""
    subjects = (EMPTY, *"abcdefgh")
    steps = {"p": "", "f": "data", "u": "state"}
    return [
        Trial(subject, passed=letter == "p", step=steps[letter])
        for subject, letter in zip(subjects, outcomes, strict=False)
    ]


@pytest.mark.parametrize(
    ("outcomes", "turned_away_for", "left_out"),
    [
        ("p", None, ""),
        ("f", EMPTY, ""),
        ("ppp", None, ""),
        ("pf", "a", ""),  # it may be the account's fault, and nothing says so
        ("pff", "a", ""),
        ("pfff", "a", ""),
        ("pfp", None, "a"),
        ("ppf", None, "b"),
        ("pffp", "a", ""),  # whoever comes first, it fails on the data of more than it passes on
        ("ppff", "b", ""),
        ("ppfff", "b", ""),
        ("pppff", None, "cd"),
        ("fpp", EMPTY, ""),
        ("pu", None, "a"),  # what can't be read says nothing of the version
        ("puu", "a", ""),  # nor is it the fault of each of them
        ("puf", "b", ""),
        ("pufp", None, "ab"),
    ],
)
def test_a_version_is_turned_away_for_all_or_one_is_left_out(
    outcomes: str, turned_away_for: str | None, left_out: str
) -> None:
    found = judge_trials(trials(outcomes))
    assert (found.failed and found.failed.subject) == turned_away_for
    assert "".join(one.subject for one in found.left_out) == left_out


@pytest.mark.parametrize(
    ("outcomes", "decided"),
    [
        ("p", False), ("f", True), ("pf", False), ("pff", True), ("pfu", False), ("pfuf", True),
        ("pfpf", False), ("ppffff", False), ("puuu", False),
    ],
)  # fmt: skip
def test_no_more_is_tried_once_no_trial_could_save_it(outcomes: str, decided: bool) -> None:
    assert is_decided(trials(outcomes)) == decided
