"""What the user map says, and whom the system knows."""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.users import needs_root

from t3_backup.accounts import (
    UserMap,
    find,
    folder_name,
    is_user_name,
    parse_map,
    read_map,
    user_of_folder,
)
from t3_backup.errors import Failure, UsageError
from t3_backup.t3.files import STATE_DATABASE, state_database
from t3_backup.text import quote


def users(text: str) -> tuple[str, ...]:
    found = parse_map(text, "map")
    assert found.warnings == ()
    return found.users


def test_comments_blanks_and_folders_are_no_part_of_a_name() -> None:
    text = """
# authentik=os_user[:cwd]
bob@example.org=bob
   # indented

alice@example.org=alice:/home/alice/code   # a project
  carol = carol : /srv/x:y
#dave=dave
"""
    assert users(text) == ("alice", "bob", "carol")


def test_each_user_is_there_once_and_in_order() -> None:
    assert users("b=zoe\na=bob\nc=zoe:/x\nd=amy\n") == ("amy", "bob", "zoe")


@pytest.mark.parametrize(
    "name", ["alice", "a", "_apt", "svc-1", "first.last", "user@realm", "A1", "0day", "a" * 64]
)
def test_names_that_systems_use_are_taken(name: str) -> None:
    assert users(f"x={name}") == (name,)
    assert is_user_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        ".",
        ".hidden",
        "../x",
        "a/b",
        "/etc",
        "-rf",
        "a b",
        "a\tb",
        "a" * 65,
        "ünï",
        "a\0",
        "a=b",
        "*",
        "@x",
        "a$",
    ],
)
def test_a_name_that_could_be_a_path_an_option_or_a_pattern_is_no_folder_of_that_name(
    name: str,
) -> None:
    """Row 54. The system has no such user, which is told; and if it had one, they would have a
    folder of their own, or be refused."""
    found = parse_map(f"x={name}", "map")
    assert found.users == ()
    assert len(found.warnings) == 1
    assert found.passed_over == ((name.strip(),) if name else ())
    assert not is_user_name(name) or is_safe(folder_name(name))
    assert user_of_folder(name) != name or is_safe(name)


def is_safe(folder: str) -> bool:
    """Whether it is the name of one folder, and means nothing to a path, an option or us."""
    plain = not set(folder) & set("/+*?[]$&;|<>(){}!#'`~ \"\0\n\t")
    short = 0 < len(os.fsencode(folder)) <= 200
    return plain and short and folder.isprintable() and folder[0] not in ".-@\\"


NAMES = st.one_of(
    st.text(min_size=1, max_size=80),
    st.text("a.-+%/@\\é\n4F", min_size=1, max_size=20),
    st.sampled_from(["attempts.json", "CORP\\bob", "josé", "a+old", "a+catalog", "%61", "a" * 255]),
)


@given(NAMES)
def test_each_user_has_a_safe_folder_that_is_nobody_elses(name: str) -> None:
    """Row 54."""
    folder = folder_name(name)
    if is_user_name(name):
        assert is_safe(folder)
        assert user_of_folder(folder) == name
    else:
        assert user_of_folder(folder) is None
    if (owner := user_of_folder(name)) is not None:
        assert is_safe(name)
        assert folder_name(owner) == name


@pytest.mark.parametrize(
    "name", ["alice", "svc-1", "first.last", "user@realm", "CORP\\bob", "josé"]
)
def test_a_usual_name_is_the_folders_name(name: str) -> None:
    assert folder_name(name) == name


def test_no_account_folder_is_a_file_of_the_stores() -> None:
    assert folder_name("attempts.json") != "attempts.json"
    assert user_of_folder("attempts.json") is None


def test_two_lines_of_one_user_are_one_by_the_systems_spelling() -> None:
    """Row 54."""
    system = {"ALICE": "alice", "alice": "alice", "CORP\\alice": "alice", "bob": "CORP\\bob"}
    text = "a=ALICE\nb=alice\nc = CORP\\alice : /srv # x\nd=bob\ne=zoe\nf=no/body\n"
    found = parse_map(text, "map", system.get)
    assert found.users == ("CORP\\bob", "alice", "zoe")
    [warning] = found.warnings
    assert warning == "map:6: no such user on this system: 'f=no/body'"
    assert found.passed_over == ("no/body",)


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a\nb", " a", "x" * 255, "\udcff"])
def test_a_user_who_can_t_be_looked_after_is_named_with_the_reason(name: str) -> None:
    """Row 54."""
    found = parse_map("a=amy\nb=them\n", "map", {"them": name}.get)
    assert found.users == ("amy",)
    assert found.passed_over == ("them",)
    [warning] = found.warnings
    assert warning.startswith("map:2: a name ")


@pytest.mark.parametrize(
    "line",
    [
        "alice",
        "=alice",
        " = alice",
        "alice=",
        "alice=:",
        "alice=:/home/alice",
        "a:alice",
        "x=#alice",
        "==a",
    ],
)
def test_a_bad_line_is_named_with_its_number_and_stops_no_other(line: str) -> None:
    found = parse_map(f"# map\nb=bob\n{line}\na=amy\n\nnonsense\n", "/etc/the-map")
    assert found.users == ("amy", "bob")
    first, second = found.warnings
    assert first.startswith("/etc/the-map:3: ")
    assert repr(line.strip()) in first
    assert second.startswith("/etc/the-map:6: ")


def test_a_mark_within_a_word_begins_no_comment() -> None:
    assert users("al#ice@example=alice:/home/c#") == ("alice",)


def test_an_empty_map_is_empty_and_one_of_bad_lines_is_not() -> None:
    assert parse_map("\n# nobody yet\n", "map") == UserMap((), ())
    assert parse_map("nonsense\n", "map").warnings
    assert parse_map("a=amy\n", "map").users


@given(st.text())
def test_no_text_is_too_strange_to_parse(text: str) -> None:
    found = parse_map(text, "map")
    assert list(found.users) == sorted(set(found.users))
    assert all(
        is_user_name(user) and Path("/store", user).parent == Path("/store") for user in found.users
    )
    assert all(warning.isprintable() for warning in found.warnings)


@given(st.lists(st.sampled_from(["a=amy", "b=bob:/x # c", "# c", "", "nonsense", "x=../x"])))
def test_every_line_counts_or_is_warned_of(lines: list[str]) -> None:
    found = parse_map("\n".join(lines), "map")
    assert set(found.users) == {line[2:5] for line in lines if line[:2] in ("a=", "b=")}
    bad = [
        f"map:{number}: " for number, line in enumerate(lines, 1) if line in ("nonsense", "x=../x")
    ]
    assert len(found.warnings) == len(bad)
    assert all(
        warning.startswith(place) for warning, place in zip(found.warnings, bad, strict=True)
    )


def test_a_map_with_bytes_that_are_no_text_loses_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_bytes(b"a=amy\n\xff\xfe=b\xffb\n\xff=bob\n")
    found = read_map(path)
    assert found.users == ("amy", "bob")
    [warning] = found.warnings
    assert warning.startswith(f"{path}:2: ")
    assert warning.isprintable()


def test_a_map_that_is_not_there_is_wrong_configuration(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError, match="T3_BACKUP_MAP"):
            read_map(path)


@pytest.mark.parametrize("name", ["root", "t3-nobody-has-this-name", "../x", ""])
def test_root_and_those_whom_nobody_knows_have_no_account(name: str) -> None:
    with pytest.raises(Failure, match="uid 0 is refused" if name == "root" else "no such user"):
        find(name)


def test_an_account_has_the_systems_spelling_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 54. Whatever name the system was asked for."""
    odd = {"ALICE": "alice", "long": "a" * 201, "two lines": "a\nb"}
    home = ("x", 1234, 1234, "", "/home/x", "/bin/sh")
    monkeypatch.setattr(pwd, "getpwnam", lambda name: pwd.struct_passwd((odd[name], *home)))
    assert find("ALICE").user == "alice"
    for name, why in (("long", "a name that is too long"), ("two lines", "can't be printed")):
        with pytest.raises(Failure, match=f"{why}.* is not looked after"):
            find(name)


@needs_root
def test_an_account_is_what_the_system_says(make_user) -> None:
    user = make_user("u-accounts")
    found = find(user.name)
    assert (found.user, found.uid, found.gid, found.home) == (
        user.name,
        user.uid,
        user.gid,
        user.home,
    )
    assert state_database(found.home) == user.home / STATE_DATABASE == user.database
    assert found.groups == tuple(sorted(set(os.getgrouplist(user.name, user.gid))))
    assert pwd.getpwnam(user.name).pw_uid == found.uid


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])))
def test_a_shell_takes_a_quoted_name_for_one_word(name: str) -> None:
    """Row 54. A person copies the command that a message tells."""
    assert shlex.split(quote(name)) == [name]


@pytest.mark.parametrize("name", ["CORP\\bob", "it's", "$(id)", "a b", "josé", "-rf;"])
def test_a_real_shell_does_too(name: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"printf %s {quote(name)}"], capture_output=True, text=True, check=True
    )
    assert done.stdout == name
