"""One variant on its way: compiled, tried on recorded rows, then in turns on real calls, and kept or taken back."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from moec.errors import AdaptationError
from moec.runtime.adapt.background import background, lowest
from moec.runtime.adapt.canary import Canary
from moec.runtime.adapt.contracts import Compiled, Compiler, Proposal
from moec.runtime.adapt.gain import Spent
from moec.runtime.adapt.published import BASE, Build
from moec.runtime.adapt.recording import Recording
from moec.runtime.adapt.stage import Stage
from moec.runtime.adapt.transfer import require_same_interface, transferred
from moec.runtime.adapt.validation import Validation, validate
from moec.runtime.native import bind, layout, library

Report = Callable[[str, Mapping[str, Any]], None]
"""Takes an event and its fields (docs/adaptation.md)."""

_PATIENCE = 60.0
"""Seconds to wait for a call whose rows can be recorded."""
_LOOKS = 0.1
"""Seconds between two looks at a trial: what is computed for one holds the interpreter's lock."""
_MUCH_SLOWER = 0.8
"""A gain, measured by one thread: below it real calls are not bothered with a trial."""
_NOTICEABLE_MS = 0.1
"""What differs by less is left to the trial: calls of microseconds cannot be timed beside others."""


@dataclass(frozen=True)
class Prepared:
    """A build with weights, made of those of `generation`, and what that and compiling have taken."""

    build: Build
    generation: int
    validation: Validation
    spent: Spent


@dataclass(frozen=True)
class Outcome:
    """How it ended: `kept`, or not and why; `blame`: it is the variant's or the compiler's fault.

    spent    in the background; None: it did not come so far
    """

    kept: bool
    why: str
    blame: bool = False
    spent: Spent | None = None


class Attempt:
    """Begins to compile at once; `advance` is called until it gives an outcome, `abandon` to end it early."""

    def __init__(
        self,
        proposal: Proposal,
        asked: float,
        sizes: Sequence[int],
        stage: Stage,
        compiler: Compiler,
        report: Report,
        make_room: Callable[[], None],
    ) -> None:
        """asked: the gain that the policy wants; sizes: numbers of tokens to try it with, the most important last.

        make_room: called before the variant is published.
        """
        self.specialisation = proposal.specialisation
        self._asked, self._sizes, self._work = asked, sizes, proposal.work
        self._stage, self._compiler, self._report, self._make_room = stage, compiler, report, make_room
        self.name, self._number = stage.announce(self.specialisation)
        self._begin = time.monotonic()
        self._spent: Spent | None = None
        self._compiling: Future[Compiled] | None = compiler.submit(self.specialisation)
        self._recording = Recording()
        self._preparing: Future[Prepared] | None = None
        self._canary: Canary | None = None
        self._next_look = -math.inf
        stage.change(lambda published: published.probed(self._recording))

    def advance(self, now: float) -> Outcome | None:
        """Take the next step if it is due; None while there are more to come.  Never waits."""
        try:
            return self._step(now)
        except Exception as error:  # noqa: BLE001  whatever is wrong with a variant, the layer goes on without it
            self._report("failed", {"candidate": self.name, "why": _reason(error)})
            self.abandon()
            return Outcome(False, _reason(error), blame=True)

    @property
    def working(self) -> Future[Prepared] | None:
        """What runs in the background of this process, if anything does."""
        return self._preparing

    def abandon(self) -> None:
        """Take back what is not decided yet."""
        if self._compiling is not None:
            self._compiling.cancel()
        with contextlib.suppress(AdaptationError):  # the layer is gone
            self._stage.change(lambda published: published.probed(None).without(self.name))

    def _step(self, now: float) -> Outcome | None:
        if self._compiling is not None:
            if self._compiling.done():
                return self._compiled(self._compiling.result())
        elif self._preparing is not None:
            if self._preparing.done():
                try:
                    prepared = self._preparing.result()
                except Exception:
                    self._compiler.reject(self.specialisation)
                    raise
                return self._prepared(prepared, now)
        elif self._canary is not None:
            return self._tried(self._canary, now)
        return None

    def _compiled(self, compiled: Compiled) -> Outcome | None:
        if not self._recording.count:
            if time.monotonic() - self._begin < _PATIENCE:
                return None
            self.abandon()
            return Outcome(False, "no call came whose rows it could be tried on")
        self._report("compiled", {"candidate": self.name, "seconds": compiled.seconds, "from": compiled.source})
        self._compiling = None
        self._stage.change(lambda published: published.probed(None))
        self._preparing = background(lambda: self._prepare(compiled), f"moec-prepare-{self.name}")
        return None

    def _prepare(self, compiled: Compiled) -> Prepared:
        store, base, manifest = self._stage.store, self._stage.base, compiled.artifact.manifest
        if manifest.base != base.kernel.library.sha256 or not self.specialisation.same_code(manifest.specialisation):
            raise AdaptationError("the artifact is that of another layer, or of another specialisation")
        require_same_interface(base.kernel.library.manifest, manifest)
        kernel = bind(library(compiled.artifact), layout(base.kernel).name)
        generation = store.generation
        with lowest(f"moec-low-{self.name}") as run:
            weights = transferred(kernel, store, run)
            build = Build(self.name, self._number, kernel, weights.packed, lender=weights.lender)
            old = self._stage.published.at(self._sizes[-1])
            least = _MUCH_SLOWER / self._work
            validation = validate(base, old, build, self._recording, self.specialisation, self._sizes, least, run)
            spent = Spent(compiled.work if compiled.source == "compiler" else None, run(time.thread_time))
        return Prepared(build, generation, validation, spent)

    def _prepared(self, prepared: Prepared, now: float) -> Outcome | None:
        self._preparing = None
        found = prepared.validation
        self._report(
            "validated",
            {
                "candidate": self.name,
                "identical": found.identical,
                "error": found.error,
                "gain": found.gain,
                "old_ms": found.old_ms,
                "new_ms": found.new_ms,
                "tokens": found.tokens,
            },
        )
        if found.wrong is not None:
            self._compiler.reject(self.specialisation)
            raise AdaptationError(found.wrong)
        if found.gain * self._work < _MUCH_SLOWER and found.new_ms - found.old_ms > _NOTICEABLE_MS:
            raise AdaptationError(f"it is slower: {found.new_ms:.3g} ms instead of {found.old_ms:.3g} ms")
        self._spent = prepared.spent
        canary = self._canary = Canary(now, self._asked, self._work)
        first, last = self._range
        new = replace(prepared.build, probe=canary.new)
        self._make_room()
        before = [build.name for build in self._stage.published.builds]
        begin = time.monotonic()
        if not self._stage.change(lambda p: p.on_trial(first, last, new, canary.old), prepared.generation):
            self.abandon()
            return Outcome(False, "the layer was given other weights meanwhile", spent=self._spent)
        self._report(
            "swap",
            {
                "from": before,
                "to": self.name,
                "variants": [build.name for build in self._stage.published.builds],
                "seconds": time.monotonic() - begin,
            },
        )
        return None

    def _tried(self, canary: Canary, now: float) -> Outcome | None:
        if self.name not in self._stage.running:
            self.abandon()
            return Outcome(False, "the layer was given other weights meanwhile", spent=self._spent)
        if now < self._next_look:
            return None
        self._next_look = now + _LOOKS
        verdict = canary.verdict(now)
        if verdict is None:
            return None
        if not verdict.kept:
            why = f"measured {verdict.gain:.2f}x over {verdict.calls} calls, {canary.needed:.3g}x are needed"
            self.abandon()
            self._report("rollback", {"from": self.name, "to": BASE, "why": why, "gain": verdict.gain})
            return Outcome(False, why, blame=True, spent=self._spent)
        self._stage.keep(self.name, verdict.gain)
        return Outcome(True, f"measured {verdict.gain:.2f}x over {verdict.calls} calls", spent=self._spent)

    @property
    def _range(self) -> tuple[int, int | None]:
        return self.specialisation.tokens or (0, None)


def _reason(error: Exception) -> str:
    return f"{error}" or type(error).__name__
