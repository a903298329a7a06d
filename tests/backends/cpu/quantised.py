"""Kernel-level modules with quantised weights and rows."""

from __future__ import annotations

from dataclasses import dataclass

from moec.formats import FORMATS
from tests.backends.cpu.modules import SWIGLU, rounded


@dataclass(frozen=True)
class Format:
    """A format, `group` weights to a scale (0: a channel); `given`: parameters are codes and scales."""

    name: str
    group: int = 0
    scale: str = "f32"
    given: bool = False

    def stored(self, name: str, shape: tuple[int, int, int], dtype: str) -> tuple[list[str], str]:
        """(the function's arguments, the operations that make %NAME of them) of weights of this shape."""
        e, n, k = shape
        sizes, groups = f"{e}x{n}x{k}", k // self.group if self.group else 1
        weights, codes = f"tensor<{sizes}x{dtype}>", f"tensor<{sizes}x{FORMATS[self.name].element}>"
        scales, format_ = f"tensor<{e}x{n}x{groups}x{self.scale}>", f'{{format = "{self.name}"}}'
        types = [("c", "code", codes), ("s", "scale", scales)] if self.given else [("w", "", weights)]
        arguments = [
            f'%{name}{short}: {type_} {{moe.name = "{name}{"." if long else ""}{long}", moe.role = "parameter"}}'
            for short, long, type_ in types
        ]
        body = (
            ""
            if self.given
            else f'%{name}c, %{name}s = "moe.quantize"(%{name}w) {format_} : ({weights}) -> ({codes}, {scales})\n    '
        )
        body += f'%{name} = "moe.dequantize"(%{name}c, %{name}s) {format_} : ({codes}, {scales}) -> tensor<{sizes}xf32>'
        return arguments, body


def dense(inner: int, columns: int, format_: Format, lhs: str, *, integers: bool) -> str:
    """y = x w^T in f32: input x [T, inner]; parameters w [1, columns, inner], or w.code and w.scale."""
    arguments, body = format_.stored("w", (1, columns, inner), "f32")
    x, rows, y = f"tensor<?x{inner}x{lhs}>", f"tensor<?x{inner}xf32>", f"tensor<?x{columns}xf32>"
    quantise = f'%r = "moe.quantize_rows"(%x) : ({x}) -> {rows}' if integers else ""
    r, type_ = ("%r", rows) if integers else ("%x", x)
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L(%x: {x} {{moe.name = "x", moe.role = "input"}}, {", ".join(arguments)}) -> ({y} {{moe.name = "y"}}) {{
    {body}
    {quantise}
    %y = "moe.matmul"({r}, %w) ({{
      ^bb0(%p: f32):
      "moe.yield"(%p) : (f32) -> ()
    }}) {{operandSegmentSizes = array<i32: 1, 1>}} : ({type_}, tensor<1x{columns}x{inner}xf32>) -> {y}
    return %y : {y}
  }}
}}
"""


def experts(size: tuple[int, int, int, int], format_: Format, dtype: str, *, integers: bool) -> str:
    """As `modules.experts` (d, ff, count, k), with quantised weights, and rows too if `integers`."""
    d, ff, count, k = size
    x, h = f"tensor<?x{d}x{dtype}>", f"tensor<?x{ff}x{dtype}>"
    index, weight = f"tensor<?x{k}xi32>", f"tensor<?x{k}xf32>"
    plan = f"tensor<{count + 1}xi32>, tensor<?xi32>"
    up, down = f"tensor<{count}x{ff}x{d}xf32>", f"tensor<{count}x{d}x{ff}xf32>"
    shapes = {"gate": (count, ff, d), "up": (count, ff, d), "down": (count, d, ff)}
    stored = [format_.stored(name, shape, dtype) for name, shape in shapes.items()]
    arguments = ",\n      ".join(argument for some, _ in stored for argument in some)
    body = "\n    ".join(text for _, text in stored)
    xr, hr = ("%xq", "%hq") if integers else ("%x", "%h")
    xt, ht = (f"tensor<?x{d}xf32>", f"tensor<?x{ff}xf32>") if integers else (x, h)
    quantise_x = f'%xq = "moe.quantize_rows"(%x) : ({x}) -> {xt}' if integers else ""
    quantise_h = f'%hq = "moe.quantize_rows"(%h) : ({h}) -> {ht}' if integers else ""
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L(%x: {x} {{moe.name = "x", moe.role = "input"}},
      %i: {index} {{moe.name = "index", moe.role = "input"}}, %w: {weight} {{moe.name = "weight", moe.role = "input"}},
      {arguments}) -> ({x} {{moe.name = "y"}}) {{
    {body}
    %o, %s = "moe.plan"(%i) {{experts = {count} : i64, direct_max_tokens = 0 : i64}} : ({index}) -> ({plan})
    {quantise_x}
    %h = "moe.grouped_matmul"({xr}, %o, %s, %gate, %up) ({{
      {SWIGLU}
      {rounded("%p", dtype)}
    }}) {{operandSegmentSizes = array<i32: 1, 1, 1, 2>, gather = true, slots_per_token = {k} : i64}}
      : ({xt}, {plan}, {up}, {up}) -> {h}
    {quantise_h}
    %y = "moe.grouped_matmul_combine"({hr}, %x, %o, %s, %down) ({{
      ^bb0(%a: f32):
       %e = "moe.element"(%w) {{kind = "slot"}} : ({weight}) -> f32
       %p = arith.mulf %a, %e : f32
       "moe.yield"(%p) : (f32) -> ()
    }}, {{
      ^bb0(%p: f32):
      {rounded("%p", dtype)}
    }}) {{operandSegmentSizes = array<i32: 1, 1, 1, 1, 1>, gather = false, slots_per_token = {k} : i64}}
      : ({ht}, {x}, {plan}, {down}) -> {x}
    return %y : {x}
  }}
}}
"""
