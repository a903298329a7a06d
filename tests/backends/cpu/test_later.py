"""Functions that are written only where their machine code is not known, and what tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from torch_mlir import ir

from moec.backends.cpu import backend, isa, later
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.later import Later
from moec.backends.objects import Objects
from moec.dialect import context
from moec.pipeline import Compilation

LAYERS = ((76, 70, "f32"), (76, 70, "bf16"), (32, 32, "int4"), (40, 24, "int8"), (32, 32, "fp8_e4m3"))
"""Of the first two, rows of two lengths lie at one stride."""


@cache
def written(d: int, ff: int, dtype: str) -> list[tuple[str, str, str]]:
    """Of each function of a layer that is written later: key, name, and the text of its body."""
    source = (
        f"edition 1\nlayer L(d = {d}, ff = {ff}, dtype = bf16) {{\n  router softmax_top(2)\n"
        f"  experts routed[4] = swiglu(d, ff) : {dtype}\n}}\n"
    )
    kernels = Compilation(_file(source)).kernels
    with kernels.context, ir.Location.unknown():
        base, _ = backend._emitted(kernels, isa.host_variants(), None)
        for one in base.written_later.values():
            one.write()
        return [(one.key, name, _body(one)) for name, one in base.written_later.items()]


_FOLDER: list[Path] = []


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    _FOLDER[:] = [tmp_path_factory.mktemp("layers")]


def _file(source: str) -> Path:
    path = _FOLDER[0] / "layer.moe"
    path.write_text(source)
    return path


def _body(one: Later) -> str:
    text: str = one.function.operation.operation.get_asm(use_local_scope=True)
    return text


def test_what_it_is_written_from_says_what_is_written() -> None:
    """Among layers of all formats and instruction sets: one key, one text; and so one name."""
    found: dict[str, tuple[str, str]] = {}
    for layer in LAYERS:
        for key, name, text in written(*layer):
            assert found.setdefault(key, (name, text)) == (name, text)
    assert len(found) > 500
    names: dict[str, str] = {}
    for name, text in found.values():
        assert names.setdefault(name, text) == text


def test_the_instruction_set_and_the_compiler_are_in_the_key() -> None:
    (key, name, _), *_ = written(76, 70, "bf16")
    variant = next(one for one in isa.host_variants() if name.endswith(f".{one.name}"))
    assert repr(variant) in key
    assert later.sources() in key


def test_layers_have_functions_in_common() -> None:
    """However many experts there are, and whatever else is in a layer."""
    few, codes = ({key for key, _, _ in written(32, 32, dtype)} for dtype in ("int4", "fp8_e4m3"))
    assert few & codes


@dataclass(frozen=True)
class _Constant:
    number: int
    mentions: bool = False

    def write(self, b: Builder, arguments: Sequence[Any]) -> None:
        if self.mentions:
            b.string("text")
        b.return_(b.index(self.number))


@pytest.fixture
def builder() -> Any:
    with context(), ir.Location.unknown():
        yield Builder(ir.Module.create(), isa.host_variants()[-1])


def test_a_name_has_one_source(builder: Builder) -> None:
    first = builder.later("f", [], _Constant(1))
    assert builder.later("f", [], _Constant(1)) is first
    with pytest.raises(ValueError, match="two sources"):
        builder.later("f", [], _Constant(2))


def test_it_mentions_no_symbols(builder: Builder) -> None:
    builder.later("f", [], _Constant(1, mentions=True))
    with pytest.raises(ValueError, match="mentions no symbols"):
        next(iter(builder.written_later.values())).write()


def test_it_is_not_written_where_its_code_is_known(tmp_path: Path) -> None:
    path = tmp_path / "layer.moe"
    path.write_text(
        "edition 1\nlayer L(d = 32, ff = 32) {\n  router softmax_top(2)\n  experts e[4] = swiglu(d, ff)\n}\n"
    )
    kernels, known = Compilation(path).kernels, Objects()
    first, _ = backend.CpuBackend().object_files(kernels, known=known)
    with patch.object(Later, "write", side_effect=AssertionError):
        again, _ = backend.CpuBackend().object_files(kernels, known=known)
        assert all(one is before for one, before in zip(again, first, strict=True))
        with pytest.raises(AssertionError):
            backend.CpuBackend().object_files(kernels, known=Objects())


def test_another_compiler_writes_it_again(tmp_path: Path) -> None:
    path = tmp_path / "layer.moe"
    path.write_text(
        "edition 1\nlayer L(d = 32, ff = 32) {\n  router softmax_top(2)\n  experts e[4] = swiglu(d, ff)\n}\n"
    )
    kernels, known = Compilation(path).kernels, Objects()
    backend.CpuBackend().object_files(kernels, known=known)
    before = set(known.kept)
    with patch.object(later, "sources", lambda: "others"):
        backend.CpuBackend().object_files(kernels, known=known)
    assert len(set(known.kept) - before) >= 2  # kernels, and what packs
