"""Whether a new build computes what the layer computes, on a recorded batch, and how fast it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from moec.artifact.allowed import CACHED_BYTES
from moec.artifact.specialisation import Specialisation
from moec.runtime.adapt.background import Run, at_once
from moec.runtime.adapt.published import Build
from moec.runtime.adapt.recording import Recording
from moec.runtime.workspace import WORKSPACES

LARGEST_ERROR = {"int8": 0.05, "int4": 0.25, "ternary": 1.0, "fp8_e4m3": 0.1}
"""Of the results of a layer whose coldest experts are stored so: root of mean square error over that of the results."""
_LARGEST = 256
_LARGEST_OF_MANY_BYTES = 64
"""Tokens of a batch, where the weights fit into caches and where they do not: one thread of low priority computes it,
and the most of 64 rows takes as long as reading the weights of their experts."""
_ROUNDS = 5
_SECONDS = 0.25
"""For comparing the speed."""
_SINGLE_ROWS = 8
_BREATH = 0.002


@dataclass(frozen=True)
class Validation:
    """What came of a build beside the layer that was compiled ahead.

    identical       every result has the same bits
    error           root of the mean square error, relative; 0 for the same bits
    gain            how many times as fast as what runs now, in processor time of one thread
    old_ms, new_ms  of one call
    tokens          of the call that was timed
    wrong           what is wrong with the results; None: nothing
    """

    identical: bool
    error: float
    gain: float
    old_ms: float
    new_ms: float
    tokens: int
    wrong: str | None


def validate(
    base: Build,
    old: Build,
    new: Build,
    recording: Recording,
    specialisation: Specialisation,
    sizes: Sequence[int],
    least_gain: float = 0.0,
    run: Run = at_once,
) -> Validation:
    """Try `new` on batches of `sizes` tokens; the last size is the one whose speed is compared with that of `old`.

    Exact specialisations must give the base's bits.  Those of a capacity must do so for single tokens, of which no
    capacity drops any; those with quantised experts must stay within LARGEST_ERROR.

    Larger sizes are cut: what kernels do depends on the rows of each expert.  Where weights are shared and nothing is
    dropped, batches are uneven, so that few experts get anything from one row to several blocks of them.  Otherwise
    they are the recorded rows, so that many experts' copies are read and as much is dropped as in calls.

    One call of each is timed, which is exact enough to tell that `new` is not much slower; where its gain seems to be
    below `least_gain`, more calls decide.

    Kernels are called by `run`, on one thread; raises what they raise.
    """
    uneven = new.packed is base.packed and specialisation.capacity is None
    most = _LARGEST if new.packed.numel() <= CACHED_BYTES else _LARGEST_OF_MANY_BYTES
    sizes = tuple(dict.fromkeys(min(size, most) for size in reversed(sizes)))[::-1]
    identical, squares, scale = True, 0.0, 0.0
    wrong: str | None = None
    for tokens in sizes:
        inputs = recording.batch(tokens, uneven=uneven)
        (wanted, base_seconds), (given, new_seconds) = run(_run, base, inputs), run(_run, new, inputs)
        if not _same(wanted, given):
            identical = False
            for want, got in zip(wanted, given, strict=True):
                wrong = wrong or _not_finite(want, got)
                squares += float(np.square(_floats(got) - _floats(want)).sum())
                scale += float(np.square(_floats(want)).sum())
        time.sleep(_BREATH)
    error = (squares / scale) ** 0.5 if scale else float(not identical)
    wrong = wrong or _wrong(base, new, recording, specialisation, identical, error, run)
    old_seconds = base_seconds if old.kernel is base.kernel else run(_run, old, inputs)[1]
    if wrong is None and old_seconds < least_gain * new_seconds:
        old_seconds, new_seconds = _compare(old, new, inputs, least_gain, run)
    gain = old_seconds / new_seconds if new_seconds else 1.0
    return Validation(identical, error, gain, old_seconds * 1e3, new_seconds * 1e3, sizes[-1], wrong)


def _wrong(
    base: Build,
    new: Build,
    recording: Recording,
    specialisation: Specialisation,
    identical: bool,
    error: float,
    run: Run,
) -> str | None:
    if specialisation.exact:
        return None if identical else f"its results have other bits (relative error {error:.2g})"
    if specialisation.quantised:
        most = max(LARGEST_ERROR[one.format] for one in specialisation.quantised)
        return f"its results are off by {error:.2g}, more than {most:g}" if not error <= most else None
    inputs = recording.batch(_SINGLE_ROWS)
    for row in range(_SINGLE_ROWS):
        single = [tensor[row : row + 1] for tensor in inputs]
        if not _same(run(_run, base, single)[0], run(_run, new, single)[0]):
            return "its results have other bits where no capacity drops anything"
    return None


def _run(build: Build, inputs: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], float]:
    """The build's results, computed by this thread alone, and the seconds of its processor time that the call took."""
    tokens, code = inputs[0].shape[0], build.kernel
    outputs = [torch.empty((tokens, *row), dtype=dtype, device="cpu") for row, dtype in code.outputs]
    workspace = WORKSPACES.take(code.workspace_bytes(tokens, 1))
    try:
        begin = time.thread_time()
        code.run(1, build.packed, workspace, *inputs, *outputs, *code.unobserved)
        return outputs, time.thread_time() - begin
    finally:
        WORKSPACES.give(workspace)


def _compare(old: Build, new: Build, inputs: Sequence[torch.Tensor], enough: float, run: Run) -> tuple[float, float]:
    """The least processor time of a call, in turns, until the gain is `enough` or it is plain that it is not: calls
    that run at the same time only ever make it longer."""
    times: tuple[list[float], list[float]] = [], []
    end = time.monotonic() + _SECONDS
    for turn in range(_ROUNDS):
        for build, taken in zip((old, new), times, strict=True):
            taken.append(run(_run, build, inputs)[1])
            time.sleep(_BREATH)
        if min(times[0]) >= enough * min(times[1]) or (turn and time.monotonic() > end):
            break
    return min(times[0]), min(times[1])


def _same(wanted: Sequence[torch.Tensor], given: Sequence[torch.Tensor]) -> bool:
    """Bit for bit, without torch's threads."""
    return all(
        np.array_equal(want.view(torch.uint8).numpy(), got.view(torch.uint8).numpy())
        for want, got in zip(wanted, given, strict=True)
    )


def _not_finite(want: torch.Tensor, got: torch.Tensor) -> str | None:
    wrong = np.isfinite(_floats(want)) & ~np.isfinite(_floats(got))
    return "it gives NaN or infinity where the layer gives numbers" if wrong.any() else None


def _floats(tensor: torch.Tensor) -> NDArray[np.float64]:
    if tensor.dtype is torch.bfloat16:
        bits = tensor.view(torch.int16).numpy().astype(np.int32) << 16
        return bits.view(np.float32).astype(np.float64)
    return tensor.numpy().astype(np.float64)
