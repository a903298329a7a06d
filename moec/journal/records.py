"""The records of a journal.  What a record does not say is None, or empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Start:
    """An adaptation begins, or experts of layers on several ranks begin to move.

    time      seconds since 1970, as in every record
    layer     its name; of several that move together all names
    artifact  sha256 of the file that was loaded
    host      the machine's name, on which
    pid       this process adapts
    experts   routed experts
    slots     how many of them a token chooses at most
    variant   the instruction set that runs, such as "avx512_bf16"
    layout    the name of the policy
    triggers  its conditions, as text
    ranks     between which experts move; none for an adaptation
    """

    time: float
    layer: str
    artifact: str = ""
    host: str | None = None
    pid: int | None = None
    experts: int = 0
    slots: int = 0
    variant: str = ""
    layout: str = ""
    triggers: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Guard:
    """One `recompile when` statement at one moment.

    text    its condition
    state   "idle", "holding", "tripped" or "cooling"
    values  the measures in it
    held    how long it has held, of `window`, in `unit` ("calls" or "s")
    """

    text: str
    state: str
    values: Mapping[str, float]
    held: float
    window: float
    unit: str


@dataclass(frozen=True, slots=True)
class Run:
    """Which variant runs calls of `first` to `last` tokens (None: or more).

    trial  the one that it takes turns with, while they are compared
    """

    first: int
    last: int | None
    variant: str
    trial: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """The load, about once a second.

    calls, tokens      since the beginning
    calls_per_second   since the last sample, like `tokens_per_call`, `load`, `histogram`, `p50_ms` and `p99_ms`
    load               the experts' shares of the slots, [E]; zeros where there was none
    imbalance          the largest share over the mean, of recent calls, like `share`, `empty` and `overflow`
    histogram          calls by the power of two at or below their tokens (0: none)
    p50_ms, p99_ms     of the latency of calls
    memory             bytes of the layer's weights
    active             names of the variants that calls can come to
    runs               the same by ranges of tokens, ascending
    """

    time: float
    calls: int = 0
    tokens: int = 0
    calls_per_second: float = 0.0
    tokens_per_call: float = 0.0
    load: tuple[float, ...] = ()
    imbalance: float | None = None
    share: float | None = None
    empty: float | None = None
    overflow: float | None = None
    histogram: Mapping[int, int] = field(default_factory=dict)
    p50_ms: float | None = None
    p99_ms: float | None = None
    memory: int | None = None
    active: tuple[str, ...] = ()
    runs: tuple[Run, ...] = ()
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """`what`: "compile", "keep" or "reject"; the other fields say of which variant and why.

    gain             of one that is kept: how many times as fast it was on real calls
    guard            the condition that led to it
    predicted_gain   how many times as fast it should be, over
    expected_calls   so many calls, for
    compile_seconds  so much work
    """

    time: float
    what: str
    why: str
    candidate: str | None = None
    gain: float | None = None
    guard: str | None = None
    predicted_gain: float | None = None
    expected_calls: float | None = None
    compile_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """`source`: "compiler", "cache" or "prebuilt"."""

    time: float
    candidate: str
    seconds: float | None
    source: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong; with a variant, where one is named."""

    time: float
    candidate: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Validated:
    """A variant was tried on recorded rows: the same bits, or an error; ms a call of the old and of the new one."""

    time: float
    candidate: str
    identical: bool | None
    error: float | None
    gain: float | None
    old_ms: float | None
    new_ms: float | None


@dataclass(frozen=True, slots=True)
class Swap:
    """A variant was published; `before` and `variants` are those that ran before and behind."""

    time: float
    before: tuple[str, ...]
    to: str
    variants: tuple[str, ...]
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Rollback:
    """A variant was taken back."""

    time: float
    before: str
    to: str
    why: str
    gain: float | None


@dataclass(frozen=True, slots=True)
class Evicted:
    """A variant made room, or was lost."""

    time: float
    variant: str
    why: str


@dataclass(frozen=True, slots=True)
class Moved:
    """Experts whose weights came into memory, and left it."""

    time: float
    entered: tuple[int, ...]
    left: tuple[int, ...]
    bytes: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Planned:
    """Whether experts of a layer on several ranks should move.  `what`: "move" or "stay".

    before, after  the imbalance of the ranks: now, and if they move
    copies         experts that travel
    saved, cost    seconds: of steps until the load is expected to have changed, and that the experts travel
    """

    time: float
    layer: str
    what: str
    why: str
    before: float | None
    after: float | None
    copies: int | None
    saved: float | None
    cost: float | None


@dataclass(frozen=True, slots=True)
class Travelled:
    """Experts have come to other ranks, where no table names them yet.

    experts                 how many copies, on all ranks
    sent, received, staged  bytes of this rank; `staged` wait beside full slots
    seconds                 that all of it took
    """

    time: float
    experts: int | None
    sent: int | None
    received: int | None
    staged: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Tables:
    """Tables took force: the `version`th, at a step; seconds that the change kept that step waiting."""

    time: float
    version: int | None
    step: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Stop:
    """The adaptation, or the moving, has ended."""

    time: float


@dataclass(frozen=True, slots=True)
class Other:
    """An event that this moec does not know."""

    time: float
    event: str


Event = (
    Decision | Compiled | Failed | Validated | Swap | Rollback | Evicted | Moved | Planned | Travelled | Tables | Other
)
"""What happened while an adaptation ran, or experts moved."""
Record = Start | Sample | Event | Stop
