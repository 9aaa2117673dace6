"""`status` on a real store: what it says of real runs, that it touches nothing, and that a check
always answers as one."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from support.host import Answer, Host
from support.manifests import rewrite_manifest
from support.paths import DATA, ROOT
from support.store_checks import stat_tree
from support.users import needs_root

from demo.users import User
from t3_backup.text import format_time, utc_now

pytestmark = needs_root

TINY = DATA / "state-0.0.24.sqlite"


@pytest.fixture
def sam(make_user: Callable[..., User], host: Host) -> User:
    """Who has a database; the map names them."""
    user = make_user("st-sam", TINY)
    host.write_map(user)
    return user


@pytest.fixture
def tea(make_user: Callable[..., User], host: Host, sam: User) -> User:
    """Who has none; the map names both."""
    user = make_user("st-tea")
    host.write_map(sam, user)
    return user


def change(host: Host, user: User, **values: object) -> None:
    """The manifest of the one snapshot, with other values."""
    [snapshot] = host.snapshots(user)
    rewrite_manifest(snapshot.with_suffix(".json"), **values)


def check(host: Host, *words: str, **environ: str) -> Answer:
    """A check: one line on standard output, whatever happens, and nothing else anywhere."""
    answer = host.t3("status", *words, **environ)
    assert answer.err == "", answer
    assert answer.out.count("\n") == 1, answer
    assert answer.out.startswith(
        f"T3-BACKUP {('OK', 'WARNING', 'CRITICAL', 'UNKNOWN')[answer.code]} - "
    ), answer
    return answer


def test_after_a_run_all_is_well_and_an_account_without_a_database_is_too(
    host: Host, sam: User, tea: User
) -> None:
    assert host.t3().code == 0
    answer = host.t3("status", "--json")
    assert (answer.code, answer.document["state"], answer.err) == (0, "ok", "")
    found = answer.account(sam.name)
    assert (found["state"], found["good"], found["snapshots"], found["bytes"]) == (
        "ok",
        1,
        1,
        TINY.stat().st_size,
    )
    assert found["used_bytes"] >= TINY.stat().st_size
    assert found["last_attempt"]["outcome"] == "backed_up"
    assert (answer.account(tea.name)["state"], answer.account(tea.name)["note"]) == (
        "ok",
        "no database",
    )
    plain = host.t3("status")
    assert plain.code == 0
    assert [line.split()[0] for line in plain.out.splitlines()[:3]] == [
        "ACCOUNT",
        sam.name,
        tea.name,
    ]
    assert "not copied: " in plain.out
    line = check(host, "--nagios")
    assert line.code == 0
    assert f"'{sam.name}_age'=" in line.out


def test_before_the_first_run_each_account_of_the_map_is_critical(
    host: Host, sam: User, tea: User
) -> None:
    host.store.mkdir(mode=0o700)
    answer = host.t3("status")
    assert answer.code == 1
    assert answer.out.count("critical: never backed up") == 2
    assert check(host, "--nagios").code == 2


def test_what_failed_is_told_with_its_reason_until_it_goes_well_again(
    host: Host, sam: User
) -> None:
    assert host.t3().code == 0
    sam.database.rename(sam.home / "away")
    assert host.t3().code == 1
    answer = host.t3("status")
    assert answer.code == 0, "a snapshot is fresh"
    assert f"{sam.name}: last error " in answer.out
    assert "was it deleted?" in answer.out
    assert check(host, "--nagios").code == 1
    (sam.home / "away").rename(sam.database)
    assert host.t3().code == 0
    assert "last error" not in host.t3("status").out


def test_a_suspect_one_is_critical_until_it_is_accepted(host: Host, sam: User) -> None:
    assert host.t3().code == 0
    assert host.t3("run", "--label", "second").code == 0
    rewrite_manifest(
        host.snapshots(sam)[-1].with_suffix(".json"),
        verdict="suspect",
        reasons=["half of it is gone"],
    )
    answer = check(host, "--nagios")
    assert answer.code == 2
    assert (
        f"(half of it is gone); nothing is pruned until: t3-backup-state accept {sam.name}"
        in answer.out
    )
    assert host.t3("accept", sam.name).code == 0
    assert check(host, "--nagios").code == 0


def test_the_thresholds_decide(host: Host, sam: User) -> None:
    assert host.t3().code == 0
    change(host, sam, taken_at="2026-01-02T03:04:05Z")
    assert check(host, "--nagios").code == 2
    assert check(host, "--nagios", "--max-age", "5000w").code == 0
    assert check(host, "--nagios", "--max-age", "5000w", "--min-snapshots", "2").code == 1


def test_a_disk_with_less_room_than_has_to_stay_free_is_told(host: Host, sam: User) -> None:
    """Where no attempt can be noted any more, status would be well for a day."""
    assert host.t3().code == 0
    answer = check(host, "--nagios", T3_BACKUP_RESERVE="100000T")
    assert answer.code == 1
    assert "stay free (T3_BACKUP_RESERVE): no backup can be made; free some space" in answer.out


def test_a_database_that_has_not_changed_for_days_is_well_in_status_doctor_and_report_alike(
    host: Host, sam: User
) -> None:
    """As long as runs find it unchanged; once none has for as long, all three say that it is
    old."""
    pytest.importorskip("jinja2")

    def judged() -> tuple[str, str, bool]:
        """How the status, the doctor, and the report (well or not) have it."""
        checks = host.t3("doctor", "--json").document["checks"]
        [found] = [one["status"] for one in checks if one["name"] == f"snapshots {sam.name}"]
        page = host.t3("report", "--html", "-").out
        assert ("All is well" in page) is not ("a look:" in page)
        return host.t3("status", "--json").account(sam.name)["state"], found, "All is well" in page

    long_ago = format_time(utc_now() - timedelta(days=5))
    assert host.t3().code == 0
    change(host, sam, taken_at=long_ago)
    assert judged() == ("critical", "fail", False)
    assert host.t3().code == 0
    assert host.t3("status", "--json").account(sam.name)["last_attempt"]["outcome"] == "unchanged"
    assert judged() == ("ok", "ok", True)
    ledger = json.loads((host.store / "attempts.json").read_text())
    for attempt in ledger["accounts"][sam.name]:
        attempt["at"] = long_ago
    (host.store / "attempts.json").write_text(json.dumps(ledger))
    assert judged() == ("critical", "fail", False)


def test_somebody_who_left_the_map_is_a_warning_and_an_account_folder_of_the_user_s_own_is_critical(
    host: Host, sam: User, make_user: Callable[..., User]
) -> None:
    assert host.t3().code == 0
    sam.give(host.account_dir(sam))
    answer = check(host, "--nagios")
    assert answer.code == 2
    assert "takes it over" in answer.out
    os.chown(host.account_dir(sam), 0, 0)
    host.write_map(make_user("st-new", TINY))
    assert host.t3().code == 0
    answer = check(host, "--nagios")
    assert (answer.code, "not in the map" in answer.out) == (1, True)


def test_nothing_is_written_and_no_lock_is_taken(host: Host, sam: User, tea: User) -> None:
    assert host.t3().code == 0
    (host.store / "attempts.json").write_text("broken")
    before = stat_tree(host.folder)
    held = os.open(host.store, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        answer = host.t3("status")
        assert (answer.code, "attempts.json can't be read" in answer.out) == (1, True), (
            "without it, nobody was skipped"
        )
        assert check(host, "--nagios", sam.name).code == 1
    finally:
        os.close(held)
    assert stat_tree(host.folder) == before


def test_nothing_that_was_noted_of_a_user_s_is_obeyed_by_a_terminal(host: Host, sam: User) -> None:
    assert host.t3().code == 0
    ledger = json.loads((host.store / "attempts.json").read_text())
    [entry] = ledger["accounts"][sam.name]
    entry |= {"outcome": "failed", "reason": "a\x1b[31mb\r\nc|d\u202e"}
    (host.store / "attempts.json").write_text(json.dumps(ledger))
    assert "a?[31mb??c|d?" in host.t3("status").out
    assert "\x1b" not in host.t3("status").out
    assert "(a?[31mb??c/d?)" in check(host, "--nagios").out


# --- a check that can't be done


@pytest.mark.parametrize(
    "words",
    [
        ("--nagios", "--max-age", "soon"),
        ("--nagios", "--max-age", "0h"),
        ("--nagios", "--max-age"),
        ("--nagios", "--min-snapshots", "-1"),
        ("--nagios", "--min-snapshots", "many"),
        ("--nagios", "--json"),
        ("--nagios", "--bogus"),
        ("--nagios", "one", "two"),
        ("--max-age", "--nagios"),
        ("--nagios", "--dest", "relative"),
        ("--nagios", "nobody-of-that-name"),
        ("--nagios", "../etc"),
        ("--nagios", "a\nb\x1b[31m"),
        ("--nagios", "--map", "/nonexistent"),
        ("--nagios", "--dest", "/nonexistent"),
        ("--nagios", "--dest", "/etc"),
        ("--nagios", "--dest", "/etc/passwd"),
    ],
)
def test_wrong_use_and_what_can_t_be_read_are_unknown(
    words: tuple[str, ...], host: Host, sam: User
) -> None:
    assert host.t3().code == 0
    assert check(host, *words).code == 3


def test_a_check_is_asked_for_by_the_whole_option_and_an_abbreviation_is_wrong_use(
    host: Host, sam: User
) -> None:
    assert host.t3().code == 0
    for words in (("status", "--nag"), ("list", "--nagios"), ("status", "--max", "2d")):
        answer = host.t3(*words)
        assert (answer.code, answer.out, "unrecognized arguments" in answer.err) == (2, "", True), (
            answer
        )


def test_no_accounts_at_all_and_senseless_settings_are_unknown(host: Host, sam: User) -> None:
    host.store.mkdir(mode=0o700)
    host.map.write_text("# nobody\n")
    assert "no accounts" in check(host, "--nagios").out
    assert check(host, "--nagios", T3_BACKUP_KEEP="many").code == 3


def test_a_mistake_of_ours_is_unknown_and_no_traceback(host: Host, sam: User) -> None:
    program = (
        "import sys; from t3_backup.monitor import status as health_report; "
        "from t3_backup.cli.main import main\n"
        "health_report.nagios = lambda _: 1 / 0\n"
        "sys.exit(main(['status', '--nagios']))"
    )
    assert host.t3().code == 0
    line = [sys.executable, "-c", program]
    done = subprocess.run(
        line, env=host.env(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (3, "", 1)
    assert done.stdout.startswith("T3-BACKUP UNKNOWN - internal error")


def test_for_people_the_same_is_an_error_as_with_every_command(host: Host, sam: User) -> None:
    assert (host.t3("status").code, host.t3("status", "--max-age", "soon").code) == (1, 2)
    assert host.t3("status").err.startswith("t3-backup-state: no store at ")
    assert "is no time span such as 90m" in host.t3("status", "--max-age", "soon").err


# --- somebody who is not root


def test_somebody_else_sees_their_own_account_in_their_own_store(host: Host, sam: User) -> None:
    def own(*words: str, dest: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            host.command(*words, "--dest", str(dest)), env=host.env(), cwd=ROOT, user=sam.uid, group=sam.gid, extra_groups=[],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    mine = sam.home / "backups"
    assert own("run", dest=mine).returncode == 0
    done = own("status", "--json", dest=mine)
    assert (
        done.returncode,
        [account["user"] for account in json.loads(done.stdout)["accounts"]],
    ) == (0, [sam.name])
    assert own("status", "--nagios", dest=mine).returncode == 0
    assert host.t3().code == 0
    done = own("status", "--nagios", dest=host.store)
    assert (done.returncode, done.stderr) == (3, "")
    assert "can't be opened by you" in done.stdout
