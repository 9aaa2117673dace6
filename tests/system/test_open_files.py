"""Who has a file open is found by the texts of /proc: on every kind of mount, and without asking
the file itself for anything."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import programs
from support.filesystems import disk, mounted, never_answering
from support.host import Host
from support.processes import run_within
from support.users import needs_root

from t3_backup.system.file_identity import ProcFile
from t3_backup.system.open_files import describe_holders
from t3_backup.worker.child.own_processes import identify

pytestmark = needs_root


def seen(path: Path) -> ProcFile:
    """A file as a worker tells of it."""
    fd = os.open(path, os.O_PATH)
    try:
        return ProcFile(*identify(fd))
    finally:
        os.close(fd)


@contextmanager
def holding(path: Path, *before: str) -> Iterator[int]:
    """A process that has the file open; `before` is how it is started."""
    line = [*before, *programs.line("hold_open.py", "only_open", str(path))]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        try:
            yield holder.pid
        finally:
            holder.kill()


def test_a_holder_by_a_bind_mount_in_a_namespace_of_its_own_is_named(host: Host) -> None:
    """Its mount is in no mountinfo but its own."""
    (host.folder / "file").touch()
    there = host.folder / "there"
    there.mkdir()
    script = f'mount --bind {host.folder} {there} && exec "$@"'
    with holding(there / "file", "unshare", "--mount", "sh", "-c", script, "sh") as pid:
        assert describe_holders(seen(host.folder / "file")) == f"pid {pid} (python3)"


def test_a_holder_on_overlayfs_is_named(host: Host) -> None:
    parts = [host.folder / name for name in ("lower", "upper", "work")]
    for part in parts:
        part.mkdir()
    (parts[0] / "file").write_text("content")
    options = "lowerdir={},upperdir={},workdir={}".format(*parts)
    with mounted("overlay", host.folder / "merged", "-t", "overlay", "-o", options) as merged:
        with holding(merged / "file") as pid:
            assert describe_holders(seen(merged / "file")) == f"pid {pid} (python3)"


def test_a_holder_on_a_subvolume_of_btrfs_is_named(host: Host) -> None:
    """There stat(2) and mountinfo speak of different devices."""
    with disk(host.folder, "btrfs") as where:
        subprocess.run(["btrfs", "-q", "subvolume", "create", where / "home"], check=True)
        (where / "home" / "file").touch()
        with holding(where / "home" / "file") as pid:
            assert describe_holders(seen(where / "home" / "file")) == f"pid {pid} (python3)"


def test_of_two_files_with_one_inode_number_the_right_one_is_meant(host: Host) -> None:
    """Two file systems number their files alike."""
    disks = [host.folder / name for name in ("one", "two")]
    with mounted("tmpfs", disks[0], "-t", "tmpfs"), mounted("tmpfs", disks[1], "-t", "tmpfs"):
        for one in disks:
            (one / "file").touch()
        first, second = (seen(one / "file") for one in disks)
        assert first.inode == second.inode
        with holding(disks[0] / "file") as pid:
            assert describe_holders(second) == ""
            assert describe_holders(first) == f"pid {pid} (python3)"


@contextmanager
def knowing(path: Path) -> Iterator[None]:
    """A process that has an O_PATH descriptor of it."""
    fd = os.open(path, os.O_PATH)
    try:
        os.set_inheritable(fd, True)
        with subprocess.Popen(["sleep", "300"], pass_fds=[fd]) as other:
            try:
                yield
            finally:
                other.kill()
    finally:
        os.close(fd)


def test_who_only_knows_where_a_file_lies_does_not_have_it_open(host: Host) -> None:
    file = host.folder / "file"
    file.touch()
    with knowing(file), holding(file) as pid:
        assert describe_holders(seen(file)) == f"pid {pid} (python3)"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_file_that_never_answers_keeps_no_look_waiting(host: Host, kind: str) -> None:
    """Row 64: a process has one, whoever it is that a restore looks for."""
    place, file = host.folder / "place", host.folder / "file"
    place.mkdir() if kind == "folder" else place.touch()
    file.touch()
    wanted = seen(file)
    line = programs.line("describe_holders.py", str(wanted.inode), wanted.device, isolated=False)
    with never_answering(place, uid=0), knowing(place), holding(file) as pid:
        assert run_within(60, line, host.env()).stdout == f"pid {pid} (python3)\n"
