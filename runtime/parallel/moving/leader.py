"""What the leading rank decides: what it is asked to, and what the load asks for."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec.errors import PlacementError
from moec.placement.table import Table
from moec.placement.table_data import table_data
from moec.runtime.parallel.moving.commands import Command
from moec.runtime.parallel.moving.decide import Judge
from moec.runtime.parallel.moving.gate import Gate, Swapped
from moec.runtime.parallel.moving.mover import Outcome
from moec.runtime.parallel.moving.rescale import rescaled

Report = Callable[[str, Mapping[str, Any]], None]
"""Takes an event and its fields."""

Wanted = Callable[[Sequence[Table]], Sequence[Table]]
"""From the tables in force, one for each layer, to those that are to follow."""

NOTHING: Command = {"do": "nothing"}
STOP: Command = {"do": "stop"}
LOOK: Command = {"do": "look"}


class Leader:
    """Gives one command after the other (`next`), and is told what came of it.

    names   of the layers
    judges  of the layers, in the same order
    look    seconds between looks at the load; None: never
    """

    def __init__(
        self, names: Sequence[str], judges: Sequence[Judge], gate: Gate, look: float | None, report: Report
    ) -> None:
        self._names, self._judges, self._gate, self._look, self._report = names, judges, gate, look, report
        self._lock = threading.Lock()
        self._asked: deque[tuple[Wanted, Future[Swapped]]] = deque()
        self._changing: Future[Swapped] | None = None
        self._looked = time.monotonic()
        self._refusing: str | None = None

    def ask(self, wanted: Wanted) -> Future[Swapped]:
        """Change to these tables, after what was asked before."""
        future: Future[Swapped] = Future()
        with self._lock:
            if self._refusing is not None:
                future.set_exception(PlacementError(self._refusing))
            else:
                self._asked.append((wanted, future))
        return future

    def next(self) -> Command:
        """What all ranks do now."""
        if self._changing is not None:
            if not self._gate.settled(0.0) or self._gate.last is None:
                return NOTHING
            future, self._changing = self._changing, None
            future.set_result(self._gate.last)
        with self._lock:
            asked = self._asked.popleft() if self._asked else None
        if asked is not None:
            wanted, future = asked
            try:
                tables = wanted(self._gate.active.tables)
            except PlacementError as error:
                future.set_exception(error)
                return NOTHING
            self._changing = future
            return {"do": "change", "tables": [table_data(table) for table in tables]}
        now = time.monotonic()
        if self._look is not None and now - self._looked >= self._look:
            self._looked = now
            return LOOK
        return NOTHING

    def rescaled(self, tables: Sequence[Table], positions: int) -> list[Table]:
        """Tables that follow these with so many positions, by the load of now."""
        return [
            rescaled(table, positions, judge.load, judge.rules)
            for table, judge in zip(tables, self._judges, strict=True)
        ]

    def saw(self, chosen: Sequence[NDArray[np.int64]], seconds: Sequence[float]) -> None:
        """What `LOOK` found, for each layer as in `Judge.look`."""
        tables = list(self._gate.active.tables)
        moves = False
        for number, judge in enumerate(self._judges):
            verdict = judge.look(tables[number], chosen[number], seconds[number], time.monotonic())
            if verdict is None:
                continue
            self._report(
                "plan",
                {
                    "layer": self._names[number],
                    "what": "stay" if verdict.table is None else "move",
                    "why": verdict.why,
                    "before": verdict.before,
                    "after": verdict.after,
                    "copies": verdict.copies,
                    "saved": verdict.saved,
                    "cost": verdict.cost,
                },
            )
            if verdict.table is not None:
                tables[number] = verdict.table
                moves = True
        if moves:
            self.ask(lambda _: tables)

    def changed(self, outcome: Outcome) -> None:
        """What came of a change."""
        if outcome.step is None:
            future, self._changing = self._changing, None
            if future is not None:
                future.set_exception(PlacementError(f"experts did not move: {outcome.why}"))
            return
        for judge in self._judges:
            judge.learn(outcome.nbytes, outcome.seconds)

    def refuse(self, why: str) -> None:
        """Nothing can be asked any more."""
        with self._lock:
            self._refusing = f"experts do not move: {why}"
            futures = [future for _, future in self._asked]
            self._asked.clear()
        if self._changing is not None:
            futures.append(self._changing)
        for future in futures:
            future.set_exception(PlacementError(self._refusing))
