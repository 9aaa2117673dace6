"""Programs that tests run in processes of their own: as users, in booted machines, to be killed.

Each is a file beside this one, which is linted and checked as any code is. An interpreter gets its
text, and not its path: users can't enter every folder that a checkout may lie in, and a booted
machine has no checkout at all. So a program imports none of the others, and its `sys.argv[0]` is
`-c`.
"""

from __future__ import annotations

import sys
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


def text(name: str) -> str:
    """Return the text of a program; `name` has its ending."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def text_with(name: str, *words: str) -> str:
    """Return a Python program's text that puts `words` before its other arguments."""
    return f"import sys; sys.argv[1:1] = {words!r}\n{text(name)}"


def line(name: str, *words: str, isolated: bool = True) -> list[str]:
    """Return the command line that runs a Python program here.

    An `isolated` one imports nothing from its working folder, nor from PYTHONPATH.
    """
    return [sys.executable, *(["-I"] if isolated else []), "-c", text(name), *words]


def booted_line(name: str, *words: str) -> list[str]:
    """Return the command line that runs a Python program in a booted machine."""
    return ["python3", "-c", text(name), *words]
