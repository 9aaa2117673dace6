"""Run a command for which the kernel refuses one system call with one error.

Usage: CALL POSITION MASK VALUE ERROR COMMAND... Refused is CALL where its argument POSITION, masked
with MASK, is VALUE; also to all that the command starts.
"""

import os
import sys

import seccomp


def main() -> None:
    name = sys.argv[1]
    position, mask, value, error = map(int, sys.argv[2:6])
    calls = seccomp.SyscallFilter(seccomp.ALLOW)
    argument = seccomp.Arg(position, seccomp.MASKED_EQ, mask, value)
    calls.add_rule(seccomp.ERRNO(error), name, argument)
    calls.load()
    os.execv(sys.argv[6], sys.argv[6:])


if __name__ == "__main__":
    main()
