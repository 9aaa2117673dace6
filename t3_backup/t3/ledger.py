"""Name the table in which T3 Code notes its migrations, and read the level."""

from __future__ import annotations

LEDGER_TABLE = "effect_sql_migrations"
LEDGER_COLUMNS = ("migration_id", "name")
LEVEL_QUERY = f"SELECT max(migration_id) FROM {LEDGER_TABLE}"  # noqa: S608 - of constants alone
