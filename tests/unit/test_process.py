"""How other programs are started, so that a Ctrl-C does not end them."""

from __future__ import annotations

import errno
import os
import select
import subprocess

import pytest
from support import programs

from t3_backup.system.process import open_end, run_in_own_group


def test_a_ctrl_c_held_down_ends_nothing_that_is_just_starting() -> None:
    """For a moment it is in the group of the command that starts it."""
    done = subprocess.run(
        programs.line("start_under_ctrl_c.py", isolated=False),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0"] * 100


def test_what_a_program_prints_and_how_it_ends_is_returned() -> None:
    line = ["/bin/sh", "-c", "cat; echo $WORD; printf '\\377' >&2; exit 3"]
    done = run_in_own_group(line, env={"WORD": "said"})
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\n", "�")


def test_one_that_does_not_end_is_killed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_in_own_group(["/usr/bin/sleep", "600"], env={}, seconds=0.1)


@pytest.mark.parametrize("refused", [0, errno.EPERM, errno.ENOSYS])
def test_its_end_is_told_with_a_pidfd_and_without(
    monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    def refuse(_pid: int) -> int:
        raise OSError(refused, os.strerror(refused))

    if refused:
        monkeypatch.setattr(os, "pidfd_open", refuse)
    with subprocess.Popen(["/usr/bin/cat"], stdin=subprocess.PIPE) as process:
        end = open_end(process.pid)
        assert select.select([end], [], [], 0.1)[0] == [], "it runs"
        assert process.stdin is not None
        process.stdin.close()
        assert select.select([end], [], [], 20)[0] == [end]
        assert process.wait() == 0, "it was not reaped by who waited for it"
        os.close(end)
