"""Inside torch.compile and torch.export."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import moec
from moec.errors import RangeError, WeightsError
from moec.runtime.module import Layer
from moec.runtime.packing import weights as packing
from tests.runtime import double

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"), pytest.mark.long]


class Model(torch.nn.Module):
    """The layer between other work, as in a transformer."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.moe = layer
        self.linear = torch.nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.moe(torch.nn.functional.silu(self.linear(x)), ids)
        return y


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()


def inputs(*leading: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(*leading, 4), torch.randint(0, 5, leading, dtype=torch.int32)


def test_what_is_not_traced_is_marked_as_torch_does() -> None:
    marked = torch.compiler.assume_constant_result(lambda: None)
    assert vars(packing.PackedWeights.missing_now) == vars(marked) != {}


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("keep", [False, True])
def test_compile_full_graph(path: Path, backend: str, keep: bool) -> None:
    layer = moec.load(path, keep_weights=keep)
    layer.load_state_dict(double.weights())
    model = Model(layer)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for leading in ((2, 3), (1, 7), (4, 2)):
        args = inputs(*leading)
        torch.testing.assert_close(compiled(*args), model(*args))


def test_compile_with_inductor(layer: Layer) -> None:
    if double.shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    model = Model(layer)
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for tokens in (5, 1, 0, 9):
        args = inputs(tokens)
        torch.testing.assert_close(compiled(*args), model(*args))


def test_new_batch_sizes_compile_nothing_new(layer: Layer) -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(Model(layer), fullgraph=True, dynamic=True, backend=backend)
    for tokens in (2, 3, 8, 64, 5):
        compiled(*inputs(tokens))
    assert len(graphs) == 1
    (call,) = [node for node in graphs[0].graph.nodes if "moec" in str(node.target)]
    assert call.target is torch.ops.moec.run.default


def test_one_id_for_all(layer: Layer) -> None:
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 4)
    for task in (1, 2, 4):
        assert torch.equal(compiled(x, task), double.expected(x, task))
    with pytest.raises(RangeError):
        compiled(x, 7)


def test_compiled_code_sees_new_weights(layer: Layer, kept: Layer) -> None:
    x, ids = inputs(3)
    for module in (layer, kept):
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(x, ids), double.expected(x, ids))
        state = double.weights() | {"shift": torch.ones(4)}
        module.load_state_dict(state)
        assert torch.equal(compiled(x, ids), double.expected(x, ids, state))
    with torch.no_grad():
        kept.shift.add_(1)
    assert torch.equal(compiled(x, ids), double.expected(x, ids, state | {"shift": torch.full((4,), 2.0)}))


def test_missing_weights_are_named(empty: Layer) -> None:
    with pytest.raises((WeightsError, torch._dynamo.exc.Unsupported), match="no values yet for routed"):
        torch.compile(empty, fullgraph=True, backend="eager")(*inputs(2))


def test_the_operator_is_well_formed(layer: Layer, kept: Layer) -> None:
    x, ids = inputs(3)
    operator = torch.ops.moec.run.default
    torch.library.opcheck(operator, (layer._store.buffer, [], [x, ids], layer._artifact, layer.variant))
    torch.library.opcheck(operator, (None, kept._tensors(), [x, ids], kept._artifact, ""))


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_export_and_run_in_another_process(layer: Layer, path: Path, tmp_path: Path, strict: bool) -> None:
    model = Model(layer)
    args = inputs(3)
    tokens = {0: torch.export.Dim("tokens", max=64)}
    with layer.unpacked():
        program = torch.export.export(model, args, dynamic_shapes=(tokens, tokens), strict=strict)
    assert layer.shift.is_meta
    assert set(program.state_dict) == set(model.state_dict())
    more = inputs(11)
    torch.testing.assert_close(program.module()(*more), model(*more))
    torch.export.save(program, tmp_path / "program.pt2")
    torch.save((more, model(*more)), tmp_path / "case.pt")
    code = """
import sys, torch, moec
moec.load(sys.argv[1])
program = torch.export.load(sys.argv[2]).module()
args, y = torch.load(sys.argv[3])
torch.testing.assert_close(program(*args), y)
with torch.no_grad():
    program.moe.shift.add_(1)
torch.testing.assert_close(program(*args), y + 1)
"""
    files = [path, tmp_path / "program.pt2", tmp_path / "case.pt"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, files)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_export_of_packed_weights_says_what_to_do(layer: Layer) -> None:
    with pytest.raises(WeightsError, match=r"with layer\.unpacked\(\)"):
        torch.export.export(layer, inputs(3))


def test_weights_of_a_program_are_freed_with_it(layer: Layer) -> None:
    with layer.unpacked():
        program = torch.export.export(layer, inputs(3))
    program.module()(*inputs(3))
    gc.collect()
    before = len(packing._ADOPTED)
    assert before
    del program
    gc.collect()
    assert len(packing._ADOPTED) < before


def test_a_program_without_its_artifact(layer: Layer) -> None:
    x, ids = inputs(2)
    with pytest.raises(moec.MoecError, match=r"compiled layer 123456789012…, which is not loaded in this process"):
        torch.ops.moec.run(None, list(double.weights().values()), [x, ids], "123456789012abc", "")


def test_fake_tensors(layer: Layer) -> None:
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        y = layer(torch.empty(2, 3, 4), torch.empty(2, 3, dtype=torch.int32))
    assert y.shape == (2, 3, 4)
    assert y.dtype is torch.float32
