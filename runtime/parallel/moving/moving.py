"""The thread that moves experts while layers run, one on each rank: the first leads, the others follow."""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist

from moec.errors import PlacementError
from moec.placement.table import Table
from moec.placement.table_data import read_table
from moec.runtime.adapt.journal import Journal
from moec.runtime.parallel.moving.carrier import Carrier
from moec.runtime.parallel.moving.circle import Circle
from moec.runtime.parallel.moving.commands import Command, Commands
from moec.runtime.parallel.moving.decide import Judge
from moec.runtime.parallel.moving.gate import Active, Gate, Swapped
from moec.runtime.parallel.moving.layers import Movable, active
from moec.runtime.parallel.moving.leader import NOTHING, STOP, Leader, Wanted
from moec.runtime.parallel.moving.mover import Mover
from moec.runtime.parallel.moving.throttle import Throttle

_REMEMBERED = 1000
_FIRST_SPEED = 1e8
"""Bytes/s that are expected of links that nothing is known of."""
_LOG = logging.getLogger("moec.moving")


@dataclass(frozen=True)
class Options:
    """How experts move.

    share    of a link's time that moves may take
    rate     bytes/s that they may take of it; None: no bound but `share`
    piece    bytes of the largest message
    pace     seconds between two steps of the leader
    look     seconds between looks at the load; None: experts move when they are told to only
    timeout  seconds that a step waits for ranks to agree, and `stop` for them to end.  Moves themselves take as long as
             they take: a rank that hangs keeps experts where they are, and calls find out about it
    """

    share: float = 0.25
    rate: float | None = None
    piece: int = 2**20
    pace: float = 0.25
    look: float | None = 2.0
    timeout: float = 30.0


class Moving:
    """Moves the experts of some layers, from its construction, by all ranks at once, to `stop`, or until it is dropped.

    Whatever goes wrong leaves the tables as they are, on all ranks, and reaches nobody's calls: it is logged under
    `moec.moving`, and stands in `decisions`.  The exception is a rank that is lost at the moment of agreement: then the
    next step raises RankError instead of computing with tables that others may not have.

    gate       `gate.begin()` begins a step, and says which tables are for it
    throttle   `pause()` and `resume()`: whether this rank sends; others wait for it
    decisions  what was decided and done, oldest first: on the leader what concerns all ranks
    """

    def __init__(
        self,
        layers: Sequence[Movable],
        ranks: Sequence[int],
        options: Options,
        journal: Journal | None = None,
    ) -> None:
        """`ranks`: all that hold experts of the layers now or later.  Every rank of the default group calls this."""
        self.layers, self._timeout, self._journal = tuple(layers), options.timeout, journal
        self.decisions: deque[Mapping[str, Any]] = deque(maxlen=_REMEMBERED)
        self.throttle = Throttle(options.share, options.rate)
        self._circle = Circle(ranks)
        self.gate = Gate(active(0, [each.table for each in layers], layers, dist.get_rank()), options.timeout)
        self._commands = Commands(self._circle)
        self._mover = Mover(layers, self.gate, self._circle, Carrier(self._circle, options.piece, self.throttle))
        self._leader: Leader | None = None
        if self._commands.leads:
            speed = options.rate or _FIRST_SPEED
            sizes = zip(layers, self._mover.forms.expert, strict=True)
            judges = [Judge(layer.rules, layer.table.experts, size, speed) for layer, size in sizes]
            self._leader = Leader([each.name for each in layers], judges, self.gate, options.look, self._report)
        self._reported: Swapped | None = None
        self._wake, self._ending = threading.Event(), threading.Event()
        process = {"host": platform.node(), "pid": os.getpid()}
        self._report("start", {"layers": [layer.name for layer in layers], "ranks": list(ranks), **process})
        self._thread = threading.Thread(
            target=_work,
            args=(weakref.ref(self), self._commands, self._wake, options.pace),
            name="moec-moving",
            daemon=True,
        )
        weakref.finalize(self, self._wake.set).atexit = False
        self._thread.start()

    @property
    def leads(self) -> bool:
        """Whether this rank decides; it is the first of the ranks."""
        return self._leader is not None

    @property
    def running(self) -> bool:
        """Whether experts can move."""
        return self._thread.is_alive()

    @property
    def tables(self) -> tuple[Table, ...]:
        """Those in force, one for each layer."""
        return self.gate.active.tables

    def move(self, tables: Sequence[Table]) -> Future[Swapped]:
        """Let these tables, one for each layer, take force.  The leader alone is asked (PlacementError elsewhere).

        Tables that follow those in force (`Table.following`) move least.  The future ends when they are in force on
        this rank, which needs steps to be made; or with PlacementError, and then everything is as it was.
        """
        return self._ask(lambda _: tables)

    def rescale(self, positions: int) -> Future[Swapped]:
        """Spread the experts over so many positions, more or fewer; as `move`.

        Those are the first positions of all; ranks at others then take part in no step (`Gate.join`).
        """
        return self._ask(lambda tables: self._require_leader().rescaled(tables, positions))

    def _ask(self, wanted: Wanted) -> Future[Swapped]:
        future = self._require_leader().ask(wanted)
        self._wake.set()
        return future

    def _require_leader(self) -> Leader:
        if self._leader is None:
            raise PlacementError("only the rank that leads can be asked to move experts")
        return self._leader

    def begin(self) -> Active:
        """The next step begins (`Gate.begin`).  Where the tables do not `serve`, `join` comes next."""
        return self.gate.begin()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until this rank serves (`Gate.join`); False where it will not any more."""
        return self.gate.join(timeout)

    def stop(self) -> None:
        """End it: where the leader says so it ends on all ranks, and on others this waits for that.

        What was agreed on takes force even so.  May be called twice.
        """
        self.throttle.resume()
        self._ending.set()
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(self._timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _next(self, heard: Command | RuntimeError | None) -> bool:
        """Do what the leader said, or say it; False where that was the last thing."""
        going, failed, why = False, False, "it was stopped"
        try:
            if isinstance(heard, RuntimeError):
                raise heard
            going = self._do(self._lead() if heard is None else heard)
        except Exception as error:  # noqa: BLE001  the layers' callers have nothing to do with it
            failed, why = True, f"{type(error).__name__}: {error}"
            _LOG.warning("experts move no more: %s", why)
            self._report("failed", {"why": why})
        if failed:
            self._circle.leave()  # the others are not to wait for this rank
        if not going:
            self.gate.close()
        self._tell_swapped()
        if not going:
            self._report("stop", {})
            if self._leader is not None:
                self._leader.refuse(why)
            if self._journal is not None:
                self._journal.close()
        return going

    def _lead(self) -> Command:
        command = STOP if self._ending.is_set() else self._require_leader().next()
        self._commands.tell(command)
        return command

    def _do(self, command: Command) -> bool:
        """What all ranks do at the same time; False at the end."""
        if command["do"] == "look":
            self._look()
        elif command["do"] == "change":
            self._change([read_table(data) for data in command["tables"]])
        return bool(command["do"] != "stop")

    def _look(self) -> None:
        chosen = torch.from_numpy(np.concatenate([layer.chosen() for layer in self.layers]))
        seconds = torch.tensor([layer.seconds() for layer in self.layers], dtype=torch.float64)
        dist.all_reduce(chosen, dist.ReduceOp.SUM, self._circle.group)
        dist.all_reduce(seconds, dist.ReduceOp.MAX, self._circle.group)
        if self._leader is not None:
            ends = np.cumsum([layer.table.experts for layer in self.layers])[:-1]
            self._leader.saw(np.split(chosen.numpy(), ends), seconds.tolist())

    def _change(self, tables: Sequence[Table]) -> None:
        # The leader's last change is in force, so this rank's is as soon as it has begun the same step.
        if not self.gate.settled(self._timeout):
            raise PlacementError(f"this rank has not come within {self._timeout:g} s to the step that the leader made")
        outcome = self._mover.change(tables)
        self._report(
            "travelled" if outcome.step is not None else "failed",
            {
                "why": outcome.why,
                "experts": outcome.experts,
                "sent": outcome.sent,
                "received": outcome.received,
                "staged": outcome.staged,
                "seconds": outcome.seconds,
            },
        )
        if self._leader is not None:
            self._leader.changed(outcome)

    def _tell_swapped(self) -> None:
        swapped = self.gate.last
        if swapped is not None and swapped is not self._reported:
            self._reported = swapped
            version = self.gate.active.version
            self._report("tables", {"version": version, "step": swapped.step, "seconds": swapped.seconds})

    def _report(self, event: str, fields: Mapping[str, Any]) -> None:
        record = {"event": event, "time": time.time(), **fields}
        self.decisions.append(record)
        if self._journal is not None:
            self._journal.write(record)


def _work(reference: weakref.ref[Moving], commands: Commands, wake: threading.Event, pace: float) -> None:
    """The thread: it does not hold on to what it works for while it waits."""
    while True:
        heard: Command | RuntimeError | None = None
        if commands.leads:
            wake.wait(pace)
            wake.clear()
        else:
            try:
                heard = commands.hear()
            except RuntimeError as error:
                heard = error.with_traceback(None)  # which has the group, and would keep it open
        moving = reference()
        if moving is None and heard == NOTHING:
            continue  # the leader may be about to be dropped, too, and then waits until all hear that it ends
        if moving is None:
            if commands.leads:
                with suppress(RuntimeError):  # the others may be gone
                    commands.tell(STOP)
            elif heard != STOP:
                commands.leave()  # the leader is not to wait for what this rank takes no part in
            return
        if not moving._next(heard):
            return
        del moving
