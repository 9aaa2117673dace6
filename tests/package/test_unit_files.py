"""What in the units must agree with something else: with the settings, with systemd's own exit
codes, and with each other."""

from __future__ import annotations

import functools
import shutil
import subprocess
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import pytest
from support.paths import ROOT

from t3_backup import settings
from t3_backup.autoupdate import settings as bump_settings
from t3_backup.autoupdate.programs import adopt
from t3_backup.backup.slots import MOST_BESIDE
from t3_backup.doctor import units
from t3_backup.errors import UsageError

SERVICE = ROOT / "debian" / "t3-backup.t3-backup-state.service"
PROOF = ROOT / "debian" / "t3-backup.t3-backup-verify.service"
# What the weekly proof has otherwise than a run: its time and its tasks, and that it may write
# less.
OWN = {"Description", "After", "ExecStart", "TimeoutStartSec", "TasksMax"}
CLOSER = {"ReadWritePaths", "NoExecPaths"}
OF_A_RUN = {
    "NotifyAccess",
    "RuntimeDirectory",
    "RuntimeDirectoryMode",
    "RuntimeDirectoryPreserve",
    "StateDirectory",
    "StateDirectoryMode",
}
# a thread of its own, three in the proof, two workers, a thread in one of these
TASKS_OF_AN_ACCOUNT = 7
MOST_JOBS = 64


BUMP = [
    ROOT / "debian" / f"t3-autoupdate.t3-autoupdate{name}.service"
    for name in ("", "-drain", "-resume")
]


def settings_of(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def values(key: str) -> list[str]:
    return settings_of(SERVICE).get(key, [])


def test_there_is_room_for_the_tasks_of_the_most_jobs() -> None:
    settings.load({"jobs": str(MOST_JOBS)}, {})
    with pytest.raises(UsageError):
        settings.load({"jobs": str(MOST_JOBS + 1)}, {})
    accounts = MOST_JOBS + MOST_BESIDE
    assert int(values("TasksMax")[0]) > 1 + accounts * TASKS_OF_AN_ACCOUNT


def test_what_runs_write_by_default_may_be_written_and_nothing_there_be_executed() -> None:
    defaults = settings.load({}, {}, Path("/dev/null"))
    for path in (defaults.dest, defaults.log.parent, defaults.textfiles):
        assert f"-{path}" in " ".join(values("ReadWritePaths")).split()
        assert f"-{path}" in " ".join(values("NoExecPaths")).split()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd's own list")
def test_what_systemd_itself_could_not_begin_is_not_tried_again() -> None:
    listed = subprocess.run(
        ["systemd-analyze", "exit-status"], capture_output=True, text=True, check=True
    ).stdout
    own = {words[1] for line in listed.splitlines() if (words := line.split())[2:] == ["systemd"]}
    never = set(" ".join(values("RestartPreventExitStatus")).split())
    assert {"203", "226"} <= own <= never
    assert "75" not in never


def test_the_weekly_proof_is_confined_and_tried_again_as_a_run_is() -> None:
    run, proof = settings_of(SERVICE), settings_of(PROOF)
    other = {name for name in run.keys() | proof.keys() if run.get(name) != proof.get(name)}
    assert other == OWN | CLOSER | OF_A_RUN
    assert not OF_A_RUN & proof.keys()


def test_the_weekly_proof_may_write_to_the_store_and_the_metrics_alone() -> None:
    proof, defaults = settings_of(PROOF), settings.load({}, {}, Path("/dev/null"))
    assert proof["ReadWritePaths"] == [f"-{defaults.dest} -{defaults.textfiles}"]
    # What it may write, and what users may, it can't execute.
    assert set(proof["NoExecPaths"][0].split()) >= {
        "-/home",
        "-/tmp",
        "-/var/tmp",
        "-/dev/shm",
        *proof["ReadWritePaths"][0].split(),
    }


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd's own calendar")
def test_the_weekly_proof_begins_after_the_nightly_run_and_is_over_before_the_next_one() -> None:
    def span(unit: str, key: str) -> float:
        seconds = units.parse_span(settings_of(ROOT / "debian" / f"t3-backup.{unit}")[key][0])
        assert seconds is not None
        return seconds

    night, week = "t3-backup-state.timer", "t3-backup-verify.timer"
    begins = {
        unit: settings_of(ROOT / "debian" / f"t3-backup.{unit}")["OnCalendar"][0]
        for unit in (night, week)
    }
    nightly, weekly = (seconds_of_day(begins[unit]) for unit in (night, week))
    assert nightly + span(night, "RandomizedDelaySec") + 3600 <= weekly
    assert (
        weekly
        + span(week, "RandomizedDelaySec")
        + span("t3-backup-verify.service", "TimeoutStartSec")
        <= nightly + 86400
    )


def test_whatever_moves_accounts_is_confined_in_one_way() -> None:
    run, *others = (settings_of(unit) for unit in BUMP)
    for other in others:
        assert {name for name in run.keys() | other.keys() if run.get(name) != other.get(name)} <= {
            "Description", "After", "ExecStart", "ConditionPathExists", "WantedBy",
        }  # fmt: skip


def test_what_a_bump_writes_by_default_may_be_written() -> None:
    values = bump_settings.load({}, Path("/nonexistent"))
    written = {
        path.removeprefix("-")
        for line in settings_of(BUMP[0])["ReadWritePaths"]
        for path in line.split()
    }
    for path in (values.root, values.freeze.parent, values.bin.parent, adopt.DROP_IN):
        assert written & {str(one) for one in (path, *path.parents)}
    backup = settings.load({}, {}, Path("/dev/null"))
    assert {str(path) for path in (backup.dest, backup.log.parent, backup.textfiles)} <= written


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd's own calendar")
def test_the_nightly_bump_begins_after_the_nightly_run() -> None:
    night = settings_of(ROOT / "debian" / "t3-backup.t3-backup-state.timer")
    bump = settings_of(ROOT / "debian" / "t3-autoupdate.t3-autoupdate.timer")
    delay = units.parse_span(night["RandomizedDelaySec"][0])
    assert delay is not None
    assert seconds_of_day(night["OnCalendar"][0]) + delay < seconds_of_day(bump["OnCalendar"][0])


def seconds_of_day(calendar: str) -> int:
    """When a day's event is, as systemd reads it."""
    done = subprocess.run(
        ["systemd-analyze", "calendar", calendar], capture_output=True, text=True, check=True
    )
    [normal] = [
        line.partition(": ")[2] for line in done.stdout.splitlines() if "Normalized form" in line
    ]
    hours, minutes, seconds = normal.split()[-1].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds)


TIMERS = sorted((ROOT / "debian").glob("*.timer"))
DAYS = [date(2026, 1, 1) + timedelta(days) for days in range(10 * 366)]
LONGEST_GAP = timedelta(hours=25, minutes=30)  # `status` calls 26 hours critical
ZONES = sorted({ZoneInfo(name).key for name in available_timezones() if name != "localtime"})


@pytest.mark.skipif(len(ZONES) < 300, reason="needs the time zones: apt install tzdata")
@pytest.mark.parametrize("timer", TIMERS, ids=lambda path: path.stem)
def test_every_timer_fires_at_a_time_that_every_zone_has_each_day(timer: Path) -> None:
    """Row 55. 03:30 is missing for one night a year in Helsinki, 02:30 in most zones, 00:30 in
    Beirut."""
    [calendar] = settings_of(timer)["OnCalendar"]
    if calendar == "*:0/15":
        return
    at = time.fromisoformat(calendar.split()[-1])
    missing = {
        zone: day
        for zone in ZONES
        for day, _, _ in changes(zone)
        if not is_there(datetime.combine(day, at, ZoneInfo(zone)))
    }
    assert not missing
    assert at >= time(4)  # of what is put back, nothing comes twice


@pytest.mark.skipif(len(ZONES) < 300, reason="needs the time zones: apt install tzdata")
def test_no_two_nightly_runs_are_too_far_apart_in_any_zone() -> None:
    """Row 55."""
    run = settings_of(ROOT / "debian" / "t3-backup.t3-backup-state.timer")
    spans = [units.parse_span(run[key][0]) for key in ("RandomizedDelaySec", "AccuracySec")]
    late = timedelta(seconds=sum(one or 0 for one in spans))
    at_last = timedelta(seconds=units.parse_span(run["OnUnitActiveSec"][0]) or 0)
    longest = {
        zone: max(
            (before - after + timedelta(days=1) for _, before, after in changes(zone)),
            default=timedelta(days=1),
        )
        for zone in ZONES
    }
    assert {zone for zone in ZONES if longest[zone] + late > LONGEST_GAP} <= {"Antarctica/Troll"}
    assert at_last + late <= LONGEST_GAP
    # else a night that is longer by an hour would have two
    assert at_last >= timedelta(hours=25) and run["FixedRandomDelay"] == ["true"]


@functools.cache
def changes(zone: str) -> list[tuple[date, timedelta, timedelta]]:
    """The days on which a zone's clocks are set, with the offset from UTC before and after."""
    noon, tz = time(12), ZoneInfo(zone)
    offsets = [datetime.combine(day, noon, tz).utcoffset() or timedelta() for day in DAYS]
    pairs = zip(DAYS[1:], offsets, offsets[1:], strict=False)
    return [(day, before, after) for day, before, after in pairs if before != after]


def is_there(when: datetime) -> bool:
    """Whether the clocks of its zone show that time."""
    return when.astimezone(UTC).astimezone(when.tzinfo).time() == when.time()
