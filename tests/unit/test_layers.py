"""Who may import whom: the rule of the house, over the syntax tree; and what is known of T3 Code
stands in one package."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT

PACKAGE = ROOT / "t3_backup"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FLOORS = (  # a package imports the packages before it, and itself
    "system", "t3", "store", "worker", "history", "backup", "restore", "output", "monitor", "doctor", "cli", "autoupdate",
)  # fmt: skip
# what everybody may import
TOP = ("errors", "config", "settings", "accounts", "text", "records", "__init__", "_copier")
ENTRY = "__main__"  # python3 -m t3_backup: it starts the command, and nothing imports it
CHILD = "worker.child"
CHILD_MAY = (
    "worker.protocol",
    "worker.sources",
    "worker.operations",
    "worker.operations.activity",
    "worker.operations.archive",
    "worker.operations.backup",
    "worker.operations.legacy",
    "worker.operations.proof",
    "worker.operations.restore",
    "store.names",
    "store.census",
    "store.replacement",
    "t3.content",
    "t3.files",
    "t3.databases",
    "t3.ledger",
    "t3.unlisted",
    "t3.open_databases",
    "t3.open_findings",
    "t3.server_processes",
    "t3.tables",
)  # beside system and errors, text, records
CHILD_TOP = ("errors", "text", "records", "__init__", "_copier")
# A trial has a process of its own, which owns nothing: it may check a database as a worker does.
TRIAL = "autoupdate.gate.history"
TRIAL_MAY = ("worker.child.census", "worker.child.checks", "worker.child.connection")
APSW = (
    CHILD,
    "doctor",
    "autoupdate.gate.history",
    "autoupdate.gate.trial",
)  # where SQLite may be called


def imports(path: Path) -> Iterator[str]:
    """The modules of this package, and those of others, that a file imports, wherever it does
    so."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield whole if whole.removeprefix("t3_backup.") in MODULES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def own_imports(path: Path) -> list[str]:
    found = [name for name in imports(path) if name.partition(".")[0] == "t3_backup"]
    return [
        "__init__" if name == "t3_backup" else name.removeprefix("t3_backup.") for name in found
    ]


def package_of(module: str) -> str:
    if module.startswith(f"{CHILD}.") or module == CHILD:
        return CHILD
    return module.partition(".")[0]


def breaks_the_rule(module: str, other: str) -> bool:
    mine, theirs = package_of(module), package_of(other)
    if module == ENTRY:
        return theirs != "cli"
    if module in TOP:
        return other not in TOP
    if mine == CHILD:
        return not (theirs in (CHILD, "system") or other in CHILD_MAY or other in CHILD_TOP)
    if module == TRIAL and other in TRIAL_MAY:
        return False
    if other in TOP or mine == theirs:
        return False
    return theirs == CHILD or theirs not in FLOORS or FLOORS.index(theirs) > FLOORS.index(mine)


def test_a_room_imports_only_the_rooms_below_it() -> None:
    broken = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        for other in own_imports(path)
        if breaks_the_rule(name, other)
    ]
    assert broken == []


@pytest.mark.parametrize(
    ("module", "other"),
    [
        ("store.store", "history.delta"),
        ("backup.run", "output.console"),
        ("backup.run", "worker.child.copy"),
        ("worker.child.copy", "settings"),
        ("worker.child.copy", "store.store"),
        ("text", "system.disk"),
        ("cli.run", "autoupdate.main"),
        ("store.store", "invented.room"),
    ],
)
def test_the_rule_can_be_broken(module: str, other: str) -> None:
    assert breaks_the_rule(module, other)


def test_every_module_has_a_room() -> None:
    assert {package_of(name) for name in MODULES if name not in TOP and name != ENTRY} == {
        *FLOORS,
        CHILD,
    }


def test_sqlite_is_called_where_a_users_bytes_may_be_parsed_and_nowhere_else() -> None:
    allowed = [name for name in MODULES if name in APSW or package_of(name) in APSW]
    assert [
        name for name, path in MODULES.items() if "apsw" in imports(path) and name not in allowed
    ] == []


def test_nothing_below_the_output_prints() -> None:
    below = [name for name in MODULES if package_of(name) in FLOORS[: FLOORS.index("output")]]
    commands = ("t3.pair_command", "t3.sessions_command")  # what it says is its answer
    calls = [
        (name, node.func)
        for name in below
        if name not in commands
        for node in ast.walk(ast.parse(MODULES[name].read_text()))
        if isinstance(node, ast.Call)
    ]
    found = [
        f"{name}:{called.lineno}"
        for name, called in calls
        if isinstance(called, ast.Name) and called.id == "print"
    ]
    assert found == []


# What only one who knows T3 Code can spell: files, tables, paths over HTTP, the cookie, units,
# settings, exit status.
KNOWN_OF_T3 = (
    r"state\.sqlite",
    r"statev2",
    r"(?<![\w}\])])\.t3\b",
    r"userdata",
    r"environment-id",
    r"keybindings",
    r"server-runtime",
    r"t3_session",
    r"effect_sql_migrations",
    r"\bprojection_\w",
    r"\borchestration_\w",
    r"\bauth_\w",
    r"/api/auth",
    r"\.well-known",
    r"t3-serve",
    r"T3_PORT",
    r"T3CODE_",
    r"v2-import",
    r"node_modules",
    r"auth pairing",
    r"\b130\b",
)
# the values of an admin's settings, and what these are for
DEFAULTS = ("settings", "autoupdate.settings")


def said(path: Path) -> Iterator[tuple[int, str]]:
    """The strings and comments of a file, docstrings too, each with its line."""
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type in (tokenize.STRING, tokenize.COMMENT):
                yield token.start[0], token.string


def test_what_is_known_of_t3_code_is_spelled_in_one_room() -> None:
    known = re.compile("|".join(KNOWN_OF_T3))
    found = [
        f"{name}:{line}: {match[0]}"
        for name, path in MODULES.items()
        if package_of(name) != "t3" and name not in DEFAULTS
        for line, text in said(path)
        for match in known.finditer(text)
    ]
    found += [
        f"{path.name}: {match[0]}"
        for path in (*(ROOT / "csrc").glob("*.[ch]"), *PACKAGE.rglob("*.html"))
        for match in known.finditer(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "pattern", [pattern for pattern in KNOWN_OF_T3 if pattern not in (r"\b130\b", r"auth pairing")]
)
def test_each_of_these_is_spelled_in_that_room(pattern: str) -> None:
    """Else the test above would look for what nobody writes any more."""
    texts = [
        text for name, path in MODULES.items() if package_of(name) == "t3" for _, text in said(path)
    ]
    assert any(re.search(pattern, text) for text in texts)
