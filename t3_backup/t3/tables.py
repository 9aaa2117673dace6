"""Name the tables by which T3 Code knows who is at work and who is logged in."""

from __future__ import annotations

from collections.abc import Collection

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

LOGINS_TABLE = "auth_sessions"
# The User-Agent of our login checks (`sessions`), as a GLOB of SQLite's; earlier versions had that
# of the library that they call a server with.
OUR_AGENTS = "t3-backup/* (login check)"
_OUR_FORMER_AGENTS = "Python/3.* aiohttp/3.*"
_HERE = "('127.0.0.1', '::1', '::ffff:127.0.0.1')"
# column -> what is true of a login that stands, and is not ours; versions differ in their columns
_STANDS = {
    "revoked_at": "revoked_at IS NULL",
    "expires_at": "NOT (typeof(expires_at) = 'text' AND "
    "expires_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
    "client_user_agent": f"ifnull(client_user_agent, '') NOT GLOB '{OUR_AGENTS}'",
    "client_ip_address": f"NOT (ifnull(client_ip_address, '') IN {_HERE} AND "
    f"ifnull(client_user_agent, '') GLOB '{_OUR_FORMER_AGENTS}')",
}


def standing_logins_query(columns: Collection[str]) -> str:
    """Give the SQL that counts the logins of people that stand now, in a table of these columns.

    They are not ended, not too old, and not of our checks.
    """
    if "client_user_agent" not in columns:  # before level 21
        columns = [one for one in columns if one != "client_ip_address"]
    found = [condition for column, condition in _STANDS.items() if column in columns]
    where = f" WHERE {' AND '.join(found)}" if found else ""
    return f"SELECT count(*) FROM main.{LOGINS_TABLE}{where}"  # noqa: S608 - of constants alone
