"""What comes out of the gate's sandbox is the candidate's word: whatever is not exactly a verdict
is a failure, and never a crash."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fake_t3
import pytest
from fake_t3.served import free_port
from hypothesis import given
from hypothesis import strategies as st
from support.t3_data import real_database

from t3_backup.autoupdate import cell
from t3_backup.autoupdate.gate import gate, sandbox
from t3_backup.autoupdate.gate.steps import STEPS
from t3_backup.autoupdate.gate.trial import Given, Patience, try_state
from t3_backup.autoupdate.gate.verdict import EMPTY, Trial, judge_trials, read_trial
from t3_backup.errors import Failure
from t3_backup.system import transient_unit
from t3_backup.system.transient_unit import Done

PASSED: dict[str, Any] = {
    "passed": True, "step": "", "reason": "", "endpoint": "/api/auth/bootstrap", "probe": 200, "server_version": "0.0.24",
    "level_before": 30, "level_after": 30, "slow": False, "database": "state.sqlite", "ledger": [[30, "A"]], "log": [],
}  # fmt: skip
FAILED = PASSED | {
    "passed": False,
    "step": "pairing",
    "reason": "mint: no",
    "endpoint": None,
    "slow": True,
    "level_after": None,
    "database": "",
    "ledger": [],
    "log": ["a", "b"],
}
ABSENT = object()
PATIENT = Patience(serve=30, pair=30, watch=1, stop=30, bring=1)


def read(document: Any, code: int = 0) -> Trial:
    return read_trial(
        "alice", Done(code, document if isinstance(document, str) else json.dumps(document), "")
    )


def test_a_verdict_is_read_as_it_is() -> None:
    assert read(PASSED) == Trial(
        "alice",
        passed=True,
        endpoint="/api/auth/bootstrap",
        probe=200,
        level_before=30,
        level_after=30,
        database="state.sqlite",
        ledger=((30, "A"),),
    )
    assert read(FAILED, 1) == Trial(
        "alice",
        passed=False,
        step="pairing",
        reason="mint: no",
        slow=True,
        probe=200,
        level_before=30,
        log=("a", "b"),
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
        *[("slow", value) for value in (None, 1, "no", ABSENT)],
        *[("database", value) for value in (None, "", "x", "../state.sqlite", 1, ABSENT)],
        *[("ledger", value) for value in (None, [], [[1]], [["1", "A"]], [[1, 2]], {}, ABSENT)],
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
    found = read_trial("alice", Done(0, json.dumps(PASSED), "", timed_out=True))
    assert (found.passed, found.step, found.reason) == (False, "gate", "the trial took too long")
    assert found.slow, "so it is tried once more"


def test_what_is_shown_is_short_and_can_do_nothing_to_a_terminal() -> None:
    found = read(
        FAILED | {"reason": "\x1b[2Jgone\r\n\u202e" + "x" * 10_000, "log": ["\x07" * 1000] * 5000},
        1,
    )
    assert found.reason.startswith("gone???xxx")
    assert len(found.reason) == 500
    assert found.log == ("?" * 500,) * 80
    assert read("", 3).reason == "the trial gave no verdict (exit status 3): "
    said = read_trial("alice", Done(1, "", "one\n\x1b]0;title\x07" + "y" * 9000)).reason
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
    monkeypatch.setattr(cell, "remove_cell", lambda name: None)
    gate.run_trial(tmp_path, EMPTY, None, 1, 60)
    transient_unit.as_owner("nobody", ["true"], 1)
    paths = [next(word for word in line if word.startswith("PATH=")) for line in lines]
    assert paths == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"] * 2


class Gate:
    """The gate without its sandbox: each trial is a real one, in a folder."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, quick: Patience = PATIENT) -> None:
        self.said: list[str] = []
        self.given: dict[str, str | Failure] = {}  # by account: the version that made its data
        self._folder, self._quick, self._count = folder, quick, 0
        patch.setattr(gate, "run_trial", self._run_trial)

    def try_version(self, version: str, variant: str = "good") -> list[Trial]:
        (prefix := self._folder / f"{version}-{variant}").mkdir()
        fake_t3.unpack(prefix, version, variant)
        found = gate.try_version(
            prefix,
            list(self.given),
            self._write,
            watch_seconds=1,
            patience=60,
            say=self.said.append,
        )
        return list(found)

    def _write(self, user: str, folder: Path) -> str:
        if isinstance(given := self.given[user], Failure):
            raise given
        real_database(given, folder / "state.sqlite")
        return "state.sqlite"

    def _run_trial(self, program: Path, subject: str, write: Any, *_: object) -> Trial | None:
        self._count += 1
        base = self._folder / f"base-{self._count}"
        (base / "userdata").mkdir(parents=True)
        live = ""
        try:
            live = write(subject, base / "userdata") if write else ""
        except Failure as failure:
            return Trial(subject, passed=False, step="state", reason=str(failure))
        given = Given(program / "bin/t3", base, free_port(), live)
        found = try_state(given, self._quick)
        return read_trial(subject, Done(0 if found.passed else 1, json.dumps(asdict(found)), ""))


def steps(trials: list[Trial]) -> list[tuple[str, str]]:
    return [(one.subject, one.step) for one in trials]


def test_another_list_of_migrations_below_the_same_level_is_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ids are those of before, and so is the level: only the names differ."""
    tried = Gate(tmp_path, monkeypatch)
    tried.given = {"alice": "state-0.0.24"}
    found = tried.try_version("0.0.25", "other-ledger")
    assert steps(found) == [(EMPTY, ""), ("alice", "migration")]
    assert "it has seen migrations 23 " in found[1].reason
    assert found[1].level_after == found[0].level_after == 31


def test_one_account_s_data_is_no_verdict_on_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = Gate(tmp_path, monkeypatch)
    tried.given = {
        "alice": "state-0.0.25",  # beyond that version: it fails at the login
        "bob": Failure("bob: no copy could be made"),
        "carol": "state-0.0.24",
    }
    found = tried.try_version("0.0.24")
    assert steps(found) == [(EMPTY, ""), ("alice", "pairing"), ("bob", "state"), ("carol", "")]
    verdict = judge_trials(found)
    assert verdict.failed is None
    assert [one.subject for one in verdict.left_out] == ["alice", "bob"]


def test_one_that_is_only_too_slow_is_told_as_such_and_tried_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = Gate(tmp_path, monkeypatch, replace(PATIENT, serve=2))
    found = tried.try_version("0.0.25", "slow-good")
    assert [(one.step, one.slow) for one in found] == [("serve", True)]
    assert [one for one in tried.said if "too slow at serve" in one]
    assert sum("trying an empty state" in one for one in tried.said) == 2


def test_a_slow_good_one_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Gate(tmp_path, monkeypatch)
    found = tried.try_version("0.0.25", "slow-good")
    assert [one.passed for one in found] == [True], found
    assert tried.said == ["gate: trying an empty state"]


def test_a_trial_is_as_fast_as_a_server(tmp_path: Path) -> None:
    """A good version was turned away on a machine with much to do, since it alone was niced."""
    found = sandbox.unit_properties(sandbox.unit_name("alice"), tmp_path, 0)
    assert not [one for one in found if one.startswith(("Nice", "CPU", "IOSchedulingClass"))]
