"""What systemd says of the units is read as it is meant, and what keeps the timer from its work is
found."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.doctor_facts import ALICE, HEALTHY, VALUES

from t3_backup.doctor import unit_checks, units
from t3_backup.doctor.facts import TextfileFacts
from t3_backup.doctor.finding import Finding
from t3_backup.doctor.units import Systemd, is_writable, parse_paths, parse_show, parse_span

# As systemd 252 says it of the installed package.
TIMER = parse_show("""\
FragmentPath=/lib/systemd/system/t3-backup-state.timer
DropInPaths=
LoadState=loaded
ActiveState=active
UnitFileState=enabled
NextElapseUSecRealtime=Fri 2026-11-27 03:38:20 UTC
""")
SERVICE = parse_show("""\
TimeoutStartUSec=23h
Result=success
ExecMainStartTimestamp=Thu 2026-11-26 03:30:05 UTC
ExecMainExitTimestamp=Thu 2026-11-26 03:31:10 UTC
ExecMainStatus=0
ReadWritePaths=/var/backups/t3-state -/var/log/t3-backup
ReadOnlyPaths=/run
InaccessiblePaths=-/root -/run/user -/boot
ProtectHome=no
ProtectSystem=strict
LoadState=loaded
ActiveState=inactive
SubState=dead
FragmentPath=/lib/systemd/system/t3-backup-state.service
""")
# What these two differ in is not what is judged.
PROOF_TIMER = {name: value.replace("-state", "-verify") for name, value in TIMER.items()}
PROOF_SERVICE = SERVICE | {
    "FragmentPath": "/lib/systemd/system/t3-backup-verify.service",
    "ReadWritePaths": "/var/backups/t3-state",
}
INSTALLED = Systemd(
    runs=True,
    timer=TIMER,
    service=SERVICE,
    proof_timer=PROOF_TIMER,
    proof_service=PROOF_SERVICE,
    packaged=True,
)
NEVER_RUN = {"ExecMainStartTimestamp": "", "ExecMainExitTimestamp": ""}


def examine(systemd: Systemd, **changes: Any) -> dict[str, Finding]:
    found = list(unit_checks.check_units(replace(HEALTHY, systemd=systemd, **changes), VALUES))
    assert len({finding.name for finding in found}) == len(found)
    return {finding.name: finding for finding in found}


def with_timer(**changes: str) -> Systemd:
    return replace(INSTALLED, timer=TIMER | changes)


def with_service(**changes: str) -> Systemd:
    return replace(INSTALLED, service=SERVICE | changes)


def test_on_a_healthy_machine_every_check_of_the_units_is_ok() -> None:
    found = examine(INSTALLED)
    assert {finding.name: finding.status for finding in found.values()} == dict.fromkeys(
        (
            "by hand",
            "timer",
            "last run",
            "sandbox",
            "time limit",
            "proof timer",
            "last proof",
            "proof sandbox",
        ),
        "ok",
    )
    assert found["timer"].text.endswith("next on Fri 2026-11-27 03:38:20 UTC")


# --- the timer


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"LoadState": "not-found"}, "install the package"),
        ({"LoadState": "masked"}, "systemctl unmask t3-backup-state.timer"),
        ({"LoadState": "bad-setting"}, "can't be loaded (bad-setting)"),
        ({"UnitFileState": "disabled"}, "systemctl enable --now t3-backup-state.timer"),
        ({"UnitFileState": "enabled-runtime"}, "systemctl enable --now t3-backup-state.timer"),
        ({"UnitFileState": ""}, "not enabled"),
        ({"ActiveState": "inactive"}, "systemctl enable --now t3-backup-state.timer"),
        ({"ActiveState": "failed"}, "not active (failed)"),
        ({"NextElapseUSecRealtime": ""}, "never starts anything"),
        ({"NextElapseUSecRealtime": "n/a"}, "never starts anything"),
        ({"NextElapseUSecRealtime": "infinity"}, "never starts anything"),
    ],
)
def test_a_timer_that_starts_nothing_fails(changes: dict[str, str], said: str) -> None:
    found = examine(with_timer(**changes))["timer"]
    assert found.status == "fail"
    assert said in found.text


def test_while_a_run_goes_on_the_timer_has_no_next_time_and_needs_none() -> None:
    busy = replace(
        with_timer(NextElapseUSecRealtime=""),
        service=SERVICE | {"ActiveState": "activating", "SubState": "start"},
    )
    assert examine(busy)["timer"].status == "ok"
    assert examine(busy)["last run"].status == "ok"


def test_without_systemd_or_an_answer_of_it_there_is_no_verdict_about_units() -> None:
    assert {name: finding.status for name, finding in examine(Systemd(runs=False)).items()} == {
        "by hand": "ok",
        "systemd": "note",
    }
    found = examine(Systemd(runs=True, problem="timed out"))
    assert {name: finding.status for name, finding in found.items()} == {
        "by hand": "ok",
        "systemd": "warn",
    }


# --- an installation by hand


def test_an_installation_by_hand_fails_and_the_commands_that_remove_it_are_complete() -> None:
    unit = "/etc/systemd/system/t3-backup-state.service"
    old = replace(with_service(FragmentPath=unit), old=(unit, "/usr/local/bin/t3-backup-state.sh"))
    found = examine(old)["by hand"]
    assert found.status == "fail"
    assert found.text.endswith(
        "; systemctl disable --now t3-backup-state.timer && "
        "rm /etc/systemd/system/t3-backup-state.service /usr/local/bin/t3-backup-state.sh && "
        "systemctl daemon-reload && systemctl enable --now t3-backup-state.timer"
    )
    assert "enable" not in examine(replace(old, packaged=False))["by hand"].text.replace(
        "disable", ""
    )
    script = examine(Systemd(runs=True, old=("/usr/local/bin/t3-backup-state",)))["by hand"]
    assert script.text.endswith("; rm /usr/local/bin/t3-backup-state && systemctl daemon-reload")
    alone = examine(Systemd(runs=False, old=("/usr/local/sbin/t3-backup-state",)))["by hand"]
    assert alone.text.endswith("; rm /usr/local/sbin/t3-backup-state")


@pytest.mark.parametrize(
    "folder", ["/run/systemd/system", "/usr/local/lib/systemd/system", "/etc/systemd/system"]
)
def test_a_unit_from_anywhere_but_the_package_s_folder_stands_before_it(folder: str) -> None:
    found = examine(with_timer(FragmentPath=f"{folder}/t3-backup-state.timer"))["by hand"]
    assert found.status == "fail"
    assert f"rm {folder}/t3-backup-state.timer" in found.text


def test_a_unit_that_is_masked_is_none_that_was_made_by_hand() -> None:
    masked = {"LoadState": "masked", "FragmentPath": "/etc/systemd/system/t3-backup-state.timer"}
    assert examine(with_timer(**masked))["by hand"].status == "ok"


def test_the_package_s_folder_may_have_either_of_its_two_names() -> None:
    assert (
        examine(with_timer(FragmentPath="/usr/lib/systemd/system/t3-backup-state.timer"))[
            "by hand"
        ].status
        == "ok"
    )


def test_drop_ins_are_named_and_no_fault() -> None:
    found = examine(
        with_timer(DropInPaths="/etc/systemd/system/t3-backup-state.timer.d/time.conf")
    )["drop-ins"]
    assert found.status == "note"
    assert "/etc/systemd/system/t3-backup-state.timer.d/time.conf" in found.text


# --- the last run


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({}, "ok", "went well, Thu 2026-11-26 03:31:10 UTC"),
        (NEVER_RUN, "note", "none since the machine was started"),
        (
            {"Result": "exit-code", "ExecMainStatus": "1"},
            "fail",
            "failed (exit-code, exit status 1), Thu 2026-11-26 03:31:10 UTC",
        ),
        (
            {"Result": "timeout", "ExecMainStatus": "15"},
            "fail",
            "journalctl -u t3-backup-state.service",
        ),
        ({"Result": "exit-code", "ExecMainStatus": "75"}, "warn", "another run held the store"),
        ({"Result": "success", "ExecMainStatus": "75"}, "warn", "another run held the store"),
        ({"Result": "success", "ExecMainStatus": "15"}, "warn", "was stopped before it was done"),
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "ExecMainStatus": "75"},
            "warn",
            "systemd tries again by itself",
        ),
        (
            {"ActiveState": "activating", "SubState": "start"},
            "ok",
            "one is running since Thu 2026-11-26 03:30:05 UTC",
        ),
    ],
)
def test_the_last_run_is_told_by_how_it_ended_and_when(
    changes: dict[str, str], status: str, said: str
) -> None:
    found = examine(with_service(**changes))["last run"]
    assert found.status == status
    assert said in found.text


def test_a_service_that_is_not_there_fails_and_nothing_more_is_said_of_it() -> None:
    found = examine(with_service(LoadState="not-found"))
    assert found["service"].status == "fail"
    assert not {"last run", "sandbox", "time limit"} & set(found)


# --- the weekly proof


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"LoadState": "not-found"}, "there is no t3-backup-verify.timer: install the package"),
        (
            {"UnitFileState": "disabled", "ActiveState": "inactive"},
            "systemctl enable --now t3-backup-verify.timer",
        ),
        ({"NextElapseUSecRealtime": ""}, "systemctl cat t3-backup-verify.timer"),
    ],
)
def test_a_proof_that_nothing_starts_is_a_warning_since_backups_are_made_without_it(
    changes: dict[str, str], said: str
) -> None:
    found = examine(replace(INSTALLED, proof_timer=PROOF_TIMER | changes))
    assert (found["proof timer"].status, found["timer"].status) == ("warn", "ok")
    assert said in found["proof timer"].text


def test_a_proof_that_failed_fails_and_names_its_own_journal() -> None:
    found = examine(
        replace(
            INSTALLED, proof_service=PROOF_SERVICE | {"Result": "exit-code", "ExecMainStatus": "1"}
        )
    )
    assert (found["last proof"].status, found["last run"].status) == ("fail", "ok")
    assert found["last proof"].text.endswith("; see why: journalctl -u t3-backup-verify.service")


def test_a_proof_without_its_service_is_a_warning_and_nothing_more_is_said_of_it() -> None:
    found = examine(replace(INSTALLED, proof_service={"LoadState": "masked"}))
    assert found["proof service"].status == "warn"
    assert "systemctl unmask t3-backup-verify.service" in found["proof service"].text
    assert not {"last proof", "proof sandbox"} & set(found)


def test_a_store_elsewhere_is_opened_to_the_proof_by_a_drop_in_of_its_own() -> None:
    """And the metrics. That is all which it needs: no home, no log."""
    elsewhere = replace(HEALTHY.store, real=Path("/srv/t3-store"))
    far = replace(ALICE, home=Path("/srv/homes/alice"))
    found = examine(
        INSTALLED,
        accounts=(far,),
        store=elsewhere,
        log_folder=Path("/srv/log"),
        textfiles=TextfileFacts(Path("/srv/metrics"), ""),
    )["proof sandbox"]
    assert found.status == "warn"
    assert "the folder of the metrics (/srv/metrics)" in found.text
    assert (
        "the store (/srv/t3-store), the folder of the metrics (/srv/metrics); mkdir -p /etc/systemd/system/t3-backup-verify.service.d && "
        in found.text
    )
    assert "/srv/homes" not in found.text
    assert "/srv/log" not in found.text


def test_drop_ins_of_the_proof_are_named_too() -> None:
    path = "/etc/systemd/system/t3-backup-verify.timer.d/time.conf"
    assert (
        path
        in examine(replace(INSTALLED, proof_timer=PROOF_TIMER | {"DropInPaths": path}))[
            "drop-ins"
        ].text
    )


# --- what it may write


def test_a_home_or_a_store_elsewhere_fails_with_the_drop_in_that_opens_it() -> None:
    accounts = (
        ALICE,
        replace(ALICE, user="bob", home=Path("/srv/homes/bob")),
        replace(ALICE, user="al", home=Path("/srv/50% a/al")),
    )
    store = replace(HEALTHY.store, real=Path("/srv/t3-store"))
    found = examine(INSTALLED, accounts=accounts, store=store)["sandbox"]
    assert found.status == "fail"
    assert "the store (/srv/t3-store)" in found.text
    assert "the home of bob (/srv/homes/bob)" in found.text
    assert "alice" not in found.text
    command = found.text.partition("; ")[2]
    assert command.endswith(
        ">/etc/systemd/system/t3-backup-state.service.d/paths.conf && systemctl daemon-reload"
    )
    printf = command.partition(" && ")[2].partition(" >/")[0]
    assert subprocess.run(
        ["sh", "-c", printf], capture_output=True, text=True, check=True
    ).stdout == (
        "[Unit]\nRequiresMountsFor=/srv/t3-store\n[Service]\nReadWritePaths=-/srv/t3-store\n"
        'ReadWritePaths=-/srv/homes/bob\nReadWritePaths="-/srv/50%% a/al"\n'
    )


def test_a_log_or_metrics_elsewhere_fail_too_and_an_account_without_a_home_does_not() -> None:
    assert (
        "the log's folder (/srv/log)"
        in examine(INSTALLED, log_folder=Path("/srv/log"))["sandbox"].text
    )
    elsewhere = TextfileFacts(Path("/srv/metrics"), "")
    assert (
        "the folder of the metrics (/srv/metrics)"
        in examine(INSTALLED, textfiles=elsewhere)["sandbox"].text
    )
    assert examine(INSTALLED, accounts=(replace(ALICE, home=None),))["sandbox"].status == "ok"


@pytest.mark.parametrize(
    ("path", "changes", "may"),
    [
        ("/home/a", {}, True),
        ("/homes/a", {}, False),
        ("/var/backups/t3-state", {}, True),
        ("/var/backups/t3-state/alice", {}, True),
        ("/var/backups/t3-state2", {}, False),
        ("/var/log/t3-backup", {}, True),
        ("/root/home", {}, False),
        ("/run/x", {}, False),
        ("/srv", {}, False),
        ("/srv", {"ProtectSystem": "full"}, True),
        ("/etc/homes", {"ProtectSystem": "full"}, False),
        ("/etc/homes", {"ProtectSystem": "yes"}, True),
        ("/usr/homes", {"ProtectSystem": "yes"}, False),
        ("/usr/homes", {"ProtectSystem": "no"}, True),
        ("/home/a", {"ProtectHome": "read-only"}, False),
        ("/home/a", {"ProtectHome": "tmpfs", "ReadWritePaths": "/home/a"}, True),
        ("/home/a", {"ReadOnlyPaths": "/home/a"}, False),
        ("/srv/a", {"ReadWritePaths": "-/srv"}, True),
        ("/srv/a b", {"ReadWritePaths": '"-/srv/a b" /x'}, True),
    ],
)
def test_the_deepest_rule_says_whether_a_path_may_be_written(
    path: str, changes: dict[str, str], may: bool
) -> None:
    assert is_writable(Path(path), SERVICE | changes) == may


def test_homes_that_lie_behind_a_symlink_are_homes() -> None:
    assert is_writable(Path("/data/home/a"), SERVICE, Path("/data/home"))
    assert not is_writable(Path("/data/home/a"), SERVICE)


def test_a_service_without_any_protection_may_write_everywhere() -> None:
    assert is_writable(Path("/srv/x"), {})


# --- time


@pytest.mark.parametrize(
    ("limit", "status"),
    [("30min", "warn"), ("30min 1s", "ok"), ("infinity", "ok"), ("1d", "ok"), ("", "warn")],
)
def test_the_service_s_time_must_be_longer_than_the_run_s_own(limit: str, status: str) -> None:
    """One account: 900 s and once more."""
    found = examine(with_service(TimeoutStartUSec=limit))["time limit"]
    assert found.status == status
    if status == "warn":
        assert "printf '%s\\n' '[Service]' TimeoutStartSec=3600 >" in found.text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("23h", 82_800),
        ("2h 30min", 9000),
        ("1min 30s", 90),
        ("1w 2d", 777_600),
        ("1month", 2_629_800),
        ("1y", 31_557_600),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("infinity", float("inf")),
        ("0", None),
        ("", None),
        ("soon", None),
        ("3 h", None),
        ("5parsecs", None),
    ],
)
def test_time_spans_are_read_as_systemd_writes_them(text: str, seconds: float | None) -> None:
    assert parse_span(text) == seconds


# --- what systemctl prints


def test_a_value_may_have_an_equals_sign_or_be_empty() -> None:
    assert parse_show("A=b=c\nB=\n\nno property\n") == {"A": "b=c", "B": ""}


def test_paths_lose_their_marks_and_their_quotes() -> None:
    assert parse_paths('-/a +/b -+/c "/d e" /f') == [
        Path("/a"),
        Path("/b"),
        Path("/c"),
        Path("/d e"),
        Path("/f"),
    ]
    assert parse_paths("/it's /b") == [Path("/it's"), Path("/b")]
    assert parse_paths("") == []


@pytest.mark.parametrize("name", ["plain", "a b", 'q"q', "back\\slash", "50%", "it's"])
def test_a_path_in_a_unit_file_is_read_back_as_it_was(name: str) -> None:
    text = units.in_unit(Path("/srv") / name)
    assert shlex.split(text) == [f"-/srv/{name}".replace("%", "%%")]


@pytest.mark.parametrize("path", ["/root/a", "/tmp/a", "/var/tmp/store"])
def test_a_drop_in_opens_nothing_that_is_hidden(path: str) -> None:
    assert not is_writable(Path(path), SERVICE | {"PrivateTmp": "yes", "ReadWritePaths": path})
