"""Sweeps that try a part of what there is, and all of it where `--soak` is given.

What is chosen follows from a seed alone, which each run prints: T3_TEST_SEED, or else the commit.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, TypeVar

import pytest

from support.paths import ROOT

Value = TypeVar("Value")
Test = TypeVar("Test", bound=Callable[..., Any])


def is_soak() -> bool:
    """Whether all there is was asked for."""
    return os.environ.get("T3_TEST_SOAK") == "1"


def seed() -> str:
    """The seed of this run; processes that it starts have the same."""
    if not os.environ.get("T3_TEST_SEED"):
        line = ["git", "-c", f"safe.directory={ROOT}", "rev-parse", "--short=12", "HEAD"]
        try:
            commit = subprocess.run(
                line, cwd=ROOT, capture_output=True, text=True, check=False
            ).stdout.strip()
        except FileNotFoundError:
            commit = ""
        os.environ["T3_TEST_SEED"] = commit or "0"  # no checkout: a package is built
    return os.environ["T3_TEST_SEED"]


def chance(what: str) -> Random:
    """Random numbers for the sweep `what`."""
    return Random(f"{seed()} {what}")


def counts(most: int, one_in: int, what: str, step: int = 1) -> Iterable[int]:
    """For a sweep that finds its end by itself: 1, 1 + step and so on, below `most`; but in a soak
    the first and one in so many."""
    if is_soak():
        return range(1, most, step)
    return (1, *range(1 + step * (1 + chance(what).randrange(one_in)), most, step * one_in))


def amount(whole: int, part: int) -> int:
    """How often to do something: `part` times, and in a soak `whole`."""
    return whole if is_soak() else part


def one_in(number: int) -> Callable[[Test], Test]:
    """Mark a test that the seed chooses once in so many times, and that is for a soak else."""

    def mark(test: Test) -> Test:
        chosen = chance(f"whether {test.__name__} is run").randrange(number) == 0
        return test if chosen else pytest.mark.soak(test)

    return mark


def sample(values: Sequence[Value], one_in: int, what: str) -> list[Value]:
    """One in so many of `values`, in their order; at least one, and in a soak all."""
    if is_soak():
        return list(values)
    count = max(1, round(len(values) / one_in))
    return [values[index] for index in sorted(chance(what).sample(range(len(values)), count))]
