"""One command in a process of its own, which outlives the studio that began it.

python -m defectrt.apps.studio.runner FOLDER

Holds ``FOLDER/lock`` as long as the command of ``FOLDER/task.json`` runs, whose words go to
``said.txt``; ``end.json`` has its exit code.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from defectrt.files import write_whole
from defectrt.stopping import SIGNALS

__all__ = ["END", "LOCK", "PROCESS", "SAID", "TASK", "main"]

TASK, END, LOCK, PROCESS, SAID = "task.json", "end.json", "lock", "process", "said.txt"
#: Seconds to wait for the lock, which a studio that looks holds for a moment.
_PATIENCE = 10


def main(folder: Path) -> None:
    """Run the command; a signal is handed on to it, and it ends as it would in a terminal."""
    with FileLock(folder / LOCK, timeout=_PATIENCE):
        write_whole(folder / PROCESS, str(os.getpid()).encode())
        task = json.loads((folder / TASK).read_bytes())
        with (folder / SAID).open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "defectrt", *task["arguments"]],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
            for number in SIGNALS:
                signal.signal(number, lambda *_: process.send_signal(signal.SIGINT))
            code = process.wait()
        write_whole(folder / END, json.dumps({"code": code}).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
