"""Out of what real programs have printed, the line is found that says why, and no secret stays."""

from __future__ import annotations

import time

import pytest
from support.paths import ROOT

from t3_backup.t3.output import REDACTED, innermost_error, redact

SAMPLES = ROOT / "tests" / "data" / "t3-output"  # of T3 0.0.42, Node 20, and npm 9 and 11
CREDENTIAL = "K7WQ2MZ4HXRT"
COOKIE = (
    "eyJ2IjoxLCJraW5kIjoic2Vzc2lvbiIsInNpZCI6IjU0MiJ9.kq3VbQ4m-ZyT1hXw0Jm2C7n9s5t8uAaBbCcDdEe_FfGg"
)


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ("mint-locked", "Error: database is locked"),
        ("mint-unreadable", "Error: unable to open database file"),
        ("mint-unwritable", "Error: EACCES: permission denied, mkdir '/home/alice/.t3'"),
        ("mint-full-disk", "Error: disk I/O error"),
        ("mint-no-table", "Error: no such table: auth_pairing_links"),
        ("mint-no-database", "Error: file is not a database"),
        ("crash", "Error: no such column: role"),
        ("npm-no-version", "ETARGET: No matching version found for t3@0.0.999."),
        ("npm-no-archive", "ENOENT: no such file or directory, open '/srv/t3-0.0.42.tgz'"),
        ("npm-script", "Error: no prebuilt binary for node 20"),
    ],
)
def test_the_line_that_says_why_is_found(sample: str, said: str) -> None:
    assert innermost_error((SAMPLES / f"{sample}.txt").read_text()) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ""),
        ("\n  \n}\nNode.js v24.21.0\n", ""),
        ("SqlError: no such column: subject\n", "SqlError: no such column: subject"),
        ("t3: its version is being changed\n", "t3: its version is being changed"),
        ("(node:7) ExperimentalWarning: SQLite\n(Use `node --trace-warnings ...` to see)\n", ""),
        ("[17:42:05.412] ERROR (#3): no port\n[17:42:06.1] INFO (#3): bye\n", "no port"),
        ("[17:42:05.412] \x1b[31mERROR\x1b[0m (#3): no port\n", "no port"),
        ("Error: first\n  [cause]: Error: old\nError: last\n", "Error: last"),
        ("Error: a \x07bell\n", "Error: a ?bell"),
        (f"Error: {CREDENTIAL} was used\n", f"Error: {REDACTED} was used"),
        ("npm error code E404\nnpm error 404 Not Found - GET /t3\n", "E404: Not Found - GET /t3"),
    ],
)
def test_without_a_nested_cause_the_last_that_says_something_is_told(text: str, said: str) -> None:
    assert innermost_error(text) == said


def test_nothing_of_what_a_server_prints_last_logs_anybody_in() -> None:
    text = (SAMPLES / "serve.txt").read_text()
    assert CREDENTIAL in text
    left = redact(text)
    assert CREDENTIAL not in left
    assert "token=" not in left
    assert not set("█▀▄") & set(left)
    for line in ("Listening on http://127.0.0.1:", "Connection string: http://127.0.0.1:"):
        assert line in left, "what is no secret stays"
    for line in text.splitlines():  # as whoever reads a log takes it
        assert CREDENTIAL not in redact(line)
        assert not set("█▀▄") & set(redact(line))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "token={}",
        "http://127.0.0.1:3773/pair#token={}&x=1",
        "ws://127.0.0.1:3773/ws?orchestrationProtocol=2&wsTicket={}",
        'Unexpected token in {{"credential": "{}"}}',
        "{{ accessToken: '{}' }}",
        "Authorization: Bearer {}",
        "set-cookie: t3_session_39871_656dc8b66507={}; Path=/; HttpOnly",
        "Cookie: other=1; t3_session={}",
        "t3_session_656dc8b66507={}",
    ],
)
@pytest.mark.parametrize("secret", [CREDENTIAL, COOKIE])
def test_a_secret_is_known_by_its_form_and_by_its_place(text: str, secret: str) -> None:
    assert secret not in redact(text.format(secret))
    assert secret[:8] not in redact(text.format(secret))


@pytest.mark.parametrize(
    "text",
    [
        "GET https://alice:{}@host.example/t3 - 401",
        "//host.example/:_authToken={}",
        "Token: {}",
        "Pairing URL: t3://{}",
        '{{"password":"{}"}}',
        "OPENAI_API_KEY={}",
        "T3CODE_AUTH_TOKEN={}",
        "access_token = {}",
    ],
)
def test_a_secret_of_any_form_is_known_by_its_place(text: str) -> None:
    assert "hunter2" not in redact(text.format("hunter2"))


def test_what_is_known_to_be_a_secret_goes_whatever_its_form() -> None:
    assert redact("it said abc-1, twice: abc-1", ["abc-1"]) == (
        f"it said {REDACTED}, twice: {REDACTED}"
    )
    assert innermost_error("Error: abc-1", ["abc-1"]) == f"Error: {REDACTED}"


@pytest.mark.parametrize(
    "text",
    [
        "Error: SQLITE_CONSTRAINT_PRIMARYKEY: UNIQUE constraint failed: auth_sessions.session_id",
        "Failed to issue pairing credential '2cbaac20-096f-4653-9e0d-cda03ba95b6a' for 'one-time-t'",
        "at catch (file:///opt/t3/node_modules/@effect/platform-node-shared/dist/NodeFileSystem.js:9)",
        "/var/backups/t3-state/alice/state-20261127T054750Z-prebump-0.0.25.sqlite",
        "SyntaxError: Unexpected token: punc",
        "sha256 0a2f6c0ce0e43b2ef4b7ee2c1b1b38d5fbd2ad2c4c5e9f9f7e7f1f1d0c0b0a09",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "unit", ["a", "\n", " ", "█ ", "eyJ", "Token: ", "://a:", "[cause]: ", "a."]
)
def test_a_long_text_takes_time_by_its_length_alone(unit: str) -> None:
    """A program that prints whatever it likes keeps nobody busy with it."""

    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        began = time.process_time()
        innermost_error(text + "x")
        return time.process_time() - began

    assert seconds(400_000) < 40 * max(seconds(40_000), 0.001)
