"""The values of t3-autoupdate: the environment beats the file, and what makes no sense is refused
by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from t3_backup.autoupdate import settings
from t3_backup.errors import UsageError


def test_the_environment_beats_the_file_which_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "t3-autoupdate"
    file.write_text("T3_PIN=0.0.25\nT3_AUTOUPDATE_WATCH=7  # seconds\n")
    found = settings.load({"T3_PIN": "0.0.26", "T3_BIN": "/opt/t3"}, file)
    assert (found.pin, found.watch, found.settle, found.bin) == ("0.0.26", 7, 3, Path("/opt/t3"))
    assert settings.load({"T3_PIN": ""}, file).pin == "0.0.25", "empty is unset"
    assert settings.load({}, tmp_path / "none").pin == "0.0.24"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("T3_PIN", "latest"),
        ("T3_NPM_SPEC", "t3"),
        ("T3_NPM_SPEC", "--x={version}"),
        ("T3_BIN", "t3"),
        ("T3_AUTOUPDATE_WATCH", "0"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_name_and_origin(
    tmp_path: Path, name: str, value: str
) -> None:
    file = tmp_path / "t3-autoupdate"
    file.write_text(f"\n{name}={value}\n")
    for environ, origin in (({name: value}, "environment"), ({}, f"{file}:2")):
        with pytest.raises(UsageError) as caught:
            settings.load(environ, file if not environ else tmp_path / "none")
        assert str(caught.value).startswith(f"{name}: {value!r} ({origin}) is not ")


def test_a_name_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t3-autoupdate"
    file.write_text("T3_PINN=0.0.25\n")
    with pytest.raises(
        UsageError, match=r"'T3_PINN=0\.0\.25' is not a setting; known: T3_AUTOUPDATE_FREEZE, "
    ):
        settings.load({}, file)
