"""Runs as they come: many on a day, two at once, killed, stopped, misused; and a store that is only
looked at."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support import programs, sandbox
from support.databases import commit_row
from support.host import Answer, Host, list_snapshots
from support.manifests import manifest_text, rewrite_manifest, with_keys
from support.paths import DATA, ROOT
from support.processes import until
from support.sampling import amount
from support.users import needs_root
from support.workers import start_wrapped, wrap_workers

from demo.users import User
from t3_backup import accounts, settings
from t3_backup.backup import run as backup_run
from t3_backup.backup.account import BackupRun
from t3_backup.backup.result import AccountResult
from t3_backup.store.store import Store

pytestmark = needs_root


@pytest.fixture
def rosa(make_user, host: Host) -> User:
    """A user whose database is as small as T3 makes it: these tests count runs, not bytes."""
    user = make_user("s-runs", DATA / "state-0.0.24.sqlite")
    host.write_map(user)
    return user


def run_at(
    host: Host, user: User, when: datetime, label: str | None = None, keep: str = "100", **more: str
) -> AccountResult:
    """A real run at another time: the clock alone is ours."""
    values = settings.load({"keep": keep}, host.env(**more), Path("/dev/null"))
    with Store.open(host.store, create=True) as store:
        commit_row(user)
        job = BackupRun(values, store, label, threading.Event(), lambda *_: None, now=lambda: when)
        [result] = backup_run.run_backups(job, [accounts.find(user.name)], lambda _: None)
    assert not result.alarms, result
    return result


def files(folder: Path) -> dict[str, tuple[int, int, int, int, int, int, str]]:
    """Everything beneath, with all that a change would change."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (
            *(status.st_ino, status.st_mode, status.st_uid, status.st_size),
            *(status.st_mtime_ns, status.st_ctime_ns, content),
        )
    return found


@contextmanager
def locked_source(user: User) -> Iterator[None]:
    """Nobody can read the user's database meanwhile: a run that comes to it waits in the middle of
    its work."""
    holder = subprocess.Popen(
        programs.line("lock_database.py", str(user.database), "BEGIN IMMEDIATE"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=user.uid,
        group=user.gid,
        extra_groups=[],
        cwd="/",
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "locked\n"
        yield
    finally:
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()


@contextmanager
def running(host: Host) -> Iterator[subprocess.Popen[str]]:
    """A run in the background, which ends with the block whatever happens in it."""
    with host.start() as run:
        try:
            yield run
        finally:
            run.kill()


def worker_of(run: subprocess.Popen[str], user: User) -> int:
    """The pid of the run's worker once it has become the user: the run holds the lock, and its
    unnamed file, by then."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for child in Path(f"/proc/{run.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for pid in child.read_text().split():
                    if (
                        Path(f"/proc/{pid}").stat().st_uid == user.uid
                        or f"\nUid:\t{user.uid}\t" in Path(f"/proc/{pid}/status").read_text()
                    ):
                        return int(pid)
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    raise AssertionError("no worker")


def assert_gone(pid: int) -> None:
    """A process that nobody reaps any more than init: gone, or a zombie, within ten seconds."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state in "ZX":
            return
        time.sleep(0.02)
    raise AssertionError(f"{pid} lives")


def test_fifty_runs_by_hand_in_an_hour_push_no_earlier_day_out(host: Host, rosa: User) -> None:
    """Row 35: real runs, with KEEP 3."""
    noon = datetime.now(UTC).replace(hour=12)
    days = [
        run_at(host, rosa, noon - timedelta(days=back), keep="3").snapshots[0].manifest.name
        for back in (5, 4, 3, 2, 1)
    ]
    burst = [
        run_at(host, rosa, noon + timedelta(minutes=number), keep="3").snapshots[0].manifest.name
        for number in range(amount(50, 12))
    ]
    staying = [entry["name"] for entry in list_snapshots(host, rosa)]
    assert staying[:3] == burst[:-4:-1]
    assert staying[3:] == days[:-3:-1], "two earlier days are there, beside today"
    assert host.t3("verify").code == 0


def test_labelled_ones_are_counted_apart(host: Host, rosa: User) -> None:
    """Row 13: a rollback point outlives the daily runs, and takes no place of theirs."""
    day = datetime.now(UTC) - timedelta(days=30)
    for number, label in enumerate(
        (None, "prebump-0.0.25", None, "prebump-0.0.26", "manual", None, None, None)
    ):
        run_at(
            host, rosa, day + timedelta(days=number), label, keep="1", T3_BACKUP_KEEP_LABELLED="1"
        )
    assert [entry["label"] for entry in list_snapshots(host, rosa)] == [
        None,
        "manual",
        "prebump-0.0.26",
    ]


def test_a_clock_that_jumps_prunes_nothing_and_is_warned_of(host: Host, rosa: User) -> None:
    """Row 15: ten years ahead, right again, ten years behind."""
    today = datetime.now(UTC)
    names = [
        run_at(host, rosa, today + timedelta(days=number), keep="4").snapshots[0].manifest.name
        for number in (-2, -1)
    ]
    ahead = run_at(host, rosa, today + timedelta(days=3650), keep="4")
    assert (ahead.pruned, ahead.warnings) == ((), ())
    back = run_at(host, rosa, today, keep="4")
    assert back.pruned == ()
    assert "the clock has gone back" in back.warnings[0]
    assert ahead.snapshots[0].manifest.name in back.warnings[0]
    behind = run_at(host, rosa, today - timedelta(days=3650), keep="1")
    assert (behind.pruned, len(behind.warnings)) == ((), 1)
    assert {*names, ahead.snapshots[0].manifest.name} < {
        entry["name"] for entry in list_snapshots(host, rosa)
    }


# --- exit codes


def well(host: Host, user: User) -> Answer:
    return host.t3()


def one_of_two_failed(host: Host, user: User) -> Answer:
    host.write_map("t3t-nobody-such", user)
    return host.t3()


def symlinked_source(host: Host, user: User) -> Answer:
    user.database.rename(user.home / "elsewhere")
    user.database.symlink_to(user.home / "elsewhere")
    return host.t3()


def suspect(host: Host, user: User) -> Answer:
    with closing(sqlite3.connect(user.database, isolation_level=None)) as connection:
        connection.execute("DROP TABLE effect_sql_migrations")
    user.give(user.database)
    return host.t3()


def no_database(host: Host, user: User) -> Answer:
    user.database.unlink()
    return host.t3()


def map_of(text: str) -> Callable[[Host, User], Answer]:
    def call(host: Host, user: User) -> Answer:
        host.map.write_text(text.replace("USER", user.name))
        return host.t3()

    return call


def map_missing(host: Host, user: User) -> Answer:
    host.map.unlink()
    return host.t3()


def calling(*words: str, **environ: str) -> Callable[[Host, User], Answer]:
    return lambda host, user: host.t3(
        *[word.replace("USER", user.name) for word in words], **environ
    )


def lock_held(host: Host, user: User) -> Answer:
    host.store.mkdir(mode=0o700)
    fd = os.open(host.store, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        return host.t3()
    finally:
        os.close(fd)


def store_open_to_others(host: Host, user: User) -> Answer:
    host.store.mkdir()
    (host.store / "something").touch()
    host.store.chmod(0o755)
    return host.t3()


def store_of_the_users(host: Host, user: User) -> Answer:
    host.store.mkdir(mode=0o700)
    user.give(host.store)
    return host.t3()


def store_behind_a_symlink(host: Host, user: User) -> Answer:
    (host.folder / "real").mkdir(mode=0o700)
    host.store.symlink_to(host.folder / "real")
    return host.t3()


def store_under_a_file(host: Host, user: User) -> Answer:
    (host.folder / "file").touch()
    return host.t3(T3_BACKUP_DEST=str(host.folder / "file" / "store"))


def account_folder_of_another(host: Host, user: User) -> Answer:
    host.store.mkdir(mode=0o700)
    host.account_dir(user).mkdir(mode=0o700)
    os.chown(host.account_dir(user), 12345, 12345)
    return host.t3()


def no_room(host: Host, user: User) -> Answer:
    return host.t3(T3_BACKUP_RESERVE="1000T")


def list_after_loss(host: Host, user: User) -> Answer:
    host.t3()
    return host.t3("list", "t3t-nobody-such")


def verify_nonsense(host: Host, user: User) -> Answer:
    host.t3()
    return host.t3("verify", "--at", "yesterday")


def verify_too_old(host: Host, user: User) -> Answer:
    host.t3()
    return host.t3("verify", user.name, "--at", "3d")


# What happens -> exit code, what standard error says (None: nothing), what standard output says.
# how a lock's holder is called
HOLDER = "another run" if sandbox.ACTIVE else rf"pid {os.getpid()} .*python3.*"
OUTCOMES: dict[str, tuple[Callable[[Host, User], Answer], int, str | None, str]] = {
    "all well": (well, 0, None, r"done \(1 accounts, 0 not well\)"),
    "the same by its name": (
        calling("run", "--user", "USER", "--user", "USER"),
        0,
        None,
        r"done \(1 accounts, 0 not well\)",
    ),
    "a dry run": (calling("run", "--dry-run"), 0, None, r"would back up "),
    "a user without a database": (no_database, 0, None, r"skip .* \(no state.sqlite\)"),
    "a map of comments": (
        map_of("# nobody yet\n\n"),
        0,
        None,
        r"no users in .*; nothing to back up",
    ),
    "an empty map": (map_of(""), 0, None, r"nothing to back up"),
    "a bad line beside a good one": (
        map_of("nonsense\nx=USER\n"),
        0,
        None,
        r"WARN: .*map:1: not a line of the form",
    ),
    "one of two failed": (
        one_of_two_failed,
        1,
        None,
        r"WARN: backup FAILED for t3t-nobody-such \(.*no such user",
    ),
    "root in the map": (
        map_of("x=root\ny=USER\n"),
        1,
        None,
        r"WARN: backup FAILED for root \(.*uid 0 is refused",
    ),
    "a source that is a symlink": (
        symlinked_source,
        1,
        None,
        r"WARN: backup FAILED for .* is a symlink",
    ),
    "a suspect copy": (suspect, 1, None, r"WARN: backed up .*suspect"),
    "no room": (no_room, 1, None, r"WARN: backup FAILED for .*T3_BACKUP_RESERVE"),
    "an account folder of another user's": (
        account_folder_of_another,
        1,
        None,
        r"WARN: backup FAILED for .* belongs to uid",
    ),
    "a map of bad lines": (
        map_of("nonsense\nx=../x\n"),
        1,
        r"map: no line names an account",
        r"WARN: .*map:2: ",
    ),
    "an unknown user by name": (
        calling("run", "--user", "t3t-nobody-such"),
        1,
        None,
        r"no such user",
    ),
    "a path for a user": (calling("run", "--user", "../x"), 1, None, r"no such user"),
    "a store open to others": (
        store_open_to_others,
        1,
        r"is open to others \(mode 0755\).*chmod 0700",
        r"",
    ),
    "a store of the user's": (store_of_the_users, 1, r"belongs to uid \d+, not to uid 0", r""),
    "a store behind a symlink": (store_behind_a_symlink, 1, r"is a symlink or no folder", r""),
    "a store beneath a file": (store_under_a_file, 1, r"/file", r""),
    "no store to list": (calling("list"), 1, r"no store at .*; the first run makes it", r""),
    "no store to verify": (calling("verify"), 1, r"no store at ", r""),
    "nothing of that user": (list_after_loss, 1, r"no snapshots of t3t-nobody-such", r""),
    "nothing that old": (verify_too_old, 1, r"no snapshot at or before 3d", r""),
    "a map that is missing": (map_missing, 2, r"user map .*: No such file", r""),
    "a bad flag": (calling("run", "--keep", "0"), 2, r"T3_BACKUP_KEEP: '0' \(flag --keep\)", r""),
    "a bad label": (calling("run", "--label", "../x"), 2, r"--label '\.\./x'", r""),
    "a bad environment": (
        calling(T3_BACKUP_TIMEOUT="soon"),
        2,
        r"T3_BACKUP_TIMEOUT: 'soon' \(environment\)",
        r"",
    ),
    "an unknown option": (calling("run", "--fast"), 2, r"--fast.*--help", r""),
    "an unknown command": (calling("restart"), 2, r"restart.*--help", r""),
    "all of it and one moment": (
        calling("verify", "--all", "--at", "3d"),
        2,
        r"--at: not allowed with argument --all",
        r"",
    ),
    "a command without its argument": (calling("accept"), 2, r"USER.*--help", r""),
    "a nonsense time": (verify_nonsense, 2, r"--at 'yesterday'", r""),
    "a lock that is held": (
        lock_held,
        75,
        rf"is in use by {HOLDER}; try again later",
        r"",
    ),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_exit_code_and_one_line_say_what_happened(outcome: str, host: Host, rosa: User) -> None:
    """Row 20."""
    call, code, wrong, right = OUTCOMES[outcome]
    answer = call(host, rosa)
    assert answer.code == code, answer
    if wrong is None:
        assert answer.err == ""
    else:
        assert re.fullmatch(rf"t3-backup-state: [^\n]*{wrong}[^\n]*\n", answer.err), answer.err
    assert re.search(right, answer.out), answer.out
    assert "Traceback" not in answer.out + answer.err


# --- the lock


def test_of_two_runs_the_second_waits_a_little_and_then_names_the_first(
    host: Host, rosa: User
) -> None:
    """Row 33."""
    with locked_source(rosa), running(host) as first:
        worker_of(first, rosa)
        began = time.monotonic()
        second = host.t3()
        assert time.monotonic() - began > 4, "it waited"
        assert (second.code, second.out) == (75, "")
        # The service sees of /proc the processes alone, and so not who holds a lock.
        assert (
            "is in use by another run" if sandbox.ACTIVE else f"is in use by pid {first.pid} ("
        ) in second.err
        assert host.t3("list").code == 0, "a listing waits for nobody"
        assert first.poll() is None


@pytest.mark.alone  # the second waits no longer than five seconds for the first
def test_of_two_short_runs_both_are_done(host: Host, rosa: User) -> None:
    """Row 33: one after the other, each sealed as if it were alone."""
    # by which the second keeps one, too
    runs = [host.start("run", "--label", label) for label in ("one", "two")]
    for run in runs:
        output, _ = run.communicate(timeout=60)
        assert run.returncode == 0, output
    entries = list_snapshots(host, rosa)
    assert [entry["sequence"] for entry in entries] == [2, 1]
    assert host.t3("verify").code == 0
    assert {path.suffix for path in host.account_dir(rosa).iterdir()} == {
        ".sqlite",
        ".json",
        ".pages",
    }


def test_a_killed_run_leaves_no_lock_no_file_and_no_worker(host: Host, rosa: User) -> None:
    """Row 21: the kernel frees what it held, and the next run goes on."""
    assert host.t3().code == 0
    before = files(host.account_dir(rosa))
    with locked_source(rosa), running(host) as run:
        worker = worker_of(run, rosa)
        os.kill(run.pid, signal.SIGKILL)
        assert run.wait(10) == (255 if sandbox.ACTIVE else -signal.SIGKILL)
        assert_gone(worker)
        assert files(host.account_dir(rosa)) == before
    commit_row(rosa)
    answer = host.t3()
    assert answer.code == 0, answer
    assert len(list_snapshots(host, rosa)) == 2
    assert host.t3("verify").code == 0


def test_what_a_user_tries_on_the_store_changes_nothing(host: Host, rosa: User) -> None:
    """Row 21."""
    assert host.t3().code == 0
    before = files(host.store)
    tried = subprocess.run(
        programs.line("harm_store.py", str(host.store), str(host.account_dir(rosa))),
        user=rosa.uid,
        group=rosa.gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert len(tried.stdout.splitlines()) == 9
    assert "went through" not in tried.stdout, tried.stdout
    assert files(host.store) == before
    assert host.t3().code == 0


# --- only looking


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder on a read-only mount of its own."""
    if (
        subprocess.run(
            ["mount", "--bind", folder, folder], capture_output=True, check=False
        ).returncode
        != 0
    ):
        pytest.skip("mounting is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        with pytest.raises(OSError, match="Read-only file system"):
            (folder / "x").touch()
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_store_on_a_read_only_mount_is_listed_and_proven_and_not_touched(
    host: Host, rosa: User
) -> None:
    """Row 23."""
    assert host.t3("run", "--label", "prebump-0.0.25").code == 0
    assert host.t3().code == 0
    before = files(host.store)
    with read_only(host.store):
        for words in (
            ("list",),
            ("list", "--json"),
            ("verify",),
            ("verify", "--json"),
            ("verify", rosa.name, "--at", "latest"),
        ):
            answer = host.t3(*words)
            assert (answer.code, "Traceback" in answer.err) == (0, False), answer
        assert files(host.store) == before
        refused = host.t3()
        assert refused.code == 1
        assert "Read-only file system" in refused.out + refused.err
    assert files(host.store) == before


def test_a_snapshot_opened_plainly_makes_no_sidecars_and_stays_as_it_is(
    host: Host, rosa: User
) -> None:
    """Row 23: as somebody who looks into it by hand would, and as root, whom its mode stops in
    nothing."""
    assert host.t3().code == 0
    before = files(host.store)
    [snapshot] = host.snapshots(rosa)
    with closing(sqlite3.connect(snapshot)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("SELECT count(*) FROM effect_sql_migrations").fetchone() == (30,)
        assert set(files(host.store)) == set(before)
    assert files(host.store) == before


def flip_a_bit(data: Path, manifest: Path) -> None:
    with data.open("r+b") as file:
        file.seek(200_000)
        byte = file.read(1)[0]
        file.seek(200_000)
        file.write(bytes([byte ^ 1]))


def cut_the_tail(data: Path, manifest: Path) -> None:
    os.truncate(data, data.stat().st_size - 4096)


def append(data: Path, manifest: Path) -> None:
    with data.open("ab") as file:
        file.write(bytes(4096))


def replace_by_another(data: Path, manifest: Path) -> None:
    data.unlink()
    data.write_bytes((DATA / "state-0.0.25.sqlite").read_bytes())


def replace_by_a_symlink(data: Path, manifest: Path) -> None:
    data.rename(data.parent.parent / "moved")
    data.symlink_to(data.parent.parent / "moved")


def change(**changes: object) -> Callable[[Path, Path], None]:
    def apply(data: Path, manifest: Path) -> None:
        [value] = json.loads(manifest.read_text())["databases"]
        rewrite_manifest(
            manifest,
            **{
                key: value[key] | new if isinstance(new, dict) else new
                for key, new in changes.items()
            },
        )

    return apply


@pytest.mark.parametrize(
    "harm",
    [
        flip_a_bit,
        cut_the_tail,
        append,
        replace_by_another,
        replace_by_a_symlink,
        pytest.param(change(sha256="0" * 64), id="another hash"),
        pytest.param(change(bytes=4096), id="another size"),
        pytest.param(change(census={"user_version": 7}), id="another census"),
        pytest.param(change(census={"ends": {"orchestration_events": 5}}), id="another end"),
    ],
)
def test_verify_finds_what_is_not_as_it_was_sealed_and_proves_the_others(
    harm: Callable[[Path, Path], None], host: Host, rosa: User
) -> None:
    """Row 23: the smallest change there is."""
    for _ in range(2):
        commit_row(rosa)
        assert host.t3().code == 0
    newest, oldest = list_snapshots(host, rosa)
    data = Path(oldest["path"])
    harm(data, data.with_suffix(".json"))
    answer = host.t3("verify", "--all")
    assert answer.code == 1, answer
    assert f"WARN: {rosa.name} {oldest['name']} does NOT verify: " in answer.out
    assert f"verified {rosa.name} {newest['name']} (" in answer.out
    assert "Traceback" not in answer.err
    document = host.t3("verify", rosa.name, "--all", "--json")
    assert document.code == 1
    assert [entry["verifies"] for entry in document.account(rosa.name)["snapshots"]] == [
        True,
        False,
    ]
    assert document.account(rosa.name)["snapshots"][1]["problems"]


def test_a_snapshot_whose_manifest_is_broken_is_told_of_counts_for_nothing_and_stays(
    host: Host, rosa: User
) -> None:
    """Rows 23, 24 and 61."""
    for _ in range(2):
        commit_row(rosa)
        assert host.t3().code == 0
    data = Path(list_snapshots(host, rosa)[1]["path"])
    manifest = data.with_suffix(".json")
    sound = json.loads(manifest.read_text())
    for text in (
        "",
        "{}",
        "[" * 100_000,
        '{"format": 3}',
        manifest_text(sound | {"format": 4}),
        manifest_text(sound | {"databases": []}),
        "\xff",
        manifest_text(sound | {"name": "another"}),
        manifest_text(sound | {"reasons": 5}),
        json.dumps(with_keys(sound, bytes=sound["databases"][0]["bytes"] ^ 1)),
        None,
    ):
        manifest.unlink()
        if text is not None:
            manifest.write_text(text, encoding="latin-1")
        answer = host.t3("list")
        assert answer.code == 0, answer
        assert f"not counted: no valid manifest: {data.name}" in answer.out
    assert f"WARN: {rosa.name} {data.name} is not counted" in host.t3("verify").out
    answer = host.t3("run", "--keep", "1")
    assert (answer.code, answer.out.count("was sealed and can't be found")) == (1, 1), answer
    assert data.exists()


# --- other ways to call it


def test_a_dry_run_writes_nothing_at_all(host: Host, rosa: User) -> None:
    before = files(host.folder)
    answer = host.t3("run", "--dry-run")
    assert answer.code == 0, answer
    assert f"would back up {rosa.name}: {rosa.database} (" in answer.out
    assert files(host.folder) == before
    assert not host.store.exists()
    assert host.t3().code == 0
    before = files(host.folder)
    assert host.t3("run", "--dry-run", "--keep", "1").code == 0
    assert files(host.folder) == before


def test_several_accounts_at_once_are_as_good_as_one_after_the_other(
    host: Host, make_user, rosa: User
) -> None:
    users = [rosa] + [
        make_user(f"s-runs{number}", DATA / "state-0.0.24.sqlite") for number in range(4)
    ]
    users[2].database.unlink()
    host.write_map(*reversed(users), "t3t-nobody-such")
    answer = host.t3("run", "--jobs", "3", "--json")
    assert answer.code == 1, answer
    found = {entry["user"]: entry["outcome"] for entry in answer.document["accounts"]}
    expected = {user.name: "backed_up" for user in users} | {
        users[2].name: "skipped",
        "t3t-nobody-such": "failed",
    }
    assert found == expected
    assert answer.err.count("backed up ") == 4
    proven = host.t3("verify", "--json")
    assert proven.code == 0
    assert [len(entry["snapshots"]) for entry in proven.document["accounts"]] == [1, 1, 1, 1]
    for user in users:
        for snapshot in host.snapshots(user):
            assert (
                hashlib.sha256(snapshot.read_bytes()).hexdigest()
                == json.loads(snapshot.with_suffix(".json").read_text())["databases"][0]["sha256"]
            )


def test_with_json_the_document_is_alone_on_standard_output(host: Host, rosa: User) -> None:
    host.write_map(rosa, "t3t-nobody-such")
    run = host.t3("run", "--json")
    assert run.code == 1
    assert run.account("t3t-nobody-such")["reason"].endswith("no such user on this system")
    assert set(run.account(rosa.name)) == {
        "user",
        "outcome",
        "reason",
        "snapshots",
        "unsaved",
        "not_packed",
        "uncovered",
        "unproven",
        "lost",
        "catalog_problem",
        "taken_over",
        "own",
        "pruned",
        "compacted",
        "warnings",
    }
    assert run.err.startswith("WARN: backup FAILED for t3t-nobody-such")
    assert "done (2 accounts, 1 not well)" in run.err
    for words in (("list", "--json"), ("verify", "--json"), ("accept", rosa.name, "--json")):
        answer = host.t3(*words)
        assert answer.code == 0, answer
        assert [entry["user"] for entry in answer.document["accounts"]] == [rosa.name]
    assert "verified" in host.t3("verify", "--json").err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_ends_cleanly(
    number: signal.Signals, host: Host, rosa: User, make_user
) -> None:
    """Row 27: what it had begun has no name, what it had not begun is said, and the worker is
    gone."""
    other = make_user("s-zz-last", DATA / "state-0.0.24.sqlite")
    host.write_map(rosa, other)
    assert host.t3().code == 0
    before = {user.name: files(host.account_dir(user)) for user in (rosa, other)}
    with locked_source(rosa), running(host) as run:
        worker = worker_of(run, rosa)
        run.send_signal(number)
        output, _ = run.communicate(timeout=20)
    # systemd-run has a code of its own for it
    assert sandbox.ACTIVE or run.returncode == -number, output
    assert_gone(worker)
    assert f"WARN: backup FAILED for {rosa.name} (stopped" in output
    assert f"WARN: backup FAILED for {other.name} (not started: the run was stopped)" in output
    assert "Traceback" not in output
    assert {user.name: files(host.account_dir(user)) for user in (rosa, other)} == before
    assert host.t3().code == 0


def upgrade(package: Path) -> None:
    """Replace each file by another one, as dpkg does.

    In this version requests look otherwise, and a module has something new, which another needs."""
    for path in package.rglob("*"):
        if path.suffix in (".py", ".so"):
            new = path.with_name(path.name + ".dpkg-new")
            shutil.copyfile(path, new)
            if path.parent.name == "operations" and path.name == "__init__.py":
                new.write_text(new.read_text().replace('"request"', '"asked"'))
            if path.name == "errors.py":
                new.write_text(f"{new.read_text()}\nNewer = Failure\n")
            if path.parts[-2:] == ("monitor", "failure.py"):
                there = "from __future__ import annotations\n"
                more = f"{there}from t3_backup.errors import Newer\n"
                new.write_text(new.read_text().replace(there, more))
            new.rename(path)


@pytest.mark.skipif(sandbox.ACTIVE, reason="it has a package of its own")
def test_a_run_in_whose_middle_the_package_is_upgraded_is_to_be_tried_again(
    host: Host, make_user: Callable[..., User], tmp_path: Path
) -> None:
    """Its workers would be of the other version. What was done stays; nobody is said to have
    failed, and the next run, which is of the new version, does the rest."""
    users = [
        make_user(name, DATA / "state-0.0.24.sqlite") for name in ("up-ann", "up-ben", "up-cyd")
    ]
    host.write_map(*users)
    package = tmp_path / "package"
    shutil.copytree(ROOT / "t3_backup", package / "t3_backup")
    first, at, held = (host.folder / name for name in ("first", "at", "held"))
    os.mkfifo(held)
    hold = f"mkdir {first} 2>/dev/null || {{ echo >{at}; read line <{held}; }}"
    wrapper = wrap_workers(host.folder, copy_databases=hold)
    env = host.env() | {"PYTHONPATH": str(package)}
    with start_wrapped(
        host, wrapper, "run", env=env, cwd=package, stderr=subprocess.PIPE
    ) as process:
        until(at.exists, "worker of the second account")
        upgrade(package / "t3_backup")
        held.write_text("go on\n")
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n")) == (75, 1), out + err
    assert "was upgraded while this ran" in err
    assert "FAILED" not in out
    assert [len(host.snapshots(user)) for user in users] == [1, 0, 0]
    line = [sys.executable, "-m", "t3_backup", "run"]
    subprocess.run(line, env=env, cwd=package, check=True, timeout=60, stdout=subprocess.DEVNULL)
    assert [len(host.snapshots(user)) for user in users] == [1, 1, 1]
