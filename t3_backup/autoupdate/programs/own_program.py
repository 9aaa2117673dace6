"""Notice accounts that run a T3 of their own, and not the program that is linked for them.

`t3 update` moves a user's own T3, beneath their base directory, and a unit may run that one. Then
our link says nothing of what their server is. Such an account is left alone, and told.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from t3_backup.autoupdate.programs.installations import GLOBAL, Installations
from t3_backup.system.systemd import Service
from t3_backup.t3.servers import Server
from t3_backup.t3.unit import unit_name
from t3_backup.text import printable, quote

# where root installs programs: what runs from there was installed for everybody
_OF_ALL = ("/usr", "/opt", "/srv", "/bin", "/sbin", "/snap", "/nix")


def why_left_alone(one: Server, installations: Installations) -> str:
    """Say that an account runs a T3 of its own, and what to do; empty where it doesn't.

    Nothing in its home is looked at. Raises Failure.
    """
    linked = installations.linked_version(one.user) or installations.linked_version(GLOBAL)
    if linked is None or one.service is None:
        return ""  # there is nothing to compare
    running = one.running_program()
    found = [*([] if running is None else [running]), *started_programs(one.service)]
    own = [path for path in found if is_own_program(path, one.account.home, installations.root)]
    return "" if not own else explain_own_program(one.user, own[0], linked, installations.launcher)


def is_own_program(program: Path, home: Path, root: Path) -> bool:
    """Tell whether a program that runs is a user's own, and neither of `root` nor everybody's.

    Pure: a server that has not restarted since T3 was taken over runs what was everybody's.
    """
    if program.is_relative_to(root):
        return False
    return program.is_relative_to(home) or not any(map(program.is_relative_to, _OF_ALL))


def explain_own_program(user: str, program: Path, linked: str, launcher: Path) -> str:
    """Tell of a program of a user's own, and how they are taken back."""
    return (
        f"{user}: runs T3 of their own ({printable(str(program))}), and not the program that is "
        f"linked for them ({linked}): left alone; next: leave it so, or let its unit run "
        f"{launcher} (systemctl cat {quote(unit_name(user))})"
    )


def started_programs(service: Service) -> list[Path]:
    """List the programs that a unit starts, as systemd has read them. Raises Failure."""
    found = re.findall(r"\{ path=(\S+) ;", service.show("ExecStart"))
    return [Path(os.path.normpath(path)) for path in found]
