"""Name T3 Code's tables: what people would miss, what only grows, who is at work."""

from __future__ import annotations

from t3_backup.t3.ledger import LEDGER_TABLE

PROJECTS = "projection_projects"
THREADS = "projection_threads"
MESSAGES = "projection_thread_messages"
EVENTS = "orchestration_events"
SESSIONS = "auth_sessions"

# What a person would miss, and what they would call it.
CONTENT = {
    PROJECTS: "projects",
    THREADS: "threads",
    MESSAGES: "messages",
    EVENTS: "events",
    SESSIONS: "sessions",
}
# No migration makes these smaller. Sessions are not among them: a migration may log everybody out.
HISTORY = (PROJECTS, THREADS, MESSAGES, EVENTS)
_TEXT = "replace(replace(replace(replace(text, ' ', ''), char(9), ''), char(10), ''), char(13), '')"
# What somebody has said, by table and column: what it is a number of, and how it is counted. A
# migration may bring it into another form, but makes it no less.
SAID = {
    (MESSAGES, "text"): ("characters", f"sum(length({_TEXT}))"),
    (EVENTS, "payload_json"): ("payloads", "sum(length(payload_json) > length('{}'))"),
}
# T3 only ever adds to these: their keys are AUTOINCREMENT, or the migrations' numbers.
APPEND_ONLY = (EVENTS, LEDGER_TABLE)
# The turns that an agent is at. A session that ended badly leaves its turn, but not its status.
TURNS_IN_FLIGHT_QUERY = (
    "SELECT count(*) FROM projection_thread_sessions "
    "WHERE active_turn_id IS NOT NULL AND status IN ('starting', 'running')"
)
