"""The log goes on when logrotate has taken it away."""

from __future__ import annotations

import json
from pathlib import Path

from support.booted.machine import Machine
from support.booted.users import SERVICE, add_user

LOG = "/var/log/t3-backup/t3-backup-state.log"


def test_logrotate_takes_the_log_and_the_next_run_begins_a_new_one(
    installed: Machine, small: Path
) -> None:
    """Row 30. It refuses a folder that others can write to; and what it makes others can't read."""
    add_user(installed, "alice", small)
    installed.start_unit(SERVICE)
    tried = installed.run("logrotate", "--debug", "/etc/logrotate.d/t3-backup").text
    assert f"considering log {LOG}" in tried
    assert "error" not in tried.lower(), tried
    installed.run("logrotate", "--force", "/etc/logrotate.conf")
    assert users(installed, f"{LOG}.1") == ["alice"]
    assert users(installed, LOG) == []
    installed.start_unit(SERVICE)
    assert users(installed, LOG) == ["alice"]
    modes = installed.run("stat", "-c", "%a %U:%G", "/var/log/t3-backup", LOG, f"{LOG}.1").lines
    assert modes == ["750 root:adm", "640 root:adm", "640 root:adm"]
    installed.run("logrotate", "--force", "/etc/logrotate.conf")
    assert installed.run("zcat", f"{LOG}.2.gz").out.count("\n") == 1


def users(machine: Machine, path: str) -> list[str]:
    """Of whom a log tells."""
    return [json.loads(line)["user"] for line in machine.read(path).splitlines()]
