"""The text of the kernels around the matmuls, and what nvcc makes of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from moec.backends.cuda.arch import ARCHITECTURES
from tests.backends.cuda.calls import Function
from tests.backends.cuda.simulator import INCLUDE
from tests.backends.cuda.test_fused_route import routed
from tests.backends.cuda.test_plan import capacity


def test_the_text_of_a_router(golden: Callable[[str, str], None]) -> None:
    function = Function(routed(128, 2048, 8))
    ours = [kernel for kernel in function.kernels if "product" not in kernel.name]
    golden("router.cu", "\n".join(kernel.source for kernel in ours))


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is missing")
@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_register_is_spilled(arch: str, tmp_path: Path) -> None:
    texts = {"r": routed(128, 2048, 8), "s": capacity(64, 2, "score"), "c": capacity(64, 2, "choice")}
    functions = [Function(text, arch, prefix=name) for name, text in texts.items()]
    source = tmp_path / "kernels.cu"
    source.write_text("".join(function.source for function in functions))
    command = ["nvcc", f"-arch={arch}", "-std=c++17", f"-I{INCLUDE}", "-cubin", "-Xptxas", "-v", "--keep"]
    command += ["--keep-dir", str(tmp_path), "-o", str(tmp_path / "kernels.cubin"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    spilled = re.findall(r"(\d+) bytes spill stores", done.stderr)
    assert spilled == ["0"] * sum(len(function.kernels) for function in functions), done.stderr
    ptx = (tmp_path / "kernels.ptx").read_text()
    for instruction in ("redux.sync.max.u32", "mma.sync.aligned.m16n8k16", "cp.async.cg", "ldmatrix.sync"):
        assert instruction in ptx
