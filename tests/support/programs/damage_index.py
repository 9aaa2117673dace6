"""Change a byte in an index of a database that nothing reads: its page is whole, but lies.

Usage: DATABASE. The index is made for it. The last check is that SQLite finds the damage.
"""

import sqlite3
import sys

_WHERE = "SELECT rootpage FROM sqlite_schema WHERE name = 'worn_word'"


def main() -> None:
    path = sys.argv[1]
    c = sqlite3.connect(path)
    c.execute("CREATE TABLE worn (word TEXT)")
    c.execute("CREATE INDEX worn_word ON worn (word)")
    c.execute("INSERT INTO worn VALUES ('some words of a file')")
    c.commit()
    (page,), (size,) = c.execute(_WHERE).fetchone(), c.execute("PRAGMA page_size").fetchone()
    c.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    c.close()
    with open(path, "r+b") as file:
        file.seek((page - 1) * size)
        data = file.read(size)
        assert data.count(b"words of") == 1
        file.seek((page - 1) * size)
        file.write(data.replace(b"words of", b"wards of"))
    c = sqlite3.connect(path)
    assert c.execute("PRAGMA integrity_check").fetchone()[0] != "ok"


if __name__ == "__main__":
    main()
