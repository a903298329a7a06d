"""`moec inspect`: what an artifact says about itself.  It is verified and read; nothing of it is executed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from json import dumps, loads
from math import prod
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from moec.artifact.container import Artifact, read
from moec.artifact.cuda import Architecture, Cuda
from moec.artifact.host import host_features, host_machine, missing_features
from moec.artifact.manifest import ITEM_BYTES, TOKENS, Loss, Manifest, Training, Weight
from moec.artifact.quantised import Quantised
from moec.artifact.specialisation import Specialisation
from moec.cli.console import output_console
from moec.cli.mesh_rows import mesh_rows
from moec.cli.policy_rows import policy_rows
from moec.cli.ranges import ranges
from moec.cli.sizes import size


def command(
    file: Annotated[Path, typer.Argument(help="An artifact, or the folder of a project, that moec compile wrote.")],
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    ir: Annotated[bool, typer.Option("--ir", help="Print the IR inside instead.")] = False,
) -> None:
    """Show what a compiled layer takes, holds, needs and guarantees, without running any of it."""
    inspect(file, json=json, ir=ir)


def inspect(file: Path, json: bool = False, ir: bool = False) -> None:
    """Print the description of the artifact or project `file` as tables, or as JSON, or the IR in it."""
    if file.is_dir():
        from moec.cli.inspect_project import inspect_project

        inspect_project(file, json, ir)
        return
    artifact = read(file)
    if json:
        typer.echo(dumps(description(artifact) | ({"texts": dict(artifact.texts)} if ir else {}), indent=2))
    elif ir:
        for name, text in artifact.texts.items():
            if name.startswith("ir/"):
                typer.echo(f"// {name}\n{text.rstrip()}\n")
    else:
        console = output_console()
        for table in _tables(artifact):
            console.print(table)


def description(artifact: Artifact) -> dict[str, Any]:
    """The manifest, and what follows from it and from this machine, as JSON data."""
    lacks = _lacks(artifact)
    return {
        "file": {
            "path": artifact.path,
            "sha256": artifact.sha256,
            "machine": artifact.machine,
            "library_bytes": len(artifact.library),
            "members": {name: len(text.encode()) for name, text in artifact.texts.items()},
            "variants": {name: len(data) for name, data in artifact.variants.items()},
            "pieces": {name: len(data) for name, data in artifact.pieces.items()},
            "objects": {name: len(data) for name, data in artifact.objects.items()},
        },
        "manifest": loads(artifact.manifest.to_json()),
        "this_cpu": {"machine": host_machine(), "uses": _used(lacks), "lacks": lacks},
        "memory": {"weight_bytes": sum(weight.nbytes for weight in artifact.manifest.parameters)},
    }


def _bytes(files: Mapping[str, bytes]) -> int:
    return sum(map(len, files.values()))


def _architecture(one: Architecture) -> str:
    later = "" if one.exact else f" to {one.capability // 10}.9"
    return f"{one.name} (compute capability {one.capability / 10}{later})"


def _lacks(artifact: Artifact) -> dict[str, list[str]]:
    """For each variant, best first, what this processor lacks for it."""
    if artifact.machine != host_machine():
        return {variant.name: [artifact.machine] for variant in artifact.manifest.variants}
    have = host_features()
    return {variant.name: list(missing_features(variant, have)) for variant in artifact.manifest.variants}


def _used(lacks: dict[str, list[str]]) -> str | None:
    return next((name for name, missing in lacks.items() if not missing), None)


def _tables(artifact: Artifact) -> Iterable[Table]:
    manifest = artifact.manifest
    about = Table(title=escape(manifest.layer), title_justify="left", show_header=False)
    options = ", ".join(f"{name}={value}" for name, value in manifest.options.items())
    weight_bytes = sum(weight.nbytes for weight in manifest.parameters)
    _rows(
        about,
        ("source", f"{manifest.source.name} (sha256 {manifest.source.sha256[:12]}…)"),
        ("options", options or "none"),
        ("compiled by", f"{manifest.compiler}, schema {manifest.schema}, abi {manifest.abi}"),
        ("target", f"{manifest.target}, {artifact.machine}"),
        ("library", f"{size(len(artifact.library))}, sha256 {artifact.sha256[:12]}… (verified)"),
        ("inside", ", ".join(artifact.texts) or "no texts"),
        ("weights", f"{size(weight_bytes)} {_kept(manifest)}"),
        ("made for", "inference" if manifest.training is None else "inference and training"),
    )
    if manifest.cuda is not None:
        _rows(about, ("CUDA devices", ", ".join(_architecture(one) for one in manifest.cuda.architectures)))
    if artifact.variants:
        _rows(about, ("compiled ahead", ", ".join(artifact.variants)))
    if artifact.pieces:
        _rows(about, ("pieces", ", ".join(artifact.pieces)))
    if artifact.objects:
        _rows(about, ("for recompiling", f"{len(artifact.objects)} object files, {size(_bytes(artifact.objects))}"))
    if manifest.specialisation is not None:
        _rows(about, *_specialisation(manifest.specialisation, manifest.base))
    yield about

    yield _rows(
        Table("tensor", "shape", "dtype", title="Calls", title_justify="left"),
        *((t.name, _shape((TOKENS, *t.row)), t.dtype) for t in manifest.inputs),
        *((f"→ {t.name}", _shape((TOKENS, *t.row)), t.dtype) for t in manifest.outputs),
        *((f"→ {s.name} (of {s.experts}, where asked for)", _shape(s.row), "i32") for s in manifest.statistics),
    )
    if manifest.training is not None:
        yield _rows(
            Table(title="Training", title_justify="left", show_header=False),
            ("gradients", ", ".join(manifest.training.gradients)),
            ("kept for backward", f"{size(_saved_bytes(manifest.training))} a token, beside inputs and weights"),
            ("auxiliary losses", ", ".join(map(_loss, manifest.training.losses)) or "none"),
        )
    yield _rows(
        Table("name", "shape", "dtype", "role", "size", title="Weights", title_justify="left"),
        *(_weight(weight) for weight in manifest.parameters),
    )

    if manifest.quantised is not None:
        yield _quantised(manifest.quantised)

    if manifest.policy is not None:
        title = f"Policy: layout {manifest.policy.layout}"
        table = Table(title=title, title_justify="left", show_header=False)
        yield _rows(table, *policy_rows(manifest.policy))

    if manifest.parallel is not None:
        title = f"Mesh {manifest.parallel.mesh.name}: layout {manifest.parallel.layout}"
        table = Table(title=title, title_justify="left", show_header=False)
        yield _rows(table, *mesh_rows(manifest.parallel))

    lacks = _lacks(artifact)
    used = _used(lacks)
    yield _rows(
        Table("variant", "needs", "packed form", "this processor", title="Variants, best first", title_justify="left"),
        *(
            (v.name, " ".join(v.features) or "nothing special", v.layout, _verdict(v.name, used, lacks[v.name]))
            for v in manifest.variants
        ),
    )
    promises = manifest.guarantees
    yield _rows(
        Table(title="Guarantees", title_justify="left", show_header=False),
        ("same call, same bits", _yes(promises.deterministic)),
        ("bits do not depend on the batch size", _yes(promises.batch_invariant)),
        ("bits do not depend on the number of threads", _yes(promises.thread_invariant)),
        ("tokens do not influence each other", _yes(promises.isolated)),
        ("sums are kept in", promises.accumulation),
        *(_on_cuda(manifest.cuda, manifest.quantised) if manifest.cuda is not None else ()),
    )


def _on_cuda(promises: Cuda, quantised: Quantised | None) -> list[tuple[str, str]]:
    """What is promised of calls on CUDA devices, where it may be less."""
    promised = [
        ("same call on the same CUDA device, same bits", _yes(promises.deterministic)),
        ("bits on CUDA devices do not depend on the batch size", _yes(promises.batch_invariant)),
    ]
    if quantised is not None:
        also = any(one.name == "sm_90a" for one in promises.architectures)
        how = "mma.sync" + (", on sm_90a by wgmma for many rows" if also else "")
        if quantised.rows == "int8":
            how += ", of int8" + (" (with groups by wgmma only if a multiple of 128 inputs)" if also else "")
        promised.append(("quantised experts on CUDA devices multiply by", how))
    return promised


def _specialisation(made_for: Specialisation, base: str | None) -> list[tuple[str, str]]:
    """What a variant is made for, and how it differs from the artifact that it is made from."""
    quantised = (f"{one.experts} {ranges(one.numbers)} as {one.format}" for one in made_for.quantised)
    ways = [
        *([f"{made_for.tokens[0]} to {made_for.tokens[1]} tokens"] if made_for.tokens is not None else []),
        *([f"capacity {made_for.capacity:g}"] if made_for.capacity is not None else []),
        *quantised,
    ]
    bits = "the same bits" if made_for.exact else "an approximation"
    return [
        ("specialised to", f"{made_for.name}: {', '.join(ways) or 'nothing'} ({bits})"),
        ("made from", "the artifact that it lies in" if base is None else f"sha256 {base[:12]}…"),
    ]


def _kept(manifest: Manifest) -> str:
    if manifest.quantised is None:
        return "in memory, once, in packed form"
    return "as given; in memory once, in packed form, the quantised ones as codes and scales"


def _quantised(quantised: Quantised) -> Table:
    """Which weights are kept in which format, and what becomes of rows."""
    rows = "rounded to int8" if quantised.rows == "int8" else "taken as they are"
    title = f"Quantised: the result is an approximation; rows are {rows}"
    return _rows(
        Table("weights", "experts", "format", "scales", "codes made by", title=title, title_justify="left"),
        *(
            (
                "\n".join(one.weights),
                "all" if one.experts is None else ranges(one.experts),
                one.format,
                f"{one.scale}, one {'a channel' if one.group is None else f'for {one.group} inputs'}",
                "the caller" if one.scales else "packing",
            )
            for one in quantised.stored
        ),
    )


def _verdict(name: str, used: str | None, missing: list[str]) -> str:
    if missing:
        return f"lacks {' '.join(missing)}"
    return "uses this one" if name == used else "could run it"


def _rows(table: Table, *rows: tuple[str, ...]) -> Table:
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _weight(weight: Weight) -> tuple[str, ...]:
    return weight.name, _shape(weight.shape), weight.dtype, weight.role, size(weight.nbytes)


def _saved_bytes(training: Training) -> int:
    """Bytes a token that autograd keeps from forward to backward."""
    return sum(t.rows * prod(t.row) * ITEM_BYTES[t.dtype] for t in training.step if t.role == "saved")


def _loss(loss: Loss) -> str:
    everywhere = ", over all processes" if loss.over == "global" else ""
    return f"{loss.kind} ({loss.weight:g}{everywhere})"


def _shape(shape: tuple[object, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
