"""What is beside a database, packed and unpacked: the same again, and nothing that an archive says
leads elsewhere."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from support.manifests import make_manifest

from t3_backup.errors import SourceError
from t3_backup.store.companion import Companion
from t3_backup.store.manifest import Manifest
from t3_backup.worker.child import archive_walk
from t3_backup.worker.child.archive_read import extract_archive, inspect_archive
from t3_backup.worker.child.archive_write import write_archive
from t3_backup.worker.operations.archive import Inspected
from t3_backup.worker.operations.backup import Packed, WriteArchive

LIMIT = 1 << 20


@pytest.fixture
def userdata(tmp_path: Path) -> Path:
    """A userdata with a secret, a setting and an attachment; nothing of it is fresh."""
    userdata = tmp_path / "userdata"
    (userdata / "secrets").mkdir(parents=True, mode=0o700)
    (userdata / "secrets" / "key.bin").write_bytes(b"key")
    (userdata / "settings.json").write_text("{}")
    (userdata / "attachments").mkdir()
    (userdata / "attachments" / "a.png").write_bytes(os.urandom(1000))
    return userdata


@pytest.fixture
def opened(userdata: Path) -> Iterator[int]:
    fd = os.open(userdata, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def packed(
    folder: int,
    path: Path,
    known: str = "",
    limit: int = LIMIT,
    alive: Callable[[int], None] = lambda _: None,
) -> Packed:
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        return write_archive(folder, os.geteuid(), fd, limit, known, lambda _: None, alive)
    finally:
        os.close(fd)


def test_the_same_files_make_the_same_bytes(opened: int, tmp_path: Path) -> None:
    found = [packed(opened, tmp_path / name) for name in ("one", "two")]
    assert [(one.entries, one.content_bytes) for one in found] == [(5, 1005), (5, 1005)]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_what_is_known_is_not_packed_again(
    opened: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_walk, "_FRESH_NS", -(1 << 62))
    first = packed(opened, tmp_path / "one")
    assert first.fingerprint
    again = packed(opened, tmp_path / "two", first.fingerprint)
    assert again.unchanged
    assert (tmp_path / "two").stat().st_size == 0


def test_what_is_fresh_has_no_fingerprint(opened: int, tmp_path: Path) -> None:
    """It may be changed again within the same tick of the clock, and nobody would see it."""
    assert packed(opened, tmp_path / "one").fingerprint == ""


def found_unchanged(folder: int, known: str, limit: int = LIMIT) -> Packed | None:
    return archive_walk.find_unchanged(folder, os.geteuid(), WriteArchive(limit, known))


def test_of_what_has_not_changed_no_archive_need_be_asked_for(
    userdata: Path, opened: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the copying worker says of it is what the archiving one would have said."""
    monkeypatch.setattr(archive_walk, "_FRESH_NS", -(1 << 62))
    (userdata / "attachments" / "link").symlink_to("/etc/passwd")
    first = packed(opened, tmp_path / "one")
    again = packed(opened, tmp_path / "two", first.fingerprint)
    assert again.unchanged
    assert again.passed
    assert found_unchanged(opened, first.fingerprint) == again
    assert found_unchanged(opened, first.fingerprint, limit=10) is None
    monkeypatch.setattr(archive_walk, "_MOST_LOOKED_AT", 5)
    assert found_unchanged(opened, first.fingerprint) is None, "there are six"


def test_of_what_may_have_changed_an_archive_is_asked_for(
    userdata: Path, opened: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found_unchanged(opened, "") is None, "too fresh, and nothing is known"
    monkeypatch.setattr(archive_walk, "_FRESH_NS", -(1 << 62))
    known = packed(opened, tmp_path / "one").fingerprint
    (userdata / "settings.json").write_text("[]")
    assert found_unchanged(opened, known) is None
    assert found_unchanged(opened, "") is None
    known = packed(opened, tmp_path / "two").fingerprint
    assert found_unchanged(opened, known) is not None
    put(userdata / "secrets" / "key.bin", b"yek")
    assert found_unchanged(opened, known) is None, "the settings alone are as they were"


def test_of_nothing_no_archive_need_be_asked_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secrets")
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = found_unchanged(folder, "")
        assert found is not None
        assert (found.entries, found.unchanged) == (0, False)
        assert found.passed == ("secrets: no regular file",)
        assert found == replace(packed(folder, tmp_path / "archive"), fingerprint=found.fingerprint)
    finally:
        os.close(folder)


CHANGES: list[Callable[[Path], object]] = [
    lambda userdata: (userdata / "settings.json").write_text("[]"),
    lambda userdata: (userdata / "settings.json").chmod(0o600),
    lambda userdata: os.utime(userdata / "settings.json"),
    lambda userdata: (userdata / "secrets" / "key.bin").rename(userdata / "secrets" / "other.bin"),
    lambda userdata: (userdata / "environment-id").touch(),
    lambda userdata: (userdata / "attachments" / "a.png").unlink(),
]


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_is_another_fingerprint(
    userdata: Path,
    opened: int,
    tmp_path: Path,
    change: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archive_walk, "_FRESH_NS", -(1 << 62))
    before = packed(opened, tmp_path / "one").fingerprint
    assert packed(opened, tmp_path / "one").fingerprint == before != ""
    change(userdata)
    assert packed(opened, tmp_path / "two").fingerprint != before


def test_a_file_that_changes_while_it_is_read_is_packed_anew(
    userdata: Path, opened: int, tmp_path: Path
) -> None:
    times = 0

    def change(_: int) -> None:
        nonlocal times
        times += 1
        if times == 1:
            (userdata / "attachments" / "a.png").write_bytes(b"another")

    found = packed(opened, tmp_path / "one", alive=change)
    assert found.content_bytes == 5 + len(b"another")
    assert content(tmp_path / "one", found)["attachments/a.png"] == b"another"


@pytest.mark.parametrize("grows", [True, False])
def test_one_that_changes_all_the_time_costs_only_itself_and_is_named(
    userdata: Path, opened: int, tmp_path: Path, grows: bool
) -> None:
    size = 3 << 20
    (userdata / "attachments" / "a.png").write_bytes(b"x" * size)

    def change(_: int) -> None:
        nonlocal size
        size = size + 1 if grows else max(0, size - (1 << 12))
        os.truncate(userdata / "attachments" / "a.png", size)

    found = packed(opened, tmp_path / "one", limit=1 << 30, alive=change)
    assert [told.split(":")[0] for told in found.passed] == ["attachments/a.png"]
    assert found.fingerprint == ""
    unpacked = content(tmp_path / "one", found)
    assert (unpacked["secrets/key.bin"], unpacked["settings.json"]) == (b"key", b"{}")


# --- settings and secrets of one moment


def put(path: Path, content: bytes) -> None:
    """As T3 saves: another file that takes the name."""
    new = path.with_name(f".{path.name}.tmp")
    new.write_bytes(content)
    new.rename(path)


def test_a_secret_that_comes_after_the_look_is_packed_with_the_settings_that_name_it(
    userdata: Path, opened: int, tmp_path: Path
) -> None:
    """Row 40. No file that is read has changed meanwhile, and still one is missing."""
    (userdata / "settings.json").write_text("secrets/new.bin")
    came = False

    def come(_: int) -> None:
        nonlocal came
        if not came:
            put(userdata / "secrets" / "new.bin", b"new")
            came = True

    found = packed(opened, tmp_path / "one", alive=come)
    assert found.passed == ()
    assert content(tmp_path / "one", found)["secrets/new.bin"] == b"new"


def test_settings_that_are_saved_after_they_were_read_are_packed_again(
    userdata: Path, opened: int, tmp_path: Path
) -> None:
    """Row 40. The secret was gone before the look, and its reference goes after it was read."""
    (userdata / "settings.json").write_text("secrets/gone.bin")
    size = 1000 + len("key") + len("secrets/gone.bin")
    saved = False

    def save(done: int) -> None:
        nonlocal saved
        if done == size and not saved:
            put(userdata / "settings.json", b"none")
            saved = True

    found = packed(opened, tmp_path / "one", alive=save)
    assert found.passed == ()
    assert content(tmp_path / "one", found)["settings.json"] == b"none"


@pytest.mark.parametrize("name", ["settings.json", "secrets/key.bin", "environment-id"])
def test_what_changes_at_each_try_is_packed_and_named_and_has_no_fingerprint(
    userdata: Path,
    opened: int,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 40. No file is passed over for it, and the next run packs all of it anew."""
    monkeypatch.setattr(archive_walk, "_FRESH_NS", -(1 << 62))
    (userdata / "environment-id").write_text("4f1c")
    tries, whole = 0, False

    def change(done: int) -> None:
        nonlocal tries, whole
        now = done >= 1000 + len("4f1ckey{}")
        if now and not whole:
            tries += 1
            put(userdata / name, (userdata / name).read_bytes())
        whole = now

    found = packed(opened, tmp_path / "one", alive=change)
    assert tries == 3
    told = "settings.json and secrets of one moment: they changed while they were packed"
    assert found.passed == (told,)
    assert found.fingerprint == ""
    assert content(tmp_path / "one", found)[name] == (userdata / name).read_bytes()
    assert packed(opened, tmp_path / "two").fingerprint


def test_what_need_not_be_of_one_moment_may_change_once_it_is_read(
    userdata: Path, opened: int, tmp_path: Path
) -> None:
    """Else who draws pictures all day would have all of it packed three times."""
    times = 0

    def change(_: int) -> None:
        nonlocal times
        times += 1
        (userdata / "attachments" / f"{times}.png").write_bytes(b"later")

    assert packed(opened, tmp_path / "one", alive=change).passed == ()
    assert times == 3, "one for each file"


SAVE = """
import itertools, os, sys
for number in itertools.count(1):
    for name in ("secrets/key.bin", "settings.json"):
        with open("new", "w") as file:
            file.write(str(number))
        os.rename("new", name)
    if number == 1:
        print(flush=True)
"""


def test_beside_a_process_that_saves_all_the_time_no_mix_goes_unnamed(
    userdata: Path, opened: int, tmp_path: Path
) -> None:
    """Row 40. It saves the secret, then the settings: so of one moment they differ by one save."""
    (userdata / "secrets" / "last.bin").write_bytes(os.urandom(LIMIT))  # read between the two
    named = number = 0
    with subprocess.Popen(
        [sys.executable, "-c", SAVE], cwd=userdata, stdout=subprocess.PIPE
    ) as saver:
        try:
            assert saver.stdout is not None
            assert saver.stdout.readline()
            while named < 5:
                number += 1
                assert number < 500, "it never met a save"
                found = packed(opened, tmp_path / f"{number}", limit=2 * LIMIT)
                if found.passed:
                    named += 1
                    continue
                got = content(tmp_path / f"{number}", found)
                saved = int(got["secrets/key.bin"]), int(got["settings.json"])
                assert saved[0] - saved[1] in (0, 1), saved
            assert saver.poll() is None
        finally:
            saver.kill()


LINKS = {
    "attachments/away": "/etc/passwd",
    "attachments/above": "../../..",
    "attachments/broken": "nowhere/é",
    "attachments/long": "x/" * 1000,
    "keybindings.json": "../dotfiles/keybindings.json",
}


def test_a_path_that_is_too_long_for_any_archive_costs_only_itself(
    userdata: Path, opened: int, tmp_path: Path
) -> None:
    """Row 65."""
    above = os.open(userdata / "attachments", os.O_RDONLY)
    for _ in range(20):  # beyond 4,096 bytes
        os.mkdir("n" * 255, dir_fd=above)
        inner = os.open("n" * 255, os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = inner
    os.close(above)
    found = packed(opened, tmp_path / "archive")
    assert {"settings.json", "secrets/key.bin"} < content(tmp_path / "archive", found).keys()
    [told] = found.passed
    assert told.endswith("File name too long")
    assert "attachments" not in {one.partition("=")[0] for one in found.sealed}, "it stays"


@pytest.mark.parametrize("seconds", [9 * 10**12, -9 * 10**12])
def test_a_file_of_a_time_that_no_archive_holds_is_packed(tmp_path: Path, seconds: int) -> None:
    """Row 65."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as userdata:  # which has such times
        path = Path(userdata, "settings.json")
        path.write_text("{}")
        os.utime(path, (seconds, seconds))
        if path.stat().st_mtime != seconds:
            pytest.skip("no file can be of such a time here")
        folder = os.open(userdata, os.O_RDONLY)
        found = packed(folder, tmp_path / "archive")
        os.close(folder)
    assert content(tmp_path / "archive", found) == {"settings.json": b"{}"}


def test_more_than_the_limit_is_not_packed(opened: int, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="T3_BACKUP_FILES_LIMIT"):
        packed(opened, tmp_path / "one", limit=1004)
    assert packed(opened, tmp_path / "one", limit=1005).content_bytes == 1005


def content(archive: Path, found: Packed) -> dict[str, bytes]:
    """Unpacked beside it, and inspected: what is in it."""
    target = archive.with_name(archive.name + ".unpacked")
    target.mkdir()
    folder = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    file = os.open(archive, os.O_RDONLY)
    try:
        expected = Inspected(found.entries, found.content_bytes)
        assert inspect_archive(file, found.content_bytes, lambda _: None) == expected
        assert extract_archive(file, folder, found.content_bytes, lambda _: None) == expected
    finally:
        os.close(file)
        os.close(folder)
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file()
    }


# --- archives of somebody who means harm


def member(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


GOOD = [member("secrets", type=tarfile.DIRTYPE, mode=0o700), member("secrets/key.bin", b"key")]
HOSTILE: dict[str, list[tuple[tarfile.TarInfo, bytes]]] = {
    "a way out": [member("secrets", type=tarfile.DIRTYPE), member("secrets/../../out", b"x")],
    "an absolute name": [member("/etc/out", b"x")],
    "another name": [member("state.sqlite", b"x")],
    "a hidden other name": [member("./settings.json", b"x")],
    "an empty part": [member("secrets", type=tarfile.DIRTYPE), member("secrets//key", b"x")],
    "without its folder": [member("secrets/key.bin", b"x")],
    "beneath a file": [member("secrets", b"x"), member("secrets/key.bin", b"x")],
    "a symlink to nothing": [member("secrets", type=tarfile.SYMTYPE, linkname="")],
    "a symlink to too much": [member("secrets", type=tarfile.SYMTYPE, linkname="x" * 5000)],
    "through a symlink": [
        member("secrets", type=tarfile.SYMTYPE, linkname="../.."),
        member("secrets/out", b"x"),
    ],
    "a hard link": [member("settings.json", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    "a device": [member("settings.json", type=tarfile.CHRTYPE)],
    "a fifo": [member("settings.json", type=tarfile.FIFOTYPE)],
    "twice the same": [member("settings.json", b"one"), member("settings.json", b"two")],
    "more than the limit": [member("settings.json", b"\0" * (LIMIT + 1))],
    "more than the limit in all": [
        member("attachments", type=tarfile.DIRTYPE),
        *(member(f"attachments/{n}", b"\0" * (LIMIT // 4)) for n in range(5)),
    ],
}


def written(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> int:
    """An archive of these members; open for reading."""
    with path.open("wb") as out, zstandard.ZstdCompressor().stream_writer(out) as stream:
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for info, data in members:
                tar.addfile(info, io.BytesIO(data))
    return os.open(path, os.O_RDONLY)


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused_and_touches_nothing_outside(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    file = written(tmp_path / "archive", members)
    inside = tmp_path / "inside" / "folder"
    inside.mkdir(parents=True)
    folder = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(SourceError):
            inspect_archive(file, LIMIT, lambda _: None)
        with pytest.raises(SourceError):
            extract_archive(file, folder, LIMIT, lambda _: None)
    finally:
        os.close(file)
        os.close(folder)
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "inside"}
    assert {path.name for path in inside.parent.iterdir()} == {"folder"}


def test_a_symlink_comes_back_as_one_wherever_it_leads(
    userdata: Path, opened: int, tmp_path: Path
) -> None:
    """What it leads to is not packed, and that is told."""
    for name, target in LINKS.items():
        (userdata / name).symlink_to(target)
        os.utime(userdata / name, ns=(1, 10**18 + 7), follow_symlinks=False)
    found = packed(opened, tmp_path / "one")
    assert sorted(one.partition(":")[0] for one in found.passed) == sorted(LINKS)
    assert all("what it leads to is not" in one for one in found.passed)
    assert {one.partition("=")[0] for one in found.sealed} >= {"attachments", "keybindings.json"}
    content(tmp_path / "one", found)
    for name, target in LINKS.items():
        link = tmp_path / "one.unpacked" / name
        assert os.readlink(link) == target
        assert link.lstat().st_mtime_ns == 10**18 + 7


def test_of_many_things_to_tell_what_is_not_packed_comes_first(
    userdata: Path, opened: int, tmp_path: Path
) -> None:
    for number in range(120):
        (userdata / f"attachments/{number}").symlink_to("elsewhere")
    os.mkfifo(userdata / "secrets/pipe")
    found = packed(opened, tmp_path / "one")
    assert found.passed[0] == "secrets/pipe: no regular file"
    assert len(found.passed) == 100


@pytest.mark.skipif(os.geteuid() != 0, reason="who gives a link away is root")
def test_a_symlink_of_somebody_else_is_not_packed(
    userdata: Path, opened: int, tmp_path: Path
) -> None:
    """It would come back as the user's own."""
    (userdata / "attachments/link").symlink_to("elsewhere")
    os.lchown(userdata / "attachments/link", 60000, 60000)
    found = packed(opened, tmp_path / "one")
    assert found.passed == ("attachments/link: it belongs to uid 60000",)
    assert "attachments" not in {one.partition("=")[0] for one in found.sealed}, "it stays"


def test_what_the_hostile_ones_are_made_of_is_a_good_one(tmp_path: Path) -> None:
    file = written(tmp_path / "archive", GOOD)
    assert inspect_archive(file, LIMIT, lambda _: None) == Inspected(2, 3)
    os.close(file)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_an_archive_that_was_cut_is_none(tmp_path: Path, cut: int) -> None:
    os.close(written(tmp_path / "archive", GOOD))
    data = (tmp_path / "archive").read_bytes()
    (tmp_path / "archive").write_bytes(data[:-cut])
    file = os.open(tmp_path / "archive", os.O_RDONLY)
    with pytest.raises(SourceError):
        inspect_archive(file, LIMIT, lambda _: None)
    os.close(file)


def test_no_mode_of_an_archive_gives_more_than_a_mode(tmp_path: Path) -> None:
    file = written(tmp_path / "archive", [member("settings.json", b"x", mode=0o7777)])
    (tmp_path / "folder").mkdir()
    folder = os.open(tmp_path / "folder", os.O_RDONLY | os.O_DIRECTORY)
    extract_archive(file, folder, LIMIT, lambda _: None)
    assert (tmp_path / "folder" / "settings.json").stat().st_mode & 0o7777 == 0o777
    with pytest.raises(FileExistsError):  # nothing is unpacked over what is there
        extract_archive(file, folder, LIMIT, lambda _: None)
    os.close(file)
    os.close(folder)


@pytest.mark.parametrize("sha256", ["", "a" * 63, "../" + "a" * 61, "A" * 64, "a" * 64 + "/x"])
def test_a_manifest_names_an_archive_by_nothing_but_a_hash(sha256: str) -> None:
    good = make_manifest(companion=Companion("a" * 64, 10, 2, 3, ""))
    assert Manifest.from_text(good.to_text()) == good
    with pytest.raises(ValueError, match="companion"):
        Manifest.from_text(replace(good, companion=Companion(sha256, 10, 2, 3, "")).to_text())
