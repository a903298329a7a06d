"""The compiler in a process of its own, which leaves processors to callers: whatever happens to it, they go on.

The process is `python -m moec.pipeline.server`, under one that has it take turns (turns.py).  It is started with the
first job, or when one is likely to come soon, stays warm for the next one, and ends some time after the last, or when
this process ends, as it then reads the end of its input.  One line of JSON is a job, one an answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from moec.artifact.specialisation import Specialisation
from moec.errors import CompilerError, CompilerMissing
from moec.runtime.adapt.patience import LOOKS, Patience

_NEEDED = ("torch_mlir",)
"""What is not there where only the runtime is installed."""
_LONGEST_ANSWER = 1 << 20
_LAST_WORDS = 2000


@dataclass(frozen=True)
class Job:
    """Compile the layer of `artifact` anew.

    artifact  the file of the artifact that is specialised
    variant   name of the instruction set to compile for
    output    where to write the new artifact
    objects   folder in which the compiler keeps code for other jobs; None: it keeps it as long as it runs
    """

    artifact: Path
    specialisation: Specialisation
    variant: str
    output: Path
    objects: Path | None = None


class Worker:
    """One process that compiles one job at a time.

    timeout  seconds of processor time, or of waiting for something else, for a job, the start of the process included
    idle     seconds after which a process without a job ends
    command  what is run; by default this Python's `-m moec.pipeline.server`
    """

    def __init__(self, timeout: float = 60.0, idle: float = 60.0, command: tuple[str, ...] | None = None) -> None:
        self._timeout = timeout
        self._idle = idle
        # -P: a folder called moec where the process happens to work must not be taken for moec.
        self._command = command or (sys.executable, "-P", "-m", "moec.pipeline.server")
        self._own = command is None
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._number = 0
        self._last = 0.0

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        process = self._process
        return None if process is None else process.pid

    def start(self) -> None:
        """Start the process if there is none and wait until it is ready, so that the next job need not.

        Raises as `compile`.
        """
        with self._lock:
            try:
                self._ensure(Patience(self._timeout))
            except CompilerError:
                self._kill()
                raise
            self._rest_later()

    def compile(self, job: Job) -> float:
        """Write `job.output`; returns how many seconds of processor time it took.

        Raises CompilerMissing where none is installed, CompilerError when it crashed, took too long or refused; after a
        crash the next job has a new process.
        """
        with self._lock:
            patience = Patience(self._timeout)
            try:
                self._ensure(patience)
                self._number += 1
                answer = self._ask(_request(self._number, job), patience)
                ok, seconds = answer.get("ok") is True, answer.get("seconds")
                if answer.get("id") != self._number or (ok and not isinstance(seconds, float)):
                    raise CompilerError(f"the compiler answered {json.dumps(answer)[:200]}")
            except CompilerError:
                self._kill()
                raise
            self._rest_later()
            if not ok or not isinstance(seconds, float):
                raise CompilerError(str(answer.get("error"))[:_LAST_WORDS])
            return seconds

    def rest(self) -> None:
        """End a process that has had no job for long."""
        if self._lock.acquire(blocking=False):
            try:
                if time.monotonic() - self._last >= self._idle:
                    self._kill()
            finally:
                self._lock.release()

    def _rest_later(self) -> None:
        self._last = time.monotonic()
        ending = threading.Timer(self._idle, self.rest)
        ending.daemon = True
        ending.start()

    def close(self) -> None:
        """End the process, a job that it is at too."""
        process = self._process
        if process is not None:
            _end(process)  # without the lock: whoever waits for its answer then has it
        with self._lock:
            self._kill()

    def _ensure(self, patience: Patience) -> None:
        """Start the process if there is none."""
        if self._process is not None and self._process.poll() is None:
            return
        self._kill()
        missing = [name for name in _NEEDED if find_spec(name) is None] if self._own else []
        if missing:
            raise CompilerMissing(
                f"the compiler is not installed here ({', '.join(missing)}): pip install 'moec[compiler]'"
            )
        self._errors = tempfile.TemporaryFile(prefix="moec-worker-")  # noqa: SIM115 - closed with the process
        try:
            self._process = subprocess.Popen(
                _in_turns(self._command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                # Ctrl-C is not for it, and the linker that it calls ends with it.  Not a session of its own: where the
                # system shares processors out among sessions, its priority would count for nothing beside the callers.
                process_group=0,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        except OSError as error:
            raise CompilerError(f"the compiler's process cannot be started: {error}") from error
        if self._read(patience).get("ready") is not True:
            raise CompilerError("the compiler did not say that it is ready")

    def _ask(self, request: Mapping[str, Any], patience: Patience) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except OSError:
            raise CompilerError(f"the compiler has ended{self._last_words()}") from None
        return self._read(patience)

    def _read(self, patience: Patience) -> dict[str, Any]:
        """The next line of the process as a JSON object."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(LOOKS):
                    if patience.over(self._process.pid):
                        raise CompilerError(f"the compiler took longer than {self._timeout:g} s")
                    continue
                piece = os.read(self._process.stdout.fileno(), 65536)
                if not piece:
                    raise CompilerError(f"the compiler {self._fate()}{self._last_words()}")
                line += piece
                if len(line) > _LONGEST_ANSWER:
                    raise CompilerError("the compiler does not stop answering")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise CompilerError(f"the compiler answered {line[:200]!r}")
        return answer

    def _fate(self) -> str:
        """How the process ended."""
        assert self._process is not None
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "closed its output"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"

    def _last_words(self) -> str:
        """What the process wrote to its error output last, behind a colon."""
        if self._errors is None:
            return ""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _LAST_WORDS))
        text = self._errors.read().decode(errors="replace").strip()
        return f": {text}" if text else ""

    def _kill(self) -> None:
        process, errors = self._process, self._errors
        self._process = self._errors = None
        if process is not None:
            _end(process)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        if errors is not None:
            errors.close()


def _request(number: int, job: Job) -> Mapping[str, Any]:
    return {
        "id": number,
        "artifact": str(job.artifact.absolute()),
        "specialisation": job.specialisation.to_data(),
        "variant": job.variant,
        "output": str(job.output.absolute()),
        "objects": str(job.objects.absolute()) if job.objects is not None else None,
    }


def _in_turns(command: Sequence[str]) -> Sequence[str]:
    """What runs a command so that threads of this process need not wait for processors."""
    return [sys.executable, "-P", "-m", "moec.runtime.adapt.turns", str(os.getpid()), *command]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started, and wait until it is gone."""
    if process.returncode is None:  # otherwise its number may be another's by now
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
