"""Build the sandbox of a trial: a cell with a copy of one account's data and one version of T3.

`trial` looks for MARK, and does not begin without it.
"""

from __future__ import annotations

from pathlib import Path

from t3_backup.autoupdate import cell
from t3_backup.autoupdate.gate.steps import MARK
from t3_backup.t3.files import STATE_IN_BASE

_PREFIX = "t3-gate-"
_FILE_BYTES = 4 << 30  # how much greater than what it was given a file may become


def unit_name(user: str | None) -> str:
    """Name the unit and the folder of an account's trial, or of an empty state's.

    Whatever characters the account's own name has, this is a valid one.
    """
    return f"{_PREFIX}{'empty' if user is None else user.encode().hex()}"


def build_root(name: str) -> Path:
    """Make the sandbox anew, and say where to put its database. Raises Failure and OSError."""
    state = cell.build_cell(name, {str(MARK)[1:]: ""}) / STATE_IN_BASE
    state.parent.mkdir(mode=0o700)
    return state


def unit_properties(name: str, program: Path, given: int) -> tuple[str, ...]:
    """List the properties of the unit for data of `given` bytes.

    It has as much of the processors as a server: how long its steps take is held against limits.
    """
    # For a caller that was killed. What is mounted in the sandbox can't be removed from in there.
    enter = "/usr/bin/nsenter --mount=/proc/1/ns/mnt"
    paths = " ".join(map(str, cell.cell_paths(name)))
    return (
        *cell.cell_properties(name, [program], _FILE_BYTES + 4 * given),
        "PrivateTmp=yes",
        "UMask=0077",
        # whatever it has left running; the server itself was asked to stop by then
        "KillSignal=SIGKILL",
        f"ExecStopPost=+{enter} -- /usr/bin/rm -rf -- {paths}",
    )


def remove_leftovers() -> None:
    """End and remove the trials of a command that was killed. Raises Failure and OSError."""
    cell.remove_cells(_PREFIX)
