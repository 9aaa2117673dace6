"""Check that the timers start what they should, and the services may do it.

Pure: facts in, findings out.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from t3_backup.doctor import units
from t3_backup.doctor.facts import Facts
from t3_backup.doctor.finding import Finding, fail, note, ok, warn
from t3_backup.doctor.units import PACKAGED, PROOF_SERVICE, PROOF_TIMER, SERVICE, TIMER, Systemd
from t3_backup.errors import LockHeld
from t3_backup.settings import Settings
from t3_backup.text import quote

_NEVER = ("", "n/a", "infinity")
_STORE = "the store"


def check_units(facts: Facts, settings: Settings) -> Iterator[Finding]:
    """Check all units."""
    systemd = facts.systemd
    yield from _by_hand(systemd)
    if not systemd.runs:
        mend = "use cron, or run t3-backup-state by hand"
        yield note("systemd", f"does not run here: nothing starts a backup by itself; {mend}")
        return
    if systemd.problem:
        yield warn("systemd", f"can't be asked: {systemd.problem}")
        return
    yield _timer("timer", TIMER, systemd.timer, systemd.service)
    yield from _drop_ins(systemd)
    if "T3_BACKUP_" in systemd.service.get("Environment", ""):
        found = f"Environment= of {SERVICE} has settings that are not looked at here"
        yield warn("drop-ins", f"{found}; put them into /etc/default/t3-backup")
    if systemd.service.get("LoadState") == "loaded":
        yield _last_run("last run", SERVICE, systemd.service)
        yield _sandbox("sandbox", SERVICE, systemd.service, _written_by_a_run(facts), systemd.homes)
        yield _time_limit(systemd.service, settings, len(facts.accounts))
    else:
        yield fail("service", _not_loaded(SERVICE, systemd.service))
    yield from _proof(facts)


def _proof(facts: Facts) -> Iterator[Finding]:
    """Check the weekly proof: backups are made without it, so only a failed one fails."""
    systemd = facts.systemd
    timer, service = systemd.proof_timer, systemd.proof_service
    yield _leniently(_timer("proof timer", PROOF_TIMER, timer, service))
    if service.get("LoadState") == "loaded":
        yield _last_run("last proof", PROOF_SERVICE, service)
        wanted = {facts.store.real: _STORE} | _textfiles(facts)
        yield _leniently(_sandbox("proof sandbox", PROOF_SERVICE, service, wanted, systemd.homes))
    else:
        yield warn("proof service", _not_loaded(PROOF_SERVICE, service))


def _leniently(finding: Finding) -> Finding:
    return replace(finding, status="warn") if finding.status == "fail" else finding


def _by_hand(systemd: Systemd) -> Iterator[Finding]:
    """Find what shadows the package: an older script, or units that start it."""
    files = list(systemd.old)
    for unit in (systemd.service, systemd.timer):
        path = unit.get("FragmentPath", "") if unit.get("LoadState") != "masked" else ""
        if path and Path(path).parent not in PACKAGED and path not in files:
            files.append(path)
    if not files:
        yield ok("by hand", "no older manual installation")
        return
    commands = [f"rm {shlex.join(files)}"]
    if systemd.runs:
        commands.append("systemctl daemon-reload")
    if systemd.timer.get("LoadState") == "loaded":
        commands.insert(0, f"systemctl disable --now {TIMER}")
    if systemd.runs and systemd.packaged:
        commands.append(f"systemctl enable --now {TIMER}")
    found = f"an older manual installation hides the package: {', '.join(files)}"
    yield fail("by hand", f"{found}; {' && '.join(commands)}")


def _not_loaded(unit: str, properties: Mapping[str, str]) -> str:
    match properties.get("LoadState"):
        case "not-found":
            return f"there is no {unit}: install the package t3-backup"
        case "masked":
            return f"{unit} is masked; systemctl unmask {unit}"
        case state:
            return f"{unit} can't be loaded ({state}); systemctl status {quote(unit)}"


def _timer(name: str, unit: str, timer: Mapping[str, str], service: Mapping[str, str]) -> Finding:
    enable = f"systemctl enable --now {unit}"
    if timer.get("LoadState") != "loaded":
        return fail(name, f"{_not_loaded(unit, timer)}; until then it starts nothing")
    if (state := timer.get("UnitFileState")) != "enabled":
        return fail(name, f"not enabled ({state or 'no state'}): it starts nothing; {enable}")
    if timer.get("ActiveState") != "active":
        return fail(name, f"enabled, but not active ({timer.get('ActiveState')}); {enable}")
    if timer.get("NextElapseUSecRealtime", "") not in _NEVER:
        return ok(name, f"enabled and active, next on {timer['NextElapseUSecRealtime']}")
    if service.get("ActiveState") in ("activating", "active"):
        return ok(name, "enabled and active; its service is running now")
    why = "no OnCalendar= that is still to come"
    return fail(name, f"never starts anything ({why}); systemctl cat {quote(unit)}")


def _drop_ins(systemd: Systemd) -> Iterator[Finding]:
    known = (systemd.service, systemd.timer, systemd.proof_service, systemd.proof_timer)
    paths = [path for unit in known for path in units.parse_paths(unit.get("DropInPaths", ""))]
    if paths:
        yield note("drop-ins", f"{', '.join(map(str, paths))} change the units")


def _last_run(name: str, unit: str, service: Mapping[str, str]) -> Finding:
    result, code = service.get("Result"), service.get("ExecMainStatus")
    when = service.get("ExecMainExitTimestamp", "")
    if service.get("SubState") == "auto-restart":
        return warn(name, f"ended with exit status {code}, {when}; systemd tries again by itself")
    if service.get("ActiveState") in ("activating", "active"):
        return ok(name, f"one is running since {service.get('ExecMainStartTimestamp')}")
    if when in _NEVER:
        return note(name, "none since the machine was started")
    if result == "success" and code == "0":
        return ok(name, f"went well, {when}")
    again = f"run it now: systemctl start {unit}"
    if result == "success" and code == str(int(signal.SIGTERM)):  # which the unit takes for one
        return warn(name, f"was stopped before it was done, {when}; {again}")
    if code == str(LockHeld.exit_code):
        return warn(
            name, f"another run held the store, or the package was upgraded, {when}; {again}"
        )
    found = f"failed ({result}, exit status {code}), {when}"
    return fail(name, f"{found}; see why: journalctl -u {quote(unit)}")


def _written_by_a_run(facts: Facts) -> dict[Path, str]:
    """List where a run writes; in a home, a worker makes the -shm of the database."""
    wanted = {facts.store.real: _STORE}
    for account in facts.accounts:
        if account.home is not None:
            wanted[account.home] = f"the home of {account.user}"
    if facts.log_folder is not None:
        wanted[facts.log_folder] = "the log's folder"
    return wanted | _textfiles(facts)


def _textfiles(facts: Facts) -> dict[Path, str]:
    if facts.textfiles is None or facts.textfiles.problem:
        return {}
    return {facts.textfiles.real: "the folder of the metrics"}


def _sandbox(
    name: str, unit: str, service: Mapping[str, str], wanted: Mapping[Path, str], homes: Path
) -> Finding:
    closed = [path for path in wanted if not units.is_writable(path, service, homes)]
    if not closed:
        return ok(name, f"{unit} may write to every folder it needs")
    found = ", ".join(f"{wanted[path]} ({path})" for path in closed)
    if hidden := [path for path in closed if units.is_hidden(path, service)]:
        mend = "must be elsewhere (PrivateTmp=, InaccessiblePaths=)"
        return fail(name, f"{unit} does not see {found}; {', '.join(map(str, hidden))} {mend}")
    lines = [f"ReadWritePaths={units.in_unit(path)}" for path in closed]
    store = next((path for path in closed if wanted[path] == _STORE), None)
    command = units.drop_in(unit, "paths", *lines, mounts=store)
    return fail(name, f"{unit} may not write to {found}; {command}")


def _time_limit(service: Mapping[str, str], settings: Settings, accounts: int) -> Finding:
    text, needed = service.get("TimeoutStartUSec", ""), settings.run_timeout(accounts)
    limit = units.parse_span(text)
    found = f"systemd ends a run after {text}; a run may take up to {needed} s"
    if limit is not None and limit > needed:
        return ok("time limit", found)
    command = units.drop_in(SERVICE, "time", f"TimeoutStartSec={2 * needed}")
    return warn("time limit", f"{found} with {accounts} accounts; {command}")
