"""What people and programs see of an account with several databases: in run, status, list, doctor,
du, metrics and report. Real users, real databases of T3's; what can't be copied is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import programs
from support.host import Host
from support.t3_data import real_database
from support.users import needs_root

from demo.users import User
from t3_backup.autoupdate import snapshots
from t3_backup.errors import Failure

pytestmark = needs_root

V1, V2, JUNK = "state.sqlite", "statev2.sqlite", "junk.sqlite"
WHY = "move it out of userdata if it is not T3's"


@pytest.fixture
def dua(make_user: Callable[..., User], host: Host, tmp_path: Path) -> User:
    """Who has a V1, which no server writes to any more, and a V2; the map names them alone."""
    user = make_user("sd-dua", real_database("v1-from26-54", tmp_path / V1))
    live = real_database("v2-from26-55", tmp_path / V2)
    shutil.copy(live, user.database.parent / V2)
    user.give(user.database.parent / V2)
    os.utime(user.database, (1_700_000_000, 1_700_000_000))
    host.write_map(user)
    return user


def commit_live(user: User) -> None:
    """Commit one row to the V2, as its user."""
    line = programs.line("commit_row.py", str(user.database.parent / V2))
    subprocess.run(["runuser", "-u", user.name, "--", *line], check=True)


def put_junk(user: User) -> Path:
    path = user.database.parent / JUNK
    path.write_bytes(b"this was never a database\n" * 400)
    user.give(path)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


def test_run_list_status_and_doctor_tell_of_each_database(host: Host, dua: User) -> None:
    sizes = {name: (dua.database.parent / name).stat().st_size for name in (V1, V2)}
    planned = host.t3("run", "--dry-run")
    assert planned.code == 0, planned
    for name, size in sizes.items():
        assert f"/.t3/userdata/{name} ({size} bytes, -wal 0)" in planned.out, planned
    assert host.t3("run").code == 0
    commit_live(dua)
    answer = host.t3("run", "--json")
    assert answer.code == 0, answer
    [snapshot] = answer.account(dua.name)["snapshots"]
    found = {one["file"]: one for one in snapshot["databases"]}
    assert {name: (one["live"], one["t3_level"]) for name, one in found.items()} == {
        V1: (False, 54),
        V2: (True, 55),
    }
    assert snapshot["file"] == V2
    assert (snapshot["path"], snapshot["form"]) == (found[V2]["path"], found[V2]["form"])
    for one in found.values():
        assert Path(one["path"]).stat().st_size == one["bytes"]
    assert f" (2 databases, {sum(one['bytes'] for one in found.values())} bytes, " in answer.err

    status = host.t3("status", "--json").account(dua.name)
    assert status["state"] == "ok"
    states = [(one["file"], one["live"], one["level"]) for one in status["databases"]]
    assert states == [(V2, True, 55), (V1, False, 54)]
    first = host.t3("list", "--json").account(dua.name)["snapshots"][-1]
    assert [one["frozen_since"] for one in status["databases"]] == [None, first["taken_at"]]
    [line] = [
        line for line in host.t3("status").out.splitlines() if line.startswith(f"{dua.name}: ")
    ]
    assert line.startswith(f"{dua.name}: {V2} live, level 55, ")
    assert f"; {V1} frozen since {first['taken_at'][:10]}, level 54, " in line

    listed = host.t3("list").out.splitlines()
    assert listed[1].split()[-2:] == ["DATABASES", "NAME"]
    assert [row.split()[-2] for row in listed[2:4]] == ["2", "2"]
    [check] = [
        one
        for one in host.t3("doctor", "--json").document["checks"]
        if one["name"] == f"account {dua.name}"
    ]
    assert check["status"] == "ok"
    assert check["text"].startswith(f"2 databases: {V1} of ")
    assert f"; {V2} of " in check["text"]


def test_du_counts_a_frozen_database_once(host: Host, dua: User) -> None:
    for _ in range(3):
        assert host.t3("run").code == 0
        commit_live(dua)
    frozen = dua.database.stat().st_size
    rows = host.t3("du", "--json").account(dua.name)["snapshots"]
    assert len(rows) == 3
    newest, *older = rows
    assert newest["stored_bytes"] >= newest["bytes"] > frozen
    assert all(row["bytes"] > row["stored_bytes"] for row in older), rows
    assert all(row["stored_bytes"] <= newest["stored_bytes"] - frozen for row in older), rows


def test_what_can_t_be_copied_is_named_everywhere_until_it_is_gone(host: Host, dua: User) -> None:
    textfiles = host.folder / "textfiles"
    textfiles.mkdir()
    environ = {"T3_BACKUP_TEXTFILE_DIR": str(textfiles)}
    junk = put_junk(dua)
    for outcome in ("backed_up", "unchanged"):
        answer = host.t3("run", "--json", **environ)
        account = answer.account(dua.name)
        assert (answer.code, account["outcome"]) == (1, outcome), answer
        [snapshot] = account["snapshots"]
        [missing] = snapshot["missing"]
        assert (missing["file"], snapshot["verdict"]) == (JUNK, "verified")
        assert sorted(one["file"] for one in snapshot["databases"]) == [V1, V2]
        told = f"WARN: {dua.name}: {JUNK} is not in {snapshot['name']}: {missing['reason']}; next"
        assert f"{told}: {WHY}\n" in answer.err

    status = host.t3("status", "--json")
    account = status.account(dua.name)
    assert (status.code, account["state"], account["good"]) == (1, "critical", 0)
    assert account["missing"] == [missing]
    named = f"{JUNK} is not in the newest snapshot: {missing['reason']}"
    assert named in [trouble["text"] for trouble in account["troubles"]]
    nagios = host.t3("status", "--nagios")
    assert (nagios.code, named in nagios.out) == (2, True), nagios
    assert ", 1 missing" in host.t3("list").out
    metrics = (textfiles / "t3_backup.prom").read_text()
    assert f't3_backup_missing_databases{{account="{dua.name}"}} 1.0' in metrics
    checks = host.t3("doctor", "--json").document["checks"]
    failed = {one["name"]: one["text"] for one in checks if one["status"] == "fail"}
    assert failed[f"shelf {dua.name}"].startswith(f"{JUNK} is not in {snapshot['name']}: ")
    pytest.importorskip("jinja2")
    assert f"{JUNK} is not in {snapshot['name']}" in host.t3("report", "--html", "-").out

    junk.unlink()
    answer = host.t3("run", "--json", **environ)
    assert (answer.code, answer.account(dua.name)["outcome"]) == (0, "backed_up"), answer
    assert host.t3("status").code == 0


def test_a_version_is_not_changed_on_a_snapshot_that_lacks_a_database(
    host: Host, dua: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is taken of a version that failed is kept as far as it goes."""
    monkeypatch.setattr(snapshots, "COMMAND", (sys.executable, "-m", "t3_backup.cli.main"))
    for name, value in host.env().items():
        monkeypatch.setenv(name, value)
    store = snapshots.Snapshots(host.store)
    assert not store.take_snapshot(dua.name, "prebump-0.0.25").missing
    put_junk(dua)
    with pytest.raises(Failure, match=f"^the snapshot state-.* lacks {JUNK}: "):
        store.take_snapshot(dua.name, "prebump-0.0.26")
    taken = store.take_snapshot(dua.name, "postbump-failed", proven=False)
    assert [one.file for one in taken.missing] == [JUNK]


def test_what_is_refused_before_it_is_read_is_named_by_doctor_and_a_dry_run_too(
    host: Host, dua: User
) -> None:
    link = dua.database.parent / "link.sqlite"
    link.symlink_to("/etc/hostname")
    found = host.t3("doctor", "--json").document["checks"]
    mine = [one for one in found if one["name"] == f"account {dua.name}"]
    assert [one["status"] for one in mine] == ["fail", "ok"]
    assert mine[0]["text"].startswith("link.sqlite can't be copied: ")
    assert mine[0]["text"].endswith(f"; next: {WHY}")
    assert "link.sqlite" not in mine[1]["text"]
    assert "; but not link.sqlite: " in host.t3("run", "--dry-run").out
    answer = host.t3("run", "--json")
    assert answer.code == 1, answer
    [snapshot] = answer.account(dua.name)["snapshots"]
    assert [one["file"] for one in snapshot["missing"]] == ["link.sqlite"]


def test_a_frozen_image_whose_file_is_gone_is_told_and_comes_back(host: Host, dua: User) -> None:
    assert host.t3("run").code == 0
    [snapshot] = host.t3("list", "--json").account(dua.name)["snapshots"]
    [frozen] = [one for one in snapshot["databases"] if not one["live"]]
    Path(frozen["path"]).unlink()
    status = host.t3("status", "--json").account(dua.name)
    assert (status["state"], status["good"]) == ("critical", 0)
    assert status["troubles"][0]["text"].startswith(f"{snapshot['name']} has lost {V1}: ")
    answer = host.t3("run")
    assert answer.code == 0, answer
    assert Path(frozen["path"]).stat().st_size == frozen["bytes"]
    assert host.t3("status", "--json").account(dua.name)["state"] == "ok"
