"""The tile in Verilator gives the reference's bits, in as many cycles as the model says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from moec.fixed import reference
from moec.fixed.model import cycles, geometry
from moec.fixed.model.choice import choice, chooses
from moec.fixed.vectors import Case, cases
from moec.fixed.verilated import Visits, visits
from tests.backends.hls.rtl.designs import DESIGNS, FEW
from tests.backends.hls.rtl.simulation import Tile, build, logits

pytest.importorskip("circt", reason="circt is not installed")

VERILATOR = shutil.which("verilator")
pytestmark = [pytest.mark.skipif(VERILATOR is None, reason="verilator is not installed"), pytest.mark.long]

EVERY = [pytest.param(name, marks=() if name in FEW else (pytest.mark.slow,)) for name in DESIGNS]
ROUTING = [each for each in EVERY if geometry.routes(DESIGNS[str(each.values[0])])]
CHOOSING = [each for each in EVERY if chooses(DESIGNS[str(each.values[0])])]


@pytest.fixture(scope="module")
def tile(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tile]:
    @cache
    def made(name: str) -> Tile:
        assert VERILATOR is not None
        return build(DESIGNS[name], tmp_path_factory.mktemp(name), VERILATOR)

    return made


def routed(tile: Tile, case: Case) -> Visits:
    layer = tile.design.layer
    return visits(layer, reference.routing(layer, case.parameters, case.rows, case.tasks))


def expected_cycles(tile: Tile, visited: Visits, tokens: int) -> list[int]:
    """Of rows, table, route, experts, result."""
    planned = cycles.planned(tile.design, visited.expert, np.diff(visited.first))
    parts = cycles.tile(tile.design, planned, tokens)
    return [parts.rows, parts.table, 0, parts.experts, parts.result]


@pytest.mark.parametrize("name", EVERY)
def test_experts_bit_by_bit_and_cycle_by_cycle(name: str, tile: Callable[[str], Tile]) -> None:
    it = tile(name)
    for seed in range(3):
        for case in cases(it.design.layer, it.design.tokens, seed=seed):
            visited = routed(it, case)
            got, taken = it.run(case.parameters, case.rows, visited)
            np.testing.assert_array_equal(got, case.result, err_msg=f"{case.name}, seed {seed}")
            assert taken == expected_cycles(it, visited, len(case.rows)), case.name


@pytest.mark.parametrize("name", ROUTING)
def test_logits(name: str, tile: Callable[[str], Tile]) -> None:
    it = tile(name)
    design = it.design
    for case in cases(design.layer, design.tokens, seed=4):
        got, taken = it.logits(case.parameters, case.rows, 0)
        np.testing.assert_array_equal(got, logits(case.parameters, case.rows, 0), err_msg=case.name)
        assert taken == cycles.logits(design, len(case.rows))


@pytest.mark.parametrize("name", CHOOSING)
def test_routers(name: str, tile: Callable[[str], Tile]) -> None:
    it = tile(name)
    design = it.design
    for seed in range(5):
        for case in cases(design.layer, design.tokens, seed=seed):
            got, taken = it.route(case)
            want = reference.routing(design.layer, case.parameters, case.rows, case.tasks)
            np.testing.assert_array_equal(got.experts, want.experts, err_msg=f"{case.name}, seed {seed}")
            np.testing.assert_array_equal(got.weights, want.weights, err_msg=f"{case.name}, seed {seed}")
            assert taken[1] == choice(design, len(case.rows))


@pytest.mark.parametrize("name", CHOOSING)
def test_whole_calls(name: str, tile: Callable[[str], Tile]) -> None:
    it = tile(name)
    layer = it.design.layer
    for tokens in (it.design.tokens, 0, 1):
        for case in cases(layer, tokens, seed=9):
            got, taken = it.call(case)
            np.testing.assert_array_equal(got, case.result, err_msg=case.name)
            chosen = reference.routing(layer, case.parameters, case.rows, case.tasks).experts
            counts = np.bincount(chosen.ravel(), minlength=layer.experts).tolist()
            tasks = [tokens] if case.tasks is None else np.bincount(case.tasks, minlength=layer.router.tasks).tolist()
            model = cycles.call(it.design, counts, tasks)
            assert taken == [model.rows, model.table, model.route, model.experts, model.result], case.name
            assert sum(taken) == model.total


@pytest.mark.parametrize("tokens", [0, 1, 3])
def test_fewer_tokens_than_the_design_takes(tokens: int, tile: Callable[[str], Tile]) -> None:
    it = tile("int8")
    for case in cases(it.design.layer, tokens, seed=5):
        visited = routed(it, case)
        got, taken = it.run(case.parameters, case.rows, visited)
        np.testing.assert_array_equal(got, case.result, err_msg=case.name)
        assert taken == expected_cycles(it, visited, tokens)


def test_a_visit_for_each_token(tile: Callable[[str], Tile]) -> None:
    """Token-major order: integer sums do not depend on it, cycles do."""
    it = tile("int8")
    case = cases(it.design.layer, it.design.tokens, seed=6)[0]
    together = routed(it, case)
    numbers = np.repeat(together.expert, np.diff(together.first))
    order = np.argsort(together.token, kind="stable")
    first = np.arange(len(order) + 1, dtype=np.int32)
    apart = Visits(numbers[order], first, together.token[order], together.weight[order])
    got, taken = it.run(case.parameters, case.rows, apart)
    np.testing.assert_array_equal(got, case.result)
    assert taken == expected_cycles(it, apart, len(case.rows))
    assert taken[3] > expected_cycles(it, together, len(case.rows))[3]


def test_numbers_out_of_range_are_refused(tile: Callable[[str], Tile]) -> None:
    it = tile("int8")
    case = cases(it.design.layer, 2, seed=7)[0]
    good = routed(it, case)
    for wrong in (
        replace(good, expert=good.expert + 100),
        replace(good, token=good.token + 2),
        replace(good, weight=good.weight + (1 << 17)),
        replace(good, first=good.first[::-1].copy()),
    ):
        with pytest.raises(AssertionError):
            it.run(case.parameters, case.rows, wrong)


def test_the_comparison_sees_a_wrong_bit(tile: Callable[[str], Tile]) -> None:
    """A weight that differs by one changes what the tile gives."""
    it = tile("int8")
    case = cases(it.design.layer, it.design.tokens, seed=8)[0]
    visited = routed(it, case)
    used = int(visited.expert[0])
    codes = case.parameters.experts[used].down.codes.copy()
    codes[0, 0] ^= 64
    expert = case.parameters.experts[used]
    experts = list(case.parameters.experts)
    experts[used] = replace(expert, down=replace(expert.down, codes=codes))
    got, _ = it.run(replace(case.parameters, experts=tuple(experts)), case.rows, visited)
    assert (got != case.result).any()
