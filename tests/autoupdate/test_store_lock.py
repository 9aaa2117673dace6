"""A caller who holds the store may have commands called that need it: by the descriptor that
they hold it by, and by nothing else."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import programs
from support.host import Host
from support.paths import ROOT
from support.users import needs_root

from t3_backup.store import lock


@pytest.fixture
def held(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield fd
    os.close(fd)


def acquired(path: Path, said: object, *passed: int) -> bool:
    line = programs.line("acquire_lock.py", str(path), isolated=False)
    environ = os.environ | {"PYTHONPATH": str(ROOT), lock.INHERITED: str(said)}
    return subprocess.run(line, env=environ, pass_fds=passed, check=False).returncode == 0


def test_who_is_given_the_descriptor_that_holds_it_has_it(tmp_path: Path, held: int) -> None:
    assert acquired(tmp_path, held, held)
    assert acquired(tmp_path, held, held), "a command that ends takes it from nobody"
    assert not acquired(tmp_path, "")


def test_no_other_descriptor_and_no_word_opens_it(tmp_path: Path, held: int) -> None:
    another = os.open(tmp_path, os.O_RDONLY)
    elsewhere = os.open("/", os.O_RDONLY)
    try:
        assert not acquired(tmp_path, another, another), "of the same folder, but it holds nothing"
        assert not acquired(tmp_path, elsewhere, elsewhere)
        for said in (held, "-1", "99999999999999999999", "x", "0"):
            assert not acquired(tmp_path, said), "it was not passed"
    finally:
        os.close(another)
        os.close(elsewhere)


@needs_root
@pytest.mark.parametrize(("environ", "nice"), [({}, "10"), ({lock.INHERITED: "-1"}, "0")])
def test_a_run_lets_others_go_first_but_where_a_server_that_is_down_waits_for_it(
    host: Host, environ: dict[str, str], nice: str
) -> None:
    """A hook tells, which is called since nobody is of that name."""
    hook, found = host.folder / "hooks.d" / "hook", host.folder / "nice"
    hook.parent.mkdir(mode=0o755)
    hook.write_text(f"#!/bin/sh\nnice >{found}\n")
    hook.chmod(0o755)
    host.write_map("lock-nobody")
    answer = host.t3("run", **environ)
    assert answer.code == 1, answer
    assert found.read_text() == f"{nice}\n"
