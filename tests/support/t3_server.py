"""A process that looks like a T3 server, and has the databases open that it is told to."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from demo.users import User
from support import programs
from support.processes import child_pids, until, user_process


def t3_program(folder: Path) -> Path:
    """An executable called t3: it is Python's, so that it can hold what it is told to."""
    path = folder / "bin" / "t3"
    path.parent.mkdir()
    shutil.copy(os.path.realpath(sys.executable), path)
    path.chmod(0o755)
    return path


@contextlib.contextmanager
def serving(
    user: User,
    program: Path,
    *databases: str | Path,
    words: tuple[str, ...] = ("serve",),
    variables: tuple[str, ...] = (),
    executable: tuple[str, ...] = (),
) -> Iterator[subprocess.Popen[str]]:
    """A server of the user's that holds databases, with the `words` of its command line."""
    text = programs.text("hold_databases.py")
    command = executable or (str(program),)
    line = ["/usr/bin/env", f"HOME={user.home}", *variables, *command, "-I", "-c", text]
    with user_process(user, [*line, *words, "--", *map(str, databases)]) as process:
        try:
            yield process
        finally:
            agents = child_pids(process.pid)
    for pid in agents:  # they end with their parent, in their own time
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "end of an agent")
