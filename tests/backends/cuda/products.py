"""Single matmuls: a module that is one operation, its kernels on the simulator, and what float64 says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch_mlir import ir

from moec.backends.cuda import kernel as k
from moec.backends.cuda import rowcodes
from moec.backends.cuda.arch import Arch
from moec.dialect import context
from moec.formats import FORMATS
from moec.oracle import quantised, routing
from moec.runtime.cuda.packed import packed_codes, packed_scales
from moec.runtime.quantize import quantize
from tests.backends.cuda.simulator import Fault, Simulated, TensorMap

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
MULTIPROCESSORS = 3

SILU = """%one = arith.constant 1.0 : f32
      %n = arith.negf %a0 : f32
      %x0 = math.exp %n : f32
      %x1 = arith.addf %x0, %one : f32
      %x2 = arith.divf %a0, %x1 : f32"""

SWIGLU = SILU + "\n      %v = arith.mulf %x2, %a1 : f32"


@dataclass(frozen=True)
class Product:
    """One `moe.grouped_matmul`, or `moe.matmul` where experts is None, with the epilogue `body`.

    The body gets %a0, %a1, ... and gives %v; %w is an input tensor<?xKxf32> in slot order, %b one of biases
    tensor<ExNxf32>.  With `rounded` rows become int8 before they are multiplied.
    """

    inner: int
    columns: int
    experts: int | None
    per_token: int = 1
    gather: bool = True
    products: int = 1
    type: str = "bf16"
    lhs_type: str | None = None
    out: str | None = None
    transposed: bool = False
    format: str | None = None
    scale: str = "f32"
    group: int | None = None
    rounded: bool = False
    body: str = "%v = arith.addf %a0, %zero : f32"

    @property
    def text(self) -> str:
        lhs, out = self.lhs_type or self.type, self.out or self.type
        x, y = f"tensor<?x{self.inner}x{lhs}>", f"tensor<?x{self.columns}x{out}>"
        experts = self.experts or 1
        sides = f"{self.inner}x{self.columns}" if self.transposed else f"{self.columns}x{self.inner}"
        weight, bias = f"tensor<{experts}x{sides}x{self.type}>", f"tensor<{experts}x{self.columns}xf32>"
        slot = f"tensor<?x{self.per_token}xf32>"
        names = [f"%m{n}" for n in range(self.products)]
        weights, stored = "".join(f", {name}: {weight}" for name in names), ""
        if self.format is not None:
            groups = self.inner // self.group if self.group else 1
            codes, scales = (
                f"tensor<{experts}x{sides}x{FORMATS[self.format].element}>",
                f"tensor<{experts}x{self.columns}x{groups}x{self.scale}>",
            )
            floats = f"tensor<{experts}x{sides}xf32>"
            weights = "".join(f", %c{n}: {codes}, %s{n}: {scales}" for n in range(self.products))
            stored = "".join(
                f"""%m{n} = "moe.dequantize"(%c{n}, %s{n}) {{format = "{self.format}"}}
      : ({codes}, {scales}) -> {floats}\n    """
                for n in range(self.products)
            )
            weight = floats
        sums = ", ".join(f"%a{n}: f32" for n in range(self.products))
        rounded = "" if out == "f32" else f"%q = arith.truncf %v : f32 to {out}"
        region = f"""({{
    ^bb0({sums}):
      {self.body}
      {rounded}
      "moe.yield"({"%v" if out == "f32" else "%q"}) : ({out}) -> ()
    }})"""
        transposed = ", transposed" if self.transposed else ""
        lhs, rows = "%x", x
        if self.rounded:
            lhs, rows = "%r", f"tensor<?x{self.inner}xf32>"
            stored += f'%r = "moe.quantize_rows"(%x) : ({x}) -> {rows}\n    '
        types = ", ".join([weight] * self.products)
        if self.experts is None:
            op = f""""moe.matmul"({lhs}, {", ".join(names)}) {region}
      {{operandSegmentSizes = array<i32: 1, {self.products}>{transposed}}} : ({rows}, {types}) -> {y}"""
        else:
            op = f""""moe.grouped_matmul"({lhs}, %o, %s, {", ".join(names)}) {region}
      {{operandSegmentSizes = array<i32: 1, 1, 1, {self.products}>, gather = {str(self.gather).lower()},
       slots_per_token = {self.per_token} : i64{transposed}}}
      : ({rows}, tensor<{experts + 1}xi32>, tensor<?xi32>, {types}) -> {y}"""
        return f"""
module {{
  func.func @L(%x: {x}, %o: tensor<{experts + 1}xi32>, %s: tensor<?xi32>, %w: {slot}, %b: {bias}{weights}) -> {y} {{
    %zero = arith.constant 0.0 : f32
    {stored}%y = {op}
    return %y : {y}
  }}
}}
"""


Emit = Callable[[ir.Operation, k.Scope, Arch], tuple[k.Kernel, ...]]


class Emitted:
    """The kernels of a product."""

    def __init__(self, product: Product, arch: Arch, emit: Emit, fault: Fault | None = None) -> None:
        self.product, self.arch, self.fault = product, arch, fault
        with context(), ir.Location.unknown():
            self.module = ir.Module.parse(product.text)
            (function,) = self.module.body.operations
            body = [op.operation for op in function.regions[0].blocks[0].operations]
            (self.op,) = (op for op in body if "matmul" in op.name)
            self.values = list(function.regions[0].blocks[0].arguments)
            self.scope = k.Scope("t")
            self.kernels = emit(self.op, self.scope, arch)
            if product.rounded:
                (rounds,) = (op for op in body if op.name == "moe.quantize_rows")
                self.kernels = (*rowcodes.quantize_rows(rounds, self.scope, arch), *self.kernels)
        headers = dict.fromkeys(header for one in self.kernels for header in one.includes)
        self.source = "".join(f'#include "{header}"\n' for header in headers) + "\n".join(
            one.source for one in self.kernels
        )
        self._simulated: Simulated | None = None

    @property
    def simulated(self) -> Simulated:
        if self._simulated is None:
            self._simulated = Simulated(self.source, [one.name for one in self.kernels], self.fault)
        return self._simulated

    def run(self, inputs: dict[str, torch.Tensor], seed: int = 0) -> torch.Tensor:
        """The result, over poison; raises SimulatorError, and AssertionError where memory beside it was written."""
        product = self.product
        tokens = len(inputs["w"])
        rows = len(inputs["s"]) if product.experts is not None else tokens
        out = torch.full((rows + 16, product.columns), float("nan"), dtype=DTYPES[product.out or product.type])
        given = [inputs[name] for name in ("x", "o", "s", "w", "b")]
        for n in range(product.products):
            given += [inputs[f"m{n}"]] if product.format is None else _stored(product, inputs[f"c{n}"], inputs[f"s{n}"])
        arrays = {value: _array(tensor) for value, tensor in zip(self.values, given, strict=True)}
        arrays[self.op.results[0]] = _array(out)
        buffers = {b: np.full(b.per_token * tokens + b.fixed + 1, 255, np.uint8) for b in self.scope.buffers}
        self.simulated.order(seed)
        for one in self.kernels:
            least, end = one.tokens
            if tokens < least or (end is not None and tokens >= end):
                continue
            match one.grid:
                case k.DeviceGrid(per):
                    blocks = per * MULTIPROCESSORS
                case k.TokenGrid(each):
                    blocks = -(-tokens // each)
                case k.FixedGrid(blocks):
                    pass
            arguments: list[np.ndarray | TensorMap | int] = []
            for argument in one.arguments:
                match argument:
                    case k.TensorPointer(value):
                        arguments.append(arrays[value])
                    case k.BufferPointer(buffer):
                        arguments.append(buffers[buffer])
                    case k.TensorMap(value, box, swizzle):
                        arguments.append(TensorMap(arrays[value], box, swizzle))
                    case k.Tokens():
                        arguments.append(tokens)
            assert one.shared_bytes <= self.arch.shared_bytes
            self.simulated.launch(one.name, blocks, one.threads, one.shared_bytes, *arguments)
        assert out[rows:].isnan().all(), "rows that do not exist were written"
        return out[:rows]


def _stored(product: Product, codes: torch.Tensor, scales: torch.Tensor) -> list[torch.Tensor]:
    """Codes and scales as kernels find them."""
    assert product.format is not None
    return [packed_codes(codes, product.format), packed_scales(scales).contiguous()]


def _array(tensor: torch.Tensor) -> np.ndarray:
    bits = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float8_e4m3fn: torch.uint8}
    return tensor.view(bits.get(tensor.dtype, tensor.dtype)).numpy()


def inputs(product: Product, tokens: int, routing_: str = "even", seed: int = 0) -> dict[str, torch.Tensor]:
    """Random rows, weights and choices; `few` leaves most experts empty, `one` gives every row to the last expert,
    `dropped` leaves slots empty."""
    random = torch.Generator().manual_seed(seed)
    experts, per_token = product.experts or 1, product.per_token
    scores = torch.rand(tokens, experts, generator=random)
    if routing_ == "few":
        scores[:, : max(per_token, experts // 4)] += 2
    if routing_ == "one":
        scores[:, -1] += 2
    index = scores.topk(min(per_token, experts), -1).indices.int()
    if routing_ == "dropped":
        index[torch.rand(index.shape, generator=random) < 0.6] = -1
    offsets, slots = routing.plan(index.numpy(), experts)
    rows = tokens if product.experts is None or product.gather else len(slots)
    dtype = DTYPES[product.type]
    sides = (product.inner, product.columns) if product.transposed else (product.columns, product.inner)
    made = {
        "x": torch.randn(rows, product.inner, generator=random).to(DTYPES[product.lhs_type or product.type]),
        "o": torch.from_numpy(np.ascontiguousarray(offsets, dtype=np.int32)),
        "s": torch.from_numpy(np.ascontiguousarray(slots, dtype=np.int32)),
        "w": torch.rand(tokens, per_token, generator=random),
        "b": torch.randn(experts, product.columns, generator=random),
    }
    for n in range(product.products):
        weight = torch.randn(experts, *sides, generator=random) / product.inner**0.5
        made[f"m{n}"] = weight.to(dtype)
        if product.format is not None:
            codes, scales = quantize(weight, product.format, group=product.group, scale=DTYPES[product.scale])
            each = scales.double().unsqueeze(-1) if product.group is None else scales.double()
            wide = each.repeat_interleave(product.inner // each.shape[-1], -1)
            made |= {f"c{n}": codes, f"s{n}": scales, f"m{n}": codes.double() * wide}
    return made


def sums(product: Product, inputs: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """What the epilogue gets, float64: for each weight [rows, N]."""
    x = inputs["x"].double().numpy()
    if product.rounded:
        x = quantised.quantize_rows(x)
    if product.experts is None:
        expert, source = np.zeros(len(x), int), np.arange(len(x))
    else:
        offsets, slots = inputs["o"].numpy(), inputs["s"].numpy()
        expert = np.repeat(np.arange(product.experts), np.diff(offsets))
        source = slots // product.per_token if product.gather else np.arange(len(slots))
    out = []
    for n in range(product.products):
        weight = inputs[f"m{n}"].double().numpy()
        matrix = weight if product.transposed else weight.transpose(0, 2, 1)
        y = np.zeros((len(source), product.columns))
        for e in range(len(matrix)):
            y[expert == e] = x[source[expert == e]] @ matrix[e]
        out.append(y)
    return out


def error(found: torch.Tensor, wanted: np.ndarray) -> float:
    """The largest difference, in units of the largest value."""
    if not wanted.size:
        return 0.0
    assert found.shape == wanted.shape
    return float(
        np.nan_to_num(np.abs(found.double().numpy() - wanted), nan=np.inf).max() / max(np.abs(wanted).max(), 1e-30)
    )
