"""The metrics of the bump: they are written whenever what they tell of has changed, by a person,
too."""

from __future__ import annotations

from pathlib import Path

from support.users import needs_root

from t3_backup.autoupdate.main import main


def frozen(folder: Path) -> float:
    """What a collector would read."""
    [line] = [
        line
        for line in (folder / "t3_autoupdate.prom").read_text().splitlines()
        if line.startswith("t3_autoupdate_frozen ")
    ]
    return float(line.split()[1])


@needs_root
def test_a_freeze_and_a_thaw_by_hand_are_in_the_metrics_at_once(tmp_path: Path) -> None:
    environ = {
        "T3_AUTOUPDATE_ROOT": str(tmp_path / "root"),
        "T3_AUTOUPDATE_FREEZE": str(tmp_path / "freeze"),
        "T3_BACKUP_TEXTFILE_DIR": str(tmp_path),
    }
    for command, value in (("freeze", 1), ("thaw", 0), ("freeze", 1)):
        assert main([command], environ, Path("/nonexistent")) == 0
        assert frozen(tmp_path) == value
