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
    "foreign_comments": "// a layer\nedition 1\n\nexpert mlp(d, ff) {  // of two linears\n  y = linear(x, d)\n}\n",
    "foreign_power": "edition 1\n\nexpert mlp(d, ff) = linear(x ** 2, d)\n",
    "foreign_letters": "edition 1\n\nexpert größe(d) = linear(x, d)\n\nmesh Pod { axis a[2] : link(1 GB/s, 5 µs) }\n",
    "positional_behind_named": layer("  router softmax_top(k = 2, 3)\n" + EXPERTS),
    "edition_twice": "edition 1\n" + layer(ROUTER + EXPERTS),
    "edition_late": layer(ROUTER + EXPERTS).removeprefix("edition 1\n") + "\nedition 1\n",
    "infinite_capacity": layer(ROUTER + EXPERTS + "  tokens capacity(1e400)"),
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
    "scales_of_f16": layer(ROUTER + "  experts routed[8] = swiglu(d, ff) : int8(scale = f16)"),
    "x_of_whole_numbers": layer(ROUTER + "  experts routed[8] = swiglu(d, ff) : int8(x = i32)"),
    "group_does_not_divide": layer(ROUTER + "  experts routed[8] = swiglu(d, 100) : int4(group = 32)"),
    "quantised_router": layer("  router softmax_top(2) : int8\n" + INT8),
    "mixed_x": layer(ROUTER + "  experts routed[8] = swiglu(d, ff) : f32\n  shared one = swiglu(d, ff) : int8"),
    "approx_of_nothing": layer(ROUTER + EXPERTS + "  approx rows as int8"),
    "approx_of_what": layer(ROUTER + INT8 + "  approx row as int8"),
    "approx_as_what": layer(ROUTER + INT8 + "  approx rows as int4"),
    "approx_of_floats": layer(ROUTER + "  experts routed[8] = swiglu(d, ff) : fp8_e4m3\n  approx rows as int8"),
    "blocks_of_format": layer(ROUTER + "  experts routed[8] = swiglu(d, ff) : fp8_e4m3(block = 128)"),
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

LOADED = layer(ROUTER + EXPERTS) + "\nload Chat {\n  batch = 1..512\n  routing = zipf(1.2)\n}\n"
CAPPED = layer(ROUTER + EXPERTS + "  tokens capacity(1.25)")
MAY = "  specialise tokens(1..16, 17..512)\n"


def layout(body: str, of: str = LOADED) -> str:
    under = " under Chat" if of == LOADED else ""
    return f"{of}\nlayout Serve for Demo{under} {{\n{body}\n}}\n"


def when(condition: str, rest: str = "for 200 calls") -> str:
    return layout(f"{MAY}  recompile when {condition} {rest}")


LAYOUTS: dict[str, str] = {
    "turned_comparison": LOADED + "\nlayout A for Demo under Chat {\n  recompile when tokens => 8 for 2 calls\n}\n",
    "layout_typos": LOADED.replace("batch", "bacth").replace("zipf", "zifp")
    + "\nlayout Serve for Dmo under Caht {\n  specialize tokens(1..16)\n  aprox capacity(1..2)\n}\n",
    "layout_of_what": LOADED + "\nlayout Serve Demo {\n}\n",
    "layout_of_other_layer": LOADED + "\nlayout Serve for Dmo under Caht {\n" + MAY + "}\n",
    "load_without_equals": layer(ROUTER + EXPERTS) + "\nload Chat { batch 8 }\n",
    "load_without_batch": layer(ROUTER + EXPERTS) + "\nload Chat { routing = uniform }\n",
    "load_backwards": layer(ROUTER + EXPERTS) + "\nload Chat { batch = 512..1 }\n",
    "load_of_a_name": layer(ROUTER + EXPERTS) + "\nload Chat { batch = x }\n",
    "load_twice": layer(ROUTER + EXPERTS) + "\nload Chat { batch = 1..5; batch = 3; routing = zipf }\n",
    "trace_is_missing": layer(ROUTER + EXPERTS) + '\nload Chat { batch = 1..5; routing = trace("chat.trace") }\n',
    "trace_without_suffix": layer(ROUTER + EXPERTS) + '\nload Chat { batch = 1..5; routing = trace("/a/chat.json") }\n',
    "unknown_measure": when("imbalnce > 1.5 and not (tokens < 64)"),
    "measure_alone": when("tokens > 64 and imbalance"),
    "measures_compared": when("share > empty"),
    "measure_multiplied": when("2 * imbalance > 3"),
    "no_measure": when("d > 64"),
    "unit_of_share": when("share > 2 GiB"),
    "unit_of_time": when("memory > 2 s"),
    "unknown_unit": when("memory > 2 GB and tokens > 4"),
    "no_window": when("imbalance > 1.5", ""),
    "window_of_steps": when("imbalance > 1.5", "for 200 steps"),
    "window_without_unit": when("imbalance > 1.5", "for 200"),
    "window_of_bytes": when("imbalance > 1.5", "for 2 GiB"),
    "unknown_option": when("imbalance > 1.5", "for 200 calls, hystersis 0.1"),
    "option_out_of_range": when("imbalance > 1.5", "for 200 calls, gain 0.5"),
    "max_of_what": when("imbalance > 1.5", "for 200 calls, max 4"),
    "two_limits": layout(
        MAY + "  recompile when tokens > 64 for 9 calls, max 4 variants\n"
        "  recompile when imbalance > 2 for 5 s, max 3 variants"
    ),
    "tokens_overlap": layout("  specialise tokens(17..512, 1..17)"),
    "tokens_backwards": layout("  specialise tokens(16..1)"),
    "tokens_twice": layout(MAY + MAY),
    "tokens_beyond_load": layout("  specialise tokens(1..16, 600..900)"),
    "approx_tokens": layout("  approx tokens(1..16)"),
    "specialise_capacity": layout("  specialise capacity(1.0..2.0)", CAPPED),
    "specialise_what": layout("  specialise token(1..16)"),
    "capacity_of_dropless": layout("  approx capacity(1.0..2.0)"),
    "capacity_elsewhere": layout("  approx capacity(1.5..2.0)", CAPPED),
    "capacity_without_range": layout("  approx capacity(1.5)", CAPPED),
    "quantize_without_approx": layout("  quantize coldest(routed, 4) as int4"),
    "quantize_by_file": layout('  approx quantize coldest(routed, 4, by = "c.json") as int4'),
    "quantize_numbered": layout("  approx quantize experts(routed, 4) as int4"),
    "quantize_all_coldest": layout("  approx quantize coldest(routed, 8) as int4"),
    "quantize_as_it_is": layout("  approx quantize coldest(routed, 4) as int8", layer(ROUTER + INT8)),
    "page_of_what": layout("  page routd within 512 KiB"),
    "page_everything": layout("  page routed within 2 GiB"),
    "page_too_little": layout("  page routed within 2 KiB"),
    "never_by_range": when("imbalance > 5 and tokens > 64"),
    "never_by_load": when("tokens > 512"),
    "never_drops": when("overflow > 0.1"),
    "contradiction": when("tokens > 64 and (imbalance > 2 or empty > 0.5) and tokens <= 64"),
    "contradiction_of_shares": when("imbalance > 2 and share < 0.25"),
    "always": when("tokens >= 1"),
    "always_in_part": when("imbalance > 2 and (share > 0.1 or tokens < 9)"),
    "idle_part": when("tokens > 64 and imbalance > 1.5 and not (imbalance <= 2)"),
    "idle_alternative": when("imbalance > 1.5 or imbalance > 2 and tokens > 64"),
    "shadowed": layout(
        MAY + "  recompile when imbalance > 2 for 200 calls\n  recompile when imbalance > 1.5 for 100 calls\n"
        "  recompile when imbalance > 1.5 for 100 calls, gain 1.2"
    ),
    "nothing_may_change": layout("  recompile when imbalance > 2 for 200 calls\n  page routed within 256 KiB"),
    "nothing_asks": layout("  approx quantize coldest(routed, 4) as int4"),
    "unused_load": LOADED,
}

POD = """
mesh Pod {
  axis node[2] : link(1 Gbit/s, 50 us)
  axis gpu[2]  : link(10 GB/s, 5 us)
  device       : memory(1 MiB), compute(100 GFLOP/s)
}
"""
EP = "  shard routed over node * gpu as ep\n"
TP = "  approx shard routed over gpu as tp\n"
SHARED = layer(ROUTER + EXPERTS + "  shared common = swiglu(d, ff) : dtype") + LOADED[LOADED.index("\nload") :]
TWO_SHARED = layer(ROUTER + EXPERTS + "  shared one = swiglu(d, ff) : dtype\n  shared two = swiglu(d, ff) : dtype")


def mesh(body: str) -> str:
    return f"{layer(ROUTER + EXPERTS)}\nmesh Pod {{\n{body}\n}}\n\nlayout Serve for Demo on Pod {{\n{EP}}}\n"


def spread(body: str, of: str = SHARED) -> str:
    under = " under Chat" if "load" in of else ""
    return f"{of}{POD}\nlayout Serve for Demo on Pod{under} {{\n{body}\n}}\n"


MESHES: dict[str, str] = {
    "mesh_typos": mesh("  axs node[2]\n  axis gpu[2] : lnk(1 Gbit/s)\n  device : memry(8 GiB)"),
    "mesh_units": mesh("  axis node[2] : link(50 us, 1 Gbit/s)\n  axis gpu[2] : link(1, 5)\n  device : memory(8 s)"),
    "mesh_on_one_line": mesh("  axis node[2] : link(1 GB/s, 5 us) axis gpu[2] device : memory(8 GiB)"),
    "mesh_axes_in_a_list": mesh("  axis node[2], gpu[2]"),
    "mesh_unknown_unit": mesh("  axis node[2] : link(1 Gbps, 50 us)"),
    "mesh_sizes": mesh("  axis node[0]\n  axis gpu[2.5]\n  axis rack[100000]\n  device : compute(0 GFLOP/s)"),
    "mesh_twice": mesh(
        "  axis node[2]\n  axis node[4] : link(1 GB/s), link(2 GB/s)\n  device : memory(1 GiB)\n"
        "  device : compute(1 GFLOP/s)"
    ),
    "mesh_forms": mesh("  axis node\n  axis gpu[2] : link\n  axis rack[2] : link()\n  device memory(1 GiB)"),
    "mesh_without_axes": mesh("  device : memory(1 GiB)"),
    "mesh_too_large": mesh("  axis a[65536]\n  axis b[65536]"),
    "mesh_behind_load": LOADED + POD + "\nlayout Serve for Demo under Chat on Pod {\n" + EP + "}\n",
    "mesh_is_missing": LOADED + "\nlayout Serve for Demo on Pdo under Chat {\n" + EP + "}\n" + POD,
    "mesh_is_not_named": layout(EP),
    "mesh_is_not_used": layout("") + POD,
    "shard_unknown_axis": spread("  shard routed over nodes * gpu as ep"),
    "shard_axis_twice": spread("  shard routed over gpu * node * gpu as ep"),
    "shard_no_axes": spread("  shard routed over 2 as ep"),
    "shard_of_what": spread("  shard ruoted over node as ep"),
    "shard_as_what": spread(
        "  shard routed over node as dp\n  shard common over node as ep\n  shard tokens over gpu as tp"
    ),
    "shard_form": spread("  shard routed as ep\n  shard routed over node"),
    "shard_twice": spread(EP + "  shard routed over node as ep"),
    "shard_both": spread("  shard routed over node * gpu as ep\n  approx shard routed over gpu as tp"),
    "shard_without_approx": spread(EP + "  shard common over gpu as tp"),
    "shard_with_approx": spread("  approx shard routed over node * gpu as ep"),
    "shard_options": spread(
        "  shard routed over node as ep, count(4, 4)\n  approx shard common over gpu as tp, counts(4, 4)"
    ),
    "experts_do_not_divide": spread(EP, SHARED.replace("routed[8]", "routed[10]")),
    "counts_too_few": spread("  shard routed over node * gpu as ep, counts(4, 4)"),
    "counts_do_not_add_up": spread("  shard routed over node * gpu as ep, counts(4, 4, 1, 1)"),
    "slots_too_few": spread("  shard routed over node * gpu as ep, slots 2\n  replicate routed[0] copies 4"),
    "hidden_does_not_divide": spread("  approx shard routed over node * gpu as tp", SHARED.replace("= 128", "= 130")),
    "hidden_group_does_not_divide": spread(
        "  approx shard routed over node * gpu as tp",
        layer(ROUTER + "  experts routed[8] = swiglu(d, ff) : int4(group = 64)"),
    ),
    "nothing_hidden": spread(
        "  approx shard routed over gpu as tp", layer(ROUTER + "  experts routed[8] = linear(x, d)")
    ),
    "formats_differ": spread(EP, layer(ROUTER + INT8 + "  quantize experts(routed, 0..3) as int4")),
    "replicate_hottest": spread(EP + "  replicate hottest(routed, 2) copies 2"),
    "replicate_what": spread(
        EP + "  replicate hotest(routed, 2) copies 2\n  replicate common[0] copies 2\n"
        "  replicate routed[6..8] copies 2\n  replicate routed[3..1] copies 2"
    ),
    "replicate_too_often": spread(EP + "  replicate routed[0] copies 5\n  replicate routed[1] copies 1"),
    "replicate_twice": spread(EP + "  replicate routed[0..3] copies 2\n  replicate routed[3] copies 3"),
    "replicate_whole": spread(TP + "  replicate routed[0..3] copies 2"),
    "pin_where": spread(
        "  shard routed over node as ep\n  pin routed[0] to nod 0\n  pin routed[1] to gpu 0\n  pin routed[2] to node 2"
    ),
    "pins_conflict": spread(EP + "  pin routed[0..3] to node 0\n  pin routed[3] to node 1, gpu 1"),
    "pins_too_many": spread(EP + "  pin routed[0..3] to node 0\n  pin routed[5..6] to node 0"),
    "pins_and_copies": spread(EP + "  pin routed[0] to node 0\n  replicate routed[0] copies 3"),
    "pin_whole": spread(TP + "  pin routed[0..3] to node 0"),
    "overlap_what": spread(EP + "  overlap dispath, combine with common in 2 chunks"),
    "overlap_with": spread(EP + "  overlap dispatch, dispatch with comon in 2 chunks"),
    "overlap_with_some": spread(EP + "  overlap dispatch with one", TWO_SHARED),
    "overlap_typo": spread(EP + "  overlap dispatch wiht common"),
    "overlap_chunks": spread(EP + "  overlap dispatch in 0 chunks"),
    "overlap_form": spread(EP + "  overlap dispatch in 2"),
    "send_of_nothing": spread(TP + "  approx send dispatch as int8"),
    "nothing_is_cut": spread("  overlap dispatch in 2 chunks"),
    "send_without_approx": spread(EP + "  send combine as bf16"),
    "send_as_what": spread(EP + "  approx send combine as fp8\n  approx send combin as int8"),
    "send_no_narrower": spread(EP + "  approx send dispatch as bf16"),
    "combine_without_approx": spread(EP + "  combine per node"),
    "layout_on_one_line": spread(EP.rstrip() + " overlap dispatch in 2 chunks"),
    "axes_in_a_list": spread("  shard routed over node, gpu as ep"),
    "send_both": spread(EP + "  approx send dispatch, combine as bf16"),
    "combine_over": spread(EP + "  approx combine over node"),
    "combine_per_what": spread("  shard routed over gpu as ep\n  approx combine per node"),
    "require_what": spread(
        EP + "  require memry <= 2 GiB\n  require memory >= 2 GiB\n  require 3 ms\n  require time <= 3\n"
        "  require exchange <= 140 %"
    ),
    "require_without_load": spread(EP + "  require time <= 3 ms", layer(ROUTER + EXPERTS)),
    "require_twice": spread(EP + "  require memory <= 1 GiB\n  require memory <= 2 GiB"),
    "memory_of_device": spread(EP, SHARED.replace("routed[8]", "routed[512]")),
    "memory_required": spread(EP + "  require memory <= 64 KiB"),
    "extends_what": spread(EP) + "\nlayout Big extends Serv {\n}\n",
    "extends_in_a_ring": LOADED + "\nlayout A extends B {\n}\n\nlayout B extends C {\n}\n\nlayout C extends A {\n}\n",
    "extends_and_is_wrong": spread("  shard routed over node * gpu as ep, counts(2, 2, 2, 2)")
    + "\nmesh Large { axis node[4]; axis gpu[2] }\n\nlayout Big extends Serve on Large {\n}\n",
    "extends_what_is_wrong": spread(EP, SHARED.replace("routed[8]", "routed[10]"))
    + "\nlayout Lean extends Serve {\n  overlap dispatch in 2 chunks\n  approx combine per node\n}\n",
    "follows_on_a_mesh": spread(EP + "  page routed within 256 KiB"),
}
MISTAKES |= LAYOUTS | MESHES
