"""Name the table in which T3 Code notes its migrations."""

from __future__ import annotations

LEDGER_TABLE = "effect_sql_migrations"
