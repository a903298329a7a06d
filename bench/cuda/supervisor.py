"""Runs tasks in a process of their own, which is given up where a task hangs or ends it: the others still run."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bench.cuda.results import BEGUN, ENDED, FAILED, FOUND, WRONG, Results

_LOOK_SECONDS = 0.2
_START_SECONDS = 120.0
"""That a process may take before its first task: it imports torch."""
_SHOWN = 300

Command = Callable[[Sequence[str]], Sequence[str]]
"""The process that does tasks of these names, in order, and writes to the results (`bench.cuda.worker`)."""


@dataclass(frozen=True)
class Supervisor:
    """
    command  what does the tasks
    limits   seconds without anything found after which a task is taken to hang, by its name
    root     the folder to run in
    say      shows a line
    """

    results: Results
    command: Command
    limits: Mapping[str, float]
    root: Path
    say: Callable[[str], None]

    def run(self, names: Sequence[str], until: float | None = None) -> list[str]:
        """Runs tasks, up to a time of `time.monotonic`; those that are left over.

        Raises RuntimeError where the process ends before its first task.
        """
        left = list(names)
        while left and (until is None or time.monotonic() < until):
            left = self._process(left, until)
        return left

    def _process(self, names: Sequence[str], until: float | None) -> list[str]:
        """One process; what is left to another."""
        left = list(names)
        seen = len(self.results.read())
        with tempfile.TemporaryFile("w+") as errors:
            # In a group of its own, so that what it starts ends with it.
            process = subprocess.Popen(
                self.command(left), cwd=self.root, stdout=errors, stderr=errors, start_new_session=True
            )
            try:
                begun: str | None = None
                since = time.monotonic()
                while True:
                    ended = process.poll() is not None
                    records = self.results.read()
                    for task, state, line in _new(records[seen:]):
                        if state == BEGUN:
                            begun, since = task, time.monotonic()
                        elif state == FOUND:
                            since = time.monotonic()
                            self.say(line)
                        elif state == ENDED:
                            left.remove(task)
                            begun, since = None, time.monotonic()
                    seen = len(records)
                    now = time.monotonic()
                    if ended:
                        return self._after(process.returncode, begun, left, errors)
                    if until is not None and now >= until:
                        return left
                    if now - since > (_START_SECONDS if begun is None else self.limits[begun]):
                        return self._hung(begun, left)
                    time.sleep(_LOOK_SECONDS)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _hung(self, begun: str | None, left: list[str]) -> list[str]:
        if begun is None:
            raise RuntimeError(f"nothing began in {_START_SECONDS:.0f} seconds")
        return self._failed(begun, f"hangs: nothing found in {self.limits[begun]:.0f} seconds", left)

    def _after(self, code: int, begun: str | None, left: list[str], errors: IO[str]) -> list[str]:
        if code in (0, WRONG) and begun is None and not left:
            return left
        errors.seek(0)
        lines = [line for line in errors.read().splitlines() if line.strip()] or ["it said nothing"]
        said = f"{lines[-1][:_SHOWN]} (exit status {code})"
        if begun is None:
            raise RuntimeError("\n".join((*lines[-12:-1], said)))
        return self._failed(begun, said, left)

    def _failed(self, task: str, why: str, left: list[str]) -> list[str]:
        self.results.add(task, FAILED, {"line": why})
        self.say(f"FAILED {task}: {why}")
        return [name for name in left if name != task]


def _new(records: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, str, str]]:
    for one in records:
        yield one["task"], one["state"], one.get("line", "")
