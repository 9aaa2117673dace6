"""What the doctor makes of facts: each state that costs a backup fails by name, each other is said,
and health is silent of both."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.doctor_facts import ACCOUNT_DIR, ALICE, GIB, HEALTHY, STORE, VALUES
from support.manifests import NOON, make_manifest

from t3_backup import settings
from t3_backup.doctor import checks, store_checks
from t3_backup.doctor.facts import (
    AccountDirFacts,
    AccountFacts,
    MapFacts,
    TextfileFacts,
)
from t3_backup.doctor.finding import Finding
from t3_backup.doctor.gather import kind_of
from t3_backup.monitor.attempts import Attempt
from t3_backup.monitor.hooks import Found
from t3_backup.restore.pending import PendingRestore
from t3_backup.store.manifest import Missing
from t3_backup.t3 import databases
from t3_backup.text import format_time
from t3_backup.worker.sources import Source, SourceDatabase

NAMED = databases.explain(["statev2.sqlite"])


def examine(**changes: Any) -> list[Finding]:
    return checks.check_machine(replace(HEALTHY, **changes), VALUES)


def of(name: str, **changes: Any) -> Finding:
    """The one finding of that name."""
    [found] = [finding for finding in examine(**changes) if finding.name == name]
    return found


def with_account_dir(**changes: Any) -> dict[str, Any]:
    return {"store": replace(STORE, account_dirs=(replace(ACCOUNT_DIR, **changes),))}


def with_store(**changes: Any) -> dict[str, Any]:
    return {"store": replace(STORE, **changes)}


def test_on_a_healthy_machine_every_check_is_ok_but_for_what_is_only_to_be_known() -> None:
    assert {finding.name: finding.status for finding in examine()} == {
        "map": "ok",
        "account alice": "ok",
        "store": "ok",
        "file system": "ok",
        "space": "ok",
        "disk": "ok",
        "snapshots alice": "ok",
        "sqlite": "ok",
        "extension": "ok",
        "seccomp": "ok",
        "python3-systemd": "ok",
        "by hand": "ok",
        "systemd": "note",
    }


@pytest.mark.parametrize(
    ("status", "line"),
    [("ok", "ok    a: b"), ("note", "note  a: b"), ("warn", "warn  a: b"), ("fail", "FAIL  a: b")],
)
def test_a_line_begins_with_how_it_is_and_then_names_what(status: str, line: str) -> None:
    assert Finding(status, "a", "b").line() == line
    assert Finding(status, "a", "b").as_json() == {"name": "a", "status": status, "text": "b"}


# --- the map and the accounts


def test_a_map_that_can_t_be_read_fails_and_makes_nobody_s_account_folder_a_forgotten_one() -> None:
    broken = {"map": MapFacts(Path("/m"), problem="user map /m: No such file"), "accounts": ()}
    assert of("map", **broken) == Finding("fail", "map", "user map /m: No such file")
    assert not [finding for finding in examine(**broken) if finding.name.startswith("snapshots")]


def test_a_bad_line_is_a_warning_and_a_map_of_bad_lines_alone_a_failure() -> None:
    bad = MapFacts(Path("/m"), ("alice",), ("/m:3: not a line", "/m:4: not a line"))
    assert [finding.status for finding in examine(map=bad) if finding.name == "map"] == [
        "warn",
        "warn",
        "ok",
    ]
    worse = replace(bad, users=())
    assert [
        finding.status for finding in examine(map=worse, accounts=()) if finding.name == "map"
    ] == ["warn", "warn", "fail"]


def test_hooks_are_named_and_what_is_passed_over_is_a_warning() -> None:
    folder = Path("/etc/t3-backup/hooks.d")
    assert [finding for finding in examine(hooks=Found(folder)) if finding.name == "hooks"] == []
    assert of("hooks", hooks=Found(folder, ("mail", "ping"))).text.startswith(
        "called when a run fails: mail, ping; "
    )
    bad = of("hooks", hooks=Found(folder, (), ("ping.sh (why)", "x (why)")))
    assert (bad.status, bad.text) == ("warn", f"in {folder} are ignored: ping.sh (why), x (why)")


def test_what_is_open_elsewhere_and_what_somebody_should_know_of_it_is_told() -> None:
    account = replace(ALICE, failures=("T3 has /x open",), warnings=("two servers: 7, 8",))
    found = [one for one in examine(accounts=(account,)) if one.name == "account alice"]
    assert [(one.status, one.text) for one in found][:2] == [
        ("fail", "T3 has /x open"),
        ("warn", "two servers: 7, 8"),
    ]
    none = {"accounts": (replace(account, source=None),)} | with_store(account_dirs=())
    found = [one for one in examine(**none) if one.name == "account alice"]
    assert [one.status for one in found] == ["fail", "warn"]


def test_an_empty_map_is_a_warning() -> None:
    assert of("map", map=MapFacts(Path("/m")), accounts=()).status == "warn"


def test_an_account_with_a_problem_fails_with_it() -> None:
    found = of(
        "account alice",
        accounts=(AccountFacts("alice", problem="alice: no such user on this system"),),
    )
    assert found == Finding("fail", "account alice", "alice: no such user on this system")


def test_the_size_of_a_database_is_told_and_none_is_only_noted() -> None:
    assert of("account alice").text == "database of 1.0 GiB, -wal 1.0 MiB"
    none = {"accounts": (replace(ALICE, source=None),)} | with_store(account_dirs=())
    assert of("account alice", **none).status == "note"
    assert not [finding for finding in examine(**none) if finding.name == "snapshots alice"]


def found_in(*found: SourceDatabase) -> dict[str, Any]:
    sizes = sum(one.bytes for one in found), sum(one.wal_bytes for one in found)
    return {"accounts": (replace(ALICE, source=Source(*sizes, found)),)}


def test_each_of_several_databases_is_named_with_its_size() -> None:
    old = SourceDatabase("state.sqlite", 1 << 20, 0)
    new = SourceDatabase("statev2.sqlite", GIB, 1 << 20)
    assert of("account alice", **found_in(old)).text == "database of 1.0 MiB, -wal 0 B"
    assert of("account alice", **found_in(old, new)) == Finding(
        "ok",
        "account alice",
        "2 databases: state.sqlite of 1.0 MiB, -wal 0 B; statev2.sqlite of 1.0 GiB, -wal 1.0 MiB",
    )


def test_one_of_several_databases_that_can_t_be_copied_fails_by_name() -> None:
    junk = SourceDatabase("junk.sqlite", 0, 0, "it is not a SQLite database")
    rotten = SourceDatabase("state.sqlite", 0, 0, "it can't be read")
    new = SourceDatabase("statev2.sqlite", GIB, 1 << 20)
    found = [one for one in examine(**found_in(junk, rotten, new)) if one.name == "account alice"]
    assert [(one.status, one.text) for one in found] == [
        (
            "fail",
            (
                "junk.sqlite can't be copied: it is not a SQLite database; next: "
                "move it out of userdata if it is not T3's"
            ),
        ),
        (
            "fail",
            (
                "state.sqlite can't be copied: it can't be read; next: run again; where that fails "
                "too, put an older one back: t3-backup-state restore alice --database state.sqlite"
            ),
        ),
        ("ok", "1 database: statev2.sqlite of 1.0 GiB, -wal 1.0 MiB"),
    ]


def test_a_newest_snapshot_that_lacks_a_database_fails_by_name() -> None:
    missing = (Missing("junk.sqlite", "it is not a SQLite database"),)
    lacking = make_manifest(2, NOON - timedelta(hours=1), missing=missing)
    found = of("shelf alice", **with_account_dir(snapshots=(lacking, *ACCOUNT_DIR.snapshots)))
    assert found.status == "fail"
    assert found.text.startswith(f"junk.sqlite is not in {lacking.name}: it is not a SQLite")
    whole = with_account_dir(snapshots=(make_manifest(3, NOON), lacking))
    assert not [finding for finding in examine(**whole) if finding.name == "shelf alice"]


def test_a_database_that_is_not_copied_fails_by_name_beside_one_that_is_and_alone() -> None:
    """Row 39."""
    for account in (
        replace(ALICE, uncovered=("statev2.sqlite",), failures=(NAMED,)),
        replace(ALICE, source=None, uncovered=("statev2.sqlite",), failures=(NAMED,)),
    ):
        found = [
            one
            for one in examine(accounts=(account,), **with_store(account_dirs=()))
            if one.name == "account alice"
        ]
        assert found[0].status == "fail"
        assert found[0].text.startswith("statev2.sqlite is not backed up: ")
        assert [one.status for one in found[1:]] == (["ok"] if account.source else [])


@pytest.mark.parametrize(
    "account",
    [ALICE, replace(ALICE, source=None), replace(ALICE, source=None, problem="a symlink")],
    ids=["well", "none", "refused"],
)
def test_what_is_on_no_list_is_noted_once_whatever_is_the_matter_with_the_database(
    account: AccountFacts,
) -> None:
    found = of("files alice", accounts=(replace(account, unlisted=("plugins", "notes.txt")),))
    assert found.status == "note"
    assert found.text.startswith("userdata also holds plugins, notes.txt: not saved; next: ")
    assert not [one for one in examine(accounts=(account,)) if one.name == "files alice"]


def test_a_database_that_is_gone_while_its_snapshots_are_there_fails() -> None:
    found = of("account alice", accounts=(replace(ALICE, source=None),))
    assert found.status == "fail"
    assert "1 snapshots of it: was it deleted?" in found.text


# --- the store


def test_a_store_that_can_t_be_used_fails_and_one_that_is_not_there_yet_warns() -> None:
    assert of("store", **with_store(problem="/s belongs to uid 7", account_dirs=())) == Finding(
        "fail", "store", "/s belongs to uid 7"
    )
    assert (
        of("store", **with_store(problem="no store at /s", exists=False, account_dirs=())).status
        == "warn"
    )


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        *((kind, "ok") for kind in store_checks.TESTED),
        *((kind, "fail") for kind in ("tmpfs", "ramfs", "nfs", "nfs4", "cifs", "9p", "fuse.sshfs")),
        *(
            (kind, "warn")
            for kind in ("overlay", "zfs", "f2fs", "fuse.mergerfs", "vfat", "unknown")
        ),
    ],
)
def test_a_file_system_is_good_where_it_was_tested_and_bad_where_it_is_no_local_disk(
    kind: str, status: str
) -> None:
    found = of("file system", **with_store(kind=kind))
    assert found.status == status
    assert f"on {kind}" in found.text


def test_a_read_only_store_fails() -> None:
    assert of("file system", **with_store(read_only=True)).status == "fail"


@pytest.mark.parametrize(
    ("free", "status"),
    [(4 * GIB, "ok"), (4 * GIB - 1, "warn"), (3 * GIB, "warn"), (3 * GIB - 1, "fail"), (0, "fail")],
)
def test_space_is_measured_by_all_databases_and_by_the_largest(free: int, status: str) -> None:
    accounts = tuple(
        AccountFacts(name, source=Source(size, GIB // 2))
        for name, size in (("a", GIB // 2), ("b", 5 * GIB // 2))
    )
    # of which so many stay free, on a large disk
    needed = {"accounts": accounts} | with_store(free_bytes=free + 2 * GIB)
    assert of("space", **needed).status == status


@pytest.mark.parametrize(
    ("reserve", "total", "kept"), [("auto", 10 * GIB, GIB // 2), ("3G", 10 * GIB, 3 * GIB)]
)
def test_what_stays_free_is_a_share_of_a_small_disk_or_what_the_settings_say(
    reserve: str, total: int, kept: int
) -> None:
    values = settings.load({}, {"T3_BACKUP_RESERVE": reserve}, Path("/dev/null"))
    needed = GIB + (1 << 20)  # ALICE's database and its -wal
    for free, status in ((needed + kept, "ok"), (needed + kept - 1, "fail")):
        facts = replace(HEALTHY, **with_store(free_bytes=free, total_bytes=total))
        assert [
            one.status for one in checks.check_machine(facts, values) if one.name == "space"
        ] == [status]


def test_a_disk_that_holds_store_and_homes_is_noted() -> None:
    bob = replace(ALICE, user="bob", home_device=STORE.device)
    both = of("disk", accounts=(bob, replace(bob, user="carol")))
    one = of("disk", accounts=(ALICE, bob))
    assert (both.status, one.status) == ("note", "note")
    assert "as every home: if that disk fails, both are lost" in both.text
    assert "as the homes of bob: if that disk fails, both are lost" in one.text


# --- account folders and snapshots


def test_an_account_folder_that_can_t_be_used_fails_and_one_of_the_user_s_own_waits_to_be_taken_over() -> (
    None
):
    assert of("shelf alice", **with_account_dir(problem="open to others", snapshots=())) == Finding(
        "fail", "shelf alice", "open to others"
    )
    own = of("shelf alice", **with_account_dir(old=12, snapshots=()))
    assert own.status == "warn"
    assert (
        "with 12 snapshots that they can change; take them over: "
        "t3-backup-state import-legacy alice" in own.text
    )


def test_what_waits_to_be_taken_over_and_what_can_t_be_are_warnings() -> None:
    aside = of("shelf alice", **with_account_dir(aside=(Path("/s/alice+old"),)))
    left = of("shelf alice", **with_account_dir(leftovers=(Path("/s/alice+leftover"),)))
    assert (aside.status, left.status) == ("warn", "warn")
    assert "/s/alice+old" in aside.text
    assert "t3-backup-state import-legacy alice" in aside.text
    assert "/s/alice+leftover" in left.text


def test_data_without_a_manifest_is_a_warning_where_it_is_ours_and_a_note_where_it_never_had_one() -> (
    None
):
    lost = of("shelf alice", **with_account_dir(strays=("state-20261124T120000Z.sqlite",)))
    old = of("shelf alice", **with_account_dir(strays=("state-20261101-033000.sqlite",)))
    assert (lost.status, old.status) == ("warn", "note")
    assert "state-20261124T120000Z.sqlite" in lost.text
    assert "state-20261101-033000.sqlite" in old.text


def test_what_waits_for_accept_is_named_with_its_reasons_and_what_was_accepted_is_not() -> None:
    bad = make_manifest(2, verdict="suspect", reasons=("half of its rows are gone",))
    found = of("shelf alice", **with_account_dir(snapshots=(bad, *ACCOUNT_DIR.snapshots)))
    assert found.status == "warn"
    assert f"{bad.name} (suspect: half of its rows are gone)" in found.text
    assert "t3-backup-state accept alice" in found.text
    accepted = replace(bad, accepted_at="2026-11-24T13:00:00Z")
    assert not [
        f
        for f in examine(**with_account_dir(snapshots=(accepted, *ACCOUNT_DIR.snapshots)))
        if f.name == "shelf alice"
    ]


@pytest.mark.parametrize(
    ("age", "status"),
    [
        (timedelta(0), "ok"),
        (timedelta(hours=26), "ok"),
        (timedelta(hours=26, seconds=1), "warn"),
        (timedelta(days=2), "warn"),
        (timedelta(days=2, seconds=1), "fail"),
        (timedelta(minutes=-5), "ok"),
        (timedelta(minutes=-5, seconds=-1), "warn"),
        (timedelta(days=-1, seconds=-1), "warn"),
    ],
)
def test_the_newest_verified_snapshot_may_be_26_hours_old_and_not_of_the_future(
    age: timedelta, status: str
) -> None:
    assert (
        of("snapshots alice", **with_account_dir(snapshots=(make_manifest(1, NOON - age),))).status
        == status
    )


def test_a_newer_one_that_is_not_verified_does_not_make_it_younger() -> None:
    old = make_manifest(1, NOON - timedelta(days=3))
    bad = make_manifest(2, NOON, verdict="damaged", accepted_at="2026-11-24T13:00:00Z")
    found = of("snapshots alice", **with_account_dir(snapshots=(bad, old)))
    assert found.status == "fail"
    assert f"is 3d old ({old.name})" in found.text


def test_one_that_was_taken_over_counts_by_its_time_whatever_its_number() -> None:
    snapshots = (
        make_manifest(1, NOON - timedelta(days=9)),
        make_manifest(0, NOON - timedelta(days=1)),
    )
    assert of("snapshots alice", **with_account_dir(snapshots=snapshots)).status == "ok"


def tried(ago: timedelta, outcome: str = "unchanged", **changes: Any) -> Attempt:
    return replace(Attempt(format_time(NOON - ago), "run", outcome, None, "", 0.5, 0, 0), **changes)


def test_a_run_that_found_the_database_unchanged_counts_as_long_as_it_is_fresh() -> None:
    old = replace(ACCOUNT_DIR, snapshots=(make_manifest(1, NOON - timedelta(days=5)),))
    for ago, status in (
        (timedelta(hours=9), "ok"),
        (timedelta(days=3), "fail"),
        (timedelta(days=-1), "fail"),
    ):
        found = of(
            "snapshots alice", **with_store(account_dirs=(old,), attempts={"alice": [tried(ago)]})
        )
        assert found.status == status
    found = of(
        "snapshots alice",
        **with_store(account_dirs=(old,), attempts={"alice": [tried(timedelta(hours=9))]}),
    )
    assert found.text.endswith(
        " is 5d old (state-20261119T120000Z), and the database was unchanged 9h ago"
    )
    failed = {"alice": [tried(timedelta(hours=9), "failed")], "bob": [tried(timedelta(hours=9))]}
    assert (
        of("snapshots alice", **with_store(account_dirs=(old,), attempts=failed)).status == "fail"
    )


def test_what_was_taken_beside_a_database_that_is_not_copied_counts_for_nothing() -> None:
    """Row 39."""
    attempts = {
        "alice": [
            tried(timedelta(days=1), "failed", uncovered=("statev2.sqlite",)),
            tried(timedelta(hours=1), "failed"),
        ]
    }
    gone = of("snapshots alice", **with_store(attempts=attempts))
    assert (
        gone.status,
        "statev2.sqlite is not backed up; they are gone since; back up now" in gone.text,
    ) == ("fail", True)
    bare = (replace(ALICE, uncovered=("statev2.sqlite",)),)
    there = of("snapshots alice", **with_store(attempts=attempts), accounts=bare)
    assert (
        there.status,
        there.text.startswith("statev2.sqlite is not backed up: at most 16"),
    ) == ("fail", True)


def test_what_the_last_run_could_not_do_is_a_warning_until_one_goes_well() -> None:
    hour = timedelta(hours=1)
    failed = tried(hour, "failed", reason="no room")
    bare = tried(hour, unsaved="link: settings.json")
    for attempt, text in ((failed, "no room"), (bare, "settings.json")):
        found = of("attempt alice", **with_store(attempts={"alice": [attempt]}))
        assert (found.status, text in found.text) == ("warn", True)
        later = {"alice": [attempt, tried(timedelta())]}
        assert "attempt alice" not in {one.name for one in examine(**with_store(attempts=later))}


def test_a_ledger_that_can_t_be_read_is_a_warning() -> None:
    assert (
        of("ledger", **with_store(ledger_problem="/s/attempts.json can't be read")).status == "warn"
    )


@pytest.mark.parametrize(
    "account_dirs",
    [
        (),
        (replace(ACCOUNT_DIR, snapshots=()),),
        (replace(ACCOUNT_DIR, snapshots=(make_manifest(verdict="suspect"),)),),
    ],
)
def test_a_database_without_a_verified_snapshot_is_a_warning(
    account_dirs: tuple[AccountDirFacts, ...],
) -> None:
    assert of("snapshots alice", **with_store(account_dirs=account_dirs)).status == "warn"


def test_snapshots_of_somebody_who_left_the_map_are_a_warning() -> None:
    zoe = AccountDirFacts("zoe", Path("/s/zoe"), (make_manifest(),))
    assert of("snapshots zoe", **with_store(account_dirs=(ACCOUNT_DIR, zoe))).status == "warn"
    assert not [
        f
        for f in examine(**with_store(account_dirs=(ACCOUNT_DIR, replace(zoe, snapshots=()))))
        if f.name == "snapshots zoe"
    ]


# --- somebody who is not root


def test_somebody_else_is_told_what_needs_root_and_nothing_fails_for_it() -> None:
    mine = {"is_root": False, "map": None} | with_store(
        foreign=True, problem="not yours to open", account_dirs=()
    )
    found = examine(**mine)
    assert {f.name: f.status for f in found}["rights"] == "note"
    assert of("store", **mine).status == "note"
    assert "sudo t3-backup-state doctor" in of("store", **mine).text
    assert not [f for f in found if f.status in ("fail", "warn")]
    assert not [f for f in found if f.name in ("map", "snapshots alice")]


# --- the log


def test_the_folder_of_the_default_log_alone_may_be_missing() -> None:
    assert not [f for f in examine(log_folder=None) if f.name == "log"]
    elsewhere = settings.load({}, {"T3_BACKUP_LOG": "/srv/log/t3"}, Path("/dev/null"))
    [found] = [
        f
        for f in checks.check_machine(replace(HEALTHY, log_folder=None), elsewhere)
        if f.name == "log"
    ]
    assert found.status == "fail"
    assert "mkdir /srv/log" in found.text
    assert not [f for f in checks.check_machine(HEALTHY, elsewhere) if f.name == "log"]


def test_metrics_that_can_t_be_written_fail_and_a_missing_library_is_a_note() -> None:
    folder = Path("/srv/metrics")
    assert of("metrics", textfiles=TextfileFacts(folder, "")).status == "ok"
    found = of("metrics", textfiles=TextfileFacts(folder, "root may not write there"))
    assert (found.status, "T3_BACKUP_TEXTFILE_DIR" in found.text) == ("fail", True)
    without = replace(HEALTHY.libraries, prometheus="No module named 'prometheus_client'")
    found = of("metrics", textfiles=TextfileFacts(folder, ""), libraries=without)
    assert (found.status, "apt install python3-prometheus-client" in found.text) == ("note", True)
    assert not [f for f in examine(libraries=without) if f.name == "metrics"], (
        "there are to be none"
    )


@pytest.mark.parametrize(("running", "status"), [(False, "fail"), (True, "warn")])
def test_a_restore_that_was_interrupted_fails_and_one_that_may_run_does_not(
    running: bool, status: str
) -> None:
    restore = PendingRestore(
        "alice", "state-20261124T033012Z", "2026-11-24T09:00:00Z", running=running
    )
    found = of("restore alice", **with_store(restores=(restore,)))
    assert (found.status, found.text) == (status, restore.text)


# --- what we stand on


@pytest.mark.parametrize(
    ("version", "has"),
    [
        ("3.6.23", False),
        ("3.7.0", True),
        ("3.40.1", True),
        ("3.44.5", True),
        ("3.44.6", False),
        ("3.45.0", True),
        ("3.46.1", True),
        ("3.50.6", True),
        ("3.50.7", False),
        ("3.51.0", True),
        ("3.51.2", True),
        ("3.51.3", False),
        ("3.53.0", False),
        ("4.0.0", False),
    ],
)
def test_the_wal_reset_bug_is_in_the_versions_that_sqlite_org_names(
    version: str, has: bool
) -> None:
    assert checks.has_wal_reset_bug(version) == has
    found = of("sqlite", libraries=replace(HEALTHY.libraries, sqlite=version))
    assert found.status == ("warn" if has else "ok")
    assert version in found.text


def test_without_the_extension_or_seccomp_there_is_no_backup_and_without_python3_systemd_there_is() -> (
    None
):
    bare = replace(
        HEALTHY.libraries,
        extension="not authorized",
        seccomp="No module named 'seccomp'",
        systemd="No module",
    )
    found = {finding.name: finding.status for finding in examine(libraries=bare)}
    assert (found["extension"], found["seccomp"], found["python3-systemd"]) == (
        "fail",
        "fail",
        "note",
    )


def test_the_type_of_a_mount_is_that_of_its_id_and_not_of_its_path() -> None:
    mounts = (
        "25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "30 25 0:26 / /mnt/a\\040b rw - tmpfs tmpfs rw\n"
        "31 30 0:27 /sub /mnt/a\\040b rw shared:2 master:3 - btrfs /dev/vdb rw\n"
    )
    assert [kind_of(mounts, mount) for mount in ("25", "30", "31", "3")] == [
        "ext4",
        "tmpfs",
        "btrfs",
        "unknown",
    ]
