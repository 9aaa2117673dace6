"""What the documents claim of the tests and of the command is so."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

from t3_backup import settings
from t3_backup.cli import parser
from t3_backup.manifest import Manifest

FAILURES = (ROOT / "docs" / "failures.md").read_text()
ROWS = re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", FAILURES, re.MULTILINE)
PYTHON = "\n".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))
C = "\n".join(path.read_text() for path in sorted((ROOT / "tests" / "c").glob("test_*.c")))


@pytest.mark.parametrize(("number", "tests"), ROWS, ids=[f"row {number}" for number, _ in ROWS])
def test_every_way_to_lose_data_has_the_tests_that_are_named(number: str, tests: str) -> None:
    names = re.findall(r"`(\w+)`", tests)
    assert names
    for name in names:
        assert f"def {name}(" in PYTHON or f"static void {name}(void)" in C, f"row {number}: no test {name}"


def test_the_rows_are_the_ones_that_are_claimed() -> None:
    expected = [*range(1, 38)]
    assert [int(number) for number, _ in ROWS] == expected


def test_every_key_of_a_manifest_is_documented() -> None:
    text = (ROOT / "docs" / "interface.md").read_text()
    for key in Manifest.__dataclass_fields__:
        assert f"`{key}`" in text, key


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "interface.md").read_text()
    for name, default, _ in settings._KNOWN.values():
        assert re.search(rf"^\| `{name}` \|.*\| `?{re.escape(default)}`? \|", text, re.MULTILINE), name
        assert name in parser().format_help()
