"""What people and agents do with a server: say something, be at a turn, run a program."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import uuid

import about
import compact_v2
from about import now
from database import transaction

_THREADS = "orchestration_v2_projection_threads" if about.IS_V2 else "projection_threads"
_COLUMNS = (
    "event_id, aggregate_kind, stream_id, stream_version, event_type, occurred_at, actor_kind,"
    " payload_json, metadata_json"
)
_KIND = "'message.updated'" if about.IS_V2 else "'thread.message-sent'"
_METADATA = "'{\"applicationEventVersion\": 2}', 2" if about.IS_V2 else "'{}'"
# the next one of its thread
_EVENT = (
    f"INSERT INTO orchestration_events ({_COLUMNS}{', application_event_version' * about.IS_V2})"
    f" SELECT ?1, 'thread', ?2, coalesce(max(stream_version), -1) + 1, {_KIND}, ?3, 'client', ?4,"
    f" {_METADATA}"
    " FROM orchestration_events WHERE aggregate_kind = 'thread' AND stream_id = ?2"
)
_V1_MESSAGE = (
    "INSERT INTO projection_thread_messages (message_id, thread_id, role, text, is_streaming,"
    " created_at, updated_at) VALUES (?, ?, 'user', ?, 0, ?, ?)"
)
_V2_MESSAGE = (
    "INSERT INTO orchestration_v2_projection_messages (message_id, thread_id, role, streaming,"
    " created_at, updated_at, payload_json) VALUES (?, ?, 'user', 0, ?, ?, ?)"
)
_V1_ENDED = (
    "UPDATE projection_turns SET state = 'completed', completed_at = ?"
    " WHERE thread_id = ? AND state = 'running'"
)
_V1_BEGUN = (
    "INSERT INTO projection_turns (thread_id, turn_id, state, requested_at, started_at,"
    " checkpoint_files_json) VALUES (?, ?, 'running', ?, ?, '[]')"
)
_V1_SESSION = (
    "INSERT INTO projection_thread_sessions (thread_id, status, active_turn_id, updated_at)"
    " VALUES (?, ?, ?, ?) ON CONFLICT (thread_id) DO UPDATE SET status = excluded.status,"
    " active_turn_id = excluded.active_turn_id, updated_at = excluded.updated_at"
)
_V2_ENDED = (
    "UPDATE orchestration_v2_projection_runs SET status = 'completed', completed_at = ?"
    " WHERE thread_id = ? AND status = 'running'"
)
_V2_BEGUN = (
    "INSERT INTO orchestration_v2_projection_runs (run_id, thread_id, ordinal, provider, status,"
    " requested_at, payload_json, provider_instance_id)"
    " SELECT ?1, ?2, count(*) + 1, 'codex', 'running', ?3, ?4, 'codex'"
    " FROM orchestration_v2_projection_runs WHERE thread_id = ?2"
)


class Work:
    """What is asked for by `POST /fake/...`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.agents: list[subprocess.Popen[bytes]] = []

    def do(self, what: str, words: dict[str, str]) -> dict[str, int]:
        """Do it; of a new agent, its `pid`. Raises sqlite3.Error."""
        if what == "agent":
            line = ["claude", words.get("seconds", "3600")]
            self.agents.append(subprocess.Popen(line, executable="/bin/sleep"))
            return {"pid": self.agents[-1].pid}
        if what == "no-agent":
            for agent in self.agents:
                agent.kill()
                agent.wait()
        elif what == "compact":
            compact_v2.compact(self.connection)
        elif what in ("event", "turn"):
            found = self.connection.execute(f"SELECT thread_id FROM {_THREADS}").fetchone()
            thread = found[0] if found else "fake-thread"
            with transaction(self.connection):
                if what == "event":
                    self._say(thread, words.get("text", f"said at {now()}"))
                else:
                    self._turn(thread, words["state"] == "running")
        return {}

    def _say(self, thread: str, text: str) -> None:
        """Somebody says something in a thread."""
        name, time = str(uuid.uuid4()), now()
        payload = json.dumps({
            "id" if about.IS_V2 else "messageId": name,
            "threadId": thread,
            "turnId": None,
            "role": "user",
            "text": text,
            "streaming": False,
            "createdAt": time,
            "updatedAt": time,
        })  # fmt: skip
        self.connection.execute(_EVENT, (name, thread, time, payload))
        self.connection.execute(
            *(_V2_MESSAGE, (name, thread, time, time, payload))
            if about.IS_V2
            else (_V1_MESSAGE, (name, thread, text, time, time))
        )

    def _turn(self, thread: str, begins: bool) -> None:
        """A turn begins in a thread, or the one that it is at ends."""
        name, time = str(uuid.uuid4()), now()
        if about.IS_V2:
            if begins:
                self.connection.execute(_V2_BEGUN, (name, thread, time, json.dumps({"id": name})))
            else:
                self.connection.execute(_V2_ENDED, (time, thread))
            return
        if begins:
            self.connection.execute(_V1_BEGUN, (thread, name, time, time))
        else:
            self.connection.execute(_V1_ENDED, (time, thread))
        status, active = ("running", name) if begins else ("ready", None)
        self.connection.execute(_V1_SESSION, (thread, status, active, time))
