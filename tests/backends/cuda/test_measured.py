"""The file of measured tiles: what is in it is used and named, what is malformed is refused, and how it is made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cuda import search
from bench.cuda.results import Results
from bench.cuda.shapes import Shape
from moec.backends.cuda.arch import ARCHITECTURES
from moec.backends.cuda.matmul import emit, measured, tiles
from moec.backends.cuda.matmul.measured import DECODE, MANY, Measured, Sizes
from moec.errors import DiagnosticError
from moec.pipeline import Compilation
from tests.backends.cuda.products import SWIGLU, Emitted, Product
from tests.backends.cuda.test_tiles import problem

UP = Product(inner=512, columns=768, experts=8, per_token=2, products=2, body=SWIGLU)
H100 = ARCHITECTURES["sm_90a"]
SHAPE = Shape("Searched", 4, 512, 256, 1, 100)


def entry(width: int = 64, regime: str = MANY, splits: int = 1) -> Measured:
    return Measured("a GPU", regime, Sizes.of(problem(UP), "sm_90a"), width, splits)


def test_none_is_shipped_while_nothing_was_measured() -> None:
    assert not measured.FILE.exists()
    assert "product: tile chosen by the cost model" in Emitted(UP, H100, emit.matmul).source


def test_what_was_measured_is_used_and_named(tmp_path: Path) -> None:
    path = tmp_path / "tiles.toml"
    measured.write(path, [entry(64), entry(16, DECODE, 2)])
    with measured.used(path):
        made = Emitted(UP, H100, emit.matmul)
        other = Emitted(replace(UP, inner=520), H100, emit.matmul)
        older = Emitted(UP, ARCHITECTURES["sm_80"], emit.matmul)
    assert "// t_product: tile measured on a GPU\n" in made.source
    assert "WarpgroupTile<moec::bf16, 1, 512, 768, 2, 64," in made.source
    assert [one.name for one in made.kernels][:2] == ["t_product_parts", "t_product_sum"]
    assert "DividedTile<moec::WarpTile<moec::bf16, 1, 512, 768, 2, 16, 16," in made.source
    assert "measured" not in other.source
    assert "measured" not in older.source
    assert "measured" not in Emitted(UP, H100, emit.matmul).source


@pytest.mark.parametrize("one", [entry(60), entry(264), entry(48, MANY, 2), entry(16, DECODE, 3)])
def test_tiles_that_do_not_fit_are_refused(tmp_path: Path, one: Measured) -> None:
    measured.write(tmp_path / "tiles.toml", [one])
    with measured.used(tmp_path / "tiles.toml"), pytest.raises(DiagnosticError, match="no tile of") as raised:
        Emitted(UP, H100, emit.matmul)
    assert raised.value.diagnostics[0].code == "E0713"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("width = 64", "width = -1", "`width` is '-1'"),
        ("width = 64", "width = true", "`width` is 'True'"),
        ("width = 64", "", "it has to have"),
        ("width = 64", "width = 64\nheight = 3", "it has to have"),
        ("'many'", "'some'", "`regime` is 'some'"),
        ("[[tile]]", "[tile]", "at most 4096 tables"),
        ("'many'", "'many", "Illegal|Expected|Invalid"),
        ("'a GPU'", f"'{'x' * 201}'", "`device` is"),
        ("# The", "#" * 2**20 + " The", "more than 1048576 bytes"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "tiles.toml"
    measured.write(path, [entry()])
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(DiagnosticError, match=said):
        measured.read(path)


@settings(max_examples=30)
@given(st.text(max_size=40), st.integers(0, 2**31 - 1), st.booleans())
def test_what_is_written_is_read(device: str, width: int, transposed: bool) -> None:
    one = replace(entry(width), sizes=replace(entry().sizes, transposed=transposed), device=device)
    path = Path(measured.__file__).with_name("tiles.toml")
    text = measured.text([one])
    (found,) = measured.parse(text.encode(), path)
    assert replace(found, device="") == replace(one, device="")
    assert found.device == "".join(letter for letter in device if letter.isprintable() and letter != "'")


def test_a_search_keeps_what_is_fastest(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def seconds(shape: Shape, regime: str, entries: Sequence[Measured]) -> float:
        asked.append((regime, len(entries)))
        wanted = 40 if regime == MANY else 16
        return 1e-3 * sum(1 + abs(one.width - wanted) + one.splits for one in entries)

    *_, found = search.search([SHAPE], H100, "a stand-in", seconds)
    assert [one.regime for one in found] == [MANY, DECODE] * 2
    assert {one.sizes.products for one in found} == {1, 2}
    assert max(count for _, count in asked) == 4
    for one in found:
        assert one.splits == 1
        assert one.width == 16 if one.regime == DECODE else abs(one.width - 40) <= 40
    path = tmp_path / "tiles.toml"
    measured.write(path, found)
    assert set(measured.read(path)) == set(found)
    (tmp_path / "layer.moe").write_text(SHAPE.source)
    with measured.used(path):
        text = Compilation(tmp_path / "layer.moe", target="cuda:sm_90a").emit("cuda")
    assert text.count("tile measured on a stand-in") == 4


def test_a_search_goes_on_where_it_was(tmp_path: Path) -> None:
    asked = list[str]()

    def seconds(shape: Shape, regime: str, entries: Sequence[Measured]) -> float:
        asked.append(f"{regime} {measured.text(entries)}")
        return 1e-3 * sum(one.width + one.splits for one in entries)

    whole = list(search.search([SHAPE], H100, "a stand-in", seconds))
    every, times = list(asked), Results(tmp_path / "search.jsonl")
    asked.clear()
    ends = iter([False] * 5 + [True])  # time is over at the sixth

    def stopped(shape: Shape, regime: str, entries: Sequence[Measured]) -> float:
        if next(ends):
            raise search.OutOfTime
        return seconds(shape, regime, entries)

    with pytest.raises(search.OutOfTime):
        list(search.search([SHAPE], H100, "a stand-in", search.remembered(stopped, times, None, False)))
    again = search.remembered(seconds, Results(times.path), None, False)
    assert list(search.search([SHAPE], H100, "a stand-in", again)) == whole
    assert asked == every  # none twice
    with pytest.raises(search.OutOfTime):
        search.remembered(seconds, times, time.monotonic(), True)(SHAPE, MANY, [])


def test_candidates_are_the_models_choice_and_others() -> None:
    of = problem(UP)
    assert tiles.many_rows(of, H100) in tiles.many_candidates(of, H100)
    assert tiles.very_few_rows(of, H100) in tiles.decode_candidates(of)
