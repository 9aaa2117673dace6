"""Where the values of a run come from, and that a senseless one is refused where it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.paths import ROOT
from support.users import needs_root

from t3_backup.errors import UsageError
from t3_backup.settings import Settings, load

NAMES = {
    "dest": "T3_BACKUP_DEST",
    "map": "T3_BACKUP_MAP",
    "keep": "T3_BACKUP_KEEP",
    "keep_daily": "T3_BACKUP_KEEP_DAILY",
    "keep_weekly": "T3_BACKUP_KEEP_WEEKLY",
    "keep_monthly": "T3_BACKUP_KEEP_MONTHLY",
    "keep_yearly": "T3_BACKUP_KEEP_YEARLY",
    "keep_labelled": "T3_BACKUP_KEEP_LABELLED",
    "timeout": "T3_BACKUP_TIMEOUT",
    "jobs": "T3_BACKUP_JOBS",
    "stall": "T3_BACKUP_STALL",
    "wal_budget": "T3_BACKUP_WAL_BUDGET",
    "reserve": "T3_BACKUP_RESERVE",
    "max_bytes": "T3_BACKUP_MAX_BYTES",
    "compact": "T3_BACKUP_COMPACT",
    "log": "T3_BACKUP_LOG",
    "files_limit": "T3_BACKUP_FILES_LIMIT",
    "base_dirs": "T3_BACKUP_BASE_DIRS",
    "ignore": "T3_BACKUP_IGNORE",
    "textfiles": "T3_BACKUP_TEXTFILE_DIR",
    "hooks": "T3_BACKUP_HOOKS",
    "hook_timeout": "T3_BACKUP_HOOK_TIMEOUT",
}
# Four texts a field, for the four places that it can stand in, and what the last three mean.
FOUR = {
    "dest": ("/a", Path("/a"), "/b", Path("/b"), "/c", Path("/c")),
    "map": ("/a", Path("/a"), "/b", Path("/b"), "/c", Path("/c")),
    "keep": ("1", 1, "2", 2, "3", 3),
    "keep_daily": ("1", 1, "0", 0, "3", 3),
    "keep_weekly": ("1", 1, "0", 0, "3", 3),
    "keep_monthly": ("1", 1, "0", 0, "3", 3),
    "keep_yearly": ("1", 1, "0", 0, "3", 3),
    "keep_labelled": ("1", 1, "0", 0, "3", 3),
    "timeout": ("1", 1, "2", 2, "3", 3),
    "jobs": ("1", 1, "2", 2, "3", 3),
    "stall": ("1", 1, "2", 2, "3", 3),
    "wal_budget": ("1K", 1024, "2", 2, "3G", 3 << 30),
    "reserve": ("1K", 1024, "auto", None, "3G", 3 << 30),
    "max_bytes": ("1K", 1024, "2", 2, "3G", 3 << 30),
    "compact": ("delta", "delta", "off", "off", "reflink", "reflink"),
    "log": ("/a", Path("/a"), "/b", Path("/b"), "/c", Path("/c")),
    "files_limit": ("1K", 1024, "2", 2, "3G", 3 << 30),
    "base_dirs": (
        "alice=/a",
        (("alice", Path("/a")),),
        "none",
        (),
        "alice=/c bob=/d",
        (("alice", Path("/c")), ("bob", Path("/d"))),
    ),
    "ignore": ("/a", ("/a",), "none", (), "/c/*.db '/d e'", ("/c/*.db", "/d e")),
    "textfiles": ("/a", Path("/a"), "none", None, "/c", Path("/c")),
    "hooks": ("/a", Path("/a"), "/b", Path("/b"), "/c", Path("/c")),
    "hook_timeout": ("1", 1, "2", 2, "3", 3),
}
NUMBERS = (
    "",
    "0",
    "-1",
    "1.5",
    "1e3",
    "+7",
    " 7",
    "7 ",
    "7\n",
    "\u0667",
    "seven",
    "0x10",
    "1_000",
    "9999999999",
)
FROM_NOTHING = ("keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_labelled")
SENSELESS = (
    [("dest", text) for text in ("relative", "./x", "~/x", "../x", "/with\0zero")]
    + [
        (field, text)
        for field in ("map", "log", "textfiles", "hooks")
        for text in ("relative", "~/map", "/with\0zero")
    ]
    + [
        (field, text)
        for field in ("keep", "timeout", "jobs", "stall", "hook_timeout")
        for text in NUMBERS
        if text
    ]
    + [
        (field, text)
        for field in FROM_NOTHING
        for text in (*NUMBERS, "100001")
        if text not in ("", "0")
    ]
    + [
        ("keep", "100001"),
        ("timeout", "86401"),
        ("jobs", "65"),
        ("stall", "86401"),
        ("hook_timeout", "86401"),
    ]
    + [
        (field, text)
        for field in ("wal_budget", "reserve", "max_bytes", "files_limit")
        for text in ("-1", "1.5G", "2g", "1 G", "G", "5P", "1GB", "much", "\u0667")
    ]
    + [("reserve", "AUTO"), ("max_bytes", "AUTO")]
    + [
        ("base_dirs", text)
        for text in (
            *("alice", "alice=", "=/a", "alice=a", "alice=~/a", "alice=/a/../b", "alice=/a/"),
            *("alice=/a alice=/b", "../x=/a", "alice=/a,bob=/b bob", 'alice="/a'),
        )
    ]
    + [("ignore", text) for text in ("a", "*.sqlite", "/a b", "~/a", "/a//b", "/a/./b", '"/a')]
    + [("compact", text) for text in ("on", "Delta", "delta,off", " off")]
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "default-file"


def refusal(flags: dict[str, str | None], environ: dict[str, str], file: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load(flags, environ, file)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_without_anything_the_documented_defaults_hold(file: Path) -> None:
    assert load({}, {}, file) == Settings(
        dest=Path("/var/backups/t3-state"),
        map=Path("/etc/ttyd-user-map"),
        keep=14,
        keep_daily=0,
        keep_weekly=0,
        keep_monthly=0,
        keep_yearly=0,
        keep_labelled=14,
        timeout=900,
        jobs=1,
        stall=60,
        wal_budget=1 << 30,
        reserve=None,
        max_bytes=None,
        compact="auto",
        log=Path("/var/log/t3-backup/t3-backup-state.log"),
        files_limit=1 << 30,
        textfiles=Path("/var/lib/prometheus/node-exporter"),
        hooks=Path("/etc/t3-backup/hooks.d"),
        hook_timeout=30,
    )


@pytest.mark.parametrize("field", NAMES)
def test_the_file_beats_the_default_the_environment_the_file_and_a_flag_all(
    field: str, file: Path
) -> None:
    in_file, from_file, in_environ, from_environ, in_flag, from_flag = FOUR[field]
    file.write_text(f"{NAMES[field]}={in_file}\n")
    environ = {NAMES[field]: in_environ}
    assert getattr(load({}, {}, file), field) == from_file
    assert getattr(load({}, environ, file), field) == from_environ
    assert getattr(load({field: in_flag}, environ, file), field) == from_flag
    assert getattr(load({field: None}, environ, file), field) == from_environ


def test_an_empty_value_is_none_at_all(file: Path) -> None:
    file.write_text("T3_BACKUP_KEEP=\nT3_BACKUP_JOBS=''\n")
    assert load({}, {}, file).keep == 14
    assert load({}, {}, file).jobs == 1
    file.write_text("T3_BACKUP_KEEP=7\n")
    assert load({}, {"T3_BACKUP_KEEP": ""}, file).keep == 7


@pytest.mark.parametrize("flag", ["", "0", "x"])
def test_an_empty_flag_is_refused_and_not_taken_for_unset(flag: str, file: Path) -> None:
    assert "flag --keep" in refusal({"keep": flag}, {}, file)


@pytest.mark.parametrize(("field", "text"), SENSELESS)
def test_a_senseless_value_is_refused_with_its_name_value_and_origin(
    field: str, text: str, file: Path
) -> None:
    name = NAMES[field]
    flagged = refusal({field: text}, {}, file)
    inherited = refusal({}, {name: text}, file)
    for message, origin in ((flagged, f"(flag --{field})"), (inherited, "(environment)")):
        assert name in message
        assert repr(text) in message
        assert origin in message
    if "\n" not in text and "\0" not in text:
        file.write_text(f"# first\n\n{name}='{text}'\n")
        message = refusal({}, {}, file)
        assert name in message
        assert repr(text) in message
        assert f"({file}:3)" in message


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("4096", 4096),
        ("1K", 1024),
        ("5M", 5 << 20),
        ("2G", 2 << 30),
        ("1T", 1 << 40),
        ("007", 7),
    ],
)
def test_sizes_are_in_bytes_with_units_of_1024(text: str, size: int, file: Path) -> None:
    assert load({}, {"T3_BACKUP_RESERVE": text}, file).reserve == size


def test_the_file_is_read_as_a_shell_would(file: Path) -> None:
    file.write_text(
        "# a comment\n"
        "   # another, indented\n"
        "\n"
        "T3_BACKUP_DEST='/var/with space'   # behind a value\n"
        'export T3_BACKUP_MAP="/etc/the map"\n'
        "export T3_BACKUP_KEEP=3 T3_BACKUP_JOBS=2\n"
        "T3_BACKUP_TIMEOUT=5\n"
        "T3_BACKUP_TIMEOUT=6\n"
        "export\n"
        "PATH=/usr/bin\n"
    )
    found = load({}, {}, file)
    assert (found.dest, found.map) == (Path("/var/with space"), Path("/etc/the map"))
    assert (found.keep, found.jobs, found.timeout) == (3, 2, 6)


@pytest.mark.parametrize(
    "line",
    [
        "T3_BACKUP_KEPT=3",
        "T3_BACKUP_=3",
        "export T3_BACKUP_DESTINATION=/x",
        "T3_BACKUP_KEEP",
        "T3_BACKUP_KEEP =3",
        "T3_BACKUP_KEEP= 3",
        "T3_BACKUP_KEEP: 3",
        "T3_BACKUP_KEEP='3",
        "run --keep 3",
    ],
)
def test_a_line_that_sets_nothing_known_is_refused_by_its_number(line: str, file: Path) -> None:
    file.write_text(f"PATH=/usr/bin\n\n{line}\n")
    assert refusal({}, {}, file).startswith(f"{file}:3: ")


def test_a_misspelt_name_is_answered_with_those_that_exist(file: Path) -> None:
    file.write_text("T3_BACKUP_KEPT=3\n")
    message = refusal({}, {}, file)
    assert "'T3_BACKUP_KEPT=3'" in message
    assert all(name in message for name in NAMES.values())


def test_no_file_is_as_good_as_an_empty_one(file: Path) -> None:
    assert load({}, {}, file) == load({}, {}, Path(os.devnull))


def test_a_file_that_is_a_folder_or_no_text_is_refused(file: Path, tmp_path: Path) -> None:
    assert str(tmp_path) in refusal({}, {}, tmp_path)
    file.write_bytes(b"T3_BACKUP_KEEP=\xff\n")
    assert str(file) in refusal({}, {}, file)


@needs_root
def test_a_file_that_may_not_be_read_is_refused_and_not_taken_for_absent(host) -> None:
    file = host.folder / "default-file"
    file.write_text("T3_BACKUP_DEST=/elsewhere\n")
    file.chmod(0o600)
    code = (
        "import os, pwd, sys; from pathlib import Path; from t3_backup.cli.main import main; "
        "os.setgroups([]); os.setuid(pwd.getpwnam('nobody').pw_uid); "
        "sys.exit(main(['list'], {}, Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (2, ""), done
    assert (
        done.stderr
        == f"t3-backup-state: {file}: cannot be read: [Errno 13] Permission denied: '{file}'\n"
    )


def test_who_must_go_on_gets_what_makes_sense_and_the_default_for_the_rest(file: Path) -> None:
    file.write_text("T3_BACKUP_HOOKS=/mine\nT3_BACKUP_KEEP=many\nwhat is this\nT3_BACKUP_JOBS=7\n")
    found = load({}, {"T3_BACKUP_TIMEOUT": "soon", "T3_BACKUP_STALL": "7"}, file, forgiving=True)
    assert found == replace(load({}, {}, Path("/nonexistent")), hooks=Path("/mine"), stall=7)
