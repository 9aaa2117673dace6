"""What the documents claim of the tests and of the command is so."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

from t3_backup import settings
from t3_backup.autoupdate import journal
from t3_backup.autoupdate import parser as bump_arguments
from t3_backup.autoupdate import settings as bump_settings
from t3_backup.autoupdate.gate import steps
from t3_backup.autoupdate.gate.verdict import Trial
from t3_backup.autoupdate.journal import Journal, Move
from t3_backup.autoupdate.status import AccountStatus
from t3_backup.cli.parser import build_parser
from t3_backup.store.manifest import Manifest
from t3_backup.t3 import content, pair_command
from t3_backup.t3.endpoints import PAIRING_PATHS

FAILURES = (ROOT / "docs" / "failures.md").read_text()
ROWS = re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", FAILURES, re.MULTILINE)
PYTHON = "\n".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))
LESSONS = re.findall(
    r"^\| (\d+) \|.*\| ([^|]+) \|$", (ROOT / "docs" / "post-mortem.md").read_text(), re.MULTILINE
)
JSON = (ROOT / "docs" / "interface" / "json.md").read_text()
SETTINGS = (ROOT / "docs" / "interface" / "settings.md").read_text()
MADE_OF_THE_SETTINGS = ["debian/t3-backup.default", "docs/interface/settings.md"]
FIRST_SCREEN = 40  # lines
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
C = "\n".join(path.read_text() for path in sorted((ROOT / "tests" / "c").glob("test_*.c")))


@pytest.mark.parametrize(("number", "tests"), ROWS, ids=[f"row {number}" for number, _ in ROWS])
def test_every_way_to_lose_data_has_the_tests_that_are_named(number: str, tests: str) -> None:
    names = re.findall(r"`(\w+)`", tests)
    assert names
    for name in names:
        assert f"def {name}(" in PYTHON or f"static void {name}(void)" in C, (
            f"row {number}: no test {name}"
        )


def test_the_rows_are_the_ones_that_are_claimed() -> None:
    numbers = [int(number) for number, _ in ROWS]
    assert numbers == sorted(set(numbers))
    assert numbers[:45] == [*range(1, 46)]


@pytest.mark.parametrize(
    ("number", "tests"), LESSONS, ids=[f"lesson {number}" for number, _ in LESSONS]
)
def test_every_lesson_has_the_tests_that_are_named_in_their_files(number: str, tests: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
    assert len(named) == tests.count("`") / 2 > 0
    for path, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), (
            f"lesson {number}: no {name} in {path}"
        )


# Whatever names tests or their files, beside the tests themselves.
SPEAK_OF_TESTS = [
    *PAGES,
    *(
        path
        for pattern in ("tools/*", "debian/rules", "debian/tests/*", ".ci/*", "csrc/*.[ch]")
        for path in sorted(ROOT.glob(pattern))
        if path.is_file()
    ),
    ROOT / "Makefile",
    ROOT / "pyproject.toml",
]


def named_paths(text: str) -> set[str]:
    """The paths beneath tests/ that a text names; `test_{a,b}.py` and make's foreach are spelled
    out."""
    found: set[str] = set()
    each = re.search(r"\$\(foreach name,([\w ]+),", text)
    for match in re.findall(r"(?<![\w/.])tests/[\w./@{},$()-]*[\w/}]", text):
        braces = re.search(r"\{([\w,]+)\}", match)
        if "$(name)" in match:
            assert each
            found |= {match.replace("$(name)", name) for name in each[1].split()}
        elif braces:
            found |= {match.replace(braces[0], name) for name in braces[1].split(",")}
        else:
            found.add(match.partition("::")[0])
    return found


@pytest.mark.parametrize("page", SPEAK_OF_TESTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_that_is_named_is_there(page: Path) -> None:
    text = page.read_text()
    assert {path for path in named_paths(text) if not (ROOT / path).exists()} == set()
    stems = {path.stem for path in (ROOT / "tests").rglob("test_*.*")}
    # a file's stem with braces or a variable in it is a path's, which is looked at above
    for name in re.findall(r"(?<![\w/])test_[a-z0-9_]+\b(?![${])", text):
        assert name in stems or f"def {name}(" in PYTHON, name


def test_every_helper_of_the_tests_is_in_the_table() -> None:
    page = (ROOT / "docs" / "development.md").read_text()
    listed = re.findall(r"^\| `(support/[\w/]+\.py)` \|", page, re.MULTILINE)
    support = ROOT / "tests" / "support"
    there = [
        str(path.relative_to(ROOT / "tests"))
        for path in [*support.glob("*.py"), *support.glob("booted/*.py")]
        if path.name != "__init__.py"
    ]
    assert sorted(listed) == sorted(there)


def test_paths_of_tests_are_found_however_they_are_spelled() -> None:
    named = "tests/c, tests/unit/test_a.py::test_x; tests/unit/test_{b,c}.py `tests/booted/`"
    units = {f"tests/unit/test_{name}.py" for name in "abc"}
    assert named_paths(named) == {"tests/c", "tests/booted/"} | units
    made = "$(foreach name,a b,--ignore=tests/unit/test_$(name).py)"
    assert named_paths(made) == {"tests/unit/test_a.py", "tests/unit/test_b.py"}


@pytest.fixture(scope="module")
def gate() -> set[str]:
    """The names of the tests that are run where no soak is asked for."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in ("T3_TEST_SOAK", "PYTEST_ADDOPTS")
    }
    line = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests",
    ]
    done = subprocess.run(line, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    return set(re.findall(r"::(test_\w+)", done.stdout)) | set(
        re.findall(r"static void (\w+)\(void\)", C)
    )


@pytest.mark.parametrize(("number", "tests"), ROWS, ids=[f"row {number}" for number, _ in ROWS])
def test_every_way_to_lose_data_has_a_witness_in_the_gate(
    number: str, tests: str, gate: set[str]
) -> None:
    assert set(re.findall(r"`(\w+)`", tests)) & gate, f"row {number}"


@pytest.mark.parametrize(
    ("number", "tests"), LESSONS, ids=[f"lesson {number}" for number, _ in LESSONS]
)
def test_every_lesson_has_a_witness_in_the_gate(number: str, tests: str, gate: set[str]) -> None:
    assert set(re.findall(r"::(\w+)`", tests)) & gate, f"lesson {number}"


def test_the_lessons_are_counted() -> None:
    assert [int(number) for number, _ in LESSONS] == [*range(1, len(LESSONS) + 1)]
    assert LESSONS


def test_every_key_of_a_manifest_is_documented() -> None:
    for key in Manifest.__dataclass_fields__:
        assert f"`{key}`" in JSON, key


@pytest.mark.parametrize("record", [Journal, Move, AccountStatus, Trial])
def test_every_key_of_the_bump_is_documented(record: type) -> None:
    text = JSON[JSON.index("## `t3-autoupdate ... --json`") :]
    for key in record.__dataclass_fields__:  # type: ignore[attr-defined]
        assert re.search(rf'[`"]{key}[`"]', text), key


def test_every_phase_of_a_move_and_step_of_a_trial_is_documented() -> None:
    runbook = (ROOT / "docs" / "runbooks" / "t3-version-bump.md").read_text()
    for phase in journal.PHASES:
        assert f"`{phase}`" in JSON, phase
    for phase in journal.UNDER_WAY:
        assert re.search(rf"^ *\| .*`{phase}`.* \|", runbook, re.MULTILINE), phase
    for step in (*steps.STEPS, steps.GATE):
        assert f"`{step}`" in JSON
        assert f"| `{step}` |" in runbook, step


def test_every_setting_is_documented_with_its_default() -> None:
    for setting in settings.KNOWN.values():
        row = rf"^\| `{setting.name}` \|.*\| `?{re.escape(setting.default)}`? \|"
        assert re.search(row, SETTINGS, re.MULTILINE), setting.name
        assert setting.name in build_parser().format_help()
    for setting in bump_settings.KNOWN.values():
        assert f"\n| `{setting.name}` | `{setting.default}` | " in SETTINGS, setting.name
        assert setting.name in bump_arguments.build_parser().format_help()


def tool(checkout: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, checkout / "tools" / name, *words]
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(checkout),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(line, env=environ, capture_output=True, text=True, check=False)


def test_what_is_made_from_the_settings_is_up_to_date() -> None:
    done = tool(ROOT, "settings_files.py", "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def contents(checkout: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(checkout)): path.read_bytes()
        for path in checkout.rglob("*")
        if path.is_file()
    }


def test_a_new_setting_touches_three_files(tmp_path: Path) -> None:
    for folder in ("t3_backup", "tools", "docs", "debian"):
        shutil.copytree(
            ROOT / folder,
            tmp_path / folder,
            ignore=shutil.ignore_patterns("__pycache__", ".debhelper"),
        )
    before = contents(tmp_path)
    table = tmp_path / "t3_backup" / "settings.py"
    new = '    barn: str = setting("T3_BACKUP_BARN", "red", _one_of("red", "blue"), "The colour of the barn.")\n\n'
    table.write_text(
        table.read_text().replace("    def run_timeout(", f"{new}    def run_timeout(")
    )
    stale = tool(tmp_path, "settings_files.py", "--check")
    assert stale.returncode == 1
    assert (
        re.findall(r"^(\S+) is not up to date", stale.stderr, re.MULTILINE) == MADE_OF_THE_SETTINGS
    )
    assert tool(tmp_path, "settings_files.py").returncode == 0
    assert tool(tmp_path, "settings_files.py", "--check").returncode == 0
    after = contents(tmp_path)
    touched = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert touched == {"t3_backup/settings.py", *MADE_OF_THE_SETTINGS}
    # And it is there: for the program, with its value; in the help; on the manual page; and in what
    # was made.
    read = "import sys; from t3_backup.settings import load; print(load({}, {'T3_BACKUP_BARN': 'blue'}).barn)"
    environ = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    for words, said in ((["-c", read], "blue"), (["-m", "t3_backup", "--help"], "T3_BACKUP_BARN")):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        assert said in done.stdout
    assert (
        "T3_BACKUP_BARN\nThe colour of the barn.\nDefault: red."
        in tool(tmp_path, "manpage.py", "t3-backup-state").stdout
    )
    assert b"# The colour of the barn.\n#T3_BACKUP_BARN=red\n" in after["debian/t3-backup.default"]
    assert (
        b"| `T3_BACKUP_BARN` | | `red` | | The colour of the barn. |"
        in after["docs/interface/settings.md"]
    )


def test_what_readme_debian_names_is_there() -> None:
    text = (ROOT / "debian" / "t3-autoupdate.README.Debian").read_text()
    shipped = {
        path.name.removeprefix("t3-autoupdate.")
        for path in (ROOT / "debian").glob("t3-autoupdate.t3-autoupdate*")
    }
    named = set(re.findall(r"(?<![@\w-])(t3-autoupdate(?:-[a-z]+)?\.(?:timer|service))\b", text))
    assert named <= shipped
    assert {unit for unit in shipped if unit.endswith(".timer")} <= named, (
        "who installs it must know what runs when"
    )
    for timer in (unit for unit in shipped if unit.endswith(".timer")):
        [when] = re.findall(
            r"^OnCalendar=(.+)$",
            (ROOT / "debian" / f"t3-autoupdate.{timer}").read_text(),
            re.MULTILINE,
        )
        assert {"*-*-* 05:10:00": "between 05:10 and", "*:0/15": "every 15 minutes"}[when] in text
    commands = bump_arguments.build_parser().format_help()
    for command in re.findall(r'(?:^    |")t3-autoupdate ([a-z]+)', text, re.MULTILINE):
        assert f"    {command}  " in commands, command


def test_the_page_of_t3_pair_has_its_options_and_endpoints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (ROOT / "docs" / "t3-pair.1").read_text().replace("\\-", "-")
    with pytest.raises(SystemExit):
        pair_command.main(["--help"])
    usage = capsys.readouterr().out.partition("\n\n")[0]
    for option, value in re.findall(r"(--[\w-]+)(?: ([A-Z]+))?", usage):
        assert re.search(rf"{option}\b[ \"\]\n.IR]*{value}", page), option
    for endpoint in PAIRING_PATHS:
        assert endpoint in page


def anchors(page: str) -> set[str]:
    """What may stand behind # in a link to a page, as GitHub makes it of each heading."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page, flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w -]", "", plain).replace(" ", "-")
        found.add(
            next(
                name
                for n in itertools.count()
                if (name := f"{anchor}-{n}" if n else anchor) not in found
            )
        )
    return found


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_relative_to(ROOT), target
        assert file.is_file(), target
        if anchor:
            assert anchor in anchors(file.read_text()), target


def test_the_readme_says_of_what_half_must_not_be_lost() -> None:
    """As the rule has it, and no other thing."""
    [sentence] = re.findall(r"lost half of its ([^.]*?) pushes", (ROOT / "README.md").read_text())
    assert re.findall(r"\w+", re.sub(r"\bor\b", "", sentence)) == [*content.WORDS]
    some = dict.fromkeys(content.WORDS, 2)
    for word in content.WORDS:
        assert content.lost_words(some, some | {word: 1}) == [word]


def test_the_readme_is_short_and_its_first_screen_leads_to_a_backup_and_a_restore() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert len(text.split()) <= 900
    screen = text.splitlines()[:FIRST_SCREEN]
    places = [next(n for n, line in enumerate(screen) if word in line) for word in (
        "git clone", "make install", "t3-backup-state run", "online, verified)", "t3-backup-state restore alice --dry-run", "t3-backup-state restore alice   ",
    )]  # fmt: skip
    assert places == sorted(places)


def test_every_guide_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for guide in (ROOT / "docs" / "guide").glob("*.md"):
        assert f"docs/guide/{guide.name}" in readme, guide.name


def named_modules(text: str) -> set[str]:
    """The files and folders of the package that a page names: `worker/child/` and `t3/pairing.py`,
    but not `tools/...`."""
    found = set(re.findall(r"`([a-z0-9_/]+(?:\.py|/))`", text))
    return {
        name
        for name in found
        if not name.startswith(("tools/", "csrc/", "docs/", "tests/", "t3_backup/"))
    }


def test_every_module_that_the_architecture_names_is_there() -> None:
    named = named_modules((ROOT / "docs" / "architecture.md").read_text())
    assert len(named) > 40
    assert {name for name in named if not (ROOT / "t3_backup" / name).exists()} == set()


def test_the_glossary_is_in_order_and_has_each_word_once() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    words = re.findall(r"^\| ([^|]+) \|", text[text.index("## Glossary") :], re.MULTILINE)[1:]
    assert words == sorted(set(words))
    for word in (
        "snapshot",
        "manifest",
        "store",
        "account folder",
        "worker",
        "census",
        "checkpoint",
        "swap",
        "label",
        "accept",
    ):
        assert word in words


# The program's own outputs and names are as they are: they stand in blocks of code, in backticks,
# or are the help of a metric.
_OF_THE_PROGRAM = re.compile(
    r"^( *)```.*?^\1```$|^ {4,}\S[^\n]*$|`[^`]*`|<!--.*?-->|\]\([^)]*\)", re.MULTILINE | re.DOTALL
)
_METRIC = re.compile(r"^\| `t3_.*$", re.MULTILINE)
_PRONOUNS = re.compile(r"\b(he|him|his|himself|she|her|hers|herself)\b", re.IGNORECASE)
_PRIVATE = re.compile(
    r"\b(shelf|shelves|folds?|folded|folding|(hang|hangs|hanging|hung) on|in what room)\b",
    re.IGNORECASE,
)
_DEBIAN = [
    ROOT / "debian" / name
    for name in (
        "t3-backup.README.Debian",
        "t3-autoupdate.README.Debian",
        "control",
        "hooks.d/README",
    )
]
_MANUALS = [
    *sorted((ROOT / "docs").glob("*.8.in")),
    ROOT / "docs" / "t3-pair.1",
    *sorted((ROOT / "debian").glob("*.default")),
]


def prose(text: str) -> str:
    return _OF_THE_PROGRAM.sub("CODE", _METRIC.sub("", text))


@pytest.mark.parametrize(
    "page", [*PAGES, *_DEBIAN, *_MANUALS], ids=lambda page: str(page.relative_to(ROOT))
)
def test_users_are_they_and_words_are_those_of_the_glossary(page: Path) -> None:
    text = prose(page.read_text())
    assert _PRONOUNS.findall(text) == []
    assert _PRIVATE.findall(text) == []
