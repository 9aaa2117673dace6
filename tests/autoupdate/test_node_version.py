"""The version of Node that a package wants, as npm reads it, against the one that is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from t3_backup.autoupdate.programs import node_version
from t3_backup.autoupdate.programs.node_version import allows, check_node
from t3_backup.errors import Failure


@pytest.mark.parametrize(
    ("wanted", "good", "bad"),
    [
        (">=24", "24.0.0 25.1.2", "18.19.0 23.9.9"),
        (
            "^22.13 || ^23.4 || >=24.10",
            "22.13.0 22.20.1 23.4.0 24.10.0 25.0.0",
            "22.12.9 23.3.0 24.9.1 21.0.0",
        ),
        (">=22.13 <23 || >=24.10", "22.13.0 22.99.0 24.10.0 26.0.0", "22.12.0 23.0.0 24.9.0"),
        ("^22", "22.0.0 22.9.9", "21.9.9 23.0.0"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2 1.0.0"),
        ("~22.1", "22.1.0 22.1.9", "22.2.0 22.0.9"),
        ("~22", "22.0.0 22.9.0", "23.0.0"),
        ("24.x", "24.0.0 24.9.0", "25.0.0 23.0.0"),
        ("24", "24.1.0", "25.0.0"),
        ("24.10.*", "24.10.3", "24.11.0"),
        (">=20.0.0-rc.1", "20.0.0", "19.9.9"),
        (">22", "23.0.0", "22.5.0"),
        ("<=22", "22.5.0", "23.0.0"),
        (">= 18 < 21", "18.0.0 20.9.0", "21.0.0 17.0.0"),
        ("18 - 20", "18.0.0 20.5.0", "21.0.0 17.9.9"),
        ("*", "1.0.0", ""),
        ("", "1.0.0", ""),
        ("lts/hydrogen", "1.0.0", ""),  # it can't be read
        (">=18 whatever", "1.0.0", ""),
    ],
)
def test_a_range_allows_what_it_allows_for_npm(wanted: str, good: str, bad: str) -> None:
    assert [one for one in good.split() if not allows(wanted, f"v{one}")] == []
    assert [one for one in bad.split() if allows(wanted, f"v{one}")] == []


def package(folder: Path, first_line: str, wanted: object) -> Path:
    """A program in a package."""
    folder.mkdir()
    (folder / "package.json").write_text(json.dumps({"engines": wanted}))
    (folder / "dist").mkdir()
    program = folder / "dist/bin"
    program.write_bytes(first_line.encode() + b"\n")
    return program


def test_a_version_that_wants_another_node_is_told_with_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = package(tmp_path / "t3", "#!/usr/bin/env node", {"node": ">=24"})
    monkeypatch.setattr(node_version.shutil, "which", lambda *_, **__: "/usr/bin/node")
    with pytest.raises(Failure) as told:
        check_node(program, "0.1.2", lambda _: "v18.19.0\n")
    assert str(told.value).startswith(
        "T3 0.1.2 wants node >=24, and /usr/bin/node is v18.19.0: "
    ), told.value
    check_node(program, "0.1.2", lambda _: "v24.1.0\n")
    monkeypatch.setattr(node_version.shutil, "which", lambda *_, **__: None)
    with pytest.raises(Failure, match="wants node >=24, and there is none"):
        check_node(program, "0.1.2", lambda _: "")


@pytest.mark.parametrize(
    ("first_line", "wanted"),
    [
        ("#!/usr/bin/python3", {"node": ">=24"}),
        ("\x7fELF", {"node": ">=24"}),
        ("", {"node": ">=24"}),
        ("#!/usr/bin/env node", {}),
        ("#!/usr/bin/env node", "none"),
    ],
)
def test_what_needs_no_node_or_names_none_is_not_asked_for(
    tmp_path: Path, first_line: str, wanted: object
) -> None:
    def ask(line: list[str]) -> str:
        raise AssertionError(line)

    check_node(package(tmp_path / "t3", first_line, wanted), "0.1.2", ask)
