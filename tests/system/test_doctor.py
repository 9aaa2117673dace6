"""The doctor on a real machine: it finds what keeps a backup from being made, and touches
nothing."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import programs
from support.host import Answer, Host
from support.manifests import rewrite_manifest
from support.paths import DATA, ROOT
from support.store_checks import stat_tree
from support.users import needs_root

from demo.users import User
from t3_backup.doctor.finding import Finding

pytestmark = needs_root

TINY = DATA / "state-0.0.24.sqlite"
SIZE = TINY.stat().st_size
FREE = re.compile(r"[\d.]+ [KMGT]iB free")  # others write to the disk between two calls
# What depends on the machine that the tests run on, and not on their `host`.
OF_THE_MACHINE = {
    "by hand",
    "systemd",
    "timer",
    "service",
    "drop-ins",
    "last run",
    "sandbox",
    "time limit",
    "sqlite",
    "file system",
}


@pytest.fixture
def dora(make_user: Callable[..., User], host: Host) -> User:
    """Who has a database; the map names them."""
    user = make_user("doc-dora", TINY)
    host.write_map(user)
    return user


def findings(answer: Answer) -> list[Finding]:
    """What the doctor found, by its document."""
    assert answer.code in (0, 1), answer
    found = [
        Finding(check["status"], check["name"], check["text"])
        for check in answer.document["checks"]
    ]
    assert answer.code == int(any(finding.status == "fail" for finding in found)), answer
    return found


def of(name: str, answer: Answer) -> Finding:
    [found] = [finding for finding in findings(answer) if finding.name == name]
    return found


def statuses(answer: Answer) -> dict[str, str]:
    """How each check came out."""
    return {
        finding.name: finding.status
        for finding in findings(answer)
        if finding.name not in OF_THE_MACHINE
    }


def healthy(user: User) -> dict[str, str]:
    names = (
        "map",
        f"account {user.name}",
        "store",
        "identity",
        "space",
        f"snapshots {user.name}",
        "extension",
        "seccomp",
        "python3-systemd",
    )
    return dict.fromkeys(names, "ok") | {"disk": "note"}


def test_after_a_run_all_is_well_and_the_sizes_are_those_of_the_user_s_database(
    host: Host, dora: User
) -> None:
    assert host.t3().code == 0
    answer = host.t3("doctor", "--json")
    assert statuses(answer) == healthy(dora)
    assert of(f"account {dora.name}", answer).text == f"database of {SIZE / 1024:.1f} KiB, -wal 0 B"
    assert of("map", answer).text == f"{host.map} names 1 accounts"
    assert re.search(r" is \d+s old \(state-", of(f"snapshots {dora.name}", answer).text)


def test_the_lines_for_people_are_those_of_the_document(host: Host, dora: User) -> None:
    answer = host.t3("doctor", "--json")
    lines = [finding.line() for finding in findings(answer)]
    assert answer.err.splitlines() == lines
    plain = host.t3("doctor")
    assert [FREE.sub("", line) for line in plain.out.splitlines()] == [
        FREE.sub("", line) for line in lines
    ]
    assert plain.code == answer.code
    assert plain.err == ""


def test_nothing_is_written_and_no_lock_is_taken(
    host: Host, dora: User, make_user: Callable[..., User]
) -> None:
    """While another holds the store; with a database, one that is not WAL's, one that is none, and
    none."""
    other, odd = make_user("doc-other"), make_user("doc-odd")
    odd.database.write_bytes(b"no database")
    odd.give(odd.database)
    host.write_map(dora, other, odd, "doc-nobody")
    assert host.t3().code == 1
    before = stat_tree(host.folder)
    held = os.open(host.store, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert (
            "doc-nobody: no such user" in of("account doc-nobody", host.t3("doctor", "--json")).text
        )
    finally:
        os.close(held)
    assert stat_tree(host.folder) == before


def test_before_the_first_run_the_store_is_missed_and_not_made(host: Host, dora: User) -> None:
    found = statuses(host.t3("doctor", "--json"))
    expected = healthy(dora) | {"store": "warn", f"snapshots {dora.name}": "warn"}
    del expected["identity"]
    assert found == expected
    assert not host.store.exists()


# --- the map and the accounts


def test_what_keeps_an_account_from_its_backup_fails_and_the_others_are_looked_at(
    host: Host, dora: User, make_user: Callable[..., User]
) -> None:
    link = make_user("doc-link")
    link.database.symlink_to("/etc/passwd")
    host.map.write_text(f"a=root\nb={link.name}\nc={dora.name}\nd=doc-nobody\nnonsense\n")
    answer = host.t3("doctor", "--json")
    found = statuses(answer)
    assert answer.code == 1
    assert {name for name, status in found.items() if status == "fail"} == {
        "account root",
        f"account {link.name}",
        "account doc-nobody",
    }
    assert found[f"account {dora.name}"] == "ok"
    assert "uid 0 is refused" in of("account root", answer).text
    assert "is a symlink" in of(f"account {link.name}", answer).text
    assert [finding.status for finding in findings(answer) if finding.name == "map"] == [
        "warn",
        "ok",
    ]


def test_a_map_that_is_not_there_fails(host: Host, dora: User) -> None:
    host.map.unlink()
    assert of("map", host.t3("doctor", "--json")).status == "fail"
    assert of("map", host.t3("doctor", "--json", "--map", "/dev/null")).status == "warn"


def test_a_database_that_was_deleted_fails_where_there_are_snapshots_of_it(
    host: Host, dora: User
) -> None:
    dora.database.rename(dora.home / "away")
    assert of(f"account {dora.name}", host.t3("doctor", "--json")).status == "note"
    (dora.home / "away").rename(dora.database)
    assert host.t3().code == 0
    dora.database.unlink()
    assert of(f"account {dora.name}", host.t3("doctor", "--json")).status == "fail"


def test_what_lies_beside_a_database_and_is_not_saved_is_told_by_name(
    host: Host, dora: User
) -> None:
    """Also where there is no database yet; and a terminal obeys none of it."""
    place = dora.database.parent
    for known in ("settings.json", "anonymous-id", "server-lock.sqlite", "themes"):
        (place / known).touch()
    names = [one["name"] for one in host.t3("doctor", "--json").document["checks"]]
    assert f"files {dora.name}" not in names
    (place / "plugins.json").touch()
    (place / "evil\n\x1b[2J").touch()
    said = 'userdata also holds "evil??[2J", plugins.json: not saved; next: '
    told = [of(f"files {dora.name}", host.t3("doctor", "--json"))]
    dora.database.rename(dora.home / "away")
    told.append(of(f"files {dora.name}", host.t3("doctor", "--json")))
    assert [(one.status, one.text.startswith(said)) for one in told] == [("note", True)] * 2
    assert host.t3("run", "--json").account(dora.name)["outcome"] == "skipped"


# --- the store and the account folders


def test_a_store_that_is_open_to_others_or_another_s_fails(host: Host, dora: User) -> None:
    assert host.t3().code == 0
    host.store.chmod(0o755)
    assert "open to others" in of("store", host.t3("doctor", "--json")).text
    host.store.chmod(0o700)
    dora.give(host.store)
    assert "belongs to uid" in of("store", host.t3("doctor", "--json")).text
    assert host.t3("doctor").code == 1


def test_a_symlink_to_nowhere_is_no_store_that_is_still_to_come(host: Host, dora: User) -> None:
    host.store.symlink_to(host.folder / "nowhere")
    assert of("store", host.t3("doctor", "--json")).status == "fail"


def in_own_namespace(host: Host, script: str, *words: str) -> Answer:
    """The command, after `script` has changed what is mounted, for it alone."""
    line = ["unshare", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh", *host.command(*words)]
    return Answer.of(line, host.env())


def test_a_store_in_memory_or_read_only_fails_and_is_called_what_it_is(
    host: Host, dora: User
) -> None:
    host.store.mkdir(mode=0o700)
    memory = in_own_namespace(
        host, f"mount -t tmpfs -o mode=700 none {host.store}", "doctor", "--json"
    )
    assert of("file system", memory).status == "fail"
    assert "on tmpfs, in memory" in of("file system", memory).text
    closed = in_own_namespace(
        host,
        f"mount --bind {host.store} {host.store}; mount -o remount,bind,ro {host.store}",
        "doctor",
        "--json",
    )
    assert of("file system", closed).status == "fail"
    assert "mounted read-only" in of("file system", closed).text


def test_too_little_room_for_the_next_run_fails(host: Host, dora: User) -> None:
    assert of("space", host.t3("doctor", "--json", T3_BACKUP_RESERVE="900T")).status == "fail"


def test_an_account_folder_of_the_user_s_own_is_counted_as_the_user_and_waits_for_the_next_run(
    host: Host, dora: User
) -> None:
    host.store.mkdir(mode=0o700)
    host.account_dir(dora).mkdir(mode=0o700)
    for name in ("state-20261101-033000.sqlite", "state-prebump-1-20261102-033000.sqlite", "notes"):
        shutil.copyfile(TINY, host.account_dir(dora) / name)
        dora.give(host.account_dir(dora) / name)
    dora.give(host.account_dir(dora))
    found = of(f"shelf {dora.name}", host.t3("doctor", "--json"))
    assert found.status == "warn"
    assert "with 2 snapshots that they can change" in found.text


def test_an_account_folder_of_ours_that_was_given_away_fails(host: Host, dora: User) -> None:
    assert host.t3().code == 0
    dora.give(host.account_dir(dora))
    found = of(f"shelf {dora.name}", host.t3("doctor", "--json"))
    assert found.status == "fail"
    assert f"chown root: {host.account_dir(dora)}" in found.text


def test_what_was_set_aside_and_what_was_left_over_is_named(host: Host, dora: User) -> None:
    assert host.t3().code == 0
    for ending in ("+old", "+leftover", "+leftover.2"):
        (host.store / f"{dora.name}{ending}").mkdir()
    account_dir = [
        f for f in findings(host.t3("doctor", "--json")) if f.name == f"shelf {dora.name}"
    ]
    assert [(f.status, f.text.split()[0]) for f in account_dir] == [
        ("warn", f"{host.store}/{dora.name}+old"),
        ("warn", f"{host.store}/{dora.name}+leftover"),
        ("warn", f"{host.store}/{dora.name}+leftover.2"),
    ]
    shutil.rmtree(host.account_dir(dora))
    found = [f for f in findings(host.t3("doctor", "--json")) if f.name == f"shelf {dora.name}"]
    assert [f.status for f in found] == ["warn", "warn", "warn", "fail"], "and what is lost by that"


def change(host: Host, user: User, **values: object) -> Path:
    """The manifest of the one snapshot, with other values."""
    [snapshot] = host.snapshots(user)
    manifest = snapshot.with_suffix(".json")
    rewrite_manifest(manifest, **values)
    return manifest


def test_an_old_newest_snapshot_fails_one_that_waits_for_accept_warns_and_a_lost_manifest_too(
    host: Host, dora: User
) -> None:
    assert host.t3().code == 0
    change(host, dora, taken_at="2026-01-02T03:04:05Z")
    assert of(f"snapshots {dora.name}", host.t3("doctor", "--json")).status == "fail"
    manifest = change(host, dora, verdict="suspect", reasons=["half of it is gone"])
    answer = host.t3("doctor", "--json")
    assert f"t3-backup-state accept {dora.name}" in of(f"shelf {dora.name}", answer).text
    assert of(f"snapshots {dora.name}", answer).status == "warn"
    manifest.unlink()
    answer = host.t3("doctor", "--json")
    told = [f.text for f in findings(answer) if f.name == f"shelf {dora.name}"]
    assert any("not counted: no valid manifest" in text for text in told)
    assert any("was sealed and can't be found" in text for text in told)


def test_snapshots_of_somebody_who_left_the_map_are_told(
    host: Host, dora: User, make_user: Callable[..., User]
) -> None:
    assert host.t3().code == 0
    host.write_map(make_user("doc-new", TINY))
    assert of(f"snapshots {dora.name}", host.t3("doctor", "--json")).status == "warn"


# --- what we stand on, and an installation by hand


@pytest.mark.parametrize(
    ("module", "name", "status"),
    [("seccomp", "seccomp", "fail"), ("systemd", "python3-systemd", "note")],
)
def test_a_missing_package_is_told_by_what_it_costs(
    module: str, name: str, status: str, host: Host, dora: User
) -> None:
    words = (module, "doctor", "--json")
    line = programs.line("call_without.py", *words, isolated=False)
    done = subprocess.run(
        line, env=host.env(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    found = of(name, Answer(done.returncode, done.stdout, done.stderr))
    assert found.status == status
    assert f"apt install python3-{module}" in found.text


def test_an_installation_by_hand_is_found_where_it_was_put(host: Host, dora: User) -> None:
    """In a mount namespace of its own, with a /usr/local/bin and an /etc/systemd/system of its
    own."""
    script = (
        "mount -t tmpfs none /usr/local/bin; mount -t tmpfs none /usr/local/sbin; "
        "mkdir -p /etc/systemd/system; mount -t tmpfs none /etc/systemd/system; "
        "touch /usr/local/bin/t3-backup-state.sh /usr/local/sbin/t3-backup-state; "
        "touch /etc/systemd/system/t3-backup-state.service; "
        "ln -s /dev/null /etc/systemd/system/t3-backup-state.timer"
    )
    found = of("by hand", in_own_namespace(host, script, "doctor", "--json"))
    assert found.status == "fail"
    files = [
        "/etc/systemd/system/t3-backup-state.service",
        "/usr/local/bin/t3-backup-state.sh",
        "/usr/local/sbin/t3-backup-state",
    ]
    assert f"rm {' '.join(files)}" in found.text
    assert (
        of(
            "by hand",
            in_own_namespace(host, script.partition(" touch")[0] + " true", "doctor", "--json"),
        ).status
        == "ok"
    )


def test_a_systemd_that_does_not_answer_is_told_and_the_rest_is_looked_at(
    host: Host, dora: User
) -> None:
    """A /run of its own, that says systemd has booted the machine; nobody listens there."""
    script = "mount -t tmpfs none /run; mkdir -p /run/systemd/system"
    answer = in_own_namespace(host, script, "doctor", "--json")
    assert of("systemd", answer).status == "warn"
    assert "can't be asked" in of("systemd", answer).text
    assert of(f"account {dora.name}", answer).status == "ok"


# --- somebody who is not root


def as_user(host: Host, user: User, *words: str, **environ: str) -> Answer:
    line, env = host.command(*words), host.env(**environ)
    return Answer.of(line, env, timeout=60, user=user.uid, group=user.gid, extra_groups=[])


def test_somebody_else_sees_their_own_account_and_is_told_what_needs_root(
    host: Host, dora: User, make_user: Callable[..., User]
) -> None:
    host.write_map(dora, make_user("doc-other", TINY))
    assert host.t3().code == 0
    answer = as_user(host, dora, "doctor", "--json")
    found = statuses(answer)
    assert (found["rights"], found["store"], found[f"account {dora.name}"]) == (
        "note",
        "note",
        "ok",
    )
    assert not [name for name, status in found.items() if status in ("fail", "warn")]
    assert "sudo t3-backup-state doctor" in of("store", answer).text
    assert "doc-other" not in answer.out


def test_with_a_store_of_their_own_they_are_told_of_it(host: Host, dora: User) -> None:
    own = {"T3_BACKUP_DEST": str(dora.home / "backups")}
    assert as_user(host, dora, "run", **own).code == 0
    found = statuses(as_user(host, dora, "doctor", "--json", **own))
    assert (found["store"], found[f"snapshots {dora.name}"]) == ("ok", "ok")
