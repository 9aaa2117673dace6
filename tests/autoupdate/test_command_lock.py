"""Commands take turns: the next one waits for the one that is at work, and for nobody else."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import programs
from support.users import needs_root

from t3_backup.autoupdate.command_lock import hold_lock
from t3_backup.autoupdate.context import Context
from t3_backup.errors import LockHeld

pytestmark = needs_root

NOBODY = 65534


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """One that everybody may enter, as the folder of the programs."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_a_user_who_locks_all_that_they_can_open_keeps_no_command_waiting(machine: Context) -> None:
    """An account that is down, and whose server only `resume` starts, would stay down for as long
    as that user wants."""
    with hold_lock(machine.settings.root):
        pass  # all is there by now
    line, pipe = programs.line("lock_all.py", str(machine.settings.root)), subprocess.PIPE
    with subprocess.Popen(
        line, stdin=pipe, stdout=pipe, text=True, user=NOBODY, group=NOBODY, extra_groups=()
    ) as user:
        assert user.stdout is not None
        assert int(user.stdout.readline()) > 0, "the user can open the programs, as everybody"
        with hold_lock(machine.settings.root):
            pass
        user.communicate("")


def test_a_command_that_is_at_work_has_the_next_one_wait(
    machine: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("t3_backup.autoupdate.command_lock._WAIT_S", 0.1)
    with (
        hold_lock(machine.settings.root),
        pytest.raises(LockHeld, match="in use by"),
        hold_lock(machine.settings.root),
    ):
        pass
    fd = os.open(machine.settings.root, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)
