"""Run t3-backup-state with another systemctl, as on a machine that systemd has booted.

Arguments: the program that stands in for systemctl; those of the command.
"""

import sys
from pathlib import Path

from t3_backup.cli.main import main
from t3_backup.system import systemd

systemd._SYSTEMCTL = sys.argv.pop(1)
systemd.BOOTED = Path("/")
sys.exit(main())
