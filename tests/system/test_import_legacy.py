"""Old snapshots become ours by `import-legacy`; none is lost.

A script of earlier days left them in folders of their users' own. A run makes its own backup all
the same, touches none of them, and says what to type.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support import programs, sandbox
from support.databases import commit_row
from support.host import Answer, Host, started
from support.paths import DATA, ROOT
from support.processes import until
from support.sampling import amount, chance
from support.users import needs_root

from demo.users import User

pytestmark = needs_root

TINY = DATA / "state-0.0.24.sqlite"
# As the script names them, in local time; from the oldest to the newest.
PLAIN = ["state-20261101-033000", "state-20261102-033000", "state-20261103-033000"]
LABELLED = "state-prebump-0.0.25-20261102-101500"
OLD = [*PLAIN[:2], LABELLED, PLAIN[2]]


@pytest.fixture
def ada(make_user: Callable[..., User], host: Host) -> User:
    """Who has a database, and a folder of snapshots of their own that the script made."""
    user = make_user("ada", TINY)
    host.write_map(user)
    host.store.mkdir(mode=0o700)
    host.account_dir(user).mkdir(mode=0o700)
    user.give(host.account_dir(user))
    return user


def not_ours(host: Host) -> list[str]:
    """What is in the store, but its mark and catalogs."""
    names = os.listdir(host.store)
    return sorted(name for name in names if name != "+store" and not name.endswith("+catalog"))


def leave(host: Host, user: User, name: str, mark: int) -> Path:
    """An old snapshot, known by its `mark`, made as the script made them."""
    path = host.account_dir(user) / f"{name}.sqlite"
    with closing(sqlite3.connect(user.database)) as database:
        database.execute("CREATE TABLE IF NOT EXISTS mark (number INTEGER PRIMARY KEY)")
        database.execute("INSERT OR IGNORE INTO mark VALUES (?)", (mark,))
        database.commit()
        database.execute("VACUUM INTO ?", (str(path),))
    for file in user.database.parent.iterdir():
        user.give(file)
    path.chmod(0o644)
    user.give(path)
    return path


def leave_all(host: Host, user: User, names: list[str] = OLD) -> None:
    for mark, name in enumerate(names, 1):
        leave(host, user, name, mark)


def marks(path: Path) -> int:
    """How many marks a snapshot holds, and so which one it is."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
        [(count,)] = database.execute("SELECT count(*) FROM mark").fetchall()
        return int(count)


def listed(host: Host, user: User) -> list[dict[str, Any]]:
    answer = host.t3("list", user.name, "--json")
    assert answer.code == 0, answer
    return answer.account(user.name)["snapshots"]


def take_over(host: Host, *words: str, **environ: str) -> Answer:
    return host.t3("import-legacy", *words, "--json", **environ)


def utc(name: str) -> str:
    """The time in an old name, as a manifest has it."""
    local = datetime.strptime(name[-15:], "%Y%m%d-%H%M%S").astimezone()
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(local.timestamp()))


def must_have_taken_over(host: Host, user: User, answer: Answer, names: list[str] = OLD) -> None:
    """All of them are ours, once and in order, below the new one of a run; nothing else is left."""
    assert answer.code == 0, answer
    ran = host.t3("run", "--json")
    assert (ran.code, ran.account(user.name)["taken_over"], ran.account(user.name)["warnings"]) == (
        0,
        [],
        [],
    )
    new, *old = listed(host, user)
    assert new["sequence"] == 1
    assert [(s["taken_at"], s["verdict"]) for s in old] == [
        (utc(name), "verified") for name in reversed(names)
    ]
    assert [marks(Path(s["path"])) for s in [new, *old]] == [len(names), *range(len(names), 0, -1)]
    assert not_ours(host) == sorted([user.name, "attempts.json"])
    assert len(
        [path for path in host.account_dir(user).iterdir() if path.suffix != ".pages"]
    ) == 2 * (1 + len(names))
    for path in [host.account_dir(user), *host.account_dir(user).iterdir()]:
        assert path.stat().st_uid == 0
        assert path.stat().st_mode & 0o077 == 0
    assert host.t3("verify").code == 0


def test_old_snapshots_become_ours_with_their_times_and_labels(host: Host, ada: User) -> None:
    leave_all(host, ada)
    answer = take_over(host)
    must_have_taken_over(host, ada, answer)
    assert len(answer.account(ada.name)["taken_over"]) == len(OLD)
    [labelled] = [s for s in listed(host, ada) if s["label"]]
    assert (labelled["label"], labelled["taken_at"]) == ("prebump-0.0.25", utc(LABELLED))
    assert labelled["name"].endswith("-prebump-0.0.25")
    commit_row(ada)
    assert host.t3().code == 0
    again = host.t3("import-legacy", ada.name)
    assert (again.code, again.out) == (
        0,
        f"{ada.name}: no snapshots of an earlier script to take over\n",
    )
    assert take_over(host).document == {"accounts": []}
    assert [s["sequence"] for s in listed(host, ada)] == [2, 1, 0, -1, -2, -3]


def test_until_then_they_are_told_of_with_the_command_that_takes_them_over(
    host: Host, ada: User
) -> None:
    leave_all(host, ada)
    for words in (["list"], ["verify"], ["list", ada.name]):
        answer = host.t3(*words)
        assert answer.code == 1
        assert f"t3-backup-state import-legacy {ada.name} takes it over" in answer.out + answer.err
    assert sorted(os.listdir(host.account_dir(ada))) == sorted(f"{name}.sqlite" for name in OLD)


def test_they_are_pruned_as_any_other_and_the_oldest_goes_first(host: Host, ada: User) -> None:
    leave_all(host, ada, PLAIN)
    assert take_over(host).code == 0
    answer = host.t3("run", "--keep", "2", "--json")
    assert [name[:14] for name in answer.account(ada.name)["pruned"]] == [
        "state-20261101",
        "state-20261102",
    ]
    assert [marks(Path(s["path"])) for s in listed(host, ada)] == [3, 3]


def test_the_first_run_is_measured_by_them(host: Host, ada: User, small: Path) -> None:
    """Row 34. A server that began anew before we came is seen by what the script had kept."""
    shutil.copyfile(small, host.account_dir(ada) / f"{PLAIN[0]}.sqlite")
    ada.give(host.account_dir(ada) / f"{PLAIN[0]}.sqlite")
    assert take_over(host).code == 0
    answer = host.t3("run", "--json")
    assert answer.code == 1
    assert answer.account(ada.name)["snapshots"][0]["verdict"] == "suspect"


def wreck(path: Path) -> None:
    """Damage that only a full check finds: an index page that is no longer what it was."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = random.Random(1).randbytes(4096)
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other(path: Path) -> None:
    path.write_text("no database")


def with_wal(path: Path) -> None:
    Path(f"{path}-wal").write_bytes(b"frames")


def symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def somebody_elses(path: Path) -> None:
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("spoil", [wreck, empty, other, with_wal, symlink, fifo, somebody_elses])
def test_one_that_does_not_prove_is_left_and_told_of_and_costs_no_other(
    host: Host, ada: User, spoil: Callable[[Path], None]
) -> None:
    leave_all(host, ada)
    bad = host.account_dir(ada) / f"{PLAIN[1]}.sqlite"
    spoil(bad)
    if spoil is not somebody_elses:
        os.lchown(bad, ada.uid, ada.gid)
    before = os.lstat(bad)
    answer = take_over(host)
    assert answer.code == 0
    assert host.t3().code == 0
    assert [marks(Path(s["path"])) for s in listed(host, ada)] == [4, 4, 3, 1]
    left = host.store / f"{ada.name}+leftover" / bad.name
    assert os.lstat(left).st_ino == before.st_ino
    assert os.lstat(left).st_size == before.st_size
    warnings = answer.account(ada.name)["warnings"]
    assert any(bad.name in warning for warning in warnings), warnings
    assert any(str(left.parent) in warning for warning in warnings), warnings
    for path in (host.store, host.account_dir(ada)):
        assert path.stat().st_uid == 0
    # Told of once, listed for ever, and not tried again.
    assert host.t3("run", "--json").account(ada.name)["warnings"] == []
    assert take_over(host, ada.name).account(ada.name)["warnings"] == []
    answer = host.t3("list", ada.name)
    assert answer.code == 0
    assert f"{ada.name}+leftover" in answer.out
    assert host.t3("list", ada.name, "--json").account(ada.name)["leftovers"] == [str(left.parent)]


def test_one_that_root_has_put_there_by_hand_is_taken_over_too(host: Host, ada: User) -> None:
    leave_all(host, ada)
    os.chown(host.account_dir(ada) / f"{LABELLED}.sqlite", 0, 0)
    must_have_taken_over(host, ada, take_over(host))


def test_what_is_no_snapshot_stays_where_it_was(host: Host, ada: User) -> None:
    leave_all(host, ada, PLAIN)
    for name in ("notes.txt", "state-evil..label;-20261101-033000.sqlite"):
        (host.account_dir(ada) / name).write_text("mine")
        ada.give(host.account_dir(ada) / name)
    assert take_over(host).code == 0
    assert host.t3().code == 0
    assert len(listed(host, ada)) == 1 + len(PLAIN)
    assert sorted(os.listdir(host.store / f"{ada.name}+leftover")) == sorted(
        ("notes.txt", "state-evil..label;-20261101-033000.sqlite")
    )


def test_one_in_wal_mode_is_taken_over_and_is_so_no_more(host: Host, ada: User) -> None:
    path = leave(host, ada, PLAIN[0], 1)
    data = bytearray(path.read_bytes())
    data[18:20] = b"\x02\x02"
    path.write_bytes(bytes(data))
    assert take_over(host).code == 0
    old = Path(listed(host, ada)[0]["path"])
    assert old.read_bytes()[18:20] == b"\x01\x01"
    assert marks(old) == 1


@pytest.mark.parametrize("first", ["run", "import-legacy"])
def test_an_empty_old_account_folder_is_simply_replaced(first: str, host: Host, ada: User) -> None:
    assert host.t3(first).code == 0
    assert host.t3().code == 0
    assert not_ours(host) == sorted([ada.name, "attempts.json"])
    assert host.account_dir(ada).stat().st_uid == 0


def test_one_that_was_sealed_when_the_run_was_killed_is_not_taken_twice(
    host: Host, ada: User
) -> None:
    """Row 27. Between the name of the new file and the end of the original it is in both places."""
    leave_all(host, ada)
    kept = host.store / f"{ada.name}+old"
    shutil.copytree(host.account_dir(ada), kept)
    must_have_taken_over_beside(host, ada, kept)
    for path in [kept, *kept.iterdir()]:
        ada.give(path)
    commit_row(ada)
    answer = take_over(host)
    assert (
        answer.code,
        answer.account(ada.name)["taken_over"],
        answer.account(ada.name)["warnings"],
    ) == (0, [], [])
    assert host.t3().code == 0
    assert [s["sequence"] for s in listed(host, ada)] == [2, 1, 0, -1, -2, -3]
    assert not_ours(host) == sorted([ada.name, "attempts.json"])


def must_have_taken_over_beside(host: Host, ada: User, kept: Path) -> None:
    hidden = host.store.parent / "hidden"
    kept.rename(hidden)
    must_have_taken_over(host, ada, take_over(host))
    hidden.rename(kept)


def test_where_the_old_script_still_runs_and_gives_our_account_folder_away_nothing_is_moved(
    host: Host, ada: User
) -> None:
    """Row 31. It hands the account folder to its user each time; a chown of the one folder mends
    it."""
    assert host.t3().code == 0
    ada.give(host.account_dir(ada))
    leave(host, ada, PLAIN[0], 1)
    before = sorted(os.listdir(host.account_dir(ada)))
    for words in (("run",), ("import-legacy",), ("import-legacy", ada.name)):
        answer = host.t3(*words)
        assert answer.code == 1
        assert f"chown root: {host.account_dir(ada)}" in answer.out
    assert sorted(os.listdir(host.account_dir(ada))) == before
    os.chown(host.account_dir(ada), 0, 0)
    assert host.t3().code == 0
    entry = host.t3("list", ada.name, "--json").account(ada.name)
    assert len(entry["snapshots"]) == 2
    assert entry["strays"] == [f"{PLAIN[0]}.sqlite"]


def test_what_is_not_done_in_time_waits_for_the_next_call(
    host: Host, ada: User, grown: Callable[[int], Path]
) -> None:
    for name in PLAIN:
        shutil.copyfile(grown(64), host.account_dir(ada) / f"{name}.sqlite")
        ada.give(host.account_dir(ada) / f"{name}.sqlite")
    first = take_over(host, "--timeout", "1")
    done = len(first.account(ada.name)["taken_over"])
    assert (first.code == 0) is (first.account(ada.name)["waiting"] == [])
    # the time may also be over when all are taken over, and only the last look is missing
    assert done == len(PLAIN) or first.code != 0
    second = take_over(host)
    assert (
        second.code,
        second.account(ada.name)["waiting"] if second.document["accounts"] else [],
    ) == (0, [])
    assert done + sum(len(one["taken_over"]) for one in second.document["accounts"]) == len(PLAIN)
    old = [s for s in listed(host, ada) if s["sequence"] <= 0]
    assert [s["taken_at"] for s in old] == [utc(name) for name in reversed(PLAIN)]


def test_a_hundred_bad_ones_hide_no_good_one(host: Host, ada: User) -> None:
    leave(host, ada, PLAIN[0], 1)
    count = amount(120, 15)
    for minute in range(count):
        bad = (
            host.account_dir(ada) / f"state-20261104-{3 + minute // 60:02}{minute % 60:02}00.sqlite"
        )
        bad.touch()
        ada.give(bad)
    assert len(take_over(host).account(ada.name)["taken_over"]) == 1
    assert [s["taken_at"] for s in listed(host, ada)] == [utc(PLAIN[0])]
    assert len(os.listdir(host.store / f"{ada.name}+leftover")) == count


@pytest.mark.parametrize(
    "name",
    [
        "state-09990101-033000",
        "state-19700101-000000",
        "state-20991231-033000",
        "state-99991231-235959",
    ],
)
def test_a_time_that_no_script_can_have_had_is_not_taken_over(
    name: str, host: Host, ada: User
) -> None:
    leave_all(host, ada, [*PLAIN, name])
    assert take_over(host).code == 0
    assert host.t3().code == 0
    assert [marks(Path(s["path"])) for s in listed(host, ada)] == [4, 3, 2, 1]
    assert marks(host.store / f"{ada.name}+leftover" / f"{name}.sqlite") == 4


@pytest.mark.skipif(shutil.which("chattr") is None, reason="needs chattr")
def test_one_that_cannot_be_removed_holds_up_no_other_and_is_taken_once(
    host: Host, ada: User
) -> None:
    leave_all(host, ada, PLAIN)
    stuck = host.account_dir(ada) / f"{PLAIN[2]}.sqlite"
    if subprocess.run(["chattr", "+i", stuck], check=False).returncode:
        pytest.skip("a file system without such files")
    try:
        counts = []
        for _ in range(2):
            answer = take_over(host)
            counts.append(len(answer.account(ada.name)["taken_over"]))
            assert (answer.code, answer.account(ada.name)["waiting"]) == (
                1,
                [f"{host.store}/{ada.name}+old"],
            )
            assert host.t3().code == 0
            commit_row(ada)
    finally:
        subprocess.run(["chattr", "-i", host.store / f"{ada.name}+old" / stuck.name], check=True)
    assert counts == [3, 0]
    assert take_over(host).code == 0
    assert host.t3().code == 0
    assert [s["sequence"] for s in listed(host, ada)] == [3, 2, 1, 0, -1, -2]
    assert not_ours(host) == sorted([ada.name, "attempts.json"])


def test_a_run_sets_them_aside_backs_up_and_says_what_to_type(host: Host, ada: User) -> None:
    leave_all(host, ada)
    kept = {path.name: path.lstat() for path in host.account_dir(ada).iterdir()}
    for number in (1, 2):  # each run says so again
        answer = host.t3("run", "--json")
        assert (answer.code, answer.account(ada.name)["taken_over"]) == (0, [])
        command = f"t3-backup-state import-legacy {ada.name}"
        old = f"{host.store}/{ada.name}+old"
        waits = f"{ada.name}: old snapshots wait in {old}; take them over: {command}"
        assert answer.account(ada.name)["warnings"] == [waits]
        assert f"WARN: {waits}" in answer.err
        assert [s["sequence"] for s in listed(host, ada)] == list(range(number, 0, -1))
        commit_row(ada)
    aside = host.store / f"{ada.name}+old"
    now = {path.name: path.lstat() for path in aside.iterdir()}
    assert {name: (one.st_ino, one.st_mtime_ns, one.st_size) for name, one in now.items()} == {
        name: (one.st_ino, one.st_mtime_ns, one.st_size) for name, one in kept.items()
    }
    assert len(take_over(host).account(ada.name)["taken_over"]) == len(OLD)
    assert [s["sequence"] for s in listed(host, ada)] == [2, 1, 0, -1, -2, -3]


def test_it_needs_root_and_waits_for_the_lock_and_a_user_of_no_such_name_fails(
    host: Host, ada: User
) -> None:
    leave_all(host, ada, PLAIN)
    if not sandbox.ACTIVE:  # which only root can ask for
        line = host.command("import-legacy", "--dest", str(host.store))
        done = subprocess.run(
            line,
            env=host.env(),
            cwd=ROOT,
            user=ada.uid,
            group=ada.gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, "needs root" in done.stderr) == (2, "", True)
    answer = take_over(host, "nobody-of-that-name", ada.name)
    assert answer.code == 1
    assert "no such user" in answer.account("nobody-of-that-name")["problem"]
    assert len(answer.account(ada.name)["taken_over"]) == len(PLAIN)


def test_a_folder_that_its_user_has_closed_costs_no_backup_of_today(host: Host, ada: User) -> None:
    leave_all(host, ada)
    host.account_dir(ada).chmod(0)
    answer = host.t3("run", "--json")
    assert answer.code == 0
    assert (
        f"old snapshots wait in {host.store}/{ada.name}+old"
        in answer.account(ada.name)["warnings"][0]
    )
    answer = take_over(host)
    assert answer.code == 1
    assert (
        f"the rest of {host.store}/{ada.name}+old is not taken over yet: "
        in answer.account(ada.name)["warnings"][0]
    )
    (host.store / f"{ada.name}+old").chmod(0o700)
    assert len(take_over(host).account(ada.name)["taken_over"]) == len(OLD)


def test_no_room_leaves_them_where_they_are(host: Host, ada: User) -> None:
    leave_all(host, ada)
    answer = host.t3("import-legacy", T3_BACKUP_RESERVE="1000T")
    assert answer.code == 1
    assert re.search(
        r" is not taken over yet: state-\S+: (no room|the store's disk)[^\n]*T3_BACKUP_RESERVE",
        answer.out,
    )
    assert len(os.listdir(host.store / f"{ada.name}+old")) == len(OLD)
    must_have_taken_over(host, ada, take_over(host))


def test_a_process_of_the_users_in_the_old_folder_reaches_nothing_of_ours(
    host: Host, ada: User
) -> None:
    """It keeps its working folder, and may still make files there; they come below all others, or
    stay where they are."""
    leave_all(host, ada, PLAIN)
    (host.account_dir(ada) / "mine").write_text("x")
    ada.give(host.account_dir(ada) / "mine")
    with subprocess.Popen(
        programs.line("stay_inside.py", ada.name, str(ada.uid)),
        cwd=host.account_dir(ada), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as inside:  # fmt: skip
        assert inside.stdout is not None
        assert inside.stdout.readline() == "in\n"
        assert take_over(host).code == 0
        assert host.t3().code == 0
        found, _ = inside.communicate("\n", timeout=20)
    assert found.strip() == "[13, 13, 13, 13]"
    assert len(listed(host, ada)) == 1 + len(PLAIN)


def test_one_killed_at_any_instant_of_it_loses_none_and_doubles_none(host: Host, ada: User) -> None:
    """Row 27. Each moment that the script had kept is in one of the two places after every kill,
    and once in the end."""
    leave_all(host, ada)
    expected = {1, 2, 3, 4}
    rng = chance("a run killed while it takes over")
    kept = host.folder / "kept"
    began = time.monotonic()
    shutil.copytree(host.account_dir(ada), kept)
    assert take_over(host).code == 0
    whole = time.monotonic() - began
    for _ in range(amount(12, 2)):
        shutil.rmtree(host.store)
        shutil.rmtree(host.folder / "state", ignore_errors=True)
        host.store.mkdir(mode=0o700)
        shutil.copytree(kept, host.account_dir(ada))
        for path in [host.account_dir(ada), *host.account_dir(ada).iterdir()]:
            ada.give(path)
        for _ in range(2):
            with started(host, "import-legacy") as process:
                time.sleep(rng.uniform(0.1, whole))
                process.send_signal(signal.SIGKILL)
                process.wait()
            found = {marks(path) for path in host.store.glob("*/state-*.sqlite")}
            assert expected <= found
        until(lambda: host.t3("list").code != 75, "free store")
        must_be_whole(host, ada)


def must_be_whole(host: Host, ada: User) -> None:
    assert take_over(host).code == 0
    assert host.t3("run", "--keep", "100").code == 0
    old = [s for s in listed(host, ada) if s["sequence"] <= 0]
    assert [s["taken_at"] for s in old] == [utc(name) for name in reversed(OLD)]
    assert [marks(Path(s["path"])) for s in old] == [4, 3, 2, 1]
    assert not_ours(host) == sorted([ada.name, "attempts.json"])
