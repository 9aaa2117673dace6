"""Hooks: called with what the run came to when it failed, and at no other time; nothing that they
do costs a backup anything."""

from __future__ import annotations

import http.server
import io
import json
import os
import signal
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.host import Answer, Host, started
from support.paths import DATA, ROOT
from support.processes import process_status, until
from support.users import needs_root

from demo.users import User
from t3_backup import settings
from t3_backup.monitor import failure, hooks
from t3_backup.output.console import Console

pytestmark = needs_root

TINY = DATA / "state-0.0.24.sqlite"
EXAMPLE = ROOT / "debian" / "examples" / "healthchecks-ping"
TELL = '#!/bin/sh\ncat >"{out}"; env >"{out}.env"; echo "$0" >>"{order}"\n'


@pytest.fixture
def folder(host: Host) -> Path:
    """The folder of hooks."""
    made = host.folder / "hooks.d"
    made.mkdir(mode=0o755)
    return made


@pytest.fixture
def hugo(make_user: Callable[..., User], host: Host) -> User:
    """Whose database is a link: their account fails."""
    user = make_user("hook-hugo")
    user.database.symlink_to("/etc/passwd")
    host.write_map(user)
    return user


@pytest.fixture
def ines(make_user: Callable[..., User], host: Host) -> User:
    """Whose database is sound."""
    return make_user("hook-ines", TINY)


def write(path: Path, text: str, mode: int = 0o755) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def telling(folder: Path, name: str) -> Path:
    """A hook that notes what it is given; where it notes its input."""
    out = folder.parent / f"told-{name}"
    write(folder / name, TELL.format(out=out, order=folder.parent / "order"))
    return out


def order(folder: Path) -> list[str]:
    file = folder.parent / "order"
    return [Path(line).name for line in file.read_text().splitlines()] if file.exists() else []


def variables(out: Path) -> dict[str, str]:
    return dict(
        line.split("=", 1)
        for line in Path(f"{out}.env").read_text().splitlines()
        if line.startswith("T3_BACKUP_")
    )


def test_a_failed_run_calls_its_hooks_in_order_with_what_it_came_to(
    host: Host, folder: Path, hugo: User, ines: User
) -> None:
    host.write_map(hugo, ines)
    told = [telling(folder, name) for name in ("20-second", "10-first", "Z-last")]
    answer = host.t3("run", "--json")
    assert answer.code == 1
    assert order(folder) == ["10-first", "20-second", "Z-last"]
    document = json.loads(told[0].read_text())
    assert document["accounts"] == answer.document["accounts"]
    assert (document["result"], document["exit"], document["signal"], document["error"]) == (
        "exit-code",
        1,
        None,
        None,
    )
    logged = json.loads((host.folder / "log").read_text().splitlines()[0])
    assert (document["run"], document["version"]) == (logged["run"], logged["version"])
    given = variables(told[0])
    assert (given["T3_BACKUP_RUN"], given["T3_BACKUP_EXIT"]) == (document["run"], "1")
    assert (given["T3_BACKUP_RESULT"], given["T3_BACKUP_NOT_WELL"]) == ("exit-code", hugo.name)


def test_a_good_run_a_rehearsal_and_wrong_use_call_none(
    host: Host, folder: Path, hugo: User, ines: User
) -> None:
    telling(folder, "hook")
    assert host.t3("run", "--dry-run").code == 1
    assert host.t3("run", "--label", "no label").code == 2
    host.write_map(ines)
    assert host.t3("run").code == 0
    assert order(folder) == []


def test_who_has_files_that_could_not_be_saved_is_named_too(
    host: Host, folder: Path, ines: User
) -> None:
    out = telling(folder, "hook")
    host.write_map(ines)
    settings = ines.database.with_name("settings.json")
    settings.write_bytes(bytes(2048))
    ines.give(settings)
    assert host.t3("run", T3_BACKUP_FILES_LIMIT="1K").code == 1
    assert variables(out)["T3_BACKUP_NOT_WELL"] == ines.name


def test_a_suspect_snapshot_calls_them_too(host: Host, folder: Path, ines: User) -> None:
    out = telling(folder, "hook")
    host.write_map(ines)
    assert host.t3("run").code == 0
    ines.database.unlink()
    with closing(sqlite3.connect(ines.database)) as begun_anew:
        begun_anew.execute("CREATE TABLE something (x)")
    ines.give(ines.database)
    assert host.t3("run").code == 1
    assert variables(out)["T3_BACKUP_NOT_WELL"] == ines.name
    [account] = json.loads(out.read_text())["accounts"]
    assert account["snapshots"][0]["verdict"] == "suspect"


def test_a_store_that_is_not_as_it_must_be_calls_them_with_the_reason(
    host: Host, folder: Path, hugo: User
) -> None:
    out = telling(folder, "hook")
    host.store.mkdir(mode=0o755)
    (host.store / "something").mkdir()
    answer = host.t3("run")
    document = json.loads(out.read_text())
    assert (answer.code, document["exit"], document["accounts"]) == (1, 1, [])
    assert answer.err == f"t3-backup-state: {document['error']}\n"


PROBLEMS = {
    "fails": ("#!/bin/sh\necho one; echo 'two \033[31m'; exit 3\n", "hook fails failed (exit 3): two ?[31m"),
    "dies": ("#!/bin/sh\nkill -SEGV $$\n", "hook dies was killed by signal 11"),
    "missing": ("#!/no/such/interpreter\n", "hook missing can't be executed: No such file or directory"),
    "no-program": ("nonsense\n", "hook no-program can't be executed: Exec format error"),
    "hangs": ("#!/bin/sh\necho waiting; sleep 1000\n", "hook hangs was ended, since it took more than 4 s: waiting"),
    "stubborn": ("#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1000; done\n", "hook stubborn was ended, since it took more than 4 s"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_hook_that_goes_wrong_is_told_in_a_line_and_costs_nobody_anything(
    host: Host, folder: Path, hugo: User, ines: User, name: str
) -> None:
    host.write_map(hugo, ines)
    text, line = PROBLEMS[name]
    write(folder / name, text)
    telling(folder, "zz-next")
    answer = host.t3("run", T3_BACKUP_HOOK_TIMEOUT="4")
    assert answer.code == 1
    [said] = [one for one in answer.out.splitlines() if f"hook {name}" in one]
    assert said.startswith(f"WARN: {line}")
    assert answer.out.splitlines()[-1] == "called hook zz-next"
    assert order(folder) == ["zz-next"]
    assert len(host.snapshots(ines)) == 1


def test_a_hook_that_takes_too_long_is_ended_with_all_that_it_started_if_need_be_by_force(
    host: Host, folder: Path, hugo: User
) -> None:
    pids = host.folder / "pids"
    write(folder / "hook", f"#!/bin/sh\ntrap '' TERM\nsleep 1000 &\necho $$ $! >{pids}\nwait\n")
    assert host.t3("run", T3_BACKUP_HOOK_TIMEOUT="4").code == 1
    assert [
        pid
        for pid in pids.read_text().split()
        if process_status(int(pid)).get("State", "Z")[0] != "Z"
    ] == []


def test_what_a_hook_says_without_end_and_leaves_in_the_background_holds_nobody_up(
    host: Host, folder: Path, hugo: User
) -> None:
    write(folder / "10-talks", "#!/bin/sh\nyes 'a long line of nothing'\n")
    write(folder / "20-leaves", f"#!/bin/sh\nsleep 1000 &\necho $! >{host.folder}/pid\n")
    write(folder / "30-deaf", "#!/bin/sh\nexec <&- >&- 2>&-\nexit 0\n")
    try:
        answer = host.t3("run", T3_BACKUP_HOOK_TIMEOUT="2", timeout=30)
    finally:
        os.kill(int((host.folder / "pid").read_text()), signal.SIGKILL)
    assert answer.out.splitlines()[-3:] == [
        "WARN: hook 10-talks was ended, since it took more than 2 s: a long line of nothing",
        "called hook 20-leaves",
        "called hook 30-deaf",
    ]


def test_the_store_is_free_again_when_a_hook_is_called(
    host: Host, folder: Path, hugo: User, ines: User
) -> None:
    host.write_map(hugo, ines)
    write(folder / "hook", f"#!/bin/sh\nflock --nonblock {host.store} echo\n")
    assert host.t3("run").out.splitlines()[-1] == "called hook hook"


def test_a_stop_ends_the_hook_that_is_at_work_and_no_other_is_called(
    host: Host, folder: Path, hugo: User
) -> None:
    mark = host.folder / "begun"
    write(folder / "10-long", f"#!/bin/sh\ntouch {mark}\nsleep 1000\n")
    telling(folder, "20-never")
    with started(host, "run") as process:
        until(mark.exists, "call of the hook")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM
    assert "WARN: hook 10-long was ended, since the run was stopped" in out
    assert "20-never" not in out
    assert order(folder) == []


class TestWhatIsAHook:
    def test_what_others_could_have_written_is_passed_over_with_one_warning(
        self, host: Host, folder: Path, hugo: User
    ) -> None:
        telling(folder, "good_1-A")
        for name, mode in (
            ("writable", 0o775),
            ("by-all", 0o757),
            ("data", 0o644),
            ("ping.sh", 0o755),
        ):
            write(folder / name, "#!/bin/sh\n", mode)
        hugo.give(write(folder / "hugo", "#!/bin/sh\n"))
        (folder / "link").symlink_to("/bin/true")
        (folder / "folder").mkdir()
        os.mkfifo(folder / "pipe")
        answer = host.t3("run")
        [line] = [
            line for line in answer.out.splitlines() if line.startswith("WARN: ignored as hooks")
        ]
        assert line == (
            f"WARN: ignored as hooks in {folder}: by-all (others may write to it), data (not "
            "executable), "
            f"folder (not a regular file), hugo (belongs to uid {hugo.uid}), link (not a regular "
            "file), "
            "ping.sh (a name may have only letters, digits, - and _), pipe (not a regular file), "
            "writable (others may write to it)"
        )
        assert order(folder) == ["good_1-A"]

    def test_a_readme_and_what_editors_and_packages_leave_is_passed_over_in_silence(
        self, host: Host, folder: Path, hugo: User
    ) -> None:
        for name in (
            "README",
            ".hidden",
            "hook~",
            "#hook#",
            "hook.bak",
            "hook.orig",
            ".hook.swp",
            "hook.dpkg-old",
            "hook.ucf-dist",
        ):
            write(folder / name, "#!/bin/sh\n")
        answer = host.t3("run")
        assert answer.out.splitlines()[-1] == "done (1 accounts, 1 not well)"
        assert hooks.find_hooks(folder) == hooks.Found(folder)

    @pytest.mark.parametrize("how", ["writable", "the user's", "a file", "missing"])
    def test_a_folder_that_is_not_roots_alone_holds_none(
        self, host: Host, folder: Path, hugo: User, how: str
    ) -> None:
        telling(folder, "hook")
        if how == "writable":
            folder.chmod(0o777)
        elif how == "the user's":
            hugo.give(folder)
        else:
            folder.rename(host.folder / "elsewhere")
            if how == "a file":
                folder.write_text("")
        answer = host.t3("run")
        assert answer.code == 1
        assert order(host.folder / "elsewhere") == []
        assert ("ignored as hooks" in answer.out) == (how != "missing")

    def test_who_is_not_root_has_only_those_that_they_name_themselves(
        self, host: Host, ines: User
    ) -> None:
        folder = ines.home / "hooks.d"
        folder.mkdir()
        (ines.home / ".t3/userdata/state.sqlite").rename(ines.home / "elsewhere")
        ines.database.symlink_to(ines.home / "elsewhere")
        out = ines.home / "told"
        write(folder / "hook", f"#!/bin/sh\nid -un >{out}\n")
        for path in (folder, folder / "hook"):
            ines.give(path)
        line = ["run", "--dest", str(ines.home / "store")]
        answer = as_user(host, ines, *line, T3_BACKUP_HOOKS=str(folder))
        assert answer.code == 1
        assert out.read_text().strip() == ines.name

    @pytest.mark.parametrize("uid", [0, 65534])
    def test_those_of_the_default_folder_are_for_roots_runs(
        self, host: Host, folder: Path, monkeypatch: pytest.MonkeyPatch, uid: int
    ) -> None:
        telling(folder, "hook")
        monkeypatch.setattr(failure, "DEFAULT_HOOKS", folder)
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        values = settings.load({}, host.env(), Path("/dev/null"))
        failure.follow_failure(
            failure.describe_own_end("run", 1, "", []), values, Console(io.StringIO())
        )
        assert order(folder) == (["hook"] if uid == 0 else [])


def as_user(host: Host, user: User, *words: str, **more: str) -> Answer:
    whose = ["setpriv", f"--reuid={user.name}", f"--regid={user.gid}", "--init-groups", "--"]
    return Answer.of([*whose, *host.command(*words)], host.env(**more))


class TestTheCommand:
    """`t3-backup-state hooks`, as the unit or a person calls it."""

    MONITOR: ClassVar = {
        "MONITOR_SERVICE_RESULT": "exit-code",
        "MONITOR_EXIT_STATUS": "1",
        "MONITOR_INVOCATION_ID": "ab" * 16,
    }

    def test_typed_it_tries_them_and_says_what_went_wrong(self, host: Host, folder: Path) -> None:
        out = telling(folder, "hook")
        answer = host.t3("hooks")
        assert (answer.code, answer.out) == (0, "called hook hook\n")
        document = json.loads(out.read_text())
        assert (document["result"], document["exit"], document["accounts"]) == ("test", 1, [])
        write(folder / "bad", "#!/bin/sh\nexit 1\n")
        answer = host.t3("hooks")
        assert (answer.code, answer.out) == (
            1,
            "WARN: hook bad failed (exit 1)\ncalled hook hook\n",
        )

    def test_what_the_run_has_left_is_told_where_it_is_of_that_run(
        self, host: Host, folder: Path
    ) -> None:
        out, left = telling(folder, "hook"), host.folder / "left.json"
        account = {"user": "alice", "outcome": "failed", "reason": "x", "snapshots": []}
        left.write_text(json.dumps({"run": "ab" * 16, "error": None, "accounts": [account]}))
        assert host.t3("hooks", "--document", str(left), **self.MONITOR).code == 0
        assert json.loads(out.read_text())["accounts"] == [account]
        assert variables(out)["T3_BACKUP_NOT_WELL"] == "alice"
        assert (
            host.t3(
                "hooks",
                "--document",
                str(left),
                **self.MONITOR | {"MONITOR_INVOCATION_ID": "cd" * 16},
            ).code
            == 0
        )
        assert json.loads(out.read_text())["accounts"] == []

    def test_the_proof_is_told_from_a_run_and_a_run_by_hand_is_of_no_unit(
        self, host: Host, folder: Path
    ) -> None:
        out = telling(folder, "hook")
        assert (
            host.t3("hooks", **self.MONITOR | {"MONITOR_UNIT": "t3-backup-verify.service"}).code
            == 0
        )
        assert (
            json.loads(out.read_text())["unit"]
            == variables(out)["T3_BACKUP_UNIT"]
            == "t3-backup-verify.service"
        )
        assert host.t3("hooks").code == 0
        assert (json.loads(out.read_text())["unit"], variables(out)["T3_BACKUP_UNIT"]) == (None, "")

    @pytest.mark.parametrize(
        "text", [None, "", "{", "[]", '{"run": 1, "accounts": []}', '{"run": "x"}', "[" * 100_000]
    )
    def test_where_it_has_left_nothing_that_can_be_read_how_it_ended_is_told_all_the_same(
        self, host: Host, folder: Path, text: str | None
    ) -> None:
        out, left = telling(folder, "hook"), host.folder / "left.json"
        if text is not None:
            left.write_text(text)
        killed = {"MONITOR_SERVICE_RESULT": "oom-kill", "MONITOR_EXIT_STATUS": "KILL"}
        assert host.t3("hooks", "--document", str(left), **self.MONITOR | killed).code == 0
        document = json.loads(out.read_text())
        assert (document["result"], document["exit"], document["signal"]) == (
            "oom-kill",
            None,
            "KILL",
        )
        assert (document["accounts"], variables(out)["T3_BACKUP_EXIT"]) == ([], "KILL")

    def test_settings_that_make_no_sense_silence_nobody(self, host: Host, folder: Path) -> None:
        """A run that ends for them is the very failure that has to be told."""
        out = telling(folder, "hook")
        assert host.t3("run", T3_BACKUP_KEEP="many").code == 2
        assert (
            host.t3(
                "hooks", T3_BACKUP_KEEP="many", **self.MONITOR | {"MONITOR_EXIT_STATUS": "2"}
            ).code
            == 0
        )
        assert json.loads(out.read_text())["exit"] == 2

    def test_a_run_that_could_not_even_be_started_is_no_success_to_anybody(self) -> None:
        ending = failure.describe_end_by_systemd({"MONITOR_SERVICE_RESULT": "resources"}, None)
        assert (ending.exit, ending.signal, ending.variables()["T3_BACKUP_EXIT"]) == (
            None,
            None,
            "unknown",
        )


class TestTheService:
    """A run that systemd has started, with a runtime folder as the shipped unit has it."""

    @pytest.fixture
    def place(self) -> Iterator[Path]:
        """What is in a temporary folder is no store for a service."""
        with tempfile.TemporaryDirectory(prefix="t3-test-", dir="/home") as folder:
            yield Path(folder)

    def start(self, host: Host, place: Path, *words: str) -> Answer:
        script = 'export SYSTEMD_EXEC_PID=$$ INVOCATION_ID=ef00; exec "$@"'
        environ = host.env(
            RUNTIME_DIRECTORY=str(place / "runtime"), T3_BACKUP_DEST=str(place / "store")
        )
        return Answer.of(["sh", "-c", script, "sh", *host.command(*words)], environ)

    def test_it_leaves_what_it_came_to_and_calls_none_itself(
        self, host: Host, folder: Path, hugo: User, place: Path
    ) -> None:
        out = telling(folder, "hook")
        (place / "runtime").mkdir()
        assert self.start(host, place, "run").code == 1
        assert not out.exists()
        [left] = (place / "runtime").iterdir()
        told = {
            "MONITOR_SERVICE_RESULT": "exit-code",
            "MONITOR_EXIT_STATUS": "1",
            "MONITOR_INVOCATION_ID": "ef00",
        }
        assert host.t3("hooks", "--document", str(left), **told).code == 0
        assert [account["user"] for account in json.loads(out.read_text())["accounts"]] == [
            hugo.name
        ]

    def test_where_it_can_leave_nothing_the_run_is_what_it_was(
        self, host: Host, hugo: User, ines: User, place: Path
    ) -> None:
        host.write_map(hugo, ines)
        answer = self.start(host, place, "run")
        assert answer.code == 1
        assert "WARN: the result of the run can't be saved for the hooks: " in answer.out
        assert len(list((place / "store" / ines.name).glob("*.sqlite"))) == 1


class Pinged(http.server.BaseHTTPRequestHandler):
    """Notes what it is sent."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.pings.append((self.path, body))  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def check() -> Iterator[Any]:
    """A server that checks are told to."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pinged) as server:
        server.pings, server.status = [], 200  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class TestTheExample:
    def installed(self, folder: Path, port: int) -> None:
        text = EXAMPLE.read_text().replace('URL = ""', f'URL = "http://127.0.0.1:{port}/some-uuid"')
        write(folder / "healthchecks-ping", text, 0o700)

    def test_it_tells_the_check_who_is_not_well_and_why(
        self, host: Host, folder: Path, hugo: User, ines: User, check: Any
    ) -> None:
        host.write_map(hugo, ines)
        self.installed(folder, check.server_port)
        answer = host.t3("run")
        assert answer.out.splitlines()[-1] == "called hook healthchecks-ping"
        [(path, body)] = check.pings
        assert path == "/some-uuid/fail"
        assert ": t3-backup failed (exit-code, exit 1)" in body
        assert f"{hugo.name}: failed: " in body
        assert ines.name not in body

    def test_it_fails_where_the_check_does_not_hear_it(
        self, host: Host, folder: Path, check: Any
    ) -> None:
        self.installed(folder, check.server_port)
        check.status = 500
        assert (
            "hook healthchecks-ping failed (exit 1): urllib.error.HTTPError: HTTP Error 500"
            in host.t3("hooks").out
        )
        self.installed(folder, 1)
        assert "Connection refused" in host.t3("hooks").out

    def test_it_is_called_by_nobody_until_it_is_copied_and_says_what_is_missing_in_it(
        self, host: Host, folder: Path
    ) -> None:
        write(folder / "healthchecks-ping", EXAMPLE.read_text())
        answer = host.t3("hooks")
        assert (answer.code, answer.out.rstrip().rpartition(": ")[2]) == (
            1,
            "write the URL of your check into it",
        )
