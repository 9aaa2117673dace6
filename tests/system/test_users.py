"""Users and their rights: a worker is its owner and no more, the store is root's, and nothing in a
home is followed or trusted."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import programs, sandbox
from support.databases import commit_row, give_database
from support.host import Answer, Host, started
from support.paths import DATA, ROOT
from support.processes import BOUND_S, process_status, user_process
from support.users import needs_root, user_name

from demo.users import User, run_alone

pytestmark = needs_root

TINY = DATA / "state-0.0.24.sqlite"
MARK = b"a secret of somebody else's"


@pytest.fixture
def ada(make_user: Callable[..., User]) -> User:
    """Whose database, store or home is not what it should be."""
    return make_user("ada", TINY)


@pytest.fixture
def ben(make_user: Callable[..., User]) -> User:
    """Who must be backed up whatever is the matter with the others."""
    return make_user("ben", TINY)


def run_as(user: User, command: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        user=user.uid,
        group=user.gid,
        extra_groups=[],
        cwd="/",
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"} | environ,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


def output_as(user: User, command: list[str]) -> str:
    done = run_as(user, command)
    assert done.returncode == 0, done
    return done.stdout


def picture(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything beneath `folder`: what a change of any of it would change, access times aside."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        kept = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_ino,
            status.st_nlink,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        found[str(path)] = (*kept, content)
    return found


def line_of(answer: Answer, user: User) -> str:
    """The one line that speaks of the user."""
    [line] = [
        line for line in answer.out.splitlines() if user.name in line.split("->")[0].split("(")[0]
    ]
    return line


def must_go_on_without(answer: Answer, refused: User, others: User, *reasons: str) -> None:
    """One clear line of the refused account, exit 1, and the other one is backed up."""
    assert answer.code == 1, answer
    line = line_of(answer, refused)
    assert line.startswith(f"WARN: backup FAILED for {refused.name} (")
    for reason in reasons:
        assert reason in line
    assert line_of(answer, others).startswith(f"backed up {others.name} -> ")
    assert "Traceback" not in answer.out + answer.err


# ---- a worker is its owner, and no more


@contextlib.contextmanager
def locked(user: User) -> Iterator[subprocess.Popen[str]]:
    """The database is locked by its owner's server, so that a worker waits; closing its standard
    input lets go."""
    command = programs.line("lock_database.py", str(user.database), "BEGIN EXCLUSIVE")
    with user_process(user, command, "locked") as process:
        yield process


def confined_children(parent: int) -> dict[int, dict[str, str]]:
    """The workers of a run that have given up what they give up, by pid."""
    found = {}
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for pid in map(int, task.read_text().split()):
                status = process_status(pid)
                if filters(status) > filters(process_status(parent)):
                    found[pid] = status
    return found


def filters(status: dict[str, str]) -> int:
    """How many filters of system calls a process is under; a service's own is one."""
    return int(status.get("Seccomp_filters", 0))


def test_each_worker_is_its_owner_and_holds_one_descriptor_of_the_store(
    host: Host, ada: User, ben: User
) -> None:
    """Row 6, row 36. Both are looked at while they wait for the lock of a server; then both are
    done."""
    run_alone("usermod", "--append", "--groups", "games", ada.name)
    games = str(Path("/etc/group").read_text().split("\ngames:x:")[1].split(":")[0])
    host.write_map(ada, ben)
    with locked(ada) as one, locked(ben) as two, started(host, "run", T3_BACKUP_JOBS="2") as run:
        end = time.monotonic() + BOUND_S
        while len(workers := confined_children(run.pid)) < 2:
            assert time.monotonic() < end, "no two workers"
            time.sleep(0.01)
        by_uid = {status["Uid"]: pid for pid, status in workers.items()}
        for user, groups in ((ada, {str(ada.gid), games}), (ben, {str(ben.gid)})):
            pid = by_uid["\t".join([str(user.uid)] * 4)]
            status = workers[pid]
            assert status["Gid"].split() == [str(user.gid)] * 4
            assert set(status["Groups"].split()) == groups
            assert status["NoNewPrivs"] == "1"
            # Newer systemd leaves inheritable ones, which are no right: they count at an exec of a
            # file that has them, too.
            kinds = ("Prm", "Eff", "Amb") if sandbox.ACTIVE else ("Inh", "Prm", "Eff", "Amb")
            assert {status[f"Cap{kind}"] for kind in kinds} == {"0" * 16}
            limits = Path(f"/proc/{pid}/limits").read_text()
            [processes] = [line for line in limits.splitlines() if line.startswith("Max processes")]
            assert processes.split()[2:4] == ["0", "0"]
            check_descriptors(pid, user, host)
        one.communicate()
        two.communicate()
        out, _ = run.communicate(timeout=BOUND_S)
    assert run.returncode == 0, out


def check_descriptors(pid: int, user: User, host: Host) -> None:
    """One of the store, to the user's own new file, beside an empty one that is a lock; else the
    user's own files, a socket, and nothing to read."""
    opened = {fd.name: os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    mark = f"{host.account_dir(user)}+worker"  # a lock, which tells that it lives
    if mark in opened.values():
        assert Path(mark).stat().st_size == 0
        [number] = [name for name, target in opened.items() if target == mark]
        flags = int(Path(f"/proc/{pid}/fdinfo/{number}").read_text().split()[3], 8)
        assert flags & os.O_ACCMODE == os.O_RDONLY
    of_store = [
        target
        for target in opened.values()
        if target.startswith(str(host.store)) and target != mark
    ]
    assert len(of_store) == 1, opened
    assert of_store[0].startswith(f"{host.account_dir(user)}/#"), opened
    others = {target for target in opened.values() if target not in (*of_store, mark)}
    own = {target for target in others if target.startswith(f"{user.database.parent}")}
    sockets = {target for target in others if target.startswith("socket:")}
    assert len(sockets) == 1
    assert others - own - sockets <= {"/dev/null"}


# ---- the store is root's


def test_no_user_can_list_read_change_or_delete_a_snapshot(
    host: Host, ada: User, ben: User
) -> None:
    """Row 18. Not even their own."""
    host.write_map(ada, ben)
    assert host.t3().code == 0
    for folder in (host.store, host.account_dir(ada), host.account_dir(ben)):
        assert (folder.stat().st_uid, stat.S_IMODE(folder.stat().st_mode)) == (0, 0o700)
    for file in [*host.account_dir(ada).iterdir(), *host.account_dir(ben).iterdir()]:
        assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode), file.stat().st_nlink) == (
            0,
            0o400,
            1,
        )
    before = picture(host.store)
    for user in (ada, ben):
        for account_dir in (host.account_dir(ada), host.account_dir(ben)):
            [data] = account_dir.glob("*.sqlite")
            words = map(str, (host.store, account_dir, data, user.home / "away"))
            assert output_as(user, programs.line("harm_snapshots.py", *words)) == ""
    assert picture(host.store) == before


def test_a_store_that_is_open_to_others_is_refused_and_left_as_it_is(host: Host, ada: User) -> None:
    """Row 18. It may be /tmp, which a chmod would take away from everybody."""
    host.write_map(ada)
    host.store.mkdir(mode=0o755)
    (host.store / "something").touch()
    answer = host.t3()
    assert answer.code == 1
    open_to_others = f"{host.store} is open to others (mode 0755)"
    chmod = f"if it is the store: chmod 0700 {host.store}"
    assert answer.err == f"t3-backup-state: {open_to_others}; {chmod}\n"
    assert stat.S_IMODE(host.store.stat().st_mode) == 0o755
    assert os.listdir(host.store) == ["something"]
    host.store.chmod(0o700)
    assert host.t3().code == 0


def test_an_account_folder_that_another_user_owns_is_refused_alone(
    host: Host, ada: User, ben: User
) -> None:
    """Row 18."""
    host.write_map(ada, ben)
    host.store.mkdir(mode=0o700)
    host.account_dir(ada).mkdir(mode=0o700)
    ben.give(host.account_dir(ada))
    must_go_on_without(
        host.t3(),
        ada,
        ben,
        f"{host.account_dir(ada)} belongs to uid {ben.uid}, not to uid 0",
        "mv ",
    )
    assert os.listdir(host.account_dir(ada)) == []
    assert host.account_dir(ada).stat().st_uid == ben.uid


def test_an_account_folder_that_is_a_symlink_is_refused_alone(
    host: Host, ada: User, ben: User
) -> None:
    """Row 18. Nothing is written where it leads."""
    host.write_map(ada, ben)
    secret = host.folder / "secret"
    secret.mkdir(mode=0o700)
    (secret / "state-20200101T000000Z.json").write_bytes(MARK)
    host.store.mkdir(mode=0o700)
    host.account_dir(ada).symlink_to(secret)
    before = picture(secret)
    must_go_on_without(host.t3(), ada, ben, f"{host.account_dir(ada)} is a symlink or no folder")
    assert picture(secret) == before


def test_a_store_that_is_a_symlink_is_refused(host: Host, ada: User) -> None:
    """Row 18."""
    host.write_map(ada)
    elsewhere = host.folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    host.store.symlink_to(elsewhere)
    answer = host.t3()
    assert answer.code == 1
    assert f"{host.store} is a symlink or no folder" in answer.err
    assert os.listdir(elsewhere) == []


# ---- nothing in a home is followed or trusted


def make_secret(folder: Path, owner: tuple[int, int], mode: int) -> None:
    """A whole `.t3` at `folder` whose database has the mark in it, of that owner, its files of that
    mode."""
    database = folder / "userdata" / "state.sqlite"
    database.parent.mkdir(parents=True)
    shutil.copyfile(TINY, database)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE secret(text)")
        connection.execute("INSERT INTO secret VALUES(?)", (MARK.decode(),))
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for path in (folder, database.parent, database):
        os.chown(path, *owner)
        path.chmod(mode | (0o111 if path.is_dir() else 0))
    assert MARK in database.read_bytes()


@pytest.mark.parametrize("place", [".t3", ".t3/userdata", ".t3/userdata/state.sqlite"])
@pytest.mark.parametrize(
    "whose", ["root's alone", "another user's, readable by all", "the user's own"]
)
def test_a_symlink_in_a_home_is_refused_and_nothing_leaks(
    host: Host, ada: User, ben: User, place: str, whose: str
) -> None:
    """Row 18. The secret is what it was, byte and stamp, and not a byte of it is in the store."""
    host.write_map(ada, ben)
    owner, mode = {
        "root's alone": ((0, 0), 0o600),
        "another user's, readable by all": ((ben.uid, ben.gid), 0o644),
        "the user's own": ((ada.uid, ada.gid), 0o644),
    }[whose]
    secret = host.folder / "secret"
    make_secret(secret, owner, mode)
    link = ada.home / place
    link.rename(ada.home / "before")
    link.symlink_to(secret / Path(place).relative_to(".t3"))
    ada.give(link)
    before = picture(secret)
    must_go_on_without(host.t3(), ada, ben, "symlink")
    assert picture(secret) == before
    assert not any(MARK in file.read_bytes() for file in host.store.rglob("*") if file.is_file())
    assert host.snapshots(ada) == []


@pytest.mark.parametrize("kind", ["hard link", "symlink to its second name"])
def test_a_database_of_two_names_is_refused_alone(
    host: Host, ada: User, ben: User, kind: str
) -> None:
    """Row 11."""
    host.write_map(ada, ben)
    second = ada.home / "second.sqlite"
    if kind == "hard link":
        second.hardlink_to(ada.database)
        reason = f"{ada.database} has 2 names (hard links)"
    else:
        ada.database.rename(second)
        ada.database.symlink_to(second)
        reason = f"{ada.database} is a symlink"
    before = picture(ada.home)
    must_go_on_without(host.t3(), ada, ben, reason)
    assert picture(ada.home) == before


def test_a_database_of_another_user_is_refused_alone(host: Host, ada: User, ben: User) -> None:
    """Row 18. It may be read by all, and still it is not the account's."""
    host.write_map(ada, ben)
    os.chown(ada.database, ben.uid, ben.gid)
    must_go_on_without(
        host.t3(), ada, ben, f"{ada.database} belongs to uid {ben.uid}, not to uid {ada.uid}"
    )


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "device"])
def test_what_is_no_file_is_refused_without_waiting_for_it(
    host: Host, ada: User, ben: User, kind: str
) -> None:
    """Row 18. A FIFO opened for reading would wait for a writer until the deadline."""
    host.write_map(ada, ben)
    ada.database.unlink()
    if kind == "fifo":
        os.mkfifo(ada.database)
    elif kind == "folder":
        ada.database.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(ada.database))
    else:
        os.mknod(ada.database, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    ada.give(ada.database)
    began = time.monotonic()
    must_go_on_without(host.t3(timeout=BOUND_S), ada, ben, f"{ada.database} is not a regular file")
    assert time.monotonic() - began < BOUND_S / 2


@pytest.mark.parametrize("place", [".t3", ".t3/userdata"])
def test_a_file_where_a_folder_should_be_is_refused_alone(
    host: Host, ada: User, ben: User, place: str
) -> None:
    """Row 18."""
    host.write_map(ada, ben)
    (ada.home / place).rename(ada.home / "before")
    (ada.home / place).touch()
    must_go_on_without(host.t3(), ada, ben, "nothing there is followed")


def test_a_home_that_is_not_its_users_to_enter_fails_alone(
    host: Host, ada: User, ben: User
) -> None:
    """Row 18. Root could enter it; the worker is the user, and can't."""
    host.write_map(ada, ben)
    os.chown(ada.home, 0, 0)
    must_go_on_without(host.t3(), ada, ben, "Permission denied")


# ---- who has an account


def test_root_in_the_map_is_refused_alone(host: Host, ada: User) -> None:
    """Row 18."""
    host.write_map("root", ada)
    answer = host.t3()
    assert answer.code == 1
    assert "WARN: backup FAILED for root (root: uid 0 is refused" in answer.out
    assert len(host.snapshots(ada)) == 1
    assert not (host.store / "root").exists()


def test_a_user_of_uid_0_under_another_name_is_refused(host: Host, ada: User) -> None:
    """Row 18."""
    name = user_name("toor")
    run_alone("useradd", "--no-create-home", "--non-unique", "--uid", "0", "--gid", "0", name)
    try:
        host.write_map(name, ada)
        answer = host.t3()
    finally:
        # userdel would take root's processes for this user's.
        run_alone("userdel", "--force", name)
    assert answer.code == 1
    assert f"WARN: backup FAILED for {name} ({name}: uid 0 is refused" in answer.out
    assert len(host.snapshots(ada)) == 1
    assert not (host.store / name).exists()


def test_an_unknown_user_fails_alone(host: Host, ada: User) -> None:
    host.write_map("t3t-nobody-of-that-name", ada)
    answer = host.t3()
    assert answer.code == 1
    nobody = "t3t-nobody-of-that-name"
    why = f"{nobody}: no such user on this system"
    assert f"WARN: backup FAILED for {nobody} ({why})" in answer.out
    assert len(host.snapshots(ada)) == 1


def test_a_user_without_a_database_is_skipped(host: Host, ada: User, ben: User) -> None:
    host.write_map(ada, ben)
    ada.database.unlink()
    answer = host.t3()
    assert answer.code == 0
    assert line_of(answer, ada) == f"skip {ada.name} (no state.sqlite)"
    assert not host.account_dir(ada).exists()
    assert len(host.snapshots(ben)) == 1


def test_a_user_without_a_home_is_skipped(host: Host, ada: User, ben: User) -> None:
    host.write_map(ada, ben)
    shutil.rmtree(ada.home)
    answer = host.t3()
    assert answer.code == 0
    assert line_of(answer, ada) == f"skip {ada.name} (no home {ada.home})"
    assert len(host.snapshots(ben)) == 1


def test_a_database_that_has_vanished_is_an_alarm(host: Host, ada: User, ben: User) -> None:
    """Row 20. The snapshots of it stay."""
    host.write_map(ada, ben)
    assert host.t3().code == 0
    before = picture(host.account_dir(ada))
    ada.database.unlink()
    commit_row(ben)
    must_go_on_without(
        host.t3(), ada, ben, "no state.sqlite, but there are 1 snapshots of it: was it deleted?"
    )
    shutil.rmtree(ada.home)
    commit_row(ben)
    must_go_on_without(host.t3(), ada, ben, "but there are 1 snapshots of it")
    assert {
        path: kept[3:5] + kept[7:] for path, kept in picture(host.account_dir(ada)).items()
    } == {path: kept[3:5] + kept[7:] for path, kept in before.items()}


# ---- without root, and with a package that is root's alone


@pytest.fixture
def package(host: Host) -> Path:
    """A folder with a copy of the package in it."""
    if sandbox.ACTIVE:
        pytest.skip("by hand, and from a checkout")
    folder = host.folder / "lib"
    shutil.copytree(
        ROOT / "t3_backup", folder / "t3_backup", ignore=shutil.ignore_patterns("__pycache__")
    )
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def t3_as(
    user: User, package: Path, *words: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    environ = {"PYTHONPATH": str(package), "T3_BACKUP_RESERVE": "1M"} | environ
    return run_as(user, [sys.executable, "-m", "t3_backup", *words], **environ)


def test_a_user_backs_up_their_own_account_into_their_own_store(package: Path, ada: User) -> None:
    """No root, no map, no store of root's; list and verify work on it."""
    dest = ada.home / "backups"
    done = t3_as(ada, package, "run", "--dest", str(dest))
    assert done.returncode == 0, done
    assert f"backed up {ada.name} -> {dest}/{ada.name}/state-" in done.stdout
    [data] = (dest / ada.name).glob("*.sqlite")
    for path, mode in (
        (dest, 0o700),
        (dest / ada.name, 0o700),
        (data, 0o400),
        (data.with_suffix(".json"), 0o400),
    ):
        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (ada.uid, mode)
    listed = t3_as(ada, package, "list", "--dest", str(dest))
    assert listed.returncode == 0, listed
    assert data.stem in listed.stdout
    verified = t3_as(ada, package, "verify", "--dest", str(dest))
    assert verified.returncode == 0, verified
    assert f"verified {ada.name} {data.stem} (" in verified.stdout
    data.chmod(0o600)
    with data.open("r+b") as file:
        file.seek(5000)
        file.write(b"\0\1\2\3")
    assert t3_as(ada, package, "verify", "--dest", str(dest)).returncode == 1


def test_a_user_backs_up_nobody_elses_account(package: Path, ada: User, ben: User) -> None:
    """Row 20. Wrong use: exit 2, and nothing is begun."""
    dest = ada.home / "backups"
    for users in ([ben.name], [ada.name, ben.name], ["root"]):
        words = [word for user in users for word in ("--user", user)]
        done = t3_as(ada, package, "run", "--dest", str(dest), *words)
        assert done.returncode == 2, done
        assert (
            f"{ada.name} is not root and may back up only their own account, not {users[-1]}"
            in done.stderr
        )
    assert not dest.exists()


def test_a_user_can_do_nothing_with_the_store_of_roots(
    host: Host, package: Path, ada: User
) -> None:
    """Row 18, row 21. Nor hold up a run by a lock on it."""
    host.write_map(ada)
    assert host.t3().code == 0
    before = picture(host.store)
    for words in (
        ["run"],
        ["list"],
        ["verify"],
        ["accept", ada.name],
        ["pin", ada.name, "latest"],
        ["unpin", ada.name, "latest"],
    ):
        done = t3_as(ada, package, *words, "--dest", str(host.store))
        assert done.returncode == 1, done
        assert f"{host.store} can't be opened by you" in done.stderr
        assert "Traceback" not in done.stderr
    assert picture(host.store) == before
    assert host.t3().code == 0


def test_a_package_that_its_users_cannot_read_serves_them(
    host: Host, package: Path, ada: User, ben: User
) -> None:
    """Row 36. A worker has imported all that it needs before it becomes the user, for a copy, a
    failure and a proof."""
    package.chmod(0o700)
    host.write_map(ada, ben)
    ben.database.write_bytes(b"no database" * 1000)
    # it really can't be read
    assert t3_as(ada, package, "run", "--dest", str(ada.home / "backups")).returncode != 0

    def t3(*words: str) -> Answer:
        command = [sys.executable, "-m", "t3_backup", *words]
        environ = host.env(PYTHONPATH=str(package))
        return Answer.of(command, environ, cwd=Path("/"), timeout=BOUND_S)

    must_go_on_without(t3(), ben, ada, f"{ben.database} is not a SQLite database")
    assert t3("verify", ada.name).code == 0
    give_database(ben, TINY)
    assert t3("run", "--dry-run").code == 0
