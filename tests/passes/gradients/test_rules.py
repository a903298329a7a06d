"""Every rule for gradients agrees with finite differences, at random points and where a formula is delicate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_mlir import ir

from moec import oracle
from moec.dialect import context
from moec.passes.gradients import row_rules, scalar_rules
from moec.passes.gradients.reverse import reverse
from moec.pipeline.ir_text import parse

N = 4
F32 = "tensor<4xf32>"


def program(lines: Sequence[str], operands: int, result: str, shape: str = F32) -> str:
    """A module with two maps of rows: the program's value, and where its gradients will be put."""
    arguments = ", ".join(
        f'%{name}: tensor<?x4xf32> {{moe.name = "{name}", moe.role = "input"}}' for name in "abc"[:operands]
    )
    rows = "\n".join(
        f'      %{name} = "moe.row"(%{name}) : (tensor<?x4xf32>) -> {F32}'.replace(f"%{name} =", f"%{name}r =")
        for name in "abc"[:operands]
    )
    body = "\n".join(f"      {line}" for line in lines)
    out = shape.replace("tensor<", "tensor<?x")
    return f"""func.func @f({arguments}) -> ({out} {{moe.name = "y"}}) {{
    %y = "moe.map"(%a) ({{
{rows}
{body}
      "moe.yield"(%{result}) : ({shape}) -> ()
    }}) : (tensor<?x4xf32>) -> {out}
    return %y : {out}
}}"""


def gradients(text: str, operands: int) -> list[ir.Module]:
    """For each operand, the module that computes the gradient of the sum of the program's values."""
    found = []
    for number in range(operands):
        module = parse(text, "program", context())
        (function,) = module.body.operations
        block = function.regions[0].blocks[0]
        made = next(iter(block.operations))
        body = made.regions[0].blocks[0]
        ops = [op.operation for op in body.operations]
        end = ops.pop()
        rows = [op.results[0] for op in ops if op.name == "moe.row"]
        value = end.operands[0]
        with module.context, ir.Location.unknown(), ir.InsertionPoint(end):
            one = ir.FloatAttr.get(ir.F32Type.get(), 1.0)
            splat = ir.DenseElementsAttr.get_splat(value.type, one)
            seed = ir.Operation.create("arith.constant", [value.type], [], {"value": splat}).result
            (d,) = reverse(ops, {value: seed}, [rows[number]])
            assert d is not None
            end.operands[0] = d
            made.results[0].set_type(
                ir.RankedTensorType.get([ir.ShapedType.get_dynamic_size(), N], d.type.element_type)
            )
            type_ = ir.FunctionType.get([a.type for a in block.arguments], [made.results[0].type])
            function.operation.attributes["function_type"] = ir.TypeAttr.get(type_)
        module.operation.verify()
        found.append(module)
    return found


def check(text: str, points: Sequence[np.ndarray], *, step: float = 1e-6) -> None:
    """The gradients of the program at `points`, [T, 4] each, are its central differences."""
    names = "abc"[: len(points)]
    module = parse(text, "program", context())

    def value(at: Sequence[np.ndarray]) -> np.ndarray:
        total: np.ndarray = oracle.run(module, dict(zip(names, at, strict=True)))["y"]
        return total.reshape(len(total), -1).sum(-1)

    for number, gradient in enumerate(gradients(text, len(points))):
        got = oracle.run(gradient, dict(zip(names, points, strict=True)))["y"]
        for column in range(N):
            moved = [[p.copy() for p in points] for _ in range(2)]
            moved[0][number][:, column] += step
            moved[1][number][:, column] -= step
            want = (value(moved[0]) - value(moved[1])) / (2 * step)
            np.testing.assert_allclose(got[:, column], want, rtol=1e-4, atol=1e-4)


UNARY = {
    "arith.negf": (-3, 3), "math.absf": (0.1, 3), "math.exp": (-3, 3), "math.log": (0.1, 3), "math.log1p": (-0.8, 3),
    "math.sqrt": (0.1, 3), "math.rsqrt": (0.2, 3), "math.tanh": (-3, 3), "math.erf": (-3, 3), "math.sin": (-3, 3),
    "math.cos": (-3, 3),
}  # fmt: skip
BINARY = {
    "arith.addf": (-3, 3), "arith.subf": (-3, 3), "arith.mulf": (-3, 3), "arith.divf": (0.2, 3),
    "arith.maximumf": (-3, 3), "arith.minimumf": (-3, 3), "math.powf": (0.2, 2),
}  # fmt: skip
FLAT = {"math.floor", "math.ceil"}
OF_MASKS_AND_CASTS = {"arith.select", "arith.extf", "arith.truncf"}


def test_every_scalar_rule_is_tested() -> None:
    assert set(scalar_rules.RULES) == {*UNARY, *BINARY, *FLAT, *OF_MASKS_AND_CASTS}


def rows(low: float, high: float) -> st.SearchStrategy[np.ndarray]:
    number = st.floats(low, high, allow_nan=False).map(lambda v: round(v, 2))
    return st.lists(number, min_size=2 * N, max_size=2 * N).map(lambda v: np.array(v).reshape(2, N))


@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str) -> None:
    text = program([f"%y = {name} %ar : {F32}"], 1, "y")

    @settings(max_examples=10, deadline=None)
    @given(rows(*UNARY[name]))
    def holds(a: np.ndarray) -> None:
        check(text, [a])

    holds()


@pytest.mark.parametrize("name", BINARY)
def test_binary(name: str) -> None:
    text = program([f"%y = {name} %ar, %br : {F32}"], 2, "y")

    @settings(max_examples=10, deadline=None)
    @given(rows(*BINARY[name]), rows(*BINARY[name]))
    def holds(a: np.ndarray, b: np.ndarray) -> None:
        check(text, [a, np.where(a == b, b + 0.5, b) if "imumf" in name else b])

    holds()


SIGMOID = [
    "%one = arith.constant dense<1.0> : tensor<4xf32>",
    f"%n = arith.negf %ar : {F32}",
    f"%e = math.exp %n : {F32}",
    f"%s = arith.addf %e, %one : {F32}",
]
EXPANDED = "%q = tensor.expand_shape %ar [[0, 1]] output_shape [2, 2] : tensor<4xf32> into tensor<2x2xf32>"
SUM = "ins(%{0} : tensor<{1}xf32>) outs(%zero : tensor<f32>) dimensions = [0]"
PROGRAMS: dict[str, tuple[list[str], int, str, str]] = {
    "select": ([f"%m = arith.cmpf ogt, %ar, %br : {F32}", f"%q = arith.mulf %ar, %ar : {F32}",
                f"%y = arith.select %m, %q, %br : tensor<4xi1>, {F32}"], 2, "y", F32),
    "sigmoid": ([*SIGMOID, f"%y = arith.divf %one, %s : {F32}"], 1, "y", F32),
    "silu": ([*SIGMOID, f"%y = arith.divf %ar, %s : {F32}"], 1, "y", F32),
    "mean": (["%zero = arith.constant dense<0.0> : tensor<f32>", f"%q = arith.mulf %ar, %ar : {F32}",
              "%y = linalg.reduce { arith.addf } " + SUM.format("q", 4)], 1, "y", "tensor<f32>"),
    "largest": (["%zero = arith.constant dense<0xFF800000> : tensor<f32>",
                 "%y = linalg.reduce { arith.maximumf } " + SUM.format("ar", 4)], 1, "y", "tensor<f32>"),
    "stretched": (["%zero = arith.constant dense<0.0> : tensor<f32>",
                   "%q = linalg.reduce { arith.addf } " + SUM.format("ar", 4), f"%i = tensor.empty() : {F32}",
                   f"%w = linalg.broadcast ins(%q : tensor<f32>) outs(%i : {F32}) dimensions = [0]",
                   f"%y = arith.mulf %w, %br : {F32}"], 2, "y", F32),
    "reshaped": (["%q = tensor.expand_shape %ar [[0, 1]] output_shape [2, 2] : tensor<4xf32> into tensor<2x2xf32>",
                  "%s = arith.mulf %q, %q : tensor<2x2xf32>",
                  "%y = tensor.collapse_shape %s [[0, 1]] : tensor<2x2xf32> into tensor<4xf32>"], 1, "y", F32),
    "joined": (["%q = tensor.concat dim(0) %ar, %br : (tensor<4xf32>, tensor<4xf32>) -> tensor<8xf32>",
                "%y = arith.mulf %q, %q : tensor<8xf32>"], 2, "y", "tensor<8xf32>"),
    "cut": (["%q = tensor.extract_slice %ar[1] [2] [1] : tensor<4xf32> to tensor<2xf32>",
             "%y = arith.mulf %q, %q : tensor<2xf32>"], 1, "y", "tensor<2xf32>"),
    "one of": (["%q = tensor.expand_shape %ar [[0, 1]] output_shape [2, 2] : tensor<4xf32> into tensor<2x2xf32>",
                "%p = tensor.extract_slice %q[1, 0] [1, 2] [1, 1] : tensor<2x2xf32> to tensor<2xf32>",
                "%y = arith.mulf %p, %p : tensor<2xf32>"], 1, "y", "tensor<2xf32>"),
    "computed place": (["%t = arith.constant dense<1> : tensor<i32>", "%z = tensor.extract %t[] : tensor<i32>",
                        "%i = arith.index_cast %z : i32 to index",
                        EXPANDED,
                        "%p = tensor.extract_slice %q[%i, 0] [1, 2] [1, 1] : tensor<2x2xf32> to tensor<2xf32>",
                        "%y = arith.mulf %p, %p : tensor<2xf32>"], 1, "y", "tensor<2xf32>"),
    "taken": (["%i = arith.constant dense<[2, -1, 2]> : tensor<3xi32>",
               '%q = "moe.take"(%ar, %i) : (tensor<4xf32>, tensor<3xi32>) -> tensor<3xf32>',
               "%y = arith.mulf %q, %q : tensor<3xf32>"], 1, "y", "tensor<3xf32>"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str) -> None:
    lines, operands, result, shape = PROGRAMS[name]
    text = program(lines, operands, result, shape)
    rng = np.random.default_rng(0)
    check(text, [rng.standard_normal((5, N)) for _ in range(operands)])


def test_every_row_rule_is_tested() -> None:
    text = " ".join(line for lines, *_ in PROGRAMS.values() for line in lines)
    assert all(name in text for name in row_rules.RULES)


def slope(lines: Sequence[str], at: Sequence[Sequence[float]]) -> list[list[float]]:
    """The gradients at one point, one list an operand."""
    points = [np.array([[*row, *[0.0] * (N - len(row))]]) for row in at]
    modules = gradients(program(lines, len(at), "y"), len(at))
    names = "abc"[: len(at)]
    results = [oracle.run(m, dict(zip(names, points, strict=True)))["y"][0] for m in modules]
    return [list(d[: len(row)]) for d, row in zip(results, at, strict=True)]


ZERO, LOW, HIGH = (f"%k{i} = arith.constant dense<{v}> : {F32}" for i, v in enumerate(("0.0", "-1.0", "1.0")))


CONVENTIONS: dict[str, tuple[list[str], list[list[float]], Callable[..., torch.Tensor]]] = {
    "relu": ([ZERO, f"%y = arith.maximumf %ar, %k0 : {F32}"], [[0.0, 1.0, -1.0]], torch.relu),
    "clamp": ([LOW, HIGH, f"%l = arith.maximumf %ar, %k1 : {F32}", f"%y = arith.minimumf %l, %k2 : {F32}"],
              [[-1.0, 1.0, 2.0, 0.5]], lambda a: a.clamp(-1, 1)),
    "clamp from 0": ([ZERO, HIGH, f"%l = arith.maximumf %ar, %k0 : {F32}", f"%y = arith.minimumf %l, %k2 : {F32}"],
                     [[0.0, 1.0, 2.0, -0.5]], lambda a: a.clamp(0, 1)),
    "bounded": ([HIGH, f"%y = arith.minimumf %ar, %k2 : {F32}"], [[1.0, 2.0, 0.5]], lambda a: a.clamp(max=1)),
    "max": ([f"%y = arith.maximumf %ar, %br : {F32}"], [[1.0, 2.0], [1.0, 3.0]], torch.maximum),
    "min": ([f"%y = arith.minimumf %ar, %br : {F32}"], [[1.0, 2.0], [1.0, 3.0]], torch.minimum),
    "abs": ([f"%y = math.absf %ar : {F32}"], [[0.0, 1.0, -2.0]], torch.abs),
    "silu": ([*SIGMOID, f"%y = arith.divf %ar, %s : {F32}"], [[-800.0, 800.0, 0.0]], torch.nn.functional.silu),
    "sigmoid": ([*SIGMOID, f"%y = arith.divf %one, %s : {F32}"], [[-800.0, 800.0, 0.0]], torch.sigmoid),
    "softplus": ([ZERO, f"%m = math.absf %ar : {F32}", f"%n = arith.negf %m : {F32}", f"%e = math.exp %n : {F32}",
                  f"%t = math.log1p %e : {F32}", f"%p = arith.maximumf %ar, %k0 : {F32}",
                  f"%y = arith.addf %p, %t : {F32}"], [[0.0, 3.0, -3.0]], torch.nn.functional.softplus),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVENTIONS)
def test_where_there_is_no_derivative_it_is_as_in_torch(name: str) -> None:
    lines, at, reference = CONVENTIONS[name]
    leaves = [torch.tensor(row, dtype=torch.float64, requires_grad=True) for row in at]
    reference(*leaves).sum().backward()
    for got, leaf in zip(slope(lines, at), leaves, strict=True):
        assert leaf.grad is not None
        np.testing.assert_allclose(got, leaf.grad.numpy(), atol=1e-12)
