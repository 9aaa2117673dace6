"""Row 27, of a restore: it may die at any moment. What is in the place of the live database is the old state or the new one, whole.

Both the command and each of its workers are killed at the entry of the n-th call of one name. Calls
that change nothing are left out of the sweep: a kill before one of them leaves the same files as a
kill before the next one that does. T3_TEST_EVERY_CALL=1 makes it each call there is in a soak. The
next command heals.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.databases import REAL, make_snapshots
from support.fault_injection import KILLED, needs_strace, run_traced
from support.host import Answer, Host
from support.live_database import (
    change_database,
    dump_copy,
    dump_database,
    leave_hot_journal,
    leave_newer_rows_in_a_wal,
    leave_unreadable_wal,
    run_sql,
)
from support.sampling import amount, counts, sample
from support.store_checks import prove_snapshots
from support.t3_data import real_database
from support.users import needs_root
from support.workers import wrap_workers

from demo.users import User
from t3_backup.t3.databases import SUCCESSOR

pytestmark = [needs_root, needs_strace]

EVERY = os.environ.get("T3_TEST_EVERY_CALL") == "1"
CHANGING = {
    *(
        "openat",
        "openat2",
        "write",
        "pwrite64",
        "ftruncate",
        "unlink",
        "unlinkat",
        "rename",
        "renameat",
        "renameat2",
        "linkat",
    ),
    *(
        "fsync",
        "fdatasync",
        "fchmod",
        "fchown",
        "copy_file_range",
        "sync_file_range",
        "mkdirat",
        "exit_group",
    ),
}
OPERATIONS = (
    "stage_database",
    "stage_archive",
    "checkpoint_databases",
    "clone_database",
    "swap_databases",
    "recover_swap",
    "install_archive",
    "remove_replaced",
)

FILES = ("stage_archive", "install_archive", "remove_replaced")  # where there are files to restore


def leave_clean(user: User) -> None:
    """Nothing beside it: its server was stopped."""


STATES = {
    "wal": leave_newer_rows_in_a_wal,
    "journal": leave_hot_journal,
    "unreadable": leave_unreadable_wal,
    "clean": leave_clean,
    "files": leave_clean,  # and with files beside the database, which come back with it
    "databases": leave_clean,  # with a second one, and a third that the snapshot lacks
}
NOT_CHECKPOINTED = ("journal", "unreadable")


def archived_files(user: User) -> dict[str, bytes]:
    """What is there of the names that come back with the database."""
    place = user.database.parent
    paths = [place / "settings.json", *sorted((place / "secrets").rglob("*"))]
    return {str(path.relative_to(place)): path.read_bytes() for path in paths if path.is_file()}


def put_files(user: User, text: bytes) -> None:
    """A settings file and two secrets."""
    place = user.database.parent
    (place / "secrets").mkdir(mode=0o700, exist_ok=True)
    for name in ("settings.json", "secrets/key.bin", f"secrets/{text.decode()}.bin"):
        (place / name).write_bytes(text)
    for path in (place / "secrets", place / "settings.json", *(place / "secrets").iterdir()):
        user.give(path)


def databases(user: User) -> list[Path]:
    """What a server would find of them."""
    return sorted(user.database.parent.glob("*.sqlite"))


def look(user: User, work: Path) -> dict[str, list[str] | str]:
    """All that a server would find in each database."""
    return {path.name: dump_copy(user, work, path) for path in databases(user)}


def hashes(user: User) -> dict[str, str]:
    """Each database and what is beside it, but for the index, by SHA-256."""
    names = {path.name.removesuffix("-shm") for path in user.database.parent.glob("*.sqlite*")}
    return {
        name: hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()
        for name in names
        if os.path.lexists(path := user.database.with_name(name))
    }


class Kills:
    """Kill, look, heal, look: as often as wanted, from the same home and store each time."""

    def __init__(self, host: Host, user: User, state: str) -> None:
        self.host, self.user, self.state = host, user, state
        self.new = look(user, host.folder / "work")
        self.new["state.sqlite"] = dump_database(host.snapshots(user)[0])
        self.new_files = archived_files(user)
        change_database(user, "CREATE TABLE later (x)")
        if state == "files":
            put_files(user, b"later")
        if state == "databases":
            for name in (SUCCESSOR, "third.sqlite"):
                run_sql(user, "CREATE TABLE later (x)", path=user.database.with_name(name))
        self.old_files = archived_files(user)
        STATES[state](user)
        self.known = frozenset(snapshot.name for snapshot in prove_snapshots(host, user))
        self.template = host.folder / "template"
        self.template.mkdir()
        subprocess.run(["cp", "-a", host.store, user.home / ".t3", self.template], check=True)
        self.files = hashes(user)
        self.old = look(user, host.folder / "work")
        assert all(isinstance(found, list) for found in self.old.values())
        assert all(self.old[name] != found for name, found in self.new.items())
        self.points: Counter[str] = Counter()
        self.states: Counter[str] = Counter()

    def fresh(self) -> None:
        """As it was before the kill."""
        for place, name in ((self.host.store, "store"), (self.user.home / ".t3", ".t3")):
            shutil.rmtree(place)
            subprocess.run(["cp", "-a", self.template / name, place], check=True)

    def words(self) -> tuple[str, ...]:
        return ("restore", self.user.name, "--yes")

    def survived(self, point: str) -> None:
        """What must hold after a kill at `point`, and after the next command."""
        self.points[point.split(maxsplit=1)[0]] += 1
        intent = self.host.store / f"{self.user.name}+restore.json"
        found = look(self.user, self.host.folder / "work")
        if found not in (self.old, self.new):
            # What can't be checkpointed moves away in several steps, and of several databases one
            # goes after the other. Until they are done or undone the intent says so.
            assert self.state in (*NOT_CHECKPOINTED, "databases"), (
                f"{point}: neither old nor new: {found}"
            )
            assert json.loads(intent.read_text())["begun"], (
                f"{point}: in between, and nothing says so"
            )
            self.states["between"] += 1
        interrupted = intent.exists()
        answer = self.host.t3("accept", self.user.name)
        assert answer.code == 0, f"{point}: {answer}"
        assert not intent.exists(), f"{point}: {answer}"
        assert ("interrupted" in answer.out) == interrupted, f"{point}: {answer}"
        self.settled(point)

    def settled(self, point: str) -> None:
        """The old state or the new one, whole, and nothing else beside it."""
        after = look(self.user, self.host.folder / "work")
        files = hashes(self.user)
        aside = {name for name in files if ".replaced-" in name}
        if after == self.new:
            self.states["new"] += 1
            expected = self.new_files
            assert set(files) - aside == set(self.new), f"{point}: {files}"
            kept = {re.sub(r"\.replaced-\w+-\w+", "", name): files[name] for name in aside}
            assert kept == (self.files if self.state in NOT_CHECKPOINTED else {}), (
                f"{point}: what was kept is not the old state"
            )
        else:
            self.states["old"] += 1
            expected = self.old_files
            assert after == self.old, f"{point}: neither old nor new"
            assert not aside, f"{point}: {aside}"
            if self.state in NOT_CHECKPOINTED:
                assert files == self.files, f"{point}: the old state was touched"
        assert archived_files(self.user) == expected, (
            f"{point}: files of another state than the database"
        )
        assert {path.stat().st_uid for path in self.user.database.parent.iterdir()} == {
            self.user.uid
        }
        assert self.known <= {
            snapshot.name for snapshot in prove_snapshots(self.host, self.user, known=self.known)
        }

    def report(self, what: str) -> str:
        return f"{what}, {self.state}: {sum(self.points.values())} kill points {dict(self.points)}; states {dict(self.states)}"


@pytest.fixture(params=STATES)
def kills(request: pytest.FixtureRequest, host: Host, make_user: Callable[..., User]) -> Kills:
    user = make_user("flt-rex", REAL)
    host.write_map(user)
    if request.param == "files":
        put_files(user, b"sealed")
    if request.param == "databases":
        user.give(real_database("v2-from26-55", user.database.with_name(SUCCESSOR)))
    make_snapshots(host, user, 1)
    return Kills(host, user, request.param)


def worker_wrapper(host: Host, operation: str, options: str, dead: str = "-") -> list[str]:
    """The command line of a restore whose worker of that operation runs under strace with those
    options, and whose workers of `dead` do nothing but die."""
    log = host.folder / "strace"
    log.unlink(missing_ok=True)
    traced = f'exec strace -D -qq -o {log} {options} {sys.executable} "$@"'
    wrapper = wrap_workers(host.folder, **{operation: traced, dead: "kill -9 $$"})
    return [str(wrapper), "-m", "t3_backup"]


def restore(kills: Kills, operation: str, options: str, dead: str = "-") -> tuple[Answer, str]:
    """A restore whose worker of that operation runs under strace; and the trace."""
    line = [*worker_wrapper(kills.host, operation, options, dead), *kills.words()]
    done = subprocess.run(
        line,
        executable=sys.executable,
        env=kills.host.env(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    log = kills.host.folder / "strace"
    return Answer(
        done.returncode, done.stdout, done.stderr
    ), log.read_text() if log.exists() else ""


def calls_of(kills: Kills, operation: str) -> Iterator[tuple[str, int]]:
    """The calls that a worker of that operation makes as the user: by name, the how-many-eth of
    that name in the process."""
    kills.fresh()
    answer, log = restore(kills, operation, "")
    assert answer.code == 0, answer
    count: Counter[str] = Counter()
    acts = False
    for line in log.splitlines():
        name = line.split("(", 1)[0]
        count[name] += 1
        acts = acts or name == "setresuid"
        if (
            acts
            and (EVERY or name in CHANGING or "F_SETLEASE" in line)
            and name.isidentifier()
            and name != "setresuid"
        ):
            yield name, count[name]


def test_a_worker_may_be_killed_at_every_call(kills: Kills, tell: Callable[[str], None]) -> None:
    for operation in OPERATIONS:
        if (operation == "clone_database" and kills.state in NOT_CHECKPOINTED) or (
            operation in FILES and kills.state != "files"
        ):
            continue
        for name, n in sample(
            list(calls_of(kills, operation)), 20, f"a {operation} killed, {kills.state}"
        ):
            kills.fresh()
            answer, log = restore(
                kills, operation, f"-e trace={name} -e inject={name}:signal=KILL:when={n}"
            )
            # One run has a call more than another: a line of progress each half second, a file
            # that an import looks for. Then nothing was killed, and the restore was done.
            if "killed by SIGKILL" not in log:
                assert answer.code == 0, f"{operation} {name} {n}: {answer}"
                continue
            kills.survived(f"{operation} {name} {n}")
        assert kills.points[operation] >= amount(4, 1)
    tell(kills.report("workers"))


@pytest.mark.parametrize("kills", ["journal", "databases"], indirect=True)
def test_an_exchange_that_is_killed_at_any_call_may_be_left_to_the_next_command(
    kills: Kills, tell: Callable[[str], None]
) -> None:
    """As where the machine goes down with it: between two exchanges nobody heals at once."""
    found = list(calls_of(kills, "swap_databases"))
    wanted = [call for call in found if call[0].startswith("rename")]
    for name, n in sorted({*wanted, *sample(found, 14, f"an exchange left, {kills.state}")}):
        kills.fresh()
        options = f"-e trace={name} -e inject={name}:signal=KILL:when={n}"
        answer, log = restore(kills, "swap_databases", options, dead="recover_swap")
        if "killed by SIGKILL" not in log:
            assert answer.code == 0, f"{name} {n}: {answer}"
            continue
        assert answer.code == 1, answer
        assert "tried again by the next command" in answer.err
        kills.survived(f"{name} {n}")
    assert kills.states["between"] >= 1
    tell(kills.report("exchanges"))


PARENT = (
    "openat",
    "write",
    "fsync",
    "rename",
    "linkat",
    "unlinkat",
    "pidfd_open",
    "wait4",
    "exit_group",
)


@pytest.mark.parametrize("kills", ["wal", "unreadable", "files", "databases"], indirect=True)
def test_the_command_may_be_killed_at_every_call_that_changes_something(
    kills: Kills, tell: Callable[[str], None]
) -> None:
    """The command's own, on the store, and those around its workers. Its workers die with it."""
    for name in PARENT:
        # Before the first file in the store is made, nothing is begun: the calls on the store are
        # what counts.
        place = (
            ["-P", str(kills.host.store), "-P", str(kills.host.account_dir(kills.user))]
            if name == "openat"
            else []
        )
        for n in counts(100, 22, f"a restore killed at {name}, {kills.state}"):
            kills.fresh()
            inject = ("-e", f"trace={name}", *place, "-e", f"inject={name}:signal=KILL:when={n}")
            answer = run_traced(kills.host, *inject, words=kills.words(), parent_only=True)
            if answer.code != KILLED:
                assert answer.code == 0, f"{name} {n}: {answer}"
                break
            kills.survived(f"{name} {n}")
    tell(kills.report("command"))
