"""The machine code of an artifact: opening it, and calling it with its errors turned into moec's."""

from __future__ import annotations

import ctypes
import fcntl
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import tvm_ffi

from moec.artifact.container import Artifact
from moec.artifact.host import host_features, host_machine, missing_features
from moec.artifact.manifest import Manifest
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
from moec.runtime.step import Step

_FUNCTIONS = ("supports", "packed_bytes", "pack", "unpack", "workspace_bytes", "run")
_TRAINING_FUNCTIONS = ("forward", "backward", "forward_workspace_bytes", "backward_workspace_bytes")
_ERRORS: Mapping[str, type[InputError]] = {
    error.__name__: error for error in (ShapeError, DtypeError, DeviceError, LayoutError, RangeError)
}
_MFD_EXEC = 0x10  # Linux 6.3: what is mapped executable should say so; older kernels refuse the flag
_WORKSPACE_SIZES_KEPT = 256


@dataclass(frozen=True)
class Library:
    """The loaded code of an artifact.  It stays loaded as long as the process runs.

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

    outputs   row and dtype of each output
    step      what a step of training takes and gives; None where the layer was compiled for inference only
    """

    library: Library
    variant: str
    index: int
    entry: Callable[..., Any]
    outputs: tuple[tuple[tuple[int, ...], torch.dtype], ...]
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

    def run(self, threads: int, packed: torch.Tensor, workspace: torch.Tensor, *tensors: torch.Tensor) -> None:
        """Run the layer: `tensors` are the inputs, then the outputs, contiguous, in the manifest's order."""
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


_LOADED: dict[str, Library] = {}
_KERNELS: dict[tuple[str, str], Kernel] = {}
_LOADING = threading.Lock()


def library(artifact: Artifact) -> Library:
    """The artifact's code in this process; an artifact that is loaded already is not loaded twice."""
    with _LOADING:
        if artifact.sha256 not in _LOADED:
            _LOADED[artifact.sha256] = _load(artifact)
        return _LOADED[artifact.sha256]


def kernel(sha256: str, variant: str) -> Kernel:
    """The kernels of a loaded artifact; `variant` "" is the best that this processor can run.

    Raises ArtifactError when the artifact is not loaded, UnsupportedCpu when the variant cannot run.
    """
    found = _KERNELS.get((sha256, variant))
    if found is None:
        found = _KERNELS[sha256, variant] = _kernel(sha256, variant)
    return found


def _kernel(sha256: str, variant: str) -> Kernel:
    library = _LOADED.get(sha256)
    if library is None:
        raise ArtifactError(
            f"a program calls the compiled layer {sha256[:12]}…, which is not loaded in this process. "
            "Call `moec.load` on its artifact once, before the program runs."
        )
    if not variant:
        return kernel(sha256, library.supported[0])
    if variant not in library.supported:
        raise UnsupportedCpu(
            f"{library.manifest.layer}: this processor cannot run the variant {variant!r}; it can run "
            f"{', '.join(library.supported)}"
        )
    index = [v.name for v in library.manifest.variants].index(variant)
    outputs = tuple((t.row, TORCH_DTYPES[t.dtype]) for t in library.manifest.outputs)
    return Kernel(library, variant, index, library.functions["run"], outputs, Step.of(library.manifest))


def _load(artifact: Artifact) -> Library:
    if artifact.machine != host_machine():
        raise UnsupportedCpu(
            f"{artifact.path} is compiled for {artifact.machine}; this machine is {host_machine()}. "
            "Compile the layer for it."
        )
    module = _open(artifact)
    functions: dict[str, Callable[..., Any]] = {}
    training = _TRAINING_FUNCTIONS if artifact.manifest.training is not None else ()
    for name in (*_FUNCTIONS, *training):
        if not module.implements_function(name):
            raise ArtifactError(f"{artifact.path}: its library does not export `__tvm_ffi_{name}`. Compile it again.")
        functions[name] = module.get_function(name)
    mask = functions["supports"]()
    supported = tuple(v.name for i, v in enumerate(artifact.manifest.variants) if mask >> i & 1)
    if not supported:
        raise UnsupportedCpu(_lacking(artifact))
    return Library(artifact.sha256, artifact.path, artifact.manifest, functions, supported)


def _lacking(artifact: Artifact) -> str:
    have = host_features()
    lacks = (f"{v.name} needs {', '.join(missing_features(v, have)) or 'more'}" for v in artifact.manifest.variants)
    return (
        f"{artifact.path}: this processor can run none of its variants ({'; '.join(lacks)}). "
        "Compile the layer with a variant for this processor, such as generic."
    )


def _open(artifact: Artifact) -> Any:
    """Hand the verified bytes themselves to the dynamic linker.

    They go into an anonymous sealed file, so that what was verified is what is executed, whatever happens to the file
    meanwhile; replacing or truncating it later does not touch the running code either.
    """
    # The descriptor stays open with the library: the linker knows a library by its path, and would take another
    # file that came to the same descriptor number for this one.
    descriptor = _sealed(artifact)
    path = f"/proc/self/fd/{descriptor}"
    try:
        # tvm-ffi binds lazily, and a symbol missing at its first call ends the process. Binding all of them here
        # first turns that into an error.
        ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as error:
        os.close(descriptor)
        cause = str(error).removeprefix(path).lstrip(": ")
        raise ArtifactError(
            f"{artifact.path}: the dynamic linker refuses its library: {cause}. tvm-ffi {tvm_ffi.__version__} is "
            f"installed, and the artifact was written by {artifact.manifest.compiler}; compile it again with the "
            "versions that are installed here."
        ) from error
    return tvm_ffi.get_global_func("ffi.Module.load_from_file.so")(path, "so")


def _sealed(artifact: Artifact) -> int:
    name = f"moec:{artifact.manifest.layer}"[:200]
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        try:
            descriptor = os.memfd_create(name, flags | _MFD_EXEC)
        except OSError:
            descriptor = os.memfd_create(name, flags)
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(artifact.library)
    except OSError as error:
        raise ArtifactError(f"{artifact.path}: no memory to hold its code (memfd): {error}") from error
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor
