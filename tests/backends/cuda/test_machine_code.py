"""What nvcc makes of the kernels: code for every architecture, without spilled registers or arrays in local memory."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.cuda.shapes import Shape
from moec.backends.cuda.arch import ARCHITECTURES
from moec.backends.cuda.matmul import emit
from moec.pipeline import Compilation
from tests.backends.cuda import machine_code
from tests.backends.cuda.calls import Function
from tests.backends.cuda.products import SWIGLU, Emitted, Product
from tests.backends.cuda.simulator import INCLUDE
from tests.backends.cuda.test_weight_gradient import gradients

WEIGHTED = """%e = "moe.element"(%w) {kind = "slot"} : (tensor<?x8xf32>) -> f32
      %v = arith.mulf %a0, %e : f32"""
PRODUCTS = {
    "up": Product(inner=2048, columns=768, experts=128, per_token=8, products=2, body=SWIGLU),
    "down": Product(inner=768, columns=2048, experts=128, per_token=8, gather=False, body=WEIGHTED),
    "transposed": Product(inner=2048, columns=768, experts=128, per_token=8, gather=False, transposed=True),
    "f16": Product(inner=1000, columns=104, experts=8, per_token=2, type="f16", products=3),
    "divided": Product(inner=3072, columns=768, experts=8),
    "codes": Product(inner=2048, columns=768, experts=128, per_token=8, products=2, format="int8", body=SWIGLU),
    "down_codes": Product(
        inner=768, columns=2048, experts=128, per_token=8, gather=False, format="int8", scale="bf16", body=WEIGHTED
    ),
    "codes_fp8": Product(inner=2048, columns=768, experts=128, per_token=8, products=2, format="fp8_e4m3", body=SWIGLU),
    "codes_fp8_f16": Product(inner=1024, columns=512, experts=8, per_token=2, type="f16", format="fp8_e4m3"),
    "codes_int4": Product(inner=2048, columns=768, experts=128, per_token=8, products=2, format="int4", body=SWIGLU),
    "codes_groups": Product(
        inner=2048, columns=768, experts=128, per_token=8, products=2, format="int4", group=32, body=SWIGLU
    ),
    "down_groups": Product(
        inner=768,
        columns=2048,
        experts=128,
        per_token=8,
        gather=False,
        format="int4",
        group=32,
        scale="bf16",
        body=WEIGHTED,
    ),
    "int8_groups": Product(inner=2048, columns=768, experts=128, products=2, format="int8", group=64),
    "ternary": Product(inner=768, columns=2048, experts=128, per_token=8, type="f16", format="ternary"),
    "whole": Product(
        inner=2048, columns=768, experts=128, per_token=8, products=2, format="int8", body=SWIGLU, rounded=True
    ),
    "whole_down": Product(
        inner=768, columns=2048, experts=128, per_token=8, gather=False, format="int8", body=WEIGHTED, rounded=True
    ),
    "whole_int4": Product(inner=2048, columns=768, experts=128, products=2, format="int4", body=SWIGLU, rounded=True),
    "whole_ternary": Product(inner=768, columns=2048, experts=128, type="f16", format="ternary", rounded=True),
    "whole_32": Product(
        inner=2048,
        columns=768,
        experts=128,
        products=2,
        format="int4",
        group=32,
        scale="bf16",
        body=SWIGLU,
        rounded=True,
    ),
    "whole_64": Product(inner=2048, columns=768, experts=128, products=2, format="int4", group=64, rounded=True),
    "whole_128": Product(inner=768, columns=2048, experts=128, format="int8", group=128, scale="bf16", rounded=True),
    "logits": Product(inner=2048, columns=128, experts=None, type="f32", lhs_type="bf16", out="f32"),
    "logits_f16": Product(inner=2048, columns=128, experts=None, type="f32", lhs_type="f16", out="f32"),
}
WGMMA = ("up", "down", "divided", "transposed", "f16")
FROM_REGISTERS = re.compile(r"wgmma\.mma_async[^;]*\}, *\{%r\d+, %r\d+, %r\d+, %r\d+\}, %rd\d+,")
CODED = (
    "codes", "down_codes", "codes_fp8", "codes_fp8_f16", "codes_int4", "codes_groups", "down_groups", "int8_groups",
    "ternary",
)  # fmt: skip


WHOLE, WHOLE_BY_WGMMA = "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32", re.compile(r"wgmma.*k32\.s32\.s8\.s8")


IN_LOCAL_MEMORY = ("LDL", "STL")
OF_THE_MACHINE: dict[str | re.Pattern[str], str] = {
    "mma.sync": r"HMMA\.",
    "wgmma": r"HGMMA\.",
    "wgmma.mma_async": r"HGMMA\.64x\d+x16\.F32",
    FROM_REGISTERS: r"HGMMA\.64x\d+x16\.\S+ R\d+, R\d+, gdesc",
    WHOLE: r"IMMA\.16832\.S8\.S8",
    WHOLE_BY_WGMMA: r"IGMMA\.64x\d+x32\.S8\.S8",
    "cp.async.bulk.tensor.3d": r"UTMALDG\.3D",
    "cp.async.cg": r"LDGSTS\.",
    "setmaxnreg.inc": r"USETMAXREG\.TRY_ALLOC",
    "movmatrix.sync": r"MOVM\.",
}
"""What instructions of PTX become."""


def _instructions(name: str, arch: str) -> tuple[str | re.Pattern[str], ...]:
    if name.startswith("whole"):
        return (WHOLE, WHOLE_BY_WGMMA) if arch == "sm_90a" and name not in ("whole_32", "whole_64") else (WHOLE,)
    if arch != "sm_90a":
        return ("mma.sync",)
    return (FROM_REGISTERS,) if name in CODED else ("wgmma" if name in WGMMA else "mma.sync",)


QUICK = [
    ("up", "sm_90a", ("wgmma.mma_async", "cp.async.bulk.tensor.3d", "setmaxnreg.inc", "cp.async.cg")),
    ("codes", "sm_90a", ("wgmma.mma_async", FROM_REGISTERS, "movmatrix.sync", "cp.async.cg")),
    ("whole", "sm_90a", (WHOLE, WHOLE_BY_WGMMA)),
]
CASES = QUICK + [
    pytest.param(name, arch, _instructions(name, arch), marks=pytest.mark.slow)
    for arch in ARCHITECTURES
    for name in PRODUCTS
    if (name, arch) not in [quick[:2] for quick in QUICK]
]


pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is missing")


def check(text: str, kernels: int, arch: str, instructions: tuple[str | re.Pattern[str], ...], folder: Path) -> None:
    """Compiles a source; no kernel of it may spill, and its PTX and machine code have the instructions."""
    source = folder / "kernels.cu"
    source.write_text(text)
    target = f"-gencode=arch={arch.replace('sm', 'compute')},code={arch}"
    command = ["nvcc", target, "-std=c++17", f"-I{INCLUDE}", "-cubin", "-Xptxas", "-v", "--keep"]
    command += ["--keep-dir", str(folder), "-o", str(folder / "kernels.cubin"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    spilled = re.findall(r"(\d+) bytes spill stores", done.stderr)
    assert spilled == ["0"] * kernels, done.stderr
    assert set(re.findall(r"(\d+) bytes stack frame", done.stderr)) == {"0"}, (
        done.stderr
    )  # nothing is indexed in memory
    assert not re.search("serialized|setmaxnreg", done.stderr), done.stderr  # such products wait; it is ignored
    ptx = (folder / "kernels.ptx").read_text()
    for instruction in instructions:
        assert re.search(instruction, ptx)
    if machine_code.disassembler() is None:
        return
    found = machine_code.instructions(folder / "kernels.cubin")
    every = [one for of_kernel in found.values() for one in of_kernel]
    assert len(found) == kernels
    assert not [one for one in every if one.startswith(IN_LOCAL_MEMORY)]
    for instruction in instructions:
        assert any(re.match(OF_THE_MACHINE[instruction], one) for one in every), OF_THE_MACHINE[instruction]


@pytest.mark.parametrize(("name", "arch", "instructions"), CASES)
def test_matmuls(name: str, arch: str, instructions: tuple[str | re.Pattern[str], ...], tmp_path: Path) -> None:
    emitted = Emitted(PRODUCTS[name], ARCHITECTURES[arch], emit.matmul)
    check(emitted.source, len(emitted.kernels), arch, instructions, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_products_of_several_formats(arch: str, tmp_path: Path) -> None:
    shape = Shape("Mixed", 64, 2048, 1024, 8, 4096, codes="int4", group=32, given=False, some=16)
    (tmp_path / "layer.moe").write_text(shape.source)
    source = Compilation(tmp_path / "layer.moe", target=f"cuda:{arch}").emit("cuda")
    assert source.count("moec::GridShare<1, 2>") == 4
    product = ("wgmma", FROM_REGISTERS) if arch == "sm_90a" else ("mma.sync",)
    check(source, source.count("\nMOEC_KERNEL("), arch, product, tmp_path)


SHARED = """edition 1
layer Shared(d = 2048, ff = 1408) {
  router softmax_top(6) : f32
  experts routed[64] = swiglu(d, ff) : bf16
  shared common = sigmoid(linear(x, 1)) * swiglu(d, 5632) : bf16
  shared coded[2] = swiglu(d, 1024) : int8(per = channel)
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_shared_experts_beside_routed_ones(arch: str, tmp_path: Path) -> None:
    (tmp_path / "layer.moe").write_text(SHARED)
    source = Compilation(tmp_path / "layer.moe", target=f"cuda:{arch}").emit("cuda")
    assert "moec::GridShare<4, 5>" in source
    product = ("wgmma", FROM_REGISTERS) if arch == "sm_90a" else ("mma.sync",)
    check(source, source.count("\nMOEC_KERNEL("), arch, product, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_layer_that_is_trained(arch: str, tmp_path: Path) -> None:
    shape = Shape("Trained", 64, 2048, 1024, 8, 4096)
    (tmp_path / "layer.moe").write_text(shape.source)
    source = Compilation(tmp_path / "layer.moe", target=f"cuda:{arch}", training=True).emit("cuda")
    product = "wgmma" if arch == "sm_90a" else "mma.sync"
    check(source, source.count("\nMOEC_KERNEL("), arch, (product,), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_gradients_of_weights(arch: str, tmp_path: Path) -> None:
    function = Function(gradients(128, 2048, 768, 8, "bf16", "bf16"), arch)
    check(function.source, 2, arch, ("wgmma" if arch == "sm_90a" else "mma.sync",), tmp_path)
