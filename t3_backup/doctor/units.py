"""Read what systemd knows of our units, and what an installation by hand left.

`unit_checks` judges it. Nothing is changed.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
# Properties, as --property= takes them.
_OF_ANY = "LoadState,ActiveState,FragmentPath,DropInPaths"
_OF_A_TIMER = f"{_OF_ANY},UnitFileState,NextElapseUSecRealtime"
_OF_A_SERVICE = (
    f"{_OF_ANY},SubState,Result,ExecMainStatus,ExecMainStartTimestamp,ExecMainExitTimestamp,"
    f"TimeoutStartUSec,ProtectSystem,ProtectHome,PrivateTmp,Environment,{','.join(_PATHS)}"
)
_DAY_S = 86_400
_SPAN_S = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": _DAY_S, "w": 7 * _DAY_S}
_SPAN_S |= {"month": 2_629_800, "y": 31_557_600}


@dataclass(frozen=True)
class Systemd:
    """What systemd says of our units.

    Their properties are as `systemctl show` has them, paths made canonical; none where systemd does
    not run.
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
    """Read the units as they are now."""
    candidates = (str(OVERRIDES / SERVICE), str(OVERRIDES / TIMER), *OLD_SCRIPTS)
    found = Systemd(
        runs=BOOTED.is_dir(),
        old=tuple(
            path
            for path in candidates
            if os.path.lexists(path) and os.path.realpath(path) != os.devnull
        ),
        packaged=any((folder / TIMER).exists() for folder in PACKAGED),
        homes=Path(os.path.realpath("/home")),
    )
    if not found.runs:
        return found
    try:
        return replace(
            found,
            timer=_show(TIMER, _OF_A_TIMER),
            service=_show_service(SERVICE),
            proof_timer=_show(PROOF_TIMER, _OF_A_TIMER),
            proof_service=_show_service(PROOF_SERVICE),
        )
    except Failure as failure:
        return replace(found, problem=str(failure))


def _show_service(unit: str) -> dict[str, str]:
    service = _show(unit, _OF_A_SERVICE)
    for name in _PATHS:
        service[name] = shlex.join(map(os.path.realpath, parse_paths(service.get(name, ""))))
    return service


def _show(unit: str, properties: str) -> dict[str, str]:
    shown = call_systemctl("show", f"--property={properties}", "--", unit, seconds=_TIMEOUT_S)
    return parse_show(shown)


def parse_show(text: str) -> dict[str, str]:
    """Parse the output of `systemctl show`: properties and their values."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def parse_span(text: str) -> float | None:
    """Parse a time span such as `2h 30min` (systemd.time(7)); None for what is none."""
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
    """Parse a list of paths, without the marks before each (systemd.exec(5))."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return [Path(word.lstrip("-+:")) for word in words]


def is_hidden(path: Path, service: Mapping[str, str]) -> bool:
    """Tell whether a service sees something else at `path` than the machine does."""
    hidden = parse_paths(service.get("InaccessiblePaths", ""))
    if service.get("PrivateTmp", "no") != "no":
        hidden += PRIVATE
    return any(path.is_relative_to(place) for place in hidden)


def is_writable(path: Path, service: Mapping[str, str], homes: Path = Path("/home")) -> bool:
    """Tell whether a service may write beneath `path`; all paths are canonical."""
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
    open_homes = service.get("ProtectHome", "no") == "no"
    rules |= dict.fromkeys((homes, Path("/root"), Path("/run/user")), open_homes)
    for name in _PATHS:
        rules |= dict.fromkeys(parse_paths(service.get(name, "")), name == "ReadWritePaths")
    return rules[max(filter(path.is_relative_to, rules), key=lambda rule: len(rule.parts))]


def drop_in(unit: str, name: str, *lines: str, mounts: Path | None = None) -> str:
    """Write the command that adds `lines` to the service `unit` by a drop-in.

    With `mounts`, what that path is on is mounted before the service starts.
    """
    folder = OVERRIDES / f"{unit}.d"
    needs = [] if mounts is None else ["[Unit]", f"RequiresMountsFor={_quoted(mounts)}"]
    words = shlex.join([*needs, "[Service]", *lines])
    write = f"mkdir -p {folder} && printf '%s\\n' {words} >{folder}/{name}.conf"
    return f"{write} && systemctl daemon-reload"


def in_unit(path: Path) -> str:
    """Write `path` for a list in a unit file, with the mark that lets it be missing."""
    return _quoted(f"-{path}")


def _quoted(word: Path | str) -> str:
    text = str(word).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if re.search(r"[\s\"']", text) else text
