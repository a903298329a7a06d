"""What an adapting layer does: watch the load, compile what is worth it, and say what it did."""

from __future__ import annotations

import logging
import math
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from moec.artifact.policy import Policy, policy_data
from moec.artifact.specialisation import Specialisation
from moec.runtime.adapt.attempt import Attempt, Outcome
from moec.runtime.adapt.contracts import Compiler, Proposal, Proposer
from moec.runtime.adapt.gain import Cost, Estimate, estimate
from moec.runtime.adapt.guards import FIRST_PAUSE, LONGEST_PAUSE, Guard, State
from moec.runtime.adapt.journal import Journal
from moec.runtime.adapt.paging import Paging
from moec.runtime.adapt.published import BASE, Overlay, Trial
from moec.runtime.adapt.recent import RecentCalls
from moec.runtime.adapt.stage import Stage
from moec.runtime.adapt.statistics import MEASURES, LoadStatistics, Snapshot
from moec.runtime.packing.weights import PackedWeights

_LOOKS = 0.2
"""Seconds between two looks at the load while a variant is on its way: callers wait for the interpreter meanwhile."""
_SAMPLES = 1.0
"""Seconds between two samples in the journal."""
_REMEMBERED = 1000
_EARLY = 3.0
"""Seconds before a decision at which the compiler may start for it: longer than that takes where a processor is free,
and short enough for a prediction."""
_REPLACING = 1.5
"""How many times as much a variant has to save as the one whose place it takes, so that two do not take turns."""
_LOG = logging.getLogger("moec.adapt")


class Controller:
    """One layer's.  `tick` is called by one thread again and again, and never waits.

    decisions  the last events, samples apart, as in the journal (docs/adaptation.md)
    """

    def __init__(
        self,
        store: PackedWeights,
        policy: Policy,
        statistics: LoadStatistics,
        proposer: Proposer,
        compiler: Compiler,
        journal: Journal,
        clock: Callable[[], float] = time.monotonic,
        pause: float = FIRST_PAUSE,
        paging: Paging | None = None,
    ) -> None:
        self.decisions: deque[Mapping[str, Any]] = deque(maxlen=_REMEMBERED)
        self.stage = Stage(store)
        self.attempt: Attempt | None = None
        self._policy, self._statistics = policy, statistics
        self._proposer, self._compiler, self._journal = proposer, compiler, journal
        self._clock, self._paging = clock, paging
        self._guards = [Guard(trigger, pause, max(pause, LONGEST_PAUSE)) for trigger in policy.triggers]
        self._acting: Guard | None = None
        self._foreseen: set[Guard] = set()
        self._avoided: dict[object, tuple[float, float]] = {}  # by the content of specialisations
        self._pause = pause
        self._cost = Cost()
        self._recent = RecentCalls()
        self._active: set[str] = set()
        self._rate = 0.0
        self._decided: tuple[str, str | None, Guard | None] | None = None
        now = clock()
        self._looked = -math.inf
        self._sampled = now, statistics.snapshot()
        statistics.listen(self._recent.heard)
        library = store.kernel.library
        self._layer = library.manifest.layer
        self._report(
            "start",
            {
                "layer": self._layer,
                "artifact": library.sha256,
                "host": platform.node(),
                "pid": os.getpid(),
                "experts": statistics.experts,
                "slots": statistics.slots,
                "policy": policy_data(policy),
                "variant": store.kernel.variant,
            },
        )

    def tick(self) -> None:
        """Look at the load, and take the next step."""
        now = self._clock()
        if self.attempt is not None and now < self._looked + _LOOKS:
            self._advance(self.attempt, now)
            return
        self._looked = now
        load = self._statistics.snapshot()
        self._notice_lost()
        values = {measure: load.value(measure) for measure in MEASURES}
        values["memory"] = float(self._memory())
        for guard in self._guards:
            guard.update(values if load.calls else {}, load.calls, now)
        before, last = self._sampled
        if now > before:
            self._rate = (load.calls - last.calls) / (now - before)
        if now - before >= _SAMPLES:
            self._sample(load, last, now)
        if self.attempt is not None:
            self._advance(self.attempt, now)
        else:
            for guard in self._guards:
                if guard.state is State.TRIPPED:
                    self._consider(guard, load, now)
                    break
            else:
                self._foresee(load, now)

    def forked(self) -> None:
        """In a forked child: end a trial, and let everything be that the parent's threads do."""
        attempt, self.attempt = self.attempt, None
        self.stage.store.forked()
        if attempt is not None:
            self.stage.change(lambda published: published.probed(None).without(attempt.name))

    def stop(self) -> None:
        """Take back what is not decided; what was kept goes on running."""
        self._statistics.ignore(self._recent.heard)
        if self.attempt is not None:
            self.attempt.abandon()
            self.attempt = None
        self._report("stop", {})

    def _consider(self, guard: Guard, load: Snapshot, now: float) -> None:
        """Begin the best variant that is worth it, or say why there is none."""
        weighed = self._weighed(guard, load)
        against = [self._against(proposal, found, now) for proposal, found in weighed]
        for (proposal, found), why in zip(weighed, against, strict=True):
            if why is None:
                self._decide("compile", f"{proposal.why}; {found.why}", proposal, guard, found)
                self._begin(guard, proposal)
                return
        if weighed:
            self._decide("reject", str(against[0]), weighed[0][0], guard, weighed[0][1])
        else:
            self._decide("keep", "nothing that the policy allows suits this load better", None, guard)
        guard.handled(now, fruitless=not weighed)

    def _foresee(self, load: Snapshot, now: float) -> None:
        """Have the compiler start where a decision is near that will be to compile."""
        near = {guard: guard.ahead(self._rate) for guard in self._guards}
        near = {guard: ahead for guard, ahead in near.items() if ahead <= _EARLY}
        self._foreseen &= near.keys()
        for guard, ahead in near.items():
            if guard in self._foreseen:
                continue
            for proposal, found in self._weighed(guard, load, ahead):
                if self._against(proposal, found, now + ahead) is None:
                    self._foreseen.add(guard)
                    self._compiler.expect(proposal.specialisation)
                    return

    def _weighed(self, guard: Guard, load: Snapshot, ahead: float = 0.0) -> list[tuple[Proposal, Estimate]]:
        """What is proposed, and what it should save, now or so many seconds ahead; what saves most is first."""
        found = []
        for proposal in self._proposer.propose(load, tuple(self.stage.running.values())):
            share, seconds = self._recent.within(proposal.specialisation.tokens)
            cost = self._cost.seconds(there=self._compiler.has(proposal.specialisation))
            lasted = guard.lasted + ahead
            made = estimate(proposal.gain, guard.trigger.gain, self._rate * share, seconds, lasted, cost)
            found.append((proposal, made))
        return sorted(found, key=lambda one: -one[1].saved)

    def _against(self, proposal: Proposal, found: Estimate, when: float) -> str | None:
        """Why not to compile it then; None: it is worth it."""
        until, _ = self._avoided.get(proposal.specialisation.content, (when, 0.0))
        if until > when:
            return f"it failed before and is left alone for {until - when:.0f} s"
        if not found.worthwhile:
            return found.why
        if not self._has_place(proposal):
            return f"there are {len(self.stage.running)} variants, and the least of them saves more"
        return None

    def _has_place(self, proposal: Proposal) -> bool:
        """Whether there are fewer variants than allowed, or one that saves clearly less."""
        running = self.stage.running
        if len(running) < self._policy.max_variants:
            return True
        share, seconds = self._recent.within(proposal.specialisation.tokens)
        saves = share * seconds * (1 - 1 / proposal.gain)
        return saves >= _REPLACING * min(self._saves(name) for name in running)

    def _saves(self, name: str) -> float:
        """The seconds that a variant saves, for each call of the layer."""
        share, _ = self._recent.within(self.stage.running[name].tokens)
        return share * self._recent.seconds(self.stage.number(name)) * (self.stage.gain(name) - 1)

    def _begin(self, guard: Guard, proposal: Proposal) -> None:
        specialisation = proposal.specialisation
        self._acting = guard
        self.attempt = Attempt(
            proposal,
            guard.trigger.gain,
            self._sizes(specialisation),
            self.stage,
            self._compiler,
            self._report,
            self._make_room,
        )

    def _sizes(self, specialisation: Specialisation) -> tuple[int, ...]:
        """What to try it with: both ends of its range, and the size of calls that takes most of their time."""
        ends = specialisation.tokens or (1, 64)
        seen = self._recent.sizes(specialisation.tokens)[-1:]
        return tuple(dict.fromkeys((*(end for end in ends if end not in seen), *seen)))

    def _advance(self, attempt: Attempt, now: float) -> None:
        outcome = attempt.advance(now)
        if outcome is None:
            return
        self.attempt = None
        key = attempt.specialisation.content
        if outcome.spent is not None:
            self._cost.learn(outcome.spent)
        if outcome.kept:
            self._avoided.pop(key, None)
            self._active.add(attempt.name)
            for name in sorted(self._active - set(self.stage.running)):
                self._active.discard(name)
                self._report("evicted", {"variant": name, "why": f"{attempt.name} takes all of its calls"})
            self._decide("keep", outcome.why, None, None, name=attempt.name)
        else:
            self._set_aside(key, outcome, now, attempt.name)
        if self._acting is not None:
            self._acting.handled(now, fruitless=not outcome.kept)
            self._acting = None

    def _set_aside(self, key: object, outcome: Outcome, now: float, name: str) -> None:
        """Do not try what failed again and again: the time between doubles."""
        if outcome.blame:
            _, before = self._avoided.get(key, (0.0, self._pause))
            self._avoided[key] = now + 2 * before, min(2 * before, LONGEST_PAUSE)
            _LOG.warning("%s: the variant %s is not used: %s", self._layer, name, outcome.why)
        self._decide("reject", outcome.why, None, None, name=name)

    def _make_room(self) -> None:
        """Make room for one more variant: the one that ran least calls recently goes."""
        while len(running := self.stage.running) >= self._policy.max_variants:
            least = min(running, key=self._saves)
            self._active.discard(least)
            self.stage.change(lambda published, name=least: published.without(name))  # type: ignore[misc]
            self._report("evicted", {"variant": least, "why": "another takes its place, and it saves least"})

    def abandon(self, why: str) -> None:
        """Take back what is not decided, because something went wrong that no variant is to blame for."""
        attempt, self.attempt = self.attempt, None
        guard, self._acting = self._acting, None
        self._report("failed", {"candidate": attempt.name if attempt else None, "why": why})
        _LOG.warning("%s: %s", self._layer, why)
        if attempt is not None:
            attempt.abandon()
        if guard is not None:
            guard.handled(self._clock(), fruitless=True)

    def _notice_lost(self) -> None:
        """Builds that held copies of weights are gone when other weights were given."""
        active = set(self.stage.running)
        trying = {self.attempt.name} if self.attempt is not None else set()
        for name in sorted(self._active - active - trying):
            self._report("evicted", {"variant": name, "why": "the layer was given other weights"})
        self._active = active - trying

    def _memory(self) -> int:
        """Bytes of the layer's weights that are in memory, with the copies that builds have of them."""
        buffers = {build.packed.data_ptr(): build.nbytes for build in self.stage.published.builds}
        if self._paging is not None:
            buffers[self.stage.base.packed.data_ptr()] = self._paging.nbytes
        return sum(buffers.values())

    def _tell_moved(self) -> None:
        """At most once a second, and not among the decisions: experts come and go all the time."""
        moved = self._paging.take() if self._paging is not None else None
        if moved is not None:
            self._journal.write(
                {
                    "event": "moved",
                    "time": time.time(),
                    "in": moved.came,
                    "out": moved.went,
                    "bytes": moved.nbytes,
                    "seconds": moved.seconds,
                }
            )

    def _sample(self, load: Snapshot, last: Snapshot, now: float) -> None:
        self._tell_moved()
        self._sampled = now, load
        calls = load.calls - last.calls
        slots = load.chosen - last.chosen
        self._journal.write(
            {
                "event": "sample",
                "time": time.time(),
                "calls": load.calls,
                "tokens": load.total_tokens,
                "calls_per_second": self._rate,
                "load": [round(float(share), 5) for share in slots / max(int(slots.sum()), 1)],
                "imbalance": load.imbalance,
                "share": load.share,
                "empty": load.empty,
                "overflow": load.overflow,
                "tokens_per_call": (load.total_tokens - last.total_tokens) / calls if calls else 0.0,
                "histogram": {
                    str(size): count - last.histogram.get(size, 0)
                    for size, count in load.histogram.items()
                    if count > last.histogram.get(size, 0)
                },
                "latency_ms": self._recent.latency(),
                "memory": self._memory(),
                "active": [BASE, *self.stage.running],
                "runs": [_run(part) for part in self.stage.published.ranges],
                "guards": [_guard(guard) for guard in self._guards],
            }
        )

    def _decide(
        self,
        what: str,
        why: str,
        proposal: Proposal | None,
        guard: Guard | None,
        found: Estimate | None = None,
        name: str | None = None,
    ) -> None:
        candidate = name or (proposal.specialisation.name if proposal else None)
        decided = what, candidate, guard
        if decided == self._decided and what != "compile":
            return  # the same again, behind a pause
        self._decided = decided
        self._report(
            "decision",
            {
                "what": what,
                "why": why,
                "candidate": candidate,
                "gain": self.stage.gain(candidate) if what == "keep" and candidate else None,
                "predicted_gain": proposal.gain if proposal else None,
                "expected_calls": found.expected_calls if found else None,
                "compile_seconds": found.cost if found else self._cost.seconds(there=False),
                "guard": guard.trigger.text if guard else None,
            },
        )

    def _report(self, event: str, fields: Mapping[str, Any]) -> None:
        record = {"event": event, "time": time.time(), **fields}
        self.decisions.append(record)
        self._journal.write(record)


def _run(part: Overlay) -> Mapping[str, Any]:
    runs = part.runs
    new, old = (runs.new.name, runs.old.name) if isinstance(runs, Trial) else (runs.name, None)
    return {"tokens": [part.first, part.last], "variant": new, "trial": old}


def _guard(guard: Guard) -> Mapping[str, Any]:
    held = guard.held
    return {
        "text": guard.trigger.text,
        "value": dict(guard.values),
        "held": held.amount,
        "window": held.window,
        "unit": held.unit,
        "state": str(guard.state),
    }
