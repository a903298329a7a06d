"""`nn.Module`s whose tensors are on CUDA devices, on a driver without a GPU."""

from __future__ import annotations

import ctypes.util
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import moec
from moec.backends.cuda import emitters
from moec.errors import (
    AdaptationError,
    CudaError,
    CudaOutOfMemory,
    DeviceError,
    DtypeError,
    GradientError,
    UnsupportedGpu,
    WeightsError,
)
from moec.runtime.cuda import torch_device
from moec.runtime.cuda.opened import Entry, opened
from moec.runtime.module import Layer
from tests.backends.cuda.host import toy
from tests.backends.cuda.host.driver import compiled
from tests.backends.cuda.host.tensors import STREAM, CudaTensor, cuda


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy layer as an artifact."""
    patch = pytest.MonkeyPatch()
    patch.setitem(emitters.EMITTERS, "moe.matmul", f"{toy.__name__}:emit")
    made = compiled(toy.MODULE, "cuda:sm_80,sm_90a", tmp_path_factory.mktemp("toy"))
    patch.undo()
    return made


@pytest.fixture
def layer(path: Path) -> Layer:
    return moec.load(path).reset_parameters(1)


def test_the_manifest_says_what_there_is(layer: Layer) -> None:
    found = layer.manifest.cuda
    assert found is not None
    assert [(one.name, one.capability, one.exact) for one in found.architectures] == [
        ("sm_80", 80, False),
        ("sm_90a", 90, True),
    ]
    assert [one.parameters for one in found.stacks] == [(0,), (1,)]


@pytest.mark.parametrize("shape", [(5,), (2, 3), (0,)])
def test_a_layer_gives_the_same_on_both_devices(layer: Layer, shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape, 8)
    expected = layer(x)
    with cuda(90) as fake:
        moved = layer.to("cuda:0")
        assert moved is layer
        assert all(parameter.device == torch.device("cuda:0") for parameter in layer.parameters())
        y = layer(x.to("cuda:0"))
        assert isinstance(y, CudaTensor)
        assert y.shape == (*shape, 3)
        assert fake.record[-1] == f"run_second stream {STREAM} blocks 4"
        torch.testing.assert_close(y.cpu(), expected)
        layer.cpu()
        torch.testing.assert_close(layer(x), expected)
    assert layer.packed_bytes > 0


def test_every_device_has_its_own_kernels(path: Path) -> None:
    with cuda(80, 90) as fake:
        layers = [moec.load(path).reset_parameters(1).to(f"cuda:{n}") for n in (0, 1)]
        assert "sm_80" in repr(layers[0])
        assert "sm_90a, weights on cuda:1" in repr(layers[1])
        x = torch.randn(4, 8)
        results = [layer(x.to(f"cuda:{n}")).cpu() for n, layer in enumerate(layers)]
        assert torch.equal(*results)
        assert [line.split()[2] for line in fake.record if "second" in line] == [str(STREAM), str(STREAM + 1)]
        layers[0].to("cuda:1")
        assert torch.equal(layers[0](x.to("cuda:1")).cpu(), results[0])


def test_weights_come_and_go_through_state_dicts(layer: Layer, path: Path) -> None:
    x = torch.randn(4, 8)
    given, expected = layer.state_dict(), layer(x)
    with cuda(90):
        empty = moec.load(path).to("cuda:0")
        with pytest.raises(WeightsError, match="no values yet for a, b"):
            empty(x.to("cuda:0"))
        empty.load_state_dict(given)
        torch.testing.assert_close(empty(x.to("cuda:0")).cpu(), expected)
        returned = empty.state_dict()
        assert all(torch.equal(returned[name].cpu(), given[name]) for name in given)
        empty.a.detach().copy_(torch.zeros(1, 3, 8))
        torch.testing.assert_close(empty(x.to("cuda:0")).cpu(), x @ given["b"][0].T)


def test_tensors_on_another_device_are_refused(layer: Layer) -> None:
    x = torch.randn(4, 8)
    with cuda(90, 90):
        with pytest.raises(
            DeviceError, match=r"input 'x' is on cuda:0, and the layer is on cpu: .*`layer.to\('cuda:0'\)`"
        ):
            layer(x.to("cuda:0"))
        layer.to("cuda:0")
        with pytest.raises(DeviceError, match="input 'x' is on cpu, and the layer is on cuda:0"):
            layer(x)
        with pytest.raises(DeviceError, match="input 'x' is on cuda:1, and the layer is on cuda:0"):
            layer(x.to("cuda:1"))
        with pytest.raises(DtypeError, match="cannot be converted"):
            layer.half()
        with pytest.raises(AdaptationError, match="Toy is on cuda:0; layers adapt on the CPU only"):
            layer.adapt()


def test_a_gpu_without_code_is_named(layer: Layer) -> None:
    x = torch.randn(4, 8)
    expected = layer(x)
    with cuda(100), pytest.raises(UnsupportedGpu, match=r"no code .* only for sm_80, sm_90a.*compute capability 10.0"):
        layer.to("cuda:0")
    assert torch.equal(layer(x), expected)


def test_an_artifact_for_the_cpu_stays_there(tmp_path: Path) -> None:
    (tmp_path / "toy.mlir").write_text(toy.MODULE)
    layer = moec.load(moec.compile(tmp_path / "toy.mlir", passes=())).reset_parameters(1)
    with (
        cuda(90),
        pytest.raises(DeviceError, match=r"compiled for the CPU\. Compile it with `moec compile --target cuda`"),
    ):
        layer.to("cuda:0")


def test_a_driver_that_fails_is_no_end(layer: Layer) -> None:
    x = torch.randn(4, 8)
    with cuda(90) as fake:
        layer.to("cuda:0")
        with fake.failing("cuLaunchKernel", 719), pytest.raises(CudaError, match="Toy on cuda:0: launching the kernel"):
            layer(x.to("cuda:0"))
        assert layer(x.to("cuda:0")).shape == (4, 3)


def test_a_call_can_be_captured(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(4, 8)
    expected = layer(x)
    with cuda(90, 90) as fake:
        layer.to("cuda:0")
        given, nothing = x.to("cuda:0"), torch.empty(0, 8).to("cuda:0")
        monkeypatch.setattr(torch_device, "is_capturing", lambda: True)
        with fake.capturing():
            torch.testing.assert_close(layer(given).cpu(), expected)  # the first call, at that
            layer(nothing)
            with pytest.raises(CudaError, match="cannot be done while a CUDA graph is captured"):
                opened(layer.sha256, 1)


def test_workspaces_end_with_their_calls(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So torch's allocator has one for all layers of a stream, and a graph that is captured keeps those of its pool."""
    seen: list[weakref.ref[torch.Tensor]] = []
    launch = Entry.launch

    def watched(self: Entry, bound: torch.Tensor, workspace: torch.Tensor, tensors: Any) -> None:
        assert [one() for one in seen if one() is not None] == []
        seen.append(weakref.ref(workspace))
        launch(self, bound, workspace, tensors)

    monkeypatch.setattr(Entry, "launch", watched)
    x = torch.randn(4, 8)
    with cuda(90) as fake:
        layers = [moec.load(path).reset_parameters(n).to("cuda:0") for n in range(3)]
        results = [layer(x.to("cuda:0")) for layer in layers]
        with fake.capturing():
            results += [layer(x.to("cuda:0")) for layer in layers]
        assert len(results) == len(seen) == 6
        assert all(one() is None for one in seen)


def test_a_lack_of_memory_is_said(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(4, 8)
    with cuda(90) as fake:
        with fake.failing("cuModuleLoadData", 2), pytest.raises(CudaOutOfMemory, match="Toy on cuda:0: loading"):
            layer.to("cuda:0")
        assert fake.retained(0) == 0
        layer.to("cuda:0")
        empty = torch.empty

        def full(*sizes: Any, **more: Any) -> torch.Tensor:
            if more.get("dtype") is torch.uint8 and torch.device(more["device"]).type == "cuda":
                raise torch.OutOfMemoryError("CUDA out of memory")
            return empty(*sizes, **more)

        given = x.to("cuda:0")
        with monkeypatch.context() as patch:
            patch.setattr(torch, "empty", full)
            with pytest.raises(torch.OutOfMemoryError) as error:
                layer(given)
        assert any("bytes of scratch memory on cuda:0 for 4 tokens" in note for note in error.value.__notes__)
        assert layer(given).shape == (4, 3)


def test_gradients_of_a_layer_for_inference_are_refused(layer: Layer) -> None:
    assert layer.manifest.cuda is not None
    assert not layer.manifest.cuda.training
    with cuda(90):
        layer.to("cuda:0")
        with pytest.raises(GradientError, match="compiled without its backward"):
            layer(torch.randn(2, 8).to("cuda:0").requires_grad_())


def test_compilers_of_torch_see_results_on_the_device(layer: Layer) -> None:
    with FakeTensorMode():
        x, weights = torch.empty(5, 8, device="cuda:0"), [torch.empty(1, 3, 8, device="cuda:0")] * 2
        (y,) = torch.ops.moec.run(None, weights, [x], layer.sha256, "")
    assert (y.device, y.shape) == (torch.device("cuda:0"), (5, 3))


def test_a_machine_without_cuda_is_told_what_it_lacks(path: Path) -> None:
    script = (
        "import sys, moec\n"
        "from moec.runtime.cuda.opened import opened\n"
        "layer = moec.load(sys.argv[1]).reset_parameters(1)\n"
        "for attempt in (lambda: opened(layer.sha256, 0), lambda: layer.to('cuda')):\n"
        "    try:\n"
        "        attempt()\n"
        "    except moec.errors.MoecError as error:\n"
        "        print(type(error).__name__, error)\n"
    )
    if ctypes.util.find_library("cuda") is not None:
        pytest.skip("there is a driver on this machine")
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    driver, moved = done.stdout.splitlines()
    assert driver == "NoCudaDriver Toy on cuda:0: this machine has no NVIDIA driver: libcuda.so.1 is not found"
    assert moved.startswith("DeviceError Toy cannot be moved there: PyTorch says: "), moved
    assert torch.version.cuda is not None or f"PyTorch {torch.__version__}, a build without CUDA" in moved
