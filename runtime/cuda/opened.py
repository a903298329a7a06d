"""Devices that an artifact's kernels are loaded on, and what was prepared there for weights."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from moec.artifact.cuda import BOUND_ALIGN, Cuda, on_device
from moec.errors import CudaError, CudaOutOfMemory, DeviceError, LayoutError, NoCudaDriver, UnsupportedGpu
from moec.runtime.cuda import torch_device
from moec.runtime.native import Library, pinned, translated

_BOUND_KEPT = 64
_SIZES_KEPT = 256
_ERRORS = {error.__name__: error for error in (CudaError, CudaOutOfMemory, NoCudaDriver, UnsupportedGpu)}


class Entry:
    """One of an artifact's functions (`run`, `forward`, `backward`) on one device."""

    def __init__(self, opened: Opened, name: str) -> None:
        self._opened, self._name = opened, name
        self._bound_bytes = int(opened.call(f"cuda_{name}_bound_bytes"))
        self._bound: OrderedDict[tuple[int, ...], torch.Tensor] = OrderedDict()
        self._sizes: dict[int, int] = {}
        self._lock = threading.Lock()

    def workspace_bytes(self, tokens: int) -> int:
        """Bytes that a call needs on the device; remembered for a few hundred numbers of tokens."""
        size = self._sizes.get(tokens)
        if size is None:
            size = int(self._opened.call(f"cuda_{self._name}_workspace_bytes", self._opened.handle, tokens))
            if len(self._sizes) >= _SIZES_KEPT:
                self._sizes.clear()
            self._sizes[tokens] = size
        return size

    def bound(self, weights: Sequence[torch.Tensor]) -> torch.Tensor:
        """The weights (all of `on_device`, in order) as launches take them.

        It holds their addresses and nothing of their values, so it serves as long as they stay where they are.
        """
        addresses = tuple(weight.data_ptr() for weight in weights)
        with self._lock:
            found = self._bound.get(addresses)
            if found is not None:
                self._bound.move_to_end(addresses)
                return found
        whole = torch.empty(self._bound_bytes + BOUND_ALIGN, dtype=torch.uint8, device="cpu")
        made = whole[-whole.data_ptr() % BOUND_ALIGN :][: self._bound_bytes]
        stacks = map(torch_device.argument, self._opened.stacks(weights))
        self._opened.call(f"cuda_{self._name}_bind", self._opened.handle, made, *stacks)
        with self._lock:
            self._bound[addresses] = made
            while len(self._bound) > _BOUND_KEPT:
                self._bound.popitem(last=False)
        return made

    def launch(self, bound: torch.Tensor, workspace: torch.Tensor, tensors: Sequence[torch.Tensor | None]) -> None:
        """Launch a call on torch's current stream: `tensors` are what the function takes and gives, in order."""
        given = (None if tensor is None else torch_device.argument(tensor) for tensor in (workspace, *tensors))
        stream = torch_device.current_stream(self._opened.index)
        self._opened.call(f"cuda_{self._name}", self._opened.handle, stream, bound, *given)

    def __call__(self, tokens: int, weights: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor | None]) -> None:
        """The same, with a workspace from torch's allocator."""
        bound = self.bound(weights)
        needed = self.workspace_bytes(tokens)
        device = torch.device("cuda", self._opened.index)
        try:
            workspace = torch.empty(needed, dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError as error:
            name = self._opened.library.manifest.layer
            error.add_note(f"{name} needs {needed} bytes of scratch memory on {device} for {tokens} tokens")
            raise
        self.launch(bound, workspace, tensors)


class Opened:
    """The kernels of one artifact on one device; they stay there for the life of the process.

    architecture  name of the one, among the artifact's, that the device runs
    forward, backward  None where the layer cannot be trained there
    """

    def __init__(self, library: Library, cuda: Cuda, index: int) -> None:
        self.library, self._cuda, self.index = library, cuda, index
        self._weights = on_device(library.manifest.parameters, library.manifest.quantised)
        self.handle = int(self.call("cuda_open", index))
        self.architecture = cuda.architectures[int(self.call("cuda_architecture", self.handle))].name
        self.run = Entry(self, "run")
        self.forward = Entry(self, "forward") if cuda.training else None
        self.backward = Entry(self, "backward") if cuda.training else None

    def stacks(self, weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The weights as the tensors that kernels read.  Raises LayoutError where some do not lie as they must."""
        return [self._stack([weights[n] for n in stack.parameters], stack.parameters) for stack in self._cuda.stacks]

    def _stack(self, parts: Sequence[torch.Tensor], numbers: Sequence[int]) -> torch.Tensor:
        """Parameters that lie behind each other as one tensor."""
        first = parts[0].detach()
        if len(parts) == 1:
            return first
        end = first.data_ptr()
        for part in parts:
            apart = part.data_ptr() != end or not part.is_contiguous()
            if apart or part.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
                names = " and ".join(repr(self._weights[n].name) for n in numbers)
                raise LayoutError(
                    f"{self.library.manifest.layer}: on CUDA devices the weights {names} have to lie behind each "
                    "other in one piece of memory, where `layer.to(...)` puts them. Change them in place, with "
                    "`weight.copy_(...)` or `load_state_dict`."
                )
            end += part.nbytes
        return first.as_strided((sum(part.shape[0] for part in parts), *first.shape[1:]), first.stride())

    def call(self, name: str, *arguments: object) -> Any:
        """Call an exported function; its errors come as subclasses of MoecError."""
        try:
            return self.library.functions[name](*arguments)
        except RuntimeError as error:
            raise self._translated(error) from None

    def _translated(self, error: RuntimeError) -> Exception:
        native = getattr(error, "__tvm_ffi_error__", None)
        known = _ERRORS.get(native.kind) if native is not None else None
        if native is None or known is None:
            return translated(error, self.library)
        message = f"{self.library.manifest.layer} on cuda:{self.index}: {native.message}"
        if known is UnsupportedGpu:
            names = ",".join(one.name for one in self._cuda.architectures)
            message += f". It is {torch_device.describe(self.index)}; compile the layer with more than cuda:{names}"
        return known(message)


_OPENED: dict[tuple[str, int], Opened] = {}
_OPENING = threading.Lock()


def opened(sha256: str, index: int) -> Opened:
    """The kernels of a pinned artifact on device `index`, loaded there at the first time.

    Raises DeviceError where the artifact has none, NoCudaDriver, UnsupportedGpu, CudaOutOfMemory or CudaError.
    """
    found = _OPENED.get((sha256, index))
    if found is not None:
        return found
    library = pinned(sha256)
    cuda = library.manifest.cuda
    if cuda is None:
        raise DeviceError(compiled_for_cpu(library.manifest.layer))
    with _OPENING:
        found = _OPENED.get((sha256, index))
        if found is None:
            if torch_device.is_capturing():
                raise CudaError(
                    f"{library.manifest.layer}: its kernels are not loaded on cuda:{index} yet, and that cannot be "
                    "done while a CUDA graph is captured. Call the layer once before."
                )
            found = _OPENED[sha256, index] = Opened(library, cuda, index)
    return found


def compiled_for_cpu(layer: str) -> str:
    """What to say where a layer without code for CUDA devices is to run on one."""
    return f"{layer} is compiled for the CPU. Compile it with `moec compile --target cuda` to run it on CUDA devices."
