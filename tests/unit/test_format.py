"""Somebody without this tool gets their data out: the reader of docs/format.md, as it stands
there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.account_folders import (
    ALL,
    PAGE,
    change_pages,
    data_path,
    database_image,
    list_snapshots,
    maintenance,
    open_account_dir,
    publish_image,
    storage_forms,
)
from support.paths import ROOT


@pytest.fixture
def reader(tmp_path: Path) -> list[str]:
    [text] = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "format.md").read_text(), re.DOTALL
    )
    assert text.count("\n") <= 45
    assert "t3_backup" not in text
    path = tmp_path / "reader.py"
    path.write_text(text)
    return [sys.executable, "-I", str(path)]


def test_the_reader_of_the_documentation_reads_every_form(
    reader: list[str], tmp_path: Path
) -> None:
    other = database_image(1500, 7)
    newest = change_pages(other, [3, 4, 5], 8) + database_image(3, 9)
    images = [
        other[: 90 * PAGE],
        change_pages(other[: 90 * PAGE], [1], 2) + bytes(9 * PAGE),
        other[: 50 * PAGE],
        other,
        newest,
        newest,
    ]
    with open_account_dir(tmp_path) as account_dir:
        for number, data in enumerate(images):
            publish_image(account_dir, data, label=f"day-{number}")
        assert maintenance(account_dir, ALL).tidy().warnings == []
        assert storage_forms(account_dir) == "pddddd"
        for number, snapshot in enumerate(reversed(list_snapshots(account_dir))):
            target = tmp_path / str(number)
            subprocess.run([*reader, str(account_dir.path), snapshot.name, str(target)], check=True)
            assert target.read_bytes() == images[number]
        delta = data_path(account_dir, list_snapshots(account_dir)[-2])
        delta.chmod(0o600)
        delta.write_bytes(delta.read_bytes()[:-1] + b"\0")
        line = [
            *reader,
            str(account_dir.path),
            list_snapshots(account_dir)[-1].name,
            str(tmp_path / "x"),
        ]
        again = subprocess.run(line, check=False, capture_output=True, text=True)
        assert (again.returncode, again.stderr) == (1, f"{delta.name} is damaged\n")
