"""`moec calibrate`: from files of weights and samples to scales, which layers take."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from moec.artifact import hls
from moec.cli.app import app
from moec.fixed.layout import layout
from moec.runtime.hls.layer import SimulatedLayer
from tests.runtime.hls.projects import Reference, write

LAYER = """layer L(d = 24, ff = 32) {
  router task_moe(2, tasks = 2)
  experts routed[4] = mlp_gelu(d, ff) : int8(per = channel)
}"""


def safetensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Written from the format's description: length, header, data."""
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int8: "I8"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def floats(tensors: dict[str, torch.Tensor]) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


class Files:
    """A project, a layer of it with weights, and the same weights and samples as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = write(folder, LAYER)
        read = hls.read(self.project)
        self.layer = SimulatedLayer(read, Reference(read.project.design)).reset_parameters(0)
        self.tensors = {f"block.{name}": tensor for name, tensor in self.layer.state_dict().items()}
        safetensors(folder / "w.safetensors", self.tensors)
        np.savez(folder / "w.npz", **floats(self.tensors))
        self.x = torch.randn(10, 20, 24)
        self.task = torch.randint(0, 2, (10, 20), dtype=torch.int32)
        np.savez(folder / "s.npz", x=self.x.numpy(), task=self.task.numpy())

    def run(self, *more: str, weights: str = "w.safetensors", samples: str = "s.npz", prefix: str = "block.") -> Any:
        given = ["--weights", str(self.folder / weights), "--samples", str(self.folder / samples), "--prefix", prefix]
        return CliRunner().invoke(app, ["calibrate", str(self.project), *given, *more])


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_it_finds_what_the_layer_itself_finds(files: Files) -> None:
    done = files.run("--check", str(files.folder / "s.npz"))
    assert done.exit_code == 0, done.output
    assert "relative error" in done.output
    first = files.layer.load_calibration(files.project / "calibration.json")
    assert first.checked == first.error
    own = files.layer.calibrate(files.x.bfloat16().float().bfloat16(), files.task)
    assert own.scales.hidden == pytest.approx(first.scales.hidden, rel=0.05)
    assert first.error.agreeing < 0.05
    files.layer.load_calibration(files.project / "calibration.json")
    assert files.layer(files.x.bfloat16(), files.task).shape == files.x.shape


def test_npz_and_safetensors_hold_the_same(files: Files) -> None:
    one, two = files.folder / "one.json", files.folder / "two.json"
    assert files.run("-o", str(one)).exit_code == 0
    assert files.run("-o", str(two), weights="w.npz").exit_code == 0
    assert one.read_text() == two.read_text()
    assert not (files.project / "calibration.json").exists()


def test_it_writes_what_a_boards_memory_holds(files: Files) -> None:
    path = files.folder / "memory.npy"
    assert files.run("--memory", str(path)).exit_code == 0
    design = files.layer.project.design
    memory = np.load(path)
    assert memory.shape == (design.ports, layout(design).beats, design.port_bits // 8)
    files.layer.load_calibration(files.project / "calibration.json")
    from moec.fixed.packing import pack

    assert np.array_equal(memory, pack(design, files.layer._current()))


def test_the_project_stays_what_it_was(files: Files) -> None:
    assert files.run().exit_code == 0
    hls.read(files.project)


def test_files_that_are_none_are_refused(files: Files) -> None:
    folder = files.folder
    torch.save(files.tensors, folder / "w.pt")
    np.save(folder / "narrow.npy", np.zeros((3, 23)))
    np.save(folder / "x.npy", files.x.numpy())
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (folder / "short.safetensors").write_bytes((folder / "w.safetensors").read_bytes()[:-1])
    (folder / "long.safetensors").write_bytes(b"\xff" * 16)
    text = (folder / "w.safetensors").read_bytes()
    (folder / "overlap.safetensors").write_bytes(text.replace(b"[0, ", b"[1, "))
    (folder / "list.safetensors").write_bytes(struct.pack("<Q", 2) + b"[]")
    entry = json.dumps({"block.router.gates.weight": 3}).encode()
    (folder / "entry.safetensors").write_bytes(struct.pack("<Q", len(entry)) + entry)
    missing = dict(list(files.tensors.items())[1:])
    np.savez(folder / "missing.npz", **floats(missing))
    np.savez(folder / "shape.npz", **{name: one[:1] for name, one in floats(files.tensors).items()})
    np.savez(folder / "codes.npz", **{n: one.astype(np.int64) for n, one in floats(files.tensors).items()})
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("block.router.gates.weight.npy", b"\0" * (1 << 22))
    (folder / "junk.npy").write_bytes(b"no numbers")
    np.savez(folder / "other.npz", y=files.x.numpy())
    with zipfile.ZipFile(folder / "text.npz", "w") as archive:
        archive.writestr("x", b"no numbers")
    for given, why in [
        ({"weights": "w.pt"}, "may hold code"),
        ({"weights": "short.safetensors"}, "it ends within"),
        ({"weights": "long.safetensors"}, "header is too long"),
        ({"weights": "overlap.safetensors"}, "lies outside"),
        ({"weights": "list.safetensors"}, "not an object"),
        ({"weights": "entry.safetensors"}, "does not hold"),
        ({"weights": "missing.npz"}, "there is no 'block.router.gates.weight'"),
        ({"weights": "shape.npz"}, "has the shape"),
        ({"weights": "codes.npz"}, "holds int64"),
        ({"weights": "bomb.npz"}, "too large"),
        ({"weights": "none.npz"}, "No such file"),
        ({"prefix": ""}, "there is no 'router.gates.weight'"),
        ({"samples": "narrow.npy"}, "[3, 23]"),
        ({"samples": "x.npy"}, "with a task for each row"),
        ({"samples": "objects.npy"}, "does not hold samples"),
        ({"samples": "junk.npy"}, "does not hold samples"),
        ({"samples": "other.npz"}, "there is no 'x'"),
        ({"samples": "text.npz"}, "x is not an array"),
    ]:
        done = files.run(**given)
        assert done.exit_code == 1
        assert why in done.output.replace("\n", " "), (given, done.output)
        assert "pickle" not in done.output
