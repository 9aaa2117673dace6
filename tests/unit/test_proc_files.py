"""What the kernel writes of a process, as written down, and what is taken from it."""

from __future__ import annotations

import os

import pytest

from t3_backup.system import proc_files


@pytest.mark.parametrize("name", ["t3", "a b", "a) S 1", "((", "\n"])
def test_the_start_is_found_whatever_the_process_is_called(name: str) -> None:
    rest = "S 1 4711 4711 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 11 0 8675309 1 2"
    assert proc_files.parse_start(f"4711 ({name}) {rest}") == "8675309"


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("0::/system.slice/t3-serve@ann.service\n", "/system.slice/t3-serve@ann.service"),
        ("3:cpu:/x\n1:name=systemd:/user.slice/a:b\n0::/\n", "/user.slice/a:b"),
        ("1:name=systemd:/one\n0::/other\n", "/other"),
        ("0::/\n", "/"),
        ("", "/"),
    ],
)
def test_the_control_group_is_the_one_that_systemd_made(text: str, group: str) -> None:
    assert proc_files.parse_control_group(text) == group


def test_strings_end_in_a_zero_byte_and_may_be_no_text() -> None:
    assert proc_files.parse_strings(b"/bin/t3\0serve\0\0") == ("/bin/t3", "serve", "")
    assert proc_files.parse_strings(b"t3 serve") == ("t3 serve",)
    assert proc_files.parse_strings(b"") == ()
    [word] = proc_files.parse_strings(b"/\xff\0")
    assert os.fsencode(word) == b"/\xff"


def test_of_a_variable_that_is_there_twice_the_first_counts() -> None:
    data = b"A=1\0B=2=3\0A=4\0C\0"
    assert proc_files.parse_variables(data, ("A", "B", "D")) == {"A": "1", "B": "2=3"}


def test_a_descriptor_without_an_open_file_is_known() -> None:
    text = "pos:\t0\nflags:\t02100002\nmnt_id:\t29\nino:\t1234\n"
    assert proc_files.parse_descriptor(text) == (1234, "29", True)
    assert proc_files.parse_descriptor("pos:\t0\nflags:\t012000000\n") == (0, "", False)


def test_the_device_of_each_mount_is_found() -> None:
    text = (
        "29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n30 29 0:5 / /d\\040e rw - x y z\n"
    )
    assert proc_files.parse_mounts(text) == {"29": "8:1", "30": "0:5"}


def test_they_are_what_this_kernel_writes() -> None:
    """Of this very process, and a file of its own."""
    with open(__file__, "rb") as file:
        text = open(f"/proc/self/fdinfo/{file.fileno()}").read()  # noqa: SIM115
        inode, mount, is_open = proc_files.parse_descriptor(text)
        status = os.fstat(file.fileno())
    assert (inode, is_open) == (status.st_ino, True)
    with open("/proc/self/mountinfo") as file:
        device = proc_files.parse_mounts(file.read())[mount]
    assert device == f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
