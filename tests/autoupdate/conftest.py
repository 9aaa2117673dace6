"""A machine that has T3 and no servers: what the tests of a bump as a whole share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from t3_backup.autoupdate import settings
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.programs.installations import GLOBAL
from t3_backup.autoupdate.snapshots import Snapshots

OLD, NEW = "0.0.24", "0.0.25"


@pytest.fixture
def machine(tmp_path: Path) -> Context:
    """One with both versions, where everybody is on the old one."""
    environ = {
        "T3_AUTOUPDATE_ROOT": str(tmp_path / "root"),
        "T3_AUTOUPDATE_FREEZE": str(tmp_path / "freeze"),
    }
    found = Context(
        settings=settings.load(environ, tmp_path / "no-defaults"),
        user_map=tmp_path / "map",
        textfiles=None,
        snapshots=Snapshots(tmp_path / "store"),
        say=lambda text: None,
        warn=lambda text: None,
        stopping=threading.Event(),
    )
    found.user_map.touch()
    for version in (OLD, NEW):
        program = found.installations.prefix(version) / "bin" / "t3"
        program.parent.mkdir(parents=True)
        program.touch()
        os.chmod(program, 0o755)
    for user in (GLOBAL, "alice", "bob"):
        found.installations.link_version(user, OLD)
    return found


@pytest.fixture
def t3_script(tmp_path: Path) -> Callable[[str], Path]:
    """A program of T3's that is a script; what it is called with stands in `called`."""

    def make(script: str) -> Path:
        path = tmp_path / "t3"
        path.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/called\n{script}\n')
        path.chmod(0o755)
        return path

    return make
