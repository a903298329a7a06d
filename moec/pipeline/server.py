"""`python -m moec.pipeline.server`: the compiler as a process that adaptation gives its jobs to.

People do not call it, and it is no command of `moec`, so that nothing of a command line is imported.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from moec.artifact.fields import Fields, InvalidManifest
from moec.artifact.specialisation import read_specialisation
from moec.backends.cpu.layer import EMITTERS
from moec.backends.objects import Objects
from moec.dialect import context
from moec.errors import MoecError
from moec.passes.registry import pass_class
from moec.pipeline.respecialise import PASSES, respecialise


def main() -> None:
    """Compile what each line of standard input asks for, and answer with a line of standard output; until its end."""
    # Answers alone go to standard output: what libraries print there goes to standard error.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        serve(sys.stdin, answers)


def serve(jobs: IO[str], answers: IO[str]) -> None:
    """Answer `jobs`, lines of JSON, until they end.

    {"id": 1, "artifact": path, "specialisation": {…}, "variant": name or null, "output": path, "objects": path or null}
    is answered by {"id": 1, "ok": true, "seconds": 0.6}, of processor time, or {"id": 1, "ok": false, "error": "…"}, a
    line each.
    `objects` is a folder for code that later jobs may have in common with this one.  A bug ends the process.
    """
    _warm_up()
    _say(answers, {"ready": True, "moec": version("moec")})
    known: dict[str | None, Objects] = {}
    for line in jobs:
        if line.strip():
            _say(answers, _answer(line, known))


def _say(answers: IO[str], what: Mapping[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


def _answer(line: str, known: dict[str | None, Objects]) -> Mapping[str, Any]:
    number = None
    try:
        job = Fields.of(json.loads(line), "job")
        number = job.integer("id", 0)
        path, output = job.string("artifact"), job.string("output")
        variant = job.string("variant") if job.given("variant") else None
        folder = job.string("objects") if job.given("objects") else None
        wanted = read_specialisation(job.record("specialisation"))
        job.finish()
        begin = time.process_time()
        objects = known.setdefault(folder, Objects(folder=Path(folder) if folder else None))
        respecialise(path, wanted, output, variant, objects)
        return {"id": number, "ok": True, "seconds": time.process_time() - begin}
    except (MoecError, InvalidManifest, OSError, ValueError) as error:
        return {"id": number, "ok": False, "error": str(error)}


def _warm_up() -> None:
    """Import what every job needs, so that the first one need not."""
    for place in EMITTERS.values():
        import_module(place.partition(":")[0])
    for name in PASSES:
        pass_class(name)
    import_module("moec.backends.cpu.backend")
    context()


if __name__ == "__main__":
    main()
