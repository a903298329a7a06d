"""Compiling the pieces of a layer that runs on a mesh: what each of its ranks runs."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from torch_mlir import ir

from moec import passes
from moec.artifact import container
from moec.artifact.manifest import Manifest
from moec.backends.registry import backend
from moec.dialect import context
from moec.dialect.functions import functions, is_plain, layer_function
from moec.dialect.schedule_forms import schedules
from moec.passes.base import Remarks
from moec.passes.place import Place
from moec.passes.schedule_exchange import ScheduleExchange
from moec.passes.shard_layout import ShardLayout
from moec.pipeline import describe, describe_training, ir_text
from moec.pipeline.describe_quantised import quantised
from moec.schedule.steps import Schedules


@dataclass(frozen=True)
class Pieces:
    """The pieces' artifacts by their names, the module that holds all of them at graph level, and when they run.

    remarks  of the passes that cut and scheduled them
    """

    artifacts: Mapping[str, bytes]
    text: str
    schedule: Schedules | None
    remarks: Remarks


def compile_pieces(
    graph: str,
    whole: Manifest,
    training: bool,
    machine: Path | None,
    stage: Callable[[str], AbstractContextManager[None]],
) -> Pieces:
    """Cut a layer at graph level (its text) as its layout says, and compile each piece within what `stage` gives.

    training  also compile what trains those pieces that have weights or work on rows
    machine   a machine file by which the schedule is chosen; None: by what the mesh says

    Raises DiagnosticError for a layer that cannot be cut, ToolchainError without a linker.
    """
    module = ir_text.parse(graph, container.GRAPH_IR, context())
    scheduling = ScheduleExchange(machine=str(machine) if machine is not None else "", train=training)
    report = passes.run(module, [ShardLayout(), scheduling, Place(train=training)])
    made = {}
    found = placed(module)
    trained = {"route", "experts", "shared_training" if "shared_training" in found else "shared"} if training else ()
    for name, piece in found.items():
        with stage(name):
            made[name] = _compiled(piece, whole, name in trained)
    return Pieces(made, ir_text.show(module), schedules(module), report.remarks)


def placed(module: ir.Module) -> Mapping[str, ir.Module]:
    """The pieces that a module holds since `place`, each as a module of its own, by their names."""
    inner = [op.operation for op in module.body.operations if op.operation.name == "builtin.module"]
    return {
        str(ir.StringAttr(op.attributes["sym_name"]).value): ir.Module.parse(op.get_asm(), module.context)
        for op in inner
    }


def drop_idle_training(piece: ir.Module) -> None:
    """Take away what trains a piece where no gradient arrives at anything (a router without weights)."""
    plain = [function for function in functions(piece) if is_plain(function)]
    if any(not list(function.attributes["res_attrs"]) for function in plain):
        for function in plain:
            function.erase()


def _compiled(piece: ir.Module, whole: Manifest, trained: bool) -> bytes:
    graph = ir_text.show(piece)
    if trained:
        passes.run(piece, passes.parse_pipeline(["differentiate"]))
        drop_idle_training(piece)
    passes.run(piece, passes.parse_pipeline(passes.DEFAULT_PIPELINE))
    library = backend(whole.target).compile(piece)
    manifest = replace(
        whole,
        layer=describe.layer_name(piece),
        variants=library.variants,
        inputs=describe.inputs(piece),
        outputs=describe.outputs(piece),
        parameters=describe.weights(piece),
        guarantees=describe.guarantees(piece),
        statistics=describe.statistics(piece),
        training=describe_training.training(piece),
        quantised=quantised(layer_function(piece)),
        policy=None,
        parallel=None,
    )
    texts = {container.GRAPH_IR: graph, container.KERNEL_IR: ir_text.show(piece)}
    return container.packed(library.data, manifest, texts, where=manifest.layer)
