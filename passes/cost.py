"""The cost model of token permutation: which of three ways of bringing tokens to experts is cheapest for T tokens.

* **copy**: sort the slots, copy the tokens into expert order, multiply, copy back (what eager code does);
* **gather**: sort the slots; the matmul reads its rows through them and adds its results up in place;
* **direct**: do not sort; walk each token's slots.  An expert that two tokens chose is then read twice.

All three compute the same bits.  Seconds are estimates; only their order matters.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """What the model knows of a machine; the defaults are of one core pair of a current server CPU."""

    memory_bytes_per_second: float = 40e9
    copy_bytes_per_second: float = 15e9
    cache_bytes_per_second: float = 150e9
    cache_bytes: float = 8e6
    seconds_per_sorted_slot: float = 2e-9
    seconds_per_expert_counter: float = 0.5e-9
    seconds_per_direct_slot: float = 3e-9


@dataclass(frozen=True)
class Traffic:
    """What a layer moves: experts, slots a token, bytes of one expert's weights, bytes of one row in and out."""

    experts: int
    slots: int
    expert_bytes: int
    row_in_bytes: int
    row_out_bytes: int

    def distinct(self, tokens: int) -> float:
        """Experts that `tokens` tokens are expected to touch under uniform routing."""
        return self.experts * (1.0 - (1.0 - min(self.slots / self.experts, 1.0)) ** tokens)


def sort_seconds(traffic: Traffic, tokens: int, machine: Machine) -> float:
    slots = tokens * traffic.slots
    return slots * machine.seconds_per_sorted_slot + traffic.experts * machine.seconds_per_expert_counter


def copy_seconds(traffic: Traffic, tokens: int, machine: Machine) -> float:
    rows = tokens * traffic.slots
    moved = rows * (2 * traffic.row_in_bytes + 2 * traffic.row_out_bytes)
    return sort_seconds(traffic, tokens, machine) + moved / machine.copy_bytes_per_second


def gather_seconds(traffic: Traffic, tokens: int, machine: Machine) -> float:
    rows = tokens * traffic.slots
    moved = rows * (traffic.row_in_bytes + traffic.row_out_bytes)
    return sort_seconds(traffic, tokens, machine) + moved / machine.cache_bytes_per_second


def direct_seconds(traffic: Traffic, tokens: int, machine: Machine) -> float:
    rows = tokens * traffic.slots
    again = (rows - traffic.distinct(tokens)) * traffic.expert_bytes
    cached = traffic.experts * traffic.expert_bytes <= machine.cache_bytes
    bandwidth = machine.cache_bytes_per_second if cached else machine.memory_bytes_per_second
    moved = rows * (traffic.row_in_bytes + traffic.row_out_bytes)
    return rows * machine.seconds_per_direct_slot + again / bandwidth + moved / machine.cache_bytes_per_second


def direct_max_tokens(traffic: Traffic, machine: Machine, most: int = 4096) -> int:
    """The largest T up to which walking the slots directly beats sorting them, at most `most`."""
    tokens = 0
    while tokens < most and direct_seconds(traffic, tokens + 1, machine) <= gather_seconds(
        traffic, tokens + 1, machine
    ):
        tokens += 1
    return tokens


def explain(traffic: Traffic, machine: Machine, tokens: int) -> str:
    """One line that says what each way costs at T tokens."""
    costs = {"copy": copy_seconds, "gather": gather_seconds, "direct": direct_seconds}
    parts = [f"{name} {cost(traffic, tokens, machine) * 1e6:.3g} us" for name, cost in costs.items()]
    return f"T={tokens}: {', '.join(parts)}"
