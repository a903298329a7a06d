"""moe.take_rows and moe.collect against the oracle and NumPy, and rows that matmuls read where they lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_mlir import ir

from moec import oracle
from moec.dialect import context
from moec.errors import RangeError
from tests.backends.cpu import modules, native
from tests.backends.cpu.artifact import DTYPES, Artifact, exact

VARIANTS = range(len(native.runnable()))


def take_text(width: int, dtype: str) -> str:
    x, s = f"tensor<?x{width}x{dtype}>", "tensor<?x1xi32>"
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L(%x: {x} {{moe.name = "x", moe.role = "input"}},
      %s: {s} {{moe.name = "source", moe.role = "input"}}) -> ({x} {{moe.name = "out"}}) {{
    %o = "moe.take_rows"(%x, %s) : ({x}, {s}) -> {x}
    return %o : {x}
  }}
}}"""


def collect_text(slots: int, width: int, dtype: str) -> str:
    """out = rounded(sum + more)."""
    r, p, y = f"tensor<?x{slots}x{width}xf32>", f"tensor<?x{slots}xi32>", f"tensor<?x{width}x{dtype}>"
    more = f"tensor<?x{width}xf32>"
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L(%r: {r} {{moe.name = "rows", moe.role = "input"}}, %p: {p} {{moe.name = "places", moe.role = "input"}},
      %m: {more} {{moe.name = "more", moe.role = "input"}}) -> ({y} {{moe.name = "y"}}) {{
    %y = "moe.collect"(%r, %p) ({{
      ^bb0(%sum: f32):
      %e = "moe.element"(%m) {{kind = "token"}} : ({more}) -> f32
      %t = arith.addf %sum, %e : f32
      {modules.rounded("%t", dtype)}
    }}) : ({r}, {p}) -> {y}
    return %y : {y}
  }}
}}"""


def oracle_of(text: str, given: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    with context(), ir.Location.unknown():
        return oracle.run(ir.Module.parse(text), {name: exact(value) for name, value in given.items()})


@pytest.mark.parametrize(("width", "dtype"), [(48, "f32"), (13, "bf16"), (1, "f32")])
def test_take_rows_copies_what_is_returned(width, dtype):
    text = take_text(width, dtype)
    made = Artifact(text)
    for variant in VARIANTS:
        for tokens in (0, 1, 7, 70):
            rng = np.random.default_rng(tokens)
            given = {
                "x": torch.tensor(rng.normal(size=(tokens, width))).to(DTYPES[dtype]),
                "source": torch.tensor(rng.integers(-1, max(tokens, 1), (tokens, 1)), dtype=torch.int32),
            }
            if not tokens:
                given["source"] = torch.empty(0, 1, dtype=torch.int32)
            out = made.run(given, variant=variant, threads=2)["out"]
            assert (exact(out) == oracle_of(text, given)["out"]).all()


def test_the_number_of_a_row_that_is_not_there_is_an_error():
    made = Artifact(take_text(8, "f32"))
    with pytest.raises(RuntimeError, match="number of a row to take") as error:
        made.run({"x": torch.zeros(3, 8), "source": torch.tensor([[0], [3], [1]], dtype=torch.int32)})
    assert error.value.__tvm_ffi_error__.kind == RangeError.__name__


def places_of(rng: np.random.Generator, tokens: int, slots: int) -> np.ndarray:
    """Distinct places in a buffer, in any order, some slots without."""
    places = rng.permutation(tokens * slots).reshape(tokens, slots)
    return np.where(rng.random((tokens, slots)) < 0.7, places, -1)


@pytest.mark.parametrize(("slots", "width", "dtype"), [(2, 32, "f32"), (3, 45, "bf16"), (1, 1, "f32")])
def test_collect_adds_up_in_the_order_of_slots(slots, width, dtype):
    text = collect_text(slots, width, dtype)
    made = Artifact(text)
    for variant in VARIANTS:
        for tokens in (0, 1, 5, 64):
            rng = np.random.default_rng(tokens)
            rows = (rng.normal(size=(tokens, slots, width)) * 10.0 ** rng.integers(-3, 3)).astype(np.float32)
            places = places_of(rng, tokens, slots)
            more = rng.normal(size=(tokens, width)).astype(np.float32)
            unread = np.setdiff1d(np.arange(tokens * slots), places[places >= 0])
            rows.reshape(-1, width)[unread] = np.nan  # what nobody reads must not spread
            given = {
                "rows": torch.tensor(rows),
                "places": torch.tensor(places, dtype=torch.int32),
                "more": torch.tensor(more),
            }
            out = made.run(given, variant=variant, threads=3)["y"]
            want = np.zeros((tokens, width), np.float32)
            for slot in range(slots):
                here = places[:, slot] >= 0
                want[here] += rows.reshape(-1, width)[places[here, slot]]
            want = torch.tensor(want + more).to(DTYPES[dtype])
            assert torch.equal(out, want)
            near = np.asarray(oracle_of(text, given)["y"])
            assert np.allclose(exact(out), near, rtol=2e-2 if dtype == "bf16" else 1e-5, atol=1e-3 if tokens else 0)


def test_the_place_of_a_row_that_is_not_there_is_an_error():
    made = Artifact(collect_text(2, 8, "f32"))
    places = torch.tensor([[0, 1], [2, 4]], dtype=torch.int32)
    with pytest.raises(RuntimeError, match="place of a row") as error:
        made.run({"rows": torch.zeros(2, 2, 8), "places": places, "more": torch.zeros(2, 8)})
    assert error.value.__tvm_ffi_error__.kind == RangeError.__name__


def experts_text(d: int, ff: int, count: int, dtype: str) -> str:
    """The layer of `modules.experts` with a slot a row, whose rows are taken from others."""
    text = modules.experts(d, ff, count, 1, dtype)
    x, s = f"tensor<?x{d}x{dtype}>", "tensor<?x1xi32>"
    text = text.replace("%i: ", f'%s0: {s} {{moe.name = "source", moe.role = "input"}}, %i: ', 1)
    text = text.replace(
        '%o, %s = "moe.plan"', f'%t = "moe.take_rows"(%x, %s0) : ({x}, {s}) -> {x}\n    %o, %s = "moe.plan"'
    )
    return text.replace('"moe.grouped_matmul"(%x,', '"moe.grouped_matmul"(%t,')


@pytest.mark.parametrize(("d", "ff", "dtype"), [(32, 16, "bf16"), (27, 21, "f32"), (33, 8, "bf16")])
def test_experts_on_taken_rows_give_the_bits_of_experts_on_copies(d, ff, dtype):
    count, tokens = 5, 40
    taking, plain = Artifact(experts_text(d, ff, count, dtype)), Artifact(modules.experts(d, ff, count, 1, dtype))
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(tokens, d))).to(DTYPES[dtype])
    source = torch.tensor(rng.integers(0, tokens // 3, (tokens, 1)), dtype=torch.int32)
    index = torch.tensor(rng.integers(-1, count, (tokens, 1)), dtype=torch.int32)
    source[index < 0] = -1
    weight = torch.tensor(rng.normal(size=(tokens, 1)), dtype=torch.float32)
    shapes = {"gate": (count, ff, d), "up": (count, ff, d), "down": (count, d, ff)}
    parameters = {n: torch.tensor(rng.normal(size=s)).to(DTYPES[dtype]) for n, s in shapes.items()}
    given = {"x": x, "source": source, "index": index, "weight": weight}
    want = oracle_of(experts_text(d, ff, count, dtype), {**given, **parameters})["y"]
    copies = torch.where(source >= 0, x[source[:, 0].clamp(min=0).long()], torch.zeros((), dtype=x.dtype))
    for variant in VARIANTS:
        for threads in (1, 3):
            mine = taking.run(given, parameters, variant=variant, threads=threads)
            theirs = plain.run({"x": copies, "index": index, "weight": weight}, parameters, variant=variant)
            assert torch.equal(mine["y"], theirs["y"])
            assert np.abs(exact(mine["y"]) - want).max() < (2e-2 if dtype == "bf16" else 1e-5) * np.abs(want).max()
            assert (exact(mine["y"])[exact(index)[:, 0] < 0] == 0).all()
