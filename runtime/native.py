"""The machine code of an artifact: opening it, and calling it with its errors turned into moec's."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import tvm_ffi

from moec.artifact.container import Artifact
from moec.artifact.host import host_features, host_machine, missing_features
from moec.artifact.manifest import Manifest, Variant
from moec.errors import (
    ArtifactError,
    DeviceError,
    DtypeError,
    InputError,
    LayoutError,
    MoecError,
    RangeError,
    ShapeError,
    UnsupportedCpu,
)  # fmt: skip
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.linking import Refused, link
from moec.runtime.step import Step

_FUNCTIONS = ("supports", "packed_bytes", "pack", "unpack", "workspace_bytes", "run")
_TRAINING_FUNCTIONS = ("forward", "backward", "forward_workspace_bytes", "backward_workspace_bytes")
_ERRORS: Mapping[str, type[InputError]] = {
    error.__name__: error for error in (ShapeError, DtypeError, DeviceError, LayoutError, RangeError)
}
_WORKSPACE_SIZES_KEPT = 256


@dataclass(frozen=True)
class Library:
    """The loaded code of an artifact.  It is unloaded when neither this nor a function of it is referred to.

    functions     the exported functions by name (docs/artifact.md has their types)
    supported     names of the variants that this processor can run, best first
    """

    sha256: str
    path: str
    manifest: Manifest
    functions: Mapping[str, Callable[..., Any]]
    supported: tuple[str, ...]


@dataclass(frozen=True)
class Kernel:
    """One variant of a loaded library: the functions of the C ABI, bound to it.

    outputs     row and dtype of each output
    unobserved  one None for each statistic, for calls whose load nobody asks for
    step        what a step of training takes and gives; None where the layer was compiled for inference only
    """

    library: Library
    variant: str
    index: int
    entry: Callable[..., Any]
    outputs: tuple[tuple[tuple[int, ...], torch.dtype], ...]
    unobserved: tuple[None, ...]
    step: Step | None
    _workspace_sizes: dict[tuple[int, int, str], int] = field(default_factory=dict)

    def workspace_bytes(self, tokens: int, threads: int, function: str = "workspace_bytes") -> int:
        """Bytes of scratch memory that `run` needs, or what else `function` is asked about.

        Remembered for a few hundred of them, as a call asks every time.
        """
        size = self._workspace_sizes.get((tokens, threads, function))
        if size is None:
            size = int(self.call(function, tokens, threads))
            if len(self._workspace_sizes) >= _WORKSPACE_SIZES_KEPT:
                self._workspace_sizes.clear()
            self._workspace_sizes[tokens, threads, function] = size
        return size

    def __deepcopy__(self, memo: dict[int, object]) -> Kernel:
        return self  # code is shared, never copied

    def run(self, threads: int, packed: torch.Tensor, workspace: torch.Tensor, *tensors: torch.Tensor | None) -> None:
        """Run the layer: `tensors` are inputs, outputs and statistics, contiguous, in the manifest's order.

        A statistic is an i32 tensor that is written, or None: then it is not counted.
        """
        try:
            self.entry(self.index, threads, packed, workspace, *tensors)
        except RuntimeError as error:
            raise translated(error, self.library) from None

    def call(self, name: str, *arguments: object) -> Any:
        """Call an exported function; its errors come as subclasses of MoecError."""
        try:
            return self.library.functions[name](self.index, *arguments)
        except RuntimeError as error:
            raise translated(error, self.library) from None


def translated(error: RuntimeError, library: Library) -> MoecError:
    """moec's error for one that native code raised; what is not native code's is raised as it is."""
    native = getattr(error, "__tvm_ffi_error__", None)
    if native is None:
        raise error
    message = f"{library.manifest.layer}: {native.message}"
    known = _ERRORS.get(native.kind)
    return known(message) if known else MoecError(f"{message} ({native.kind} in {library.path})")


_LOADED: weakref.WeakValueDictionary[str, Library] = weakref.WeakValueDictionary()
_PINNED: dict[str, Library] = {}
_KERNELS: dict[tuple[str, str], Kernel] = {}
_LOADING = threading.Lock()


def library(artifact: Artifact, *, pinned: bool = False) -> Library:
    """The artifact's code in this process; an artifact that is loaded already is not loaded twice.

    pinned: it stays for the life of the process, so that programs which name it by its digest find it.
    """
    with _LOADING:
        found = _LOADED.get(artifact.sha256)
        if found is None:
            found = _LOADED[artifact.sha256] = _load(artifact)
        if pinned:
            _PINNED[artifact.sha256] = found
        return found


def kernel(sha256: str, variant: str) -> Kernel:
    """The kernels of a pinned artifact; `variant` "" is the best that this processor can run.

    Raises ArtifactError when the artifact is not loaded, UnsupportedCpu when the variant cannot run.
    """
    found = _KERNELS.get((sha256, variant))
    if found is None:
        library = pinned(sha256)
        found = kernel(sha256, library.supported[0]) if not variant else bind(library, variant)
        _KERNELS[sha256, variant] = found
    return found


def pinned(sha256: str) -> Library:
    """The code of a pinned artifact.  Raises ArtifactError when it is not loaded."""
    found = _PINNED.get(sha256)
    if found is None:
        raise ArtifactError(
            f"a program calls the compiled layer {sha256[:12]}…, which is not loaded in this process. "
            "Call `moec.load` on its artifact once, before the program runs."
        )
    return found


def bind(library: Library, variant: str) -> Kernel:
    """The kernels of `library`'s variant.  Raises UnsupportedCpu when this processor cannot run it."""
    if variant not in library.supported:
        raise UnsupportedCpu(
            f"{library.manifest.layer}: this processor cannot run the variant {variant!r}; it can run "
            f"{', '.join(library.supported)}"
        )
    index = [v.name for v in library.manifest.variants].index(variant)
    outputs = tuple((t.row, TORCH_DTYPES[t.dtype]) for t in library.manifest.outputs)
    unobserved = (None,) * len(library.manifest.statistics)
    return Kernel(library, variant, index, library.functions["run"], outputs, unobserved, Step.of(library.manifest))


def layout(kernel: Kernel) -> Variant:
    """The manifest's record of the variant that `kernel` is."""
    return kernel.library.manifest.variants[kernel.index]


def _load(artifact: Artifact) -> Library:
    if artifact.machine != host_machine():
        raise UnsupportedCpu(
            f"{artifact.path} is compiled for {artifact.machine}; this machine is {host_machine()}. "
            "Compile the layer for it."
        )
    training = _TRAINING_FUNCTIONS if artifact.manifest.training is not None else ()
    functions = _linked(
        artifact, (*_FUNCTIONS, *_adopting(artifact.manifest), *training, *_cuda_functions(artifact.manifest))
    )
    mask = functions["supports"]()
    supported = tuple(v.name for i, v in enumerate(artifact.manifest.variants) if mask >> i & 1)
    if not supported:
        raise UnsupportedCpu(_lacking(artifact))
    return Library(artifact.sha256, artifact.path, artifact.manifest, functions, supported)


def _adopting(manifest: Manifest) -> tuple[str, ...]:
    """What a library exports that can take over packed weights."""
    return ("adopt",) if any(variant.adoption is not None for variant in manifest.variants) else ()


def _cuda_functions(manifest: Manifest) -> tuple[str, ...]:
    """What a library exports for CUDA devices."""
    if manifest.cuda is None:
        return ()
    entries = ("run", "forward", "backward") if manifest.cuda.training else ("run",)
    of_entry = (
        f"cuda_{entry}{what}" for entry in entries for what in ("", "_bound_bytes", "_bind", "_workspace_bytes")
    )
    return ("cuda_open", "cuda_close", "cuda_architecture", *of_entry)


def _lacking(artifact: Artifact) -> str:
    have = host_features()
    lacks = (f"{v.name} needs {', '.join(missing_features(v, have)) or 'more'}" for v in artifact.manifest.variants)
    return (
        f"{artifact.path}: this processor can run none of its variants ({'; '.join(lacks)}). "
        "Compile the layer with a variant for this processor, such as generic."
    )


def _linked(artifact: Artifact, names: tuple[str, ...]) -> Mapping[str, Callable[..., Any]]:
    try:
        functions = link(artifact.library, artifact.manifest.layer, names)
    except Refused as error:
        raise ArtifactError(
            f"{artifact.path}: the dynamic linker refuses its library: {error}. tvm-ffi {tvm_ffi.__version__} is "
            f"installed, and the artifact was written by {artifact.manifest.compiler}; compile it again with the "
            "versions that are installed here."
        ) from error
    except ArtifactError as error:
        raise ArtifactError(f"{artifact.path}: {error}") from error
    lacks = next((name for name in names if name not in functions), None)
    if lacks is not None:
        raise ArtifactError(f"{artifact.path}: its library does not export `__tvm_ffi_{lacks}`. Compile it again.")
    return functions
