"""A hardware project as an `nn.Module` that computes what the hardware would, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from moec.artifact.hls import Folder, Project
from moec.artifact.quantised import Stored
from moec.errors import GradientError, RangeError, WeightsError
from moec.fixed import calibrate
from moec.fixed.convert import convert, rows_to_codes
from moec.fixed.packing import pack
from moec.fixed.real import forward
from moec.fixed.scales import CALIBRATION, MAX_BYTES, Calibration, CalibrationError, read_calibration
from moec.fixed.values import Values, gather
from moec.runtime.checks import Input, Signature
from moec.runtime.dtypes import TORCH_DTYPES
from moec.runtime.hls.csim import Simulator
from moec.runtime.hls.level import Level
from moec.runtime.hls.sample import Sample
from moec.runtime.random_values import RandomValues

_Stamp = list[tuple[torch.Tensor, int]]


class SimulatedLayer(Level):
    """A layer in the fixed-point arithmetic of its hardware.

    Its state_dict has the names, shapes and dtypes of the layer as any backend compiles it.  Before the first call it
    needs weights and a calibration.
    """

    def __init__(self, project: Folder, simulator: Simulator) -> None:
        super().__init__()
        self.project: Project = project.project
        self._folder = project.path
        self._simulator = simulator
        self._signature = Signature(project.project.layer, tuple(Input.of(t) for t in project.project.inputs), False)
        self._calibration: Calibration | None = None
        self._prepared: tuple[_Stamp, Any] | None = None
        self._seen: Sample | None = None
        for weight in project.project.parameters:
            self.place(weight)

    @property
    def calibration(self) -> Calibration | None:
        """What codes are worth, and the error that this gave on samples; None before there is any."""
        return self._calibration

    def calibrate(self, *inputs: torch.Tensor, **named: torch.Tensor) -> Calibration:
        """Find scales for these samples: what the layer is called with, of any leading shape, the more the better.

        Returns them with the error of the layer against float64 on these samples, and keeps them.
        Raises CalibrationError for samples that are none, and what `forward` raises for inputs.
        """
        x, tasks, _ = self._inputs(inputs, named)
        return self._take(calibrate.calibrate(self.project.design.layer, self._values(), _reals(x), tasks))

    @contextmanager
    def calibrating(self, most: int = 4096) -> Iterator[Self]:
        """For the body of a `with`: calls compute in float64, and their inputs are remembered; at its end, calibrate.

        So the layers of a whole model are calibrated by running it.  Of more than `most` tokens, random ones are kept.
        Raises what `calibrate` raises; the layer is as it was where the body fails.
        """
        self._seen = seen = Sample(most)
        try:
            yield self
        finally:
            self._seen = None
        self._take(calibrate.calibrate(self.project.design.layer, self._values(), seen.x, seen.tasks))

    def memory(self) -> NDArray[np.uint8]:
        """What a board's memory holds for these weights and scales, [ports, words, bytes], for the host programs.

        Raises WeightsError or CalibrationError where there are none.
        """
        layer = self.project.design.layer
        parameters = convert(layer, self._values(), self._require_calibration().scales)
        return pack(self.project.design, parameters)

    def load_calibration(self, path: str | os.PathLike[str]) -> Calibration:
        """Take what `moec calibrate` or `save_calibration` wrote.  Raises CalibrationError, or OSError."""
        with Path(path).open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        return self._take(read_calibration(text, self.project.design.layer, os.fspath(path)))

    def save_calibration(self, path: str | os.PathLike[str]) -> None:
        """Write the calibration as JSON.  Raises CalibrationError where there is none."""
        Path(path).write_text(self._require_calibration().to_json())

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch does not type it
    def forward(self, *inputs: torch.Tensor | int, **named: torch.Tensor | int) -> torch.Tensor:
        """Run the hardware's arithmetic on tokens of any leading shape.

        inputs: as any compiled layer takes them, on the CPU.  Returns `(..., d)` in the dtype of the input.  A row with
        NaN or infinity gives NaN, and touches no other.

        Raises ShapeError, DtypeError, DeviceError, LayoutError, RangeError, GradientError (all InputError),
        WeightsError while weights are missing, CalibrationError before there are scales.
        """
        x, tasks, leading = self._inputs(inputs, named)
        layer, real = self.project.design.layer, _reals(x)
        if self._seen is not None:
            self._seen.add(real, tasks)
            exact = forward(layer, self._values(), real, tasks).y
            return torch.from_numpy(exact).to(x.dtype).view(*leading, layer.width)
        scales = self._require_calibration().scales
        prepared = self._current()
        codes = self._simulator.run(prepared, rows_to_codes(layer, real, scales.x), tasks)
        result = codes * scales.y
        result[~np.isfinite(real).all(axis=1)] = np.nan
        return torch.from_numpy(result).to(x.dtype).view(*leading, layer.width)

    def reset_parameters(self, seed: int | None = None) -> Self:
        """Give every weight random values: normal with variance 1 / (size of the last dimension).

        Weights that are given as codes get codes and positive scales whose products are about as large.
        """
        generator = None if seed is None else torch.Generator("cpu").manual_seed(seed)
        values = RandomValues(self.project.parameters, self._stored(), generator)
        for weight in self.project.parameters:
            tensor = torch.empty(weight.shape, dtype=TORCH_DTYPES[weight.dtype], device="cpu")
            values.fill(weight, tensor)
            self.give(weight.name, tensor)
        return self

    def extra_repr(self) -> str:
        state = "calibrated" if self._calibration else "not calibrated"
        return f"{self.project.layer}, {self.project.target}, {self._simulator.name}, {state}"

    def _inputs(self, inputs: Any, named: Any) -> tuple[torch.Tensor, NDArray[np.int64] | None, tuple[int, ...]]:
        values = self._signature.bind(inputs, named)
        if torch.is_autocast_enabled("cpu"):
            values = self._signature.cast(values)
        flat, leading = self._signature.flatten(values)
        tensors = [flat[0], *self.parameters()]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            raise GradientError(
                f"{self.project.layer} simulates hardware, which has no gradient: call it under `torch.no_grad()`"
            )
        tasks = None
        if len(flat) > 1:
            tasks, count = flat[1].numpy().astype(np.int64), self.project.design.layer.router.tasks
            if len(tasks) and not 0 <= tasks.min() <= tasks.max() < count:
                raise RangeError(f"{self.project.layer}: {self.project.inputs[1].name!r} must lie in 0 to {count - 1}")
        return flat[0].detach(), tasks, leading

    def _take(self, calibration: Calibration) -> Calibration:
        self._calibration, self._prepared = calibration, None
        return calibration

    def _require_calibration(self) -> Calibration:
        if self._calibration is None:
            written = Path(self._folder) / CALIBRATION
            other = "what `moec calibrate` wrote with `layer.load_calibration(path)`"
            if written.is_file():
                call = f"`layer.load_calibration({os.fspath(written)!r})`"
                other = f"those in the project with {call}, where weights are what `moec calibrate` was given"
            raise CalibrationError(
                f"{self.project.layer} has no scales yet. Find them with `layer.calibrate(x)` on samples of its "
                f"input, or take {other}."
            )
        return self._calibration

    def _current(self) -> Any:
        """The parameters in the simulator's form, made anew where weights have changed."""
        stamp = [(t, -1 if t.is_inference() else t._version) for t in self._tensors().values()]
        if self._prepared is None or not _same(self._prepared[0], stamp):
            scales = self._require_calibration().scales
            parameters = convert(self.project.design.layer, self._values(), scales)
            self._prepared = stamp, self._simulator.prepare(parameters)
        return self._prepared[1]

    def _values(self) -> Values:
        tensors = self._tensors()
        missing = [name for name, tensor in tensors.items() if tensor.is_meta]
        if missing:
            shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            raise WeightsError(
                f"{self.project.layer} has no values yet for {shown}. Give them with `layer.load_state_dict(...)`, or "
                "random ones with `layer.reset_parameters(seed)`."
            )
        arrays = {name: _array(tensor) for name, tensor in tensors.items()}
        return gather(self.project.design.layer, self.project.interface, arrays)

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def _stored(self) -> list[Stored]:
        """The weights that are given as codes."""
        face, form = self.project.interface, self.project.design.layer.weights.value
        linears = [one for group in (face.routed, *face.shared) for one in (group.gate, group.up, group.down)]
        return [
            Stored((one.weight,), (one.scale,), None, form, None, "f32")
            for one in linears
            if one is not None and one.scale is not None
        ]


def _same(before: _Stamp, now: _Stamp) -> bool:
    """Whether these are the same tensors, unchanged; they are kept, so that no other comes to their address."""
    return all(a is b and version == now_version for (a, version), (b, now_version) in zip(before, now, strict=True))


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    plain = tensor.detach().cpu()
    array: NDArray[Any] = (plain.float() if plain.is_floating_point() else plain).numpy()
    return array


def _reals(x: torch.Tensor) -> NDArray[np.float64]:
    return x.double().numpy()
