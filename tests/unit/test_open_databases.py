"""Which of the databases that T3 has open no snapshot covers, and what is said of them. Row 39,
row 43."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from t3_backup.records import decode_record
from t3_backup.t3.open_databases import (
    MOST,
    MOST_HELD,
    Held,
    OpenDatabases,
    Server,
    Stranger,
    find_databases,
    is_data,
    is_of,
    limited,
)
from t3_backup.t3.open_findings import (
    DoubleServers,
    double_servers,
    explain_double,
    explain_uncovered,
    uncovered_open,
)

BASE = "/home/ann/.t3"
LIVE = f"{BASE}/userdata/statev2.sqlite"


def left(held: Held, inode: int = 0, device: str = "", ignored: tuple[str, ...] = ()) -> bool:
    """Whether it is uncovered, where a snapshot has statev2.sqlite."""
    return uncovered_open([held], BASE, {"statev2.sqlite": inode}, ignored, device) == [held]


def test_sqlite_is_known_by_its_ending_or_by_what_lies_beside_it() -> None:
    names = (
        "/a.sqlite",
        "/b.sqlite3",
        "/c.db",
        "/d",
        "/d-wal",
        "/e-shm",
        "/f-journal",
        "/g",
        "/h.txt",
    )
    assert find_databases(dict.fromkeys(names, False)) == dict.fromkeys(
        ("/a.sqlite", "/b.sqlite3", "/c.db", "/d", "/f"), False
    ) | {"/e": True}, "a -shm is opened after its database, which has gone"


@pytest.mark.parametrize(
    ("gone", "deleted"), [("", True), ("-wal", True), ("-shm", True), ("-journal", False)]
)
def test_one_whose_file_was_deleted_is_known(gone: str, deleted: bool) -> None:
    """A journal is removed by each commit."""
    names = dict.fromkeys((f"{LIVE}{end}" for end in ("-wal", "", "-shm", "-journal")), False)
    assert find_databases(names | {f"{LIVE}{gone}": True}) == {LIVE: deleted}


@pytest.mark.parametrize(
    ("held", "inode", "device", "uncovered"),
    [
        (Held(LIVE, 1), 0, "", False),
        (Held(LIVE, 1, inode=7), 7, "", False),
        (Held(LIVE, 1, inode=7), 8, "", True),
        (Held(LIVE, 1, inode=7), 0, "", False),
        (Held(LIVE, 1, deleted=True, inode=7), 7, "", True),
        (Held("/data/ann/.t3/userdata/statev2.sqlite", 1), 7, "", True),
        (Held("/data/ann/.t3/userdata/statev2.sqlite", 1, inode=7), 7, "", False),
        (Held("/data/ann/.t3/userdata/statev2.sqlite", 1, inode=7), 0, "", True),
        (Held("/data/statev2.sqlite", 1, inode=7, device="8:1"), 7, "8:1", False),
        (Held("/data/statev2.sqlite", 1, inode=7, device="8:2"), 7, "8:1", True),
        (Held("/data/statev3.sqlite", 1, inode=7), 7, "", True),
        (Held(f"{BASE}/userdata/statev3.sqlite", 1), 0, "", True),
        (Held(f"{BASE}/dev/statev2.sqlite", 1), 0, "", True),
    ],
)
def test_what_is_covered_is_the_same_file(
    held: Held, inode: int, device: str, uncovered: bool
) -> None:
    """Its place says so, or its name and inode where it was opened by another path."""
    assert left(held, inode, device) == uncovered


def test_a_name_that_no_terminal_should_see_is_covered_too() -> None:
    name = "evil\n.sqlite"
    held = Held(f"{BASE}/userdata/evil?.sqlite", 1)  # as it was reported
    assert uncovered_open([held], BASE, {name: 0}) == []


@pytest.mark.parametrize(
    ("pattern", "uncovered"),
    [
        ("/srv/x/a.db", False),
        ("/srv/*/a.db", False),
        ("/srv/x/*", False),
        ("/srv/*", True),
        ("/srv/x/A.db", True),
        ("*", True),
        ("/srv/x/[ab].db", False),
    ],
)
def test_a_star_stands_for_no_slash(pattern: str, uncovered: bool) -> None:
    """Else one for a folder would hide all that is beneath it."""
    assert left(Held("/srv/x/a.db", 1), ignored=(pattern,)) == uncovered


def test_locks_leftovers_caches_and_logs_are_no_data() -> None:
    for name in (
        "userdata/server-lock.sqlite",
        "userdata/server-launcher-lock.sqlite",
        "userdata/server-database-access.sqlite",
        "userdata/.v2-import-aB3xYz/snapshot.sqlite",
        "userdata/logs/x.db",
        "caches/a/b.sqlite",
        "runtime/db-backup/1/statev2.sqlite",
        "logs/x.sqlite",
    ):
        assert not is_data(f"{BASE}/{name}", [BASE])
        assert not is_of(f"{BASE}/{name}", BASE)
    for path in (LIVE, f"{BASE}/dev/state.sqlite", "/x/caches/a.db", f"{BASE}/cachesx/a.db"):
        assert is_data(path, [BASE])
    assert is_of(LIVE, BASE)


def test_servers_on_one_base_directory_are_told_once() -> None:
    servers = [Server(pid, "t3", base) for pid, base in ((7, "/a"), (9, "/b"), (8, "/a"))]
    assert double_servers(servers) == [DoubleServers("/a", (7, 8))]
    held = [Held(f"{base}/userdata/state.sqlite", pid) for base, pid in (("/a", 7), ("/a", 8))]
    assert double_servers(servers, held) == [DoubleServers("/a", (7, 8))]
    other = [Held("/a/userdata/state.sqlite", 99)]  # another process of T3's, and no server
    assert double_servers(servers[:1], [*held[:1], *other]) == []


def test_more_than_an_event_carries_is_told_and_what_is_left_can_be_decoded() -> None:
    found = limited(
        OpenDatabases(
            tuple(Server(pid, "t3", "/a") for pid in range(1, 20)),
            tuple(Held(f"/{number}.db", 1) for number in range(MOST_HELD + 1)),
            tuple(Stranger(pid, "x", "/y") for pid in range(1, 20)),
            tuple(map(str, range(40))),
        )
    )
    assert (len(found.servers), len(found.held), len(found.strangers)) == (MOST, MOST_HELD, MOST)
    assert len(found.problems) == MOST
    assert found.problems[1] == f"there are {MOST_HELD + 1} open databases, and 256 are told of"
    assert found.problems[-1] == "and 28 more problems"
    again = decode_record(OpenDatabases, json.loads(json.dumps(asdict(found))))
    assert again == found
    value = asdict(found) | {"servers": [asdict(Server(1, "t3", "/a"))] * (MOST + 1)}
    with pytest.raises(ValueError, match="servers: there are too many"):
        decode_record(OpenDatabases, json.loads(json.dumps(value)))


def test_no_text_of_a_users_reaches_a_terminal_as_it_is() -> None:
    value = {"path": "/\x1b[2J", "pid": 1, "deleted": False, "inode": 0, "device": "\n"}
    assert decode_record(Held, value) == Held("/?[2J", 1, device="?")


def test_the_message_says_what_to_type() -> None:
    more = (BASE, "T3_BACKUP_BASE_DIRS", "T3_BACKUP_IGNORE")
    text = explain_uncovered("ann", [Held("/srv/t/userdata/state.sqlite", 7)], *more)
    assert text == (
        "T3 has /srv/t/userdata/state.sqlite open (pid 7), which is not backed up: it is none of "
        "the databases in /home/ann/.t3 that are; next: set "
        'T3_BACKUP_BASE_DIRS="ann=/srv/t", or '
        'T3_BACKUP_IGNORE="/srv/t/userdata/state.sqlite" to leave it out'
    )
    text = explain_uncovered("ann", [Held(f"{BASE}/userdata/new.db", 7)], *more)
    assert text.endswith(f'; next: set T3_BACKUP_IGNORE="{BASE}/userdata/new.db" to leave it out')
    text = explain_uncovered("ann", [Held(LIVE, 7, deleted=True)], *more)
    assert text.startswith(f"T3 has {LIVE} (deleted) open (pid 7)")
    assert text.endswith("systemctl restart t3-serve@ann")
    many = [Held(f"/x/{number}", 7) for number in range(5)]
    assert "T3 has /x/0, /x/1, /x/2 and 2 more open (pid 7)" in explain_uncovered("a", many, *more)


def test_both_pids_are_told() -> None:
    assert explain_double(DoubleServers("/a", (7, 8))).startswith(
        "two T3 servers use /a (pids 7 and 8): "
    )
