"""`python3 -m t3_backup` is `t3-backup-state`."""

import sys

from t3_backup.cli.main import main

sys.exit(main())
