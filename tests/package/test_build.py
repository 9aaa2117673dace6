"""The package: the same bytes however it is built, and nothing that Debian's own checker objects
to."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.packages import copy_checkout
from support.paths import ROOT
from support.sampling import is_soak

import t3_backup

pytestmark = pytest.mark.skipif(
    shutil.which("dpkg-buildpackage") is None or shutil.which("lintian") is None,
    reason="needs Debian's tools",
)

BY_HAND = ("dpkg-buildpackage", "-us", "-uc", "-b")
BY_STDEB = ("make", "deb")


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Folders in which it was built: by stdeb, and by hand under other circumstances.

    In a soak with the tests that a build runs, and once more by hand.
    """
    folder = tmp_path_factory.mktemp("builds")
    bare = {"DEB_BUILD_OPTIONS": "nocheck"}
    other = {
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "C",
        "HOME": "/nonexistent",
        "PYTHONHASHSEED": "7",
        "COLUMNS": "40",
    }
    found = {
        "stdeb": build(folder / "one" / "a path with spaces", BY_STDEB, {} if is_soak() else bare),
        "elsewhere": build(
            folder / "three" / "a-longer-path" / "x", BY_HAND, bare | other, umask=0o077, time=1e9
        ),
    }
    if is_soak():
        found["by hand"] = build(folder / "two" / "src", BY_HAND, bare)
    yield found
    shutil.rmtree(folder, ignore_errors=True)


def build(
    folder: Path,
    command: tuple[str, ...],
    environ: Mapping[str, str],
    umask: int = 0o022,
    time: float = 2e9,
) -> Path:
    """Build from a clean copy in `folder`, whose files were last changed at `time`; where the
    packages are."""
    folder.parent.mkdir(parents=True)
    for name in files(copy_checkout(folder)):
        os.utime(folder / name, (time, time), follow_symlinks=False)
    done = subprocess.run(
        command,
        cwd=folder,
        env=dict(os.environ) | environ,
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return folder / "build" / "deb" if command == BY_STDEB else folder.parent


def package(folder: Path, kind: str = "t3-backup") -> Path:
    [found] = folder.glob(f"{kind}_*.deb")
    return found


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()}


def test_every_way_of_building_gives_the_same_bytes(builds: dict[str, Path]) -> None:
    for kind in ("t3-backup", "t3-backup-dbgsym", "t3-autoupdate"):
        sums = {
            name: hashlib.sha256(package(folder, kind).read_bytes()).hexdigest()
            for name, folder in builds.items()
        }
        assert len(set(sums.values())) == 1, sums


def test_make_deb_leaves_the_package_in_the_checkout_and_all_else_in_its_build_folder(
    builds: dict[str, Path], tmp_path: Path
) -> None:
    out = builds["stdeb"]
    tree = out.parent.parent
    left = {path for path in files(tree) if path.parts[0] != "build"}
    made = [package(out, kind) for kind in ("t3-backup", "t3-autoupdate")]
    assert left - files(copy_checkout(tmp_path / "clean")) == {Path(one.name) for one in made}
    assert all((tree / one.name).read_bytes() == one.read_bytes() for one in made)


def test_stdeb_makes_a_source_package_with_our_debian_folder(
    builds: dict[str, Path], tmp_path: Path
) -> None:
    [dsc] = builds["stdeb"].glob("*.dsc")
    subprocess.run(
        ["dpkg-source", "--extract", dsc, tmp_path / "source"], check=True, capture_output=True
    )
    ours = {
        path.relative_to(ROOT / "debian"): path
        for path in (ROOT / "debian").rglob("*")
        if path.is_file()
    }
    theirs = {
        path.relative_to(tmp_path / "source/debian"): path
        for path in (tmp_path / "source/debian").rglob("*")
        if path.is_file()
    }
    tracked = copy_checkout(tmp_path / "clean") / "debian"
    ours = {name: path for name, path in ours.items() if (tracked / name).exists()}
    assert {name: path.read_bytes() for name, path in theirs.items()} == {
        name: path.read_bytes() for name, path in ours.items()
    }


def test_the_changelog_and_the_program_are_of_one_version(builds: dict[str, Path]) -> None:
    first = (ROOT / "debian" / "changelog").read_text().splitlines()[0]
    match = re.fullmatch(r"t3-backup \((.+)\) .+", first)
    assert match
    assert match[1] == t3_backup.__version__
    assert package(builds["stdeb"]).name.startswith(f"t3-backup_{t3_backup.__version__}_")


def test_lintian_finds_nothing_that_is_not_explained(builds: dict[str, Path]) -> None:
    # of the source and of the packages: lintian looks at all that they name
    changes = sorted(builds["stdeb"].glob("*.changes"))
    assert len(changes) == 2
    done = subprocess.run(
        ["lintian", "--allow-root", "--pedantic", "--info", "--display-info", *changes],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def contents(deb: Path) -> set[str]:
    listing = subprocess.run(
        ["dpkg-deb", "--contents", deb], capture_output=True, text=True, check=True
    ).stdout
    return {line.split()[5].removeprefix(".") for line in listing.splitlines()}


def test_the_package_holds_what_it_should_and_nothing_of_the_build(builds: dict[str, Path]) -> None:
    names = contents(package(builds["stdeb"]))
    for name in (
        "/usr/bin/t3-backup-state",
        "/usr/lib/python3/dist-packages/t3_backup/_copier.abi3.so",
        "/usr/lib/python3/dist-packages/t3_backup/monitor/templates/report.html",
        "/usr/share/man/man8/t3-backup-state.8.gz",
        "/usr/share/bash-completion/completions/t3-backup-state",
        "/etc/default/t3-backup",
        "/etc/logrotate.d/t3-backup",
        "/etc/t3-backup/hooks.d/README",
        "/usr/share/doc/t3-backup/examples/healthchecks-ping",
        "/usr/lib/tmpfiles.d/t3-backup.conf",
        "/usr/share/t3-backup/alerts.yml",
        "/usr/share/t3-backup/grafana-dashboard.json",
    ):
        assert name in names
    units = {Path(name).name for name in names if "/systemd/system/" in name}
    assert units >= {
        "t3-backup-state.service",
        "t3-backup-state.timer",
        "t3-backup-failed@.service",
        "t3-backup-hooks@.service",
    }
    assert units >= {"t3-backup-verify.service", "t3-backup-verify.timer"}
    assert not [name for name in names if re.search(r"\.pyc$|/tests/|/demo/|\.c$", name)]


def test_the_package_of_the_bump_holds_what_it_should_and_the_two_share_no_file(
    builds: dict[str, Path],
) -> None:
    names = contents(package(builds["stdeb"], "t3-autoupdate"))
    for name in (
        "/usr/bin/t3-autoupdate",
        "/usr/bin/t3-pair",
        "/usr/lib/python3/dist-packages/t3_backup/autoupdate/transition.py",
        "/usr/share/man/man8/t3-autoupdate.8.gz",
        "/usr/share/man/man1/t3-pair.1.gz",
        "/usr/share/bash-completion/completions/t3-autoupdate",
        "/usr/share/doc/t3-autoupdate/t3-version-bump.md",
        "/usr/share/doc/t3-autoupdate/post-mortem.md",
        "/usr/share/doc/t3-autoupdate/README.Debian.gz",
        "/etc/default/t3-autoupdate",
        "/usr/lib/tmpfiles.d/t3-autoupdate.conf",
    ):
        assert name in names
    units = {Path(name).name for name in names if "/systemd/system/" in name} - {"system"}
    assert units == {"t3-autoupdate-failed@.service"} | {
        f"t3-autoupdate{name}"
        for name in (".service", ".timer", "-drain.service", "-drain.timer", "-resume.service")
    }
    assert not [name for name in names if re.search(r"\.pyc$|/tests/|/demo/", name)]
    shared = names & contents(package(builds["stdeb"]))
    assert all(name.endswith("/") for name in shared), sorted(shared)


def test_the_tree_is_not_debianized_over_what_is_kept_by_hand(tmp_path: Path) -> None:
    tree = copy_checkout(tmp_path / "tree")
    before = {
        path.name: path.read_bytes() for path in (tree / "debian").iterdir() if path.is_file()
    }
    done = subprocess.run(
        ["/usr/bin/python3", "setup.py", "debianize"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "debian/ is kept by hand" in done.stderr
    assert {
        path.name: path.read_bytes() for path in (tree / "debian").iterdir() if path.is_file()
    } == before
