"""What the manifest says about training is read off the functions that the compiler made."""

from __future__ import annotations

from pathlib import Path

from moec.artifact.manifest import Loss, StepTensor
from moec.dialect import context
from moec.pipeline import Compilation
from moec.pipeline.describe_training import training
from moec.pipeline.ir_text import parse

LAYER = """edition 1
layer Small(d = 24, ff = 10) {
  router softmax_top(2)
  experts routed[6] = swiglu(d, ff) : bf16
}
"""
SAVED = (
    StepTensor("routed.index", "saved", 1, (2,), "i32"),
    StepTensor("routed.weight", "saved", 1, (2,), "f32"),
    StepTensor("routed.gate", "saved", 2, (10,), "bf16"),
    StepTensor("routed.up", "saved", 2, (10,), "bf16"),
    StepTensor("router.logits", "saved", 1, (6,), "f32"),
)
GRADIENTS = ("x", "router.logits.weight", "routed.gate.weight", "routed.up.weight", "routed.down.weight")


def test_training_is_described(tmp_path: Path) -> None:
    path = tmp_path / "small.moe"
    path.write_text(LAYER)
    record = training(Compilation(path, training=True).kernels)
    assert record is not None
    assert sorted(record.step, key=lambda t: t.name) == sorted(SAVED, key=lambda t: t.name)
    assert record.losses == ()
    assert record.gradients == GRADIENTS


def test_inference_has_no_such_record(tmp_path: Path) -> None:
    path = tmp_path / "small.moe"
    path.write_text(LAYER)
    assert training(Compilation(path).kernels) is None


def test_what_was_differentiated_is_not_again(tmp_path: Path) -> None:
    path = tmp_path / "small.moe"
    path.write_text(LAYER)
    text = Compilation(path, training=True).emit("kernels")
    again = tmp_path / "again.mlir"
    again.write_text(text)
    assert Compilation(again, training=True, passes=()).emit("kernels") == text


def test_losses_come_from_the_module() -> None:
    sample = (Path(__file__).parents[1] / "ir" / "training_sample.mlir").read_text()
    record = training(parse(sample, "sample", context()))
    assert record is not None
    assert record.losses == (Loss("balance", 0.01, "batch"), Loss("z", 0.001, "batch"))
    assert [t.name for t in record.step if t.role == "loss"] == ["probability", "count", "z"]
    assert StepTensor("count", "loss", 0, (6,), "i32") in record.step
