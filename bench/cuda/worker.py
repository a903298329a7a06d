"""Does tasks one after the other and writes down what they find: `python -m bench.cuda.worker FOLDER RESULTS DEVICE
TASK...`.

Nothing is caught here: an error of a kernel may spoil the process's context for good, so that the process ends, and
`bench.cuda.supervisor` begins another behind the task that failed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cuda import artifact
from bench.cuda.results import BEGUN, ENDED, FOUND, WRONG, Results
from bench.cuda.tasks import tasks


def work(folder: Path, results: Results, device: str, names: Sequence[str]) -> bool:
    """Whether all that was found was sound."""
    known, sound = tasks(), True
    for name in names:
        task = known[name]
        results.add(name, BEGUN, {"device": device, "digest": artifact.digest(folder, task.shapes)})
        for found in task.run(folder):
            results.add(name, FOUND, found.data)
            sound = sound and found.sound
        results.add(name, ENDED, {})
    return sound


def main() -> int:
    folder, results, device, *names = sys.argv[1:]
    return 0 if work(Path(folder), Results(Path(results)), device, names) else WRONG


if __name__ == "__main__":
    sys.exit(main())
