"""What exchanges move and pieces compute, against sums over all pairs of ranks and over sampled tokens."""

from dataclasses import replace

import numpy as np
import pytest

from moec.artifact.traffic import Zipf
from moec.schedule.build import Options, backward, forward
from moec.schedule.demand import Demand, Flow, Held, Load
from moec.schedule.machine import PAIR_BYTES, Cost, Layer, guess
from moec.schedule.mesh import Axis, Mesh
from moec.schedule.routing import Choices
from moec.schedule.steps import Step
from tests.schedule.wirings import WIRINGS

POD = Mesh("Pod", (Axis("node", 2, 1e8, 0.0), Axis("gpu", 3, 1e9, 0.0)))
LAYER = Layer(12, 3, x=64, y=64, row=32, result=48, sum=128, gradient=256, expert_flops=1e6, expert_bytes=1e5,
              route_flops=1e3, route_bytes=100.0, shared_flops=1e6, shared_bytes=500.0)  # fmt: skip
TOKENS = np.array([[5.0, 0.0, 40.0], [7.0, 1.0, 3.0]])
HELD = Held.of([[0], [0], [1], [1], [2], [2, 5], [3], [3], [4], [4], [5], [0, 1]])
LOAD = Load(TOKENS, Choices(Zipf(0.7).shares(12, 3), 3), HELD)
WIRING = WIRINGS["two axes"]


def demand(options: Options, **fields: object) -> Demand:
    return Demand(forward(WIRING, options), WIRING, POD, LAYER, replace(LOAD, **fields))


def step(of: Demand, name: str) -> Step:
    return next(step for step in of.schedule.steps if step.name == name)


def by_pairs(matrix: np.ndarray) -> Flow:
    """The flow of a matrix of bytes from every rank to every rank."""
    out, into = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    for source in range(6):
        for target in range(6):
            a, b = POD.coordinates(source), POD.coordinates(target)
            if a != b:
                axis = 0 if a[0] != b[0] else 1
                out[axis][a] += matrix[source, target]
                into[axis][b] += matrix[source, target]
    return Flow(out, into, 6)


def sampled(count: int = 40_000) -> np.ndarray:
    """[count, 6] how many pairs tokens have at each position, one token a row; drawn by the weights of their sets."""
    random = np.random.default_rng(0)
    weights = LOAD.choices._weights  # what the probability of a set of experts is made of
    odds = weights / (weights + np.median(weights))
    chosen = np.zeros((count, 12), bool)
    left = np.ones(count, bool)
    while left.any():  # independent draws, kept where they are three
        drawn = random.random((count, 12)) < odds
        good = left & (drawn.sum(1) == 3)
        chosen[good], left = drawn[good], left & ~good
    pairs = np.zeros((count, 6))
    taken, draw = np.zeros(12), random.random((count, 12))
    for copy, expert in enumerate(HELD.expert):  # a token goes to one copy of each of its experts
        begin, taken[expert] = taken[expert], taken[expert] + HELD.share[copy]
        goes = (draw[:, expert] >= begin) & (draw[:, expert] < taken[expert])
        pairs[:, HELD.position[copy]] += chosen[:, expert] & goes
    return pairs


def assert_flows(found: Flow, expected: Flow, rtol: float) -> None:
    np.testing.assert_allclose(found.out, expected.out, rtol=rtol, atol=1e-9)
    np.testing.assert_allclose(found.into, expected.into, rtol=rtol, atol=1e-9)


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_direct_exchange_moves_what_sampled_tokens_send(chunks: int) -> None:
    pairs = sampled()
    tokens = TOKENS.reshape(-1)
    rows = (pairs > 0).mean(0)
    of = demand(Options(chunks=chunks, deduplicate=True))
    each = np.outer(tokens, rows * LAYER.row + pairs.mean(0) * PAIR_BYTES) / chunks
    assert_flows(of.flow(step(of, "dispatch.0")), by_pairs(each), rtol=0.03)
    back = np.outer(pairs.mean(0) * LAYER.result, tokens) / chunks
    assert_flows(of.flow(step(of, "combine.0")), by_pairs(back), rtol=0.03)


def test_without_deduplication_every_pair_has_a_row() -> None:
    of = demand(Options())
    pairs = of._slots.sum(1)
    each = np.outer(TOKENS.reshape(-1), pairs * (LAYER.row + PAIR_BYTES))
    assert_flows(of.flow(step(of, "dispatch.0")), by_pairs(each), rtol=1e-12)


@pytest.mark.parametrize("partial", [None, "node", "gpu"])
def test_a_hierarchical_exchange_goes_by_the_relays(partial: str | None) -> None:
    pairs = sampled()
    tokens = TOKENS.reshape(-1)
    at_rank, at_node = (pairs > 0).mean(0), (pairs.reshape(-1, 2, 3).sum(2) > 0).mean(0)
    of = demand(Options(hierarchical=True, deduplicate=True), partial=partial)
    back_inner = pairs.mean(0) if partial is None else at_rank
    back_outer = {
        None: pairs.mean(0).reshape(2, 3).sum(1), "node": at_node, "gpu": at_rank.reshape(2, 3).sum(1),
    }[partial]  # fmt: skip
    first, second, back_first, back_second = (np.zeros((6, 6)) for _ in range(4))
    for source in range(6):
        column = source % 3
        for node in range(2):
            relay = node * 3 + column
            pairs_there = pairs.mean(0).reshape(2, 3)[node].sum()
            first[source, relay] += tokens[source] * (at_node[node] * LAYER.row + pairs_there * PAIR_BYTES)
            back_second[relay, source] += tokens[source] * back_outer[node] * LAYER.result
            for gpu in range(3):
                target = node * 3 + gpu
                row = at_rank[target] * LAYER.row + pairs.mean(0)[target] * PAIR_BYTES
                second[relay, target] += tokens[source] * row
                back_first[target, relay] += tokens[source] * back_inner[target] * LAYER.result
    assert_flows(of.flow(step(of, "dispatch.0.node")), by_pairs(first), rtol=0.03)
    assert_flows(of.flow(step(of, "dispatch.0.gpu")), by_pairs(second), rtol=0.03)
    assert_flows(of.flow(step(of, "combine.0.gpu")), by_pairs(back_first), rtol=0.03)
    assert_flows(of.flow(step(of, "combine.0.node")), by_pairs(back_second), rtol=0.03)


def test_chunks_of_slots_add_up_to_all_pairs() -> None:
    one, three = demand(Options()), demand(Options("experts", 3))
    whole = one.flow(step(one, "combine.0"))
    parts = [three.flow(step(three, f"combine.{chunk}")) for chunk in range(3)]
    np.testing.assert_allclose(sum(part.out for part in parts), whole.out)
    rows = [demand(o).flow(step(demand(o), "dispatch.0")).out.sum() for o in (Options(deduplicate=True), Options())]
    assert rows[0] < rows[1]


def test_empty_slots_are_slots() -> None:
    held = Held.of([[0], [1], [1]], 4)
    assert (held.slots, held.slot, held.position) == (4, (0, 0, 1), (0, 1, 1))
    assert Held.of([[0], [1], [1]]).slots == 2


def test_few_rows_cost_the_weights_and_many_their_operations() -> None:
    machine = replace(guess(LAYER, POD), experts=Cost(0.0, 1.0, 1000.0))
    of = demand(Options("tokens", 2), tokens=1e6)
    pairs = of._slots.sum(1).reshape(2, 3)
    np.testing.assert_allclose(of.seconds(step(of, "experts.0"), machine), 6e6 * pairs / 2)
    of = demand(Options("tokens", 2), tokens=1e-9)
    assert (of.seconds(step(of, "experts.0"), machine) < 1e-4).all()
    of = demand(Options("tokens", 2), tokens=20.0)
    assert (of.seconds(step(of, "experts.0"), machine) > 1000.0).all()


def test_what_stays_is_not_among_what_arrives() -> None:
    machine = replace(guess(LAYER, POD), experts=Cost(0.0, 1.0, 0.0))
    whole, near = demand(Options()), demand(Options(local_first=True))
    together = near.seconds(step(near, "experts.0"), machine) + near.seconds(step(near, "local"), machine)
    np.testing.assert_allclose(together, whole.seconds(step(whole, "experts.0"), machine))


def test_every_step_of_every_layout_has_a_demand() -> None:
    for wiring in WIRINGS.values():
        mesh = Mesh("M", tuple(Axis(name, 2) for name in wiring.mesh))
        positions = max(1, mesh.size(wiring.ep))
        load = Load(16.0, Choices((1 / 8,) * 8, 2), Held.of([[e % positions] for e in range(8)]))
        for make in (forward, backward):
            of = Demand(make(wiring, Options(chunks=2, deduplicate=True)), wiring, mesh, LAYER, load)
            for one in of.schedule.steps:
                if one.collective:
                    flow = of.flow(one)
                    np.testing.assert_allclose(flow.out.sum(), flow.into.sum())
                    assert flow.out.sum() > 0, one.name
                else:
                    assert (of.seconds(one, guess(LAYER, mesh)) > 0).all(), one.name
            assert min(of.memory().values()) > 0


def test_tensor_parallel_ranks_gather_what_came_to_each_and_send_their_share() -> None:
    wiring = WIRINGS["tensor, same tokens"]
    mesh = Mesh("M", (Axis("node", 2), Axis("gpu", 4)))
    load = Load(100.0, Choices((1 / 4,) * 4, 1), Held.of([[0], [0], [1], [1]]))
    of = Demand(forward(wiring, Options()), wiring, mesh, LAYER, load)
    assert (of.share == 25.0).all()
    sent = of.flow(step(of, "dispatch.0"))
    np.testing.assert_allclose(sent.out[0], 25.0 / 2 * (LAYER.row + PAIR_BYTES))
    gathered = of.flow(step(of, "gather.dispatch.0"))
    np.testing.assert_allclose(gathered.into[1], 3 * 2 * 25.0 / 2 * (LAYER.row + PAIR_BYTES))
