"""Small real file systems: made, mounted, filled."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import programs
from support.databases import MIB
from support.host import Host

_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-m", "0"),
    "xfs": ("mkfs.xfs", "-q"),
    "btrfs": ("mkfs.btrfs", "-q"),
}
_LEAST = {"ext4": 4 * MIB, "xfs": 300 * MIB, "btrfs": 128 * MIB}


@contextlib.contextmanager
def immutable(*paths: Path, within: Path | None = None) -> Iterator[None]:
    """Make files as chattr(1) does; afterwards none is so, or none of all that is `within`.

    Skip the test where there is no chattr, or no capability for it.
    """
    try:
        subprocess.run(["chattr", "+i", *paths], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("no file can be made immutable here")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-R", "-i", *((within,) if within else paths)], check=True)


def needs_mkfs(kind: str) -> None:
    """Skip the test where that file system can't be made here."""
    if shutil.which(_MAKE[kind][0]) is None:
        pytest.skip(f"{_MAKE[kind][0]} is not installed")


def make_image(image: Path, kind: str, size: int, *options: str) -> None:
    """A sparse file with an empty file system in it."""
    with image.open("wb") as file:
        file.truncate(max(size, _LEAST[kind]))
    subprocess.run([*_MAKE[kind], *options, str(image)], check=True, capture_output=True)


@contextlib.contextmanager
def mounted(what: Path | str, where: Path, *options: str) -> Iterator[Path]:
    """Mount, and unmount whatever happens."""
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, str(what), str(where)], check=True, capture_output=True)
    try:
        yield where
    finally:
        if subprocess.run(["umount", str(where)], check=False, capture_output=True).returncode != 0:
            subprocess.run(["umount", "-l", str(where)], check=True)


@contextlib.contextmanager
def hanging(where: Path) -> Iterator[None]:
    """A FUSE file system over a folder whose server never answers: every look at it hangs until its
    process is killed."""
    device = os.open("/dev/fuse", os.O_RDWR)
    try:
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
        line = ["mount", "-i", "-t", "fuse", "hanging", str(where), "-o", options]
        subprocess.run(line, check=True, capture_output=True, pass_fds=[device])
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(where)], check=False, capture_output=True)
    finally:
        os.close(device)  # whoever still waits, wakes


@contextlib.contextmanager
def never_answering(
    where: Path, uid: int, within: Callable[..., list[str]] = lambda *line: [*line]
) -> Iterator[None]:
    """A FUSE file system of the user's over a folder or a file, for everybody (`allow_other`).

    Its server takes each request and answers none: who asks sleeps past SIGKILL, until the block is
    left. `within` makes the command line that runs another one in a machine.
    """
    device = os.open("/dev/fuse", os.O_RDWR)
    text = programs.text("serve_silence.py")
    line = within("python3", "-c", text, str(where), str(uid), str(device))
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, pass_fds=[device]) as server:
        os.close(device)
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"mounted\n"
            yield
        finally:
            assert server.stdin is not None
            server.stdin.close()  # it ends, and whoever still waits, wakes
            server.wait()
            line = within("umount", "-l", str(where))
            subprocess.run(line, check=False, capture_output=True)


@contextlib.contextmanager
def disk(folder: Path, kind: str, size: int = 16 * MIB, *options: str) -> Iterator[Path]:
    """A file system of its own, mounted beneath `folder`."""
    where = folder / f"disk-{kind}"
    if kind in ("tmpfs", "ramfs"):
        with mounted(kind, where, "-t", kind, "-o", f"size={size}"):
            yield where
        return
    needs_mkfs(kind)
    image = folder / f"{kind}.img"
    make_image(image, kind, size, *options)
    with mounted(image, where, "-o", "loop"):
        yield where
    image.unlink()


def host_on(where: Path, host: Host) -> Host:
    """The same host, with its store on another disk."""
    return Host(
        where,
        host.environ
        | {"T3_BACKUP_MAP": str(host.map), "T3_BACKUP_LOG": host.env()["T3_BACKUP_LOG"]},
    )


def fill_disk(where: Path) -> Path:
    """A file that takes all the room there is, to the last block, what the file system gives back
    late included."""
    filler = where / "filler"
    with filler.open("wb", buffering=0) as file:
        size, refused = MIB, 0
        while refused < 3:
            try:
                file.write(b"\xff" * size)
                refused = 0
            except OSError:
                if size == 512:  # half of the smallest block there is
                    refused += 1
                size = max(512, size // 8)
                with contextlib.suppress(OSError):
                    os.fsync(file.fileno())
    return filler
