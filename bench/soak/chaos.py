"""Kills and stops the compiler's process at random moments."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections import Counter

from moec.runtime.adapt.worker import Worker

STOPPED = 0.2
"""Share of the strikes that stop the process instead, so that it must be given up after its time limit."""


class Chaos:
    """While it is `on`, strikes `worker`'s process every `pause` seconds on average, if there is one."""

    def __init__(self, worker: Worker, pause: float, seed: int) -> None:
        self.strikes: Counter[str] = Counter()
        self.on = threading.Event()
        self._worker, self._pause = worker, pause
        self._random = random.Random(seed)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="chaos", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ending.wait(self._random.expovariate(1 / self._pause)):
            if not self.on.is_set():
                continue
            strike = signal.SIGSTOP if self._random.random() < STOPPED else signal.SIGKILL
            pid = self._worker.pid
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, strike)
                    self.strikes[strike.name] += 1
