"""Make up the rows that a turn of a conversation leaves in T3's database.

Owns the text, the ids, the times and the rows; touches no database. The same seed gives the same
rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

Row = tuple[object, ...]

INSERTS = {
    "events": "INSERT INTO orchestration_events(sequence, event_id, aggregate_kind, stream_id,"
    " stream_version, event_type, occurred_at, command_id, causation_event_id, correlation_id,"
    " actor_kind, payload_json, metadata_json)"
    " VALUES (?,?,'thread',?,?,?,?,?,NULL,?,?,?,'{}')",
    "receipts": "INSERT INTO orchestration_command_receipts(command_id, aggregate_kind,"
    " aggregate_id, accepted_at, result_sequence, status, error)"
    " VALUES (?,'thread',?,?,?,'accepted',NULL)",
    "messages": "INSERT INTO projection_thread_messages(message_id, thread_id, turn_id, role, text,"
    " is_streaming, created_at, updated_at, attachments_json)"
    " VALUES (?,?,?,?,?,0,?,?,NULL)",
    "activities": "INSERT INTO projection_thread_activities(activity_id, thread_id, turn_id, tone,"
    " kind, summary, payload_json, created_at, sequence)"
    " VALUES (?,?,?,'tool',?,?,?,?,?)",
    "turns": "INSERT INTO projection_turns(thread_id, turn_id, pending_message_id,"
    " assistant_message_id, state, requested_at, started_at, completed_at, checkpoint_turn_count,"
    " checkpoint_ref, checkpoint_status, checkpoint_files_json)"
    " VALUES (?,?,NULL,?,'completed',?,?,?,?,?,'ready',?)",
    "diffs": "INSERT INTO checkpoint_diff_blobs(thread_id, from_turn_count, to_turn_count, diff,"
    " created_at)"
    " VALUES (?,?,?,?,?)",
    "threads": "INSERT INTO projection_threads(thread_id, project_id, title, branch, created_at,"
    " updated_at, model_selection_json, latest_user_message_at)"
    " VALUES (?,?,?,?,?,?,?,?)",
    "sessions": "INSERT INTO projection_thread_sessions(thread_id, status, provider_name,"
    " provider_session_id, updated_at, provider_instance_id)"
    " VALUES (?,'ready','codex',?,?,'codex')",
}
"""The statement for each list of `Rows`, by the name of its field."""

MODEL_JSON = '{"instanceId":"codex","model":"gpt-5.4"}'
_TOOLS = ("tool.started", "tool.updated", "tool.completed", "approval.requested")
_SYLLABLES = (
    "re", "con", "ta", "mi", "ser", "ver", "lo", "ad", "qu", "in", "ter", "pa", "th", "er", "un",
    "st", "ex",
)  # fmt: skip
_GLUE = (
    "the", "a", "to", "of", "and", "in", "is", "it", "that", "for", "=", "{", "}", "();", "return",
    "if", "\\n",
)  # fmt: skip


@dataclass
class Thread:
    """A conversation: its id, the version its next event takes, the number of its next turn."""

    thread_id: str
    version: int
    turn: int


@dataclass
class Rows:
    """What is to be inserted, one list a table; the fields are those of `INSERTS`."""

    events: list[Row] = field(default_factory=list)
    receipts: list[Row] = field(default_factory=list)
    messages: list[Row] = field(default_factory=list)
    activities: list[Row] = field(default_factory=list)
    turns: list[Row] = field(default_factory=list)
    diffs: list[Row] = field(default_factory=list)
    threads: list[Row] = field(default_factory=list)
    sessions: list[Row] = field(default_factory=list)


def stamp(moment: datetime) -> str:
    """Write a time as T3 does: UTC, milliseconds, `Z`."""
    return moment.isoformat(timespec="milliseconds")[:23] + "Z"


class Author:
    """Makes up rows. `sequence` is the last event's number; `now` moves on with every row (UTC)."""

    def __init__(self, seed: int, sequence: int, now: datetime, text_bytes: int) -> None:
        self._random = Random(seed)
        self.sequence = sequence
        self.now = now.astimezone(UTC)
        self._pool = self._make_pool(text_bytes)

    def _make_pool(self, size: int) -> str:
        """Make some `size` characters of text, which can stand in JSON as they are."""
        pick = self._random
        words = list(_GLUE)
        words += ["".join(pick.choices(_SYLLABLES, k=pick.randint(1, 4))) for _ in range(6000)]
        # Zipf's law is what makes prose and code compress three to four times; random bytes don't.
        weights = list(itertools.accumulate(1 / (rank + 2) for rank in range(len(words))))
        return " ".join(pick.choices(words, cum_weights=weights, k=size // 6))

    def text(self, mean: int) -> str:
        """Make some `mean` characters (a fifth to some times as many), JSON-safe."""
        left = int(mean * (0.2 + self._random.expovariate(1.25)))
        parts = []
        while left > 0:
            # Pieces from all over the pool: long repeats would compress too well.
            length = min(left, 400)
            start = int(self._random.random() * (len(self._pool) - length))
            parts.append(self._pool[start : start + length].rstrip("\\"))
            left -= length
        return " ".join(parts)

    def uuid(self) -> str:
        """Make a random version 4 UUID."""
        h = f"{self._random.getrandbits(128):032x}"
        return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"

    def tick(self, mean_ms: float) -> str:
        """Let about `mean_ms` pass, and return the time afterwards."""
        self.now += timedelta(milliseconds=self._random.expovariate(1 / mean_ms) + 1)
        return stamp(self.now)

    def pick(self, threads: list[Thread]) -> Thread:
        """Pick a thread, the later ones more often, as people do."""
        return threads[-1 - int(len(threads) * self._random.random() ** 3)]

    def thread(self, project_id: str, rows: Rows) -> Thread:
        """Begin a thread."""
        thread, at = Thread(self.uuid(), 0, 1), self.tick(60_000)
        title = self.text(30)
        names = (thread.thread_id, project_id, title, f"t3/{thread.thread_id[:8]}")
        rows.threads.append((*names, at, at, MODEL_JSON, at))
        rows.sessions.append((thread.thread_id, self.uuid(), at))
        payload = (
            f'{{"threadId":"{thread.thread_id}","projectId":"{project_id}","title":"{title}",'
            f'"modelSelection":{MODEL_JSON},"runtimeMode":"full-access",'
            f'"interactionMode":"default","createdAt":"{at}"}}'
        )
        self._event(thread, "thread.created", "client", at, payload, rows)
        return thread

    def turn(self, thread: Thread, rows: Rows) -> None:
        """Add a turn, from the question to the checkpoint: some 60 kB."""
        turn_id, began = self.uuid(), self.tick(40_000)
        of_thread = f'{{"threadId":"{thread.thread_id}"'
        self._message(thread, turn_id, "user", self.text(400), began, rows)
        for delta in range(6 + int(self._random.random() * 12)):
            at = self.tick(300)
            body = f'{of_thread},"turnId":"{turn_id}","delta":"{self.text(260)}","n":{delta}}}'
            self._event(thread, "thread.message-sent", "provider", at, body, rows)
        for _ in range(4 + int(self._random.random() * 12)):
            at, activity_id, summary = self.tick(900), self.uuid(), self.text(50)
            kind = self._random.choice(_TOOLS)
            detail, item = self.text(1100), self.uuid()
            payload = (
                f'{{"itemType":"command_execution","detail":"{detail}","data":{{"id":"{item}"}}}}'
            )
            body = f'{of_thread},"activity":{{"id":"{activity_id}","payload":{payload}}}}}'
            self._event(thread, "thread.activity-appended", "provider", at, body, rows)
            rows.activities.append(
                (activity_id, thread.thread_id, turn_id, kind, summary, payload, at, self.sequence)
            )
        at = self.tick(500)
        answer = self._message(thread, turn_id, "assistant", self.text(1800), at, rows)
        path, added = f"src/{turn_id[:13]}.ts", thread.turn
        files = f'[{{"path":"{path}","kind":"modified","additions":{added},"deletions":0}}]'
        reference = f"refs/t3/checkpoints/{thread.thread_id}/turn/{thread.turn}"
        rows.turns.append(
            (thread.thread_id, turn_id, answer, began, began, at, thread.turn, reference, files)
        )
        diff = self.text(8000).replace("\\n ", "\n+")
        rows.diffs.append((thread.thread_id, thread.turn - 1, thread.turn, diff, at))
        thread.turn += 1

    def turns(self, threads: list[Thread], project_id: str, batch: int) -> Iterator[Rows]:
        """Yield batches of turns without end; about one turn in 20 begins a new thread."""
        while True:
            rows = Rows()
            for _ in range(batch):
                if not threads or self._random.random() < 0.05:
                    threads.append(self.thread(project_id, rows))
                self.turn(self.pick(threads), rows)
            yield rows

    def _message(
        self, thread: Thread, turn_id: str, role: str, text: str, at: str, rows: Rows
    ) -> str:
        message_id = self.uuid()
        body = (
            f'{{"threadId":"{thread.thread_id}","messageId":"{message_id}",'
            f'"role":"{role}","text":"{text}"}}'
        )
        actor = "client" if role == "user" else "provider"
        self._event(thread, "thread.message-sent", actor, at, body, rows)
        plain = text.replace("\\n", "\n")
        rows.messages.append((message_id, thread.thread_id, turn_id, role, plain, at, at))
        return message_id

    def _event(
        self, thread: Thread, kind: str, actor: str, at: str, payload: str, rows: Rows
    ) -> None:
        self.sequence += 1
        command = self.uuid() if actor == "client" else f"provider:{self.uuid()}:{kind}"
        where = (self.sequence, self.uuid(), thread.thread_id, thread.version)
        rows.events.append((*where, kind, at, command, command, actor, payload))
        rows.receipts.append((command, thread.thread_id, at, self.sequence))
        thread.version += 1
