"""Loading: what is verified is what runs, and everything that can be wrong has its own error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import moec
from moec.artifact.container import write
from moec.errors import ArtifactError, MoecError, NotAnArtifact, TamperedArtifact, TruncatedArtifact, UnsupportedCpu
from moec.runtime import native
from tests.runtime import double


def python(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_loading_imports_no_compiler(path: Path) -> None:
    assert python("import moec, sys; print(len([m for m in sys.modules if m.startswith('moec')]))") == "1"
    code = """
import sys, moec
moec.load(sys.argv[1]).reset_parameters(0)
print([m for m in sys.modules if m.split(".")[0] in ("torch_mlir", "lark", "rich", "typer")
       or m.startswith(("moec.frontend", "moec.passes", "moec.backends", "moec.pipeline", "moec.dialect"))
       or m == "torch._dynamo"])
"""
    assert python(code, path) == "[]"


def test_the_best_usable_variant_is_taken(path: Path, tmp_path: Path) -> None:
    assert moec.load(path).variant == "plain"
    assert moec.load(double.artifact(tmp_path, "SUPPORTS=3")).variant == "best"
    assert moec.load(double.artifact(tmp_path, "SUPPORTS=3"), variant="plain").variant == "plain"


def test_variants_pack_differently_and_compute_the_same(tmp_path: Path) -> None:
    both = double.artifact(tmp_path, "SUPPORTS=3")
    x = torch.randn(3, 4)
    for variant in ("best", "plain"):
        layer = moec.load(both, variant=variant)
        layer.load_state_dict(double.weights())
        assert torch.equal(layer(x, 1), double.expected(x, 1))
        assert torch.equal(layer.state_dict()["shift"], double.weights()["shift"])


def test_a_variant_that_cannot_be_used(path: Path) -> None:
    with pytest.raises(UnsupportedCpu, match="cannot run the variant 'best', only plain"):
        moec.load(path, variant="best")
    with pytest.raises(UnsupportedCpu, match="has no variant 'fast'; it has best, plain"):
        moec.load(path, variant="fast")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mesh": "rank"}, "`mesh` is a DeviceMesh that `init_device_mesh` made, not 'rank'"),
        ({"mesh": 2, "timeout": -1.0}, "`timeout` is a number of seconds above 0, not -1.0"),
        ({"elastic": True}, "`elastic` is for layers on a mesh"),
    ],
)
def test_what_is_no_mesh(path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(MoecError, match=re.escape(said)):
        moec.load(path, **options)


def test_no_variant_for_this_cpu(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCpu, match=r"best needs of_tomorrow; plain needs more"):
        moec.load(double.artifact(tmp_path, "SUPPORTS=0"))


def test_another_machine(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "host_machine", lambda: "aarch64")
    with pytest.raises(UnsupportedCpu, match="is compiled for x86_64; this machine is aarch64"):
        moec.load(double.artifact(tmp_path, layer="Elsewhere"))


def test_a_symbol_that_tvm_ffi_lacks(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"undefined symbol: TVMFFISomethingOfTomorrow.*tvm-ffi 0\."):
        moec.load(double.artifact(tmp_path, "MISSING_SYMBOL"))


def test_a_function_that_the_library_lacks(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not export `__tvm_ffi_run`"):
        moec.load(double.artifact(tmp_path, "WITHOUT_RUN"))


def test_an_elf_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "broken.so"
    code = double.compiled()
    write(file, code[:64] + bytes(512) + code[576:], double.manifest(), {})  # no program headers
    with pytest.raises(ArtifactError, match="the dynamic linker refuses its library"):
        moec.load(file)


@pytest.mark.parametrize("at", [100, 5000, -300, -1])
def test_nothing_of_a_tampered_file_is_executed(path: Path, tmp_path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    (tmp_path / "tampered.so").write_bytes(content)
    loaded = dict(native._LOADED)
    with pytest.raises(TamperedArtifact):
        moec.load(tmp_path / "tampered.so")
    assert loaded == native._LOADED


def test_files_that_are_no_artifacts(path: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.so"
    short.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(TruncatedArtifact):
        moec.load(short)
    (tmp_path / "plain.so").write_bytes(double.compiled())
    with pytest.raises(NotAnArtifact):
        moec.load(tmp_path / "plain.so")
    with pytest.raises(FileNotFoundError):
        moec.load(tmp_path / "none.so")


def test_a_running_layer_survives_its_file(tmp_path: Path) -> None:
    file = double.artifact(tmp_path, layer="Mine")
    layer = moec.load(file)
    layer.load_state_dict(double.weights())
    with file.open("r+b") as stream:  # what a careless `cp` does: the same inode, other bytes
        stream.truncate(0)
        stream.write(b"\xcc" * 2**16)
    x = torch.randn(5, 4)
    assert torch.equal(layer(x, 2), double.expected(x, 2))


def test_loaded_code_cannot_be_changed(path: Path) -> None:
    moec.load(path)
    ours = [
        fd
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}") and "memfd:moec:Double" in os.readlink(f"/proc/self/fd/{fd}")
    ]
    assert ours
    with pytest.raises(PermissionError):
        os.pwrite(int(ours[0]), b"x", 0)


def test_an_artifact_is_loaded_once(path: Path, tmp_path: Path) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    moec.load(path)
    (tmp_path / "copy.so").write_bytes(path.read_bytes())
    for _ in range(5):
        moec.load(tmp_path / "copy.so")
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1


def test_failed_loads_leave_no_descriptor(tmp_path: Path) -> None:
    file = double.artifact(tmp_path, "MISSING_SYMBOL")
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ArtifactError):
            moec.load(file)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_two_artifacts_do_not_mix(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.so"
    write(other, double.compiled("ONE_INPUT"), replace(double.manifest(one_input=True), layer="Other"), {})
    a, b = moec.load(path), moec.load(other)
    a.load_state_dict(double.weights())
    b.load_state_dict(double.weights())
    x = torch.randn(2, 4)
    assert torch.equal(a(x, 3), double.expected(x, 3))
    assert torch.equal(b(x), double.expected(x, 0))
