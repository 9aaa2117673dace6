"""What keeps the service from beginning at all is told at once, since no later try would mend it;
what isn't needed may be gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.booted.machine import Machine
from support.booted.users import MAP, SERVICE, STORE, add_user

ELSEWHERE = "/srv/backups"


@pytest.mark.parametrize(
    ("lost", "status"),
    [(STORE, "1"), ("/usr/bin/t3-backup-state", "203")],
    ids=["store", "program"],
)
def test_what_is_lost_raises_the_alarm_at_once(installed: Machine, lost: str, status: str) -> None:
    installed.write(MAP, "# nobody\n")
    installed.run("mv", lost, f"{lost}.lost")
    installed.run("systemctl", "start", SERVICE, check=False)
    assert installed.show(SERVICE, "ActiveState", "ExecMainStatus") == {
        "ActiveState": "failed",
        "ExecMainStatus": status,
    }
    alert = ("SYSLOG_IDENTIFIER=t3-backup-state", "PRIORITY=1")
    assert installed.until(lambda: installed.journal(*alert), "alarm")


def test_a_store_elsewhere_wants_the_drop_in_of_the_manual_page_and_not_the_default_store(
    installed: Machine, grown: Callable[[int], Path]
) -> None:
    add_user(installed, "alice", grown(4))
    installed.run("mkdir", "-m", "700", ELSEWHERE)
    installed.run("rm", "-r", STORE)
    installed.write("/etc/default/t3-backup", f"T3_BACKUP_DEST={ELSEWHERE}\n")
    installed.run("systemctl", "start", SERVICE, check=False)
    assert installed.run("find", ELSEWHERE, "-type", "f").out == ""
    page = installed.run("man", "t3-backup-state", env={"MANWIDTH": "80"}).out
    text = "".join(
        f"{line.strip()}\n"
        for line in page.splitlines()
        if line.strip()
        in ("[Unit]", f"RequiresMountsFor={ELSEWHERE}", "[Service]", f"ReadWritePaths={ELSEWHERE}")
    )
    installed.write(f"/etc/systemd/system/{SERVICE}.d/override.conf", text)
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "start", SERVICE)
    assert installed.run("t3-backup-state", "list", "alice").out.count(" verified") == 1


def test_a_store_that_would_go_with_the_service_is_refused_and_the_doctor_says_so(
    installed: Machine, grown: Callable[[int], Path]
) -> None:
    """Row 20. The service has a /var/tmp of its own: what it writes there is nobody's backup."""
    add_user(installed, "alice", grown(4))
    installed.write("/etc/default/t3-backup", "T3_BACKUP_DEST=/var/tmp/store\n")
    installed.run("systemctl", "start", SERVICE, check=False)
    assert installed.show(SERVICE, "ActiveState", "ExecMainStatus") == {
        "ActiveState": "failed",
        "ExecMainStatus": "2",
    }
    assert installed.journal("T3_BACKUP_USER=alice") == []
    found = installed.run("t3-backup-state", "doctor", check=False)
    assert found.code == 1
    assert "t3-backup-state.service does not see the store (/var/tmp/store)" in found.out
