"""Start programs while a Ctrl-C is held down, and print how they end."""

from __future__ import annotations

import os
import signal
import subprocess

from t3_backup.system.process import start_in_own_group

os.setsid()
signal.signal(signal.SIGINT, signal.SIG_IGN)
ours = os.getpid()
keyboard = os.fork()
if not keyboard:
    while os.getppid() == ours:
        os.killpg(ours, signal.SIGINT)
    os._exit(0)
signal.signal(signal.SIGINT, lambda *_: None)
nothing = subprocess.DEVNULL
for session in (False, True) * 50:
    with start_in_own_group(
        ["/usr/bin/true"], stdin=nothing, stdout=nothing, stderr=None, session=session
    ) as process:
        pass
    print(process.returncode)
os.kill(keyboard, signal.SIGKILL)
