"""What passes for FPGAs decide fits, whatever the layer and the board; and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_mlir import ir

from moec import passes
from moec.backends.hls.board import BOARDS, find_board
from moec.dialect import context
from moec.dialect.hls import Decisions, decisions, write_decisions
from moec.errors import DiagnosticError
from moec.fixed.design import Memory
from moec.fixed.model.kernel import resources, room
from moec.fixed.spec import Activation, Expert, Layer, Router, Score, Weights
from tests.fixed.samples import EDGE

DECIDE = ("hls-order", "hls-array", "hls-memories")


def module(made: Decisions | None) -> ir.Module:
    text = f'module attributes {{moe.layer = "{EDGE.name}"}} {{ func.func @{EDGE.name}() {{ return }} }}'
    parsed = ir.Module.parse(text, context())
    if made is not None:
        write_decisions(parsed, made)
    return parsed


def decide(made: Decisions | None, *specs: str) -> Decisions:
    given = module(made)
    passes.run(given, passes.parse_pipeline(specs or DECIDE))
    found = decisions(given)
    assert found is not None
    return found


layers = st.builds(
    lambda width, hidden, experts, slots, gated, weights, activation: Layer(
        "Edge",
        width,
        experts,
        Router(Score.SOFTMAX, "all", False, False, min(slots, experts), True, 1.0, 1),
        Expert(hidden, activation, gated, False),
        0,
        None,
        weights,
    ),
    st.integers(1, 512),
    st.integers(1, 1024),
    st.integers(1, 64),
    st.integers(1, 8),
    st.booleans(),
    st.sampled_from(Weights),
    st.sampled_from(Activation),
)


@given(layers, st.sampled_from(BOARDS), st.integers(1, 128))
@settings(max_examples=12, deadline=None)
def test_no_design_takes_more_than_the_board_gives(layer: Layer, board: str, tokens: int) -> None:
    design = decide(Decisions(layer, find_board(board), tokens)).design
    taken, most = resources(design), room(design.board)
    assert taken.dsp <= most.dsp < design.board.dsp
    assert taken.bram <= most.bram < design.board.bram
    assert taken.uram <= most.uram <= design.board.uram
    assert taken.lut <= most.lut < design.board.lut
    assert design.ports <= design.board.ports
    if not design.board.uram:
        assert Memory.URAM not in (design.queues, design.rows_in, design.weights_in)


def test_a_smaller_board_gets_a_smaller_array() -> None:
    tiny = replace(find_board("kv260"), dsp=200)
    small, large = (decide(Decisions(EDGE, board, 128)).design for board in (tiny, find_board("u280")))
    assert small.inputs * small.outputs < 160 < large.inputs * large.outputs


def test_the_orders_cross_at_one_token_an_expert() -> None:
    board = find_board("zcu102")
    orders = [decide(Decisions(EDGE, board, tokens), "hls-order").order for tokens in (1, 4, 5, 64)]
    assert [order.value if order else None for order in orders] == ["token", "token", "expert", "expert"]


@pytest.mark.parametrize(
    ("tokens", "specs", "code", "said"),
    [
        (65536, DECIDE, "E0743", "tokens="),
        (16, ("hls-array",), "E0746", "run `hls-order` before"),
        (16, ("hls-order", "hls-memories"), "E0746", "`hls-array` before"),
        (16, ("hls-order{order=sideways}",), "E0604", "expert, token"),
        (16, ("hls-order", "hls-array{inputs=3}"), "E0604", "powers of two"),
        (16, ("hls-order", "hls-array{ports=8}"), "E0604", "at most 4 ports"),
        (16, ("hls-order", "hls-array{inputs=64,outputs=64}"), "E0743", "DSP blocks"),
    ],
)
def test_what_cannot_be_is_refused(tokens: int, specs: tuple[str, ...], code: str, said: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        decide(Decisions(EDGE, find_board("zcu102"), tokens), *specs)
    assert code in str(caught.value)
    assert said in str(caught.value)


def test_a_layer_that_is_too_large_for_any_call_is_refused() -> None:
    board = replace(find_board("zcu102"), bram=1)
    with pytest.raises(DiagnosticError, match="choose a larger board"):
        decide(Decisions(EDGE, board, 256))


def test_a_module_for_no_hardware_is_refused() -> None:
    with pytest.raises(DiagnosticError, match="E0746"):
        decide(None, "hls-order")


def test_an_attribute_of_another_form_is_refused() -> None:
    broken = module(Decisions(EDGE, find_board("zcu102"), 4))
    with broken.context, ir.Location.unknown():
        broken.operation.attributes["moe.hls"] = ir.Attribute.parse("{tokens = 3 : i64}")
    with pytest.raises(DiagnosticError, match="E0605"):
        passes.run(broken, passes.parse_pipeline(["hls-order"]))
