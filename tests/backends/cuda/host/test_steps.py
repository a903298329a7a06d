"""The checks of `bench/gpu.py`, kernel by kernel, on a driver without a GPU: what is right passes, and a fault is
named after the kernel that made it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

import moec
from bench.cuda import data
from bench.cuda.shapes import Shape
from bench.cuda.steps.run import Kernels
from moec.artifact.container import read
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.matmul import tiles
from moec.backends.cuda.matmul.problem import Problem
from moec.backends.cuda.matmul.tiles import Decode
from tests.backends.cuda.host.driver import Driver, compiled
from tests.backends.cuda.host.tensors import CudaTensor, cuda
from tests.backends.cuda.simulator import Fault

pytestmark = pytest.mark.long

FILE = """edition 1
layer Stepped(d = 72, ff = 24) {
  router softmax_top(2) : f32
  experts routed[3] = swiglu(d, ff) : bf16
  tokens dropless
}
"""
LIMITED = """edition 1
layer Limited(d = 72, ff = 24) {
  router softmax_top(2) : f32
  experts routed[3] = mlp_gelu(d, ff, bias = true) : bf16
  shared common = mlp_relu(d, ff, bias = true) : bf16
  tokens capacity(0.75, order = score)
}
"""
JOINED = """edition 1
layer Joined(d = 80, ff = 48) {
  router softmax_top(2) : f32
  experts routed[4] = swiglu(d, ff) : bf16
  shared common = mlp_relu(d, ff) : bf16
  quantize experts(routed, 0, 2) as int8
}
"""
D = 72
LIMITING = ("capacity_alone", "capacity_score", "row_values", "slot_values", "sum")
OVERWRITTEN = ("capacity_alone", "kept")
"""What a kernel writes and a later one writes over, but at empty slots, of which a router has none."""
BIAS = {"random": [0.0, 0.0, 0.0], "empty": [0.0, 0.0, -90.0], "one": [90.0, 0.0, 0.0]}
"""Of the router: `empty` gives the last expert no token, `one` the first one every."""


def shared(of: Problem, arch: Arch) -> Decode:
    """Blocks share the inner dimension wherever it has two steps, so that this is checked, too."""
    few = tiles.few_rows(of)
    return Decode(few, 1 if of.transposed or of.inner != D or of.segments > 1 else 2)


@pytest.fixture(autouse=True)
def same_data() -> None:
    """What is found does not depend on luck."""
    torch.manual_seed(11)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setattr(tiles, "very_few_rows", shared)
    made = compiled(FILE, "cuda:sm_90a", tmp_path_factory.mktemp("stepped"), training=True)
    patch.undo()
    return made


def seen(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.inner if isinstance(tensor, CudaTensor) else tensor


class Machine:
    """The layer on a device, and the stand-in for its driver."""

    def __init__(self, path: Path, fake: Driver, training: bool = True) -> None:
        self.fake, self.layer = fake, moec.load(path, training=training).to("cuda:0")
        self.layer.reset_parameters(5)
        self.text = next(text for name, text in read(path).texts.items() if name.endswith(".cu"))
        self.kernels = Kernels(path, self.layer, seen)

    def route(self, routing: str) -> None:
        """Fresh weights of the router."""
        weight = torch.randn(3, D) * D**-0.5
        weight[:, 0] = torch.tensor(BIAS[routing])
        self.layer.load_state_dict({**self.layer.state_dict(), "router.logits.weight": weight})

    def tensors(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, seed = (torch.randn(count, *self.layer.manifest.inputs[0].row).bfloat16() for _ in range(2))
        x[:, 0] = 1.0
        return x.to("cuda:0"), seed.to("cuda:0")

    def written(self, name: str) -> list[int]:
        """The numbers of a kernel's arguments that it may write to."""
        found = re.search(rf"\b{name}\(([^)]*)\) {{", self.text)
        assert found is not None
        parameters = [one.strip() for one in found[1].split(",")]
        return [
            n
            for n, one in enumerate(parameters)
            if "*" in one
            and not one.startswith("const ")
            and not (name.endswith(OVERWRITTEN[0]) and one.endswith(OVERWRITTEN[1]))
        ]


@pytest.fixture
def machine(path: Path) -> Iterator[Machine]:
    with cuda(90) as fake:
        yield Machine(path, fake)


@pytest.mark.parametrize("routing", ["random", "empty", "one"])
def test_sound_kernels_pass(machine: Machine, routing: str) -> None:
    machine.route(routing)
    for count in (0, 1, 70) if routing == "random" else (6,):
        x, seed = machine.tensors(count)
        findings = [*machine.kernels.run(x), *machine.kernels.step(x, seed)]
        assert [one for one in findings if one.wrong] == []


CODED = {
    "int8": Shape("Coded", 3, 80, 32, 2, 70, codes="int8"),
    "fp8_e4m3": Shape("Coded", 3, 80, 32, 2, 70, codes="fp8_e4m3"),
    "ternary": Shape("Coded", 3, 96, 32, 2, 70, codes="ternary"),
    "int4": Shape("Coded", 3, 96, 32, 2, 70, codes="int4", group=32, given=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("format", CODED)
def test_kernels_of_codes_pass(format: str, tmp_path: Path) -> None:
    shape = CODED[format]
    path = compiled(shape.source, "cuda:sm_90a", tmp_path)
    with cuda(90):
        layer = moec.load(path).to("cuda:0")
        layer.load_state_dict(dict(data.weights(shape, torch.device("cpu"), 3)))
        kernels = Kernels(path, layer, seen)
        for count in (5, 70):
            findings = kernels.run(data.tokens(shape, count, torch.device("cpu"), 3).to("cuda:0"))
            assert [one for one in findings if one.wrong] == []
            assert any(format in one.kernel for one in findings)


@pytest.mark.slow
def test_kernels_of_every_regime_pass(machine: Machine) -> None:
    counts = machine.kernels.regimes(2100)
    launched = set()
    for count in counts:
        x, seed = machine.tensors(count)
        findings = [*machine.kernels.run(x), *machine.kernels.step(x, seed)]
        assert [one for one in findings if one.wrong] == []
        launched |= {one.kernel for one in findings}
    names = {name for function in ("run", "forward", "backward") for name in machine.kernels.names(function)}
    assert {name for name in names - launched if not name.endswith("router128")} == set()


@pytest.mark.parametrize(
    ("count", "training"),
    [(7, False), pytest.param(7, True, marks=pytest.mark.slow), pytest.param(70, True, marks=pytest.mark.slow)],
)
def test_a_fault_is_named_after_its_kernel(machine: Machine, count: int, training: bool) -> None:
    machine.route("random")
    names_its_faults(machine, count, training)


def test_a_fault_of_packed_codes_is_named(tmp_path: Path) -> None:
    """Two pairs of a word's codes change places: both products that read them are wrong, and nothing else is."""
    shape = Shape("Packed", 3, 96, 64, 2, 70, codes="int4", group=32)
    fault = Fault("moec/matmul/codes.cuh", "* 4 + k % 2 * 2 + i;", "* 4 + k % 2 * 2 + (1 - i);")
    path = compiled(shape.source, "cuda:sm_80", tmp_path, fault=fault)
    layer = moec.load(path)
    layer.load_state_dict(dict(data.weights(shape, torch.device("cpu"), 3)))
    with cuda(80):
        findings = Kernels(path, layer.to("cuda:0"), seen).run(
            data.tokens(shape, 7, torch.device("cpu"), 3).to("cuda:0")
        )
        products = {one.kernel for one in findings if "_int4_" in one.kernel}
        assert len(products) == 2
        assert {one.kernel for one in findings if one.wrong} == products


@pytest.mark.slow
def test_a_fault_of_a_capacity_and_of_biases_is_named(tmp_path: Path) -> None:
    path = compiled(LIMITED, "cuda:sm_80", tmp_path, training=True)
    with cuda(80) as fake:
        machine = Machine(path, fake)
        named = names_its_faults(machine, 7, training=True, among=LIMITING)
    assert all(any(kind in name for name in named) for kind in LIMITING)


@pytest.mark.slow
def test_a_fault_of_joined_products_is_named(tmp_path: Path) -> None:
    path = compiled(JOINED, "cuda:sm_90a", tmp_path)
    with cuda(90) as fake:
        machine = Machine(path, fake, training=False)
        named = names_its_faults(machine, 7, training=False) | names_its_faults(machine, 300, training=False)
    assert {name for name in named if "_bf16_int8" in name} == {
        f"run_product_bf16_bf16_int8{end}" for end in ("", "_2", "_few", "_few_2")
    }


def names_its_faults(machine: Machine, count: int, training: bool, among: Sequence[str] = ("",)) -> set[str]:
    """Plants a fault in every kernel that calls of `count` tokens launch, or in those whose names contain one of
    `among`, and gives their names."""
    planted = set()
    x, seed = machine.tensors(count)
    calls = [lambda: machine.kernels.run(x), lambda: machine.kernels.step(x, seed)]
    for call in calls if training else calls[:1]:
        sound = call()
        assert [one for one in sound if one.wrong] == []
        for name in dict.fromkeys(one.kernel for one in sound if any(kind in one.kernel for kind in among)):
            results = {one.what for one in sound if one.kernel == name}
            for argument in machine.written(name):
                planted.add(name)
                with machine.fake.fault(name, argument, 3):
                    # a token that has an expert twice is nothing that a backward pass need know of
                    function = name.partition("_")[0]
                    found = [one for one in call() if one.wrong and one.kernel.startswith(function)]
                # what else a kernel makes of a wrong result of its own is wrong, too; what others make of it is not
                assert {one.kernel for one in found} == {name}
                assert {one.what for one in found} <= results
    return planted
