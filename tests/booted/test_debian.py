"""What Debian asks of every package: its own tests (debian/tests) pass, and they come and go
without a trace."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support import packages
from support.booted.debian_trees import tree
from support.booted.machine import boot

pytestmark = pytest.mark.soak  # minutes of installing and removing


def test_the_packages_own_tests_pass_where_they_are_installed(
    suite: str, deb: Path, autoupdate_deb: Path, tmp_path: Path
) -> None:
    source = packages.copy_checkout(tmp_path / "source")
    (source / "debian/files").touch()  # by which autopkgtest knows that nothing has to be built
    names = set(
        re.findall(r"^Tests: *(.*)$", (source / "debian/tests/control").read_text(), re.MULTILINE)
    )
    with boot(suite, f"--bind-ro={source}:/mnt/source") as machine:
        machine.run("apt-get", "install", "--yes", "--no-install-recommends", "autopkgtest")
        debs = (deb, autoupdate_deb)
        for one in debs:
            machine.copy_in(one, f"/root/{one.name}")
        # The machine is thrown away afterwards, whatever they leave.
        line = [
            "autopkgtest",
            "--ignore-restrictions=breaks-testbed",
            *(f"/root/{one.name}" for one in debs),
            "/mnt/source/",
        ]
        done = machine.run(*line, "--", "null", check=False, timeout=900)
        found = dict(re.findall(rf"^({'|'.join(names)}) +(PASS|FAIL|SKIP)", done.out, re.MULTILINE))
        assert found == dict.fromkeys(names, "PASS"), done.text[-4000:]
        assert done.code == 0


def test_piuparts_finds_nothing_left_after_a_purge(
    suite: str, deb: Path, autoupdate_deb: Path, tmp_path: Path
) -> None:
    # It runs logrotate itself, which makes that file.
    options = [
        "--keep-sources-list",
        "--no-eatmydata",
        "--do-not-verify-signatures",
        "--ignore=/var/lib/logrotate/status",
    ]
    with tree(suite) as fresh:
        done = subprocess.run(
            ["piuparts", *options, f"--distribution={suite}", f"--existing-chroot={fresh}", f"--tmpdir={tmp_path}", str(deb), str(autoupdate_deb)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, "\n".join(
        line for line in done.stdout.splitlines() if " DEBUG: " not in line
    )[-3000:]
    assert "PASS: All tests." in done.stdout
