"""What a schedule is: steps on streams, each begun when its stream has come to it and its signals are there.

All ranks run the same steps.  On a rank every **stream** is a thread; `compute` runs pieces and copies, and there is
one stream for each set of axes that something travels over (`net.node`, `net.gpu`, `net.all`), with a process group of
its own.  A stream runs its steps one after the other, in the order of the schedule.  A step begins when the step before
it on its stream has ended and every step that it **waits** for has signalled its end.  A step that exchanges something
is a collective over the ranks that differ along its `axes` only; it ends when all of them have taken part.  Nothing in
a schedule depends on routing: an exchange takes place even if it has nothing to carry.

What the steps do, forward (`effects.py` says which values each reads and writes):

| kind | way | stream | what it does |
|---|---|---|---|
| `route` | | compute | the piece `route`, for all tokens of the rank's share |
| `choices` | | net | all-gathers index and weight over all axes, for the capacity |
| `capacity` | | compute | the piece `capacity` on them; the rank goes on with its own share of `kept` |
| `counts` | | net | tells the ranks of `axes` how many rows and pairs `hop` of every chunk brings them |
| `pack` | | compute | gathers a chunk's rows, and the pairs (row, slot, weight), in the order of their destinations |
| `exchange` | dispatch | net | all-to-all of a chunk's rows and pairs; `hop` 0 first, where there are several |
| `relay` | dispatch | net | puts what came by hop - 1 into the order of the destinations of `hop`, a copy for each |
| `gather` | dispatch | net | all-gathers a chunk's rows and pairs over the axes that cut the experts' hidden size |
| `experts` | | compute | the piece `experts` on a chunk: one weighted f32 row for each pair |
| `local` | | compute | the same for the pairs of a chunk (None: of all) whose expert lies on the rank itself |
| `reduce` | combine | net | reduce-scatters a chunk's partial sums over these axes, to whom the rows came from |
| `exchange` | combine | net | all-to-all of a chunk's results, the hops of dispatch backwards; `hop` 0 first |
| `relay` | combine | net | puts what came by hop - 1 into the order of `hop`; adds up, where combine is partial |
| `gather` | shared | net | all-gathers x over the axes that cut the shared experts' hidden dimension and the tokens |
| `shared` | | compute | the piece `shared` on the share, or on all tokens of the ranks among which it is cut |
| `reduce` | shared | net | reduce-scatters its partial sums over the axes that cut its hidden dimension, into shares |
| `collect` | | compute | the piece `collect` for a chunk of tokens, or (chunk None) for all tokens of the share |
| `gather` | result | net | all-gathers y over the axes on which tokens are the same |

A rank's **share**: ranks that hold the same tokens each take one range of them, in rank order, so that no row is sent
twice (DeepSpeed-TED, arXiv:2303.06318); where no axis holds the same tokens it is all of them.

Backward, the same names stand for the gradients.  `collect` turns dy into the gradient of a token's sum (one row a
token) and of the shared experts' output; `pack` and `exchange` dispatch carry these rows to the experts as forward
carried x; `experts` gives a gradient row and a weight's gradient for each pair, and adds up those of its parameters;
`exchange` combine carries them back; `shared` and `route` come last, and `route` gives dx; `gradients` (net) adds up
over all ranks the gradients of what every rank has a copy of.  Sizes are known from the forward: there are no `counts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

COMPUTE = "compute"
"""The stream that runs pieces."""

KINDS = (
    "route", "choices", "capacity", "counts", "pack", "exchange", "relay", "gather", "experts", "local", "reduce",
    "shared", "collect", "gradients",
)  # fmt: skip
DIRECTIONS = ("forward", "backward")
WAYS = ("dispatch", "combine", "shared", "result")
COLLECTIVES = ("choices", "counts", "exchange", "gather", "reduce", "gradients")
"""Kinds in which all ranks of a group take part."""
SPLITS = ("tokens", "experts")


@dataclass(frozen=True)
class Step:
    """One step of every rank.

    kind    of KINDS; what it does
    stream  COMPUTE, or that of the axes it travels over
    waits   names of steps of other streams that must have ended before
    way     of WAYS, where the kind alone does not say what travels
    chunk   which part of the tokens or slots it is for; None: all
    axes    the axes whose ranks take part, outermost first; empty for what stays on the rank
    hop     the how-manieth exchange on its way, from 0; for `counts` that of dispatch whose sizes it tells, and one
            more for the `gather` behind them
    """

    name: str
    kind: str
    stream: str
    waits: tuple[str, ...] = ()
    way: str | None = None
    chunk: int | None = None
    axes: tuple[str, ...] = ()
    hop: int = 0

    @property
    def collective(self) -> bool:
        """Do other ranks take part?"""
        return self.kind in COLLECTIVES


@dataclass(frozen=True)
class Wiring:
    """What of a layer and its layout decides which steps a schedule has.  Axes outermost first.

    mesh    all axes
    tokens  axes that cut the tokens
    ep      axes over whose positions experts lie
    tp      axes that cut their hidden dimension
    shared  are there shared experts?
    shared_tp  axes that cut their hidden dimension
    capacity   does a capacity drop choices?
    """

    mesh: tuple[str, ...]
    tokens: tuple[str, ...]
    ep: tuple[str, ...]
    tp: tuple[str, ...] = ()
    shared: bool = False
    shared_tp: tuple[str, ...] = ()
    capacity: bool = False

    @property
    def same(self) -> tuple[str, ...]:
        """Axes on which tokens are the same."""
        return tuple(axis for axis in self.mesh if axis not in self.tokens)

    @property
    def shared_gather(self) -> tuple[str, ...]:
        """Axes over which x is gathered for the shared experts."""
        return tuple(axis for axis in self.shared_tp if axis in self.tokens)

    def stream(self, axes: tuple[str, ...]) -> str:
        """The stream of what travels over these axes."""
        return "net.all" if axes == self.mesh else ".".join(("net", *axes))


@dataclass(frozen=True)
class Schedule:
    """The steps of every rank, in one direction.

    direction     "forward" or "backward"
    split         "tokens": chunk c is one range of the tokens of the rank's share; "experts": one range of every rank's
                  slots, so that weights are read once
    chunks        how many
    hops          the axes of each hop of dispatch: one entry; outer and inner axes where it is hierarchical; none where
                  every rank has a part of every expert
    deduplicate   dispatch carries one copy of a token's row to each destination of a hop; else one for each pair
    local_first   pairs whose expert lies on the rank itself do not travel: they are `local`'s
    buffers       chunks of which packed and arrived rows are kept at a time: chunk c uses set c % buffers
    steps         in an order in which each could run after those before it; the order of every stream
    """

    direction: str
    split: str
    chunks: int
    hops: tuple[tuple[str, ...], ...]
    deduplicate: bool
    local_first: bool
    buffers: int
    steps: tuple[Step, ...]

    @property
    def hierarchical(self) -> bool:
        """Do rows travel in more than one hop?"""
        return len(self.hops) > 1

    def range(self, chunk: int, total: int) -> tuple[int, int]:
        """Begin and end of a chunk among `total` tokens of a share, or slots of a rank; may be empty."""
        return total * chunk // self.chunks, total * (chunk + 1) // self.chunks

    def streams(self) -> dict[str, tuple[Step, ...]]:
        """The steps of each stream, in their order; streams in the order of their first steps."""
        found: dict[str, list[Step]] = {}
        for step in self.steps:
            found.setdefault(step.stream, []).append(step)
        return {stream: tuple(steps) for stream, steps in found.items()}

    def of(self, kind: str, way: str | None = None, chunk: int | None = None) -> Iterator[Step]:
        """The steps of this kind, way and chunk, in order."""
        return (step for step in self.steps if (step.kind, step.way, step.chunk) == (kind, way, chunk))


@dataclass(frozen=True)
class Schedules:
    """How a layer runs on a mesh: `backward` is None where it is not trained."""

    wiring: Wiring
    forward: Schedule
    backward: Schedule | None = None
