"""The runbook is followed to the letter: what it prints for a person to type is run here, for a
real user."""

import re
import sqlite3
import subprocess

from support.host import Host
from support.paths import ROOT
from support.users import needs_root

from demo.users import User
from demo.writer import Writer

pytestmark = needs_root


def commands(host: Host, user: User, snapshot: str) -> list[str]:
    """The indented commands of the runbook that don't speak to systemd, for this user and this
    store."""
    text = (ROOT / "docs" / "restore-by-hand.md").read_text()
    blocks = re.findall(r"(?:^ {7}.+\n)+", text, re.MULTILINE)
    lines = [
        re.sub(r"^ {7}", "", block, flags=re.MULTILINE)
        for block in blocks
        if "/home/alice" in block
    ]
    lines = [line.replace("systemctl start t3-serve@alice", "") for line in lines]
    replaced = {
        "/home/alice": str(user.home),
        "/var/backups/t3-state/alice": str(host.account_dir(user)),
        "-u alice": f"-u {user.name}",
        "state-20261124T033012Z": snapshot,
        "beside-5f0c6e1a.tar.zst": next(
            path.name for path in host.account_dir(user).glob("beside-*")
        ),
    }
    for old, new in replaced.items():
        lines = [line.replace(old, new) for line in lines]
    return [line for line in lines if not line.startswith("fuser")]


def test_a_restore_by_hand_brings_the_snapshot_back_and_nothing_else(
    host: Host, alice: User
) -> None:
    """Row 8: the killed server's -wal holds newer rows, and must not join the restored database."""
    settings = alice.database.with_name("settings.json")
    settings.write_text("{}")
    alice.give(settings)
    assert host.t3().code == 0
    settings.unlink()
    [snapshot] = host.snapshots(alice)
    with Writer(alice.database, user=alice.name) as writer:
        writer.kill()
        assert alice.database.with_name("state.sqlite-wal").stat().st_size > 0
    steps = commands(host, alice, snapshot.stem)
    assert len(steps) == 4
    printed = []
    for step in steps:
        done = subprocess.run(["sh", "-euc", step], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (step, done.stderr)
        printed.append(done.stdout.splitlines())
    assert printed[2] == ["ok", "30"]
    assert settings.read_text() == "{}"
    assert alice.database.read_bytes() == snapshot.read_bytes()
    assert alice.database.stat().st_uid == alice.uid
    query = "SELECT count(*) FROM orchestration_events"
    with sqlite3.connect(f"file:{snapshot}?immutable=1", uri=True) as sealed:
        expected = sealed.execute(query).fetchone()
    # As alice, by what the server would do: open it for writing.
    found = subprocess.run(
        ["sqlite3", str(alice.database), "PRAGMA journal_mode=wal; SELECT count(*) FROM orchestration_events;"],
        user=alice.name, group=alice.name, extra_groups=[], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.splitlines() == ["wal", str(expected[0])]
