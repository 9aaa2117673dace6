"""Read what the kernel writes of a process in /proc (proc(5)). Pure: texts in, values out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

DELETED = " (deleted)"  # after the name of a file that has none any more
_MOUNT_POINT = 4  # the word of a line of mountinfo
_O_PATH = 0o10000000  # as the flags of fdinfo have it: no file is open by such a descriptor


def parse_fields(text: str) -> dict[str, str]:
    """Parse lines of `name: value`, as status and fdinfo have them."""
    return {
        name: value.strip()
        for name, colon, value in (line.partition(":") for line in text.splitlines())
        if colon
    }


def parse_effective_user(text: str) -> int:
    """Take the effective user from status; -1 where there is none."""
    _, found, rest = text.partition("\nUid:\t")
    return int(rest.split(None, 2)[1]) if found else -1


def parse_start(text: str) -> str:
    """Take from stat when the process began: with its pid, that tells which process it is."""
    return text.rpartition(")")[2].split()[19]  # the name before it may hold anything


def parse_control_group(text: str) -> str:
    """Take the control group by which systemd knows the process; "/" where there is none."""
    groups = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        kind, _, path = rest.partition(":")
        groups[kind] = path
    unified = groups.get("", "/")  # cgroups(7): version 2 has no names
    return unified if unified != "/" else groups.get("name=systemd", "/")


def parse_strings(data: bytes) -> tuple[str, ...]:
    """Parse strings that each end in a zero byte, as cmdline and environ have them."""
    parts = data.split(b"\0")
    return tuple(map(os.fsdecode, parts[:-1] if not parts[-1] else parts))


def parse_variables(data: bytes, names: Iterable[str]) -> dict[str, str]:
    """Take these variables from environ; of one that is there twice, the first, as getenv(3)."""
    found: dict[str, str] = {}
    for entry in parse_strings(data):
        name, _, value = entry.partition("=")
        found.setdefault(name, value)
    return {name: found[name] for name in names if name in found}


def parse_descriptor(text: str) -> tuple[int, str, bool]:
    """Parse fdinfo: the inode (0: this kernel doesn't say), the mount, whether it is open.

    A descriptor with O_PATH has no file open.
    """
    fields = parse_fields(text)
    inode, flags = fields.get("ino", "0"), fields.get("flags", "0")
    return int(inode), fields.get("mnt_id", ""), not int(flags, 8) & _O_PATH


class Mount(NamedTuple):
    """One mount, as mountinfo has it."""

    point: str
    kind: str  # of the file system, as mount(8) has it


def parse_mount_points(text: str) -> list[Mount]:
    """Parse mountinfo: where each file system is mounted, and its type."""
    found = []
    for line in text.splitlines():
        words, last = line.split(" "), line.partition(" - ")[2].split(" ")
        if len(words) > _MOUNT_POINT:
            point = re.sub(
                r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[_MOUNT_POINT]
            )
            found.append(Mount(point, last[0]))
    return found


def parse_mounts(text: str) -> dict[str, str]:
    """Parse mountinfo: the device ("8:1") of each mount."""
    lines = (line.split(" ", 3) for line in text.splitlines())
    return {words[0]: words[2] for words in lines if len(words) == 4}
