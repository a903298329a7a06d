"""Gradients of weights: sums of outer products over the rows of each expert, or over all tokens."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from tests.backends.cpu.artifact import DTYPES, Artifact, exact
from tests.backends.cpu.native import runnable

VARIANTS = runnable()
TOLERANCE = {"f32": 1e-5, "bf16": 2**-8}


def _module(experts: int, n: int, k: int, slots: int, dtype: str, out: str) -> str:
    """d = grouped gradient of a [T, n] and b [T, k] through index [T, slots]; e = that over all tokens."""
    a, b, index = f"tensor<?x{n}x{dtype}>", f"tensor<?x{k}x{dtype}>", f"tensor<?x{slots}xi32>"
    plan, d, e = (
        f"tensor<{experts + 1}xi32>, tensor<?xi32>",
        f"tensor<{experts}x{n}x{k}x{out}>",
        f"tensor<1x{n}x{k}xf32>",
    )
    return f"""
module attributes {{moe.layer = "L"}} {{
  func.func @L(%a: {a} {{moe.name = "a", moe.role = "input"}}, %b: {b} {{moe.name = "b", moe.role = "input"}},
      %i: {index} {{moe.name = "index", moe.role = "input"}}) -> ({d} {{moe.name = "d"}}, {e} {{moe.name = "e"}}) {{
    %o, %s = "moe.plan"(%i) {{experts = {experts} : i64, direct_max_tokens = 0 : i64}} : ({index}) -> ({plan})
    %d = "moe.weight_gradient"(%a, %b, %o, %s)
      {{gather_a = true, gather_b = true, slots_per_token = {slots} : i64}} : ({a}, {b}, {plan}) -> {d}
    %e = "moe.dense_weight_gradient"(%a, %b) : ({a}, {b}) -> {e}
    return %d, %e : {d}, {e}
  }}
}}"""


compiled = cache(lambda *sizes: Artifact(_module(*sizes), VARIANTS))

# experts, n, k, slots: nothing a multiple of anything; single elements; several blocks, strips and panels
SIZES = [(5, 33, 7, 3), (1, 1, 1, 1), (9, 96, 130, 2), (4, 128, 64, 2), (3, 17, 200, 3)]


def _inputs(size: tuple[int, int, int, int], dtype: str, tokens: int, routing: str) -> dict[str, torch.Tensor]:
    experts, n, k, slots = size
    random = torch.Generator().manual_seed(tokens)
    scores = torch.rand(tokens, experts, generator=random)
    if routing == "one":  # more rows than are summed in registers at once
        scores[:, -1] += 2
    index = scores.topk(slots, -1).indices.int()
    if routing == "dropped":
        index[torch.rand(tokens, slots, generator=random) < 0.6] = -1
    a, b = (torch.randn(tokens, width, generator=random).to(DTYPES[dtype]) for width in (n, k))
    return {"a": a, "b": b, "index": index}


def _reference(experts: int, inputs: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    a, b, index = (exact(inputs[name]) for name in ("a", "b", "index"))
    chosen = [(index == expert).sum(1)[:, None] for expert in range(experts)]
    return np.stack([(a * times).T @ b for times in chosen]), (a.T @ b)[None]


def _error(found: torch.Tensor, wanted: np.ndarray) -> float:
    return float(np.abs(exact(found) - wanted).max(initial=0) / max(np.abs(wanted).max(initial=0), 1e-30))


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sums_of_outer_products(size: tuple[int, int, int, int], dtype: str) -> None:
    artifact = compiled(*size, dtype, dtype)
    for tokens, routing in [(0, "even"), (1, "even"), (3, "dropped"), (70, "dropped"), (1100, "one")]:
        inputs = _inputs(size, dtype, tokens, routing)
        grouped, dense = _reference(size[0], inputs)
        for variant in range(len(VARIANTS)):
            found = artifact.run(inputs, variant=variant, threads=2)
            assert _error(found["d"], grouped) < TOLERANCE[dtype], (tokens, VARIANTS[variant].name)
            assert _error(found["e"], dense) < 1e-5, (tokens, VARIANTS[variant].name)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_bits_do_not_depend_on_the_number_of_threads(dtype: str) -> None:
    size = (4, 128, 64, 2)
    inputs = _inputs(size, dtype, 1100, "one")
    for variant in range(len(VARIANTS)):
        alone = compiled(*size, dtype, dtype).run(inputs, variant=variant)
        for threads in (2, 5):
            found = compiled(*size, dtype, dtype).run(inputs, variant=variant, threads=threads)
            assert all(torch.equal(found[name], alone[name]) for name in alone)


def test_a_large_result_is_written_past_the_caches_and_an_unaligned_one_is_not() -> None:
    size = (9, 960, 1024, 2)
    # Tiles of AVX2 are half a line of bf16 wide: the panels of a task must not begin or end within one.
    variants = [v for v in VARIANTS if v is VARIANTS[0] or v.name == "avx2"]
    artifact = Artifact(_module(*size, "bf16", "bf16"), variants)
    for tokens, routing in [(40, "dropped"), (700, "one")]:  # the latter in parts, whose sums wait
        inputs = _inputs(size, "bf16", tokens, routing)
        wanted, _ = _reference(size[0], inputs)
        for variant in range(len(variants)):
            found = artifact.run(inputs, variant=variant, threads=2)
            assert _error(found["d"], wanted) < TOLERANCE["bf16"], (tokens, variants[variant].name)
            shifted = torch.empty(found["d"].numel() + 1, dtype=torch.bfloat16)[1:].view(found["d"].shape)
            library, e = artifact.library, torch.empty_like(found["e"])
            bytes_ = library.workspace_bytes(variant, tokens, 2)
            workspace = torch.empty(bytes_ + 64, dtype=torch.uint8)
            workspace = workspace[-workspace.data_ptr() % 64 :][:bytes_]
            library.run(variant, 2, artifact.pack({}), workspace, *inputs.values(), shifted, e)
            assert torch.equal(shifted, found["d"])


@pytest.mark.parametrize("bits", [0x7FC0, 0xFFFF, 0x7F81], ids=hex)
def test_nan_of_any_bits_stays_nan(bits: int) -> None:
    """Rounding must not carry beyond the bits of a NaN."""
    size = (5, 33, 7, 3)
    inputs = _inputs(size, "bf16", 71, "even")
    inputs["b"].view(torch.int16)[11] = bits - (bits >> 15 << 16)
    hit = inputs["index"][11].long()
    for variant in range(len(VARIANTS)):
        assert compiled(*size, "bf16", "bf16").run(inputs, variant=variant)["d"][hit].isnan().all()


def test_nan_stays_with_its_expert() -> None:
    size = (5, 33, 7, 3)
    inputs = _inputs(size, "bf16", 71, "even")
    for variant in range(len(VARIANTS)):
        clean = compiled(*size, "bf16", "f32").run(inputs, variant=variant)["d"]
        bad = {**inputs, "b": inputs["b"].clone()}
        bad["b"][11] = float("nan")
        found = compiled(*size, "bf16", "f32").run(bad, variant=variant)["d"]
        hit = sorted(inputs["index"][11].tolist())
        others = [expert for expert in range(size[0]) if expert not in hit]
        assert torch.equal(found[others], clean[others])
        assert found[hit].isnan().all()
