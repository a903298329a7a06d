"""A layer that is linked of parts, beside the same in one piece."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch_mlir import ir

from moec.backends.cpu import backend, isa, link, parts
from moec.backends.objects import Objects
from moec.dialect import context
from moec.pipeline import Compilation
from tests.backends.cpu import programs
from tests.backends.cpu.test_targets import ERRORS, EXPORTED, LIBC, WEAK, tool


def object_files(text: str, known: Objects, variants: Sequence[isa.Variant] | None = None) -> list[bytes]:
    with context(), ir.Location.unknown():
        chosen = isa.host_variants() if variants is None else variants
        base, _ = backend._emitted(ir.Module.parse(text), chosen, None)
        return parts.object_files(base.module, known, base.written_later)


@pytest.fixture(scope="module")
def objects() -> list[bytes]:
    return object_files(programs.linear_softmax("f32", 64, 64, 8), Objects())


def test_what_runs_and_what_packs_are_parts(objects: list[bytes], tmp_path: Path) -> None:
    parts = []
    for number, content in enumerate(objects):
        path = tmp_path / f"{number}.o"
        path.write_bytes(content)
        parts.append({line.split()[2] for line in tool("nm", "--defined-only", str(path)).splitlines()})

    def part(of: str) -> set[str]:
        return next(names for names in parts if of in names)

    interface, packing = (part(name) for name in ("__tvm_ffi_pack", "pack_0.generic"))
    assert {f"__tvm_ffi_{name}" for name in EXPORTED} <= interface
    running = next(names for names in parts if any(name.startswith("phase_0_") for name in names))
    assert not any(name.startswith(("phase", "text", "__")) for name in packing)
    assert not any(name.startswith(("pack", "phase", "constant")) for name in interface)
    assert not any(name.startswith(("pack", "constant")) for name in running)


def test_only_the_entry_points_can_be_seen(objects: list[bytes], tmp_path: Path) -> None:
    for linker in link.linkers():
        path = tmp_path / f"{linker.name}.so"
        path.write_bytes(link.link(objects, linker))
        seen: dict[str, set[str]] = {"T": set(), "U": set(), "w": set()}
        for line in tool("nm", "-D", str(path)).splitlines():
            *_, kind, name = line.split()
            seen[kind].add(name)
        assert seen["T"] == {f"__tvm_ffi_{name}" for name in EXPORTED}
        assert seen["U"] - LIBC == {ERRORS}
        assert seen["w"] <= WEAK
        ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)


@pytest.mark.every_variant  # else it would be compiled once, and compared with itself
def test_the_same_module_gives_the_same_bytes(objects: list[bytes]) -> None:
    assert object_files(programs.linear_softmax("f32", 64, 64, 8), Objects()) == objects


def test_code_that_is_known_is_taken(objects: list[bytes]) -> None:
    known = Objects()
    text = programs.linear_softmax("f32", 64, 64, 8)
    first = object_files(text, known)
    assert all(again is before for again, before in zip(object_files(text, known), first, strict=True))


def test_code_for_one_instruction_set_is_that_of_code_for_all() -> None:
    known = Objects()
    text = programs.linear_softmax("f32", 64, 64, 8)
    object_files(text, known)
    there = set(known.kept.values())
    for variant in isa.host_variants():
        again = object_files(text, known, [variant])
        fresh = [one for one in again if one not in there]
        assert len(fresh) <= 2 < len(again)  # which sets there are, and nothing of what is called


def test_a_layer_that_packs_nothing(tmp_path: Path) -> None:
    """Its constants are no part by themselves: LLVM's engine makes nothing of a module without a function."""
    made = object_files(programs.plain_top(8, 2), Objects())
    path = tmp_path / "layer.so"
    path.write_bytes(link.link(made))
    assert hasattr(ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL), "__tvm_ffi_run")


@pytest.mark.parametrize(("dtype", "training"), [("int4(group = 32)", False), ("bf16", True)])
def test_no_code_that_takes_long_is_in_the_interface(tmp_path: Path, dtype: str, training: bool) -> None:
    """It is another for each choice of instruction sets, so what is in it is compiled again for a variant."""
    path = tmp_path / "layer.moe"
    path.write_text(
        "edition 1\nlayer L(d = 64, ff = 64) {\n  router softmax_top(2)\n"
        f"  experts routed[4] = swiglu(d, ff) : {dtype}\n}}\n"
    )
    kernels = Compilation(path, training=training).kernels
    with kernels.context, ir.Location.unknown():
        made, _ = backend.kernels(kernels, isa.host_variants(), whole=True)
        symbols = [parts._symbol(op.operation, {}) for op in made.body.operations]
    rest = {symbol.name for symbol in symbols if symbol.function and symbol.defined and symbol.part == "interface"}
    assert rest - {"supports.generic", "checked.generic"} == {name for name in rest if name.startswith("__tvm_ffi_")}
