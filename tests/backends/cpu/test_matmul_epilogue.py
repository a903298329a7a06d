"""What epilogues and finish regions may read, operand counts, and parameters that are stacked while packing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.backends.cpu.artifact import Artifact, exact
from tests.backends.cpu.native import runnable

VARIANTS = runnable()
EXPERTS, D, K = 4, 20, 2
PARAMETERS = ("column", "expert")


def _reading_everything(operands: int, n: int) -> str:
    """The sum of the accumulators, weighted with primes, times or plus one element of every kind, combined.

    n: how many columns there are
    """
    kinds = {"row": f"?x{n}", "scalar": "?x1", "token": f"?x{n}", "token_scalar": "?x1", "slot": f"?x{K}"}
    kinds |= {"column": f"{EXPERTS}x{n}", "expert": f"{EXPERTS}x1"}
    shapes = {kind: f"tensor<{dims}xf32>" for kind, dims in kinds.items()}
    one = f"tensor<1x{n}x{D}xf32>"
    rest = f"tensor<{EXPERTS - 1}x{n}x{D}xf32>"
    whole = f"tensor<{EXPERTS}x{n}x{D}xf32>"
    x, y, index = f"tensor<?x{D}xf32>", f"tensor<?x{n}xf32>", f"tensor<?x{K}xi32>"
    plan = f"tensor<{EXPERTS + 1}xi32>, tensor<?xi32>"
    given = [f'%x: {x} {{moe.name = "x", moe.role = "input"}}', f'%i: {index} {{moe.name = "i", moe.role = "input"}}']
    for kind, shape in shapes.items():
        if kind in ("row", "scalar"):
            continue
        role = "parameter" if kind in PARAMETERS else "input"
        given.append(f'%{kind}: {shape} {{moe.name = "{kind}", moe.role = "{role}"}}')
    stacked = []
    for i in range(operands):
        given.append(f'%first{i}: {one} {{moe.name = "f{i}", moe.role = "parameter"}}')
        given.append(f'%rest{i}: {rest} {{moe.name = "r{i}", moe.role = "parameter"}}')
        stacked.append(f"%w{i} = tensor.concat dim(0) %first{i}, %rest{i} : ({one}, {rest}) -> {whole}")
    weights, types = ", ".join(f"%w{i}" for i in range(operands)), ", ".join([whole] * operands)
    total = "%c0 = arith.constant 0.0 : f32\n%t0 = arith.addf %a0, %c0 : f32\n"
    for i in range(1, operands):
        total += f"%c{i} = arith.constant {i + 1}.0 : f32\n%m{i} = arith.mulf %a{i}, %c{i} : f32\n"
        total += f"%t{i} = arith.addf %t{i - 1}, %m{i} : f32\n"
    value, body = f"%t{operands - 1}", total
    for kind, op in {"row": "addf", "scalar": "addf", "token": "addf", "token_scalar": "mulf", "slot": "mulf",
                     "column": "addf", "expert": "mulf"}.items():  # fmt: skip
        body += f'%e_{kind} = "moe.element"(%{kind}) {{kind = "{kind}"}} : ({shapes[kind]}) -> f32\n'
        body += f"%v_{kind} = arith.{op} {value}, %e_{kind} : f32\n"
        value = f"%v_{kind}"
    arguments = ", ".join(f"%a{n}: f32" for n in range(operands))
    segments = f"operandSegmentSizes = array<i32: 1, 1, 1, {operands}>"
    scale, scales = f"tensor<1x1x{D}xf32>", f"tensor<{EXPERTS}x1x{D}xf32>"
    plain = f"gather = true, slots_per_token = {K} : i64"
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L({", ".join(given)}) -> ({y} {{moe.name = "y"}}) {{
    {chr(10).join(stacked)}
    %o, %s = "moe.plan"(%i) {{experts = {EXPERTS} : i64, direct_max_tokens = 0 : i64}} : ({index}) -> ({plan})
    %row = "moe.grouped_matmul"(%x, %o, %s, %w0) ({{
      ^bb0(%a: f32):
       "moe.yield"(%a) : (f32) -> ()
    }}) {{operandSegmentSizes = array<i32: 1, 1, 1, 1>, {plain}}} : ({x}, {plan}, {whole}) -> {y}
    %one = tensor.expand_shape %scale [[0, 1], [2]] output_shape [1, 1, {D}] : tensor<1x{D}xf32> into {scale}
    %every = tensor.concat dim(0) %one, %one, %one, %one
      : ({scale}, {scale}, {scale}, {scale}) -> {scales}
    %scalar = "moe.grouped_matmul"(%x, %o, %s, %every) ({{
      ^bb0(%a: f32):
       "moe.yield"(%a) : (f32) -> ()
    }}) {{operandSegmentSizes = array<i32: 1, 1, 1, 1>, {plain}}}
      : ({x}, {plan}, {scales}) -> tensor<?x1xf32>
    %y = "moe.grouped_matmul_combine"(%x, %x, %o, %s, {weights}) ({{
      ^bb0({arguments}):
       {body}
       "moe.yield"({value}) : (f32) -> ()
    }}, {{
      ^bb0(%f: f32):
       %ft = "moe.element"(%token) {{kind = "token"}} : ({shapes["token"]}) -> f32
       %f1 = arith.mulf %f, %ft : f32
       %fs = "moe.element"(%token_scalar) {{kind = "token_scalar"}} : ({shapes["token_scalar"]}) -> f32
       %f2 = arith.addf %f1, %fs : f32
       "moe.yield"(%f2) : (f32) -> ()
    }}) {{{segments.replace("1, 1, 1,", "1, 1, 1, 1,")}, {plain}}} : ({x}, {x}, {plan}, {types}) -> {y}
    return %y : {y}
  }}
}}
""".replace(f"%i: {index}", f'%scale: tensor<1x{D}xf32> {{moe.name = "scale", moe.role = "parameter"}}, %i: {index}', 1)


# 76 columns end within a panel of each instruction set, some of whose vectors lie behind them.
@pytest.mark.parametrize(("operands", "columns"), [(1, 76), (2, 21), (3, 21), (5, 21)])
def test_every_kind_of_element_with_any_number_of_operands(operands: int, columns: int) -> None:
    artifact = Artifact(_reading_everything(operands, columns), VARIANTS)
    random = torch.Generator().manual_seed(operands)
    draw = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
    tokens = 37
    index = torch.stack([torch.randperm(EXPERTS, generator=random)[:K] for _ in range(tokens)]).int()
    index[5] = -1
    inputs = {"x": draw(tokens, D), "i": index, "token": draw(tokens, columns), "token_scalar": draw(tokens, 1),
              "slot": draw(tokens, K)}  # fmt: skip
    parameters = {"column": draw(EXPERTS, columns), "expert": draw(EXPERTS, 1), "scale": draw(1, D)}
    for n in range(operands):
        parameters |= {f"f{n}": draw(1, columns, D), f"r{n}": draw(EXPERTS - 1, columns, D)}
    wanted = _expected(operands, inputs, parameters)
    for variant in range(len(VARIANTS)):
        found = artifact.run(inputs, parameters, variant=variant, threads=2)["y"]
        np.testing.assert_allclose(exact(found), wanted, rtol=1e-4, atol=1e-3, err_msg=VARIANTS[variant].name)


def _expected(operands: int, inputs: dict[str, torch.Tensor], parameters: dict[str, torch.Tensor]) -> np.ndarray:
    given = {name: exact(tensor) for name, tensor in {**inputs, **parameters}.items()}
    weights = [np.concatenate([given[f"f{n}"], given[f"r{n}"]]) for n in range(operands)]
    total = np.zeros_like(given["token"])
    for token, slot in zip(*np.nonzero(given["i"] >= 0), strict=True):
        e, x = given["i"][token, slot], given["x"][token]
        value = sum((n + 1) * (w[e] @ x) for n, w in enumerate(weights))
        value = value + weights[0][e] @ x + given["scale"][0] @ x + given["token"][token]
        value = value * given["token_scalar"][token] * given["slot"][token, slot]
        total[token] += (value + given["column"][e]) * given["expert"][e]
    return total * given["token"] + given["token_scalar"]
