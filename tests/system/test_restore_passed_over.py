"""Row 38: nothing that a restore can't give back is removed by one. It stays beside the new state, whole, and is named.

What is not in the archive of the present state (a link, another's file, one that can't be read, one
that came later) is in no snapshot: the only one there is lies in the home.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import sandbox
from support.archives import list_archives, wait_out_clock_tick
from support.databases import put_beside
from support.filesystems import immutable
from support.host import Answer, Host, succeeded
from support.live_database import paused_restore
from support.users import needs_root

from demo.users import User

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="by hand")]

ANOTHER = 60000  # a uid that nobody has
FILES = ("settings.json", "secrets/key.bin", "attachments/a.png")


def pipe(user: User, userdata: Path) -> str:
    os.mkfifo(userdata / "attachments/pipe")
    return "attachments/pipe"


def roots_file(user: User, userdata: Path) -> str:
    (userdata / "secrets/by-root.bin").write_text("root's")
    return "secrets/by-root.bin"


def anothers_setting(user: User, userdata: Path) -> str:
    (userdata / "settings.json").write_text("another's")
    os.chown(userdata / "settings.json", ANOTHER, ANOTHER)
    return "settings.json"


def unreadable_file(user: User, userdata: Path) -> str:
    path = userdata / "secrets/closed.bin"
    path.write_text("closed")
    user.give(path)
    path.chmod(0)
    return "secrets/closed.bin"


def unreadable_folder(user: User, userdata: Path) -> str:
    path = userdata / "attachments/closed"
    path.mkdir()
    (path / "in it").write_text("closed")
    user.give(path / "in it")
    user.give(path)
    path.chmod(0)
    return "attachments/closed/in it"


def roots_folder(user: User, userdata: Path) -> str:
    (userdata / "attachments/by-root").mkdir()
    (userdata / "attachments/by-root/file").write_text("root's")
    return "attachments/by-root/file"


def own_file_in_roots_folder(user: User, userdata: Path) -> str:
    (userdata / "attachments/shared").mkdir()
    (userdata / "attachments/shared/own").write_text("own")
    user.give(userdata / "attachments/shared/own")
    return "attachments/shared/own"


def secrets_of_root(user: User, userdata: Path) -> str:
    """Its user can give it another name, and can't move it to another folder."""
    os.chown(userdata / "secrets", 0, 0)
    (userdata / "secrets").chmod(0o755)
    (userdata / "secrets/mine.bin").write_text("a secret")
    user.give(userdata / "secrets/mine.bin")
    return "secrets/mine.bin"


KINDS: dict[str, Callable[[User, Path], str]] = {
    "a pipe": pipe,
    "root's file": roots_file,
    "another's setting": anothers_setting,
    "an unreadable file": unreadable_file,
    "an unreadable folder": unreadable_folder,
    "root's folder": roots_folder,
    "a file in root's folder": own_file_in_roots_folder,
    "secrets is root's": secrets_of_root,
}
# Without a folder of root's, which would be in the way of whoever removes the rest.
TOGETHER = ("a pipe", "an unreadable file", "secrets is root's", "another's setting")


@pytest.fixture
def kept(host: Host, make_user: Callable[..., User], small: Path) -> User:
    """Somebody with a file of each kind, and a snapshot of all."""
    user = make_user("passed", small)
    host.write_map(user)
    put_beside(user, FILES)
    succeeded(host.t3("run"))
    return user


def planted(user: User, *kinds: str) -> dict[str, int]:
    """What must stay, with its inode: it is the thing itself that stays."""
    userdata = user.database.parent
    return {
        (name := KINDS[kind](user, userdata)): (userdata / name).lstat().st_ino for kind in kinds
    }


def must_lie_aside(kept: list[str], there: dict[str, int]) -> None:
    """Each of them, beneath what was named."""
    for name, inode in there.items():
        top, _, rest = name.partition("/")
        places = [Path(path, name) for path in kept] + [
            Path(path, rest) for path in kept if path.endswith(f".{top}")
        ]
        assert inode in [path.lstat().st_ino for path in places if os.path.lexists(path)], (
            name,
            kept,
        )


def must_be_there(user: User, kept: list[str], there: dict[str, int]) -> None:
    """Each of them, in place or aside: an undo moves nothing but what it has something for."""
    userdata = user.database.parent
    in_place = [
        name
        for name, inode in there.items()
        if os.path.lexists(userdata / name) and (userdata / name).lstat().st_ino == inode
    ]
    must_lie_aside(kept, {name: inode for name, inode in there.items() if name not in in_place})


def must_be_put_back(user: User, text: str = "first") -> None:
    for name in FILES:
        path = user.database.parent / name
        assert (path.read_text(), path.stat().st_uid) == (text, user.uid)
    assert (user.database.parent / "secrets").stat().st_uid == user.uid


def left(user: User) -> set[str]:
    return {str(path) for path in user.database.parent.glob("*.replaced-*")}


def reasons(warnings: list[str]) -> list[str]:
    return [warning for warning in warnings if "stays next to the new one: " in warning]


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_packed_stays_aside_and_is_named(host: Host, kept: User, kind: str) -> None:
    there = planted(kept, kind)
    document = succeeded(host.t3("restore", kept.name, "--yes", "--json")).document
    must_be_put_back(kept)
    must_lie_aside(document["kept"], there)
    assert document["prerestore"] is not None
    [reason] = reasons(document["warnings"])
    assert reason.startswith(next(iter(there)).partition("/")[0])
    assert "it was not sealed" not in reason, "it says what it is"
    # Of all else nothing is left: it is in the snapshot.
    [folder] = document["kept"]
    if folder.endswith("/old"):
        assert os.listdir(folder) == [next(iter(there)).partition("/")[0]]


def test_a_person_is_told_where_it_lies(host: Host, kept: User) -> None:
    planted(kept, "a pipe")
    answer = succeeded(host.t3("restore", kept.name, "--yes"))
    [aside] = left(kept)
    assert (
        f"the part of the old state that no snapshot holds was kept at {aside}/old"
        in answer.out.splitlines()
    )
    assert (
        f"WARN: {kept.name}: not packed: attachments/pipe: no regular file"
        in answer.out.splitlines()
    )


def test_of_many_the_first_are_named_and_the_rest_counted(host: Host, kept: User) -> None:
    for number in range(20):
        os.mkfifo(kept.database.parent / f"attachments/{number:02}")
    document = succeeded(host.t3("restore", kept.name, "--yes", "--json")).document
    packed, aside = document["warnings"]
    for warning in (packed, aside):
        assert warning.count("no regular file") == 5
        assert warning.endswith("; and 15 more")


@pytest.mark.parametrize("only", [(), ("--only", "files")], ids=["all", "files"])
def test_so_it_is_for_all_at_once_and_for_the_undo(
    host: Host, kept: User, only: tuple[str, ...]
) -> None:
    there = planted(kept, *TOGETHER)
    document = succeeded(host.t3("restore", kept.name, "--yes", "--json", *only)).document
    must_be_put_back(kept)
    must_lie_aside(document["kept"], there)
    more = planted(kept, *TOGETHER[:3])
    undone = succeeded(
        host.t3("restore", kept.name, "--label", "prerestore", "--yes", "--json", *only)
    ).document
    must_be_there(kept, undone["kept"], more)
    must_lie_aside(
        undone["kept"],
        {name: inode for name, inode in more.items() if name.startswith("attachments")},
    )
    must_lie_aside(document["kept"], there)


def test_a_symlink_comes_back_as_one_and_nothing_of_it_stays_aside(host: Host, kept: User) -> None:
    """Row 38. A picture that lies elsewhere, and secrets in a vault."""
    userdata = kept.database.parent
    (userdata / "secrets").rename(kept.home / "vault")
    links = {"attachments/link.png": kept.home / "picture.png", "secrets": kept.home / "vault"}
    for name, target in links.items():
        (userdata / name).symlink_to(target)
        os.lchown(userdata / name, kept.uid, kept.gid)
    document = succeeded(host.t3("restore", kept.name, "--yes", "--json")).document
    must_be_put_back(kept)
    assert (document["kept"], left(kept)) == ([], set())
    [told] = document["warnings"]
    assert all(f"{name}: a symlink" in told for name in links)
    succeeded(host.t3("restore", kept.name, "--label", "prerestore", "--yes"))
    assert {name: (userdata / name).readlink() for name in links} == links
    assert (kept.home / "vault/key.bin").read_text() == "first"


def test_the_database_alone_moves_nothing_of_it(host: Host, kept: User) -> None:
    there = planted(kept, *TOGETHER)
    document = succeeded(
        host.t3("restore", kept.name, "--yes", "--json", "--only", "database")
    ).document
    assert (document["kept"], left(kept)) == ([], set())
    assert {name: (kept.database.parent / name).lstat().st_ino for name in there} == there


@pytest.mark.parametrize("only", [(), ("--only", "files")], ids=["all", "files"])
def test_one_that_was_interrupted_and_is_completed_keeps_it_too(
    host: Host, kept: User, only: tuple[str, ...]
) -> None:
    there = planted(kept, *TOGETHER)
    with paused_restore(host, kept, *only, operation="install_archive") as process:
        process.kill()
    answer = succeeded(host.t3("accept", kept.name))
    must_be_put_back(kept)
    said = "the part of the old state that no snapshot holds was kept at "
    must_lie_aside(
        [line.partition(said)[2] for line in answer.out.splitlines() if said in line], there
    )
    assert len(reasons(answer.out.splitlines())) == 3
    before = left(kept)
    succeeded(host.t3("accept", kept.name))
    assert left(kept) == before


@pytest.mark.parametrize("name", ["attachments/late.png", "environment-id", "secrets/key.bin"])
def test_what_came_or_changed_after_it_was_sealed_stays_aside(
    host: Host, kept: User, name: str
) -> None:
    succeeded(host.t3("run"))  # with all that there is, to be put back
    shutil.rmtree(kept.database.parent / "attachments")
    with paused_restore(host, kept, "--json", operation="install_archive") as process:
        late = kept.database.parent / name
        late.parent.mkdir(exist_ok=True)
        late.write_text("late")
        kept.give(late.parent)
        kept.give(late)
        inode = late.stat().st_ino
        (host.folder / "held").write_text("\n")
        assert process.stdout is not None
        answer = Answer(0, process.stdout.read(), "")
        assert process.wait() == 0
    if name == "environment-id":  # the snapshot has none, so nothing takes its place
        assert late.read_text() == "late"
    else:
        must_lie_aside(answer.document["kept"], {name: inode})
        assert (kept.database.parent / "secrets/key.bin").read_text() == "first"


def test_where_files_are_not_saved_the_present_ones_stay_aside(host: Host, kept: User) -> None:
    there = {name: (kept.database.parent / name).stat().st_ino for name in FILES}
    document = succeeded(
        host.t3("restore", kept.name, "--yes", "--json", T3_BACKUP_FILES_LIMIT="0")
    ).document
    assert document["prerestore"]["companion"] is None
    must_lie_aside(document["kept"], there)
    must_be_put_back(kept)


def test_one_that_was_unreadable_already_when_it_was_last_sealed_stays(
    host: Host, kept: User
) -> None:
    """Nothing has changed since, so nothing is packed anew."""
    there = planted(kept, "an unreadable file")
    wait_out_clock_tick(kept.database.parent)
    succeeded(host.t3("run"))
    assert list_archives(host, kept)[0]["fingerprint"], "else all of it is packed again each night"  # type: ignore[index]
    before = len(list(host.account_dir(kept).glob("beside-*")))
    document = succeeded(host.t3("restore", kept.name, "--yes", "--json")).document
    must_lie_aside(document["kept"], there)
    assert len(list(host.account_dir(kept).glob("beside-*"))) == before


def test_an_archive_that_is_not_what_was_sealed_gives_nothing_back_and_is_made_again(
    host: Host, kept: User
) -> None:
    first = host.snapshots(kept)[0].stem
    (kept.database.parent / "secrets/key.bin").write_text("second")
    wait_out_clock_tick(kept.database.parent)
    [old] = host.account_dir(kept).glob("beside-*")
    succeeded(host.t3("run"))
    [new] = set(host.account_dir(kept).glob("beside-*")) - {old}
    new.write_bytes(bytes(new.stat().st_size))
    document = succeeded(host.t3("restore", kept.name, "--at", first, "--yes", "--json")).document
    assert document["kept"] == []
    succeeded(host.t3("restore", kept.name, "--label", "prerestore", "--yes"))
    assert (kept.database.parent / "secrets/key.bin").read_text() == "second"


def test_what_was_sealed_and_cannot_be_removed_ends_no_restore(host: Host, kept: User) -> None:
    secret = kept.database.parent / "secrets/key.bin"
    with immutable(secret, within=kept.database.parent):
        document = succeeded(host.t3("restore", kept.name, "--yes", "--json")).document
    [gone] = document["kept"]
    assert Path(gone, "secrets/key.bin").exists()
    assert [text for text in document["warnings"] if "could not be removed: " in text]
    must_be_put_back(kept)
    assert not (host.store / f"{kept.name}+restore.json").exists()


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Another file system in the place of a folder."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_what_cannot_be_moved_stays_in_place_and_what_was_to_come_lies_beside_it(
    host: Host, kept: User
) -> None:
    userdata = kept.database.parent
    (userdata / "settings.json").write_text("later")
    (userdata / "attachments/a.png").write_text("later")
    with mounted(userdata / "attachments"):
        answer = host.t3("restore", kept.name, "--yes", "--json")
    document: dict[str, Any] = answer.document
    assert (answer.code, document["action"]) == (1, "restored"), "it is not all of it"
    assert [
        text
        for text in document["warnings"]
        if text.startswith("attachments could not be put back") and "umount it first" in text
    ]
    assert (
        (userdata / "settings.json").read_text(),
        (userdata / "attachments/a.png").read_text(),
    ) == (
        "first",
        "later",
    )
    [new] = document["kept"]
    assert Path(new, "attachments/a.png").read_text() == "first"
    assert not (host.store / f"{kept.name}+restore.json").exists()
