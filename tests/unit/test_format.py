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
    publish_images,
    storage_forms,
)
from support.old_stores import ACCOUNT, STORES, unpack_store
from support.paths import ROOT

from t3_backup.store.names import DATA, DELTA


@pytest.fixture
def reader(tmp_path: Path) -> list[str]:
    [text] = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "format.md").read_text(), re.DOTALL
    )
    assert len([line for line in text.splitlines() if line]) <= 50
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
        assert storage_forms(account_dir) == "ppdddd"
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


def test_the_reader_reads_every_database_of_a_snapshot(reader: list[str], tmp_path: Path) -> None:
    """One that never changes, one with chains of deltas of its own, one of an odd name."""
    frozen, odd = database_image(40, 1), "odd name.sqlite"
    images = []
    for number in range(6):
        grown = change_pages(database_image(1500 + number, 7), [number, 900], number)
        strange = change_pages(database_image(700, 3), [number + 1], number)
        images.append({"statev2.sqlite": grown, "state.sqlite": frozen, odd: strange})
    del images[4]["state.sqlite"]  # then the live one has the snapshot's own name
    with open_account_dir(tmp_path) as account_dir:
        for each in images:
            publish_images(account_dir, each, "statev2.sqlite")
        assert maintenance(account_dir, ALL).tidy().warnings == []
        listing, folder = account_dir.read_listing(), str(account_dir.path)
        for file, forms in (("statev2.sqlite", "pddddd"), (odd, "pddddd")):
            found = listing.images_of(file)
            assert "".join("p" if listing.is_plain(one) else "d" for one in found) == forms
        for number, snapshot in enumerate(reversed(list_snapshots(account_dir))):
            for file, data in images[number].items():
                target = tmp_path / f"{number}-{file}"
                line = [*reader, folder, snapshot.name, str(target), file]
                subprocess.run(line, check=True)
                assert target.read_bytes() == data, (number, file)
            target = tmp_path / f"{number}-live"
            subprocess.run([*reader, folder, snapshot.name, str(target)], check=True)
            assert target.read_bytes() == images[number]["statev2.sqlite"]


@pytest.mark.parametrize("name", STORES)
def test_the_reader_reads_what_earlier_versions_have_stored(
    reader: list[str], name: str, tmp_path: Path
) -> None:
    folder = unpack_store(name, tmp_path / "store") / ACCOUNT
    manifests = sorted(folder.glob("state-*.json"))
    for number, path in enumerate(manifests):
        target = tmp_path / f"{number}.sqlite"
        subprocess.run([*reader, str(folder), path.stem, str(target)], check=True)
        assert target.read_bytes().startswith(b"SQLite format 3\0")
    ends = {path.suffix for path in folder.iterdir()}
    assert manifests
    assert (DELTA in ends) == (name == "format-2")
    assert DATA in ends
