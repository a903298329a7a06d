"""Sorting tokens into messages, passing them on, and where results come back to: all ranks simulated in one process."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moec.placement.problem import Placement
from moec.placement.table import Table
from moec.runtime.parallel.arrival import Arrival, Relay, add_up, arrive
from moec.runtime.parallel.departure import Departure, Rules, Unit, depart
from moec.runtime.parallel.messages import heights, metadata, write

D = 6


@dataclass(frozen=True)
class Case:
    rules: Rules
    table: Table
    x: list[torch.Tensor]  # for each rank its tokens
    index: list[np.ndarray]
    weight: list[np.ndarray]


@st.composite
def cases(draw: st.DrawFn, unit: Unit = "pair") -> Case:
    grid = draw(st.sampled_from([(1,), (2,), (3,), (2, 2), (2, 3), (3, 1), (1, 2)]))
    ranks, experts, most = int(np.prod(grid)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    holders = [sorted(rng.choice(ranks, rng.integers(1, ranks + 1), replace=False)) for _ in range(experts)]
    slots = max(sum(rank in at for at in holders) for rank in range(ranks)) + draw(st.integers(0, 2))
    table = Table.first(Placement.even(holders), slots, grid)
    rules = Rules(
        grid=grid,
        slots=slots,
        position=0,
        chunks=draw(st.integers(1, 4)),
        by_tokens=draw(st.booleans()),
        deduplicate=draw(st.booleans()),
        local_first=draw(st.booleans()),
        unit=unit,
    )
    tokens = draw(st.lists(st.integers(0, 9), min_size=ranks, max_size=ranks))
    if draw(st.booleans()):  # one rank has all
        tokens = [0] * (ranks - 1) + [sum(tokens)]
    favourite = draw(st.sampled_from([None, 0]))  # one expert has all
    index = [_choices(rng, count, most, experts, favourite) for count in tokens]
    weight = [rng.standard_normal((count, most)).astype(np.float32) for count in tokens]
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16]))
    x = [torch.from_numpy(rng.standard_normal((count, D))).to(dtype) for count in tokens]
    return Case(rules, table, x, index, weight)


def _choices(rng: np.random.Generator, tokens: int, most: int, experts: int, favourite: int | None) -> np.ndarray:
    index = np.full((tokens, most), -1, np.int32)
    for token in range(tokens):
        chosen = rng.choice(experts, min(most, experts), replace=False)
        if favourite is not None:
            chosen = np.array([favourite])
        index[token, : len(chosen)] = np.where(rng.random(len(chosen)) < 0.2, -1, chosen)
        rng.shuffle(index[token])
    return index


def _exchange(sent: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    """All-to-all within one group: `sent[a][b]` goes from a to b."""
    return [torch.cat([sent[a][b] for a in range(len(sent))]) for b in range(len(sent))]


def _expert(expert: int, row: np.ndarray, weight: np.float32) -> np.ndarray:
    return weight * (np.float32(expert + 1.5) * row.astype(np.float32) + np.float32(expert))


def _compute(case: Case, rank: int, memory: torch.Tensor, row, place, weight) -> torch.Tensor:
    out = torch.empty((len(row), D))
    for pair in range(len(row)):
        expert = int(case.table.held[rank, place[pair]])
        assert expert >= 0
        out[pair] = torch.from_numpy(_expert(expert, memory[row[pair]].float().numpy(), weight[pair]))
    return out


def _simulate(case: Case) -> list[torch.Tensor]:
    """The layer's output on each rank, from its own tokens."""
    rules, ranks = case.rules, len(case.x)
    departures: list[Departure] = []
    returned = []
    for rank in range(ranks):
        holder, slot = case.table.lookup(rank)(case.index[rank])
        one = depart(case.index[rank], case.weight[rank], holder, slot, replace(rules, position=rank))
        departures.append(one)
        rows = torch.full((case.index[rank].size, D), torch.nan)
        returned.append(rows)
        if rules.local_first:
            for chunk in range(rules.chunks):
                number = (chunk + 1) * rules.width - 1
                begin, end = one.messages.pair_starts[number : number + 2]
                pairs = one.messages.order[begin:end]
                out = _compute(
                    case, rank, case.x[rank], one.pairs.row[pairs], one.pairs.place[pairs], one.pairs.weight[pairs]
                )
                at = one.regions[chunk] + one.units[chunk, :-1].sum()
                rows[at : at + len(out)] = out
    for chunk in range(rules.chunks):
        back = _round_trip(case, departures, chunk)
        for rank, one in enumerate(departures):
            at = one.regions[chunk]
            assert len(back[rank]) == one.units[chunk, : rules.grid[0]].sum()
            returned[rank][at : at + len(back[rank])] = back[rank]
    return [_collect(rows, one.places) for rows, one in zip(returned, departures, strict=True)]


def _round_trip(case: Case, departures: list[Departure], chunk: int) -> list[torch.Tensor]:
    rules, ranks = case.rules, len(case.x)
    outer, inner = rules.grid[0], rules.inner
    first = chunk * rules.width
    pairs = [one.messages.pairs[first : first + outer] for one in departures]
    rows = [one.messages.rows[first : first + outer] for one in departures]
    sent = []
    for rank, one in enumerate(departures):
        height = heights(pairs[rank], rows[rank], D * case.x[rank].element_size())
        out = torch.empty((int(height.sum()), D), dtype=case.x[rank].dtype)
        write(out, case.x[rank], one.messages, metadata(one.pairs, one.messages), first, first + outer)
        sent.append(list(out.split(height.tolist())))
    memory: dict[int, torch.Tensor] = {}
    arrivals: dict[int, Arrival] = {}
    for column in range(inner):
        group = [n * inner + column for n in range(outer)]
        for n, came in enumerate(_exchange([sent[rank] for rank in group])):
            rank = group[n]
            memory[rank] = came
            arrivals[rank] = arrive(
                came, np.array([pairs[other][n] for other in group]), np.array([rows[other][n] for other in group])
            )
    relays: dict[int, Relay] = {}
    if len(rules.grid) == 2:
        passed = {}
        for rank, arrival in arrivals.items():
            relay = relays[rank] = Relay.of(arrival, inner, rules.slots, rules.deduplicate)
            height = relay.height(D * memory[rank].element_size())
            out = torch.empty((int(height.sum()), D), dtype=memory[rank].dtype)
            relay.write(memory[rank], out)
            passed[rank] = list(out.split(height.tolist()))
        for node in range(outer):
            group = [node * inner + g for g in range(inner)]
            for g, came in enumerate(_exchange([passed[rank] for rank in group])):
                there = [relays[rank].messages for rank in group]
                memory[group[g]] = came
                arrivals[group[g]] = arrive(
                    came, np.array([m.pairs[g] for m in there]), np.array([m.rows[g] for m in there])
                )
    for rank in range(ranks):  # what each position gets in the end was known when messages departed
        final = arrivals[rank]
        assert final.pairs.sum() == sum(one.pair_counts[chunk, rank] for one in departures)
        assert final.rows.sum() == sum(one.rows[chunk, rank] for one in departures)
    out = {}
    for rank, arrival in arrivals.items():
        done = _compute(case, rank, memory[rank], arrival.row, arrival.place, arrival.weight)
        if rules.unit != "pair":
            done = add_up(done, arrival.data, int(arrival.rows.sum()))
        out[rank] = list(done.split(arrival.units(rules.unit).tolist()))
    if relays:
        for node in range(outer):
            group = [node * inner + g for g in range(inner)]
            for g, came in enumerate(_exchange([out[rank] for rank in group])):
                relay = relays[group[g]]
                assert len(came) == relay.received(rules.unit).sum()
                out[group[g]] = list(relay.back(came, rules.unit).split(relay.returned(rules.unit).tolist()))
    back: list[torch.Tensor] = [torch.empty(0)] * ranks
    for column in range(inner):
        group = [n * inner + column for n in range(outer)]
        for n, came in enumerate(_exchange([out[rank] for rank in group])):
            back[group[n]] = came
    return back


def _collect(rows: torch.Tensor, places: np.ndarray) -> torch.Tensor:
    y = torch.zeros((len(places), D))
    for token, there in enumerate(places):
        for place in there:
            if place >= 0:
                y[token] += rows[place]
    return y


def _single(case: Case, rank: int) -> torch.Tensor:
    y = torch.zeros((len(case.index[rank]), D))
    for token, chosen in enumerate(case.index[rank]):
        for k in np.argsort(chosen, kind="stable"):
            if chosen[k] >= 0:
                row = case.x[rank][token].float().numpy()
                y[token] += torch.from_numpy(_expert(int(chosen[k]), row, case.weight[rank][token, k]))
    return y


@settings(max_examples=120)
@given(cases())
def test_results_are_those_of_one_process_bit_for_bit(case: Case) -> None:
    for rank, y in enumerate(_simulate(case)):
        assert torch.equal(y, _single(case, rank))


@pytest.mark.parametrize("unit", ["rank", "row"])
@settings(max_examples=80)
@given(data=st.data())
def test_partial_sums_add_up(unit: Unit, data: st.DataObject) -> None:
    case = data.draw(cases(unit))
    for rank, y in enumerate(_simulate(case)):
        torch.testing.assert_close(y, _single(case, rank), rtol=1e-5, atol=1e-5)


@settings(max_examples=60)
@given(cases("row"))
def test_what_travels_once(case: Case) -> None:
    for rank in range(len(case.x)):
        holder, slot = case.table.lookup(rank)(case.index[rank])
        one = depart(
            case.index[rank], case.weight[rank], holder, slot, replace(case.rules, position=rank, deduplicate=True)
        )
        first = one.messages.row_starts
        for message in range(len(one.messages.pairs)):
            sent = one.messages.sent[first[message] : first[message + 1]]
            assert (np.diff(sent) > 0).all()
        assert one.messages.pairs.sum() == (case.index[rank] >= 0).sum()
        assert one.units.sum() <= one.messages.pairs.sum()
