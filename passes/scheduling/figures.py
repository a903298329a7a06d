"""The figures of a layer on a mesh, read from its graph and its layout."""

from collections.abc import Iterator
from dataclasses import replace
from math import prod

import numpy as np
from torch_mlir import ir

from moec.artifact.fields import Fields, InvalidManifest
from moec.artifact.manifest import ITEM_BYTES
from moec.artifact.parallel import SEND_BYTES, Parallel
from moec.artifact.policy import read_policy
from moec.artifact.traffic import Load as Traffic
from moec.artifact.traffic import Uniform
from moec.dialect.functions import POLICY, layer_function
from moec.dialect.json_attributes import from_attribute
from moec.passes.refusal import error
from moec.passes.rewriting import body, operations
from moec.passes.scheduling.narrow import narrow_rows
from moec.schedule.choose import Allowed
from moec.schedule.demand import Held, Load
from moec.schedule.machine import Layer
from moec.schedule.routing import Choices

TOKENS = 256
"""Tokens of a rank where no load says how many a batch has."""
_SCALE_BYTES = 4
_SEED = 0


def figures(module: ir.Module, spread: Parallel) -> Layer:
    """What one rank computes and sends, in operations and bytes."""
    function = layer_function(module)
    inputs = [type_ for _, role, type_ in _arguments(function) if role == "input"]
    outputs = ir.FunctionType(ir.TypeAttr(function.attributes["function_type"]).value).results
    x, y = inputs[0], ir.RankedTensorType(outputs[0])
    elements, size = _weights(function)
    shared = {one.experts: spread.mesh.size(one.tp) for one in spread.shared}
    cut = spread.mesh.size(spread.routed.tp)
    routed, experts = spread.routed.experts, len(spread.holders)
    others = [name for name in elements if name != routed and name not in shared]
    width_in, width_out = _width(x), _width(y)
    return Layer(
        experts=experts,
        slots=_slots(module),
        x=width_in * _item(x),
        y=width_out * _item(y),
        row=_sent(width_in, _item(x), spread.sends.dispatch),
        result=_sent(width_out, 4, spread.sends.combine),
        sum=4 * width_out,
        gradient=4 * width_in,
        expert_flops=2.0 * elements.get(routed, 0) / experts / cut,
        expert_bytes=size.get(routed, 0) / experts / cut,
        route_flops=2.0 * sum(elements[name] for name in others),
        route_bytes=float(sum(size[name] for name in others)),
        shared_flops=2.0 * sum(elements.get(name, 0) / parts for name, parts in shared.items()),
        shared_bytes=sum(size.get(name, 0) / parts for name, parts in shared.items()),
    )


def load(module: ir.Module, spread: Parallel, tokens: int = 0) -> Load:
    """What the layer is expected to meet: `tokens` of a batch, or the most of the layout's load; and its routing.

    Where it is not known which experts are chosen most, they lie anywhere: in an order drawn once and for all.
    """
    traffic = _traffic(module)
    batch = tokens or (traffic.tokens[1] if traffic is not None else TOKENS * spread.mesh.size(spread.tokens))
    routing, experts, slots = traffic.routing if traffic else Uniform(), len(spread.holders), _slots(module)
    shares = np.asarray(routing.shares(experts, slots))
    if not routing.numbered:
        shares = np.random.default_rng(_SEED).permutation(shares)
    choices = Choices(tuple(shares.tolist()), slots)
    return Load(batch / spread.mesh.size(spread.tokens), choices, Held.of(spread.holders, spread.slots), spread.partial)


def allowed(module: ir.Module, spread: Parallel, chunks: int | None, train: bool) -> Allowed:
    """What a layout allows its schedules; `chunks` stands instead of its own number."""
    overlap, traffic = spread.overlap, _traffic(module)
    may = Allowed(
        training=train,
        chunks=chunks,
        numbered=traffic is not None and traffic.routing.numbered,
        low_dimension=narrow_rows(module),
    )
    if overlap is None:
        return may
    return replace(may, overlap=overlap.directions, with_shared=overlap.with_shared, chunks=chunks or overlap.chunks)


def _traffic(module: ir.Module) -> Traffic | None:
    attributes = module.operation.attributes
    if POLICY not in attributes:
        return None
    try:
        return read_policy(Fields.of(from_attribute(attributes[POLICY]), POLICY)).load
    except (InvalidManifest, ValueError) as why:
        raise error("E0605", f"the module's attribute is no policy: {why}") from why


def _arguments(function: ir.Operation) -> Iterator[tuple[str, str, ir.RankedTensorType]]:
    for value, given in zip(function.regions[0].blocks[0].arguments, function.attributes["arg_attrs"], strict=True):
        names = ir.DictAttr(given)
        role, name = (str(ir.StringAttr(names[key]).value) for key in ("moe.role", "moe.name"))
        yield name, role, ir.RankedTensorType(value.type)


def _weights(function: ir.Operation) -> tuple[dict[str, int], dict[str, int]]:
    """Elements and bytes of the weights, by the group that the first part of their names says."""
    elements, size = dict[str, int](), dict[str, int]()
    for name, role, type_ in _arguments(function):
        if role != "input":
            group, count = name.partition(".")[0], prod(type_.shape)
            elements[group] = elements.get(group, 0) + count
            size[group] = size.get(group, 0) + count * _item(type_)
    return elements, size


def _slots(module: ir.Module) -> int:
    (dispatch, *_) = operations(body(module), "moe.dispatch")
    return int(ir.RankedTensorType(dispatch.index.type).get_dim_size(1))


def _width(type_: ir.RankedTensorType) -> int:
    return prod(list(type_.shape)[1:])


def _item(type_: ir.RankedTensorType) -> int:
    return ITEM_BYTES[str(type_.element_type)]


def _sent(width: int, item: int, to: str | None) -> int:
    """Bytes of a row on the wire."""
    if to is None:
        return width * item
    return width * SEND_BYTES[to] + (_SCALE_BYTES if SEND_BYTES[to] == 1 else 0)
