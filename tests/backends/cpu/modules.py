"""Kernel-level modules for tests: a pair of grouped matmuls behind a given choice of experts, and a dense product."""

from __future__ import annotations

SWIGLU = """^bb0(%g: f32, %u: f32):
      %one = arith.constant 1.0 : f32
      %n = arith.negf %g : f32
      %x0 = math.exp %n : f32
      %x1 = arith.addf %x0, %one : f32
      %x2 = arith.divf %g, %x1 : f32
      %p = arith.mulf %x2, %u : f32"""


def rounded(value: str, dtype: str) -> str:
    if dtype == "f32":
        return f'"moe.yield"({value}) : (f32) -> ()'
    return f'%q = arith.truncf {value} : f32 to {dtype}\n      "moe.yield"(%q) : ({dtype}) -> ()'


def experts(d: int, ff: int, count: int, k: int, dtype: str, *, direct: int = 0, activation: str = SWIGLU) -> str:
    """y = sum over the chosen experts of weight * down(swiglu(gate(x), up(x))), or another `activation`.

    Inputs x [T, d], index [T, k] i32 (-1: no expert), weight [T, k] f32; parameters gate, up [count, ff, d],
    down [count, d, ff]; output y [T, d].
    """
    x, h = f"tensor<?x{d}x{dtype}>", f"tensor<?x{ff}x{dtype}>"
    index, weight = f"tensor<?x{k}xi32>", f"tensor<?x{k}xf32>"
    up, down = f"tensor<{count}x{ff}x{d}x{dtype}>", f"tensor<{count}x{d}x{ff}x{dtype}>"
    plan = f"tensor<{count + 1}xi32>, tensor<?xi32>"
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L(%x: {x} {{moe.name = "x", moe.role = "input"}},
      %i: {index} {{moe.name = "index", moe.role = "input"}}, %w: {weight} {{moe.name = "weight", moe.role = "input"}},
      %wg: {up} {{moe.name = "gate", moe.role = "parameter"}}, %wu: {up} {{moe.name = "up", moe.role = "parameter"}},
      %wd: {down} {{moe.name = "down", moe.role = "parameter"}}) -> ({x} {{moe.name = "y"}}) {{
    %o, %s = "moe.plan"(%i) {{experts = {count} : i64, direct_max_tokens = {direct} : i64}} : ({index}) -> ({plan})
    %h = "moe.grouped_matmul"(%x, %o, %s, %wg, %wu) ({{
      {activation}
      {rounded("%p", dtype)}
    }}) {{operandSegmentSizes = array<i32: 1, 1, 1, 2>, gather = true, slots_per_token = {k} : i64}}
      : ({x}, {plan}, {up}, {up}) -> {h}
    %y = "moe.grouped_matmul_combine"(%h, %x, %o, %s, %wd) ({{
      ^bb0(%a: f32):
       %e = "moe.element"(%w) {{kind = "slot"}} : ({weight}) -> f32
       %p = arith.mulf %a, %e : f32
       "moe.yield"(%p) : (f32) -> ()
    }}, {{
      ^bb0(%p: f32):
      {rounded("%p", dtype)}
    }}) {{operandSegmentSizes = array<i32: 1, 1, 1, 1, 1>, gather = false, slots_per_token = {k} : i64}}
      : ({h}, {x}, {plan}, {down}) -> {x}
    return %y : {x}
  }}
}}
"""


def dense(inner: int, columns: int, lhs: str, weights: str, out: str = "f32") -> str:
    """y = x w^T: inputs x [T, inner]; parameter w [columns, inner]; output y [T, columns]."""
    x, w = f"tensor<?x{inner}x{lhs}>", f"tensor<{columns}x{inner}x{weights}>"
    whole, y = f"tensor<1x{columns}x{inner}x{weights}>", f"tensor<?x{columns}x{out}>"
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L(%x: {x} {{moe.name = "x", moe.role = "input"}},
      %w: {w} {{moe.name = "w", moe.role = "parameter"}}) -> ({y} {{moe.name = "y"}}) {{
    %e = tensor.expand_shape %w [[0, 1], [2]] output_shape [1, {columns}, {inner}] : {w} into {whole}
    %y = "moe.matmul"(%x, %e) ({{
      ^bb0(%p: f32):
      {rounded("%p", out)}
    }}) {{operandSegmentSizes = array<i32: 1, 1>}} : ({x}, {whole}) -> {y}
    return %y : {y}
  }}
}}
"""
