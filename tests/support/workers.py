"""Come between a command and its workers: by the name of the operation on their command lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from support.host import Host


def wrap_workers(folder: Path, **instead: str) -> Path:
    """Make a program that is to be argv[0] of a command, which then starts its workers by it.

    A worker of an operation that is named runs these words of sh(1) before it is started. They may
    exec it themselves: it is "$@" of `sys.executable`.
    """
    wrapper = folder / "python3"
    cases = "".join(f"*' {operation}') {words} ;;\n" for operation, words in instead.items())
    wrapper.write_text(f'#!/bin/sh\ncase "$*" in\n{cases}esac\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def start_wrapped(host: Host, wrapper: Path, *words: str, **how: Any) -> subprocess.Popen[str]:
    """Start a command on that host which starts its workers by `wrapper`; its output is a pipe.

    `how`: what else, or other, subprocess.Popen is to be told.
    """
    usual = {"env": host.env(), "cwd": "/", "stdout": subprocess.PIPE}
    line = [str(wrapper), "-m", "t3_backup", *words]
    return subprocess.Popen(line, executable=sys.executable, text=True, **usual | how)


def serves(pid: int | str, operation: str) -> bool:
    """Tell whether the process is a worker of that operation."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return operation.encode() in words
