"""The packages under test, built from this checkout as it stands, and some that are as they but for a higher version.

`python3 -m support.packages FOLDER` makes both in `this` and `newer` there, for more than one run
of the tests: T3_TEST_DEB and T3_TEST_NEWER_DEB name those folders."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from support.paths import ROOT

NEWER = "9.0"


def copy_checkout(folder: Path) -> Path:
    """A clean copy of this checkout: what git tracks, and what is new; nothing that an earlier
    build left."""
    names = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    for name in names:
        if name and os.path.lexists(ROOT / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def build_package(folder: Path, options: str = "") -> Path:
    """The package of the backup that `make deb` makes there, with DEB_BUILD_OPTIONS; that of the
    bump lies beside it."""
    environ = os.environ | {"DEB_BUILD_OPTIONS": options}
    done = subprocess.run(
        ["make", "deb"], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (
        f"make deb: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
    )
    [made] = folder.glob("t3-backup_*.deb")
    return made


def autoupdate_package(deb: Path) -> Path:
    """The package of the bump, made in one build with that of the backup."""
    [made] = deb.parent.glob("t3-autoupdate_*.deb")
    return made


def build_unchecked(folder: Path) -> Path:
    """The same without the tests that a build runs: they are run by themselves."""
    return build_package(folder, "nocheck")


def build_newer(folder: Path) -> Path:
    """That of a checkout which is given the version NEWER and another configuration of
    logrotate."""
    substitute(folder / "t3_backup/__init__.py", r'__version__ = ".*"', f'__version__ = "{NEWER}"')
    substitute(folder / "debian/changelog", r"^t3-backup \(.*?\)", f"t3-backup ({NEWER})")
    substitute(folder / "debian/t3-backup.logrotate", r"rotate \d+", "rotate 99")
    return build_unchecked(folder)


def substitute(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(), count=1)
    assert count == 1, f"{path} has no {pattern}"
    path.write_text(text)


def prebuilt(name: str) -> Path | None:
    """The package of the backup, in the folder that a variable of the environment names."""
    if not os.environ.get(name):
        return None
    [found] = Path(os.environ[name]).absolute().glob("t3-backup_*.deb")
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for name, make in (("this", build_unchecked), ("newer", build_newer)):
            made = make(copy_checkout(Path(scratch) / name))
            target = Path(sys.argv[1], name)
            target.mkdir(parents=True)
            for deb in (made.parent / "build" / "deb").glob("*.deb"):
                shutil.copy(deb, target)
            print(f"built: {made.name}, {autoupdate_package(made).name}")
