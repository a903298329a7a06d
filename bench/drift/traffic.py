"""Traffic that drifts: phases with another skew, other hot experts and other sizes of calls; the same for a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

REGIMES = (1, 16, 256, 2048)
"""Tokens of a call: decode of one, of a few, a small prefill, a large one."""
NEVER = 1e-11
"""Probability of an expert outside the hot ones: beyond the reach of the noise that picks are drawn with."""


@dataclass(frozen=True)
class Phase:
    """What calls are like for a while.

    exponent  of Zipf's law by which tokens choose experts; 0: all alike
    shift     the hottest expert is this one in the traffic's order of experts, the next ones follow it
    regimes   tokens of a call, and how often calls have so many
    hot       only so many experts are chosen (None: all)
    """

    exponent: float
    shift: int
    regimes: tuple[tuple[int, float], ...]
    hot: int | None = None


class Router:
    """Makes rows for which a linear router [E, d] has the logits that are wanted (d >= E).

    Logits are log p + Gumbel noise, so that the top k are k draws without replacement from p; rows are solved from them
    through the router's pseudo-inverse.  The picks get 1 more, so that no rounding can change them.
    """

    def __init__(self, weight: torch.Tensor, top_k: int, order: torch.Tensor) -> None:
        """order: the experts, in which a shift moves from one to the next, [E]"""
        self.experts, self.width = weight.shape
        self._weight = weight.double()
        self._inverse = torch.linalg.pinv(self._weight)
        self._top_k = top_k
        self._order = order

    def probabilities(self, phase: Phase) -> torch.Tensor:
        """Of each expert to be drawn first, f64 [E]."""
        rank = torch.arange(1, self.experts + 1, dtype=torch.double)
        p = rank**-phase.exponent
        if phase.hot is not None:
            p[max(self._top_k, phase.hot) :] = NEVER
        out = torch.empty_like(p)
        out[self._order.roll(-phase.shift)] = p / p.sum()
        return out

    def hot(self, phase: Phase, count: int) -> list[int]:
        """The `count` experts that tokens choose most in this phase."""
        return sorted(self.probabilities(phase).argsort(descending=True, stable=True)[:count].tolist())

    def picks(self, x: torch.Tensor) -> torch.Tensor:
        """The experts that rows choose, best first, [T, k]."""
        return (x.double() @ self._weight.T).topk(self._top_k, -1).indices

    def rows(self, phase: Phase, tokens: int, generator: torch.Generator) -> torch.Tensor:
        """f64 [tokens, d] whose picks follow the phase."""
        p = self.probabilities(phase)
        uniform = torch.rand(tokens, self.experts, generator=generator, dtype=torch.double)
        logits = p.log() - (-uniform.log()).log()
        picks = logits.topk(self._top_k, -1).indices
        logits.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.double))
        x = torch.randn(tokens, self.width, generator=generator, dtype=torch.double)
        rows: torch.Tensor = x + (logits - x @ self._weight.T) @ self._inverse.T
        return rows


@dataclass(frozen=True)
class Request:
    """One call: its inputs [T, d], which phase it belongs to, and its number among the phase's batches of T tokens."""

    phase: int
    tokens: int
    number: int
    x: torch.Tensor


class Traffic:
    """The requests of some phases, made ahead so that making them takes no time from calls.

    batches  how many different inputs there are for each size of call in each phase
    """

    def __init__(
        self, router: Router, phases: Sequence[Phase], dtype: torch.dtype, batches: int = 8, seed: int = 0
    ) -> None:
        self.router, self.phases = router, tuple(phases)
        generator = torch.Generator().manual_seed(seed)
        self.pool = {
            (number, tokens): [
                Request(number, tokens, i, router.rows(phase, tokens, generator).to(dtype)) for i in range(batches)
            ]
            for number, phase in enumerate(phases)
            for tokens, _ in phase.regimes
        }

    def requests(self, phase: int, seed: int) -> Iterator[Request]:
        """Requests of a phase without end, in an order that the seed decides."""
        generator = torch.Generator().manual_seed(seed)
        sizes, often = zip(*self.phases[phase].regimes, strict=True)
        weights = torch.tensor(often)
        while True:
            for drawn in torch.multinomial(weights, 256, True, generator=generator).tolist():
                pool = self.pool[phase, sizes[drawn]]
                yield pool[int(torch.randint(len(pool), (), generator=generator))]


def order(experts: int, seed: int = 0) -> torch.Tensor:
    """A random order of experts, [E]."""
    return torch.randperm(experts, generator=torch.Generator().manual_seed(seed))
