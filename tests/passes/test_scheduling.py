"""The figures that schedules are chosen by, and rows that could travel narrower, read from layers at graph level."""

from pathlib import Path

import pytest
from torch_mlir import ir

from moec import passes
from moec.artifact.parallel import Parallel
from moec.dialect import context
from moec.dialect.schedule_forms import schedules, write_schedules
from moec.errors import DiagnosticError
from moec.frontend import load_layer, lower
from moec.passes.parallel import parallel
from moec.passes.schedule_exchange import ScheduleExchange
from moec.passes.scheduling.figures import allowed, figures, load
from moec.passes.scheduling.narrow import narrow_rows
from moec.schedule.build import Options, both
from moec.schedule.machine import guess
from tests.schedule.wirings import WIRINGS

SOURCE = """
edition 1

layer Small(d = 8, ff = 16) {{
  router softmax_top(2)
  experts routed[8] = swiglu(d, ff) : bf16
  shared  common[2] = swiglu(d, ff) : bf16
}}
mesh Pod {{
  axis node[2] : link(1 Gbit/s, 50 us)
  axis gpu[2] : link(10 GB/s, 5 us)
}}
load Chat {{ batch = 1..64; routing = zipf(1.2) }}
layout Serve for Small on Pod under Chat {{
  shard routed over node * gpu as ep
  {more}
}}
"""


def layer(tmp_path: Path, more: str = "") -> tuple[ir.Module, Parallel]:
    path = tmp_path / "small.moe"
    path.write_text(SOURCE.format(more=more))
    module = lower(load_layer(path), context())
    spread = parallel(module)
    assert spread is not None
    return module, spread


def test_figures_are_those_of_the_layer(tmp_path: Path) -> None:
    module, spread = layer(tmp_path, "approx send dispatch as int8")
    found = figures(module, spread)
    assert (found.experts, found.slots) == (8, 2)
    assert (found.x, found.y, found.row, found.result) == (16, 16, 8 + 4, 32)
    assert found.expert_flops == 2 * 3 * 8 * 16
    assert found.expert_bytes == 2 * 3 * 8 * 16
    assert (found.route_flops, found.route_bytes) == (2 * 8 * 8, 4 * 8 * 8)
    assert (found.shared_flops, found.shared_bytes) == (2 * 2 * 3 * 8 * 16, 2 * 2 * 3 * 8 * 16)


def test_the_load_is_that_of_the_layout(tmp_path: Path) -> None:
    module, spread = layer(tmp_path, "overlap dispatch, combine with common in 3 chunks")
    met = load(module, spread)
    assert met.tokens == 64 / 4
    assert sorted(met.choices.shares, reverse=True) != list(met.choices.shares)
    assert load(module, spread, 400).tokens == 100
    may = allowed(module, spread, None, train=False)
    assert (may.overlap, may.with_shared, may.chunks, may.numbered) == (("dispatch", "combine"), True, 3, False)
    assert allowed(module, spread, 2, train=False).chunks == 2


def test_the_pass_keeps_to_the_layout_and_says_why(tmp_path: Path) -> None:
    module, _ = layer(tmp_path, "overlap dispatch, combine with common in 3 chunks")
    report = passes.run(module, [ScheduleExchange(train=True)])
    made = schedules(module)
    assert made is not None
    assert made.backward is not None
    assert (made.forward.chunks, made.forward.split) == (3, "experts")
    assert "times as fast" in report.remarks.entries[0].text
    assert any(entry.text.startswith("not ") for entry in report.remarks.entries)


def test_a_machine_file_is_used(tmp_path: Path) -> None:
    module, spread = layer(tmp_path)
    file = tmp_path / "machine.json"
    file.write_text(guess(figures(module, spread), spread.mesh).to_json())
    passes.run(module, [ScheduleExchange(machine=str(file))])
    assert schedules(module) is not None
    module, _ = layer(tmp_path)
    file.write_text("{}")
    with pytest.raises(DiagnosticError, match="machine file"):
        passes.run(module, [ScheduleExchange(machine=str(file))])


@pytest.mark.parametrize("name", sorted(WIRINGS))
@pytest.mark.parametrize("training", [False, True])
def test_schedules_come_back_from_the_ir(name: str, training: bool) -> None:
    wiring = WIRINGS[name]
    made = both(wiring, Options(chunks=2, hierarchical=len(wiring.ep) > 1, shared="combine"), training)
    with context(), ir.Location.unknown():
        module = ir.Module.create()
        write_schedules(module, made)
        assert module.operation.verify()
        assert schedules(ir.Module.parse(str(module))) == made


ALIKE = """
func.func @f(%rows: tensor<?x8xf32>, %offsets: tensor<3xi32>, %m: tensor<{narrow}x8xf32>) -> tensor<?x{narrow}xf32> {{
  %out = "moe.experts"(%rows, %offsets) ({{
  ^bb0(%row: tensor<8xf32>):
    %zero = arith.constant dense<0.0> : tensor<{narrow}xf32>
    %first = linalg.matvec ins(%m, %row : tensor<{narrow}x8xf32>, tensor<8xf32>) outs(%zero : tensor<{narrow}xf32>)
             -> tensor<{narrow}xf32>
    {more}
    "moe.yield"(%first) : (tensor<{narrow}xf32>) -> ()
  }}) : (tensor<?x8xf32>, tensor<3xi32>) -> tensor<?x{narrow}xf32>
  return %out : tensor<?x{narrow}xf32>
}}
"""


def test_rows_that_all_experts_narrow_alike_are_named(tmp_path: Path) -> None:
    with context():
        narrow = ir.Module.parse(ALIKE.format(narrow=4, more=""))
        assert "rows of 4 elements could travel, not 8" in narrow_rows(narrow)
        wide = ir.Module.parse(ALIKE.format(narrow=8, more=""))
        assert "has 8 elements, the row 8" in narrow_rows(wide)
        other = ir.Module.parse(ALIKE.format(narrow=4, more="%again = arith.addf %row, %row : tensor<8xf32>"))
        assert "are not linear" in narrow_rows(other)
    module, _ = layer(tmp_path)
    assert "a matrix of its own" in narrow_rows(module)
