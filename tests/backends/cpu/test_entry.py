"""The C ABI of an artifact: what it takes, what it refuses, and that parameters come back as they went in."""

from __future__ import annotations

import re
import threading

import pytest
import torch
import tvm_ffi

from moec.backends.cpu import isa
from tests.backends.cpu import native, programs
from tests.backends.cpu.artifact import Artifact, aligned
from tests.backends.cpu.test_plan import plan_text

COUNT = len(native.runnable())


@pytest.fixture(scope="module")
def router():
    return Artifact(programs.linear_softmax("bf16", 24, 6, 2))


X = torch.ones(5, 24, dtype=torch.bfloat16)
W = torch.arange(6 * 24, dtype=torch.float32).reshape(6, 24)


def call(layer, *, variant=0, threads=1, packed=None, workspace=None, x=X, index=None, weight=None):
    lib = layer.library
    packed = layer.pack({"w0": W}) if packed is None else packed
    workspace = aligned(lib.workspace_bytes(0, 5, 1)) if workspace is None else workspace
    index = torch.empty(5, 2, dtype=torch.int32) if index is None else index
    weight = torch.empty(5, 2) if weight is None else weight
    lib.run(variant, threads, packed, workspace, x, index, weight)
    return index, weight


def test_supports_tells_what_this_processor_can_run():
    every = isa.host_variants()
    bits = Artifact(programs.linear_softmax("bf16", 24, 6, 2), every).library.supports()
    runnable = native.runnable()
    assert bits == sum(1 << n for n, variant in enumerate(every) if variant in runnable)


def test_a_call_that_is_right(router):
    call(router)
    call(router, x=tvm_ffi.from_dlpack(X))  # a Tensor object in place of a DLTensor
    call(router, x=torch.ones(1, 24, dtype=torch.bfloat16).expand(5, 24).contiguous(), threads=7)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"x": X.float()}, "DtypeError", "input `x` must be a contiguous bf16 tensor of shape [T, 24] on the CPU"),
        ({"x": X.view(torch.int16)}, "DtypeError", "input `x`"),
        ({"x": X[:, :23].contiguous()}, "ShapeError", "input `x`"),
        ({"x": X[0]}, "ShapeError", "number of dimensions"),
        ({"x": torch.ones(24, 5, dtype=torch.bfloat16).T}, "LayoutError", "not contiguous"),
        ({"x": torch.ones(5, 48, dtype=torch.bfloat16)[:, :24]}, "LayoutError", "not contiguous"),
        ({"x": 3}, "TypeError", "no tensor"),
        ({"x": "text"}, "TypeError", "no tensor"),
        ({"x": None}, "TypeError", "no tensor"),
        ({"index": torch.zeros(4, 2, dtype=torch.int32)}, "ShapeError", "output `index`"),
        ({"index": torch.zeros(5, 2, dtype=torch.int64)}, "DtypeError", "output `index`"),
        ({"weight": torch.zeros(5, 3)}, "ShapeError", "output `weight`"),
        ({"variant": COUNT}, "RangeError", f"variant must be an integer from 0 to {COUNT - 1}"),
        ({"variant": -1}, "RangeError", "variant"),
        ({"variant": 1.5}, "RangeError", "variant"),
        ({"threads": 0}, "RangeError", "threads must be at least 1"),
        ({"packed": torch.zeros(8, dtype=torch.uint8)}, "ShapeError", "packed must be a contiguous u8 tensor"),
        ({"workspace": aligned(0)}, "ShapeError", "workspace must have at least workspace_bytes"),
        ({"workspace": torch.zeros(100, 100, dtype=torch.uint8)}, "ShapeError", "workspace"),
        ({"workspace": torch.zeros(10000, dtype=torch.uint8)[1:]}, "LayoutError", "not aligned"),
    ],
    ids=str,
)
def test_a_call_that_is_wrong(router, change, kind, message):
    if "workspace" in change and change["workspace"].numel() == 0:
        router = Artifact(plan_text(13, 3))  # a layer that needs a workspace
        index = torch.zeros(5, 3, dtype=torch.int32)
        arguments = [index, torch.empty(14, dtype=torch.int32), torch.empty(15, dtype=torch.int32)]
        with pytest.raises(RuntimeError, match=re.escape(message)) as caught:
            router.library.run(0, 1, router.pack({}), change["workspace"], *arguments)
    else:
        with pytest.raises((RuntimeError, TypeError), match=re.escape(message)) as caught:
            call(router, **change)
    assert caught.value.__tvm_ffi_error__.kind == kind


def test_wrong_numbers_of_arguments(router):
    for name in ("supports", "packed_bytes", "pack", "unpack", "workspace_bytes", "run"):
        with pytest.raises(TypeError, match=f"wrong number of arguments; usage: {name}"):
            getattr(router.library, name)(0, 0, 0, 0, 0, 0, 0, 0, 0)


def test_parameters_come_back_as_they_went_in(router):
    for variant in range(COUNT):
        packed = router.pack({"w0": W}, variant)
        back = torch.empty_like(W)
        router.library.unpack(variant, 0, packed, back)
        assert torch.equal(back, W)
        with pytest.raises(RuntimeError, match="parameter `w0`"):
            router.library.pack(variant, 0, packed, W[:5])
        with pytest.raises(RuntimeError, match="i must be an integer from 0 to 0"):
            router.library.pack(variant, 1, packed, W)
        with pytest.raises(RuntimeError, match="packed must be"):
            router.library.pack(variant, 0, packed[:-64], W)


def test_calls_from_several_threads_at_once(router):
    packed = router.pack({"w0": W / 100})
    xs = [torch.randn(3000, 24, dtype=torch.bfloat16) for _ in range(4)]
    wanted = [router.run({"x": x}, {"w0": W / 100}, threads=2) for x in xs]
    wrong = []

    def work(x, want):
        workspace = aligned(router.library.workspace_bytes(0, 3000, 2))
        for _ in range(20):
            index, weight = torch.empty(3000, 2, dtype=torch.int32), torch.empty(3000, 2)
            router.library.run(0, 2, packed, workspace, x, index, weight)
            if not (torch.equal(index, want["index"]) and torch.equal(weight, want["weight"])):
                wrong.append(x)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(xs, wanted, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
