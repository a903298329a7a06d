"""Files with the mistakes that people make, for golden messages."""

from __future__ import annotations


def layer(body: str, head: str = "d = 64, ff = 128, dtype = bf16") -> str:
    return f"edition 1\n\nlayer Demo({head}) {{\n{body}\n}}\n"


ROUTER = "  router softmax_top(2)\n"
EXPERTS = "  experts routed[8] = swiglu(d, ff) : dtype\n"
INT8 = "  experts routed[8] = swiglu(d, ff) : int8\n"
USE = "\nlayer Demo(d = 64) {\n  router mine(2)\n  experts routed[8] = mlp_relu(d, 128)\n}\n"

MISTAKES: dict[str, str] = {
    "everywhere": """edition 1

router mine(k) {
  logits = linaer(x, count)
  p      = softmax(logits)
  pick   = top_k(p, k)
  weight = p / sum(p over pik)
}

layer L(d = 64, ff = 32) {
  router mine(9) : f32
  expert routed[8] = swiglu(d, ff) : f32
  tokens dropless
}
""",
    "typo_in_statement": layer(ROUTER + "  experst routed[8] = swiglu(d, ff) : dtype"),
    "typo_in_expert": layer(ROUTER + "  experts routed[8] = swigul(d, ff) : dtype"),
    "typo_in_router": layer("  router sofmax_top(2)\n" + EXPERTS),
    "typo_in_argument": layer("  router softmax_top(2, renrom = false)\n" + EXPERTS),
    "typo_in_dtype": layer(ROUTER + "  experts routed[8] = swiglu(d, ff) : bf61"),
    "no_edition": layer(ROUTER + EXPERTS).removeprefix("edition 1\n\n"),
    "no_router": layer(EXPERTS),
    "no_count": layer(ROUTER + "  experts routed = swiglu(d, ff) : dtype"),
    "k_beyond_count": layer("  router softmax_top(9)\n" + EXPERTS),
    "groups_do_not_divide": layer("  router deepseek_v3(4, groups = 3, top_groups = 2)\n" + EXPERTS),
    "wrong_output_width": layer(ROUTER + "  experts routed[8] = linear(relu(linear(x, ff)), ff) : dtype"),
    "missing_argument": layer(ROUTER + "  experts routed[8] = swiglu(d) : dtype"),
    "mixed_dtypes": layer(ROUTER + EXPERTS + "  shared common[2] = swiglu(d, ff) : f32"),
    "division_of_whole_numbers": layer(ROUTER + "  experts routed[8] = swiglu(d, ff / 2) : dtype"),
    "failed_assert": layer(ROUTER + EXPERTS + '  assert routed.count % 3 == 0, "three devices share the experts"'),
    "capacity_order": layer(ROUTER + EXPERTS + "  tokens capacity(1.25, order = scores)"),
    "unclosed_brace": "edition 1\n\nexpert mlp(d, ff) {\n  y = linear(relu(linear(x, ff)), d)\n",
    "wrong_closing_bracket": "edition 1\n\nexpert mlp(d, ff) = linear(relu(linear(x, ff]), d)\n",
    "line_goes_on": "edition 1\n\nexpert mlp(d, ff) {\n  h = linear(x, ff) *\n  y = linear(h, d)\n}\n",
    "foreign_operator": "edition 1\n\nexpert mlp(d, ff) {\n  y = linear(x, d) ^ 2 && true\n}\n",
    "missing_operator": "edition 1\n\nexpert mlp(d, ff) {\n  y = linear(x, d) x\n}\n",
    "shapes_in_expert": "edition 1\n\nexpert odd(d, ff) {\n  gate = linear(x, ff)\n  y = silu(gate) * x\n}\n"
    "\nlayer Demo(d = 64) {\n  router softmax_top(2)\n  experts routed[8] = odd(d, 128)\n}\n",
    "column_is_missing": "edition 1\n\nrouter mine(k) {\n  p = softmax(linear(x, count))\n  g = split(p, 4)\n"
    "  s = sum(g)\n  pick = top_k(merge(g * s), k)\n  weight = p\n}\n" + USE,
    "sum_of_pick": "edition 1\n\nrouter mine(k) {\n  p = softmax(linear(x, count))\n  pick = top_k(p, k)\n"
    "  weight = p / sum(pick)\n}\n" + USE,
    "missing_weight": "edition 1\n\nrouter mine(k) {\n  pick = top_k(linear(x, count), k)\n}\n" + USE,
    "pick_beyond_experts": "edition 1\n\nrouter mine(k) {\n  p = softmax(linear(x, count + 2))\n  pick = top_k(p, k)\n"
    "  weight = p\n}\n" + USE,
    "two_picks": "edition 1\n\nrouter mine(k) {\n  p = softmax(linear(x, count))\n  other = top_k(-p, k)\n"
    "  pick = top_k(p, k)\n  weight = (p over pick) / (p over other)\n}\n" + USE,
    "bound_later": "edition 1\n\nexpert mlp(d, ff) {\n  y = linear(hidden, d)\n  hidden = relu(linear(x, ff))\n}\n",
    "assignment": "edition 1\n\nexpert mlp(d, ff) {\n  h = linear(x, ff)\n  h = relu(h)\n  y = linear(h, d)\n}\n",
    "several_at_once": "edition 1\n\nexpert mlp(d, ff) {\n  h = relu(linear(x, f))\n  y = linaer(h, d)\n}\n"
    "\nlayer Demo(d = 64) {\n  router softmax_top(9)\n  experts routed[8] = mlp(d, 128, 3)\n  tokens droples\n}\n",
    "typo_in_loss": layer(ROUTER + EXPERTS + "  loss balanced(0.01)"),
    "over_of_loss": layer(ROUTER + EXPERTS + "  loss balance(0.01, over = globe)"),
    "loss_without_weight": layer(ROUTER + EXPERTS + "  loss z(over = batch)"),
    "loss_twice": layer(ROUTER + EXPERTS + "  loss z(0.01)\n  loss z(0.001)"),
    "weight_of_loss": layer(ROUTER + EXPERTS + "  loss z(0)"),
    "router_without_probability": layer("  router adamoe(2, nulls = 2)\n" + EXPERTS + "  loss balance(0.01)"),
    "probability_of_another_shape": "edition 1\n\nrouter mine(k) {\n  p = softmax(linear(x, count))\n"
    "  pick = top_k(p, k)\n  weight = p\n  probability = split(p, 2)\n}\n"
    + USE.replace("128)\n}", "128)\n  loss balance(1)\n}"),
    "typo_in_format": layer(ROUTER + "  experts routed[8] = swiglu(d, ff) : itn4(group = 32)"),
    "typo_in_bare_format": layer(ROUTER + "  experts routed[8] = swiglu(d, ff) : ternery"),
    "option_of_format": layer(ROUTER + "  experts routed[8] = swiglu(d, ff) : int4(groups = 32)"),
    "group_without_name": layer(ROUTER + "  experts routed[8] = swiglu(d, ff) : int4(32)"),
    "channel_and_group": layer(ROUTER + "  experts routed[8] = swiglu(d, ff) : int4(group = 32, per = channel)"),
    "per_what": layer(ROUTER + "  experts routed[8] = swiglu(d, ff) : int8(per = chanel)"),
    "scales_of_whole_numbers": layer(ROUTER + "  experts routed[8] = swiglu(d, ff) : int8(scale = i32)"),
    "group_does_not_divide": layer(ROUTER + "  experts routed[8] = swiglu(d, 100) : int4(group = 32)"),
    "quantised_router": layer("  router softmax_top(2) : int8\n" + INT8),
    "mixed_x": layer(ROUTER + "  experts routed[8] = swiglu(d, ff) : f32\n  shared one = swiglu(d, ff) : int8"),
    "approx_of_nothing": layer(ROUTER + EXPERTS + "  approx rows as int8"),
    "approx_of_what": layer(ROUTER + INT8 + "  approx row as int8"),
    "approx_as_what": layer(ROUTER + INT8 + "  approx rows as int4"),
    "approx_twice": layer(ROUTER + INT8 + "  approx rows as int8\n  approx rows as int8"),
    "quantize_form": layer(ROUTER + INT8 + "  quantize experts(routed, 3)"),
    "quantize_what": layer(ROUTER + INT8 + '  quantize coldst(routed, 3, by = "c.json") as int4'),
    "quantize_shared": layer(
        ROUTER + INT8 + "  shared two[2] = swiglu(d, ff) : int8\n  quantize experts(two, 0) as int4"
    ),
    "quantize_all": layer(ROUTER + INT8 + "  quantize experts(routed, 0..7) as int4"),
    "quantize_none": layer(ROUTER + INT8 + "  quantize experts(routed) as int4"),
    "quantize_twice": layer(
        ROUTER + INT8 + "  quantize experts(routed, 0..3) as int4\n  quantize experts(routed, 5, 2) as ternary"
    ),
    "quantize_beyond": layer(ROUTER + INT8 + "  quantize experts(routed, 6..8) as int4"),
    "quantize_backwards": layer(ROUTER + INT8 + "  quantize experts(routed, 6..4) as int4"),
    "quantize_given": layer(
        ROUTER + "  experts routed[8] = swiglu(d, ff) : int8(prequantized = true)\n"
        "  quantize experts(routed, 6) as int4"
    ),
    "subset_with_x": layer(ROUTER + INT8 + "  quantize experts(routed, 6) as int4(x = f32)"),
    "subset_group": layer(ROUTER + INT8 + "  quantize experts(routed, 6) as int4(group = 48)"),
    "counts_are_missing": layer(ROUTER + INT8 + '  quantize coldest(routed, 3, by = "counts.json") as int4'),
    "counts_elsewhere": layer(ROUTER + INT8 + '  quantize coldest(routed, 3, by = "/etc/counts.json") as int4'),
    "range_as_value": layer("  router softmax_top(1..2)\n" + EXPERTS),
    "index_by_score": "edition 1\n\nrouter mine(k) {\n  p = softmax(linear(x, count))\n  pick = top_k(p, k)\n"
    "  weight = p[sum(p)]\n}\n" + USE,
}
