"""Dense and grouped matmuls against NumPy in float64, on awkward sizes and on routings that break schedules."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from tests.backends.cpu import modules
from tests.backends.cpu.artifact import DTYPES, Artifact, aligned, exact
from tests.backends.cpu.native import runnable

pytestmark = pytest.mark.long

VARIANTS = runnable()
TOLERANCE = {"f32": 1e-5, "bf16": 2**-8, "f16": 2**-10}

compiled = cache(lambda text: Artifact(text, VARIANTS))

# d, ff, experts, k: nothing a multiple of anything; one column; several vectors; an inner dimension of several units;
# rows of two lengths at one stride
SIZES = [(33, 7, 5, 3), (1, 1, 1, 1), (96, 130, 9, 2), (4500, 17, 3, 2), (17, 4500, 2, 1), (76, 70, 6, 2)]


class Layer:
    """Random weights for `modules.experts`, and what they compute."""

    def __init__(self, size: tuple[int, int, int, int], dtype: str, seed: int = 0) -> None:
        self.d, self.ff, self.count, self.k = size
        self.dtype = dtype
        random = torch.Generator().manual_seed(seed)
        shapes = {"gate": (self.ff, self.d), "up": (self.ff, self.d), "down": (self.d, self.ff)}
        self.parameters = {
            name: (torch.randn(self.count, *shape, generator=random) / shape[1] ** 0.5).to(DTYPES[dtype])
            for name, shape in shapes.items()
        }
        self.artifact = compiled(modules.experts(*size, dtype))

    def inputs(self, tokens: int, routing: str, seed: int = 1) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(seed)
        x = torch.randn(tokens, self.d, generator=random).to(DTYPES[self.dtype])
        scores = torch.rand(tokens, self.count, generator=random)
        if routing == "few":  # most experts stay empty
            scores[:, : max(self.k, self.count // 5)] += 2
        if routing == "one":  # every token's first choice is the last expert
            scores[:, -1] += 2
        index = scores.topk(self.k, -1).indices.int()
        if routing == "dropped":
            index[torch.rand(tokens, self.k, generator=random) < 0.6] = -1
        return {"x": x, "index": index, "weight": torch.rand(tokens, self.k, generator=random)}

    def reference(self, inputs: dict[str, torch.Tensor]) -> np.ndarray:
        x, index, weight = (exact(inputs[name]) for name in ("x", "index", "weight"))
        gate, up, down = (exact(self.parameters[name]) for name in ("gate", "up", "down"))
        y = np.zeros_like(x)
        for token, slot in zip(*np.nonzero(index >= 0), strict=True):
            e = index[token, slot]
            g = gate[e] @ x[token]
            h = torch.from_numpy(g / (1 + np.exp(-g)) * (up[e] @ x[token]))
            y[token] += weight[token, slot] * (down[e] @ exact(h.to(DTYPES[self.dtype])))
        return y

    def run(self, inputs: dict[str, torch.Tensor], variant: int = 0, threads: int = 2) -> torch.Tensor:
        return self.artifact.run(inputs, self.parameters, variant=variant, threads=threads)["y"]


def error(found: torch.Tensor, wanted: np.ndarray) -> float:
    return float(np.abs(exact(found) - wanted).max(initial=0) / max(np.abs(wanted).max(initial=0), 1e-30))


KINDS = [*((size, dtype) for size in SIZES for dtype in ("f32", "bf16")), (SIZES[0], "f16"), (SIZES[3], "f16")]


@pytest.mark.parametrize(("size", "dtype"), KINDS, ids=str)
def test_experts(size: tuple[int, int, int, int], dtype: str) -> None:
    layer = Layer(size, dtype)
    for tokens, routing in [(0, "even"), (1, "even"), (3, "dropped"), (70, "even"), (70, "one"), (131, "few")]:
        inputs = layer.inputs(tokens, routing)
        wanted = layer.reference(inputs)
        for variant in range(len(VARIANTS)):
            found = layer.run(inputs, variant)
            assert error(found, wanted) < TOLERANCE[dtype], (tokens, routing, VARIANTS[variant].name)


LOGARITHM = """^bb0(%g: f32, %u: f32):
      %size = math.absf %u : f32
      %log = math.log %size : f32
      %p = arith.addf %log, %g : f32"""


def test_what_an_activation_makes_of_columns_that_do_not_exist_is_not_multiplied() -> None:
    """Rows are multiplied where they lie, in pairs of bf16; behind an odd number of columns log(0) would stand."""
    size = (20, 131, 4, 2)
    layer = Layer(size, "bf16")
    artifact = compiled(modules.experts(*size, "bf16", activation=LOGARITHM))
    inputs = layer.inputs(70, "even")
    x, index, weight = (exact(inputs[name]) for name in ("x", "index", "weight"))
    gate, up, down = (exact(layer.parameters[name]) for name in ("gate", "up", "down"))
    wanted = np.zeros_like(x)
    for token, slot in np.ndindex(index.shape):
        e = index[token, slot]
        hidden = torch.from_numpy(np.log(np.abs(up[e] @ x[token])) + gate[e] @ x[token])
        wanted[token] += weight[token, slot] * (down[e] @ exact(hidden.bfloat16()))
    for variant in range(len(VARIANTS)):
        found = artifact.run(inputs, layer.parameters, variant=variant, threads=2)["y"]
        assert error(found, wanted) < TOLERANCE["bf16"], VARIANTS[variant].name


DENSE = [
    (1, 1, "f32", "f32"),
    (31, 64, "bf16", "f32"),
    (64, 33, "f32", "bf16"),
    (31, 33, "bf16", "bf16"),
    (2048, 8, "f32", "f32"),
    (1024, 40, "bf16", "bf16"),
    (33, 40, "f16", "f16"),
    (31, 33, "f16", "f32"),
    (64, 17, "f32", "f16"),
    (31, 40, "bf16", "f16"),
]


@pytest.mark.parametrize(("inner", "columns", "lhs", "weights"), DENSE)
def test_dense(inner: int, columns: int, lhs: str, weights: str) -> None:
    artifact = compiled(modules.dense(inner, columns, lhs, weights))
    random = torch.Generator().manual_seed(inner)
    w = torch.randn(columns, inner, generator=random).to(DTYPES[weights])
    for tokens in (0, 1, 15, 200):
        x = torch.randn(tokens, inner, generator=random).to(DTYPES[lhs])
        wanted = exact(x) @ exact(w).T
        for variant in range(len(VARIANTS)):
            found = artifact.run({"x": x}, {"w": w}, variant=variant, threads=2)["y"]
            assert error(found, wanted) < 1e-5 * inner**0.5, (tokens, VARIANTS[variant].name)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_a_token_has_the_same_bits_in_every_batch_and_with_every_number_of_threads(dtype: str) -> None:
    layer = Layer((96, 130, 9, 2), dtype)
    inputs = layer.inputs(150, "one")
    for variant in range(len(VARIANTS)):
        whole = layer.run(inputs, variant, threads=1)
        for threads in (2, 5):
            assert torch.equal(layer.run(inputs, variant, threads), whole)
        for begin, end in [(0, 1), (149, 150), (7, 20), (10, 31), (40, 99)]:
            part = {name: tensor[begin:end] for name, tensor in inputs.items()}
            assert torch.equal(layer.run(part, variant), whole[begin:end]), (begin, end)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("size", [(33, 7, 5, 3), (96, 130, 9, 2)], ids=str)
def test_a_bad_token_stays_alone(size: tuple[int, int, int, int], dtype: str) -> None:
    layer = Layer(size, dtype)
    inputs = layer.inputs(60, "even")
    for variant in range(len(VARIANTS)):
        clean = layer.run(inputs, variant)
        bad = {**inputs, "x": inputs["x"].clone()}
        for token, value in ((0, float("nan")), (31, float("inf")), (59, float("-inf"))):
            bad["x"][token] = value
        found = layer.run(bad, variant)
        others = [token for token in range(60) if token not in (0, 31, 59)]
        assert torch.equal(found[others], clean[others])
        assert not found[[0, 31, 59]].isfinite().any()


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_unpacking_is_the_inverse_of_packing(size: tuple[int, int, int, int], dtype: str) -> None:
    layer = Layer(size, dtype)
    library = layer.artifact.library
    for variant in range(len(VARIANTS)):
        packed = layer.artifact.pack(layer.parameters, variant)
        for n, name in enumerate(layer.artifact.parameters):
            back = torch.full_like(layer.parameters[name], float("nan"))
            library.unpack(variant, n, packed, back)
            assert torch.equal(back, layer.parameters[name])


def test_packing_one_parameter_leaves_the_others() -> None:
    layer = Layer((33, 7, 5, 3), "bf16")
    packed = layer.artifact.pack(layer.parameters)
    layer.artifact.library.pack(0, layer.artifact.parameters.index("up"), packed, layer.parameters["gate"])
    for name, wanted in (("gate", "gate"), ("up", "gate"), ("down", "down")):
        back = torch.empty_like(layer.parameters[name])
        layer.artifact.library.unpack(0, layer.artifact.parameters.index(name), packed, back)
        assert torch.equal(back, layer.parameters[wanted])


@pytest.mark.parametrize("size", [(33, 7, 5, 3), (96, 130, 9, 2)], ids=str)
def test_nothing_is_written_outside_the_output_and_the_workspace(size: tuple[int, int, int, int]) -> None:
    layer = Layer(size, "bf16")
    inputs = layer.inputs(50, "even")
    wanted = layer.reference(inputs)
    library, guard = layer.artifact.library, 4096
    for variant in range(len(VARIANTS)):
        packed = layer.artifact.pack(layer.parameters, variant)
        needed = library.workspace_bytes(variant, 50, 2)
        memory = aligned(needed + 2 * guard)
        output = torch.full((50 * layer.d + 2 * guard,), float("nan"), dtype=torch.bfloat16)
        y = output[guard:-guard].view(50, layer.d)
        library.run(variant, 2, packed, memory[guard:-guard], *inputs.values(), y)
        assert error(y, wanted) < TOLERANCE["bf16"]
        for outside in (memory[:guard] == 0xFF, memory[-guard:] == 0xFF):
            assert outside.all()
        for outside in (output[:guard], output[-guard:]):
            assert outside.isnan().all()
