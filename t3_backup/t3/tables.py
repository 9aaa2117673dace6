"""Name the tables by which T3 Code knows who is at work."""

from __future__ import annotations

_V1 = (
    "SELECT count(*) FROM projection_thread_sessions "
    "WHERE active_turn_id IS NOT NULL AND status IN ('starting', 'running')"
)
_V2 = (
    "SELECT count(*) FROM orchestration_v2_projection_runs "
    "WHERE status IN ('queued', 'preparing', 'starting', 'running', 'waiting')"
)
# The turns that an agent is at: the first that a database has tables for. In V2 the tables of V1
# stay, and say nothing any more. In V1 a session that ended badly leaves its turn, but not its
# status.
TURNS_IN_FLIGHT_QUERIES = (_V2, _V1)
