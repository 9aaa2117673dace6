"""Hold the version of Node against the one that a version of T3 wants.

A range is read as npm does in its common forms: `>=22.13 <23 || >=24.10`, `^22`, `~22.1`, `24.x`.
One that is in none of these is passed over: the gate tells whether the program runs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from t3_backup.errors import Failure
from t3_backup.system.systemd import PATH
from t3_backup.t3.program import wanted_node

_Numbers = tuple[int, int, int]
_ONE = re.compile(
    r"(>=|<=|>|<|=|\^|~>?|)\s*v?(\d+|[xX*])(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?(?:[-+][\w.+-]+)?"
)
_HYPHEN = re.compile(r"(\S+)\s+-\s+(\S+)")
_NODE = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
_END = 1 << 30


def check_node(program: Path, version: str, ask: Callable[[list[str]], str]) -> None:
    """Check that Node is one that T3 `version` wants, where its `program` is a script for it.

    `ask` runs a command and returns what it printed. Raises Failure and OSError.
    """
    if not (wanted := wanted_node(program)):
        return
    node = shutil.which("node", path=PATH)
    if node is None:
        raise Failure(f"T3 {version} wants node {wanted}, and there is none in {PATH}: install it")
    found = ask([node, "--version"]).strip()[:50]
    if not allows(wanted, found):
        why = f"T3 {version} wants node {wanted}, and {node} is {found}"
        raise Failure(f"{why}: install that one, then try again")


def allows(wanted: str, found: str) -> bool:
    """Tell whether a range allows a version such as v22.13.0; true for what can't be read. Pure."""
    match = _NODE.match(found)
    if match is None:
        return True
    numbers = int(match[1]), int(match[2]), int(match[3])
    ranges = [_parse_comparators(part) for part in wanted.split("||")]
    return any(one is None or all(low <= numbers < high for low, high in one) for one in ranges)


def _parse_comparators(text: str) -> list[tuple[_Numbers, _Numbers]] | None:
    """Parse what must all hold, as spans of versions; None for what can't be read."""
    text = _HYPHEN.sub(r">=\1 <=\2", text.strip())
    spans, at = [], 0
    for match in _ONE.finditer(text):
        if text[at : match.start()].strip():
            return None
        at = match.end()
        spans.append(_span(match[1], [part for part in match.groups()[1:] if part is not None]))
    return None if text[at:].strip() else spans


def _span(operator: str, parts: list[str]) -> tuple[_Numbers, _Numbers]:
    """Give the first version that a comparator allows, and the first after it that it doesn't."""
    given = []
    for part in parts:
        if not part.isdigit():
            break
        given.append(int(part))
    low = _fill(given)
    after = _fill([*given[:-1], given[-1] + 1]) if given else (_END, 0, 0)  # all that is not told
    if operator == ">":
        return after, (_END, 0, 0)
    if operator == ">=":
        return low, (_END, 0, 0)
    if operator == "<":
        return (0, 0, 0), low
    if operator == "<=":
        return (0, 0, 0), after
    if operator == "^" and given:
        kept = next((at for at, number in enumerate(given) if number), len(given) - 1)
        return low, _fill([*given[:kept], given[kept] + 1])
    if operator.startswith("~") and given:
        kept = min(1, len(given) - 1)
        return low, _fill([*given[:kept], given[kept] + 1])
    return low, after


def _fill(numbers: list[int]) -> _Numbers:
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return major, minor, patch
