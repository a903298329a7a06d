"""Row programs as text: layers that only route."""

from __future__ import annotations


def layer(inputs: dict[str, str], weights: dict[str, str], x: str, row: str, body: str, slots: int) -> str:
    """A layer that is one moe.route over the input `x`, whose rows have type `row`; the body gets %row."""
    arguments = [f'%{name}: {type_} {{moe.name = "{name}", moe.role = "input"}}' for name, type_ in inputs.items()]
    arguments += [
        f'%{name}: {type_} {{moe.name = "{name}", moe.role = "parameter"}}' for name, type_ in weights.items()
    ]
    index, weight = f"tensor<?x{slots}xi32>", f"tensor<?x{slots}xf32>"
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L({", ".join(arguments)}) -> ({index} {{moe.name = "index"}}, {weight} {{moe.name = "weight"}}) {{
    %index, %weight = "moe.route"(%{x}) ({{
    ^bb0(%row: {row}):
      {body}
    }}) : ({inputs[x]}) -> ({index}, {weight})
    return %index, %weight : {index}, {weight}
  }}
}}"""


def softmax(value: str, count: int, name: str = "p") -> str:
    """%p = softmax of a vector."""
    return f"""
      %low = arith.constant 0xFF800000 : f32
      %none = arith.constant 0.0 : f32
      %first = tensor.splat %low : tensor<f32>
      %max = linalg.reduce {{ arith.maximumf }} ins({value} : tensor<{count}xf32>) outs(%first : tensor<f32>)
        dimensions = [0]
      %empty = tensor.empty() : tensor<{count}xf32>
      %spread = linalg.broadcast ins(%max : tensor<f32>) outs(%empty : tensor<{count}xf32>) dimensions = [0]
      %shifted = arith.subf {value}, %spread : tensor<{count}xf32>
      %exp = math.exp %shifted : tensor<{count}xf32>
      %start = tensor.splat %none : tensor<f32>
      %sum = linalg.reduce {{ arith.addf }} ins(%exp : tensor<{count}xf32>) outs(%start : tensor<f32>) dimensions = [0]
      %total = linalg.broadcast ins(%sum : tensor<f32>) outs(%empty : tensor<{count}xf32>) dimensions = [0]
      %{name} = arith.divf %exp, %total : tensor<{count}xf32>"""


def choose(value: str, count: int, k: int) -> str:
    """Ends the program with the k best and their values."""
    return f"""
      %pick = "moe.top_k"({value}) {{k = {k} : i64}} : (tensor<{count}xf32>) -> tensor<{k}xi32>
      %w = "moe.take"({value}, %pick) : (tensor<{count}xf32>, tensor<{k}xi32>) -> tensor<{k}xf32>
      "moe.yield_choice"(%pick, %w) : (tensor<{k}xi32>, tensor<{k}xf32>) -> ()"""


def softmax_top(count: int, k: int) -> str:
    """Softmax of the input, the k best."""
    x = f"tensor<?x{count}xf32>"
    return layer({"x": x}, {}, "x", f"tensor<{count}xf32>", softmax("%row", count) + choose("%p", count, k), k)


def plain_top(count: int, k: int) -> str:
    """The k largest of the input."""
    return layer({"x": f"tensor<?x{count}xf32>"}, {}, "x", f"tensor<{count}xf32>", choose("%row", count, k), k)


def linear_softmax(dtype: str, width: int, count: int, k: int) -> str:
    """The product with a matrix, inside the program, before the softmax."""
    row, weights = f"tensor<{width}x{dtype}>", f"tensor<{count}x{width}xf32>"
    body = f"""
      %zero = arith.constant dense<0.0> : tensor<{count}xf32>
      %logits = linalg.matvec ins(%w0, %row : {weights}, {row}) outs(%zero : tensor<{count}xf32>)
        -> tensor<{count}xf32>{softmax("%logits", count)}{choose("%p", count, k)}"""
    return layer({"x": f"tensor<?x{width}x{dtype}>"}, {"w0": weights}, "x", row, body, k)


def groups(count: int, many: int, kept: int, k: int) -> str:
    """DeepSeek-V3: groups by the sum of their two best, the k best of the kept groups, weights of the plain scores."""
    each = count // many
    body = f"""
      %biased = arith.addf %row, %bias : tensor<{count}xf32>
      %grouped = tensor.expand_shape %biased [[0, 1]] output_shape [{many}, {each}]
        : tensor<{count}xf32> into tensor<{many}x{each}xf32>
      %two = "moe.top_k"(%grouped) {{k = 2 : i64}} : (tensor<{many}x{each}xf32>) -> tensor<{many}x2xi32>
      %best = "moe.take"(%grouped, %two) : (tensor<{many}x{each}xf32>, tensor<{many}x2xi32>) -> tensor<{many}x2xf32>
      %zeros = arith.constant dense<0.0> : tensor<{many}xf32>
      %score = linalg.reduce {{ arith.addf }} ins(%best : tensor<{many}x2xf32>) outs(%zeros : tensor<{many}xf32>)
        dimensions = [1]
      %keep = "moe.top_k"(%score) {{k = {kept} : i64}} : (tensor<{many}xf32>) -> tensor<{kept}xi32>
      %mask = "moe.chosen"(%keep) : (tensor<{kept}xi32>) -> tensor<{many}xi1>
      %room = tensor.empty() : tensor<{many}x{each}xi1>
      %wide = linalg.broadcast ins(%mask : tensor<{many}xi1>) outs(%room : tensor<{many}x{each}xi1>) dimensions = [1]
      %never = arith.constant dense<0xFF800000> : tensor<{many}x{each}xf32>
      %masked = arith.select %wide, %grouped, %never : tensor<{many}x{each}xi1>, tensor<{many}x{each}xf32>
      %flat = tensor.collapse_shape %masked [[0, 1]] : tensor<{many}x{each}xf32> into tensor<{count}xf32>
      %pick = "moe.top_k"(%flat) {{k = {k} : i64}} : (tensor<{count}xf32>) -> tensor<{k}xi32>
      %w = "moe.take"(%row, %pick) : (tensor<{count}xf32>, tensor<{k}xi32>) -> tensor<{k}xf32>
      "moe.yield_choice"(%pick, %w) : (tensor<{k}xi32>, tensor<{k}xf32>) -> ()"""
    x = {"x": f"tensor<?x{count}xf32>"}
    return layer(x, {"bias": f"tensor<{count}xf32>"}, "x", f"tensor<{count}xf32>", body, k)


def top_p(count: int, mass: float, most: int) -> str:
    body = f"""{softmax("%row", count)}
      %pick = "moe.top_p"(%p) {{mass = {mass:e} : f64, most = {most} : i64}}
        : (tensor<{count}xf32>) -> tensor<{most}xi32>
      %w = "moe.take"(%p, %pick) : (tensor<{count}xf32>, tensor<{most}xi32>) -> tensor<{most}xf32>
      "moe.yield_choice"(%pick, %w) : (tensor<{most}xi32>, tensor<{most}xf32>) -> ()"""
    return layer({"x": f"tensor<?x{count}xf32>"}, {}, "x", f"tensor<{count}xf32>", body, most)


def table(rows: int, k: int) -> str:
    """A table of experts that a token's id is looked up in."""
    body = f"""
      %id = "moe.row"(%ids) : (tensor<?xi32>) -> tensor<i32>
      %number = tensor.extract %id[] : tensor<i32>
      %place = arith.index_cast %number : i32 to index
      %pick = tensor.extract_slice %table[%place, 0] [1, {k}] [1, 1] : tensor<{rows}x{k}xi32> to tensor<{k}xi32>
      %w = arith.constant dense<0.5> : tensor<{k}xf32>
      "moe.yield_choice"(%pick, %w) : (tensor<{k}xi32>, tensor<{k}xf32>) -> ()"""
    inputs = {"x": "tensor<?x4xf32>", "ids": "tensor<?xi32>"}
    return layer(inputs, {"table": f"tensor<{rows}x{k}xi32>"}, "x", "tensor<4xf32>", body, k)
