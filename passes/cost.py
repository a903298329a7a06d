"""The cost model of token permutation: which of three ways of bringing tokens to experts is cheapest for T tokens.

* **copy**: sort the slots, copy the tokens into expert order, multiply, copy back (what eager code does);
* **gather**: sort the slots by counting; the matmul reads its rows through them and adds its results up in place;
* **direct**: as gather, but the few slots are inserted into order one by one, without a counter for every expert.

All three compute the same bits.  Seconds are estimates; only their order matters.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """What the model knows of a machine; the defaults were measured on one Zen 5 core."""

    copy_bytes_per_second: float = 15e9
    cache_bytes_per_second: float = 150e9
    seconds_per_slot: float = 2e-9
    seconds_per_counter: float = 1e-9
    seconds_per_insertion_step: float = 1.5e-9


@dataclass(frozen=True)
class Traffic:
    """What a layer moves: experts, slots a token, bytes of one row in and out."""

    experts: int
    slots: int
    row_in_bytes: int
    row_out_bytes: int


def counting_seconds(traffic: Traffic, tokens: int, machine: Machine) -> float:
    return tokens * traffic.slots * machine.seconds_per_slot + traffic.experts * machine.seconds_per_counter


def insertion_seconds(traffic: Traffic, tokens: int, machine: Machine) -> float:
    """Every slot moves past half of those before it that are in order, so past a quarter of all on average."""
    slots = tokens * traffic.slots
    return slots * machine.seconds_per_slot + slots * slots / 4 * machine.seconds_per_insertion_step


def _row_bytes(traffic: Traffic, tokens: int) -> int:
    return tokens * traffic.slots * (traffic.row_in_bytes + traffic.row_out_bytes)


def copy_seconds(traffic: Traffic, tokens: int, machine: Machine) -> float:
    moved = 2 * _row_bytes(traffic, tokens)
    return counting_seconds(traffic, tokens, machine) + moved / machine.copy_bytes_per_second


def gather_seconds(traffic: Traffic, tokens: int, machine: Machine) -> float:
    moved = _row_bytes(traffic, tokens)
    return counting_seconds(traffic, tokens, machine) + moved / machine.cache_bytes_per_second


def direct_seconds(traffic: Traffic, tokens: int, machine: Machine) -> float:
    moved = _row_bytes(traffic, tokens)
    return insertion_seconds(traffic, tokens, machine) + moved / machine.cache_bytes_per_second


def direct_max_tokens(traffic: Traffic, machine: Machine, most: int = 4096) -> int:
    """The largest T up to which inserting the slots beats counting them, at most `most`."""
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
