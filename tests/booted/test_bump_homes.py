"""A version bump asks no file in a home for anything, as root: a user's file system may never
answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.booted import t3_servers
from support.booted.t3_deployment import deploy
from support.booted.t3_servers import USERS, versions
from support.root_trace import OPTIONS, touched

_TRACE = "/var/tmp/trace"


@pytest.mark.soak
def test_a_bump_asks_no_file_of_a_users_for_anything(
    suite: str, deb: Path, autoupdate_deb: Path, grown: Callable[[int], Path], tmp_path: Path
) -> None:
    """Row 64. Nor does what else is typed about versions; what runs as a user is started by
    systemd, or has become the user."""
    with deploy(suite, deb, autoupdate_deb, grown(8)) as deployment:
        machine = deployment.machine
        machine.run("apt", "install", "--yes", "--no-install-recommends", "strace")
        t3_servers.offer_version(machine, "0.0.25")
        for words in (
            ("adopt",),
            ("status",),
            ("--dry-run", "--to", "0.0.25"),
            ("--to", "0.0.25"),
            ("check",),
            ("rollback", "--yes"),
        ):
            line = ("strace", "-f", "--seccomp-bpf", "-qq", *OPTIONS, "-o", _TRACE)
            answer = machine.run(*line, "t3-autoupdate", *words, check=False, timeout=600)
            assert answer.code == 0, answer
            trace = tmp_path / "trace"
            trace.write_text(machine.read(_TRACE))
            for user in USERS:
                assert touched(trace, Path("/home", user)) == [], words
            if words[0] == "--to":
                assert touched(trace, Path("/home", USERS[0]), by_user=True)
                assert versions(machine) == dict.fromkeys(USERS, "0.0.25")
