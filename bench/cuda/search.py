"""Searching for the fastest tiles: candidates are compiled into layers, and the layers are timed."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

import moec
from bench.cuda import data
from bench.cuda.artifact import Compiled
from bench.cuda.results import FOUND, Results
from bench.cuda.shapes import Shape
from bench.cuda.timing import median_seconds, median_seconds_cold
from moec.backends.cpu.layer import prepare
from moec.backends.cuda.arch import ARCHITECTURES, Arch
from moec.backends.cuda.fewer_launches import with_fewer_launches
from moec.backends.cuda.matmul import measured, tiles
from moec.backends.cuda.matmul.measured import Measured, Sizes
from moec.backends.cuda.matmul.problem import Problem, problem
from moec.backends.cuda.toolchain import headers
from moec.dialect.parts import part_of
from moec.pipeline import Compilation

Seconds = Callable[[Shape, str, Sequence[Measured]], float]
"""How long a layer takes in a regime with the tiles of these entries."""


class OutOfTime(Exception):
    """The search has to go on another time."""


_MOST = 8
"""Candidates of a product, the first by prediction."""
_DECODED = (1, 4, 16)
_PRODUCTS = ("moe.grouped_matmul", "moe.grouped_matmul_combine")


def search(shapes: Iterable[Shape], arch: Arch, device: str, seconds: Seconds) -> Iterator[list[Measured]]:
    """The fastest tile of every product of the layers in every regime, one product after the other; all so far each
    time."""
    kept: list[Measured] = []
    for shape in shapes:
        candidates = _candidates(shape, arch, device)
        for of_product in candidates:
            if any((one.regime, one.sizes) == (of_product[0].regime, of_product[0].sizes) for one in kept):
                continue
            times = [seconds(shape, one.regime, [*kept, one]) for one in of_product]
            best = of_product[times.index(min(times))]
            was, now = times[0] * 1e6, min(times) * 1e6
            cut = f"{best.width} columns, {best.splits} blocks a tile"
            sizes = f"[{best.sizes.columns}, {best.sizes.inner}]"
            print(f"{shape.name} {best.regime} {sizes}: {cut}, {now:.1f} µs, by the model {was:.1f}", flush=True)
            kept.append(best)
            yield list(kept)


def _candidates(shape: Shape, arch: Arch, device: str) -> list[list[Measured]]:
    """For each product and regime, the model's choice first."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{shape.name}.moe"
        path.write_text(shape.source)
        module = Compilation(path, target=f"cuda:{arch.name}").kernels
        with module.context, measured.used(Path(folder) / "none.toml"):
            _copy, (layer, *_) = prepare(with_fewer_launches(module))  # its values end with it
            operations = [op.operation for op in layer.operations if op.operation.name in _PRODUCTS]
            problems = [problem(op) for op in operations if part_of(op) is None]
            return [found for of in problems for found in _of_product(of, arch, device) if len(found) > 1]


def _of_product(of: Problem, arch: Arch, device: str) -> list[list[Measured]]:
    def named(regime: str, cuts: Iterable[tuple[int, int]]) -> list[Measured]:
        sizes = Sizes.of(of, arch.name)
        return [Measured(device, regime, sizes, *cut) for cut in list(dict.fromkeys(cuts))[:_MOST]]

    many = [(tile.size, 1) for tile in (tiles.many_rows(of, arch), *tiles.many_candidates(of, arch))]
    decode = [
        tiles.very_few_rows(of, arch),
        *sorted(tiles.decode_candidates(of), key=lambda one: tiles.decode_seconds(of, one)),
    ]
    return [named(measured.MANY, many), named(measured.DECODE, ((one.tile.width, one.splits) for one in decode))]


def remembered(seconds: Seconds, results: Results, until: float | None, again: bool) -> Seconds:
    """`seconds`, asked nothing twice as long as the kernels' headers are the same: what it says is a line of `results`
    at once, by layer, regime and tiles.

    until  a time of `time.monotonic`, from which on nothing more is asked: that raises OutOfTime
    again  forget what was said before
    """
    said = [] if again else [one for one in results.read() if one["task"].startswith("tiles/")]
    known = {one["task"]: one["seconds"] for one in said}
    code = "".join(f"{name}\n{text}" for name, text in sorted(headers().items()))

    def ask(shape: Shape, regime: str, entries: Sequence[Measured]) -> float:
        what = hashlib.sha256(f"{shape.source}\n{measured.text(entries)}\n{code}".encode()).hexdigest()[:16]
        task = f"tiles/{shape.name}/{regime}/{what}"
        if task not in known:
            if until is not None and time.monotonic() >= until:
                raise OutOfTime
            known[task] = seconds(shape, regime, entries)
            results.add(task, FOUND, {"seconds": known[task]})
        return float(known[task])

    return ask


def on_gpu(shape: Shape, regime: str, entries: Sequence[Measured]) -> float:
    """Seconds of a call, or of one for each of a few numbers of tokens, on this machine's GPU."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured.write(folder / "tiles.toml", entries)
        (folder / f"{shape.name}.moe").write_text(shape.source)
        with measured.used(folder / "tiles.toml"):
            target = f"cuda:{here().name}"
            moec.compile(folder / f"{shape.name}.moe", folder / f"{shape.name}.so", target=target)
        device = torch.device("cuda", torch.cuda.current_device())
        weights = data.weights(shape, device, 1)
        compiled = Compiled(folder, replace(shape, trained=False), weights)
        if regime == measured.MANY:
            x = data.tokens(shape, shape.tokens, device, 1)
            return median_seconds(lambda: compiled(x))
        return sum(
            median_seconds_cold([lambda x=x: compiled(x) for x in (data.tokens(shape, count, device, 1),)])  # type: ignore[misc]
            for count in _DECODED
        )


def here() -> Arch:
    """The architecture of this machine's GPU.  Raises RuntimeError where there is no code for it."""
    capability = 10 * torch.cuda.get_device_capability()[0] + torch.cuda.get_device_capability()[1]
    for arch in ARCHITECTURES.values():
        if capability == arch.capability or (not arch.exact and arch.capability < capability < arch.capability + 10):
            return arch
    raise RuntimeError(f"there is no code for devices of compute capability {capability / 10}")
