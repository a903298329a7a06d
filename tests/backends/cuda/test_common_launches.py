"""Experts that every token chooses, of any size and format, in the launches of routed ones: on the simulator, against
the float64 oracle of the layer as it was written."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_mlir import ir

from moec import oracle
from moec.backends.cuda.arch import ARCHITECTURES, Arch
from moec.backends.cuda.fewer_launches import with_fewer_launches
from moec.backends.cuda.kernel import Kernel, Scope
from moec.backends.cuda.matmul import tiles, warps
from moec.backends.cuda.matmul.problem import problem
from moec.runtime.cuda.packed import packed_codes, packed_scales
from moec.runtime.quantize import quantize
from tests.backends.cuda.calls import DTYPES, Function, exact, orders
from tests.backends.cuda.products import SWIGLU, Emitted, Product, error, inputs
from tests.backends.cuda.simulator import Fault, SimulatorError
from tests.backends.cuda.test_products import swiglu
from tests.backends.cuda.test_sharing import compilation

ROUTED = "  experts routed[5] = swiglu(d, ff) : bf16\n"
LAYERS = {
    "smaller": ROUTED + "  shared common = swiglu(d, 24) : bf16\n",
    "larger": ROUTED + "  shared common = sigmoid(linear(x, 1)) * mlp_gelu(d, 136, bias = true) : bf16\n",
    "two": "  shared first = mlp_gelu(d, 8) : bf16\n" + ROUTED + "  shared common = swiglu(d, 104) : bf16\n",
    "codes": ROUTED + "  shared common = swiglu(d, 48) : int8(per = channel, prequantized = true)\n",
    "beside codes": "  experts routed[5] = swiglu(d, ff) : int4(group = 32, prequantized = true)\n"
    "  shared common = swiglu(d, 56) : bf16\n",
    "several": ROUTED + "  shared common[3] = mlp_gelu(d, 48, bias = true) : bf16\n",
    "several of codes": "  experts routed[5] = swiglu(d, ff) : int4(group = 32, prequantized = true)\n"
    "  shared common[2] = swiglu(d, ff) : int8(per = channel, prequantized = true)\n",
    "f32": "  experts routed[5] = swiglu(d, ff) : f32\n  shared common = swiglu(d, 19) : f32\n",
}
LAYERS_OF_CODES = {"common": "int8", "routed": "int4"}
"""Formats of codes that layers are given."""
QUICK = [("two", "sm_90a"), ("several", "sm_90a"), ("several of codes", "sm_80")]
SLOW = [(name, arch) for name in LAYERS for arch in ("sm_80", "sm_90a") if (name, arch) not in QUICK]
D, FF, PER_TOKEN = 96, 64, 2


class Layer:
    """A layer of a file: as it was written, and as it runs on the simulator."""

    def __init__(self, name: str, folder: Path, arch: str = "sm_80", fault: Fault | None = None) -> None:
        module = compilation(folder, LAYERS[name], D, FF, PER_TOKEN).kernels
        self.written, self.context = module, module.context
        with module.context, ir.Location.unknown():
            self.function = Function(str(with_fewer_launches(module)), arch, fault=fault)
        self.tolerance = 1e-5 if name == "f32" else 2e-2

    def launches(self, tokens: int) -> list[str]:
        """The names of the kernels of a call."""
        found = self.function.kernels
        return [one.name for one in found if one.tokens[0] <= tokens < (one.tokens[1] or tokens + 1)]

    def regimes(self) -> list[int]:
        """A number of tokens for each kernel of the products of experts."""
        firsts = {one.tokens[0] for one in self.function.kernels if re.search("product_[a-z]*[0-9]+_", one.name)}
        return sorted(first + 3 for first in firsts)

    def given(self, tokens: int, seed: int, empty: bool) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Tensors by name: as the layer was written, and as a device has them.  With `empty`, all tokens have the same
        experts."""
        random = torch.Generator().manual_seed(seed)
        layer = self.function.layer
        types = {one.name: one.type for one in (*layer.inputs, *layer.parameters)}
        dims = {
            name: [tokens if type_.is_dynamic_dim(n) else type_.get_dim_size(n) for n in range(type_.rank)]
            for name, type_ in types.items()
        }
        written: dict[str, torch.Tensor] = {}
        device: dict[str, torch.Tensor] = {}
        for name, type_ in types.items():
            made = torch.randn(dims[name], generator=random)
            if name != "x":
                made *= dims[name][-1] ** -0.5
            scale = name.removesuffix("weight") + "scale"
            if scale in types and scale != name:
                groups, format = math.prod(dims[scale][2:]), LAYERS_OF_CODES[name.partition(".")[0]]
                dtype = DTYPES[str(types[scale].element_type)]
                group = None if groups == 1 else dims[name][2] // groups
                codes, scales = quantize(made, format, group=group, scale=dtype)
                written |= {name: codes, scale: scales.reshape(dims[scale])}
                device |= {name: codes if format == "int8" else packed_codes(codes, format)}
                device |= {scale: scales if group is None else packed_scales(scales).contiguous()}
            elif not name.endswith("scale"):
                written[name] = device[name] = made.to(DTYPES[str(type_.element_type)])
        if empty:
            written["x"][:, 0] = 1.0
            written["router.logits.weight"][1:3, 0] = 50.0
        return written, device

    def error(self, tokens: int, order: int = 0, empty: bool = False) -> float:
        """The largest relative error of a token's row."""
        written, device = self.given(tokens, tokens, empty)
        with self.context, ir.Location.unknown():
            want = oracle.run(self.written, {name: exact(value) for name, value in written.items()})["y"]
            found = exact(self.function(device, tokens, order)["y"])
        assert found.shape == want.shape
        errors = np.linalg.norm(found - want, axis=1) / np.linalg.norm(want, axis=1).clip(1e-9)
        return float(np.nan_to_num(errors, nan=np.inf).max(initial=0.0))


@pytest.mark.parametrize(("name", "arch"), [*QUICK, *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW)])
def test_shared_experts_of_any_size_and_format(name: str, arch: str, tmp_path: Path) -> None:
    layer = Layer(name, tmp_path, arch)
    assert len(layer.launches(1)) == 5
    for place, tokens in enumerate(sorted({0, 1, 16, 64, *layer.regimes()})):
        assert layer.error(tokens, orders()[place % 3], empty=place % 2 == 1) < layer.tolerance


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("return (plan.tokens + rows - 1) / rows * blocks;", "return plan.tokens / rows * blocks;"),
        pytest.param("return P::Blocks::index();", "return block_index();", marks=pytest.mark.slow),
    ],
)
def test_faults_are_found(right: str, wrong: str, tmp_path: Path) -> None:
    layer = Layer("two", tmp_path, fault=Fault("moec/matmul/work.cuh", right, wrong))
    with suppress(SimulatorError):
        assert layer.error(27) > 0.1


WIDE = Product(inner=2048, columns=2816, experts=None, products=2, body=SWIGLU)
TALL = {
    "floats": Product(inner=136, columns=72, experts=None, products=2, body=SWIGLU),
    "codes": Product(inner=80, columns=40, experts=None, products=2, format="int8", body=SWIGLU),
}


def tall(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    of = problem(op)
    return (warps.kernel(of, replace(tiles.few_rows(of), rows=64, stages=3), 2, scope, "tall", None, "f32", (0, None)),)


@pytest.mark.parametrize("name", TALL)
def test_tiles_of_more_rows_with_as_many_threads(name: str) -> None:
    emitted = Emitted(TALL[name], ARCHITECTURES["sm_80"], tall)
    assert emitted.kernels[0].threads == 128
    for tokens in (0, 1, 64, 150):
        given = inputs(TALL[name], tokens, seed=tokens)
        assert error(emitted.run(given, seed=tokens), swiglu(TALL[name], given)) < 1e-2, tokens


def test_products_of_all_tokens_have_taller_tiles_beside_others() -> None:
    emitted = Emitted(WIDE, ARCHITECTURES["sm_90a"], tall)
    with emitted.module.context, ir.Location.unknown():
        of = problem(emitted.op)
        chosen = tiles.few_rows_together(of, ARCHITECTURES["sm_90a"])
    assert chosen.rows > tiles.few_rows(of).rows
    assert chosen.threads == tiles.few_rows(of).threads
