"""Find out and keep what a version makes where there is no database yet."""

from __future__ import annotations

from dataclasses import replace

from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.gate import gate
from t3_backup.autoupdate.gate.verdict import EMPTY, Trial
from t3_backup.autoupdate.programs.installations import About, Installations
from t3_backup.errors import Failure


def learn_about(context: Context, version: str) -> About:
    """Read what is known of a version; try it on an empty state where its ledger is not.

    Raises Failure where it fails there, and no level is known either.
    """
    installations = context.installations
    found = installations.about(version)
    if found.ledger is not None:
        return found
    context.say(f"gate: it is not known which database T3 {version} can open: trying it")
    settings = context.settings
    trial = gate.run_trial(
        installations.prefix(version), EMPTY, None, settings.watch, settings.patience
    )
    if trial is None or not trial.passed:
        if found.level is not None:
            return found
        why = trial and f"it failed on an empty state at {trial.step}: {trial.reason}"
        unknown = f"it is unknown which database T3 {version} can open"
        raise Failure(f"{unknown}: {why}; put one back by hand: t3-backup-state restore")
    return keep_about(installations, version, trial)


def keep_about(installations: Installations, version: str, empty: Trial) -> About:
    """Keep what a version has made of an empty state. Raises OSError."""
    found = replace(
        installations.about(version),
        level=empty.level_after,
        ledger=empty.ledger,
        database=empty.database,
    )
    installations.save_about(found)
    return found
