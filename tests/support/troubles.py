"""What can be wrong with the backups of a machine, by name: how it comes to be, by real means, and
how each channel names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from support import account_troubles, machine_troubles, store_troubles
from support.channels import Told
from support.scene import Scene
from t3_backup.text import utc_now

CRITICAL, WARNING = True, False


@dataclass(frozen=True)
class Trouble:
    """One thing that can be wrong."""

    name: str
    make: Callable[[Scene], object]
    told: Told


def _at_least_one(name: str) -> Callable[[Mapping[str, float]], bool]:
    return lambda seen: seen.get(name, 0) >= 1


def _is_zero(name: str) -> Callable[[Mapping[str, float]], bool]:
    return lambda seen: seen.get(name) == 0


def _is_old(seen: Mapping[str, float]) -> bool:
    """As the alert has it."""
    last = seen.get("last_success_timestamp_seconds", 0)
    return last < (utc_now() - timedelta(hours=26)).timestamp()


_FAILED = _is_zero("last_attempt_ok")
_HELD = _at_least_one("snapshots_held")
_LOST = _at_least_one("snapshots_lost")

TROUBLES = (
    Trouble(
        "the newest snapshot has rotted, and its database is unchanged",
        store_troubles.rot_newest,
        Told("no longer matched its checksum", WARNING, run_code=0),
    ),
    Trouble(
        "the proof of a snapshot fails",
        store_troubles.rot_oldest,
        Told(
            "(?i)does not verify|not what was sealed|proof failed|SHA-256",
            CRITICAL,
            _at_least_one("failed_proofs"),
        ),
    ),
    Trouble(
        "the data of a snapshot is gone",
        store_troubles.remove_data,
        Told("can't be found|has lost", CRITICAL, _LOST),
    ),
    Trouble(
        "the manifest of a snapshot is gone",
        store_troubles.remove_manifest,
        Told("no valid manifest|can't be found", CRITICAL, _LOST),
    ),
    Trouble(
        "the folder of an account is gone",
        store_troubles.remove_account_folder,
        Told("can't be found|has lost", CRITICAL, _LOST),
    ),
    Trouble(
        "the store's disk is not mounted",
        store_troubles.unmount,
        Told("is its disk mounted", CRITICAL),
    ),
    Trouble(
        "another store is in its place",
        store_troubles.mount_another,
        Told("another store", CRITICAL),
    ),
    Trouble(
        "the name of the store has a slip",
        store_troubles.mistype,
        Told("no store at|is new, and the", CRITICAL),
    ),
    Trouble(
        "a snapshot is suspect",
        account_troubles.lose_rows,
        Told("is suspect|suspect:|, suspect", CRITICAL, _HELD),
    ),
    Trouble(
        "a snapshot is damaged",
        account_troubles.damage,
        Told("is damaged|damaged:|, damaged", CRITICAL, _HELD),
    ),
    Trouble(
        "a snapshot can't be judged",
        account_troubles.collate,
        Told(
            r"is unproven|, unproven|unproven \(",
            WARNING,
            _at_least_one('last_snapshot_verdict{verdict="unproven"}'),
        ),
    ),
    Trouble(
        "a database is one too many to be copied",
        account_troubles.crowd,
        Told(r"zz\d\d\.sqlite", CRITICAL, _at_least_one("uncovered_databases")),
    ),
    Trouble(
        "a database can't be copied",
        account_troubles.spoil_second,
        Told(r"junk\.sqlite", CRITICAL, _at_least_one("missing_databases")),
    ),
    Trouble("the database was deleted", account_troubles.delete, Told("deleted", WARNING, _FAILED)),
    Trouble(
        "a link is in the place of the database",
        account_troubles.link,
        Told("symlink", WARNING, _FAILED),
    ),
    Trouble(
        "the last good one is old",
        store_troubles.grow_old,
        Told("last good one is|5d old", CRITICAL, _is_old),
    ),
    Trouble(
        "an account was never backed up",
        machine_troubles.add_newcomer,
        Told(
            "never backed up|no verified snapshot|backup FAILED|symlink",
            CRITICAL,
            _is_zero("last_success_timestamp_seconds"),
        ),
    ),
    Trouble(
        "the store has no room",
        store_troubles.take_all_room,
        Told("(?i)too little|no space|no room|no backup can be made", WARNING, _FAILED),
    ),
    Trouble(
        "an account is over its limit",
        store_troubles.limit_account,
        Told("MAX_BYTES", WARNING, _FAILED),
    ),
    Trouble(
        "the map names somebody who is not there",
        machine_troubles.add_stranger,
        Told("no-such-user", CRITICAL),
    ),
    Trouble(
        "a line of the map makes no sense",
        machine_troubles.add_nonsense,
        Told("no sense in it", WARNING, run_code=0),
    ),
    Trouble(
        "an account has left the map",
        machine_troubles.leave_map,
        Told("not in the map|is not in|no users", WARNING, _is_zero("account_in_map")),
    ),
    Trouble(
        "an account folder is its user's",
        store_troubles.give_folder_away,
        Told("takes (it|them) over|take them over", CRITICAL),
    ),
    Trouble(
        "two servers work in one folder",
        account_troubles.serve_twice,
        Told(r"pids? \d+", WARNING, run_code=0),
    ),
    Trouble("a newer T3 has worked beside", account_troubles.come_newer, Told("newer t3", WARNING)),
    Trouble(
        "-wal and -shm are somebody else's",
        account_troubles.lock_out,
        Told(r"sqlite-(shm|wal)", WARNING, _FAILED),
    ),
    Trouble(
        "the disk of a home is full",
        account_troubles.fill_home,
        Told("disk[^;]*full", WARNING, run_code=0),
    ),
    Trouble(
        "a mount of the account's never answers",
        account_troubles.hang,
        Told("does not answer|no sign of life|did not answer", WARNING, _FAILED),
    ),
    Trouble(
        "the files beside are above their limit",
        account_troubles.outgrow_files,
        Told("FILES_LIMIT|not saved", WARNING, _FAILED),
    ),
    Trouble(
        "the settings are a link", account_troubles.link_settings, Told(r"settings\.json", WARNING)
    ),
    Trouble(
        "a restore was interrupted",
        store_troubles.interrupt_restore,
        Told("restore.*interrupted|interrupted restore", CRITICAL, run_code=0),
    ),
    Trouble("a snapshot is of the future", store_troubles.future, Told("future", WARNING)),
    Trouble("nobody can log in", machine_troubles.fail_login, Told("nobody can log in", WARNING)),
    Trouble(
        "the list of attempts is broken",
        store_troubles.break_attempts,
        Told(r"attempts\.json", WARNING, run_code=0),
    ),
    Trouble(
        "the catalog of an account is broken",
        store_troubles.break_catalog,
        Told("catalog", WARNING),
    ),
    Trouble("a hook fails", machine_troubles.fail_hook, Told("(?i)hook.*no network", WARNING)),
    Trouble(
        "a hook is passed over",
        machine_troubles.open_hook,
        Told("(?i)hook.*page|page.*passed over", WARNING),
    ),
    Trouble("the log can't be written", machine_troubles.lose_log, Told("not there", WARNING)),
    Trouble(
        "the metrics can't be written",
        machine_troubles.lose_metrics,
        Told("metrics can't be written|textfiles.*symlink", WARNING),
    ),
)
