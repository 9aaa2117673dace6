"""Print what people have said in each T3 database of a folder, as JSON, by the names of the files.

Usage: FOLDER. Of each it has the `level` and the `texts`; files that are no database are left out.
"""

import json
import sqlite3
import sys
from pathlib import Path

_V1 = "SELECT text FROM projection_thread_messages"
_V2 = (
    "SELECT json_extract(payload_json, '$.text') FROM orchestration_v2_projection_messages"
    " UNION ALL SELECT json_extract(payload_json, '$.text') FROM orchestration_events"
    " WHERE application_event_version = 2"
)
_LEVEL = "SELECT max(migration_id) FROM effect_sql_migrations"
_IS_V2 = "SELECT count(*) FROM sqlite_schema WHERE name = 'orchestration_v2_projection_messages'"


def _read(path: Path) -> dict[str, object]:
    # nothing is made beside a file that nobody has open
    how = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    database = sqlite3.connect(f"file:{path}?{how}", uri=True, timeout=10)
    try:
        is_v2 = database.execute(_IS_V2).fetchone()[0]
        texts = {text for (text,) in database.execute(_V2 if is_v2 else _V1)}
        return {"level": database.execute(_LEVEL).fetchone()[0], "texts": sorted(texts - {None})}
    finally:
        database.close()


def main() -> None:
    files = [path for path in Path(sys.argv[1]).iterdir() if path.is_file()]
    databases = [path for path in files if path.open("rb").read(16) == b"SQLite format 3\0"]
    print(json.dumps({path.name: _read(path) for path in databases}))


if __name__ == "__main__":
    main()
