"""Runs of the command under strace, or under a filter of the kernel that refuses a call."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from support import programs
from support.host import Answer, Host

KILLED = -9

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="faults are put into system calls by strace"
)


def trace_of(host: Host) -> Path:
    """Where strace writes: beside the map, since the store's disk may be full."""
    return Path(host.env()["T3_BACKUP_MAP"]).parent / "strace"


def _strace(host: Host, parent_only: bool) -> list[str]:
    return [
        "strace",
        "-f",
        *(["-b", "execve"] if parent_only else []),
        "-qq",
        "-o",
        str(trace_of(host)),
    ]


def run_traced(
    host: Host,
    *options: str,
    words: Sequence[str] = ("run",),
    parent_only: bool = False,
    timeout: float = 120,
) -> Answer:
    """A run of the command under strace. `parent_only`: the worker is let go as it is exec'd.
    KILLED where a kill hit."""
    line = [*_strace(host, parent_only), *options, *host.command(*words)]
    return Answer.of(line, host.env(), cwd=Path("/"), timeout=timeout)


def start_traced(
    host: Host, *options: str, words: Sequence[str] = ("run",), parent_only: bool = False
) -> subprocess.Popen[str]:
    """The same, left running."""
    line = [*_strace(host, parent_only), *options, *host.command(*words)]
    return subprocess.Popen(
        line, env=host.env(), cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def trace_worker(host: Host, *options: str, words: Sequence[str] = ("run",)) -> tuple[Answer, str]:
    """A run whose worker, and nobody else, runs under strace; and the worker's trace.

    The parent takes argv[0] for the interpreter that it starts its workers by. -D keeps the parent
    the worker's parent.
    """
    log, wrapper = trace_of(host), trace_of(host).parent / "python3"
    log.unlink(missing_ok=True)
    wrapper.write_text(
        f'#!/bin/sh\nexec strace -D -qq -o {log} {" ".join(options)} {sys.executable} "$@"\n'
    )
    wrapper.chmod(0o755)
    line = [str(wrapper), "-m", "t3_backup", *words]
    done = subprocess.run(
        line,
        executable=sys.executable,
        env=host.env(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Answer(
        done.returncode, done.stdout, done.stderr
    ), log.read_text() if log.exists() else ""


def run_refused(
    host: Host,
    call: str,
    position: int,
    mask: int,
    value: int,
    error: int,
    *,
    words: Sequence[str] = ("run",),
) -> Answer:
    """A run in which the kernel answers `error` to each `call` whose argument `position`, masked,
    is `value`."""
    numbers = map(str, (position, mask, value, error))
    line = programs.line("refuse_call.py", call, *numbers, *host.command(*words))
    return Answer.of(line, host.env(), cwd=Path("/"))
