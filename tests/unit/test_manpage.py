"""The manual pages, the completion and the shipped settings say what the program does: they are
made from it, or held against it."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import manifests
from support.paths import ROOT

from t3_backup import settings
from t3_backup.autoupdate import settings as bump_settings
from t3_backup.backup.result import AccountResult
from t3_backup.cli.parser import build_parser
from t3_backup.output import journald
from t3_backup.output.messages import Message

MAKER = ROOT / "tools" / "manpage.py"
DEBIAN = ROOT / "debian"
LIBRARY = Path("/usr/share/bash-completion/bash_completion")

sys.path.insert(0, str(ROOT / "tools"))
import manpage  # noqa: E402

COMMANDS = manpage.commands(build_parser())
PROGRAMS = manpage.PROGRAMS
# How each is called, and with what: without a command, too, where that means something.
CALLS = [
    (name, words.removeprefix(name).strip(), command)
    for name, program in PROGRAMS.items()
    for words, command in manpage.calls(program.parser())
]


def made(name: str, **environ: str) -> str:
    base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "1790034800"}
    return subprocess.run(
        [sys.executable, MAKER, name],
        env=base | environ,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


RENDERERS = {"mandoc": ["mandoc", "-Tutf8", "-Owidth=1000"], "man": ["man", "--warnings", "-l"]}


@pytest.fixture(scope="module", params=RENDERERS)
def shown(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Each page as it is read, with its words one space apart."""
    if shutil.which(request.param) is None:
        pytest.skip(f"needs {request.param}")
    environ = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "MANWIDTH": "2000",
        "MANROFFOPT": "-rHY=0",
        "MANPAGER": "cat",
    }
    found = {}
    for name in PROGRAMS:
        page = tmp_path_factory.mktemp("man") / f"{name}.8"
        page.write_text(made(name))
        done = subprocess.run(
            [*RENDERERS[request.param], page],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        found[name] = " ".join(re.sub(".\b", "", done.stdout).split())  # bold is struck twice
    return found


@pytest.mark.parametrize(("name", "command", "options"), CALLS)
def test_every_command_and_option_is_on_the_page_with_its_help(
    shown: dict[str, str], name: str, command: str, options: argparse.ArgumentParser
) -> None:
    page = shown[name]
    begin = "Without a command "
    if command:
        about, _ = manpage.commands(PROGRAMS[name].parser())[command]
        begin = f"{command} {about[:1].upper()}{about[1:]}."
    start = page.index(begin, page.index("COMMANDS AND OPTIONS"))
    section = page[start : page.index("-h, --help", start)]
    for option in filter(lambda argument: argument.option_strings, manpage.arguments(options)):
        words = [", ".join(option.option_strings), option.metavar, option.help]
        assert " ".join(str(word) for word in words if word) in section
    called = page[page.index("SYNOPSIS") : page.index("DESCRIPTION")]
    assert (
        " ".join([name, *command.split(), *map(manpage.shape, manpage.arguments(options)), name])
        in called
    )


SETTINGS = [
    (name, setting.name, setting.default)
    for name, program in PROGRAMS.items()
    for setting in program.known.values()
]


@pytest.mark.parametrize(("name", "setting", "default"), SETTINGS)
def test_every_setting_is_on_the_page_with_its_default(
    shown: dict[str, str], name: str, setting: str, default: str
) -> None:
    assert re.search(rf"{setting} .+? Default: {re.escape(default)}\.", shown[name])


def test_every_exit_code_is_on_the_page(shown: dict[str, str]) -> None:
    for name, codes in (
        ("t3-backup-state", ["0", "1", "2", "3", "4", "75"]),
        ("t3-autoupdate", ["0", "1", "2", "75"]),
    ):
        begin = shown[name].index("EXIT STATUS")
        section = shown[name][begin : shown[name].index("FILES", begin)]
        assert re.findall(r" (\d+) [A-Z]", section) == codes


def test_every_field_of_the_journal_is_on_the_page(shown: dict[str, str]) -> None:
    page = shown["t3-backup-state"]
    section = page[page.index("JOURNAL Events") : page.index("EXAMPLES")]
    line = Message(
        6,
        "text",
        manifests.stored_snapshot(
            manifests.make_manifest(label="before"), Path("/store/alice/x.sqlite"), "plain"
        ),
    )
    fields = journald.entry_fields(line, AccountResult("alice", "backed_up", "reason"), "run")
    assert {name for name in fields if name.startswith("T3_")} == set(
        re.findall(r"T3_\w+", section)
    )


def test_what_is_to_be_typed_is_shown_as_it_is(shown: dict[str, str]) -> None:
    for name, program in PROGRAMS.items():
        typed = re.findall(rf"^  ({name}.*?)(?:  |$)", program.parser().epilog or "", re.MULTILINE)
        assert len(typed) > 5
        for command in typed:
            assert command in shown[name]
    page = shown["t3-backup-state"]
    assert "[Service] ReadWritePaths=/srv/backups" in page
    assert "'latest'" in page
    assert " ~/.t3/userdata:" in page


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_page_is_the_same_bytes_wherever_it_is_made(name: str) -> None:
    assert made(name) == made(
        name, COLUMNS="30", LC_ALL="C", TZ="Asia/Kathmandu", PYTHONHASHSEED="3"
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_on_a_page_is_left_to_fill_in_or_taken_for_a_request(name: str) -> None:
    assert not re.search(r"@[A-Z]+@", made(name))
    assert manpage.escape("-x\n.so /etc\n'y \\z ~") == "\\-x\n\\&.so /etc\n\\(aqy \\ez \\(ti"


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="needs mandoc")
def test_mandoc_has_nothing_to_object(tmp_path: Path) -> None:
    for name in PROGRAMS:
        (tmp_path / f"{name}.8").write_text(made(name))
    pages = [*tmp_path.iterdir(), ROOT / "docs" / "t3-pair.1"]
    done = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning", *pages], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("active", [False, True])
def test_the_shipped_settings_are_all_there_with_their_true_defaults(
    active: bool, tmp_path: Path
) -> None:
    readers = {
        "t3-backup-state": lambda file: settings.load({}, {}, file),
        "t3-autoupdate": lambda file: bump_settings.load({}, file),
    }
    for name, load in readers.items():
        text = PROGRAMS[name].defaults.read_text()
        file = tmp_path / name
        file.write_text(re.sub(r"^#(?=T3_)", "", text, flags=re.MULTILINE) if active else text)
        assert load(file) == load(Path("/nonexistent"))
        assert re.findall(r"^#(T3_\w+)=(.+)$", text, re.MULTILINE) == [
            (known.name, known.default) for known in PROGRAMS[name].known.values()
        ]


def completed(*words: str, name: str = "t3-backup-state", **environ: str) -> set[str]:
    """What a real bash offers for the last of `words`."""
    script = 'source "$1"; source "$2"; COMP_LINE=$3; shift 3; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_POINT=${#COMP_LINE}; '
    script += f'_{name.replace("-", "_")}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    typed = [name, *words]
    # as bash does it
    parts = [
        part
        for word in typed
        for part in (re.split("(=)", word) if word.startswith("--") else [word])
    ]
    line = [
        "bash",
        "-c",
        script,
        "bash",
        LIBRARY,
        DEBIAN / f"{name}.completion",
        " ".join(typed),
        *parts,
    ]
    done = subprocess.run(
        line,
        env={"PATH": os.environ["PATH"]} | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return {word.strip() for word in done.stdout.split("\n")} - {""}


@pytest.mark.skipif(not LIBRARY.exists(), reason="needs bash-completion")
class TestCompletion:
    @pytest.mark.parametrize("name", PROGRAMS)
    def test_each_command_is_offered(self, name: str) -> None:
        assert completed("", name=name) == set(manpage.commands(PROGRAMS[name].parser()))

    @pytest.mark.parametrize(("name", "command", "parsed"), CALLS)
    def test_each_option_of_a_command_is_offered_and_no_other(
        self, name: str, command: str, parsed: argparse.ArgumentParser
    ) -> None:
        options = {
            action.option_strings[-1]
            for action in manpage.arguments(parsed)
            if action.option_strings
        }
        general = {"--help"} if command else {"--help", "--version"}
        assert completed(*command.split(), "--", name=name) == options | general

    def test_a_place_that_begins_with_a_dash_is_no_option_of_find(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "mine").touch()
        monkeypatch.chdir(tmp_path)
        assert completed("list", "--dest", "-delete", "") == set(
            completed("list", "--dest", "/nonexistent", "")
        )
        assert (tmp_path / "mine").exists()

    def test_users_are_those_of_the_map_and_of_the_store(self, tmp_path: Path) -> None:
        (tmp_path / "map").write_text("# a=b\na@x=alice:/srv\nb@x=bob\n")
        for folder in ("carol", "alice", "bob+old"):
            (tmp_path / "store" / folder).mkdir(parents=True)
        given = ("--map", str(tmp_path / "map"), "--dest", str(tmp_path / "store"))
        assert completed("run", *given, "--user", "") == {"alice", "bob", "carol"}
        assert completed(
            "run", f"--map={tmp_path}/map", f"--dest={tmp_path}/none", "--user", "b"
        ) == {"bob"}
        assert completed("list", "", T3_BACKUP_DEST=str(tmp_path / "store")) >= {"carol"}
        assert completed("list", "--dest", str(tmp_path / "store"), "ca") == {"carol"}
        assert completed("list", "--dest", str(tmp_path / "store"), "carol", "") == set()

    def test_a_moment_is_an_age_or_a_snapshot_of_the_user(self, tmp_path: Path) -> None:
        account_dir = tmp_path / "alice"
        account_dir.mkdir()
        name = "state-20261120T101500Z-prebump-0.0.25"
        for file in (f"{name}.sqlite", f"{name}.json"):
            (account_dir / file).touch()
        assert completed("verify", "--dest", str(tmp_path), "alice", "--at", "") == {
            "latest",
            "1d",
            "7d",
            name,
        }
        assert completed("verify", "--dest", str(tmp_path), "--at", "") == {"latest", "1d", "7d"}

    @pytest.mark.parametrize("command", ["pin", "unpin"])
    def test_each_name_behind_the_user_is_one_of_their_snapshots(
        self, command: str, tmp_path: Path
    ) -> None:
        names = [f"state-2026112{day}T101500Z" for day in range(3)]
        for user, name in (("alice", names[0]), ("alice", names[1]), ("bob", names[2])):
            (tmp_path / user).mkdir(exist_ok=True)
            (tmp_path / user / f"{name}.sqlite").touch()
        store = ("--dest", str(tmp_path))
        assert completed(command, *store, "a") >= {"alice"}
        assert completed(command, *store, "alice", "") == {"latest", *names[:2]}
        assert completed(command, *store, "alice", names[0], "state-") == set(names[:2])

    def test_folders_and_files_are_offered_where_they_are_wanted(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
        assert completed("run", "--dest", f"{tmp_path}/f") == {f"{tmp_path}/folder"}
        assert completed("run", f"--dest={tmp_path}/f") == {f"{tmp_path}/folder"}
        assert completed("run", "--map", f"{tmp_path}/f") == {
            f"{tmp_path}/folder",
            f"{tmp_path}/file",
        }
        assert completed("run", "--label", "") == completed("run", "--keep", "") == set()

    def test_nothing_that_a_name_contains_is_run(self, tmp_path: Path) -> None:
        store, trace = tmp_path / "store", tmp_path / "trace"
        evil = "$(cd ..; cd ..; echo>trace)"
        (store / evil).mkdir(parents=True)
        (store / "alice").mkdir()
        (store / "alice" / f"state-{evil}.sqlite").touch()
        (tmp_path / "map").write_text(f"a=$(echo>{trace})\nb=`echo>{trace}`\nc=bob\n")
        given = ("--map", str(tmp_path / "map"), "--dest", str(store))
        assert completed("run", *given, "--user", "", PWD=str(store)) == {"alice", "bob"}
        assert completed("verify", *given[2:], "alice", "--at", "") == {"latest", "1d", "7d"}
        assert not trace.exists()
