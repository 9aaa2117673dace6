"""What is seen of other processes, and waiting for it."""

from __future__ import annotations

import contextlib
import pwd
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from demo.users import User

BOUND_S = 20  # how long anything here may take before it counts as hanging


def process_status(pid: int) -> dict[str, str]:
    """/proc/PID/status; empty where there is no such process any more."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {
        name: value.strip()
        for name, _, value in (line.partition(":") for line in text.splitlines())
    }


def run_within(
    seconds: float, line: Sequence[str], env: Mapping[str, str], cwd: str | Path = "/"
) -> subprocess.CompletedProcess[str]:
    """Run a command that must end in so many seconds.

    One that sleeps past SIGKILL is not waited for, as `subprocess.run` does.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            line, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=errors
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"{line} has not ended after {seconds:g} s") from None
        for file in (out, errors):
            file.seek(0)
        return subprocess.CompletedProcess(line, process.returncode, out.read(), errors.read())


def until(condition: Callable[[], Any], what: str) -> Any:
    """What `condition` gives as soon as it gives something; what vanishes while it looks is looked
    for again."""
    end = time.monotonic() + BOUND_S
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if found := condition():
                return found
        time.sleep(0.01)
    raise AssertionError(f"no {what} in {BOUND_S} s")


def child_pids(pid: int) -> list[int]:
    """The pids of its child processes."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [int(word) for word in task.read_text().split()]
    return found


def processes_of(user: User) -> list[int]:
    """Every process of the user that is not dead."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                status = (entry / "status").read_text()
                if (
                    f"\nUid:\t{pwd.getpwnam(user.name).pw_uid}\t" in status
                    and "\nState:\tZ" not in status
                ):
                    found.append(int(entry.name))
    return found


def as_user(user: User, line: Sequence[str]) -> subprocess.Popen[str]:
    """A process of the user's, which talks by standard input and output."""
    return subprocess.Popen(
        line,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        user=user.uid,
        group=user.gid,
        extra_groups=[],
    )


@contextlib.contextmanager
def user_process(
    user: User, line: Sequence[str], ready: str = "ready"
) -> Iterator[subprocess.Popen[str]]:
    """A program that runs as the user, once it has said that it is `ready`; killed at the end."""
    with as_user(user, line) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{ready}\n"
            yield process
        finally:
            process.kill()
