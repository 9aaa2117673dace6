"""How a worker begins: what it puts off importing is there once it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import t3_backup

PACKAGE = Path(t3_backup.__file__).parent

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from t3_backup.worker.child import boot
before = "inspect" in sys.modules
sys.modules.setdefault("inspect", boot._Later("inspect"))
from dataclasses import dataclass
@dataclass
class Told:
    "It says what it is."
    x: int
put_off = "ast" not in sys.modules
@dataclass
class Untold:
    x: int
import inspect
print(before, put_off, Untold.__doc__, inspect.signature(Untold))
"""


def test_inspect_is_put_off_until_it_is_asked_for() -> None:
    line = [sys.executable, "-I", "-S", "-c", PROGRAM, str(PACKAGE.parent)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    before, put_off, *told = done.stdout.split(maxsplit=2)
    assert told == ["Untold(x: int) (x: int) -> None\n"]
    assert before == "False"
    if sys.version_info < (3, 13):  # from then on dataclasses asks for each class
        assert put_off == "True"
