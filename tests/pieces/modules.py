"""Pieces as modules, without compiling them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from torch_mlir import ir

from moec import passes
from moec.artifact.parallel import Parallel, parallel_data
from moec.dialect.json_attributes import to_attribute
from moec.pipeline import Compilation
from moec.pipeline.pieces import placed


def graph(source: str) -> ir.Module:
    """The layer of a file's text at graph level."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "layer.moe"
        path.write_text(f"edition 1\n{source}\n")
        return Compilation(path).graph


def cut(module: ir.Module, spread: Parallel, train: bool = False) -> Mapping[str, ir.Module]:
    """The pieces of a layer, whose module they replace."""
    with module.context, ir.Location.unknown():
        module.operation.attributes["moe.parallel"] = to_attribute(parallel_data(spread))
    passes.run(module, passes.parse_pipeline(["shard-layout", f"place{{train={str(train).lower()}}}"]))
    return placed(module)
