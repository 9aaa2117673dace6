"""What is seen of other processes, and waiting for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BOUND_S = 20  # how long anything here may take before it counts as hanging


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status; empty where there is no such process any more."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {
        name: value.strip()
        for name, _, value in (line.partition(":") for line in text.splitlines())
    }


def until(condition: Callable[[], Any], what: str) -> Any:
    """What `condition` gives as soon as it gives something; what vanishes while it looks is looked
    for again."""
    end = time.monotonic() + BOUND_S
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if found := condition():
                return found
        time.sleep(0.01)
    raise AssertionError(f"no {what} in {BOUND_S} s")


def children(pid: int) -> list[int]:
    """The pids of its child processes."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [int(word) for word in task.read_text().split()]
    return found
