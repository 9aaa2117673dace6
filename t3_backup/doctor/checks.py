"""Check what stands in the way of good backups here, and say what to do about it.

Pure: facts in, findings out. Only a failed check makes the command fail: without mending it,
backups are not made, or are none. A warning wants a look; a note is there to be known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from t3_backup.doctor import account_checks, store_checks, unit_checks
from t3_backup.doctor.facts import Facts, Libraries
from t3_backup.doctor.finding import Finding, fail, note, ok, warn
from t3_backup.settings import DEFAULT_LOG, Settings

_WAL_RESET_BUG = (
    "two connections that write and checkpoint at once can damage a database. "
    "We only read, and checkpoint nothing; the SQLite of each T3 server is what matters: "
    "3.51.3, 3.50.7 or 3.44.6 has it mended"
)


def check_machine(facts: Facts, settings: Settings) -> list[Finding]:
    """Check everything, in the order in which things depend on each other."""
    return [
        *_rights(facts, settings),
        *_map(facts),
        *account_checks.check_databases(facts),
        *store_checks.check_store(facts, settings),
        *account_checks.check_account_dirs(facts),
        *account_checks.check_freshness(facts),
        *account_checks.check_attempts(facts),
        *account_checks.check_proofs(facts),
        *account_checks.check_logins(facts),
        *_log(facts, settings),
        *_metrics(facts, settings),
        *_hooks(facts),
        *_libraries(facts.libraries),
        *unit_checks.check_units(facts, settings),
    ]


def _rights(facts: Facts, settings: Settings) -> Iterator[Finding]:
    if not facts.is_root:
        found = "only your own account and what you may see were looked at"
        all_of_it = f"for {settings.map} and the others: sudo t3-backup-state doctor"
        yield note("rights", f"{found}; {all_of_it}")


def _map(facts: Facts) -> Iterator[Finding]:
    if (known := facts.map) is None:
        return
    for warning in known.warnings:
        yield warn("map", f"{warning}; mend the line")
    if known.problem:
        yield fail("map", known.problem)
    elif not known.users and known.warnings:
        yield fail("map", f"{known.path}: no line names an account; mend it")
    elif not known.users:
        mend = "nothing is backed up; add lines authentik=os_user"
        yield warn("map", f"{known.path} names no account: {mend}")
    else:
        yield ok("map", f"{known.path} names {len(known.users)} accounts")


def _log(facts: Facts, settings: Settings) -> Iterator[Finding]:
    if facts.is_root and facts.log_folder is None and settings.log != DEFAULT_LOG:
        folder = settings.log.parent
        found = f"no folder {folder}: each run ends with exit code 1"
        yield fail("log", f"{found}; mkdir {folder} (or see T3_BACKUP_LOG)")


def _metrics(facts: Facts, settings: Settings) -> Iterator[Finding]:
    if (found := facts.textfiles) is None:
        return
    if found.problem:
        why = f"they can't be written to {settings.textfiles}: {found.problem}"
        mend = "mend it, or name another folder or none (T3_BACKUP_TEXTFILE_DIR)"
        yield fail("metrics", f"{why}; each run ends with exit code 1; {mend}")
    elif facts.libraries.prometheus:
        why = "not written, python3-prometheus-client is not there"
        yield note("metrics", f"{why}; apt install python3-prometheus-client")
    else:
        yield ok("metrics", f"written to {settings.textfiles}")


def _hooks(facts: Facts) -> Iterator[Finding]:
    if (found := facts.hooks) is None:
        return
    if found.passed_over:
        yield warn("hooks", f"in {found.folder} are ignored: {', '.join(found.passed_over)}")
    if found.hooks:
        called = f"called when a run fails: {', '.join(found.hooks)}"
        yield ok("hooks", f"{called}; try them: t3-backup-state hooks")


def _libraries(found: Libraries) -> Iterator[Finding]:
    version = f"{found.sqlite} (apsw {found.apsw})"
    if has_wal_reset_bug(found.sqlite):
        yield warn("sqlite", f"{version} has the WAL-reset bug: {_WAL_RESET_BUG}")
    else:
        yield ok("sqlite", version)
    if found.extension:
        yield fail("extension", f"{found.extension}; use Debian's python3-apsw")
    else:
        yield ok("extension", "the VFS that writes the copies can be loaded")
    if found.seccomp:
        yield fail("seccomp", f"{found.seccomp}; apt install python3-seccomp")
    else:
        yield ok("seccomp", "workers can be confined")
    if found.systemd:
        why = "not there: the journal gets lines without fields"
        yield note("python3-systemd", f"{why}; apt install python3-systemd")
    else:
        yield ok("python3-systemd", "there")


def has_wal_reset_bug(version: str) -> bool:
    """Tell whether that SQLite has the bug of sqlite.org/wal.html#walresetbug."""
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    mended = (
        number >= (3, 51, 3) or (3, 50, 7) <= number < (3, 51) or (3, 44, 6) <= number < (3, 45)
    )
    return number >= (3, 7, 0) and not mended
