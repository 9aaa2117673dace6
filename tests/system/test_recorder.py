"""What a run leaves for those who watch: each attempt in the ledger, the metrics of all accounts;
and no backup depends on either."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import programs, sandbox
from support.databases import commit_row
from support.host import Answer, Host
from support.manifests import rewrite_manifest
from support.paths import DATA, ROOT
from support.users import needs_root

from demo.users import User
from t3_backup.system.atomic_file import replace_file

pytestmark = [
    needs_root,
    pytest.mark.skipif(sandbox.ACTIVE, reason="the unit may not write where these look"),
]

TINY = DATA / "state-0.0.24.sqlite"
# As the service has it: root with three powers, none over other people's files.
AS_THE_SERVICE = ["setpriv", "--bounding-set", "-all,+setuid,+setgid,+kill", "--no-new-privs"]


@pytest.fixture
def rae(make_user: Callable[..., User], host: Host) -> User:
    """Who has a database; the map names them."""
    user = make_user("rec-rae", TINY)
    host.write_map(user)
    return user


@pytest.fixture
def folder(host: Host) -> Path:
    """For the metrics; the runs write there."""
    path = host.folder / "metrics"
    path.mkdir()
    path.chmod(0o755)
    host.environ["T3_BACKUP_TEXTFILE_DIR"] = str(path)
    return path


def noted(host: Host) -> dict[str, list[dict[str, Any]]]:
    return json.loads((host.store / "attempts.json").read_text())["accounts"]


def metrics(folder: Path) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels."""
    parser = pytest.importorskip("prometheus_client.parser")
    families = parser.text_string_to_metric_families((folder / "t3_backup.prom").read_text())
    return {
        (s.name.removeprefix("t3_backup_"), *s.labels.values()): s.value
        for f in families
        for s in f.samples
    }


def run_as(host: Host, prefix: list[str], *words: str, **environ: str) -> Answer:
    return Answer.of([*prefix, *host.command(*words)], host.env(**environ))


# --- the ledger


def test_every_account_of_every_run_is_noted_but_of_no_dry_one(
    host: Host, rae: User, make_user: Callable[..., User]
) -> None:
    none = make_user("rec-none")
    host.write_map(rae, none, "rec-nobody")
    assert host.t3("run", "--dry-run").code == 1
    assert not host.store.exists()
    assert host.t3().code == 1
    assert host.t3("run", "--user", rae.name, "--label", "prebump-1").code == 0
    found = noted(host)
    assert {user: [entry["outcome"] for entry in entries] for user, entries in found.items()} == {
        rae.name: ["backed_up", "backed_up"],
        none.name: ["skipped"],
        "rec-nobody": ["failed"],
    }
    first, second = found[rae.name]
    assert (first["verdict"], first["bytes"], first["reason"]) == (
        "verified",
        TINY.stat().st_size,
        "",
    )
    assert first["seconds"] > 0
    assert first["run"] == found[none.name][0]["run"] != second["run"]
    assert "no such user" in found["rec-nobody"][0]["reason"]
    assert stat.S_IMODE((host.store / "attempts.json").stat().st_mode) == 0o600
    listed = host.t3("list", "--json").document
    assert [account["user"] for account in listed["accounts"]] == [rae.name], (
        "the ledger is no account folder"
    )


def test_a_broken_ledger_is_set_aside_with_a_warning_and_the_run_goes_well(
    host: Host, rae: User
) -> None:
    assert host.t3().code == 0
    (host.store / "attempts.json").write_text('{"format": 1, "acc')
    answer = host.t3()
    assert answer.code == 0, answer
    assert "attempts.json is broken" in answer.out
    assert (host.store / "attempts.json.broken").read_text() == '{"format": 1, "acc'
    assert len(noted(host)[rae.name]) == 1


def test_a_ledger_that_can_t_be_written_is_a_warning_and_exit_code_1_and_costs_no_backup(
    host: Host, rae: User, make_user: Callable[..., User]
) -> None:
    other = make_user("rec-other", TINY)
    host.write_map(rae, other)
    assert host.t3().code == 0
    commit_row(rae, other)
    (host.store / "attempts.json").unlink()
    (host.store / "attempts.json").mkdir()
    answer = host.t3()
    assert answer.code == 1, answer
    assert answer.out.count("can't be written") == 1
    assert answer.out.count("backed up ") == 2


def test_a_full_disk_leaves_the_old_file_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=True)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        replace_file(fd, "file", b"old", 0o600)
        with pytest.raises(OSError, match="No space left"):
            replace_file(fd, "file", b"x" * 200_000, 0o600)
        assert (tmp_path / "file").read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["file"]
    finally:
        os.close(fd)
        subprocess.run(["umount", tmp_path], check=True)


# --- the metrics


def test_each_run_writes_the_metrics_of_all_accounts_and_one_for_a_single_account_too(
    host: Host, rae: User, folder: Path, make_user: Callable[..., User]
) -> None:
    other = make_user("rec-other", TINY)
    host.write_map(rae, other)
    assert host.t3().code == 0
    first = metrics(folder)
    commit_row(rae)
    assert host.t3("run", "--user", rae.name).code == 0
    second = metrics(folder)
    assert (
        first["snapshots", rae.name, "verified"],
        second["snapshots", rae.name, "verified"],
    ) == (1, 2)
    assert second["snapshots", other.name, "verified"] == 1
    assert second["last_attempt_ok", other.name] == second["account_in_map", other.name] == 1
    assert (
        second["last_success_timestamp_seconds", rae.name]
        >= first["last_success_timestamp_seconds", rae.name]
        > 0
    )
    assert second["used_bytes", rae.name] > first["used_bytes", rae.name] >= TINY.stat().st_size
    assert stat.S_IMODE((folder / "t3_backup.prom").stat().st_mode) == 0o644
    assert os.listdir(folder) == ["t3_backup.prom"]


def test_what_is_accepted_raises_no_alarm_until_the_next_night(
    host: Host, rae: User, folder: Path
) -> None:
    assert host.t3().code == 0
    rewrite_manifest(
        host.snapshots(rae)[0].with_suffix(".json"), verdict="suspect", reasons=["less"]
    )
    assert host.t3().code == 0
    assert metrics(folder)["snapshots_held", rae.name] == 1
    assert host.t3("accept", rae.name).code == 0
    assert metrics(folder)["snapshots_held", rae.name] == 0


def test_another_store_a_dry_run_and_somebody_who_is_not_root_write_none(
    host: Host, rae: User, folder: Path
) -> None:
    assert host.t3("run", "--dest", str(host.folder / "another")).code == 0
    assert host.t3("run", "--dry-run").code == 0
    folder.chmod(0o777)
    as_user = ["setpriv", "--reuid", str(rae.uid), "--regid", str(rae.gid), "--clear-groups"]
    assert run_as(host, as_user, "run", T3_BACKUP_DEST=str(rae.home / "backups")).code == 0
    assert host.t3("run", T3_BACKUP_TEXTFILE_DIR="none").code == 0
    assert os.listdir(folder) == []


def test_metrics_that_can_t_be_written_are_a_warning_and_exit_code_1_and_cost_no_backup(
    host: Host, rae: User, folder: Path
) -> None:
    folder.rmdir()
    answer = host.t3()
    assert answer.code == 1, answer
    assert (
        f"WARN: the metrics can't be written to {folder}: No such file or directory" in answer.out
    )
    assert f"backed up {rae.name}" in answer.out
    found = [
        check
        for check in host.t3("doctor", "--json").document["checks"]
        if check["name"] == "metrics"
    ]
    assert [(check["status"], "No such file or directory" in check["text"]) for check in found] == [
        ("fail", True)
    ]


def test_without_the_library_a_run_says_so_and_goes_well(
    host: Host, rae: User, folder: Path
) -> None:
    for command, words in (
        ("run", "no metrics are written to"),
        ("doctor", "apt install python3-prometheus-client"),
    ):
        done = subprocess.run(
            programs.line("call_without.py", "prometheus_client", command, isolated=False),
            env=host.env(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.count(words) == 1, done
        assert "WARN: " not in done.stdout
        assert command == "doctor" or done.returncode == 0
    assert os.listdir(folder) == []


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_root_as_the_service_has_it_can_write_to_a_folder_of_root_s_and_to_no_other_and_the_doctor_knows(
    host: Host, rae: User, folder: Path
) -> None:
    """Debian's is root's, 0755, in bookworm and trixie."""
    answer = run_as(host, AS_THE_SERVICE, "run")
    assert answer.code == 0, answer
    assert metrics(folder)["last_attempt_ok", rae.name] == 1

    def doctor() -> list[str]:
        return [
            check["status"]
            for check in host.t3("doctor", "--json").document["checks"]
            if check["name"] == "metrics"
        ]

    assert doctor() == ["ok"]
    rae.give(folder)
    commit_row(rae)
    answer = run_as(host, AS_THE_SERVICE, "run")
    assert answer.code == 1, answer
    assert f"the metrics can't be written to {folder}: Permission denied" in answer.out
    assert f"backed up {rae.name}" in answer.out
    assert doctor() == ["fail"]


def test_the_default_folder_is_written_to_where_it_is_and_missed_by_nobody_where_not(
    host: Host, rae: User
) -> None:
    """In a mount namespace of its own, with a /var/lib of its own."""
    private = f"mkdir -p {host.folder}/var-lib; mount --bind {host.folder}/var-lib /var/lib"
    environ = host.env()
    del environ["T3_BACKUP_TEXTFILE_DIR"]
    line = ["unshare", "--mount", "sh", "-ec", f'{private}; exec "$@"', "sh", *host.command("run")]
    for there in (False, True):
        place = host.folder / "var-lib" / "prometheus" / "node-exporter"
        if there:
            place.mkdir(parents=True)
            commit_row(rae)
        done = subprocess.run(
            line, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        assert (done.returncode, "WARN" in done.stdout + done.stderr, "metrics" in done.stdout) == (
            0,
            False,
            False,
        ), done
    assert metrics(place)["snapshots", rae.name, "verified"] == 2
