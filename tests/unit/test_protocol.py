"""What the parent believes of a worker's lines: the worker may be hostile, so a line is one of
ours, or noise, or the end."""

import dataclasses
import importlib
import json
import types
import typing
from dataclasses import asdict, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3_backup.errors import (
    WORKER_ERRORS,
    Failure,
    InUse,
    SourceError,
    SourceRefused,
    TryLater,
    WorkerLost,
)
from t3_backup.store.census import Census
from t3_backup.store.replacement import Replacement
from t3_backup.system.file_identity import FileIdentity, ProcFile
from t3_backup.system.sqlite import SIDECARS
from t3_backup.t3 import content
from t3_backup.t3.databases import DatabaseState
from t3_backup.t3.open_databases import Held, OpenDatabases, Server, Stranger
from t3_backup.text import printable
from t3_backup.worker import operations, protocol
from t3_backup.worker.child import task as child_task
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations import Job, Operation
from t3_backup.worker.operations.activity import Activity
from t3_backup.worker.operations.archive import (
    Inspected,
    InstallArchive,
    Installed,
    Remains,
    RemoveReplaced,
)
from t3_backup.worker.operations.backup import (
    Copied,
    CopiedAll,
    CopiedDatabase,
    CopyDatabase,
    Packed,
)
from t3_backup.worker.operations.legacy import Listed, RemoveLegacy
from t3_backup.worker.operations.proof import ProofOf, Proven, ProvenAll
from t3_backup.worker.operations.restore import (
    Checkpointed,
    CheckpointedAll,
    CloneDatabase,
    Counted,
    RecoverSwap,
    Staged,
    Swapped,
)
from t3_backup.worker.protocol import Event, HomeState, Phase, Progress
from t3_backup.worker.sources import Source, SourceDatabase

COUNTS = st.integers(0, (1 << 62) - 1)
SECONDS = st.floats(0, 1e9)
WHOLE = st.integers(-(1 << 31), (1 << 63) - 1)
PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80)
TABLES = st.dictionaries(PLAIN, st.integers(-1, (1 << 63) - 1), max_size=4)

LEDGERS = st.lists(st.tuples(WHOLE, PLAIN), max_size=3).map(tuple)
CENSUSES = st.builds(
    Census,
    page_size=WHOLE,
    page_count=WHOLE,
    user_version=WHOLE,
    application_id=WHOLE,
    schema_sha256=PLAIN,
    t3_level=st.none() | WHOLE,
    ends=TABLES,
    rows=st.none() | TABLES,
    content=st.none() | st.dictionaries(st.sampled_from(["threads", "messages"]), WHOLE),
    ledger=st.none() | LEDGERS,
)
COPIES = st.builds(
    Copied,
    method=st.sampled_from(["online", "vacuum"]),
    source_bytes=COUNTS,
    wal_growth_bytes=COUNTS,
    restarts=COUNTS,
    seconds=SECONDS,
    pinned=st.none() | CENSUSES,
    before=st.none() | CENSUSES,
    after=st.none() | CENSUSES,
)
PROOFS = st.builds(
    Proven,
    problems=st.lists(PLAIN, max_size=4).map(tuple),
    census=CENSUSES,
    seconds=SECONDS,
    sqlite_version=PLAIN,
    unjudged=PLAIN,
    orphans=PLAIN,
)
U64 = st.integers(0, (1 << 64) - 1)
IDENTITIES = st.builds(FileIdentity, U64, U64, U64, U64, U64, U64, U64)
NAMES = st.lists(PLAIN, max_size=4).map(tuple)
OTHERS = st.lists(
    st.sampled_from(["statev2.sqlite", "statev3.sqlite", "x y.sqlite"]), max_size=16
).map(tuple)
BESIDE = st.lists(st.sampled_from(SIDECARS), max_size=3).map(tuple)
FILES = st.sampled_from(["state.sqlite", "statev2.sqlite", "statev3.sqlite", "x y.sqlite"])
CHECKPOINTED = st.builds(
    CheckpointedAll,
    st.lists(
        st.builds(
            Checkpointed,
            FILES,
            st.none() | IDENTITIES,
            st.booleans(),
            PLAIN,
            st.none() | CENSUSES,
            BESIDE,
            COUNTS,
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda one: one.file,
    ).map(tuple),
    OTHERS,
)
PROC_FILES = st.none() | st.builds(ProcFile, U64, PLAIN)
STAGED = st.builds(Staged, st.none() | IDENTITIES, st.none() | IDENTITIES, CENSUSES, PROC_FILES)
DATABASE_NAMES = st.sampled_from(["state.sqlite", "statev2.sqlite", "x y.sqlite", ".sqlite"])
FOUND = st.builds(SourceDatabase, DATABASE_NAMES, COUNTS, COUNTS, PLAIN, COUNTS)
STATES = st.builds(
    DatabaseState, DATABASE_NAMES, COUNTS, st.booleans(), st.none() | WHOLE, st.none() | LEDGERS
)
PIDS = st.integers(1, 4_000_000)
OPENED = st.builds(
    OpenDatabases,
    st.lists(st.builds(Server, PIDS, PLAIN, PLAIN), max_size=3).map(tuple),
    st.lists(st.builds(Held, PLAIN, PIDS, st.booleans(), U64, PLAIN), max_size=3).map(tuple),
    st.lists(st.builds(Stranger, PIDS, PLAIN, PLAIN), max_size=3).map(tuple),
    NAMES,
)
PACKED = st.builds(Packed, COUNTS, COUNTS, PLAIN, st.booleans(), NAMES, NAMES)
EVENTS = st.one_of(
    st.builds(
        Source,
        COUNTS,
        COUNTS,
        st.lists(FOUND, max_size=16, unique_by=lambda one: one.file).map(tuple),
        OTHERS,
        base_dir=PLAIN,
        device=PLAIN,
        opened=st.none() | OPENED,
    ),
    st.builds(Phase, st.sampled_from(protocol.PHASES), COUNTS),
    st.builds(Progress, COUNTS, COUNTS),
    st.builds(HomeState, COUNTS, COUNTS, COUNTS),
    COPIES,
    PROOFS,
    st.builds(Listed, NAMES),
    st.builds(Counted, CENSUSES),
    st.builds(
        Activity,
        st.none() | WHOLE,
        COUNTS,
        DATABASE_NAMES,
        st.lists(STATES, max_size=16, unique_by=lambda one: one.file).map(tuple),
        COUNTS,
    ),
    STAGED,
    CHECKPOINTED,
    st.builds(Swapped, st.sampled_from(["old", "new", "other"]), OTHERS, OTHERS),
    PACKED,
    st.builds(
        CopiedAll,
        st.lists(st.builds(CopiedDatabase, DATABASE_NAMES, st.none() | COPIES, PLAIN)).map(tuple),
        DATABASE_NAMES,
        SECONDS,
        st.none() | PACKED,
    ),
    st.builds(ProvenAll, st.lists(st.builds(ProofOf, st.none() | PROOFS, PLAIN)).map(tuple)),
    st.builds(Inspected, COUNTS, COUNTS),
    st.builds(Installed, NAMES),
    st.builds(Remains, NAMES, NAMES),
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)
ODD = JSON | st.sampled_from(
    [10**4000, -(10**4000), 1 << 62, -1, 1e400, "\x1b]0;owned\x07", "[/red]", "\ud800", True]
)

FILE = FileIdentity(1, 2, 3, 4, 5, 0o644, 6)
GOOD = Proven(("a",), Census(4096, 1, 0, 0, "0", 30, {"t": 1}, {"t": 1}), 0.25, "3.40.1")


def of_before(census: Census) -> dict[str, Any]:
    """What an earlier version knows of a database: a manifest may lack the rest, a worker not."""
    keys = census.as_json()
    del keys["content"]
    return keys


WRITTEN = json.loads(protocol.encode_event(Staged(None, FILE, GOOD.census)))


def texts(value: Any) -> list[str]:
    """Every text that people may get to see of what was decoded."""
    if isinstance(value, Failure | str):
        return [str(value)]
    if isinstance(value, tuple):
        return [text for item in value for text in texts(item)]
    if not is_dataclass(value) or isinstance(value, Census):
        return []
    # the name of a database is that of a file, and made printable where it is told
    told = [item for key, item in vars(value).items() if key not in ("file", "live")]
    return texts(tuple(told))


def believe(line: bytes) -> Event | Failure | None:
    """What decode makes of a line: one of the four answers that it may give, and nothing else."""
    try:
        answer = protocol.decode_event(line)
    except WorkerLost as lost:
        answer = lost
    assert answer is None or isinstance(answer, Event | Failure)
    if answer is not None:
        assert all(text.isprintable() for text in texts(answer)), answer
        assert all(len(text) < 1000 for text in texts(answer)), answer
    return answer


def lines_of(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode()


@given(st.binary(max_size=400))
def test_any_bytes_are_noise_or_an_event_or_the_end(line: bytes) -> None:
    believe(line)


@given(JSON)
def test_any_json_is_noise_or_an_event_or_the_end(value: Any) -> None:
    answer = believe(json.dumps(value).encode())
    assert (answer is None) == (not isinstance(value, dict))


@given(EVENTS, st.data())
def test_an_event_with_an_odd_field_is_an_event_or_the_end(
    event: Event, data: st.DataObject
) -> None:
    """Row 36."""
    value = json.loads(protocol.encode_event(event))
    name = data.draw(st.sampled_from(sorted(value)))
    value[name] = data.draw(ODD)
    believe(lines_of(value))


@given(PROOFS, st.data())
def test_an_odd_census_is_an_event_or_the_end(proof: Proven, data: st.DataObject) -> None:
    """Row 36. What is let in can be multiplied and printed, as the parent does."""
    value = json.loads(protocol.encode_event(proof))
    name = data.draw(st.sampled_from(sorted(value["census"])))
    value["census"][name] = data.draw(ODD | st.dictionaries(st.text(), ODD, max_size=2))
    answer = believe(lines_of(value))
    if isinstance(answer, Proven):
        str(answer.census.page_count * answer.census.page_size)
        float(answer.census.total_rows)
        assert answer.census.content is None or answer.census.content.keys() <= set(content.WORDS)
        assert all(name.isprintable() for _, name in answer.census.ledger or ())


@given(st.one_of(CHECKPOINTED, STAGED), IDENTITIES, st.data())
def test_an_odd_identity_is_an_event_or_the_end(
    event: CheckpointedAll | Staged, file: FileIdentity, data: st.DataObject
) -> None:
    """Row 36. What is let in names a file: whole numbers that stat(2) could say, and no other
    field."""
    value = json.loads(protocol.encode_event(event))
    about = asdict(file)
    if isinstance(event, CheckpointedAll):
        value["databases"][0]["old"] = about
    else:
        value["live"] = about
    name = data.draw(st.sampled_from([*sorted(about), "more"]))
    about[name] = data.draw(ODD)
    answer = believe(lines_of(value))
    if isinstance(answer, CheckpointedAll | Staged):
        found = answer.live if isinstance(answer, Staged) else answer.databases[0].old
        assert found is not None
        assert all(
            type(number) is int and 0 <= number < 1 << 64 for number in asdict(found).values()
        )
        assert name != "more"


@given(EVENTS)
def test_what_is_encoded_is_decoded_as_the_same(event: Event) -> None:
    line = protocol.encode_event(event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert protocol.decode_event(line) == event


@given(st.sampled_from(sorted(WORKER_ERRORS)), PLAIN)
def test_a_failure_arrives_as_the_same_error(name: str, reason: str) -> None:
    arrived = protocol.decode_event(protocol.encode_event(WORKER_ERRORS[name](reason)))
    assert type(arrived) is WORKER_ERRORS[name]
    assert str(arrived) == reason


@given(st.text(max_size=2000))
def test_no_control_character_survives_in_a_reason(reason: str) -> None:
    arrived = believe(lines_of({"event": "failed", "error": "TryLater", "reason": reason}))
    assert isinstance(arrived, TryLater)
    assert len(str(arrived)) <= 500


@given(st.lists(st.text(max_size=600), max_size=150), st.text(max_size=600))
def test_no_control_character_survives_in_a_proof(problems: list[str], version: str) -> None:
    value = json.loads(protocol.encode_event(GOOD)) | {
        "problems": problems,
        "sqlite_version": version,
    }
    arrived = believe(lines_of(value))
    assert isinstance(arrived, Proven)
    assert len(arrived.problems) <= 100


@pytest.mark.parametrize(
    "name", ["WorkerLost", "UsageError", "LockHeld", "SystemExit", "", None, 3, ["TryLater"]]
)
def test_a_worker_chooses_no_error_but_its_own(name: Any) -> None:
    """Row 36. Exit codes 2 and 75 are not a worker's to give."""
    assert (
        type(protocol.decode_event(lines_of({"event": "failed", "error": name, "reason": "so"})))
        is Failure
    )


@pytest.mark.parametrize("without", sorted(asdict(GOOD)))
def test_an_event_without_a_field_is_the_end(without: str) -> None:
    value = json.loads(protocol.encode_event(GOOD))
    del value[without]
    with pytest.raises(WorkerLost):
        protocol.decode_event(lines_of(value))


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"event": "nothing"},
        {"event": "failed"},
        {"event": "failed", "reason": 3},
        {"event": ["source"], "bytes": 1, "wal_bytes": 1, "others": [], "unlisted": []},
        {"event": "source", "bytes": 1, "wal_bytes": 1, "others": [], "unlisted": [], "more": 1},
        {"event": "source", "bytes": True, "wal_bytes": 1, "others": [], "unlisted": []},
        {"event": "source", "bytes": 1.0, "wal_bytes": 1, "others": [], "unlisted": []},
        {"event": "source", "bytes": -1, "wal_bytes": 1, "others": [], "unlisted": []},
        {"event": "source", "bytes": 1 << 62, "wal_bytes": 1, "others": [], "unlisted": []},
        {"event": "source", "bytes": 10**4000, "wal_bytes": 1, "others": [], "unlisted": []},
        {"event": "phase", "phase": "[/no markup of a terminal's]", "total": 1},
        {"event": "phase", "phase": 1, "total": 1},
        {"event": "swapped", "state": "mine", "held": False},
        {"event": "swapped", "state": None, "held": False},
        {"event": "swapped", "state": "new", "held": 0},
        WRITTEN | {"live": []},
        WRITTEN | {"census": None},
        WRITTEN | {"staged": asdict(FILE) | {"inode": -1}},
        WRITTEN | {"live": asdict(FILE) | {"inode": -1}},
        WRITTEN | {"live": asdict(FILE) | {"inode": 1 << 64}},
        WRITTEN | {"live": asdict(FILE) | {"inode": 1.0}},
        WRITTEN | {"live": asdict(FILE) | {"inode": True}},
        WRITTEN | {"live": asdict(FILE) | {"path": "/etc/shadow"}},
        WRITTEN | {"live": {"inode": 1}},
        {
            "event": "checkpointed",
            "old": None,
            "whole": 1,
            "reason": "",
            "census": None,
            "beside": [],
        },
        {
            "event": "checkpointed",
            "old": None,
            "whole": "true",
            "reason": "",
            "census": None,
            "beside": [],
        },
        {
            "event": "checkpointed",
            "old": None,
            "whole": True,
            "reason": None,
            "census": None,
            "beside": [],
        },
        {
            "event": "checkpointed",
            "old": asdict(FILE),
            "whole": True,
            "reason": "",
            "census": {"rows": 1},
            "beside": [],
        },
        {"event": "counted", "census": {}},
        {
            "event": "packed",
            "entries": 1,
            "content_bytes": 1,
            "fingerprint": "",
            "unchanged": 0,
            "passed": [],
            "sealed": [],
        },
        {
            "event": "packed",
            "entries": 1,
            "content_bytes": -1,
            "fingerprint": "",
            "unchanged": False,
            "passed": [],
            "sealed": [],
        },
        {
            "event": "packed",
            "entries": 1,
            "content_bytes": 1,
            "fingerprint": "",
            "unchanged": False,
            "passed": [],
            "sealed": {},
        },
        {"event": "installed", "left": "all", "reasons": [], "missing": []},
        {"event": "installed", "left": [1], "reasons": [], "missing": []},
        json.loads(protocol.encode_event(GOOD)) | {"method": "sharded"},
        json.loads(protocol.encode_event(GOOD)) | {"copy_seconds": float("nan")},
        json.loads(protocol.encode_event(GOOD)) | {"copy_seconds": float("inf")},
        json.loads(protocol.encode_event(GOOD)) | {"problems": "one"},
        json.loads(protocol.encode_event(GOOD)) | {"problems": [1]},
        json.loads(
            protocol.encode_event(replace(GOOD, census=replace(GOOD.census, page_count=10**4000)))
        ),
        json.loads(
            protocol.encode_event(replace(GOOD, census=replace(GOOD.census, ends={"t": 10**4000})))
        ),
        {"event": "counted", "census": GOOD.census.as_json() | {"ledger": [[1, "a", "b"]]}},
        {"event": "counted", "census": GOOD.census.as_json() | {"ledger": [["1", "a"]]}},
        {"event": "counted", "census": GOOD.census.as_json() | {"ledger": [[1, "a"]] * 1001}},
        {"event": "counted", "census": GOOD.census.as_json() | {"content": {"threads": "1"}}},
        {"event": "counted", "census": GOOD.census.as_json() | {"more": 1}},
        {"event": "counted", "census": of_before(GOOD.census)},
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_object_that_is_no_event_is_the_end(value: dict[str, Any]) -> None:
    """Row 36."""
    with pytest.raises(WorkerLost):
        protocol.decode_event(lines_of(value))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"Traceback (most recent call last):",
        b"[" * 100_000,
        b"9" * 100_000,
        b"3",
        b"null",
        b"\xff\xfe{",
    ],
)
def test_what_a_dying_python_prints_is_noise(line: bytes) -> None:
    assert protocol.decode_event(line) is None


UIDS = st.integers(0, 1 << 31)
JOBS = st.builds(
    Job,
    home=st.text(max_size=40),
    uid=UIDS,
    gid=UIDS,
    groups=st.lists(UIDS).map(tuple),
    become=st.booleans(),
    parent=UIDS,
    seconds=SECONDS,
    wal_budget=COUNTS,
    file=st.integers(-1, 1 << 31),
    folder=st.integers(-1, 1 << 31),
    files=st.lists(UIDS).map(tuple),
)
REQUESTS: st.SearchStrategy[Operation[Any]] = st.one_of(
    st.builds(CopyDatabase, st.sampled_from(["online", "vacuum"]), st.booleans()),
    st.builds(RemoveLegacy, st.text(max_size=80), SECONDS),
    st.builds(InstallArchive, st.text()),
    st.builds(
        RemoveReplaced, st.text(), st.booleans(), st.dictionaries(st.text(), st.text(), max_size=3)
    ),
    st.builds(
        RecoverSwap,
        st.text(),
        st.lists(
            st.builds(
                Replacement,
                FILES,
                st.none() | IDENTITIES,
                st.none() | IDENTITIES,
                BESIDE,
                st.booleans(),
            ),
            max_size=3,
        ).map(tuple),
        st.booleans(),
    ),
    st.builds(CloneDatabase, FILES, IDENTITIES, CENSUSES),
)


@given(JOBS, REQUESTS)
def test_a_request_arrives_as_it_was_made(job: Job, request: Operation[Any]) -> None:
    line, name = operations.encode_request(job, request), operations.name_of(request)
    assert operations.decode_request(name, line) == (job, request)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "copy",
        "prove",
        "CopyDatabase",
        "copy_database ",
        "os.system",
    ],
)
def test_an_operation_that_is_not_in_the_table_is_refused(name: str) -> None:
    line = operations.encode_request(Job("/home/alice", 1, 1, (), True, 2, 1.0, 0), CopyDatabase())
    with pytest.raises(ValueError):
        operations.decode_request(name, line)


@pytest.mark.parametrize("part", ["job", "request"])
def test_a_request_that_lacks_a_part_is_none(part: str) -> None:
    value = json.loads(
        operations.encode_request(Job("/home/alice", 1, 1, (), True, 2, 1.0, 0), CopyDatabase())
    )
    for broken in (
        value[part],
        {key: one for key, one in value.items() if key != part},
        value | {"more": 1},
    ):
        with pytest.raises(ValueError):
            operations.decode_request("copy_database", json.dumps(broken).encode())


@pytest.mark.parametrize("name", operations.OPERATIONS)
def test_each_operation_has_a_request_an_answer_that_travels_and_a_child_that_serves_it(
    name: str,
) -> None:
    kind, entry = operations.request_type(name), operations.OPERATIONS[name]
    answer = kind.answer_type()
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert protocol.EVENTS[answer.__name__] == answer.__module__
    serve = getattr(
        importlib.import_module(f"t3_backup.worker.child.{entry.child}"), f"serve_{name}"
    )
    told = typing.get_type_hints(serve)
    assert told["return"] is (types.NoneType if answer is Source else answer)
    assert told.get("operation", told.get("_operation")) in (kind, object)


def test_who_has_the_database_open_is_the_one_error_with_an_exit_code_of_its_own() -> None:
    arrived = protocol.decode_event(protocol.encode_event(InUse("open in another process")))
    assert type(arrived) is InUse
    assert arrived.exit_code == 4


def checkpointed(**changes: Any) -> dict[str, Any]:
    """What says that one database could not be checkpointed."""
    one = {
        "file": "state.sqlite",
        "old": asdict(FILE),
        "whole": False,
        "reason": "",
        "census": None,
        "beside": ["-wal"],
        "changed_ns": 1,
        "held": False,
        "opened": None,
    }
    return {"event": "checkpointedall", "databases": [one | changes], "others": []}


@given(st.text(max_size=600))
def test_no_control_character_survives_in_why_it_could_not_be_checkpointed(reason: str) -> None:
    arrived = believe(lines_of(checkpointed(reason=reason)))
    assert isinstance(arrived, CheckpointedAll)
    assert len(arrived.databases[0].reason) <= 500
    assert printable(arrived.databases[0].reason) == arrived.databases[0].reason


@pytest.mark.parametrize("ending", ["", "-wal2", "/../../other/state.sqlite", ".sqlite"])
def test_what_is_beside_a_database_can_be_nothing_else(ending: str) -> None:
    assert isinstance(believe(lines_of(checkpointed(beside=[ending]))), WorkerLost)


@pytest.mark.parametrize("file", ["", "state", "../state.sqlite", "server-lock.sqlite", 1])
def test_what_was_checkpointed_has_the_name_of_a_database(file: object) -> None:
    assert isinstance(believe(lines_of(checkpointed(file=file))), WorkerLost)


def test_no_database_was_checkpointed_twice_and_none_beyond_number() -> None:
    [one] = checkpointed()["databases"]
    for files in (["state.sqlite"] * 2, [f"{number}.sqlite" for number in range(100)]):
        value = checkpointed() | {"databases": [one | {"file": file} for file in files]}
        assert isinstance(believe(lines_of(value)), WorkerLost)


def test_a_refusal_is_told_apart_from_a_failure() -> None:
    assert (
        type(protocol.decode_event(protocol.encode_event(SourceRefused("a symlink"))))
        is SourceRefused
    )


def test_what_is_too_long_to_be_told_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 51. Else the worker is lost, and nobody knows why."""
    task = Task(Job("/home/alice", 1, 1, (), True, 2, 1.0, 0))
    monkeypatch.setattr(child_task, "MAX_LINE", 10)
    with pytest.raises(SourceError, match="the names of the tables are too many or too long"):
        task.report(Progress(1, 1))
