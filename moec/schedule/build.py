"""Schedules from options: which steps, in which order, on which streams, behind which signals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from moec.schedule.effects import Table, collected
from moec.schedule.signals import with_waits
from moec.schedule.steps import COMPUTE, SPLITS, WAYS, Schedule, Schedules, Step, Wiring

SHARED_AT = ("dispatch", "combine", "last")
"""When shared experts are computed: beside the first dispatch, beside the last combine, or beside neither."""
LOCAL_AT = ("dispatch", "combine", "both")
"""When what stays on a rank is computed: beside the first dispatch, or beside the last combine; or that of the first
chunks beside the one and that of the last ones beside the other, so that neither is waited for."""


@dataclass(frozen=True)
class Options:
    """What can be chosen about a schedule; the default is what is sent and waited for without one.

    split         of SPLITS: what a chunk is a range of
    chunks        how many, at least 1
    hierarchical  two hops, over the outermost axis of the experts and then over the others
    deduplicate   one copy of a token's row for each destination, whichever of its experts chose it
    local_first   what stays on a rank is computed by itself, while the rest travels
    local         of LOCAL_AT: when that is
    buffers       chunks that are packed or have arrived at a time; None: all of them
    overlap       of "dispatch" and "combine": exchanges that go on beside the experts of other chunks
    shared        of SHARED_AT
    order         the chunks in the order in which they go; None: as they are numbered.  With all buffers only
    """

    split: str = "tokens"
    chunks: int = 1
    hierarchical: bool = False
    deduplicate: bool = False
    local_first: bool = False
    buffers: int | None = None
    overlap: tuple[str, ...] = ("dispatch", "combine")
    shared: str = "last"
    order: tuple[int, ...] | None = None
    local: str = "dispatch"


BLOCKING = Options()
"""One blocking all-to-all each way: FastMoE (arXiv:2103.13262), and what models run without a schedule."""


def forward(wiring: Wiring, options: Options) -> Schedule:
    """The forward schedule.  Raises ValueError for options that contradict each other or the wiring."""
    return _Builder(wiring, _checked(wiring, options), "forward").schedule()


def backward(wiring: Wiring, options: Options) -> Schedule:
    """The backward schedule.  Chunks are ranges of slots, so that a parameter's gradient is added up in one step.

    Raises ValueError as `forward` does.
    """
    by_experts = replace(options, split="experts", local_first=False)
    return _Builder(wiring, _checked(wiring, by_experts), "backward").schedule()


def both(wiring: Wiring, options: Options, training: bool) -> Schedules:
    """Forward and, for training, backward, which goes by the chunks of forward: ranges of slots, all pairs travelling.

    What forward kept is then all there: no buffer is used twice.

    Raises ValueError as `forward` does.
    """
    if not training:
        return Schedules(wiring, forward(wiring, options))
    kept = replace(options, split="experts", local_first=False, buffers=None)
    return Schedules(wiring, forward(wiring, kept), backward(wiring, kept))


def hops(wiring: Wiring, hierarchical: bool) -> tuple[tuple[str, ...], ...]:
    """The axes of each hop of dispatch.  Raises ValueError where there is one axis only to be hierarchical over."""
    if not hierarchical:
        return (wiring.ep,) if wiring.ep else ()
    if len(wiring.ep) < 2:
        raise ValueError("a hierarchical exchange needs experts over two axes or more")
    return wiring.ep[:1], wiring.ep[1:]


def _checked(wiring: Wiring, options: Options) -> Options:
    if options.split not in SPLITS or options.shared not in SHARED_AT or options.local not in LOCAL_AT:
        raise ValueError(f"there is no such schedule: {options}")
    if not set(options.overlap) <= set(WAYS[:2]):
        raise ValueError(f"there is no such schedule: {options}")
    if options.chunks < 1 or (options.buffers is not None and not 1 <= options.buffers <= options.chunks):
        raise ValueError("there must be at least one chunk, and between one and all of them kept")
    if options.order is not None and (sorted(options.order) != list(range(options.chunks)) or options.buffers):
        raise ValueError("the order must name each chunk once, and all must have buffers of their own")
    if not wiring.ep and not wiring.tp:
        why = "experts that lie whole on every rank need no exchange"
        raise ValueError(f"{why}: shard them over an axis, or load the layer in every process without a mesh")
    if wiring.tp and options.local_first:
        raise ValueError("experts of which every rank has a part are never local")
    if set(options.overlap) != set(WAYS[:2]):  # all of them arrive, or all are computed, before any goes on
        return replace(options, buffers=None)
    return options


@dataclass(frozen=True)
class _Builder:
    wiring: Wiring
    options: Options
    direction: str

    def schedule(self) -> Schedule:
        options = self.options
        bare = Schedule(
            direction=self.direction,
            split=options.split,
            chunks=options.chunks,
            hops=self.hops,
            deduplicate=options.deduplicate,
            local_first=options.local_first,
            buffers=options.buffers or options.chunks,
            steps=(),
        )
        ordered = replace(bare, steps=tuple(self.steps(bare)))
        return with_waits(ordered, Table(self.wiring, ordered), self.barriers(ordered))

    @property
    def hops(self) -> tuple[tuple[str, ...], ...]:
        return hops(self.wiring, self.options.hierarchical)

    @property
    def order(self) -> tuple[int, ...]:
        return self.options.order or tuple(range(self.options.chunks))

    @property
    def backward(self) -> bool:
        return self.direction == "backward"

    def steps(self, bare: Schedule) -> Iterator[Step]:
        """In an order in which each could run after those before it."""
        options, wiring = self.options, self.wiring
        chunks = self.order
        yield from self.begin()
        for chunk in chunks[: bare.buffers]:
            yield from self.front(chunk)
        yield from self.local("dispatch")
        if options.shared == "dispatch":
            yield from self.shared()
        for number, chunk in enumerate(chunks):
            yield self.compute("experts", chunk)
            if "combine" in options.overlap:
                yield from self.back(chunk)
            if number + bare.buffers < options.chunks:
                yield from self.front(chunks[number + bare.buffers])
        if "combine" not in options.overlap:
            for chunk in chunks:
                yield from self.back(chunk)
        yield from self.local("combine")
        if options.shared in ("combine", "last"):
            yield from self.shared()
        if self.backward:
            yield self.compute("route")
        else:
            each = self.order if None not in collected(bare) else (None,)
            yield from (self.compute("collect", chunk) for chunk in each)
        if wiring.same:
            yield self.net("gather", wiring.same, way="result")
        if self.backward:
            yield self.net("gradients", wiring.mesh)

    def begin(self) -> Iterator[Step]:
        wiring = self.wiring
        if self.backward:
            yield self.compute("collect")
        if wiring.shared and (wiring.shared_tp if self.backward else wiring.shared_gather):
            yield self.net("gather", wiring.shared_tp if self.backward else wiring.shared_gather, way="shared")
        if self.backward:
            return
        yield self.compute("route")
        if wiring.capacity:
            yield self.net("choices", wiring.mesh)
            yield self.compute("capacity")
        for hop, axes in enumerate((*self.hops, *([wiring.tp] if wiring.tp else []))):
            yield self.net("counts", axes, hop=hop)

    def front(self, chunk: int) -> Iterator[Step]:
        """From a chunk's rows to where they are computed."""
        yield self.compute("pack", chunk)
        for hop, axes in enumerate(self.hops):
            if hop:
                yield self.net("relay", axes, "dispatch", chunk, hop)
            yield self.net("exchange", axes, "dispatch", chunk, hop)
        if self.wiring.tp:
            yield self.net("gather", self.wiring.tp, "dispatch", chunk)

    def back(self, chunk: int) -> Iterator[Step]:
        """And back."""
        if self.wiring.tp:
            yield self.net("reduce", self.wiring.tp, "combine", chunk)
        for hop, axes in enumerate(reversed(self.hops)):
            if hop:
                yield self.net("relay", axes, "combine", chunk, hop)
            yield self.net("exchange", axes, "combine", chunk, hop)

    def local(self, beside: str) -> Iterator[Step]:
        if not self.options.local_first:
            return
        if self.options.local == beside:
            yield self.compute("local")
        elif self.options.local == "both":
            half = (self.options.chunks + 1) // 2
            for chunk in self.order[:half] if beside == "dispatch" else self.order[half:]:
                yield self.compute("local", chunk)

    def shared(self) -> Iterator[Step]:
        if self.wiring.shared:
            yield self.compute("shared")
            if self.wiring.shared_tp:
                yield self.net("reduce", self.wiring.shared_tp, way="shared")

    def barriers(self, ordered: Schedule) -> dict[str, list[str]]:
        """Waits for the sake of what shall not overlap."""
        first, last, waits = self.order[0], self.order[-1], dict[str, list[str]]()
        arrived = [step.name for step in ordered.steps if (step.way, step.chunk) == ("dispatch", last)][-1]
        returned = [step.name for step in ordered.steps if (step.way, step.chunk) == ("combine", last)][-1]
        if "dispatch" not in self.options.overlap:
            waits |= {step.name: [arrived] for step in ordered.of("experts", chunk=first)}
        if "combine" not in self.options.overlap:
            begin = next(ordered.of("reduce" if self.wiring.tp else "exchange", "combine", first)).name
            waits[begin] = [step.name for step in ordered.of("experts", chunk=last)]
        if self.options.shared == "last":
            waits |= {step.name: [returned] for step in ordered.of("shared")}
        return waits

    def compute(self, kind: str, chunk: int | None = None) -> Step:
        return Step(_name(kind, chunk), kind, COMPUTE, chunk=chunk)

    def net(
        self, kind: str, axes: tuple[str, ...], way: str | None = None, chunk: int | None = None, hop: int = 0
    ) -> Step:
        what = way if kind == "exchange" and way else f"{kind}.{way}" if way else kind
        several = kind == "counts" and (self.wiring.tp or len(self.hops) > 1)
        over = axes if several or (kind == "exchange" and len(self.hops) > 1) else ()
        name = _name(what, chunk, *over)
        stays = () if kind == "relay" else axes
        return Step(name, kind, self.wiring.stream(axes), way=way, chunk=chunk, axes=stays, hop=hop)


def _name(what: str, chunk: int | None, *axes: str) -> str:
    return ".".join((what, *([] if chunk is None else [str(chunk)]), *axes))
