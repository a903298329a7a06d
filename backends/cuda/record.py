"""What an artifact says of its kernels, for those who check them one by one: the member `cuda/kernels.json`.

    {"functions": {"run": {
      "values": [{"type": "bf16", "shape": [-1, 64], "rows": 1, "name": "x"}, ..],
      "operations": [{"name", "operands", "results", "attributes", "regions": [{"arguments", "operations"}]}, ..],
      "given": [values of the call's tensors, in order],
      "parameters": [values of the parameters, in order],
      "architectures": {"sm_90a": {
        "areas": [{"per_token", "fixed", "value"} or {.., "buffer", "value": whose it is}, ..],
        "kernels": [{"name", "operation", "tokens": [first, end or null],
                     "writes": [{"value"} or {"area"}, ..]}, ..]}}}}}

Values are numbers; those of regions are numbered like the others.  `rows` is how many rows a tensor has for each token,
0 where none of its dimensions depends on them.  Areas are in the order in which they lie in the workspace, each at a
multiple of 256 bytes.  Attributes are numbers, texts, and lists of these; others are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from torch_mlir import ir

from moec.backends.cuda.bundle import Bundle
from moec.backends.cuda.kernel import BufferPointer, Kernel, TensorPointer
from moec.backends.cuda.launching import layout
from moec.backends.cuda.program import Area, Program, rows

MEMBER = "cuda/kernels.json"


def record(bundles: Sequence[Bundle]) -> str:
    """The member's text."""
    programs = zip(*(bundle.programs for bundle in bundles), strict=True)
    functions = {of[0].layer.entry: _function(of) for of in programs}
    return json.dumps({"functions": functions}, separators=(",", ":"))


def _function(programs: Sequence[Program]) -> dict[str, Any]:
    """The same function on every architecture."""
    layer = programs[0].layer
    numbers = _Numbers()
    tensors = (*layer.inputs, *layer.parameters, *layer.outputs)
    for tensor in tensors:
        numbers.of(tensor.value)
    operations = [_operation(op.operation, numbers) for op in layer.operations]
    for tensor in tensors:
        numbers.values[numbers.of(tensor.value)].setdefault("name", tensor.name)
    return {
        "values": numbers.values,
        "operations": operations,
        "given": [numbers.of(tensor.value) for tensor in programs[0].given],
        "parameters": [numbers.of(tensor.value) for tensor in layer.parameters],
        "architectures": {program.arch.name: _architecture(program, numbers) for program in programs},
    }


class _Numbers:
    """Values by the order in which they are met."""

    def __init__(self) -> None:
        self.values: list[dict[str, Any]] = []
        self._known: dict[ir.Value, int] = {}

    def of(self, value: ir.Value) -> int:
        found = self._known.get(value)
        if found is None:
            found = self._known[value] = len(self.values)
            self.values.append(_described(value))
        return found


def _described(value: ir.Value) -> dict[str, Any]:
    if not isinstance(value.type, ir.RankedTensorType):
        return {"type": str(value.type)}
    type_ = ir.RankedTensorType(value.type)
    shape = [-1 if type_.is_dynamic_dim(axis) else type_.get_dim_size(axis) for axis in range(type_.rank)]
    per_token = rows(value) if shape and shape[0] == -1 else 0
    return {"type": str(type_.element_type), "shape": shape, "rows": per_token}


def _operation(op: ir.Operation, numbers: _Numbers) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": op.name,
        "operands": [numbers.of(value) for value in op.operands],
        "results": [numbers.of(value) for value in op.results],
        "attributes": {},
    }
    for name in op.attributes:
        value = _attribute(op.attributes[name])
        if value is not None:
            made["attributes"][name] = value
    blocks = [block for region in op.regions for block in region]
    if blocks:
        made["regions"] = [
            {
                "arguments": [numbers.of(value) for value in block.arguments],
                "operations": [_operation(inner.operation, numbers) for inner in block.operations],
            }
            for block in blocks
        ]
    return made


def _attribute(attribute: ir.Attribute) -> Any:
    """As JSON; None for what has no such form."""
    if isinstance(attribute, ir.UnitAttr):
        return True
    if isinstance(attribute, ir.BoolAttr | ir.IntegerAttr | ir.StringAttr):
        return attribute.value
    if isinstance(attribute, ir.FloatAttr):
        return _float(attribute.value)
    if isinstance(attribute, ir.DenseFPElementsAttr | ir.DenseIntElementsAttr):
        elements = [attribute.get_splat_value()] if attribute.is_splat else list(attribute)
        return [_attribute(one) if isinstance(one, ir.Attribute) else _float(one) for one in elements]
    if isinstance(attribute, ir.DenseI32ArrayAttr | ir.DenseI64ArrayAttr):
        return list(attribute)
    if isinstance(attribute, ir.AffineMapAttr):
        return _dimensions(str(attribute))
    if isinstance(attribute, ir.ArrayAttr):
        return [_attribute(one) for one in attribute]
    return None


def _dimensions(text: str) -> list[int]:
    """Of the results of an affine map such as `affine_map<(d0, d1) -> (d1)>`; constants are -1."""
    results = text.partition("->")[2].strip(" ()<>").split(",")
    return [int(one.strip().removeprefix("d")) if one.strip().startswith("d") else -1 for one in results if one.strip()]


def _float(value: float | int | bool) -> Any:
    """JSON knows no infinity."""
    finite = not isinstance(value, float) or abs(value) < float("inf")
    return value if finite else str(value)


def _architecture(program: Program, numbers: _Numbers) -> dict[str, Any]:
    areas = layout(program)
    described: list[dict[str, Any]] = [{"per_token": area.per_token, "fixed": area.fixed} for area in areas]
    for place, found in program.places.items():
        if isinstance(found, Area):
            one = described[areas.index(found)]
            if isinstance(place, ir.Value):
                one.setdefault("value", numbers.of(place))
            else:
                one |= {"buffer": place.name, "value": numbers.of(place.owner)}
    return {"areas": described, "kernels": list(_kernels(program, areas, numbers))}


def _kernels(program: Program, areas: Sequence[Area], numbers: _Numbers) -> Iterable[dict[str, Any]]:
    for kernel, number in zip(program.kernels, program.operations, strict=True):
        yield {
            "name": kernel.name,
            "operation": number,
            "tokens": list(kernel.tokens),
            "writes": list(_writes(kernel, program, areas, numbers)),
        }


def _writes(kernel: Kernel, program: Program, areas: Sequence[Area], numbers: _Numbers) -> Iterable[dict[str, int]]:
    """What a kernel is given without a promise to read it only; buffers as the areas that they are."""
    for argument in dict.fromkeys(kernel.arguments):
        if isinstance(argument, TensorPointer | BufferPointer) and not argument.ctype.startswith("const "):
            if isinstance(argument, TensorPointer):
                yield {"value": numbers.of(argument.value)}
            else:
                found = program.places[argument.buffer]
                yield {"area": next(n for n, area in enumerate(areas) if area is found)}
