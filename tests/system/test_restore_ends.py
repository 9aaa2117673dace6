"""Row 48: whatever can't be removed of what a restore has replaced, the server runs again, the restore is done, and backups go on."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import sandbox
from support.databases import put_beside
from support.filesystems import hanging
from support.host import Host, succeeded
from support.live_database import paused_restore
from support.paths import ROOT
from support.service_stub import ServiceStub
from support.users import needs_root
from support.workers import start_wrapped, wrap_workers

from demo.users import User

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="by hand")]

FILES = ("secrets/key.bin", "attachments/a.png", "themes/one", "browser-artifacts/b/c")


@pytest.fixture
def nora(host: Host, make_user: Callable[..., User], small: Path) -> User:
    """Somebody with files beside the database, and a snapshot of all."""
    user = make_user("ends", small)
    host.write_map(user)
    put_beside(user, FILES)
    succeeded(host.t3("run"))
    return user


@pytest.fixture
def service(host: Host) -> ServiceStub:
    stub = ServiceStub(host)
    stub.make()
    return stub


def intent_of(host: Host, user: User) -> Path:
    return host.store / f"{user.name}+restore.json"


@contextlib.contextmanager
def unmounted(user: User) -> Iterator[None]:
    """Nothing is mounted in the home in the end, wherever it has been moved."""
    try:
        yield
    finally:
        for line in Path("/proc/self/mounts").read_text().splitlines():
            if line.split()[1].startswith(f"{user.home}/"):
                subprocess.run(["umount", "-l", line.split()[1]], check=True)


@contextlib.contextmanager
def what_cannot_be_removed(user: User) -> Iterator[None]:
    """Of each kind one: root's folder, an immutable file, and one where something is mounted."""
    place = user.database.parent
    (place / "attachments/by-root").mkdir()
    (place / "attachments/by-root/file").write_text("root's")
    mount = place / "browser-artifacts/b"
    immutable = subprocess.run(
        ["chattr", "+i", place / "secrets/key.bin"], check=False, capture_output=True
    )
    subprocess.run(["mount", "--bind", mount, mount], check=True)
    try:
        with unmounted(user):
            yield
    finally:
        if immutable.returncode == 0:
            subprocess.run(["chattr", "-R", "-i", "-f", place], check=False)


def test_where_something_cannot_be_removed_the_server_runs_and_backups_go_on(
    host: Host, nora: User, service: ServiceStub
) -> None:
    with what_cannot_be_removed(nora):
        done = succeeded(service.t3("restore", nora.name, "--yes"))
        assert service.runs
        assert not intent_of(host, nora).exists()
        for name in FILES:
            path = nora.database.parent / name
            assert (path.read_text(), path.stat().st_uid) == ("first", nora.uid)
        [aside] = nora.database.parent.glob("*.replaced-*")
        assert f"once nobody needs it: rm -rf {aside}" in done.out.splitlines()
        assert (aside / "old/attachments/by-root/file").read_text() == "root's"
        assert (aside / "gone/browser-artifacts/b/c").read_text() == "first", "it may be elsewhere"
        for words in (("run",), ("accept", nora.name), ("run",)):
            succeeded(service.t3(*words))
        succeeded(service.t3("restore", nora.name, "--yes"))
        assert service.runs


@pytest.mark.parametrize("dead", ["install_archive", "remove_replaced"])
def test_where_whoever_moves_or_removes_files_dies_the_server_runs_and_backups_go_on(
    host: Host, nora: User, service: ServiceStub, dead: str
) -> None:
    python = host.folder / "python3"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *" {dead}"*) kill -9 $$ ;; esac\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    answer = service.t3("restore", nora.name, "--yes", python=str(python))
    assert service.runs
    [aside] = nora.database.parent.glob("*.replaced-*")
    if dead == "remove_replaced":
        assert answer.code == 0, answer
        assert "the next command tries it again" in answer.out
        service.stop()
        again = succeeded(service.t3("accept", nora.name, python=str(python)))
        assert f"rm -rf {aside}" in again.out
        assert not service.runs, "somebody has stopped it since"
    else:
        assert answer.code == 1, answer
        assert "--only files" in answer.out
    assert not intent_of(host, nora).exists()
    assert os.listdir(aside) != []
    succeeded(service.t3("run"))
    succeeded(service.t3("restore", nora.name, "--yes", "--only", "files"))
    if dead == "install_archive":
        must_be_started_by_the_next_command(host, nora, service)
    assert (nora.database.parent / "secrets/key.bin").read_text() == "first"


def must_be_started_by_the_next_command(host: Host, user: User, service: ServiceStub) -> None:
    """Where a restore could not start the server."""
    with service.broken():
        answer = service.t3("restore", user.name, "--yes", "--only", "files")
    assert (answer.code, service.runs) == (1, False)
    assert "the server is down; the next command tries it again" in answer.out
    assert intent_of(host, user).exists()
    succeeded(service.t3("accept", user.name))
    assert (service.runs, intent_of(host, user).exists()) == (True, False)


@pytest.mark.soak
def test_where_no_server_waits_for_the_files_the_next_command_puts_them_back(
    host: Host, nora: User
) -> None:
    (nora.database.parent / "secrets/key.bin").write_text("later")
    python = wrap_workers(host.folder, install_archive="kill -9 $$")
    with start_wrapped(host, python, "restore", nora.name, "--yes") as process:
        assert process.wait() == 1
    assert intent_of(host, nora).exists()
    assert "an interrupted restore was completed" in succeeded(host.t3("accept", nora.name)).out
    assert (nora.database.parent / "secrets/key.bin").read_text() == "first"


def test_a_database_that_its_owner_may_not_write_to_is_sealed_as_any_other(
    host: Host, nora: User
) -> None:
    nora.database.chmod(0o444)
    done = succeeded(host.t3("restore", nora.name, "--yes", "--json")).document
    assert done["prerestore"]["verdict"] == "verified"
    assert (done["kept"], list(nora.database.parent.glob("*.replaced-*"))) == ([], [])
    assert nora.database.stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize(
    "only", [(), pytest.param(("--only", "files"), marks=pytest.mark.soak)], ids=["all", "files"]
)
def test_one_whose_home_is_not_mounted_is_ended_once_it_is(
    host: Host, nora: User, only: tuple[str, ...]
) -> None:
    """Row 66. Else the databases of the one state would stay with the files of the other."""
    (nora.database.parent / "secrets/key.bin").write_text("later")
    with paused_restore(host, nora, *only, operation="install_archive") as process:
        process.kill()
    away = nora.home.with_name("away")
    nora.home.rename(away)
    answer = host.t3("run")
    away.rename(nora.home)
    assert answer.code == 1
    assert "next: mount it; where it is gone for good: t3-backup-state restore" in answer.out
    assert intent_of(host, nora).exists()
    assert "an interrupted restore was completed" in succeeded(host.t3("run")).out
    assert (nora.database.parent / "secrets/key.bin").read_text() == "first"
    assert list(nora.database.parent.glob("*.replaced-*")) == []


@pytest.mark.soak
def test_a_file_system_that_never_answers_keeps_no_server_down(
    host: Host, nora: User, service: ServiceStub
) -> None:
    place = nora.database.parent / "attachments/share"
    place.mkdir()
    nora.give(place)
    with hanging(place), unmounted(nora):
        answer = service.t3("restore", nora.name, "--yes", T3_BACKUP_TIMEOUT="4")
        assert service.runs
        assert (nora.database.parent / "attachments/a.png").read_text() == "first", answer
        [aside] = nora.database.parent.glob("*.replaced-*")
        assert (aside / "old/attachments/a.png").read_text() == "first"
        service.t3("accept", nora.name, T3_BACKUP_TIMEOUT="4")
        assert not intent_of(host, nora).exists()
        succeeded(service.t3("accept", nora.name))


@pytest.mark.parametrize(
    ("during", "code", "text"),
    [
        pytest.param("write_archive", 75, "later", id="before what can't be undone"),
        pytest.param("swap_databases", 0, "first", id="after it", marks=pytest.mark.soak),
        pytest.param("install_archive", 0, "first", id="last of all", marks=pytest.mark.soak),
    ],
)
def test_where_the_package_is_upgraded_in_its_middle_the_server_runs_and_nothing_stays(
    host: Host, nora: User, service: ServiceStub, during: str, code: int, text: str
) -> None:
    """Row 48: in the old state, or in the new one; whatever took long."""
    key = nora.database.parent / FILES[0]
    key.write_text("later")
    package = host.folder / "package"
    shutil.copytree(ROOT / "t3_backup", package / "t3_backup")
    swap = "cp -r t3_backup new && mv t3_backup old && mv new t3_backup"  # other files, the same
    wrapper = wrap_workers(
        host.folder, **{during: f"(cd {package} && {swap}) && rm -r {package}/old"}
    )
    there = {"PYTHONPATH": str(package), "PYTHONSAFEPATH": "1"}
    answer = service.t3("restore", nora.name, "--yes", python=str(wrapper), **there)
    assert answer.code == code, answer
    assert service.runs
    assert key.read_text() == text
    assert not intent_of(host, nora).exists()
    assert [*nora.database.parent.glob("*.replaced-*")] == []
