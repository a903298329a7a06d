"""What was found, a line of JSON each, written when it is found: a run that is killed loses nothing, and the next one
goes on behind it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cuda.ceilings import Ceilings
from bench.cuda.shapes import CHECKED
from bench.cuda.table import Measured

BEGUN, FOUND, ENDED, FAILED = "begun", "found", "ended", "failed"
WRONG = 3
"""Exit status of a process that did all of its tasks, and found something wrong; 1 is that of Python's exceptions."""


@dataclass(frozen=True)
class Found:
    """Something that a task says: a line for people, and for tables what was measured.

    experts  of a small batch: how many different ones it chooses
    """

    line: str
    sound: bool = True
    measured: Measured | None = None
    experts: int | None = None
    ceilings: Ceilings | None = None

    @property
    def data(self) -> dict[str, Any]:
        made: dict[str, Any] = {"line": self.line, "sound": self.sound}
        if self.measured is not None:
            one = self.measured
            made |= {"shape": one.shape.name, "tokens": one.tokens, "route": one.route, "seconds": one.seconds}
            made |= {"why": one.why, "experts": self.experts}
        if self.ceilings is not None:
            made |= {"matmul": self.ceilings.matmul, "copy": self.ceilings.copy}
        return made


class Results:
    """The file; a line that a killed process left half written is passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, task: str, state: str, data: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"task": task, "state": state, **data}) + "\n"
        with self.path.open("ab+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = "\n" + line  # behind a line that is half written
            file.write(line.encode())

    def read(self) -> list[dict[str, Any]]:
        text = self.path.read_text() if self.path.exists() else ""
        return list(_parsed(text.splitlines()))

    def over(self, device: str, digests: Mapping[str, str]) -> dict[str, bool]:
        """The tasks that have an end on this device with these artifacts, by name, and whether all was sound."""
        found: dict[str, bool] = {}
        for task, records in self._last(device).items():
            if records[0]["digest"] != digests.get(task, ""):
                continue
            state = records[-1]["state"]
            if state in (ENDED, FAILED):
                found[task] = state == ENDED and all(one.get("sound", True) for one in records)
        return found

    def measured(self, device: str) -> tuple[list[Found], Ceilings]:
        """What tables are made of; ceilings that were not measured are NaN."""
        found, limits = [], Ceilings(float("nan"), float("nan"))
        for task, records in self._last(device).items():
            for one in records:
                if "matmul" in one:
                    limits = Ceilings(one["matmul"], one["copy"])
                if "route" in one and one["shape"] in CHECKED:
                    call = Measured(CHECKED[one["shape"]], one["tokens"], one["route"], one["seconds"], one["why"])
                    found.append(Found("", True, call, one["experts"]))
            if records[-1]["state"] == FAILED and task.partition("/")[0] in ("prefill", "decode"):
                _, shape, route = task.split("/", 2)
                call = Measured(CHECKED[shape], CHECKED[shape].tokens, route, None, records[-1]["line"])
                found.append(Found("", False, call, 0 if task.startswith("decode") else None))
        return found, limits

    def _last(self, device: str) -> dict[str, list[dict[str, Any]]]:
        """What each task said when it last ran on a device, in the order in which they began."""
        found: dict[str, list[dict[str, Any]]] = {}
        for one in self.read():
            if one["state"] == BEGUN:
                found.pop(one["task"], None)
                if one["device"] == device:
                    found[one["task"]] = [one]
            elif one["task"] in found:
                found[one["task"]].append(one)
        return found


def _parsed(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue
