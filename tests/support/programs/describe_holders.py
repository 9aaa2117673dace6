"""Print who has a file open, as a restore names them.

Usage: INODE DEVICE, as /proc has them.
"""

import sys

from t3_backup.system.file_identity import ProcFile
from t3_backup.system.open_files import describe_holders

if __name__ == "__main__":
    print(describe_holders(ProcFile(int(sys.argv[1]), sys.argv[2])))
