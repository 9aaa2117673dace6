"""What strict JSON lets in: exactly what the annotations of a dataclass say, or an error that names
the key."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3_backup.records import GROWING, MORE, decode_record, one_of, parse_object


@dataclass(frozen=True)
class Inner:
    number: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Open(Inner):
    JSON_KEYS = MORE

    later: int = 1


@dataclass(frozen=True)
class Growing(Inner):
    JSON_KEYS = GROWING

    later: int = 1


@dataclass(frozen=True)
class Record:
    whole: int
    small: Annotated[int, range(10)]
    large: Annotated[int, range(1 << 64)]
    real: float
    flag: bool
    text: str
    choice: Annotated[str, one_of(("a", "b"))]
    short: Annotated[str, lambda text: text[:3]]
    maybe: int | None
    inner: Inner
    inners: tuple[Inner, ...]
    marks: dict[str, int]
    pair: tuple[int, str]
    older: Annotated[Growing, MORE]
    other: Inner | None = None
    later: dict[str, str] = field(default_factory=dict)


INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
INNERS = st.builds(Inner, INT64, st.lists(st.text(), max_size=3).map(tuple))
RECORDS = st.builds(
    Record,
    whole=INT64,
    small=st.integers(0, 9),
    large=st.integers(0, (1 << 64) - 1),
    real=st.floats(-1e18, 1e18),
    flag=st.booleans(),
    text=st.text(),
    choice=st.sampled_from(["a", "b"]),
    short=st.text(max_size=3),
    maybe=st.none() | INT64,
    inner=INNERS,
    inners=st.lists(INNERS, max_size=3).map(tuple),
    marks=st.dictionaries(st.text(), INT64, max_size=3),
    pair=st.tuples(INT64, st.text()),
    older=st.builds(Growing, INT64, st.just(()), INT64),
    other=st.none() | INNERS,
    later=st.dictionaries(st.text(), st.text(), max_size=3),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
GOOD = Record(
    1,
    2,
    3,
    0.5,
    True,
    "t",
    "a",
    "abc",
    None,
    Inner(1, ("x",)),
    (Inner(2, ()),),
    {"m": 1},
    (1, "p"),
    Growing(1, ()),
    None,
    {},
)


def value_of(record: Any) -> dict[str, Any]:
    """The record as JSON has it: lists for tuples."""
    value: dict[str, Any] = json.loads(json.dumps(asdict(record)))
    return value


def fits(hint: str, value: Any) -> bool:
    """Whether a value may stand where a field is declared so: said once more, in another way."""
    kind = type(value)
    match hint:
        case "whole":
            return kind is int and abs(2 * value + 1) < 1 << 64
        case "small":
            return kind is int and value in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
        case "large":
            return kind is int and value >= 0 and value.bit_length() <= 64
        case "real":
            return (
                kind in (int, float)
                and (kind is int or math.isfinite(value))
                and -(2.0**63) <= value < 2.0**63
            )
        case "flag":
            return value is True or value is False
        case "text" | "short":
            return kind is str
        case "choice":
            return value in ("a", "b") if kind is str else False
        case "maybe":
            return value is None or fits("whole", value)
        case "inner":
            return (
                kind is dict
                and set(value) == {"number", "names"}
                and fits("whole", value["number"])
                and fits("names", value["names"])
            )
        case "names":
            return kind is list and all(type(one) is str for one in value)
        case "inners":
            return kind is list and all(fits("inner", one) for one in value)
        case "marks":
            return kind is dict and all(fits("whole", one) for one in value.values())
        case "pair":
            return (
                kind is list
                and [type(one) for one in value] == [int, str]
                and fits("whole", value[0])
            )
        case "older":
            return (
                kind is dict
                and {"number", "names", "later"} <= set(value)
                and fits("whole", value["number"])
                and fits("names", value["names"])
                and fits("whole", value["later"])
            )
        case "other":
            return value is None or fits("inner", value)
        case _:
            return kind is dict and all(type(one) is str for one in value.values())


@given(RECORDS)
def test_what_is_written_is_read_as_the_same(record: Record) -> None:
    assert decode_record(Record, parse_object(json.dumps(asdict(record)))) == record


@given(
    RECORDS,
    st.sampled_from(sorted(Record.__dataclass_fields__)),
    JSON | st.sampled_from([10**4000, -(10**4000), 1 << 63, 1 << 64]),
)
def test_any_other_value_of_a_key_is_let_in_exactly_if_its_annotation_says_so(
    record: Record, key: str, odd: Any
) -> None:
    value = value_of(record) | {key: odd}
    if fits(key, odd):
        found = getattr(decode_record(Record, value), key)
        assert found == (odd[:3] if key == "short" else found)
    else:
        with pytest.raises(ValueError, match=f"^{key}: ") as caught:
            decode_record(Record, value)
        assert len(str(caught.value)) < 1000
        assert str(caught.value).isprintable()


@given(JSON)
def test_whatever_it_is_it_is_a_record_or_a_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_record(Record, value)


class Case(NamedTuple):
    key: str
    value: Any


@pytest.mark.parametrize(
    "case",
    [
        Case("whole", True),
        Case("whole", 1.0),
        Case("whole", "1"),
        Case("whole", None),
        Case("whole", 1 << 63),
        Case("small", 10),
        Case("small", -1),
        Case("large", 1 << 64),
        Case("real", True),
        Case("real", "0.5"),
        Case("real", float("nan")),
        Case("real", float("inf")),
        Case("real", 10**400),
        Case("flag", 1),
        Case("flag", "true"),
        Case("text", 1),
        Case("text", None),
        Case("choice", "c"),
        Case("choice", ["a"]),
        Case("maybe", True),
        Case("inner", None),
        Case("inner", {"number": 1}),
        Case("inner", {"number": 1, "names": [], "more": 1}),
        Case("inner", {"number": 1, "names": "x"}),
        Case("inner", {"number": 1, "names": [1]}),
        Case("inners", {}),
        Case("marks", []),
        Case("marks", {"m": True}),
    ],
    ids=str,
)
def test_nothing_is_converted(case: Case) -> None:
    with pytest.raises(ValueError, match=f"^{case.key}: "):
        decode_record(Record, value_of(GOOD) | {case.key: case.value})


def test_an_error_within_names_the_way_to_it() -> None:
    with pytest.raises(ValueError, match=r"^inner: number: it is of another type$"):
        decode_record(Record, value_of(GOOD) | {"inner": {"number": True, "names": []}})


@pytest.mark.parametrize("key", Record.__dataclass_fields__)
def test_an_exact_record_lacks_no_key_not_even_one_with_a_default(key: str) -> None:
    value = value_of(GOOD)
    del value[key]
    with pytest.raises(ValueError, match=f"^there is no {key}$"):
        decode_record(Record, value)


def test_an_exact_record_has_no_other_key_and_what_is_said_of_it_is_printable() -> None:
    with pytest.raises(ValueError, match="is no key of it") as caught:
        decode_record(Record, value_of(GOOD) | {"\x1b[2J\ud800" * 1000: 1})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_a_format_that_grows_passes_over_what_came_later_and_gives_older_records_the_default() -> (
    None
):
    old = {"number": 1, "names": []}
    assert decode_record(Growing, old | {"newer": {}}) == Growing(1, (), 1)
    assert decode_record(Open, old | {"newer": {}, "later": 2}) == Open(1, (), 2)
    with pytest.raises(ValueError, match="there is no later"):
        decode_record(Open, old)
    with pytest.raises(ValueError, match="there is no names"):
        decode_record(Growing, {"number": 1})
    with pytest.raises(ValueError, match="later: it is of another type"):
        decode_record(Growing, old | {"later": None})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "1",
        '"x"',
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 10_000,
        b"\xff\xfe\x00",
    ],
)
def test_a_text_that_is_no_object_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_object(text)


def test_an_annotation_that_json_has_nothing_for_is_a_mistake_of_ours() -> None:
    @dataclass
    class Wrong:
        when: complex

    with pytest.raises(TypeError, match="complex"):
        decode_record(Wrong, {"when": 1})
