"""What the package's scripts say and remove, tried in a folder that stands for the root (dpkg's own
DPKG_ROOT)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.paths import ROOT

DEBIAN = ROOT / "debian"
SCRIPTS = [
    f"/usr/local/{folder}/t3-backup-state{ending}"
    for folder in ("bin", "sbin")
    for ending in ("", ".sh")
]
UNITS = [f"/etc/systemd/system/t3-backup-state.{kind}" for kind in ("service", "timer")]
METRICS = "var/lib/prometheus/node-exporter/t3_backup.prom"
STAMPS = [f"var/lib/systemd/timers/stamp-t3-backup-{name}.timer" for name in ("state", "verify")]


def run(script: str, root: Path, *words: str, package: str = "t3-backup") -> str:
    """What it said; it never fails."""
    done = subprocess.run(
        ["sh", DEBIAN / f"{package}.{script}", *words],
        env={"PATH": os.environ["PATH"], "DPKG_ROOT": str(root)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    return done.stderr


def make(root: Path, name: str, text: str = "") -> Path:
    path = root / name.removeprefix("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("old", [[name] for name in SCRIPTS + UNITS] + [SCRIPTS + UNITS])
def test_each_file_of_a_hand_made_installation_is_named_with_its_remedy_and_left_alone(
    tmp_path: Path, old: list[str]
) -> None:
    made = [make(tmp_path, name, "old") for name in old]
    said = run("postinst", tmp_path, "configure", "")
    [remedy] = [line for line in said.splitlines() if line.startswith("    rm ")]
    assert remedy.split()[1:] == old
    assert (
        said.index("rm ")
        < said.index("daemon-reload")
        < said.index("reenable")
        < said.index("restart")
    )
    assert all(path.read_text() == "old" for path in made)


def test_a_dangling_link_hides_the_package_too(tmp_path: Path) -> None:
    link = make(tmp_path, SCRIPTS[0])
    link.unlink()
    link.symlink_to("/opt/gone")
    assert SCRIPTS[0] in run("postinst", tmp_path, "configure", "")


def test_a_fresh_system_or_one_whose_admin_has_masked_the_units_is_told_nothing(
    tmp_path: Path,
) -> None:
    assert run("postinst", tmp_path, "configure", "") == ""
    for name in UNITS:
        path = make(tmp_path, name)
        path.unlink()
        path.symlink_to("/dev/null")
    assert run("postinst", tmp_path, "configure", "0.1.0") == ""


def test_a_removal_takes_stamps_and_metrics_and_a_purge_the_log_and_the_ledger_but_no_snapshot(
    tmp_path: Path,
) -> None:
    metrics, ledger = make(tmp_path, METRICS), make(tmp_path, "var/backups/t3-state/attempts.json")
    stamps, log = (
        [make(tmp_path, name) for name in STAMPS],
        make(tmp_path, "var/log/t3-backup/t3-backup-state.log.1.gz"),
    )
    snapshot = make(tmp_path, "var/backups/t3-state/alice/state-20261120T101500Z.sqlite")
    assert run("postrm", tmp_path, "remove") == ""
    assert [stamp.exists() for stamp in stamps] == [False, False]
    assert (log.exists(), snapshot.exists()) == (True, True)
    assert (metrics.exists(), ledger.exists()) == (False, True)
    assert "/var/backups/t3-state;" in run("postrm", tmp_path, "purge")
    assert (log.parent.exists(), ledger.exists(), snapshot.exists()) == (False, False, True)


def test_an_upgrade_takes_nothing_and_a_purge_an_empty_store_too(tmp_path: Path) -> None:
    stamps, log = (
        [make(tmp_path, name) for name in STAMPS],
        make(tmp_path, "var/log/t3-backup/t3-backup-state.log"),
    )
    metrics = make(tmp_path, METRICS)
    make(tmp_path, "var/backups/t3-state/attempts.json.broken")
    store = tmp_path / "var/backups/t3-state"
    assert run("postrm", tmp_path, "upgrade", "9.0") == ""
    assert metrics.exists()
    assert all(stamp.exists() for stamp in stamps)
    assert log.exists()
    assert run("postrm", tmp_path, "purge") == ""
    assert not store.exists()


def test_a_purge_of_the_bump_leaves_programs_that_servers_run_from_and_says_so(
    tmp_path: Path,
) -> None:
    metrics = make(tmp_path, "var/lib/prometheus/node-exporter/t3_autoupdate.prom")
    stamps = [
        make(tmp_path, f"var/lib/systemd/timers/stamp-t3-autoupdate{name}.timer")
        for name in ("", "-drain")
    ]
    program = make(tmp_path, "var/lib/t3-autoupdate/versions/0.0.24/bin/t3")
    assert run("postrm", tmp_path, "upgrade", "9.0", package="t3-autoupdate") == ""
    assert all(path.exists() for path in (metrics, *stamps))
    assert run("postrm", tmp_path, "remove", package="t3-autoupdate") == ""
    assert not [path for path in (metrics, *stamps) if path.exists()]
    assert "/var/lib/t3-autoupdate stay" in run(
        "postrm", tmp_path, "purge", package="t3-autoupdate"
    )
    assert program.exists()


def test_a_purge_of_the_bump_takes_an_empty_folder(tmp_path: Path) -> None:
    folder = tmp_path / "var/lib/t3-autoupdate"
    folder.mkdir(parents=True)
    assert run("postrm", tmp_path, "purge", package="t3-autoupdate") == ""
    assert not folder.exists()
