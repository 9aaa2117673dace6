"""What is precious beside a database comes back with it: secrets, settings, attachments. It costs
nothing while nothing changes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest
from support import programs, sandbox
from support.archives import list_archives, wait_out_clock_tick
from support.databases import commit_row, give_database
from support.host import Host, succeeded
from support.users import needs_root

from demo.users import User
from t3_backup import accounts, settings
from t3_backup.backup import publish
from t3_backup.backup import run as backup_run
from t3_backup.backup.account import BackupRun
from t3_backup.store.store import Store
from t3_backup.worker import client
from t3_backup.worker.operations.archive import InspectArchive
from t3_backup.worker.operations.backup import CopyDatabases, WriteArchive
from t3_backup.worker.operations.proof import CheckDatabases

pytestmark = needs_root
by_hand = pytest.mark.skipif(sandbox.ACTIVE, reason="by hand")

LONG = "l" * 200
LAYOUT: dict[str, tuple[int, bytes | None]] = {
    "secrets": (0o700, None),
    "secrets/signing-key.bin": (0o600, os.urandom(64)),
    "secrets/provider environment.bin": (0o600, b"TOKEN=\0\xff"),
    "settings.json": (0o644, b'{"theme": "dark"}'),
    "keybindings.json": (0o644, b"[]"),
    "environment-id": (0o644, b"4f1c"),
    "attachments": (0o755, None),
    "attachments/Bildschirmfoto ä €.png": (0o644, os.urandom(300_000)),
    "attachments/empty": (0o644, b""),
    "attachments/empty folder": (0o755, None),
    f"attachments/{LONG}": (0o755, None),
    f"attachments/{LONG}/{LONG}": (0o640, b"deep"),
    "attachments/read-only folder": (0o555, None),
    "attachments/read-only folder/file": (0o444, b"x"),
    "themes": (0o755, None),
    "themes/solarized ä.json": (0o644, b"{}"),
    "browser-artifacts": (0o755, None),
    "browser-artifacts/browser-screenshot-localhost-1.png": (0o644, os.urandom(1000)),
}
LEFT_OUT = ("logs/server.log", "caches/x", "server-runtime.json", "anonymous-id")


def lay_out(user: User) -> Path:
    """The real layout beside the user's database."""
    userdata = user.database.parent
    for name, (_, content) in LAYOUT.items():
        if content is None:
            (userdata / name).mkdir()
        else:
            (userdata / name).write_bytes(content)
    for name in LEFT_OUT:
        (userdata / name).parent.mkdir(exist_ok=True)
        (userdata / name).write_text("again and again")
    for path in userdata.rglob("*"):
        user.give(path)
    for name, (mode, _) in LAYOUT.items():
        (userdata / name).chmod(mode)
    return userdata


def found(userdata: Path) -> dict[str, tuple[str, int, int, int, bytes | None]]:
    """What is there of the names that are kept: type and mode, owner, time, content."""
    tops = {name.split("/")[0] for name in LAYOUT}
    paths = [path for path in userdata.rglob("*") if path.relative_to(userdata).parts[0] in tops]
    return {
        str(path.relative_to(userdata)): (
            stat.filemode(path.lstat().st_mode), path.lstat().st_uid, path.lstat().st_gid,
            path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None,
        )
        for path in paths
    }  # fmt: skip


def archives(host: Host, user: User) -> list[Path]:
    return sorted(host.account_dir(user).glob("beside-*.tar.zst"))


def names_in(archive: Path) -> list[str]:
    out = subprocess.run(
        ["tar", "--zstd", "-tf", archive], check=True, capture_output=True, text=True
    ).stdout
    return [name.rstrip("/") for name in out.splitlines()]


@pytest.fixture
def laid(alice: User) -> User:
    lay_out(alice)
    return alice


def test_the_archive_holds_what_is_kept_and_nothing_else(host: Host, laid: User) -> None:
    succeeded(host.t3("run"))
    [archive] = archives(host, laid)
    assert archive.stat().st_mode & 0o7777 == 0o400
    assert archive.name == f"beside-{hashlib.sha256(archive.read_bytes()).hexdigest()}.tar.zst"
    [companion] = list_archives(host, laid)
    assert companion is not None
    assert companion["entries"] == len(LAYOUT)
    assert companion["content_bytes"] == sum(len(content or b"") for _, content in LAYOUT.values())
    out = subprocess.run(
        ["tar", "--zstd", "-tf", archive, "--quoting-style=literal"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert {name.rstrip("/") for name in out.stdout.splitlines()} == set(LAYOUT)


@by_hand
@pytest.mark.parametrize("only", [None, "files"])
def test_everything_comes_back_with_owner_mode_and_time(
    host: Host, laid: User, only: str | None
) -> None:
    userdata = laid.database.parent
    before = found(userdata)
    succeeded(host.t3("run"))
    shutil.rmtree(userdata / "secrets")
    shutil.rmtree(userdata / "themes")
    (userdata / "settings.json").write_text("{}")
    (userdata / "keybindings.json").unlink()
    (userdata / "attachments" / "later.png").write_bytes(b"later")
    laid.give(userdata / "attachments" / "later.png")
    changed = found(userdata)
    succeeded(host.t3("restore", laid.name, "--yes", *(["--only", only] if only else [])))
    assert found(userdata) == before
    assert {path.name for path in userdata.iterdir() if "replaced" in path.name} == set()
    assert (userdata / "logs" / "server.log").exists()
    succeeded(host.t3("restore", laid.name, "--label", "prerestore", "--yes"))
    # What was not there then is left: a restore removes nothing that it has nothing for.
    now = found(userdata)
    assert {name: now[name] for name in changed if name != "settings.json"} == {
        name: value for name, value in changed.items() if name != "settings.json"
    }
    assert now["settings.json"][4] == b"{}"


@by_hand
def test_the_database_alone_is_put_back_where_so_asked(host: Host, laid: User) -> None:
    succeeded(host.t3("run"))
    (laid.database.parent / "settings.json").write_text("{}")
    succeeded(host.t3("restore", laid.name, "--yes", "--only", "database"))
    assert (laid.database.parent / "settings.json").read_text() == "{}"


@by_hand
def test_files_that_were_not_saved_cannot_be_put_back(host: Host, alice: User) -> None:
    succeeded(host.t3("run"))
    answer = host.t3("restore", alice.name, "--yes", "--only", "files")
    assert (answer.code, "has no files: there were none" in answer.err) == (1, True)


def test_while_nothing_changes_nothing_is_read_and_nothing_is_stored(
    host: Host, laid: User
) -> None:
    wait_out_clock_tick(laid.database.parent)
    succeeded(host.t3("run"))
    [archive] = archives(host, laid)
    secret = laid.database.parent / "secrets" / "signing-key.bin"
    # whoever reads it moves this time
    os.utime(secret, ns=(1_000_000_000, secret.stat().st_mtime_ns))
    wait_out_clock_tick(laid.database.parent)
    succeeded(host.t3("run"))  # its ctime is another, so it is packed, and the archive is the same
    assert archives(host, laid) == [archive]
    os.utime(secret, ns=(1_000_000_000, secret.stat().st_mtime_ns))
    wait_out_clock_tick(laid.database.parent)
    succeeded(host.t3("run"))
    commit_row(laid)  # in the database alone: of what is beside it nothing has changed
    before = secret.stat().st_atime_ns
    used = sum(path.stat().st_blocks for path in archives(host, laid))
    succeeded(host.t3("run"))
    assert secret.stat().st_atime_ns == before
    assert archives(host, laid) == [archive]
    assert sum(path.stat().st_blocks for path in archives(host, laid)) == used
    assert len({json.dumps(companion) for companion in list_archives(host, laid)[:2]}) == 1


@by_hand
def test_no_worker_is_started_for_files_that_have_not_changed(
    host: Host, laid: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_out_clock_tick(laid.database.parent)
    succeeded(host.t3("run"))
    asked: list[type] = []
    started: list[type] = []  # before the copy was answered
    answer, start = client.Worker.answer, client.Worker.__init__

    def noted(worker: client.Worker[Any], *more: Any) -> Any:
        asked.append(type(worker._operation))
        return answer(worker, *more)

    def begun(worker: client.Worker[Any], who: Any, operation: Any, *more: Any, **how: Any) -> None:
        if len(asked) < 2:
            started.append(type(operation))
        start(worker, who, operation, *more, **how)

    monkeypatch.setattr(client.Worker, "answer", noted)
    monkeypatch.setattr(client.Worker, "__init__", begun)
    values = settings.load({}, host.env(), Path("/dev/null"))
    for change, expected in (
        (lambda: None, [CopyDatabases, CheckDatabases]),
        (
            lambda: (laid.database.parent / "settings.json").write_text("[]"),
            [CopyDatabases, WriteArchive, InspectArchive, CheckDatabases],
        ),
    ):
        commit_row(laid)
        change()
        asked.clear()
        started.clear()
        with Store.open(host.store) as store:
            run = BackupRun(values, store, None, threading.Event(), lambda *_: None)
            [result] = backup_run.run_backups(run, [accounts.find(laid.name)], lambda _: None)
        assert result.outcome == "backed_up", result
        assert asked == expected
        early = len(os.sched_getaffinity(0)) > 1
        assert (CheckDatabases in started[:2]) is early, "the proof's is started early"


@by_hand
def test_where_newer_system_calls_are_refused_all_is_saved_and_put_back(
    host: Host, laid: User
) -> None:
    """Row 67: in a container whose filter doesn't know them."""

    def inside(*words: str) -> dict[str, Any]:
        line = programs.line("refuse_newer_calls.py", *host.command(*words, "--json"))
        done = subprocess.run(line, env=host.env(), cwd="/", capture_output=True, check=False)
        assert done.returncode == 0, done
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    userdata = laid.database.parent
    before = found(userdata)
    [account] = inside("run")["accounts"]
    assert (account["not_packed"], account["reason"], account["warnings"]) == ([], "", [])
    (userdata / "secrets" / "later.bin").write_bytes(b"later")
    laid.give(userdata / "secrets" / "later.bin")
    done = inside("restore", laid.name, "--yes", "--no-service")
    assert (done["kept"], done["warnings"], done["prerestore"]["verdict"]) == ([], [], "verified")
    assert found(userdata) == before
    assert inside("verify")["accounts"][0]["snapshots"][0]["verifies"] is True


def test_one_file_that_is_not_packed_is_told_wherever_one_looks_until_it_is(
    host: Host, laid: User
) -> None:
    """What a link into a folder of dotfiles leads to, run after run; all else is saved."""
    settings, elsewhere = laid.database.with_name("settings.json"), laid.home / "dotfiles.json"
    settings.rename(elsewhere)
    settings.symlink_to(elsewhere)
    os.lchown(settings, laid.uid, laid.gid)
    for _ in range(2):  # the second one finds nothing changed
        answer = succeeded(host.t3("run", "--json"))
        [passed] = answer.account(laid.name)["not_packed"]
        assert passed.startswith("settings.json: a symlink, which is saved as such: what it")
        status = host.t3("status", "--json").account(laid.name)
        assert status["last_attempt"]["unsaved"] == passed
        assert any(passed in one["text"] for one in status["troubles"])
        told = host.t3("status", "--nagios")
        assert (told.code, passed in told.out) == (1, True), told
        assert passed in host.t3("doctor").out
    settings.unlink()
    elsewhere.rename(settings)
    succeeded(host.t3("run"))
    assert host.t3("status", "--json").account(laid.name)["state"] == "ok"


def test_a_change_makes_a_new_archive_and_the_old_stays_while_a_snapshot_names_it(
    host: Host, laid: User
) -> None:
    succeeded(host.t3("run"))
    [old] = archives(host, laid)
    secret = laid.database.parent / "secrets" / "signing-key.bin"
    secret.write_bytes(b"another")
    succeeded(host.t3("run"))
    both = archives(host, laid)
    assert old in both
    assert len(both) == 2
    succeeded(host.t3("verify", laid.name))
    succeeded(host.t3("run", "--keep", "1"))
    assert archives(host, laid) == [path for path in both if path != old]
    succeeded(host.t3("verify", laid.name))


def test_an_archive_that_nobody_names_goes_and_a_named_one_never(host: Host, laid: User) -> None:
    """What a run that was killed between archive and manifest leaves."""
    succeeded(host.t3("run"))
    named = archives(host, laid)
    orphan = host.account_dir(laid) / f"beside-{'0' * 64}.tar.zst"
    orphan.write_bytes(b"orphan")
    foreign = host.account_dir(laid) / "beside-mine.tar.zst"
    foreign.write_bytes(b"somebody's")
    succeeded(host.t3("run"))
    assert not orphan.exists()
    assert foreign.exists()
    assert set(named) <= set(archives(host, laid))
    stray = host.account_dir(laid) / "state-20200101T000000Z.sqlite"
    stray.write_bytes(b"its manifest is lost")
    orphan.write_bytes(b"perhaps that one's")
    host.t3("run")
    assert orphan.exists()


@pytest.mark.parametrize("damage", ["flipped", "gone", "cut"])
def test_verify_finds_a_damaged_archive(host: Host, laid: User, damage: str) -> None:
    succeeded(host.t3("run"))
    [archive] = archives(host, laid)
    data = bytearray(archive.read_bytes())
    archive.unlink()
    if damage != "gone":
        data[len(data) // 2] ^= 1
        archive.write_bytes(data if damage == "flipped" else data[:-10])
    answer = host.t3("verify", laid.name)
    assert answer.code == 1
    assert "does NOT verify: the archive of what was beside it" in answer.out
    if not sandbox.ACTIVE:
        before = found(laid.database.parent)
        assert host.t3("restore", laid.name, "--yes").code == 1
        assert found(laid.database.parent) == before
        # what is known to fail is put back by its name alone, and what is sound of it is
        [only] = host.t3("list", laid.name, "--json").account(laid.name)["snapshots"]
        named = ("--at", only["name"], "--only", "database")
        succeeded(host.t3("restore", laid.name, "--yes", *named))


@pytest.mark.parametrize(
    "planted", ["secrets", "secrets/link", "attachments/folder", "settings.json"]
)
def test_a_symlink_leaks_nothing_into_an_archive(host: Host, laid: User, planted: str) -> None:
    """Row 18. It is packed as a symlink, and named."""
    marker = b"a secret of root's, not the user's"
    outside = host.folder / "outside"
    outside.mkdir(mode=0o700)
    (outside / "file").write_bytes(marker)
    path = laid.database.parent / planted
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(outside / "file" if planted.endswith(("json", "link")) else outside)
    os.lchown(path, laid.uid, laid.gid)
    answer = succeeded(host.t3("run"))
    assert f"not packed: {planted}: a symlink" in answer.out
    [archive] = archives(host, laid)
    plain = subprocess.run(["zstd", "-dc", archive], check=True, capture_output=True).stdout
    assert marker not in plain
    assert planted in names_in(archive)
    assert not any(name.startswith(f"{planted}/") for name in names_in(archive))


def test_what_is_neither_file_nor_folder_is_passed_over(host: Host, laid: User) -> None:
    os.mkfifo(laid.database.parent / "attachments" / "pipe")
    unreadable = laid.database.parent / "secrets" / "closed.bin"
    unreadable.write_bytes(b"x")
    laid.give(unreadable)
    unreadable.chmod(0)
    answer = succeeded(host.t3("run"))
    assert "not packed: attachments/pipe: no regular file" in answer.out
    assert "not packed: secrets/closed.bin: Permission denied" in answer.out
    succeeded(host.t3("verify", laid.name))


def test_above_the_limit_the_database_alone_is_saved_and_it_is_an_alarm(
    host: Host, laid: User
) -> None:
    answer = host.t3("run", T3_BACKUP_FILES_LIMIT="100K")
    assert answer.code == 1
    assert "T3_BACKUP_FILES_LIMIT" in answer.out
    assert list_archives(host, laid) == [None]
    assert archives(host, laid) == []
    succeeded(host.t3("verify", laid.name))


def test_the_limit_of_nothing_turns_it_off(host: Host, laid: User) -> None:
    succeeded(host.t3("run", T3_BACKUP_FILES_LIMIT="0"))
    assert list_archives(host, laid) == [None]


def test_where_nothing_is_there_there_is_no_archive(host: Host, alice: User) -> None:
    succeeded(host.t3("run"))
    assert list_archives(host, alice) == [None]
    assert archives(host, alice) == []


def test_a_damaged_archive_is_made_good_by_the_next_of_its_content(host: Host, laid: User) -> None:
    succeeded(host.t3("run"))
    [archive] = archives(host, laid)
    archive.write_bytes(b"x" * archive.stat().st_size)
    assert host.t3("verify", laid.name).code == 1
    # another ctime: it is packed anew, and comes out the same
    (laid.database.parent / "settings.json").chmod(0o644)
    succeeded(host.t3("run"))
    assert archives(host, laid) == [archive]
    succeeded(host.t3("verify", laid.name))


def test_two_users_archives_are_apart(
    host: Host, make_user: Callable[..., User], small: Path
) -> None:
    users = [make_user(name) for name in ("ann", "bea")]
    for user in users:
        give_database(user, small)
        lay_out(user)
    host.write_map(*users)
    succeeded(host.t3("run"))
    assert all(len(archives(host, user)) == 1 for user in users)


@by_hand
def test_where_the_disk_was_full_the_second_try_has_the_files_as_well(
    host: Host, laid: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive of the first try has no snapshot's name: making space takes it away, and the
    second try must not name what is gone."""
    host.environ["T3_BACKUP_KEEP"] = "2"
    for name in ("DAILY", "WEEKLY", "MONTHLY", "YEARLY"):
        host.environ[f"T3_BACKUP_KEEP_{name}"] = "0"
    for _ in range(2):
        commit_row(laid)
        assert host.t3("run").code == 0
    commit_row(laid)
    (laid.database.parent / "settings.json").write_bytes(b'{"theme": "light"}')
    wait_out_clock_tick(laid.database.parent)
    publish_snapshot, tries = publish.publish_snapshot, []

    def full_at_first(*args: Any, **more: Any) -> publish.Published:
        tries.append(args)
        if len(tries) == 1:
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        return publish_snapshot(*args, **more)

    monkeypatch.setattr(publish, "publish_snapshot", full_at_first)
    values = settings.load({"keep": "1"}, host.env(), Path("/dev/null"))
    with Store.open(host.store) as store:
        run = BackupRun(values, store, None, threading.Event(), lambda *_: None)
        [result] = backup_run.run_backups(run, [accounts.find(laid.name)], lambda _: None)
    assert (len(tries), result.outcome, result.unsaved) == (2, "backed_up", "")
    assert result.pruned
    [taken] = result.snapshots
    assert taken.manifest.companion is not None
    assert (taken.path.parent / f"beside-{taken.manifest.companion.sha256}.tar.zst").exists()
    assert host.t3("verify", laid.name).code == 0
