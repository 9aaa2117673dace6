"""The main job from end to end: the command, as a person or the timer calls it, on real users'
databases."""

import json
import sqlite3
import stat

from support.host import Host
from support.users import needs_root

from demo.users import User
from demo.writer import Writer, moment

pytestmark = needs_root


def test_a_bare_call_backs_up_every_account_of_the_map(host: Host, alice: User) -> None:
    answer = host.t3()
    assert answer.code == 0, answer
    [snapshot] = host.snapshots(alice)
    assert f"backed up {alice.name} -> {snapshot} ({snapshot.stat().st_size} bytes, " in answer.out
    assert "online, verified)" in answer.out


def test_a_snapshot_of_a_busy_server_is_one_moment(host: Host, alice: User) -> None:
    with Writer(alice.database, user=alice.name) as writer:
        answer = host.t3("run", "--json")
        stats = writer.stop()
    assert answer.code == 0, answer
    assert stats.total.errors == 0
    [snapshot] = answer.account(alice.name)["snapshots"]
    assert snapshot["restarts"] == 0
    with sqlite3.connect(f"file:{snapshot['path']}?immutable=1", uri=True) as copy:
        assert len(moment(copy)) == 1


def test_the_store_is_roots_alone(host: Host, alice: User) -> None:
    assert host.t3().code == 0
    for path in (host.store, host.account_dir(alice)):
        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (0, 0o700)
    for path in host.account_dir(alice).iterdir():
        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (0, 0o400)


def test_list_and_verify_speak_the_documented_interface(host: Host, alice: User) -> None:
    assert host.t3("run", "--label", "prebump-0.0.25").code == 0
    assert host.t3("run").code == 0
    listing = host.t3("list", "--json")
    [newer, older] = listing.account(alice.name)["snapshots"]
    assert {
        "name",
        "path",
        "taken_at",
        "bytes",
        "sha256",
        "method",
        "verdict",
        "label",
        "t3_level",
    } <= set(newer)
    assert (newer["label"], older["label"]) == (None, "prebump-0.0.25")
    assert newer["method"] == "online"
    assert newer["verdict"] == "verified"
    assert newer["t3_level"] == 30
    proven = host.t3("verify", alice.name, "--json")
    assert proven.code == 0, proven
    assert [entry["verifies"] for entry in proven.account(alice.name)["snapshots"]] == [True, True]
    manifest = json.loads((host.account_dir(alice) / f"{newer['name']}.json").read_text())
    assert [one["sha256"] for one in manifest["databases"]] == [newer["sha256"]]
