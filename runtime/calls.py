"""One run of a kernel, with scratch memory and, where they are asked for, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from moec.runtime.native import Kernel
from moec.runtime.workspace import WORKSPACES

if TYPE_CHECKING:  # loaded only where calls are counted
    from moec.runtime.adapt.ring import Row
    from moec.runtime.adapt.statistics import LoadStatistics


def run(
    kernel: Kernel,
    packed: torch.Tensor,
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor],
    statistics: LoadStatistics | None,
) -> Row | None:
    """Compute `outputs`, which exist already, on as many threads as torch has.

    Returns what the call has counted, to be given to `statistics` (`give`); None where nobody counts.
    """
    threads = torch.get_num_threads()
    row = statistics.take() if statistics is not None else None
    workspace = WORKSPACES.take(kernel.workspace_bytes(inputs[0].shape[0], threads))
    try:
        kernel.run(threads, packed, workspace, *inputs, *outputs, *(kernel.unobserved if row is None else row.tensors))
    except BaseException:
        if statistics is not None and row is not None:
            statistics.cancel(row)
        raise
    finally:
        WORKSPACES.give(workspace)
    return row
