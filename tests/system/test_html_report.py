"""`report --html`: a file that is written whole or not at all, and a page that a real browser shows
as it should, and fetches nothing for."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import programs
from support.host import Host
from support.manifests import NOON, make_manifest
from support.paths import DATA, ROOT
from support.reports import judged_account
from support.users import needs_root

from demo.users import User
from t3_backup.monitor import html

pytest.importorskip("jinja2", reason="needs python3-jinja2")

TINY = DATA / "state-0.0.24.sqlite"
DAY = timedelta(days=1)


@needs_root
class TestTheCommand:
    @pytest.fixture
    def ruth(self, make_user: Callable[..., User], host: Host) -> User:
        """Who has a labelled snapshot and another one."""
        user = make_user("html-ruth", TINY)
        host.write_map(user)
        assert host.t3("run", "--label", "prebump-0.0.25").code == 0
        assert host.t3("run").code == 0
        return user

    def test_a_new_file_is_roots_alone_and_holds_every_snapshot(
        self, host: Host, ruth: User
    ) -> None:
        file = host.folder / "report.html"
        answer = host.t3("report", "--html", str(file))
        assert (answer.code, answer.out, answer.err) == (0, "", "")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        text = file.read_text()
        assert f"{host.store} on {os.uname().nodename}" in text
        for snapshot in host.snapshots(ruth):
            assert f'title="{snapshot.stem}"' in text
        assert ">prebump-0.0.25<" in text
        assert re.search(r"Free on the disk</dt><dd>[\d.]+ [KMGT]iB</dd>", text)
        assert [path.name for path in host.folder.glob("*report*")] + [
            path.name for path in host.folder.glob(".*")
        ] == ["report.html"]

    def test_an_old_file_is_replaced_and_keeps_its_mode_if_it_is_ones_own(
        self, host: Host, ruth: User
    ) -> None:
        file = host.folder / "report.html"
        file.write_text("old")
        file.chmod(0o644)
        with file.open() as reader:
            assert host.t3("report", "--html", str(file)).code == 0
            assert reader.read() == "old"
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        ruth.give(file)
        assert host.t3("report", "--html", str(file)).code == 0
        assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (0, 0o600)

    def test_standard_output_gets_the_page_and_nothing_else(self, host: Host, ruth: User) -> None:
        answer = host.t3("report", "--html", "-", ruth.name)
        assert (answer.code, answer.err) == (0, "")
        assert answer.out.startswith("<!DOCTYPE html>")
        assert answer.out.endswith("</html>\n")
        with open("/dev/full", "w") as full:
            line = host.command("report", "--html", "-")
            done = subprocess.run(
                line,
                env=host.env(),
                cwd=ROOT,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert (done.returncode, done.stderr) == (1, "t3-backup-state: No space left on device\n")

    def test_what_is_no_file_is_refused_and_not_replaced(self, host: Host, ruth: User) -> None:
        secret = host.folder / "secret"
        secret.write_text("mine")
        (host.folder / "link").symlink_to(secret)
        os.mkfifo(host.folder / "pipe")
        for name, kind in (
            ("store", "a folder"),
            ("link", "no regular file"),
            ("pipe", "no regular file"),
        ):
            answer = host.t3("report", "--html", str(host.folder / name))
            expected = f"{host.folder}/{name} is {kind}; name a file, or - for standard output"
            assert (answer.code, answer.out) == (2, "")
            assert answer.err == f"t3-backup-state: {expected}\n"
        assert (secret.read_text(), (host.folder / "link").is_symlink()) == ("mine", True)

    @pytest.mark.parametrize(
        ("words", "code", "says"),
        [
            (["--html", "{host}/none/report.html"], 1, "{host}/none: No such file or directory"),
            (["--html", "-", "nobody"], 1, "no snapshots of nobody in {host}/store"),
            (
                ["--html", "-", "--dest", "{host}/no-store"],
                1,
                "no store at {host}/no-store; the first run makes it",
            ),
            ([], 2, "the following arguments are required: --html; see "),
        ],
    )
    def test_what_cannot_be_done_is_said_in_a_line(
        self, host: Host, ruth: User, words: list[str], code: int, says: str
    ) -> None:
        answer = host.t3("report", *(word.format(host=host.folder) for word in words))
        assert (answer.code, answer.out, answer.err.count("\n")) == (code, "", 1)
        assert answer.err.startswith(f"t3-backup-state: {says.format(host=host.folder)}")

    def test_a_disk_that_takes_no_more_leaves_the_old_file_and_nothing_else(
        self, host: Host, ruth: User
    ) -> None:
        file = host.folder / "report.html"
        file.write_text("old")
        before = sorted(os.listdir(host.folder))
        # Debian's Python: one that is being measured writes a file more, and is limited in that,
        # too.
        line = [
            "prlimit",
            "--fsize=4096",
            "/usr/bin/python3",
            *host.command("report", "--html", str(file))[1:],
        ]
        done = subprocess.run(
            line, env=host.env(), cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (1, f"t3-backup-state: {file}: File too large\n")
        assert (file.read_text(), sorted(os.listdir(host.folder))) == ("old", before)

    def test_without_the_template_engine_it_says_what_to_install(
        self, host: Host, ruth: User
    ) -> None:
        words = ("jinja2", "report", "--html", "-")
        line = programs.line("call_without.py", *words, isolated=False)
        done = subprocess.run(
            line, env=host.env(), cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        needed = "the report needs the template engine jinja2: apt install python3-jinja2"
        assert done.stderr == f"t3-backup-state: {needed}\n"

    def test_an_account_folder_that_is_not_as_it_must_be_hides_no_other(
        self, host: Host, ruth: User
    ) -> None:
        (host.store / "open").mkdir(mode=0o755)
        answer = host.t3("report", "--html", "-")
        assert answer.code == 1
        assert "open to others" in answer.err
        assert ruth.name in answer.out

    def test_who_has_no_snapshot_yet_is_shown_and_what_is_wrong_with_the_map_is_said(
        self, host: Host, ruth: User
    ) -> None:
        with host.map.open("a") as lines:
            lines.write("new@example=t3-no-such-user\nno sense in it\n")
        answer = host.t3("report", "--html", "-")
        assert "1 of 2 accounts wants a look" in answer.out
        assert "never backed up" in answer.out
        assert "no sense in it" in answer.out
        host.map.unlink()
        answer = host.t3("report", "--html", "-")
        assert (answer.code, ruth.name in answer.out) == (0, True)
        assert "the report has the accounts of the store alone" in answer.err


# What the browser is shown: history and hostile names, accounts with one snapshot and with none.
LIGHT = {
    "verified": (15, 118, 110),
    "suspect": (168, 84, 10),
    "damaged": (179, 38, 30),
    "copy": (53, 104, 159),
    "proof": (125, 159, 198),
}
DARK = {
    "verified": (86, 205, 180),
    "suspect": (240, 177, 85),
    "damaged": (255, 133, 123),
    "copy": (134, 181, 234),
    "proof": (79, 124, 174),
}
PHONE = 375
WIDEST = "w" * 64


def example(reason: str = "lost 61 % of its rows") -> str:
    """A page of 4 accounts: 40 snapshots with all that may be, 40 good ones, one, and none."""

    def night(number: int, user: str, **changes: Any) -> Any:
        return make_manifest(
            number,
            NOON - DAY * (40 - number),
            user=user,
            bytes=1_000_000 * (40 + number),
            **changes,
        )

    special = {
        10: {"label": "prebump-0.0.24"},
        20: {"verdict": "suspect", "reasons": (reason,), "accepted_at": "2026-11-20T08:00:00Z"},
        25: {"label": WIDEST},
        30: {"verdict": "damaged", "reasons": ("x" * 300,), "accepted_at": "2026-11-20T08:00:00Z"},
    }
    old = [make_manifest(number - 5, NOON - 100 * DAY, "prebump-0.0.1") for number in range(3)]
    accounts = [
        judged_account(
            "alice",
            [night(number, "alice", **special.get(number, {})) for number in range(40, 0, -1)]
            + old,
        ),
        judged_account("bob", [night(number, "bob") for number in range(40, 0, -1)]),
        judged_account("carol", [make_manifest(1, user="carol")]),
        judged_account("dave", [], [f"not counted: no valid manifest: state-{WIDEST}.sqlite"]),
    ]
    return html.render_page(
        html.build_page(accounts, "/var/backups/t3-state on a-machine", 123 << 30, NOON)
    ).replace("<details>", "<details open>")


class Served(http.server.SimpleHTTPRequestHandler):
    """Files of a folder; notes what is asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, list[str], Path]]:
    """A web server: its address, what it was asked for, and its folder."""
    asked: list[str] = []
    folder = tmp_path / "site"
    folder.mkdir()
    handler = type("Handler", (Served,), {"asked": asked})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(handler, directory=str(folder))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked, folder
        server.shutdown()
        thread.join()


@pytest.fixture
def browser(tmp_path: Path) -> Callable[..., str]:
    """Opens an address in chromium, with further options; what it prints."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs chromium")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"}

    def open_page(address: str, *more: str) -> str:
        line = [program, *options, *more, address]
        return subprocess.run(
            line, env=environ, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    return open_page


def shot(
    browser: Callable[..., str],
    address: str,
    file: Path,
    *more: str,
    width: int = 1100,
    height: int = 5000,
) -> Any:
    """A picture of it."""
    image = pytest.importorskip("PIL.Image", reason="needs python3-pil")
    browser(address, f"--screenshot={file}", f"--window-size={width},{height}", *more)
    with image.open(file) as picture:
        return picture.convert("RGB")


def colours(picture: Any) -> dict[tuple[int, int, int], int]:
    return {colour: count for count, colour in picture.getcolors(1 << 24)}


def test_in_light_and_dark_every_kind_of_mark_is_seen(
    browser: Callable[..., str], site: Any, tmp_path: Path
) -> None:
    address, _, folder = site
    (folder / "report.html").write_text(example())
    light = shot(browser, f"{address}/report.html", tmp_path / "light.png")
    dark = shot(
        browser,
        f"{address}/report.html",
        tmp_path / "dark.png",
        "--blink-settings=preferredColorScheme=0",
    )
    for picture, palette in ((light, LIGHT), (dark, DARK)):
        found = colours(picture)
        assert len(found) > 100
        for name, colour in palette.items():
            assert found.get(colour, 0) > 50, name
    assert sum(light.getpixel((5, 5))) > 700
    assert sum(dark.getpixel((5, 5))) < 100
    # 81 snapshots have as many bars, each four wide and at least a few high.
    assert colours(light)[LIGHT["copy"]] > 81 * 4 * 5


def test_on_a_phone_nothing_is_wider_than_the_screen(
    browser: Callable[..., str], site: Any
) -> None:
    """The page lets no script in; so one beside it, in the document that frames it, measures."""
    address, _, folder = site
    (folder / "report.html").write_text(example())
    wide = example().replace("</main>", '<div style="width:500px">x</div></main>')
    (folder / "wide.html").write_text(wide)
    for name, expected in (("report", PHONE), ("wide", 500)):
        # A name of its own each: the browser asks only whether what it has is from another second.
        style = f"width:{PHONE}px;height:800px;border:0"
        (folder / f"frame-{name}.html").write_text(
            f'<!DOCTYPE html><body><iframe src="{name}.html" style="{style}"></iframe><script>'
            "onload = () => { "
            "document.title = frames[0].document.documentElement.scrollWidth; }</script>"
        )
        [width] = re.findall(
            r"<title>(\d+)</title>",
            browser(f"{address}/frame-{name}.html", "--dump-dom", "--window-size=1000,900"),
        )
        assert (int(width) >= expected) if name == "wide" else (int(width) == expected), name


def test_the_page_fetches_nothing_and_its_policy_lets_nothing_be_fetched(
    browser: Callable[..., str], site: Any
) -> None:
    address, asked, folder = site
    fetches = f'<img src="{address}/image"><script src="{address}/script"></script>'
    fetches += f'<link rel="stylesheet" href="{address}/style">'
    text = example(reason=fetches)
    (folder / "report.html").write_text(text)
    (folder / "unescaped.html").write_text(text.replace("</main>", f"{fetches}</main>"))
    policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    (folder / "free.html").write_text(policy.replace("</main>", f"{fetches}</main>"))
    for name, expected in (
        ("report", set()),
        ("unescaped", set()),
        ("free", {"/image", "/script", "/style"}),
    ):
        asked.clear()
        assert "alice" in browser(f"{address}/{name}.html", "--dump-dom")
        assert set(asked) - {f"/{name}.html", "/favicon.ico"} == expected, name
