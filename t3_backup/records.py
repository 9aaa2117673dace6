"""Decode JSON into dataclasses, strictly, by what their annotations say.

A bool is no integer, a float is none, and no text is converted. `Annotated[int, range(...)]` says
which integers may be; without it, those of SQLite's 64 bits. `Annotated[SomeRecord, GROWING]`
says which keys that record may lack or have here. Any other thing in an `Annotated` is called with
the value, and returns the one to use.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from t3_backup.text import printable

# Which keys a record may lack, or have besides: its class says so by JSON_KEYS.
EXACT = "exact"  # none; so it is where the class says nothing
MORE = "more"  # keys of a later version are passed over
# so they are, and a key that has a default came later than the format: older records don't have it
GROWING = "growing"

T = TypeVar("T")
_Decoder = Callable[[Any], Any]
_INT64 = range(-(1 << 63), 1 << 63)


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Parse the text of one JSON object. Raises ValueError."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - of a file's text
    return value


def decode_record(kind: type[T], value: Any, keys: str | None = None) -> T:
    """Make a `kind` of what JSON holds. Raises ValueError, which names the key.

    `keys` counts more than what the class says by JSON_KEYS.
    """
    if type(value) is not dict:
        raise ValueError("not a JSON object")
    keys = keys or getattr(kind, "JSON_KEYS", EXACT)
    plan = _plan(kind)  # type: ignore[arg-type]  # mypy takes no type for hashable
    if keys == EXACT and (unknown := value.keys() - plan.keys()):
        raise ValueError(f"{printable(repr(min(unknown)))} is no key of it")
    found = {}
    for name, (decode, has_default) in plan.items():
        if name in value:
            try:
                found[name] = decode(value[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        elif keys != GROWING or not has_default:
            raise ValueError(f"there is no {name}")
    return kind(**found)


def one_of(choices: Collection[str]) -> Callable[[str], str]:
    """Accept these texts alone, as a part of an `Annotated`."""

    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(f"it is {printable(repr(value))}")
        return value

    return check


@functools.cache
def _plan(kind: Any) -> dict[str, tuple[_Decoder, bool]]:
    """Say of each key what decodes it, and whether it has a default."""
    hints = get_type_hints(kind, include_extras=True)
    defaults = {
        one.name: one.default is not MISSING or one.default_factory is not MISSING
        for one in fields(kind)
    }
    return {name: (_decoder(hints[name]), has_default) for name, has_default in defaults.items()}


def _decoder(hint: Any) -> _Decoder:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated and isinstance(parts[1], range):
        return lambda value: _number(value, (int,), parts[1])
    if origin is Annotated and parts[1] in (MORE, GROWING):
        return lambda value: decode_record(parts[0], value, parts[1])
    if origin is Annotated:
        checks = (_decoder(parts[0]), *parts[1:])
        return lambda value: functools.reduce(lambda found, check: check(found), checks, value)
    if origin in (Union, UnionType) and len(parts) == 2 and NoneType in parts:
        inner = _decoder(parts[0] if parts[1] is NoneType else parts[1])
        return lambda value: None if value is None else inner(value)
    if origin is tuple and parts[1:] == (...,):
        inner = _decoder(parts[0])
        return lambda value: tuple([inner(item) for item in _typed(value, list)])
    if origin is tuple:
        inners = [_decoder(part) for part in parts]
        return lambda value: _row(value, inners)
    if origin is dict and parts[0] is str:
        inner = _decoder(parts[1])
        return lambda value: {key: inner(item) for key, item in _typed(value, dict).items()}
    if isinstance(hint, type) and is_dataclass(hint):
        return lambda value: decode_record(hint, value)
    if hint is int:
        return lambda value: _number(value, (int,), _INT64)
    if hint is float:
        return lambda value: float(_number(value, (int, float), _INT64))
    if hint in (str, bool):
        return lambda value: _typed(value, hint)
    raise TypeError(f"{hint} has no place in a record")


def _row(value: Any, inners: Sequence[_Decoder]) -> tuple[Any, ...]:
    if len(_typed(value, list)) != len(inners):
        raise ValueError("it has too many items, or too few")
    return tuple([inner(item) for inner, item in zip(inners, value, strict=True)])


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError("it is of another type")
    return value


def _number(value: Any, kinds: tuple[type, ...], bounds: range) -> Any:
    if type(value) not in kinds:
        raise ValueError("it is of another type")
    if not bounds.start <= value < bounds.stop:  # a NaN is nowhere
        raise ValueError("it is out of range")
    return value
