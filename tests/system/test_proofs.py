"""What a proof has found: of one bad base once, and "could not be checked" is no verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import sandbox
from support.databases import commit_row
from support.host import Host, list_snapshots, succeeded
from support.users import needs_root

from demo.users import User

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="changes the store")]


@pytest.fixture
def petra(host: Host, make_user: Callable[..., User], small: Path) -> User:
    """A user with four snapshots: the newest is plain, the others hang on it."""
    user = make_user("proof-petra", small)
    host.write_map(user)
    host.environ["T3_BACKUP_COMPACT"] = "delta"
    for _ in range(4):
        back_up(host, user)
    assert [one["form"] for one in list_snapshots(host, user)] == ["plain", *["delta"] * 3]
    return user


def back_up(host: Host, user: User) -> None:
    commit_row(user)
    succeeded(host.t3("run", "--user", user.name))


def rot(snapshot: dict[str, Any], at: int = 500_000) -> None:
    """Change four bytes of a snapshot's data, as a disk may; once more: they are as before."""
    path = Path(snapshot["path"])
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        four = file.read(4)
        file.seek(-4, 1)
        file.write(bytes(byte ^ 0x55 for byte in four))
    path.chmod(0o400)


def test_without_room_to_put_it_together_one_could_not_be_checked_and_that_is_no_verdict(
    host: Host, petra: User
) -> None:
    """The newest is plain, and is proven all the same."""
    answer = host.t3("verify", petra.name, T3_BACKUP_RESERVE="1000T")
    assert (answer.code, answer.out.count("could not be checked: no room to rebuild")) == (3, 3)
    assert "NOT verify" not in answer.out
    found = host.t3("verify", petra.name, "--json", T3_BACKUP_RESERVE="1000T")
    proven = found.account(petra.name)["snapshots"]
    assert (found.code, [one["verifies"] for one in proven]) == (3, [True, None, None, None])
    assert all("no room" in one["problems"][0] for one in proven[1:])


def test_one_bad_base_is_told_once_with_all_that_hang_on_it(host: Host, petra: User) -> None:
    newest, *others = list_snapshots(host, petra)
    rot(newest)
    answer = host.t3("verify", petra.name)
    told = [line for line in answer.out.splitlines() if "NOT verify" in line]
    assert (answer.code, len(told)) == (1, 1), answer
    assert told[0].startswith(f"WARN: {petra.name} {newest['name']} does NOT verify: SHA-256 ")
    hanging = ", ".join(one["name"] for one in others)
    assert f"; and with it 3 that hang on it: {hanging}; next: " in told[0]
    # with one of them alone, too, the base is what is at fault
    answer = host.t3("verify", petra.name, "--at", others[1]["name"])
    assert f"does NOT verify: it hangs on {newest['name']}, which does not" in answer.out


@pytest.fixture
def paul(host: Host, make_user: Callable[..., User], small: Path) -> User:
    """A user with two snapshots, each a plain file of its own."""
    user = make_user("proof-paul", small)
    host.write_map(user)
    for _ in range(2):
        back_up(host, user)
    return user


def status(host: Host, user: User) -> dict[str, Any]:
    return host.t3("status", user.name, "--json").account(user.name)


def test_a_proof_that_failed_is_told_everywhere_until_it_verifies_again(
    host: Host, paul: User
) -> None:
    """Row 58: four bytes of the newest snapshot."""
    newest, older = list_snapshots(host, paul)
    name, told = newest["name"], f"{newest['name']} does NOT verify: SHA-256 "
    rot(newest)
    assert status(host, paul)["state"] == "ok", "nobody has looked yet"
    assert host.t3("verify", paul.name).code == 1
    shown = host.t3("status")
    assert (shown.code, told in shown.out) == (1, True), shown
    found = status(host, paul)
    assert (found["last_good"], found["good"]) == (older["taken_at"], 1)
    assert [one["snapshot"] for one in found["proofs"]["failed"]] == [name]
    check = host.t3("status", "--nagios")
    assert (check.code, f"T3-BACKUP CRITICAL - {paul.name}: {told}" in check.out) == (2, True)
    listed = host.t3("list", paul.name).out.splitlines()
    assert ["FAILED" in line for line in listed if "state-" in line] == [True, False]
    proofs = [one["proof"]["outcome"] for one in list_snapshots(host, paul)]
    assert proofs == ["failed", "verified"]
    assert told in host.t3("report", "--html", "-").out
    examined = host.t3("doctor", "--json").document["checks"]
    [check_of_it] = [one for one in examined if one["name"] == f"proofs {paul.name}"]
    assert (check_of_it["status"], told in check_of_it["text"]) == ("fail", True)
    # a run stands on no such snapshot, makes a good one, and tells of the other all the same
    ran = host.t3("run", "--json")
    [made] = ran.account(paul.name)["snapshots"]
    assert (ran.code, made["name"] != name) == (0, True)
    assert any(told in warning for warning in ran.account(paul.name)["warnings"])
    assert host.t3("verify", paul.name).code == 0, "the run has mended it by what it copied"
    assert (status(host, paul)["state"], status(host, paul)["good"]) == ("ok", 3)


def test_a_proof_that_failed_is_in_the_metrics(host: Host, paul: User, tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    rot(list_snapshots(host, paul)[1])
    assert host.t3("verify", paul.name).code == 1
    host.environ["T3_BACKUP_TEXTFILE_DIR"] = str(tmp_path)
    succeeded(host.t3("run"))
    written = (tmp_path / "t3_backup.prom").read_text()
    assert f't3_backup_failed_proofs{{account="{paul.name}"}} 1.0' in written
    assert host.t3("status").code == 1
    succeeded(host.t3("accept", paul.name))
    written = (tmp_path / "t3_backup.prom").read_text()
    assert f't3_backup_failed_proofs{{account="{paul.name}"}} 0.0' in written
    assert status(host, paul)["state"] == "ok"
    assert status(host, paul)["good"] == 1, "it is still no good one"
    assert host.t3("verify", paul.name).code == 1
    assert status(host, paul)["state"] == "ok", "that it fails as before is no news"


def test_a_restore_passes_over_what_is_known_to_fail(host: Host, paul: User) -> None:
    """Row 58."""
    newest, older = list_snapshots(host, paul)
    rot(newest)
    assert host.t3("verify", paul.name).code == 1
    answer = succeeded(host.t3("restore", paul.name, "--yes", "--json"))
    assert answer.document["snapshot"]["name"] == older["name"]
    assert answer.document["passed_over"] == newest["name"]
    assert f"{newest['name']} is newer and does not verify (SHA-256 " in answer.err


def test_a_restore_that_finds_one_bad_names_the_next_good_one_and_notes_it(
    host: Host, paul: User, tmp_path: Path
) -> None:
    """Row 58: nobody has proven it before."""
    newest, older = list_snapshots(host, paul)
    rot(newest)
    before = paul.database.read_bytes()
    answer = host.t3("restore", paul.name, "--yes")
    assert answer.code == 1
    assert f"next: t3-backup-state restore {paul.name} --at {older['name']}" in answer.err
    assert paul.database.read_bytes() == before
    found = status(host, paul)
    assert (found["state"], found["last_good"]) == ("critical", older["taken_at"])
    target = tmp_path / "out.sqlite"
    answer = host.t3("restore", paul.name, "--at", newest["name"], "--to", str(target))
    assert (answer.code, f"--at {older['name']} --to {target}" in answer.err) == (1, True)
    succeeded(host.t3("restore", paul.name, "--yes"))


def test_a_run_that_meets_a_base_that_is_not_what_was_sealed_notes_it_with_all_on_it(
    host: Host, petra: User, tmp_path: Path
) -> None:
    """Row 58: what has changed since is taken from both by compaction. A page that has not comes
    from the new one, and the old one is mended by that."""
    newest, *others = list_snapshots(host, petra)
    target = tmp_path / "older.sqlite"
    succeeded(host.t3("restore", petra.name, "--at", others[0]["name"], "--to", str(target)))
    old, new = target.read_bytes(), Path(newest["path"]).read_bytes()
    changed = [at for at in range(0, len(new), 4096) if old[at : at + 4096] != new[at : at + 4096]]
    for at in changed:  # by each row, and so by the next one
        rot(newest, at + 3000)
    commit_row(petra)
    succeeded(host.t3("run"))
    found = status(host, petra)
    [fault] = found["proofs"]["failed"]
    assert (found["state"], fault["snapshot"]) == ("critical", newest["name"])
    assert fault["hanging"] == [one["name"] for one in others]
    assert found["good"] == 1


@pytest.mark.soak
def test_what_could_not_be_checked_is_a_warning_and_nothing_is_held_to_be_bad(
    host: Host, petra: User
) -> None:
    assert host.t3("verify", petra.name, T3_BACKUP_RESERVE="1000T").code == 3
    found = status(host, petra)
    assert (found["state"], found["good"], len(found["proofs"]["unchecked"])) == ("warning", 4, 3)
    assert "and 2 more could not be checked: no room to rebuild" in found["troubles"][0]["text"]
    assert host.t3("verify", petra.name).code == 0
    assert status(host, petra)["state"] == "ok"


@pytest.mark.soak
def test_what_could_not_be_checked_takes_back_no_failure(host: Host, petra: User) -> None:
    newest, *_ = list_snapshots(host, petra)
    rot(newest)
    assert host.t3("verify", petra.name).code == 1
    assert host.t3("verify", petra.name, T3_BACKUP_RESERVE="1000T").code == 1
    [fault] = status(host, petra)["proofs"]["failed"]
    assert len(fault["hanging"]) == 3
