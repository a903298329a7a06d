"""Code that nothing can call any more leaves the process: its mapping and its descriptor, and nothing else."""

from __future__ import annotations

import gc
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import moec
from moec.artifact.container import Artifact, parse, read, write
from moec.errors import ArtifactError
from moec.runtime import native
from tests.runtime import double

pytestmark = pytest.mark.usefixtures("alone")


def mapped() -> int:
    """How many mappings of loaded doubles there are."""
    return Path("/proc/self/maps").read_text().count("memfd:moec:")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def artifact(folder: Path, layer: str, *defines: str) -> Artifact:
    path = folder / f"{layer}.so"
    write(path, double.compiled(*defines), replace(double.manifest(), layer=layer), {})
    return read(path)


def test_hundreds_of_loads_leave_nothing(tmp_path: Path) -> None:
    artifacts = [artifact(tmp_path, f"L{i}") for i in range(40)]
    gc.collect()
    before = mapped(), descriptors()
    for turn in range(400):
        code = native.library(artifacts[turn % 40])
        kernel = native.bind(code, "plain")
        assert kernel.call("packed_bytes") == 256
        assert mapped() > before[0]
        del code, kernel
    assert (mapped(), descriptors()) == before


def test_what_comes_to_the_same_descriptor_is_other_code(tmp_path: Path) -> None:
    """The dynamic linker knows libraries by path: one that is gone must not be taken for the next."""
    for supports, names in ((2, ("plain",)), (3, ("best", "plain")), (1, ("best",))) * 5:
        assert native.library(artifact(tmp_path, "Same", f"SUPPORTS={supports}")).supported == names


def test_any_reference_keeps_the_code(tmp_path: Path) -> None:
    before = mapped()
    code = native.library(artifact(tmp_path, "Kept"))
    kernel = native.bind(code, "plain")
    del code
    assert kernel.call("packed_bytes") == 256
    run = kernel.entry
    del kernel
    assert mapped() > before
    del run
    assert mapped() == before


def test_a_running_call_keeps_the_code(tmp_path: Path) -> None:
    before = mapped()
    holder = [native.bind(native.library(artifact(tmp_path, "Slow", "SLEEP_US=300000")), "plain")]
    packed, workspace = torch.zeros(256, dtype=torch.uint8), torch.empty(4096, dtype=torch.uint8)
    x, ids, y = torch.ones(2, 4), torch.zeros(2, dtype=torch.int32), torch.ones(2, 4)

    def call() -> None:
        holder.pop().run(1, packed, workspace, x, ids, y)

    thread = threading.Thread(target=call)
    thread.start()
    while holder:
        time.sleep(0.001)
    during = mapped()
    assert during > before or not thread.is_alive()
    thread.join()
    assert torch.equal(y, torch.zeros(2, 4))
    assert mapped() == before


def test_what_moec_load_gave_stays_for_programs(tmp_path: Path) -> None:
    """An exported program names its artifact by digest, and may come after the layer is dropped."""
    path = double.artifact(tmp_path, layer="Pinned")
    moec.load(path)
    gc.collect()
    weights, x = list(double.weights().values()), torch.ones(2, 4)
    ids = torch.zeros(2, dtype=torch.int32)
    (y,) = torch.ops.moec.run(None, weights, [x, ids], read(path).sha256, "")
    assert torch.equal(y, double.expected(x, 0))


def test_code_that_nobody_pinned_is_unknown_to_programs(tmp_path: Path) -> None:
    code = native.library(artifact(tmp_path, "Loose"))
    with pytest.raises(ArtifactError, match="is not loaded in this process"):
        native.kernel(code.sha256, "")
    assert native.library(read(tmp_path / "Loose.so")) is code
    native.library(read(tmp_path / "Loose.so"), pinned=True)
    assert native.kernel(code.sha256, "").library is code


def test_failures_leave_nothing(tmp_path: Path) -> None:
    lacking = artifact(tmp_path, "Lacking", "WITHOUT_RUN")
    broken = parse((tmp_path / "Lacking.so").read_bytes(), "broken")
    broken = replace(broken, library=broken.library[:64] + bytes(512) + broken.library[576:])
    before = mapped(), descriptors()
    for wrong in (lacking, broken) * 3:
        with pytest.raises(ArtifactError):
            native.library(wrong)
    gc.collect()
    assert (mapped(), descriptors()) == before
