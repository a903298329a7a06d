"""What stands in `parameters()` for a weight whose values lie in the packed buffer, or were never given.

A placeholder has the weight's shape and dtype and is on the meta device.  Asking for its values, or writing them in
place, raises: torch's own meta tensors would compute nothing and say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

import torch

from moec.artifact.manifest import Weight
from moec.errors import GradientError, WeightsError
from moec.runtime.dtypes import TORCH_DTYPES

_PROPERTIES = (
    "shape", "dtype", "device", "layout", "requires_grad", "grad", "grad_fn", "is_leaf", "ndim", "nbytes", "itemsize",
    "is_meta", "is_cpu", "is_cuda", "is_sparse", "is_quantized", "is_nested", "names", "output_nr", "_version",
    "_backward_hooks", "_post_accumulate_grad_hooks", "is_mkldnn", "is_sparse_csr", "is_xpu", "is_mps", "retains_grad",
)  # fmt: skip
_METHODS = (
    "size", "dim", "numel", "nelement", "stride", "element_size", "storage_offset", "is_floating_point", "is_complex",
    "is_signed", "is_contiguous", "is_inference", "__hash__", "__len__", "is_conj", "is_neg", "dim_order",
    "_is_view", "_is_zerotensor", "is_same_size", "ndimension", "get_device", "is_shared", "__format__",
    "untyped_storage",
)  # fmt: skip


PACKED_CANNOT_TRAIN = (
    "packed weights cannot require gradients. Compile the layer with `moec compile --training` and load it with "
    "`moec.load(path, training=True)`."
)
"""What to say where a layer for inference is to be trained."""


def _descriptions() -> frozenset[Callable[..., Any]]:
    getters = (getattr(torch.Tensor, name).__get__ for name in _PROPERTIES if hasattr(torch.Tensor, name))
    methods = (getattr(torch.Tensor, name) for name in _METHODS if hasattr(torch.Tensor, name))
    return frozenset((*getters, *methods))


_DESCRIPTIONS = _descriptions()
_REQUIRE_GRAD = (torch.Tensor.requires_grad_, vars(torch._C.TensorBase)["requires_grad"].__set__)


class _Placeholder:
    weight: Weight

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func in _DESCRIPTIONS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        if func in _REQUIRE_GRAD:
            wanted = [*args[1:], *(kwargs or {}).values(), True][0]
            if wanted:
                raise GradientError(PACKED_CANNOT_TRAIN)
            return args[0]
        touched = next((value for value in args if isinstance(value, _Placeholder)), None)
        raise no_values(touched, getattr(func, "__name__", str(func)))

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"<weight {self.weight.name}: {self.weight.dtype}{list(self.weight.shape)}>"

    def __deepcopy__(self, memo: dict[int, object]) -> _Placeholder:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise no_values(self, "pickle")


class PackedParameter(_Placeholder, torch.nn.Parameter):  # type: ignore[misc]  # torch types __repr__ loosely
    """Stands for a parameter."""


class PackedBuffer(_Placeholder, torch.Tensor):  # type: ignore[misc]  # as above
    """Stands for a buffer."""


def placeholder(weight: Weight) -> PackedParameter | PackedBuffer:
    """A stand-in for `weight`; takes no memory."""
    bare = torch.empty(weight.shape, dtype=TORCH_DTYPES[weight.dtype], device="meta")
    kind = PackedParameter if weight.role == "parameter" else PackedBuffer
    made = cast(PackedParameter | PackedBuffer, torch.Tensor._make_subclass(kind, bare, False))
    made.weight = weight
    return made


def stands_in(tensor: torch.Tensor) -> bool:
    """Whether `tensor` is a placeholder."""
    return isinstance(tensor, PackedParameter | PackedBuffer)


def no_values(tensor: _Placeholder | None, doing: str) -> WeightsError:
    """The error for an operation that needs the values of a placeholder."""
    name = tensor.weight.name if tensor is not None else "a weight"
    return WeightsError(
        f"`{doing}` needs the values of {name!r}, which are packed for the kernels or were never given. Read them with "
        "`layer.state_dict()`, write them with `layer.load_state_dict(...)`, edit them inside `with layer.unpacked():` "
        "or load the layer with `moec.load(path, keep_weights=True)`."
    )
