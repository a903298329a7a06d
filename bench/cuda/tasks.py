"""Everything that there is to do on a GPU, what tells most first: kernels, layers, the aims, decode; then peers, codes,
other routings, and the sanitizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.cuda import ceilings, checks, data, measure, sanitizer
from bench.cuda.results import Found
from bench.cuda.shapes import CHECKED, CODED, SHAPES, Shape

_CHECK_SECONDS = 120.0
_MEASURE_SECONDS = 90.0
_TRITON_SECONDS = 240.0  # it compiles every tile that it tries
_SANITIZED = 300
"""Tokens at most of what runs under the sanitizer."""


@dataclass(frozen=True)
class Task:
    """A piece of work with a name such as `kernels/Small/random`.

    shapes   whose artifacts it reads
    seconds  without anything found after which it is taken to hang
    run      given the folder of artifacts
    """

    name: str
    shapes: tuple[Shape, ...]
    seconds: float
    run: Callable[[Path], Iterator[Found]]


def tasks() -> dict[str, Task]:
    """By name, in order."""
    small = [shape for shape in CHECKED.values() if not shape.large]
    decoded, *_ = SHAPES.values()
    others = [routing for routing in data.ROUTINGS if routing != "random"]
    peers = [route for route in measure.ROUTES if route != "moec"]
    made = [
        *_checks(small, ["random"]),
        *_checks(SHAPES.values(), ["random"]),
        *(_task("graph", shape, checks.captured) for shape in small),
        Task("ceilings", (), _MEASURE_SECONDS, _ceilings),
        *(_measured("prefill", shape, "moec") for shape in SHAPES.values()),
        _measured("decode", decoded, "moec"),
        *(_measured("prefill", shape, peer) for shape in SHAPES.values() for peer in peers),
        *(_measured("decode", decoded, peer) for peer in peers if peer != measure.LOOP),
        *_checks(CODED, ["random"]),
        *(_measured(kind, shape, "moec") for kind in ("prefill", "decode") for shape in CODED),
        *(_task("uses", shape, checks.used) for shape in small),
        *_checks(CHECKED.values(), others),
        *(_sanitized(tool, [shape for shape in small if shape.tokens <= _SANITIZED]) for tool in sanitizer.TOOLS),
    ]
    return {task.name: task for task in made}


def _ceilings(_: Path) -> Iterator[Found]:
    one = ceilings.measure()
    text = f"{one.matmul:.0f} TFLOP/s (bf16 matmul), {one.copy:.0f} GB/s (copy, read and write)"
    yield Found(f"ceilings: {text}", ceilings=one)


def _checks(shapes: Iterable[Shape], routings: Sequence[str]) -> Iterator[Task]:
    for shape in shapes:
        for routing in routings:
            yield _task("kernels", shape, partial(checks.kernels, routing=routing), routing)
            yield _task("layer", shape, partial(checks.layer, routing=routing), routing)


def _task(kind: str, shape: Shape, run: Callable[[Path, Shape], Iterator[Found]], *more: str) -> Task:
    return Task("/".join((kind, shape.name, *more)), (shape,), _CHECK_SECONDS, lambda folder: run(folder, shape))


def _measured(kind: str, shape: Shape, route: str) -> Task:
    seconds = _TRITON_SECONDS if route == measure.TRITON else _MEASURE_SECONDS
    how = measure.prefill if kind == "prefill" else measure.decode
    needs = (shape,) if route == "moec" else ()
    return Task(f"{kind}/{shape.name}/{route}", needs, seconds, lambda folder: how(folder, shape, route))


def _sanitized(tool: str, shapes: Sequence[Shape]) -> Task:
    names = [f"layer/{shape.name}/random" for shape in shapes]
    return Task(
        f"sanitizer/{tool}", tuple(shapes), sanitizer.SECONDS, lambda folder: sanitizer.run(tool, folder, names)
    )
