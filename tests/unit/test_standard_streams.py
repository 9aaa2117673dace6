"""The standard streams of a program, however it was started."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

CLOSED = [fds for count in range(4) for fds in itertools.combinations((0, 1, 2), count)]
PROGRAM = """
import os, sys
from t3_backup.system import standard_streams
standard_streams.open_closed()
opened = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
print("to whoever listens", flush=True)
sys.stderr.write("to whoever listens\\n")
sys.stdin.read()
assert standard_streams.find_lost() is None
os.write(opened, b"ours")
"""


@pytest.mark.parametrize("fds", CLOSED, ids=str)
def test_no_descriptor_of_ours_takes_the_place_of_a_closed_stream(
    tmp_path: Path, fds: tuple[int, ...]
) -> None:
    """Row 53."""
    ours = tmp_path / "ours"
    inside = f'exec "$@" {" ".join(f"{fd}>&-" for fd in fds)}'
    done = subprocess.run(
        ["sh", "-c", inside, "sh", sys.executable, "-c", PROGRAM, str(ours)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ours.read_text() == "ours"
    said = "to whoever listens\n"
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        said * (1 not in fds),
        said * (2 not in fds),
    )


def test_a_program_that_it_starts_has_them_too() -> None:
    """Row 53."""
    program = (
        "import os; from t3_backup.system import standard_streams as s; s.open_closed();"
        "os.execvp('readlink', ['readlink', '/proc/self/fd/0', '/proc/self/fd/2'])"
    )
    inside = f'exec {sys.executable} -c "$0" <&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", inside, program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [os.devnull] * 2


CUT_BYTES = 100
FOUND_LOST = """
import sys
from t3_backup.system import standard_streams
standard_streams.open_closed()
{}
sys.exit(3 if standard_streams.find_lost() else 0)
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_what_a_file_takes_a_part_of_is_lost(tmp_path: Path, name: str, unbuffered: str) -> None:
    """Row 53. The first write(2) is short, and no error; so it is on a disk that gets full."""
    program = FOUND_LOST.format(
        "import contextlib\n"
        "write = standard_streams.write_out if sys.argv[1] == 'stdout' else"
        " standard_streams.write_error\n"
        f"with contextlib.suppress(OSError): write('x' * {2 * CUT_BYTES})"
    )
    file = tmp_path / "told"
    with file.open("wb") as told:
        done = subprocess.run(
            [sys.executable, "-c", program, name],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (CUT_BYTES, CUT_BYTES)),
            **{name: told},  # type: ignore[call-overload]
        )
    assert (file.stat().st_size, done.returncode) == (CUT_BYTES, 3)


def test_what_was_written_and_not_yet_sent_is_lost_too() -> None:
    """Row 53. A library may print; and what is left to the exit would end in a traceback."""
    program = FOUND_LOST.format("sys.stdout.write('not yet')")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (3, "")
