"""`moec.load`: from the artifact's file to an `nn.Module`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, overload

from moec.artifact.container import read
from moec.errors import GradientError, MoecError, UnsupportedCpu
from moec.runtime.gradients import for_inference_only
from moec.runtime.module import Layer
from moec.runtime.native import kernel, library

if TYPE_CHECKING:  # loaded only where a layer runs on several processes
    from torch.distributed.device_mesh import DeviceMesh

    from moec.runtime.hls.layer import SimulatedLayer
    from moec.runtime.parallel.layer import ParallelLayer


@overload
def load(path: str | os.PathLike[str], *, rtl: bool) -> SimulatedLayer: ...


@overload
def load(
    path: str | os.PathLike[str],
    *,
    keep_weights: bool = False,
    training: bool = False,
    variant: str | None = None,
    adapt: bool = False,
    mesh: None = None,
) -> Layer: ...


@overload
def load(
    path: str | os.PathLike[str],
    *,
    mesh: DeviceMesh,
    training: bool = False,
    timeout: float = 30.0,
    elastic: bool = False,
) -> ParallelLayer: ...


def load(
    path: str | os.PathLike[str],
    *,
    keep_weights: bool = False,
    training: bool = False,
    variant: str | None = None,
    adapt: bool = False,
    mesh: DeviceMesh | None = None,
    timeout: float = 30.0,
    elastic: bool = False,
    rtl: bool | None = None,
) -> Layer | ParallelLayer | SimulatedLayer:
    """Load a compiled layer.  This runs the artifact's machine code: load only files whose author you trust.

    path          the artifact that `moec compile` wrote
    keep_weights  keep ordinary weight tensors beside the packed ones, so that they can be edited in place
    training      make a layer that can be trained: its weights are ordinary parameters that require gradients, and it
                  is in training mode; the artifact must have been compiled with `--training`
    variant       one of the artifact's variants; by default the best that this processor can run
    adapt         let it follow its load as the layout in its file says: `Layer.adapt` with what is default there
    mesh          spread it over the processes of this mesh, whose axes are those of the layout in its file
    timeout       seconds that a rank of the mesh waits for others
    elastic       the mesh may be longer along its first axis than the layout's: the layer begins on its first ranks,
                  and may come to run on more or fewer (docs/moving.md)

    rtl           of a hardware project's folder: simulate its SystemVerilog by Verilator, or its C++ (by itself) by g++

    A hardware project (`--target hls:…`) is a folder; what it computes is simulated (docs/fpga-arithmetic.md), and only
    `rtl` may be given beside it.  Give it to let type checkers know that the layer is a SimulatedLayer.

    Returns a layer without weights: `load_state_dict` or `reset_parameters` gives them.

    With `mesh`, all of its processes call this in the same order; each then holds a part of the weights.

    Raises NotAnArtifact, TruncatedArtifact, TamperedArtifact, NewerSchema, UnsupportedCpu (all ArtifactError),
    GradientError where `training` is asked of an artifact for inference, AdaptationError where `adapt` is asked of one
    without a layout, MoecError where `mesh` or what is given beside it does not fit, and OSError where the file cannot
    be read.
    """
    if rtl is not None or os.path.isdir(path):
        if keep_weights or training or variant is not None or adapt or mesh is not None or elastic:
            raise MoecError("a hardware project is simulated for inference; nothing but `rtl` can be given beside it")
        from moec.runtime.hls.load import simulated

        return simulated(path, bool(rtl))
    artifact = read(path)
    if mesh is not None:
        from torch.distributed.device_mesh import DeviceMesh

        from moec.runtime.parallel.layer import ParallelLayer

        if not timeout > 0:
            raise MoecError(f"`timeout` is a number of seconds above 0, not {timeout!r}")
        if not isinstance(mesh, DeviceMesh):
            raise MoecError(f"`mesh` is a DeviceMesh that `init_device_mesh` made, not {mesh!r}")
        if keep_weights or variant is not None or adapt:
            raise MoecError(
                "`keep_weights`, `variant` and `adapt` are for layers in one process; leave them out with `mesh`"
            )
        return ParallelLayer(artifact, mesh, training, timeout, elastic)
    if elastic:
        raise MoecError("`elastic` is for layers on a mesh; give the mesh of all processes as `mesh`")
    code = library(artifact, pinned=True)
    names = [v.name for v in code.manifest.variants]
    if variant is not None and variant not in names:
        raise UnsupportedCpu(f"{code.path} has no variant {variant!r}; it has {', '.join(names)}")
    if variant is not None and variant not in code.supported:
        raise UnsupportedCpu(
            f"{code.path}: this processor cannot run the variant {variant!r}, only {', '.join(code.supported)}"
        )
    chosen = kernel(code.sha256, variant or code.supported[0])
    if training and chosen.step is None:
        raise GradientError(for_inference_only(code.manifest.layer))
    layer = Layer(chosen, keep_weights, training, artifact.path)
    if adapt:
        layer.adapt()
    return layer
