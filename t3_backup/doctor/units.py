"""Read what systemd knows of our units, and what an installation by hand left; `unit_checks` judges it. Changes nothing."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from t3_backup.errors import Failure
from t3_backup.system.systemd import BOOTED, call_systemctl

SERVICE = "t3-backup-state.service"
TIMER = "t3-backup-state.timer"
PROOF_SERVICE = "t3-backup-verify.service"
PROOF_TIMER = "t3-backup-verify.timer"
OVERRIDES = Path("/etc/systemd/system")
PACKAGED = (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))
# Where a script of earlier days was put by hand; the units that started it lie in OVERRIDES.
OLD_SCRIPTS = tuple(
    f"/usr/local/{folder}/t3-backup-state{ending}"
    for folder in ("bin", "sbin")
    for ending in ("", ".sh")
)

# Of these a service with PrivateTmp= has its own, which go with it (systemd.exec(5)).
PRIVATE = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - nothing is made there

_TIMEOUT_S = 10
_PATHS = ("ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths")
_OF_A_TIMER = (
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "FragmentPath",
    "DropInPaths",
    "NextElapseUSecRealtime",
)
_OF_A_SERVICE = (
    *("LoadState", "ActiveState", "SubState", "FragmentPath", "DropInPaths"),
    *(
        "Result",
        "ExecMainStatus",
        "ExecMainStartTimestamp",
        "ExecMainExitTimestamp",
        "TimeoutStartUSec",
    ),
    *("ProtectSystem", "ProtectHome", "PrivateTmp", "Environment", *_PATHS),
)
_SPAN_S = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "min": 60,
    "h": 3600,
    "d": 86_400,
    "w": 7 * 86_400,
    "month": 2_629_800,
    "y": 31_557_600,
}


@dataclass(frozen=True)
class Systemd:
    """The facts.

    A unit's properties are as `systemctl show` has them, paths made canonical; none where systemd
    does not run.
    """

    runs: bool
    problem: str = ""  # why it could not be asked
    timer: Mapping[str, str] = field(default_factory=dict)
    service: Mapping[str, str] = field(default_factory=dict)
    proof_timer: Mapping[str, str] = field(default_factory=dict)
    proof_service: Mapping[str, str] = field(default_factory=dict)
    old: tuple[str, ...] = ()  # files of an installation by hand that are there
    packaged: bool = False  # whether the package's timer is there
    homes: Path = Path("/home")  # canonical


def read_units() -> Systemd:
    """Read them as they are now."""
    units = (str(OVERRIDES / SERVICE), str(OVERRIDES / TIMER))
    old = tuple(
        path
        for path in (*units, *OLD_SCRIPTS)
        if os.path.lexists(path) and os.path.realpath(path) != os.devnull
    )
    packaged = any((folder / TIMER).exists() for folder in PACKAGED)
    if not BOOTED.is_dir():
        return Systemd(runs=False, old=old, packaged=packaged)
    try:
        timer, proof_timer = _show_timer(TIMER), _show_timer(PROOF_TIMER)
        service, proof_service = _show_service(SERVICE), _show_service(PROOF_SERVICE)
    except Failure as failure:
        return Systemd(runs=True, problem=str(failure), old=old, packaged=packaged)
    homes = Path(os.path.realpath("/home"))
    return Systemd(
        runs=True,
        timer=timer,
        service=service,
        proof_timer=proof_timer,
        proof_service=proof_service,
        old=old,
        packaged=packaged,
        homes=homes,
    )


def _show_timer(unit: str) -> dict[str, str]:
    return _show(unit, _OF_A_TIMER)


def _show_service(unit: str) -> dict[str, str]:
    service = _show(unit, _OF_A_SERVICE)
    return service | {
        name: shlex.join(map(os.path.realpath, parse_paths(service.get(name, ""))))
        for name in _PATHS
    }


def _show(unit: str, properties: Sequence[str]) -> dict[str, str]:
    return parse_show(
        call_systemctl("show", f"--property={','.join(properties)}", "--", unit, seconds=_TIMEOUT_S)
    )


def parse_show(text: str) -> dict[str, str]:
    """Parse the output of `systemctl show`: properties and their values."""
    return {
        name: value
        for name, equals, value in (line.partition("=") for line in text.splitlines())
        if equals
    }


def parse_span(text: str) -> float | None:
    """Parse a time span as systemd writes it, in seconds (systemd.time(7)): `2h 30min`, `infinity`.

    None for what is none.
    """
    if text == "infinity":
        return float("inf")
    seconds = 0.0
    for word in text.split():
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]+)", word)
        if not match or match[2] not in _SPAN_S:
            return None
        seconds += float(match[1]) * _SPAN_S[match[2]]
    return seconds if text.split() else None


def parse_paths(text: str) -> list[Path]:
    """Parse a property that is a list of paths, without the marks that systemd.exec(5) allows before each."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return [Path(word.lstrip("-+:")) for word in words]


def is_hidden(path: Path, service: Mapping[str, str]) -> bool:
    """Tell whether a service with these properties sees something else at `path` (canonical) than the machine does."""
    hidden = parse_paths(service.get("InaccessiblePaths", ""))
    if service.get("PrivateTmp", "no") != "no":
        hidden += PRIVATE
    return any(path.is_relative_to(place) for place in hidden)


def is_writable(path: Path, service: Mapping[str, str], homes: Path = Path("/home")) -> bool:
    """Tell whether a service with these properties may write beneath `path`: the deepest rule decides. All canonical."""
    if is_hidden(path, service):
        return False
    rules = {Path("/"): True}
    match service.get("ProtectSystem", "no"):
        case "strict":
            # ProtectSystem= leaves these to ProtectHome= and others (systemd.exec(5)).
            rules = {Path("/"): False, Path("/dev"): True, Path("/proc"): True, Path("/sys"): True}
        case "full":
            rules |= {Path(name): False for name in ("/usr", "/boot", "/efi", "/etc")}
        case "yes":
            rules |= {Path(name): False for name in ("/usr", "/boot", "/efi")}
    rules |= dict.fromkeys(
        (homes, Path("/root"), Path("/run/user")), service.get("ProtectHome", "no") == "no"
    )
    for name in _PATHS:
        rules |= dict.fromkeys(parse_paths(service.get(name, "")), name == "ReadWritePaths")
    return rules[
        max((rule for rule in rules if path.is_relative_to(rule)), key=lambda rule: len(rule.parts))
    ]


def drop_in(unit: str, name: str, *lines: str) -> str:
    """Write the command that adds `lines` to the service `unit` by a drop-in."""
    folder = OVERRIDES / f"{unit}.d"
    words = shlex.join(["[Service]", *lines])
    return f"mkdir -p {folder} && printf '%s\\n' {words} >{folder}/{name}.conf && systemctl daemon-reload"


def in_unit(path: Path) -> str:
    """Write `path` as a list of paths in a unit file has it, with the mark that lets it be missing."""
    text = f"-{path}".replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if re.search(r"[\s\"']", text) else text
