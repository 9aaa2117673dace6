"""What a server says and starts besides: lines of its log, a child of its package, short probes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import about

_TOKEN_ROWS = 19
_MONITOR = about.HERE / "resource-monitor" / "linux-x64" / "t3-resource-monitor"
_PROBES = (["codex", "app-server"], ["claude", "--version"])
# variables of its environment: seconds
_PROBE_EVERY = float(os.environ.get("T3_FAKE_PROBE_EVERY", "300"))
_PROBE_LASTS = os.environ.get("T3_FAKE_PROBE_LASTS", "0.3")
_TELEMETRY_EVERY = float(os.environ.get("T3_FAKE_TELEMETRY_EVERY", "30"))
_BURST = 40  # lines: more than anybody keeps


def say(level: str, text: str) -> None:
    """Write a line of the log."""
    print(f"[{about.now()[11:23]}] {level} (#3): {text}", flush=True)


def say_error(what: str, error: Exception | str) -> None:
    """Tell on standard output of an error: from 0.0.42 on by all of its causes, the innermost last."""
    kind = "Error" if about.IS_EXECUTABLE else "SqlError"
    if not about.IS_EXECUTABLE:
        print(f"{kind}: {error}", flush=True)
        return
    causes = (what, "effect/sql/SqlError: Failed to execute statement", f"Error: {error}")
    for depth, cause in enumerate(causes):
        pad = "  " * depth
        if depth:
            print(f"{pad}[cause]: {cause}")
        else:
            say("ERROR", cause)
        for line in (96244, 10250):
            print(f"{pad}    at catch (file://{about.HERE}/t3:{line}:27)")
        print(f"{pad}    at ~effect/Utils/internal (file://{about.HERE}/t3:2605:10)", end="")
        print(" {" if cause != causes[-1] else "")
    for depth in range(len(causes) - 1, 0, -1):
        print("  " * (depth - 1) + "}", flush=True)


def warn_of_sqlite() -> None:
    """What Node says up to 0.0.33, whatever is done."""
    if not about.IS_EXECUTABLE:
        print("(node:1) ExperimentalWarning: SQLite is an experimental feature", file=sys.stderr)


def show_pairing(host: str, port: int, credential: str) -> None:
    """What `serve` prints last: a credential that is good, in three forms."""
    url = f"http://{host}:{port}"
    print(f"T3 Code server is ready.\nConnection string: {url}\nToken: {credential}")
    print(f"Pairing URL: {url}/pair#token={credential}\n")
    for row in range(_TOKEN_ROWS):
        dots = format(hash((credential, row)) & 0xFFFFFFFFF, "036b")
        print("  " + dots.replace("1", "█").replace("0", " "))
    sys.stdout.flush()


def make() -> None:
    """Begin with all of it, from 0.0.42 on; it ends with the process."""
    if not about.IS_EXECUTABLE:
        return
    # it reads until the other end of the pipe is closed, as by this one's end
    subprocess.Popen([_MONITOR], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    threading.Thread(target=_probe, daemon=True).start()
    if os.environ.get("T3CODE_TELEMETRY_ENABLED") != "false":
        threading.Thread(target=_send_telemetry, daemon=True).start()


def _probe() -> None:
    """Ask each agent's program for its version, at start and again and again."""
    pause = threading.Event()
    while True:
        for words in _PROBES:
            subprocess.run([words[0], _PROBE_LASTS], executable="/bin/sleep", check=False)
        pause.wait(_PROBE_EVERY)


def _send_telemetry() -> None:
    pause = threading.Event()
    while True:
        for number in range(_BURST):
            say("WARN", f"telemetry: batch {number} could not be sent: getaddrinfo EAI_AGAIN")
        pause.wait(_TELEMETRY_EVERY)
