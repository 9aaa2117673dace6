"""What comes out of the gate's sandbox is the candidate's word: whatever is not exactly a verdict
is a failure, and never a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3_backup.autoupdate.gate import gate, sandbox
from t3_backup.autoupdate.gate.steps import STEPS
from t3_backup.system import transient_unit
from t3_backup.system.transient_unit import Done

PASSED: dict[str, Any] = {
    "passed": True, "step": "", "reason": "", "endpoint": "/api/auth/bootstrap", "probe": 200, "server_version": "0.0.24",
    "level_before": 30, "level_after": 30, "log": [],
}  # fmt: skip
FAILED = PASSED | {
    "passed": False,
    "step": "pairing",
    "reason": "mint: no",
    "endpoint": None,
    "level_after": None,
    "log": ["a", "b"],
}
ABSENT = object()


def read(document: Any, code: int = 0) -> gate.Trial:
    return gate.read_trial(
        "alice", Done(code, document if isinstance(document, str) else json.dumps(document), "")
    )


def test_a_verdict_is_read_as_it_is() -> None:
    assert read(PASSED) == gate.Trial("alice", True, "", "", "/api/auth/bootstrap", 200, 30, 30, ())
    assert read(FAILED, 1) == gate.Trial(
        "alice", False, "pairing", "mint: no", None, 200, 30, None, ("a", "b")
    )
    assert read(PASSED | {"level_before": None}).passed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("passed", value) for value in (1, "true", None, [True], ABSENT)],
        *[("step", value) for value in ("start", None, 1, [], {}, ABSENT)],
        *[("reason", value) for value in (None, 5, ["x"], ABSENT)],
        *[("endpoint", value) for value in (None, "/elsewhere", 1, [], {}, ABSENT)],
        *[("probe", value) for value in ("200", 200.0, True, -1, 1 << 40, [], ABSENT)],
        *[("level_before", value) for value in ("30", 30.5, False, -1, 1 << 70, 31, ABSENT)],
        *[("level_after", value) for value in ("30", 30.5, True, None, 29, 10**4000, ABSENT)],
        *[("log", value) for value in (None, "text", {"a": 1}, [1], [None], [["x"]], ABSENT)],
    ],
)
def test_a_field_of_another_type_or_sense_is_no_verdict(field: str, value: Any) -> None:
    document = {key: one for key, one in (PASSED | {field: value}).items() if one is not ABSENT}
    found = read(document)
    assert (found.passed, found.step) == (False, "gate")
    assert found.reason.startswith("the trial gave no verdict (exit status 0)")


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "true", "1", '"passed"', "{", "{}", json.dumps(PASSED) * 2, json.dumps(PASSED)[:-1], "[" * 200_000, "9" * 10_000,
     "x" * 300_000, json.dumps(PASSED).replace("200", "NaN"), json.dumps(PASSED).replace("200", "1e400"), "\0\ufffd"],
)  # fmt: skip
def test_what_is_no_such_document_is_no_verdict(text: str) -> None:
    found = read(text)
    assert (found.passed, found.step) == (False, "gate")


def test_the_exit_status_must_say_the_same() -> None:
    assert read(PASSED, 1).step == "gate"
    assert read(PASSED, -9).step == "gate"
    assert read(FAILED, 0).step == "gate"
    assert not read(FAILED, 0).passed


def test_one_that_took_too_long_has_not_passed_whatever_it_said() -> None:
    found = gate.read_trial("alice", Done(0, json.dumps(PASSED), "", timed_out=True))
    assert (found.passed, found.step, found.reason) == (False, "gate", "the trial took too long")


def test_what_is_shown_is_short_and_can_do_nothing_to_a_terminal() -> None:
    found = read(
        FAILED | {"reason": "\x1b[2Jgone\r\n\u202e" + "x" * 10_000, "log": ["\x07" * 1000] * 5000},
        1,
    )
    assert found.reason.startswith("?[2Jgone???xxx")
    assert len(found.reason) == 500
    assert found.log == ("?" * 500,) * 40
    assert read("", 3).reason == "the trial gave no verdict (exit status 3): "
    said = gate.read_trial("alice", Done(1, "", "one\n\x1b]0;title\x07" + "y" * 9000)).reason
    assert "\x1b" not in said
    assert len(said) < 600


# Small ones: it is their types that count, and sizes are tried above.
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    plain,
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(sorted(PASSED)), anything, max_size=4),
    st.sampled_from([PASSED, FAILED]),
    st.integers(-15, 255),
)
def test_no_document_breaks_it(changed: dict[str, Any], base: dict[str, Any], code: int) -> None:
    found = read(base | changed, code)
    assert type(found.passed) is bool
    assert found.step in ("", "gate", *STEPS)
    assert found.passed == (found.step == "")
    assert not found.passed or code == 0


@given(
    st.text() | st.binary().map(lambda data: data.decode(errors="replace")), st.integers(-15, 255)
)
def test_no_text_breaks_it(text: str, code: int) -> None:
    assert not read(text, code).passed


def test_no_two_accounts_share_a_sandbox_and_no_name_leaves_its_place() -> None:
    names = {
        sandbox.unit_name(user)
        for user in (None, "empty", "alice", "alice.x", "Alice", "a-b", "a_b", "../x", "ü$")
    }
    assert len(names) == 9
    for name in names:
        assert name.startswith("t3-gate-")
        assert name.replace("-", "").isalnum()
        assert name.isascii()


def test_a_sandbox_has_nothing_of_the_machine_but_what_is_named() -> None:
    found = sandbox.unit_properties(
        sandbox.unit_name("alice"), Path("/var/lib/t3-autoupdate/versions/0.0.25"), 0
    )
    [bound] = [one for one in found if one.startswith("Bind")]
    shown = "/usr -/etc/alternatives -/etc/ld.so.cache /var/lib/t3-autoupdate/versions/0.0.25"
    assert bound == f"BindReadOnlyPaths={shown}"
    assert not [
        one
        for one in found
        if one.startswith(
            ("BindPaths", "ReadWritePaths", "TemporaryFileSystem=/:", "LoadCredential")
        )
    ]


def test_node_is_looked_for_where_the_servers_look_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each version would be turned away where node is one of /usr/local."""
    lines: list[list[str]] = []

    def run(line: list[str], **_: object) -> transient_unit.Done:
        lines.append(line)
        return transient_unit.Done(1, "", "")

    monkeypatch.setattr(transient_unit, "run", run)
    monkeypatch.setattr(sandbox, "build_root", lambda name: tmp_path / name)
    monkeypatch.setattr(sandbox, "remove_root", lambda name: None)
    gate.run_trial(tmp_path, gate.EMPTY, None, 1)
    transient_unit.as_owner("nobody", ["true"], 1)
    paths = [next(word for word in line if word.startswith("PATH=")) for line in lines]
    assert paths == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"] * 2
