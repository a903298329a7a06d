"""What `bench/gpu.py` holds kernels to, against the float64 oracle: with every router, every order of a capacity, and
in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_mlir import ir

from bench.cuda.steps.call import Call
from bench.cuda.steps.integers import TYPED
from bench.cuda.steps.operations import RULES
from bench.cuda.steps.record import Function, Operation, Value, parsed
from bench.cuda.steps.scalars import SIMPLE, apply
from moec import frontend, oracle, passes
from moec.backends.cuda import expressions
from moec.backends.cuda.arch import ARCHITECTURES
from moec.backends.cuda.bundle import bundles
from moec.backends.cuda.emitters import EMITTERS
from moec.backends.cuda.record import record
from moec.diagnostics import Source
from moec.dialect import context
from tests.backends.cuda.calls import DTYPES
from tests.oracle.test_standard_library import ROUTERS

TOKENS = 23
CASES = {case.call: case for case in ROUTERS}
BY_PLACES = {"moe.grouped_matmul_combine", "moe.row_values", "moe.slot_values", "moe.sum_rows"}
"""Operations whose kernels read where slots are: what they should give is made of that."""
BY_BUFFERS = {"moe.quantize_rows"}
"""Operations whose result is never one tensor, only buffers, each of which has a reference."""

TRUE = {"arith.cmpf": {4, 5, 6, 7, 11, 12, 13, 15}, "arith.cmpi": {1, 2, 3, 6, 7}}
"""The predicates that hold for 1 and 2."""

Named = dict[str, torch.Tensor]


class Interpreted(Call):
    """A call whose values are all made by their references."""

    def __init__(self, function: Function, given: Named) -> None:
        self.by_name = {value.name: number for number, value in enumerate(function.values) if value.name}
        known = {self.by_name[name]: tensor for name, tensor in given.items()}
        super().__init__(function, "sm_90a", TOKENS, known, torch.empty(0, dtype=torch.uint8))
        self._written = set()

    def _found(self, value: int) -> torch.Tensor:
        maker = self.function.makers[value]
        if maker.name == "moe.grouped_matmul_combine":
            return self._combined(maker)
        return self._rows(maker, value) if maker.name in RULES else super()._found(value)

    def _rows(self, maker: Operation, number: int) -> torch.Tensor:
        if maker.name == "moe.route":
            return self.reference.program(maker, torch.arange(TOKENS), chosen=False)[maker.results.index(number)]
        shape = self.function.values[number].shape or ()
        rows = self.read(maker.operands[1])[-1] if maker.name == "moe.grouped_matmul" else TOKENS
        return self.reference.rows(maker, number, torch.arange(int(rows) if shape and shape[0] < 0 else shape[0]))

    def _combined(self, maker: Operation) -> torch.Tensor:
        offsets, slots = (self.read(group[0]) for group in maker.segments()[-3:-1])
        rows = torch.arange(int(offsets[-1]))
        (terms,) = self.reference.products(maker, rows)
        tokens = slots[rows] // maker.attributes["slots_per_token"]
        sums = torch.zeros(TOKENS, terms.shape[1], dtype=torch.float64).index_add(0, tokens, terms)
        return self.reference.finished(maker, sums, torch.arange(TOKENS))


def described(router: str, tokens: str) -> tuple[str, Function]:
    """A layer's module at kernel level, and what its artifact would say of its kernels."""
    text = f"""edition 1
layer L(d = 16, ff = 24, dtype = f32) {{
  router {router} : f32
  experts routed[8] = swiglu(d, ff) : f32
  tokens {tokens}
}}
"""
    module = frontend.lower(frontend.load_layer_text(Source("layer.moe", text)), context())
    passes.run(module, passes.parse_pipeline(passes.DEFAULT_PIPELINE))
    text = str(module)
    with module.context, ir.Location.unknown():
        return text, parsed(record(bundles(module, [ARCHITECTURES["sm_90a"]])))["run"]


def given(function: Function, highest: dict[str, int]) -> Named:
    made, random = {}, torch.Generator().manual_seed(1)
    for number in (*function.given, *function.parameters):
        value = function.values[number]
        if value.name in (None, "y", "chosen", "kept"):
            continue
        shape = [TOKENS if size < 0 else size for size in value.shape or ()]
        if value.dtype == "i32":
            made[value.name] = torch.randint(highest[value.name], shape, generator=random, dtype=torch.int32)
        else:
            scale = 1.0 if value.name == "x" else shape[-1] ** -0.5
            made[value.name] = (scale * torch.randn(shape, generator=random)).to(DTYPES[value.dtype])
    return made


def agree(router: str, tokens: str) -> None:
    text, function = described(router, tokens)
    tensors = given(function, CASES[router].highest)
    found = Interpreted(function, tensors)
    arguments = {n: t.double().numpy() if t.is_floating_point() else t.long().numpy() for n, t in tensors.items()}
    want = oracle.run(ir.Module.parse(text, context()), arguments)
    for name in ("chosen", "kept"):
        if name in found.by_name:
            assert np.array_equal(found.read(found.by_name[name]).numpy(), want[name])
    y = found.read(found.by_name["y"]).numpy()
    np.testing.assert_allclose(y, want["y"], rtol=1e-6, atol=1e-9 + 1e-6 * np.abs(want["y"]).max())


@pytest.mark.parametrize("router", CASES)
def test_routers(router: str) -> None:
    agree(router, "dropless")


@pytest.mark.parametrize("order", ["token", "choice", "score"])
def test_capacities(order: str) -> None:
    agree("softmax_top(3)", f"capacity(0.9, order = {order})")


def test_every_operation_has_a_reference() -> None:
    assert set(EMITTERS) - set(RULES) == BY_PLACES | BY_BUFFERS


def test_every_operation_on_elements_has_a_reference() -> None:
    assert expressions.OPERATIONS - set(SIMPLE) - set(TYPED) == {"arith.cmpf", "arith.cmpi"}
    for name, count in (("arith.cmpf", 16), ("arith.cmpi", 10)):
        for predicate in range(count):
            assert elementwise(name, ("f32", "i1"), 1.0, 2.0, predicate=predicate) == (predicate in TRUE[name])


@pytest.mark.parametrize(
    ("name", "types", "operands", "result"),
    [
        ("arith.trunci", ("i32", "i8"), (300,), 44),
        ("arith.trunci", ("i32", "i8"), (200,), -56),
        ("arith.trunci", ("i64", "i32"), (2**31,), -(2**31)),
        ("arith.trunci", ("i32", "i1"), (-2,), 0),
        ("arith.index_cast", ("index", "i32"), (2**32 + 5,), 5),
        ("arith.index_castui", ("i32", "index"), (-1,), 2**32 - 1),
        ("arith.extui", ("i8", "i32"), (-1,), 255),
        ("arith.extsi", ("i8", "i32"), (-1,), -1),
        ("arith.uitofp", ("i32", "f32"), (-(2**31),), 2.0**31),
        ("arith.uitofp", ("i64", "f32"), (-(2**63),), 2.0**63),
        ("arith.divui", ("i32", "i32"), (-2, 2), 2**31 - 1),
        ("arith.divui", ("i32", "i32"), (-1, 1), -1),
        ("arith.remui", ("i32", "i32"), (-1, 10), 5),
        ("arith.addi", ("i32", "i32"), (2**31 - 1, 1), -(2**31)),
        ("arith.muli", ("i8", "i8"), (16, 17), 16),
        ("arith.subi", ("i32", "i32"), (-(2**31), 1), 2**31 - 1),
    ],
)
def test_integers_are_as_wide_as_they_are(
    name: str, types: tuple[str, str], operands: tuple[int, ...], result: float
) -> None:
    assert elementwise(name, types, *operands) == result


def elementwise(name: str, types: tuple[str, str], *operands: float, predicate: int = 0) -> float:
    source, target = (Value(one, None, 0, None) for one in types)
    count = len(operands)
    op = Operation(name, tuple(range(count)), (count,), {"predicate": predicate}, ())
    found = apply(op, [torch.tensor(one) for one in operands], [*[source] * count, target])
    return found.item()
