"""A small manifest and a library that is an ELF header and nothing else: enough for what never executes it."""

from __future__ import annotations

import struct
from dataclasses import replace

from moec.artifact.manifest import (
    ExpertRegion,
    Guarantees,
    Loss,
    Manifest,
    Source,
    Statistic,
    StepTensor,
    TokenTensor,
    Training,
    Variant,
    Weight,
)
from moec.artifact.quantised import Quantised, Stored


def manifest() -> Manifest:
    return Manifest(
        compiler="moec 0.1.0",
        layer="Sample",
        source=Source("sample.moe", "ab" * 32),
        options={"ff": 16},
        target="cpu",
        variants=(
            Variant("avx512", ("avx512f",), "0123456789abcdef", (ExpertRegion(64, 512, tuple(range(8))),)),
            Variant("generic", (), "fedcba9876543210"),
        ),
        inputs=(TokenTensor("x", (32,), "bf16"), TokenTensor("task", (), "i32")),
        outputs=(TokenTensor("y", (32,), "bf16"),),
        parameters=(
            Weight("router.logits.weight", (8, 32), "f32", "parameter"),
            Weight("routed.up.weight", (8, 16, 32), "bf16", "parameter"),
            Weight("router.bias", (8,), "f32", "buffer"),
        ),
        guarantees=Guarantees(True, True, True, True, "f32"),
        statistics=(Statistic("chosen", "routed", 2, (8,)), Statistic("kept", "routed", 2, (8,))),
    )


def training() -> Training:
    return Training(
        step=(
            StepTensor("probability", "loss", 1, (8,), "f32"),
            StepTensor("count", "loss", 0, (8,), "i32"),
            StepTensor("routed.up", "saved", 2, (16,), "bf16"),
        ),
        losses=(Loss("balance", 0.01, "global"),),
        gradients=("x", "router.logits.weight", "routed.up.weight"),
    )


def quantised() -> Manifest:
    """A layer that is given codes of one group, and quantises some experts of another while packing."""
    made = Stored(("routed.up.weight",), (), (1, 2, 3, 7), "int4", 8, "bf16")
    given = Stored(("common.up.weight", "common.down.weight"), ("common.up.scale", "common.down.scale"), None, "int8",
                   None, "f32")  # fmt: skip
    weights = (
        Weight("common.up.weight", (2, 16, 32), "i8", "parameter"),
        Weight("common.up.scale", (2, 16), "f32", "parameter"),
        Weight("common.down.weight", (2, 32, 16), "i8", "parameter"),
        Weight("common.down.scale", (2, 32), "f32", "parameter"),
    )
    plain = manifest()
    return replace(plain, parameters=(*plain.parameters, *weights), quantised=Quantised("int8", (made, given)))


def library(machine: int = 62, kind: int = 3, body: bytes = b"code" * 64) -> bytes:
    identity = struct.pack("<4sBBB9x", b"\x7fELF", 2, 1, 1)
    return identity + struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0) + body
