"""Names of snapshots and the manifests beside them: what is written is read again, and nothing else
is taken for one."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.manifests import CENSUS, NOON, make_manifest, manifest_text, with_keys

from t3_backup.store.census import Census
from t3_backup.store.manifest import (
    METHODS,
    VERDICTS,
    DatabaseRecord,
    Manifest,
    Missing,
    sort_databases,
)
from t3_backup.store.names import LABEL, image_stem, parse_name, snapshot_name, snapshot_of_image
from t3_backup.text import format_time

TIMES = st.integers(0, 1 << 32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
LABELS = st.one_of(st.none(), st.from_regex(LABEL, fullmatch=True))
TEXTS = st.text(max_size=20)
WHOLE = st.integers(0, 1 << 62)
MANIFESTS = st.builds(
    make_manifest,
    sequence=WHOLE,
    when=TIMES,
    label=LABELS,
    user=TEXTS,
    bytes=WHOLE,
    method=st.sampled_from(METHODS),
    verdict=st.sampled_from(VERDICTS),
    reasons=st.lists(TEXTS, max_size=3).map(tuple),
    accepted_at=st.none() | TIMES.map(format_time),
    pinned_at=st.none() | TIMES.map(format_time),
    t3_level=st.none() | st.integers(-5, 1000),
    copy_seconds=st.floats(0, 1e6),
    census=st.builds(
        replace,
        st.just(CENSUS),
        ends=st.dictionaries(TEXTS, WHOLE),
        rows=st.none() | st.dictionaries(TEXTS, WHOLE),
        content=st.none() | st.fixed_dictionaries({"projects": WHOLE, "messages": WHOLE}),
        ledger=st.none() | st.lists(st.tuples(WHOLE, st.just("Initial")), max_size=2).map(tuple),
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The process in another time zone."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield request.param
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def opened(manifest: Manifest) -> dict[str, Any]:
    """The keys of a manifest's file, without the checksum."""
    value = json.loads(manifest.to_text())
    del value["checksum"]
    return value


@given(MANIFESTS)
def test_what_is_written_is_read_again(manifest: Manifest) -> None:
    assert Manifest.from_text(manifest.to_text()) == manifest


def test_a_census_tells_its_content_in_one_order_however_it_was_stored() -> None:
    """Whoever reads what is lost finds projects and threads first, in each command."""
    stored = CENSUS.as_json() | {"content": {"events": 1, "messages": 2, "threads": 3}}
    text = manifest_text(with_keys(opened(make_manifest()), census=stored))
    content = Manifest.from_text(text).live.census.content
    assert content is not None
    assert list(content) == ["threads", "messages", "events"]


@given(MANIFESTS, st.dictionaries(st.text(min_size=30), JSON, max_size=3))
def test_keys_of_a_later_version_are_passed_over(manifest: Manifest, more: dict[str, Any]) -> None:
    assert Manifest.from_text(manifest_text(more | opened(manifest))) == manifest


@pytest.mark.parametrize("key", ["companion", "restored_since", "pinned_at", "stays_plain"])
def test_a_manifest_of_before_a_key_came_is_still_one(key: str) -> None:
    value = opened(make_manifest())
    del (value if key in value else value["databases"][0])[key]
    assert Manifest.from_text(manifest_text(value)) == make_manifest()


@given(MANIFESTS.map(lambda one: replace(one.with_live(moment=""), format=2)))
def test_a_manifest_of_format_2_is_of_one_database_and_stays_of_its_format(
    manifest: Manifest,
) -> None:
    value = opened(manifest)
    assert "databases" not in value
    assert value["bytes"] == manifest.live.bytes
    assert Manifest.from_text(manifest.to_text()) == manifest


def test_a_census_of_before_or_after_a_key_came_is_still_one() -> None:
    """A worker's is not: it is of the same version as whoever started it."""
    keys = CENSUS.as_json()
    later = keys | {"more": 1, "content": {"threads": 1, "dreams": 2}}
    del keys["content"], keys["ledger"], keys["logins"]
    for stored, read in ((keys, CENSUS), (later, replace(CENSUS, content={"threads": 1}))):
        value = with_keys(opened(make_manifest()), census=stored)
        assert Manifest.from_text(manifest_text(value)) == make_manifest(census=read)


@given(MANIFESTS.map(lambda one: replace(one.with_live(moment=""), format=2)))
def test_a_manifest_of_format_1_which_has_no_checksum_is_still_one(manifest: Manifest) -> None:
    older = Manifest.from_text(json.dumps(opened(manifest) | {"format": 1}))
    assert replace(older, format=2) == manifest
    assert json.loads(older.to_text())["format"] == 2  # written anew, it gets one


@pytest.mark.parametrize("number", [2, 3])
def test_a_manifest_of_a_later_format_without_a_checksum_is_none(number: int) -> None:
    with pytest.raises(ValueError, match="checksum"):
        Manifest.from_text(json.dumps(opened(make_manifest(format=number))))


def test_a_bit_that_flips_anywhere_in_a_manifest_is_found() -> None:
    """A table, a verdict or a number that was changed by a disk is not believed; white space says
    nothing."""
    data = make_manifest(verdict="suspect", reasons=("few rows",)).to_text().encode()
    value = json.loads(data)
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            with contextlib.suppress(ValueError):
                text = flipped.decode()
                Manifest.from_text(text)
                assert json.loads(text) == value, (place, bit)


@pytest.mark.parametrize(
    "key", [field.name for field in fields(Manifest) if field.default is MISSING]
)
def test_a_manifest_that_lacks_a_key_is_none(key: str) -> None:
    value = opened(make_manifest())
    del value[key]
    with pytest.raises(ValueError, match=r"."):
        Manifest.from_text(manifest_text(value))


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("format", 4),
        ("format", "2"),
        ("verdict", "good"),
        ("verdict", None),
        ("method", "cp"),
        ("sequence", "1"),
        ("sequence", True),
        ("sequence", 1.0),
        ("taken_at", "yesterday"),
        ("taken_at", "2026-11-24T12:00:00"),
        ("taken_at", 5),
        ("reasons", 5),
        ("reasons", "text"),
        ("reasons", [5]),
        ("name", ["x"]),
        ("bytes", "12"),
        ("label", 7),
        ("accepted_at", 0),
        ("pinned_at", True),
        ("sha256", None),
        ("stays_plain", 1),
        ("copy_seconds", "1"),
        ("census", {}),
        ("census", CENSUS.as_json() | {"ends": {"t": "1"}}),
        ("census", CENSUS.as_json() | {"rows": 5}),
        ("census", CENSUS.as_json() | {"t3_level": "30"}),
        ("census", CENSUS.as_json() | {"content": {"threads": "1"}}),
        ("census", CENSUS.as_json() | {"ledger": [[1]]}),
        ("census", CENSUS.as_json() | {"ledger": [["1", "x"]]}),
    ],
)
def test_a_value_that_cannot_be_is_refused(key: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        Manifest.from_text(manifest_text(with_keys(opened(make_manifest()), **{key: bad})))


@pytest.mark.parametrize(
    "databases",
    [
        [],
        [{"live": False}],
        [{}, {}],
        [{}, {"file": "statev2.sqlite"}],
        [{"file": "../state.sqlite"}],
        [{"file": "state.db"}],
        [{"file": "server-lock.sqlite"}],
    ],
)
def test_databases_that_can_not_be_a_snapshot_s_are_refused(databases: list[Any]) -> None:
    """One of them, and no more, is the live one, and each has a name of its own."""
    [record] = opened(make_manifest())["databases"]
    changed = [record | one for one in databases]
    with pytest.raises(ValueError, match=r"."):
        Manifest.from_text(manifest_text(opened(make_manifest()) | {"databases": changed}))


@settings(max_examples=400)
@given(
    st.sampled_from([field.name for kind in (Manifest, DatabaseRecord) for field in fields(kind)]),
    JSON,
)
def test_whatever_stands_in_a_field_is_read_or_is_a_value_error(key: str, value: Any) -> None:
    try:
        keys = with_keys(opened(make_manifest()), **{key: value})
        manifest = Manifest.from_text(manifest_text(keys))
    except ValueError:
        return
    assert manifest.when.tzinfo is not None
    again = Manifest.from_text(manifest.to_text())
    assert again == manifest or "NaN" in manifest.to_text()


@given(st.text() | JSON.map(json.dumps))
def test_no_other_text_is_taken_for_a_manifest(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Manifest.from_text(text)


def test_a_text_nested_without_end_is_no_manifest() -> None:
    with pytest.raises(ValueError, match=r"."):
        Manifest.from_text("[" * 100_000)


def test_a_manifest_cut_short_is_none() -> None:
    text = make_manifest().to_text().rstrip()
    for cut in range(len(text)):
        with pytest.raises(ValueError, match=r"."):
            Manifest.from_text(text[:cut])


def test_a_census_with_a_flag_for_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="another type"):
        Census.from_json(CENSUS.as_json() | {"page_count": True})


def test_only_what_is_bad_and_unaccepted_holds() -> None:
    assert not make_manifest().holds
    for verdict in ("suspect", "damaged"):
        assert make_manifest(verdict=verdict).holds
        assert not make_manifest(verdict=verdict, accepted_at=format_time(NOON)).holds


def test_a_name_is_the_time_in_utc_and_the_label() -> None:
    berlin = timezone(timedelta(hours=1))
    when = datetime(2026, 11, 24, 4, 30, 12, 999_999, tzinfo=berlin)
    assert snapshot_name(when, None, set()) == "state-20261124T033012Z"
    assert snapshot_name(when, "prebump-0.0.25", set()) == "state-20261124T033012Z-prebump-0.0.25"
    assert format_time(when) == "2026-11-24T03:30:12Z"


def test_a_name_that_is_taken_gets_the_next_number() -> None:
    taken: set[str] = set()
    names = []
    for label in (None, None, "x", None, "x"):
        names.append(snapshot_name(NOON, label, taken))
        taken.add(names[-1])
    stem = "state-20261124T120000Z"
    assert names == [stem, f"{stem}.2", f"{stem}-x", f"{stem}.3", f"{stem}.2-x"]


@given(TIMES, LABELS, st.integers(0, 3))
def test_a_name_says_its_time_and_label_again(
    when: datetime, label: str | None, collisions: int
) -> None:
    taken: set[str] = set()
    for _ in range(collisions + 1):
        name = snapshot_name(when, label, taken)
        assert name not in taken
        taken.add(name)
    parsed = parse_name(name)
    assert parsed is not None
    assert (parsed.when, parsed.label, parsed.legacy) == (when, label, False)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "UTC"], indirect=True)
@pytest.mark.parametrize("text", ["20261101-033000", "20260329-033000", "20260701-120000"])
@pytest.mark.parametrize("label", [None, "prebump-0.0.25"])
def test_the_names_of_the_old_script_are_in_local_time(
    zone: str, text: str, label: str | None
) -> None:
    parsed = parse_name(f"state-{label}-{text}" if label else f"state-{text}")
    assert parsed is not None
    assert (parsed.label, parsed.legacy) == (label, True)
    # mktime(3) is what the script's date(1) used.
    assert parsed.when.timestamp() == time.mktime(time.strptime(text, "%Y%m%d-%H%M%S"))
    assert parsed.when.tzinfo == UTC


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"], indirect=True)
@pytest.mark.parametrize(
    "name", ["state-00010101-000000", "state-99991231-235959", "state-x-00010101-000000"]
)
def test_a_year_beyond_the_calendar_is_no_name_and_no_crash(zone: str, name: str) -> None:
    parsed = parse_name(name)
    assert parsed is None or parsed.legacy


@pytest.mark.parametrize(
    "name",
    [
        "",
        "state",
        "state-",
        "state.sqlite",
        "state-20261124T033012Z.sqlite",
        "state-20261124T033012Z.",
        "state-20261124T033012Z.x",
        "state-20261124T033012Z-",
        "state-20261324T033012Z",
        "state-20261124T253012Z",
        "state-20261124T033012",
        "state-20261124-033012x",
        "state-20261324-033012",
        "xstate-20261124T033012Z",
        "state-latest",
        ".partial-0123456789abcdef",
    ],
)
def test_other_names_are_none_of_ours(name: str) -> None:
    assert parse_name(name) is None


@given(st.text() | st.from_regex(r"state-.{0,9}\d{8}[T-]\d{6}Z?.{0,9}"))
def test_no_name_is_too_strange_to_look_at(name: str) -> None:
    parsed = parse_name(name)
    assert parsed is None or parsed.when.tzinfo == UTC


SIBLINGS = ["statev2.sqlite", "statev3.sqlite", "2-day.sqlite", "a b.sqlite", ".sqlite"]
SIBLINGS += ["db-54d9fc6cdd629891.sqlite"]  # whose name is what stands for "a b.sqlite"


def both(live: str, *others: str) -> Manifest:
    """A manifest of several databases."""
    manifest = make_manifest()
    records = [replace(manifest.live, file=file, live=file == live) for file in (live, *others)]
    return replace(manifest, databases=sort_databases(records))


@pytest.mark.parametrize("other", SIBLINGS)
def test_the_first_database_has_the_image_of_the_snapshot_s_own_name(other: str) -> None:
    """An earlier version of this tool takes only that for data, and counts by it."""
    for manifest in (both(other, "state.sqlite"), both("state.sqlite", other)):
        names = {image.file: image.name for image in manifest.images}
        assert names["state.sqlite"] == manifest.name
        assert names[other].startswith(f"{manifest.name}.")
        assert snapshot_of_image(names[other]) == manifest.name
        assert parse_name(names[other]) is None
        assert Manifest.from_text(manifest.to_text()) == manifest


def test_where_the_first_database_is_not_the_live_one_has_that_name() -> None:
    manifest = both("statev2.sqlite", "statev3.sqlite")
    assert manifest.live_image.name == manifest.name
    assert {image.name for image in manifest.images} == {manifest.name, f"{manifest.name}.statev3"}


def test_names_of_images_of_different_databases_differ() -> None:
    names = [image_stem("state-20261124T120000Z", file) for file in SIBLINGS]
    assert len(set(names)) == len(names)
    assert not any("/" in name or " " in name for name in names)


def test_a_new_name_is_none_of_an_image_that_is_there() -> None:
    """A label may look like the name of a database."""
    label = "a.statev2"
    taken = {snapshot_name(NOON, label, set())}
    assert snapshot_name(NOON, "a", taken) == f"state-{NOON:%Y%m%dT%H%M%SZ}-a"
    assert snapshot_name(NOON, "a", taken, ("statev2.sqlite",)).endswith(".2-a")


def test_a_snapshot_that_lacks_a_database_is_not_good() -> None:
    manifest = replace(make_manifest(), missing=(Missing("junk.sqlite", "it is no database"),))
    assert manifest.verdict == "verified"
    assert not manifest.is_good
    assert not manifest.holds
    assert Manifest.from_text(manifest.to_text()) == manifest
