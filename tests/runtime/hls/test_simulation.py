"""Projects whose sources are built and run: their C++ by g++, their SystemVerilog by Verilator."""

from __future__ import annotations

import os
import pickle
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import moec
from moec.artifact import hls
from moec.backends.hls.cpp import project as cpp
from moec.errors import CacheError, MoecError, TamperedArtifact, ToolchainError
from moec.fixed.design import Design
from moec.runtime.hls import build
from moec.runtime.hls.layer import SimulatedLayer
from tests.runtime.hls.projects import Reference, write

needs_csim = pytest.mark.skipif(
    shutil.which("g++") is None or find_spec("hls4ml") is None, reason="g++ or hls4ml is not installed"
)
needs_rtl = pytest.mark.skipif(
    shutil.which("verilator") is None or find_spec("circt") is None, reason="verilator or circt is not installed"
)

LAYER = """layer L(d = 20, ff = 12) {
  router task_moe(2, tasks = 2)
  experts routed[5] = swiglu(d, ff) : int8(per = channel)
  shared common = swiglu(d, 8) : int8(per = channel)
}"""
INT4 = """layer L(d = 20, ff = 12) {
  router sigmoid_top(2)
  experts routed[5] = mlp_relu(d, ff, bias = true) : int4(per = channel)
}"""


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of this module's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("MAKEFLAGS", "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0")  # Verilator's builds
        yield folder / "moec" / "simulations"


def with_csim(design: Design) -> dict[str, bytes]:
    return cpp.files(design, rtl=False)


def with_rtl(design: Design) -> dict[str, bytes]:
    from moec.backends.hls.rtl import project as rtl

    return rtl.files(design)


def agrees(made: SimulatedLayer, tasks: bool) -> None:
    """Gives the reference's bits, for more tokens than one call of the hardware takes, and for none."""
    made.reset_parameters(0)
    x = torch.randn(30, 20, dtype=torch.bfloat16)
    given = (torch.arange(30, dtype=torch.int32) % 2,) if tasks else ()
    made.calibrate(x, *given)
    twin = SimulatedLayer(hls.Folder("", "", made.project, {}), Reference(made.project.design))
    twin.load_state_dict(made.state_dict())
    twin._take(made.calibration)
    assert torch.equal(made(x, *given), twin(x, *given))
    assert made(x[:0], *(one[:0] for one in given)).shape == (0, 20)
    assert torch.equal(made(x[:1], *(one[:1] for one in given)), twin(x, *given)[:1])


@needs_csim
def test_the_cpp_gives_the_bits_of_the_reference(tmp_path: Path, cache: Path) -> None:
    out = write(tmp_path, LAYER, with_csim)
    made = moec.load(out)
    agrees(made, tasks=True)
    built = {path: path.stat().st_mtime_ns for path in cache.glob("csim-*.so")}
    assert len(built) == 1
    assert made.extra_repr().startswith("L, hls:bench, csim")
    del made
    moec.load(out, rtl=False)
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*.so")} == built
    with pytest.raises(MoecError, match="cannot be pickled"):
        pickle.dumps(moec.load(out))


@needs_rtl
@pytest.mark.parametrize("text", [LAYER, pytest.param(INT4, marks=pytest.mark.slow)])
def test_the_systemverilog_gives_the_bits_of_the_reference(tmp_path: Path, text: str) -> None:
    agrees(moec.load(write(tmp_path, text, with_rtl), rtl=True), tasks="task_moe" in text)


def test_options_of_other_layers_are_refused(tmp_path: Path) -> None:
    out = write(tmp_path, LAYER)
    for option in ({"training": True}, {"variant": "generic"}, {"adapt": True}, {"keep_weights": True}):
        with pytest.raises(MoecError, match="nothing but `rtl`"):
            moec.load(out, **option)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write(tmp_path, LAYER)
    with pytest.raises(ToolchainError, match="written without rtl/"):
        moec.load(out, rtl=True)
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    with pytest.raises(ToolchainError, match="no `no-such-compiler`"):
        moec.load(out)
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    with pytest.raises(ToolchainError, match="XILINX_HLS"):
        build.ap_types()
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "ap_int.h").touch()
    monkeypatch.setenv("XILINX_HLS", str(tmp_path))
    assert build.ap_types() == tmp_path / "include"


@needs_csim
def test_sources_that_do_not_compile_say_why(tmp_path: Path) -> None:
    out = write(tmp_path, LAYER, lambda design: {"csim/library.cpp": b"#error no\n", "src/moe_layer.cpp": b""})
    with pytest.raises(ToolchainError, match="#error no"):
        moec.load(out)


def test_changed_sources_are_not_built(tmp_path: Path) -> None:
    out = write(tmp_path, LAYER, lambda design: {"csim/library.cpp": b"int x;\n"})
    (out / "csim" / "library.cpp").write_text("int y;\n")
    with pytest.raises(TamperedArtifact):
        moec.load(out)


@needs_csim
def test_a_cache_that_others_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "moec" / "simulations"
    folder.mkdir(parents=True)
    os.chmod(folder, 0o777)
    with pytest.raises(CacheError, match="chmod 700"):
        moec.load(write(tmp_path, LAYER))
