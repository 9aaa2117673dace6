"""Say which program of T3's a process runs, as /proc has it.

What /proc says are texts, and no file of a user's is asked for: root may read them.
"""

from __future__ import annotations

import os
from pathlib import Path

from t3_backup.system.proc_files import DELETED, parse_strings
from t3_backup.t3.server_processes import Process

_MOST_BYTES = 64 << 10  # of a command line


def read_running_program(pid: int) -> Path | None:
    """Read which T3 a process runs: the executable, or the script of an interpreter.

    None where it has ended, or where that can't be told.
    """
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = parse_strings(file.read(_MOST_BYTES))
    except OSError:
        return None
    return program_in(pid, arguments, _read_link(f"/proc/{pid}/exe"))


def program_in(pid: int, arguments: tuple[str, ...], executable: str) -> Path | None:
    """Tell the program from a command line and from what is executed (empty: not known)."""
    executable = executable or next(iter(arguments), "")  # as it was called
    found = Process(pid, 0, arguments, executable).own_program()
    return Path(os.path.normpath(found)) if found.startswith("/") else None


def _read_link(path: str) -> str:
    """Read a link of /proc; empty where that needs a capability that a unit doesn't have."""
    try:
        return os.readlink(path).removesuffix(DELETED)
    except OSError:
        return ""
