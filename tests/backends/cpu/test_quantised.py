"""Quantised weights and rows against the oracle, in every variant."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch_mlir import ir

from moec.backends.base import Unsupported
from moec.dialect import context
from moec.formats import FORMATS as CODES
from moec.oracle import interpreter
from tests.backends.cpu import quantised
from tests.backends.cpu.artifact import DTYPES, Artifact, exact
from tests.backends.cpu.native import runnable
from tests.backends.cpu.quantised import Format
from tests.bits import same_bits

pytestmark = pytest.mark.long

VARIANTS = runnable(integer_rows=True)

compiled = cache(lambda text: Artifact(text, VARIANTS))


def oracle(text: str, arguments: dict[str, torch.Tensor]) -> np.ndarray:
    with context(), ir.Location.unknown():
        return interpreter.run(ir.Module.parse(text), {name: exact(t) for name, t in arguments.items()})["y"]


def error(found: torch.Tensor, wanted: np.ndarray, sizes: np.ndarray) -> float:
    """The largest error, each over the size of what was added up."""
    return float((np.abs(exact(found) - wanted) / np.maximum(sizes, 1e-37)).max(initial=0))


def weights(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Random, with channels of zeros, of one huge element, and of a tiny magnitude."""
    w = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    flat = w.view(-1, shape[-1])
    flat[0] = 0
    flat[1 % len(flat), 0] = 1e4
    flat[2 % len(flat)] *= 1e-30
    return w


FORMATS = [
    Format("int8"),
    Format("int8", 16, "bf16"),
    Format("int4"),
    Format("int4", 32, "bf16"),
    Format("int4", 12, "f32"),
    Format("ternary"),
    Format("ternary", 64, "bf16"),
    Format("fp8_e4m3"),
    Format("fp8_e4m3", 16, "bf16"),
]
ROWS = ["bf16", "f32", "i8"]
SIZE = (192, 40)
OTHER_SIZES = [(33, 5), (4608, 3)]


def fits(format_: Format, inner: int) -> bool:
    return not format_.group or (inner % format_.group == 0 and inner > format_.group)


def multiplied(format_: Format, rows: str) -> bool:
    """Whether such rows are multiplied by such weights."""
    return rows != "i8" or not CODES[format_.name].floats


def in_turn(format_: Format, rows: str, turn: int) -> bool:
    """Whether it is the turn of these rows with a format: each format has one kind of rows in every turn."""
    return (FORMATS.index(format_) + ROWS.index(rows) + turn) % len(ROWS) == 0


@pytest.mark.parametrize(
    ("format_", "rows"),
    [(format_, rows) for format_ in FORMATS for rows in ROWS if multiplied(format_, rows)],
    ids=lambda value: value if isinstance(value, str) else f"{value.name}-{value.group}-{value.scale}",
)
def test_dense(format_: Format, rows: str) -> None:
    for inner, columns in [SIZE, *(size for turn, size in enumerate(OTHER_SIZES) if in_turn(format_, rows, turn))]:
        if not fits(format_, inner):
            continue
        lhs = "bf16" if rows == "i8" else rows
        text = quantised.dense(inner, columns, format_, lhs, integers=rows == "i8")
        artifact = compiled(text)
        w = weights((1, columns, inner))
        for tokens in (0, 1, 9, 40):
            x = torch.randn(tokens, inner, generator=torch.Generator().manual_seed(1)).to(DTYPES[lhs])
            wanted = oracle(text, {"x": x, "w": w})
            sizes = np.abs(exact(x)) @ np.abs(exact(w[0])).T
            for number, variant in enumerate(VARIANTS):
                found = artifact.run({"x": x}, {"w": w}, variant=number, threads=2)["y"]
                assert error(found, wanted, sizes) < 4e-6, (inner, columns, tokens, variant.name)


class Layer:
    """Experts with SwiGLU and random weights."""

    def __init__(self, size: tuple[int, int, int, int], format_: Format, *, integers: bool) -> None:
        self.d, self.ff, self.count, self.k = size
        self.text = quantised.experts(size, format_, "bf16", integers=integers)
        self.artifact = compiled(self.text)
        shapes = {"gate": (self.ff, self.d), "up": (self.ff, self.d), "down": (self.d, self.ff)}
        random = torch.Generator().manual_seed(0)
        self.parameters = {
            name: (torch.randn(self.count, *shape, generator=random) / shape[1] ** 0.5).bfloat16()
            for name, shape in shapes.items()
        }

    def inputs(self, tokens: int, seed: int = 1) -> dict[str, torch.Tensor]:
        """The first choice of half of the tokens is the last expert; some slots are empty."""
        random = torch.Generator().manual_seed(seed)
        x = torch.randn(tokens, self.d, generator=random).bfloat16()
        scores = torch.rand(tokens, self.count, generator=random)
        scores[: tokens // 2, -1] += 2
        index = scores.topk(self.k, -1).indices.int()
        index[torch.rand(tokens, self.k, generator=random) < 0.2] = -1
        return {"x": x, "index": index, "weight": torch.rand(tokens, self.k, generator=random)}

    def run(self, inputs: dict[str, torch.Tensor], variant: int = 0, threads: int = 2) -> torch.Tensor:
        return self.artifact.run(inputs, self.parameters, variant=variant, threads=threads)["y"]


EXPERTS = [
    ((96, 64, 9, 2), Format("int8")),
    ((33, 7, 5, 3), Format("int8")),
    ((96, 192, 5, 2), Format("int4", 32, "bf16")),
    ((36, 24, 5, 2), Format("int4", 12, "bf16")),
    ((130, 70, 4, 2), Format("int4")),
    ((96, 64, 3, 1), Format("ternary")),
    ((96, 64, 5, 2), Format("fp8_e4m3")),
    ((33, 7, 3, 1), Format("fp8_e4m3")),
]
KINDS = [
    pytest.param(size, format_, rows == "i8", id=f"{size}-{format_}-{rows}")
    for rows in ("bf16", "i8")
    for size, format_ in EXPERTS
    if multiplied(format_, rows)
]


@pytest.mark.parametrize(("size", "format_", "integers"), KINDS)
def test_experts(size: tuple[int, int, int, int], format_: Format, integers: bool) -> None:
    layer = Layer(size, format_, integers=integers)
    for tokens in (0, 1, 3, 70):
        inputs = layer.inputs(tokens)
        wanted = oracle(layer.text, {**inputs, **layer.parameters})
        for number, variant in enumerate(VARIANTS):
            found = layer.run(inputs, number)
            difference = np.abs(exact(found) - wanted).max(initial=0) / max(np.abs(wanted).max(initial=0), 1e-30)
            # An f32 sum and an exact one may round a hidden element to different bf16 or codes.
            assert difference < 2**-7, (tokens, variant.name)


@pytest.mark.parametrize(("size", "format_", "integers"), KINDS)
def test_a_token_has_the_same_bits_in_every_batch_and_with_every_number_of_threads(
    size: tuple[int, int, int, int], format_: Format, integers: bool
) -> None:
    layer = Layer(size, format_, integers=integers)
    inputs = layer.inputs(90)
    for variant in range(len(VARIANTS)):
        whole = layer.run(inputs, variant, threads=1)
        assert torch.equal(layer.run(inputs, variant, 3), whole)
        for begin, end in [(0, 1), (89, 90), (7, 20), (40, 75)]:
            part = {name: tensor[begin:end] for name, tensor in inputs.items()}
            assert torch.equal(layer.run(part, variant), whole[begin:end]), (begin, end)


@pytest.mark.parametrize("integers", [False, True], ids=["bf16", "i8"])
def test_a_bad_token_stays_alone(integers: bool) -> None:
    layer = Layer((96, 192, 5, 2), Format("int4", 32, "bf16"), integers=integers)
    inputs = layer.inputs(60)
    inputs["index"][inputs["index"] < 0] = 0
    for variant in range(len(VARIANTS)):
        clean = layer.run(inputs, variant)
        bad = {**inputs, "x": inputs["x"].clone()}
        bad["x"][0], bad["x"][31, 5], bad["x"][59, 95] = float("nan"), float("inf"), float("-inf")
        found = layer.run(bad, variant)
        others = [token for token in range(60) if token not in (0, 31, 59)]
        assert torch.equal(found[others], clean[others])
        assert not found[[0, 31, 59]].isfinite().any()


@pytest.mark.parametrize(
    "format_", [Format("int8"), Format("int4", 32, "bf16"), Format("int4"), Format("ternary")], ids=str
)
def test_all_variants_have_the_same_integer_sums(format_: Format) -> None:
    text = quantised.dense(192, 40, format_, "bf16", integers=True)
    x = torch.randn(50, 192).bfloat16()
    found = [compiled(text).run({"x": x}, {"w": weights((1, 40, 192))}, variant=v)["y"] for v in range(len(VARIANTS))]
    assert all(torch.equal(other, found[0]) for other in found)


@pytest.mark.parametrize(
    "format_",
    [
        Format("int8", given=True),
        Format("int4", given=True),
        Format("int4", 32, "bf16", given=True),
        Format("int4", 176, given=True),
        Format("ternary", given=True),
        Format("ternary", 352, given=True),
    ],
    ids=str,
)
def test_the_largest_integer_sums_are_exact(format_: Format) -> None:
    """With scales of 1, rows and codes at both ends of their range: no narrow sum may wrap or saturate."""
    inner, columns, how = 704, 24, CODES[format_.name]
    codes = torch.randint(how.lowest, how.highest + 1, (1, columns, inner), dtype=torch.int8)
    ends = torch.tensor([how.lowest, how.highest], dtype=torch.int8)
    codes[0, 0], codes[0, 1] = ends[0], ends[1]
    codes[0, 2:10] = ends[torch.randint(2, (8, inner))]
    x = torch.randint(-127, 128, (9, inner)).float()
    x[0], x[1] = 127, -127
    x[2:8] = torch.where(codes[0, 2:8] < 0, -127.0, 127.0)
    x[:, 0] = 127  # the largest: scales of rows are 1
    groups = inner // format_.group if format_.group else 1
    parameters = {"w.code": codes, "w.scale": torch.ones(1, columns, groups).to(DTYPES[format_.scale])}
    artifact = compiled(quantised.dense(inner, columns, format_, "bf16", integers=True))
    for number, variant in enumerate(VARIANTS):
        found = artifact.run({"x": x.bfloat16()}, parameters, variant=number)["y"]
        assert torch.equal(found, x @ codes[0].float().T), variant.name


@pytest.mark.parametrize(
    ("format_", "rows"),
    [
        (format_, rows)
        for format_ in FORMATS
        for rows in ROWS
        if format_ is FORMATS[0] or in_turn(format_, rows, 2)
        if multiplied(format_, rows)
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.name}-{value.group}-{value.scale}",
)
def test_given_codes_come_back(format_: Format, rows: str) -> None:
    inner, columns = SIZE
    given = Format(format_.name, format_.group, format_.scale, given=True)
    text = quantised.dense(inner, columns, given, "bf16" if rows == "i8" else rows, integers=rows == "i8")
    artifact = compiled(text)
    how = CODES[format_.name]
    most = how.highest
    codes = torch.randint(how.lowest, most + 1, (1, columns, inner)).to(DTYPES[how.element])
    groups = inner // format_.group if format_.group else 1
    parameters = {"w.code": codes, "w.scale": torch.rand(1, columns, groups).to(DTYPES[format_.scale])}
    x = torch.randn(9, inner).to(DTYPES["f32" if rows == "f32" else "bf16"])
    wanted = oracle(text, {"x": x, **parameters})
    sizes = np.abs(exact(x)).sum(-1, keepdims=True) * most
    for number, variant in enumerate(VARIANTS):
        assert error(artifact.run({"x": x}, parameters, variant=number)["y"], wanted, sizes) < 1e-6, variant.name
        packed = artifact.pack(parameters, number)
        for n, name in enumerate(artifact.parameters):
            back = torch.zeros_like(parameters[name])
            artifact.library.unpack(number, n, packed, back)
            assert same_bits(back, parameters[name]), (name, variant.name)


@pytest.mark.parametrize("rows", ["bf16", "f32"])
def test_every_code_of_fp8_is_exact(rows: str) -> None:
    """Rows with a single 1 select codes."""
    artifact = compiled(quantised.dense(256, 40, Format("fp8_e4m3", given=True), rows, integers=False))
    every = torch.arange(256, dtype=torch.uint8)
    codes = torch.stack([every.roll(n) for n in range(40)])[None].contiguous().view(torch.float8_e4m3fn)
    finite = torch.where(codes.float().isnan(), 0, codes.view(torch.uint8)).view(torch.float8_e4m3fn)
    scales = torch.rand(1, 40, 1) + 0.5
    for variant in range(len(VARIANTS)):
        found = artifact.run(
            {"x": torch.eye(256).to(DTYPES[rows])}, {"w.code": finite, "w.scale": scales}, variant=variant
        )
        assert torch.equal(found["y"], (finite[0].float() * scales[0]).T)
        spoilt = codes.clone()
        spoilt[:, 20:] = finite[:, 20:]
        parameters = {"w.code": spoilt, "w.scale": scales}
        y = artifact.run({"x": torch.ones(3, 256).to(DTYPES[rows])}, parameters, variant=variant)["y"]
        assert y[:, :20].isnan().all()
        assert y[:, 20:].isfinite().all()
        back = torch.zeros_like(codes)
        artifact.library.unpack(variant, artifact.parameters.index("w.code"), artifact.pack(parameters, variant), back)
        assert same_bits(back, spoilt)


def test_unpacking_gives_code_times_scale() -> None:
    text = quantised.dense(64, 33, Format("int4", 32, "bf16"), "f32", integers=False)
    artifact = compiled(text)
    w = weights((1, 33, 64))
    grouped = w.view(33, 2, 32)
    scale = (grouped.abs().amax(-1, keepdim=True) / 7).bfloat16().float()
    wanted = (grouped / scale).nan_to_num(0.0).round().clamp(-8, 7) * scale
    for number in range(len(VARIANTS)):
        back = torch.zeros_like(w)
        artifact.library.unpack(number, 0, artifact.pack({"w": w}, number), back)
        assert torch.equal(back, wanted.view_as(w))


def test_floats_are_not_multiplied_by_rows_of_integers() -> None:
    with pytest.raises(Unsupported, match="rows of int8 times weights as fp8_e4m3"):
        Artifact(quantised.dense(64, 8, Format("fp8_e4m3"), "bf16", integers=True), VARIANTS[-1:])


def test_sums_that_could_overflow_are_refused() -> None:
    with pytest.raises(Unsupported, match="32 bits"):
        Artifact(quantised.dense(140000, 1, Format("int8"), "bf16", integers=True), VARIANTS[-1:])
