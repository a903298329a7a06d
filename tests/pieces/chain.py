"""The pieces of a layer run one after the other in one process, as the ranks of a mesh run them together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch_mlir import ir

import moec
from moec.artifact.container import read
from moec.artifact.parallel import Parallel, parallel_data
from moec.dialect.functions import routed
from moec.dialect.json_attributes import to_attribute
from moec.pipeline import Compilation
from moec.runtime.module import Layer
from tests.once import once
from tests.pieces.spread import spread


def compiled(source: str, ranks: int = 2, training: bool = False, make: Callable[..., Parallel] | None = None) -> Path:
    """The artifact of a layer (the text of a file) that is spread over a mesh, its shared experts too."""
    make = make or partial(spread, shared=tuple(re.findall(r"\bshared (\w+)", source)))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "layer.moe"
        path.write_text(f"edition 1\n{source}\n")
        module = Compilation(path).graph
    group = routed(module)
    assert group is not None
    with module.context, ir.Location.unknown():
        module.operation.attributes["moe.parallel"] = to_attribute(parallel_data(make(ranks, group.count, group.name)))
    return _artifact(str(module), training)


def _artifact(text: str, training: bool) -> Path:
    def make(path: Path) -> None:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "layer.mlir"
            file.write_text(text)
            moec.compile(file, path, training=training)

    digest = hashlib.sha256(f"{training} {text}".encode()).hexdigest()
    return once(f"pieces-{digest}.so", make)


@dataclass
class Chain:
    """A layer in one process, and the pieces of it with the same weights."""

    whole: Layer
    route: Layer
    capacity: Layer | None
    experts: list[Layer]
    shared: Layer | None
    collect: Layer
    holders: tuple[tuple[int, ...], ...]

    def __call__(self, *inputs: torch.Tensor, cuts: Sequence[int] = (), seed: int = 0) -> torch.Tensor:
        """What the layer gives, with tokens cut at `cuts` into ranks' shares, and pairs in a random order."""
        random = torch.Generator().manual_seed(seed)
        ends = [0, *cuts, len(inputs[0])]
        shares = [slice(begin, end) for begin, end in pairwise(ends)]
        routed = [self.route(*(x[share] for x in inputs)) for share in shares]
        index, weight = (torch.cat([one[i] for one in routed]) for i in range(2))
        if self.capacity is not None:
            index = self.capacity(index, weight)
        tokens, slots = index.shape
        place = torch.full((tokens, slots), -1, dtype=torch.int32)
        rows = torch.full((tokens, slots, self.collect.manifest.inputs[0].row[1]), torch.nan)
        flat, filled = rows.flatten(0, 1), 0
        for rank, layer in enumerate(self.experts):
            held = [e for e, at in enumerate(self.holders) if at[0] == rank]
            pairs = torch.stack(torch.where(torch.isin(index, torch.tensor(held))), 1)
            pairs = pairs[torch.randperm(len(pairs), generator=random)]
            for part in torch.tensor_split(pairs, 3):
                out = self.call(layer, inputs[0], index, weight, part, held)
                flat[filled : filled + len(part)] = out
                place[part[:, 0], part[:, 1]] = torch.arange(filled, filled + len(part), dtype=torch.int32)
                filled += len(part)
        order = torch.argsort(torch.where(index < 0, torch.iinfo(torch.int32).max, index), dim=1, stable=True)
        place = torch.gather(place, 1, order).contiguous()
        terms = () if self.shared is None else self.shared(inputs[0])
        given = {"x": inputs[0]}
        if self.shared is not None:
            given |= dict(zip((t.name for t in self.shared.manifest.outputs), _tuple(terms), strict=True))
        given |= {"rows": rows, "places": place}
        return self.collect(*(given[one.name] for one in self.collect.manifest.inputs))

    @staticmethod
    def call(
        layer: Layer, x: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, part: torch.Tensor, held: list[int]
    ) -> torch.Tensor:
        """The rows of some pairs (token, slot), of which a token is sent once."""
        sent, source = torch.unique(part[:, 0], return_inverse=True)
        size = max(len(sent), len(part)) + 2  # room for more is allowed
        rows = torch.full((size, x.shape[1]), torch.nan, dtype=x.dtype)
        rows[: len(sent)] = x[sent]
        given = [torch.full((size, 1), -1, dtype=torch.int32) for _ in range(2)]
        given[0][: len(part), 0] = source.to(torch.int32)
        given[1][: len(part), 0] = torch.tensor(
            [held.index(e) for e in index[part[:, 0], part[:, 1]].tolist()], dtype=torch.int32
        )
        weights = torch.zeros(size, 1)
        weights[: len(part), 0] = weight[part[:, 0], part[:, 1]]
        out = layer(rows, *given, weights)
        assert (out[len(part) :] == 0).all()
        return out[: len(part)]


def chain(source: str, ranks: int = 2, seed: int = 0) -> Chain:
    """The layer of a file, spread over so many ranks."""
    path = compiled(source, ranks)
    artifact = read(path)
    parallel = artifact.manifest.parallel
    assert parallel is not None
    whole = moec.load(path, keep_weights=True).reset_parameters(seed)
    state = whole.state_dict()

    def load(name: str, expert: Callable[[str, torch.Tensor], torch.Tensor] = lambda name, one: one) -> Layer:
        file = path.with_name(f"{name}.so")
        file.write_bytes(artifact.pieces[name])
        assert artifact.piece(name).manifest.layer.endswith(f"_{name}")
        layer = moec.load(file)
        layer.load_state_dict({w.name: expert(w.name, state[w.name]) for w in layer.manifest.parameters})
        return layer

    def of_rank(rank: int) -> Callable[[str, torch.Tensor], torch.Tensor]:
        def slots(name: str, one: torch.Tensor) -> torch.Tensor:
            mine = torch.zeros(parallel.slots, *one.shape[1:], dtype=one.dtype)
            held = parallel.held(rank)
            mine[: len(held)] = one[list(held)]
            return mine

        return slots

    return Chain(
        whole,
        load("route"),
        load("capacity") if "capacity" in artifact.pieces else None,
        [load("experts", of_rank(rank)) for rank in range(ranks)],
        load("shared") if "shared" in artifact.pieces else None,
        load("collect"),
        parallel.holders,
    )


def _tuple(one: object) -> tuple[object, ...]:
    return one if isinstance(one, tuple) else (one,)
