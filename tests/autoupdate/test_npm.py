"""What is made of what npm has installed, by the stand-in for npm: which scripts it runs, what is
kept, and what a kill has left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import fake_t3
import pytest
from support.users import needs_root

from t3_backup.autoupdate import cell
from t3_backup.autoupdate.command_lock import hold_lock
from t3_backup.autoupdate.programs import npm, npm_cell
from t3_backup.autoupdate.programs.installations import Installations
from t3_backup.errors import Failure
from t3_backup.system import transient_unit
from t3_backup.system.transient_unit import Done

pytestmark = needs_root

VERSION = "0.0.42"
SCRIPTS = {"postinstall": "touch was-run"}


@pytest.fixture
def installations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installations:
    """Where npm runs without its cell, and a program says that it is of the right version."""
    monkeypatch.setattr(cell, "PRIVATE", tmp_path / "private")
    monkeypatch.setattr(cell, "_PUBLIC", tmp_path / "public")
    monkeypatch.setattr(transient_unit, "end", lambda _: None)
    monkeypatch.setattr(npm_cell, "run_npm", run_npm)
    monkeypatch.setattr(npm, "ask_version", lambda _: VERSION)
    return Installations(tmp_path / "root")


def run_npm(name: str, words: Sequence[str], seconds: float) -> Done:
    home = cell.PRIVATE / name
    moved = [word.replace(str(cell.home_dir(name)), str(home)) for word in words]
    done = subprocess.run(
        [sys.executable, str(fake_t3.HERE / "npm"), *moved],
        env={"PATH": os.environ["PATH"], "npm_config_prefix": f"{home}/prefix"},
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("form", "place", "ran"),
    [
        ("npm", "lib/node_modules/t3", True),
        ("executable", "lib/node_modules/@t3code/t3-linux-x64", False),
        ("launcher", "lib/node_modules/t3", False),
    ],
)
def test_install_scripts_run_for_a_program_that_does_not_come_built(
    installations: Installations, tmp_path: Path, form: str, place: str, ran: bool
) -> None:
    """The executable's packages have scripts that want a compiler for what it never uses."""
    archive = fake_t3.tarball(tmp_path, VERSION, form=form, scripts=SCRIPTS)
    said: list[str] = []
    npm.fetch_version(installations, VERSION, str(archive), said.append)
    prefix = installations.prefix(VERSION)
    assert said == [f"T3 {VERSION} was installed in {prefix}"]
    assert (prefix / place / "was-run").exists() is ran
    done = subprocess.run(
        [prefix / "bin/t3", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"t3 v{VERSION}\n"
    assert not os.path.isabs(os.readlink(prefix / "bin/t3"))
    assert list(cell.PRIVATE.iterdir()) == []


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"form": "launcher-alone"}, "the launcher has no program"),
        ({"scripts": {"install": "echo broken >&2; exit 3"}}, "npm could not install .*broken"),
    ],
)
def test_what_cannot_be_installed_leaves_nothing(
    installations: Installations, tmp_path: Path, how: dict[str, str], why: str
) -> None:
    archive = fake_t3.tarball(tmp_path, VERSION, **how)  # type: ignore[arg-type]
    with pytest.raises(Failure, match=why):
        npm.fetch_version(installations, VERSION, str(archive), print)
    assert installations.installed_versions() == []
    assert list(cell.PRIVATE.iterdir()) == []
    assert list((installations.root / "versions").glob("*")) == []


def test_a_fetch_that_was_killed_is_removed_and_told_by_the_next_command(
    installations: Installations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = fake_t3.tarball(tmp_path, VERSION)
    monkeypatch.setattr(npm, "ask_version", kill_ourselves)
    child = os.fork()
    if child == 0:
        npm.fetch_version(installations, VERSION, str(archive), print)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert list((installations.root / "versions").iterdir()), "half of it is there"
    said: list[str] = []
    for expected in ([f"an installation of T3 {VERSION} was interrupted: removed"], []):
        said.clear()
        with hold_lock(installations.root, said.append) as interrupted:
            assert interrupted == bool(expected)
        assert said == expected
    assert list((installations.root / "versions").iterdir()) == []
    assert list(cell.PRIVATE.iterdir()) == []


def kill_ourselves(_: Path) -> str:
    os.kill(os.getpid(), 9)
    return ""
