"""What t3-autoupdate has found of logins is kept, and told by the backup's own commands until
somebody can log in again."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from support.doctor_facts import ALICE, HEALTHY, VALUES
from support.manifests import NOON, make_manifest

from t3_backup.doctor import checks
from t3_backup.monitor import status as monitor_status
from t3_backup.monitor.collect import AccountView, Overview
from t3_backup.monitor.health import Thresholds
from t3_backup.t3.login_report import UNKNOWN, Login, LoginReport, read_login, write_login
from t3_backup.text import format_time

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WHY = "no login on port 3773: exchange: POST /x answered 500"


def login(paired: bool | None, ago: timedelta = HOUR, reason: str = "") -> Login:
    at = format_time(NOON - ago)
    return Login(paired, "0.0.25", at, at, reason)


def told(found: Login | None, now: datetime = NOON) -> str:
    return LoginReport(found).trouble("alice", now)


def test_a_failure_stays_until_somebody_can_log_in(tmp_path: Path) -> None:
    write_login(tmp_path, "alice", login(False, 3 * HOUR, WHY))
    write_login(tmp_path, "alice", login(False, HOUR, "still"))
    write_login(tmp_path, "alice", login(None, reason="no server runs"))  # nobody can, either
    found = read_login(tmp_path, "alice").login
    assert found is not None
    assert (found.paired, found.at, found.since, found.reason) == (
        False,
        format_time(NOON - HOUR),
        format_time(NOON - 3 * HOUR),
        "still",
    )
    write_login(tmp_path, "alice", login(True))
    assert read_login(tmp_path, "alice") == LoginReport(login(True))
    write_login(tmp_path, "alice", login(None, reason="no server runs"))
    assert read_login(tmp_path, "alice").trouble("alice", NOON) == ""
    assert [path.name for path in (tmp_path / "alice").iterdir()] == ["login.json"]


def test_it_is_to_be_read_by_all_and_holds_no_secret(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_login(tmp_path, "alice", login(False, reason="Token: 2A3B4C5D6E7F\x1b[31m"))
    finally:
        os.umask(before)
    path = tmp_path / "alice" / "login.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert "2A3B4C5D6E7F" not in path.read_text()
    assert "\x1b" not in path.read_text()


def test_a_failure_is_told_with_its_age_and_what_to_type() -> None:
    found = told(login(False, reason=WHY))
    assert found == (
        f"nobody can log in to T3 0.0.25 (since {NOON - HOUR:%Y-%m-%d %H:%M} UTC): {WHY}; "
        "next: t3-autoupdate check --user alice"
    )
    assert "not checked for 3d" in told(login(False, 3 * DAY, WHY))
    assert "in the future: was the clock set back?" in told(login(False, -DAY, WHY))
    assert [told(one) for one in (login(True, 99 * DAY), login(None), None)] == ["", "", ""]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no JSON",
        "[" * 60_000,
        '{"format": 2}',
        json.dumps({"format": 1, "paired": "yes", "version": "", "at": "", "since": ""}),
        json.dumps({"format": 1, "paired": True, "version": "", "at": "x", "since": "x"}),
        json.dumps({"format": 1, "paired": False, "version": "", "at": "2026-01-01T00:00:00"}),
        "1" * 70_000,
        b"\xff\xfe",
    ],
    ids=lambda content: repr(content)[:16],
)
def test_what_is_no_report_is_said_as_such(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "alice" / "login.json"
    path.parent.mkdir()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_login(tmp_path, "alice").trouble("alice", NOON)
    assert found.startswith(f"{path} can't be read: ")
    assert found.endswith("; next: t3-autoupdate check --user alice")
    write_login(tmp_path, "alice", login(True))  # which is what that does
    assert read_login(tmp_path, "alice").trouble("alice", NOON) == ""


def test_where_there_is_no_t3_autoupdate_nothing_is_said(tmp_path: Path) -> None:
    assert read_login(tmp_path / "none", "alice") == UNKNOWN
    (tmp_path / "alice").touch()  # no folder
    assert "can't be read: Not a directory" in read_login(tmp_path, "alice").problem


def test_what_a_later_version_adds_is_passed_over(tmp_path: Path) -> None:
    write_login(tmp_path, "alice", login(True))
    path = tmp_path / "alice" / "login.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"more": 1}))
    assert read_login(tmp_path, "alice") == LoginReport(login(True))


def test_status_and_nagios_warn_of_it_and_so_does_the_doctor() -> None:
    report = LoginReport(login(False, reason=WHY))
    view = AccountView("alice", in_map=True, snapshots=(make_manifest(1, NOON),), login=report)
    found = monitor_status.status_of(Overview(Path("/s"), 1, (view,)), NOON, Thresholds())
    line, code = monitor_status.nagios(found)
    assert (found.state, code) == ("warning", 1)
    assert "T3-BACKUP WARNING - alice: nobody can log in to T3 0.0.25 (since " in line
    assert any("nobody can log in" in row for row in monitor_status.table(found))
    [account] = monitor_status.document(found)["accounts"]
    assert (account["login"]["paired"], account["login"]["reason"]) == (False, WHY)
    facts = replace(HEALTHY, accounts=(replace(ALICE, login=report),))
    [finding] = [one for one in checks.check_machine(facts, VALUES) if one.name == "login alice"]
    assert (finding.status, WHY in finding.text) == ("warn", True)


def test_of_who_is_not_in_the_map_any_more_nothing_is_said() -> None:
    report = LoginReport(login(False, reason=WHY))
    view = AccountView("alice", in_map=False, snapshots=(make_manifest(1, NOON),), login=report)
    found = monitor_status.status_of(Overview(Path("/s"), 1, (view,)), NOON, Thresholds())
    assert not any("log in" in row for row in monitor_status.table(found))
