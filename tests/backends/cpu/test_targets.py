"""What machine code the variants hold, and what a library lets others see."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess

import pytest

from moec.backends.cpu import backend, isa, link
from moec.errors import ToolchainError
from tests.backends.cpu import programs
from tests.backends.cpu.artifact import Artifact

EXPORTED = ("supports", "packed_bytes", "pack", "unpack", "workspace_bytes", "run")
ERRORS = "TVMFFIErrorSetRaisedFromCStrParts"
LIBC = {"memcpy", "memset", "memmove"}  # what every process has
WEAK = {"GOMP_parallel", "GOMP_barrier", "omp_get_thread_num", "omp_get_num_threads"}


def compiled() -> Artifact:
    return Artifact(programs.linear_softmax("f32", 64, 64, 8), isa.host_variants())


@pytest.fixture(scope="module")
def layer():
    return compiled()


def tool(name, *arguments):
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    return subprocess.run([name, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86 instructions")
def test_a_variant_uses_its_own_instructions_only(layer, tmp_path):
    path = tmp_path / "layer.o"
    path.write_bytes(layer.object)
    code: dict[str, str] = {}
    for function in re.split(r"\n(?=[0-9a-f]+ <)", tool("objdump", "-d", "--no-show-raw-insn", str(path))):
        name = re.match(r"[0-9a-f]+ <([^>]*)>", function)
        if name and not name[1].startswith("_mlir_"):  # the engine's wrappers, which no one can call
            variant = name[1].rpartition(".")[2] if "." in name[1] else "generic"
            code[variant] = code.get(variant, "") + function
    # Without bf16 there is nothing that avx512_bf16 does otherwise: it shares all functions of avx512.
    assert set(code) == {"generic", "avx2", "avx512"}
    assert not re.search(r"\t(v[a-z]|k[a-z]+[bwdq]\s)|%[yz]mm", code["generic"])
    assert not re.search(r"%zmm|%k[0-7]|%xmm(1[6-9]|2\d|3[01])", code["avx2"])
    assert "%ymm" in code["avx2"]
    assert "%zmm" in code["avx512"]
    assert "vfmadd" in code["avx2"]


def test_only_the_entry_points_can_be_seen(layer, tmp_path):
    for linker in link.linkers():
        path = tmp_path / f"{linker.name}.so"
        path.write_bytes(link.link([layer.object], linker))
        defined, undefined, weak = set(), set(), set()
        for line in tool("nm", "-D", str(path)).splitlines():
            *_, kind, name = line.split()
            {"T": defined, "U": undefined, "w": weak}[kind].add(name)
        assert defined == {f"__tvm_ffi_{name}" for name in EXPORTED}
        assert undefined - LIBC == {ERRORS}
        assert weak <= WEAK
        assert "NEEDED" not in tool("readelf", "-d", str(path))
        assert " RWE " not in tool("readelf", "-lW", str(path))


@pytest.mark.every_variant  # else it would be compiled once, and compared with itself
def test_the_same_module_gives_the_same_bytes(layer):
    again = compiled()
    assert again.object == layer.object
    for linker in link.linkers():
        assert link.link([again.object], linker) == link.link([layer.object], linker)


def test_without_a_linker_the_message_says_what_to_install(monkeypatch, layer):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(link.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolchainError, match="pip install ziglang"):
        link.link([layer.object])


def test_a_linker_that_fails_is_quoted(layer):
    with pytest.raises(ToolchainError, match=r"linker ld failed"):
        link.link([b"no object"], next(found for found in link.linkers() if found.name == "ld"))
    with pytest.raises(ToolchainError, match="could not be run"):
        link.link([layer.object], link.Linker("none", ("/nonexistent/ld",), driver=False))


def test_stages_are_text():
    from torch_mlir import ir

    from moec.dialect import context

    made = backend.CpuBackend()
    with context(), ir.Location.unknown():
        module = ir.Module.parse(programs.plain_top(8, 2))
        before = str(module)
        vectors, llvm = (made.lower(module, stage) for stage in made.stages())
        assert str(module) == before
    assert "scf.for" in vectors
    assert "scf." not in llvm
    assert "arith." not in llvm
    with context():
        ir.Module.parse(llvm)
