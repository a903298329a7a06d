"""The code that opens devices, binds weights and launches kernels, on a driver without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch_mlir import ir

from moec.backends.cuda import emitters
from moec.backends.cuda.backend import CudaBackend
from moec.backends.cuda.targets import architectures
from moec.dialect import context
from moec.runtime.linking import link
from tests.backends.cuda.host import toy
from tests.backends.cuda.host.driver import Driver, Simulator, driver, on_gpu

FUNCTIONS = ("open", "close", "architecture", "run_bound_bytes", "run_bind", "run_workspace_bytes", "run")
Functions = Mapping[str, Callable[..., Any]]


@pytest.fixture(scope="module")
def functions() -> Functions:
    patch = pytest.MonkeyPatch()
    patch.setitem(emitters.EMITTERS, "moe.matmul", f"{toy.__name__}:emit")
    backend = CudaBackend(architectures("sm_80,sm_90a"), Simulator())
    library = backend.compile(ir.Module.parse(toy.MODULE, context()))
    patch.undo()
    assert library.cuda is not None
    assert [stack.parameters for stack in library.cuda.stacks] == [(0,), (1,)]
    linked = link(library.data, "Toy", [f"cuda_{name}" for name in FUNCTIONS])
    return {name: linked[f"cuda_{name}"] for name in FUNCTIONS}


@pytest.fixture
def fake() -> Driver:
    found = driver()
    found.reset()
    found.set_current(-1)
    return found


class Opened:
    """The toy layer on a device."""

    def __init__(self, functions: Functions, device: int = 0) -> None:
        self.functions, self.device = functions, device
        self.handle = functions["open"](device)
        generator = torch.Generator().manual_seed(1)
        self.a, self.b = (torch.randn(1, 3, 8, generator=generator) for _ in range(2))
        self.bound = aligned(functions["run_bound_bytes"]())
        functions["run_bind"](self.handle, self.bound, on_gpu(self.a, device), on_gpu(self.b, device))

    def call(self, tokens: int, stream: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """What the kernels compute, and what they should."""
        x, y = torch.randn(tokens, 8), torch.full((tokens, 3), float("nan"))
        room = aligned(self.functions["run_workspace_bytes"](self.handle, tokens))
        tensors = [on_gpu(tensor, self.device) for tensor in (room, x, y)]
        self.functions["run"](self.handle, stream, self.bound, *tensors)
        return y, x @ (self.a + self.b)[0].T


def aligned(count: int) -> torch.Tensor:
    """u8[count], poisoned, at a multiple of 256."""
    whole = torch.full((count + 256,), 0xFF, dtype=torch.uint8)
    return whole[-whole.data_ptr() % 256 :][:count]


@pytest.mark.parametrize("tokens", [0, 1, 5])
def test_kernels_run_in_order_on_the_stream(functions: Functions, fake: Driver, tokens: int) -> None:
    opened = Opened(functions)
    got, expected = opened.call(tokens, stream=77)
    torch.testing.assert_close(got, expected)
    launched = [f"run_first stream 77 blocks {tokens}"] * (tokens > 0)
    assert fake.record == ["memset stream 77", *launched, "run_second stream 77 blocks 4"]
    functions["close"](opened.handle)


def test_the_context_of_the_caller_stays_current(functions: Functions, fake: Driver) -> None:
    fake.reset((80, 90))
    opened = Opened(functions, device=1)
    assert fake.current == -1
    fake.set_current(0)
    got, expected = opened.call(3)
    torch.testing.assert_close(got, expected)
    assert fake.current == 0
    functions["close"](opened.handle)
    assert fake.current == 0


@pytest.mark.parametrize(("capability", "number"), [(80, 0), (86, 0), (89, 0), (90, 1)])
def test_the_architecture_that_fits_is_opened(functions: Functions, fake: Driver, capability: int, number: int) -> None:
    fake.reset((capability,))
    opened = Opened(functions)
    assert functions["architecture"](opened.handle) == number
    functions["close"](opened.handle)
    assert (fake.loaded, fake.retained(0)) == (0, 0)


@pytest.mark.parametrize("capability", [75, 100, 120])
def test_other_architectures_are_refused(functions: Functions, fake: Driver, capability: int) -> None:
    fake.reset((capability,))
    with pytest.raises(RuntimeError, match="no code for the device's architecture, only for sm_80, sm_90a"):
        functions["open"](0)
    assert fake.retained(0) == 0


@pytest.mark.parametrize(
    ("function", "result", "said"),
    [
        ("cuInit", 1, "starting the NVIDIA driver: invalid argument"),
        ("cuDevicePrimaryCtxRetain", 2, "making a context on the CUDA device: out of memory"),
        ("cuModuleLoadData", 2, "loading the kernels for sm_90a: out of memory"),
        ("cuModuleGetFunction", 500, "finding the kernel `run_first`: named symbol not found"),
        ("cuFuncSetAttribute", 1, "reserving shared memory for the kernel `run_first`: invalid argument"),
        ("cuModuleLoadData", 12345, "loading the kernels for sm_90a: unknown error"),
    ],
)
def test_what_fails_while_opening_is_named(
    functions: Functions, fake: Driver, function: str, result: int, said: str
) -> None:
    with fake.failing(function, result), pytest.raises(RuntimeError, match=said):
        functions["open"](0)
    assert fake.retained(0) == 0
    assert fake.current == -1


def test_a_device_that_there_is_not(functions: Functions, fake: Driver) -> None:
    with pytest.raises(RuntimeError, match="looking for the CUDA device: invalid device ordinal"):
        functions["open"](3)


def test_a_failing_launch_ends_the_call(functions: Functions, fake: Driver) -> None:
    opened = Opened(functions)
    with (
        fake.failing("cuLaunchKernel", 719),
        pytest.raises(RuntimeError, match="launching the kernel `run_first`: unspecified launch failure"),
    ):
        opened.call(2)
    assert fake.record == ["memset stream 0"]
    functions["close"](opened.handle)


def test_arguments_are_checked(functions: Functions, fake: Driver) -> None:
    fake.reset((90, 90))
    opened = Opened(functions)
    x, y, room = torch.zeros(2, 8), torch.zeros(2, 3), aligned(4096)

    def run(*tensors: object, handle: int = opened.handle) -> None:
        functions["run"](handle, 0, opened.bound, *tensors)

    with pytest.raises(RuntimeError, match=r"input `x` must be .* on the CUDA device of the handle, .*another"):
        run(on_gpu(room), x, on_gpu(y))
    with pytest.raises(RuntimeError, match="it is on another device"):
        run(on_gpu(room), on_gpu(x, 1), on_gpu(y))
    with pytest.raises(RuntimeError, match="its shape differs"):
        run(on_gpu(room), on_gpu(x), on_gpu(y[:1]))
    with pytest.raises(RuntimeError, match="workspace is smaller than"):
        run(on_gpu(room[:0]), on_gpu(x), on_gpu(y))
    with pytest.raises(RuntimeError, match="handle must be what cuda_open gave"):
        run(on_gpu(room), on_gpu(x), on_gpu(y), handle=0)
    with pytest.raises(RuntimeError, match="parameter `a` must be"):
        functions["run_bind"](opened.handle, opened.bound, on_gpu(opened.a[:, :2]), on_gpu(opened.b))
    assert fake.record == []
    functions["close"](opened.handle)
