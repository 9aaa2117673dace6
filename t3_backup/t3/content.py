"""Say what a person would miss of a T3 database: their projects, threads and messages.

This is the one definition of loss. What T3 deletes or rebuilds by itself counts nowhere. V1's
events are the source of all, and it only ever adds to them. In V2 a compaction deletes events,
projections are rebuilt, and the tables of V1 stay behind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from t3_backup.t3.ledger import LEDGER_TABLE

_EVENTS = "orchestration_events"
_THREADS_V2 = "orchestration_v2_projection_threads"  # a database that has it is V2's
_MESSAGES_V1 = "projection_thread_messages"
_MESSAGES_V2 = "orchestration_v2_projection_messages"


class Counted(NamedTuple):
    """One thing that people would miss: their word for it, and the table that has it."""

    word: str
    table: str
    deleted: str = ""  # column that is null until somebody deletes the thing

    def query(self, columns: Collection[str]) -> str:
        """Give the SQL that counts it in its table, which has these columns."""
        where = f" WHERE {self.deleted} IS NULL" if self.deleted in columns else ""
        return f"SELECT count(*) FROM main.{self.table}{where}"  # noqa: S608 - of constants alone


_PROJECTS = Counted("projects", "projection_projects", "deleted_at")
_V1 = (
    _PROJECTS,
    Counted("threads", "projection_threads"),
    Counted("messages", _MESSAGES_V1),
    Counted("events", _EVENTS),
)
_V2 = (_PROJECTS, Counted("threads", _THREADS_V2), Counted("messages", _MESSAGES_V2))
WORDS = tuple(one.word for one in _V1)  # all of them, in the order in which they are told


def _characters(text: str) -> str:
    for blank in ("' '", "char(9)", "char(10)", "char(13)"):
        text = f"replace({text}, {blank}, '')"
    return f"sum(length({text}))"


_JSON_TEXT = "CASE WHEN json_valid(payload_json) THEN json_extract(payload_json, '$.text') END"
_PAYLOADS = "sum(length(payload_json) > length('{}'))"


class Said(NamedTuple):
    """A measure of what somebody has said.

    A migration may bring it into another form, but makes it no less.
    """

    what: str  # it is a number of these
    table: str
    column: str
    measure: str  # SQL over the rows of the table


_SAID_V1 = (
    Said("characters", _MESSAGES_V1, "text", _characters("text")),
    Said("payloads", _EVENTS, "payload_json", _PAYLOADS),
)
_SAID_V2 = (Said("characters", _MESSAGES_V2, "payload_json", _characters(_JSON_TEXT)),)


class Part(NamedTuple):
    """A number over some rows of one table."""

    table: str
    number: str = "count(*)"
    where: str = "true"

    @property
    def query(self) -> str:
        """Give the SQL that asks for it."""
        return f"SELECT {self.number} FROM main.{self.table} WHERE {self.where}"  # noqa: S608 - of constants alone


class Brought(NamedTuple):
    """A number of things that V2 brings over from a database of V1's into one of its own.

    What somebody has deleted in V1 need not come along. What does may come after V2's start.
    """

    word: str
    v1: Part
    v2: Part


_KEPT = "deleted_at IS NULL"
_THREADS_V1 = "projection_threads"
_IN_KEPT = f"thread_id IN (SELECT thread_id FROM main.{_THREADS_V1} WHERE {_KEPT})"  # noqa: S608
BROUGHT_OVER = (
    Brought("projects", *[Part(_PROJECTS.table, where=_KEPT)] * 2),
    Brought("threads", Part(_THREADS_V1, where=_KEPT), Part(_THREADS_V2)),
    Brought("messages", Part(_MESSAGES_V1, where=_IN_KEPT), Part(_MESSAGES_V2)),
    Brought(
        "characters in messages",
        Part(_MESSAGES_V1, _SAID_V1[0].measure, _IN_KEPT),
        Part(_MESSAGES_V2, _SAID_V2[0].measure),
    ),
)


def is_v2(tables: Collection[str]) -> bool:
    """Tell whether a database with these tables is V2's."""
    return _THREADS_V2 in tables


def counted_in(tables: Collection[str]) -> tuple[Counted, ...]:
    """List what is counted in a database with these tables; none where it is not T3's.

    Of a table that is not there, people have 0.
    """
    if LEDGER_TABLE not in tables:
        return ()
    return _V2 if _THREADS_V2 in tables else _V1


def said_in(tables: Collection[str]) -> tuple[Said, ...]:
    """List the measures of what was said in a database with these tables."""
    return _SAID_V2 if _THREADS_V2 in tables else _SAID_V1


def append_only(tables: Collection[str]) -> tuple[str, ...]:
    """List the tables that T3 only ever adds to, in a database with these."""
    return (LEDGER_TABLE,) if _THREADS_V2 in tables else (_EVENTS, LEDGER_TABLE)


def content_of_rows(rows: Mapping[str, int]) -> dict[str, int] | None:
    """Derive the content from the rows of all tables; None where it is not T3's.

    What was deleted is counted, too: compare it with its like.
    """
    return {one.word: rows.get(one.table, 0) for one in counted_in(rows)} or None


def changes(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Say by word how much more or less there is in `after`; what stayed is left out.

    A word that one of them does not know is no change.
    """
    found = {
        word: max(0, after[word]) - max(0, count) for word, count in before.items() if word in after
    }
    return {word: count for word, count in found.items() if count}


def lost_words(before: Mapping[str, int], after: Mapping[str, int]) -> Iterable[str]:
    """List the words of which half is gone, or more."""
    return [
        word for word, count in before.items() if word in after and 0 < count >= 2 * after[word]
    ]
