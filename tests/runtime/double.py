"""Builds artifacts of the test double (double.c), each with what a test needs wrong about it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import tvm_ffi

from moec.artifact.container import write
from moec.artifact.manifest import (
    Guarantees,
    Loss,
    Manifest,
    Source,
    StepTensor,
    TokenTensor,
    Training,
    Variant,
    Weight,
)

SOURCE = Path(__file__).with_name("double.c")


def manifest(one_input: bool = False) -> Manifest:
    """The manifest that belongs to double.c."""
    x, ids = TokenTensor("x", (4,), "f32"), TokenTensor("task", (), "i32")
    return Manifest(
        compiler="moec 0.1.0",
        layer="Double",
        source=Source("double.moe", "0" * 64),
        options={},
        target="cpu",
        variants=(Variant("best", ("of_tomorrow",), "b" * 16), Variant("plain", (), "a" * 16)),
        inputs=(x,) if one_input else (x, ids),
        outputs=(TokenTensor("y", (4,), "f32"),),
        parameters=(
            Weight("routed.scale.weight", (5, 4), "f32", "parameter"),
            Weight("shift", (4,), "f32", "parameter"),
            Weight("router.table", (5,), "i32", "buffer"),
        ),
        guarantees=Guarantees(True, True, True, True, "f32"),
    )


STEP = (
    StepTensor("probability", "loss", 1, (5,), "f32"),
    StepTensor("count", "loss", 0, (5,), "i32"),
    StepTensor("z", "loss", 1, (1,), "f32"),
    StepTensor("row", "saved", 1, (), "i32"),
    StepTensor("halves", "saved", 2, (2,), "f32"),
)


@cache
def compiled(*defines: str) -> bytes:
    """The shared library of double.c with these macros defined."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    include = Path(tvm_ffi.__file__).parent / "include"
    with TemporaryDirectory() as folder:
        library = Path(folder) / "double.so"
        flags = ["-O1", "-shared", "-fPIC", f"-I{include}", *(f"-D{d}" for d in defines)]
        subprocess.run(["cc", *flags, str(SOURCE), "-o", str(library)], check=True)
        return library.read_bytes()


def artifact(folder: Path, *defines: str, layer: str = "Double", losses: tuple[Loss, ...] = ()) -> Path:
    """An artifact of the double in `folder`; another `layer` makes it another artifact than those that are loaded.

    With TRAINING among `defines` it can be trained and asks for `losses`.
    """
    path = folder / "double.so"
    described = replace(manifest("ONE_INPUT" in defines), layer=layer)
    if "TRAINING" in defines:
        described = replace(described, training=Training(STEP, losses, ("x", "routed.scale.weight", "shift")))
    write(path, compiled(*defines), described, {"source/double.moe": f"layer {layer} {{}}\n"})
    return path


def weights() -> dict[str, torch.Tensor]:
    """A state dict with values that all differ."""
    return {
        "routed.scale.weight": torch.arange(20, dtype=torch.float32).reshape(5, 4) + 1,
        "shift": torch.tensor([0.5, -0.5, 0.25, 0.0]),
        "router.table": torch.tensor([4, 2, 0, 1, 3], dtype=torch.int32),
    }


def expected(x: torch.Tensor, task: torch.Tensor | int, state: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
    """What the layer computes, in PyTorch."""
    state = state or weights()
    ids = torch.as_tensor(task, dtype=torch.int64)
    return x * state["routed.scale.weight"][state["router.table"].long()[ids]] + state["shift"]


def expected_loss_tensors(
    x: torch.Tensor, task: torch.Tensor, state: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The loss tensors of a step for tokens `(T, 4)`, in PyTorch."""
    rows = state["router.table"].long()[task.long()]
    return {
        "probability": x @ state["routed.scale.weight"].T,
        "count": torch.bincount(rows, minlength=5).int(),
        "z": x[:, :1] * state["shift"][0],
    }
