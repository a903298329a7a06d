"""A piece while it is made: a module whose function is put together from operations of a layer's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import func

from moec.passes.gradients.backward import GRADIENT
from moec.passes.pieces.parts import Parts
from moec.passes.rewriting import clone, defining, walk


@dataclass(frozen=True)
class Argument:
    """An argument of a piece: name, type, role; `stands` is the value of the layer's function that it stands for."""

    name: str
    type: ir.Type
    role: str
    stands: ir.Value | None = None


@dataclass(frozen=True)
class Result:
    """A result of a piece; no role: an output.

    element  the type of its gradient's elements; None: its own
    taken    the input by whose numbers the rows of its gradient are taken
    """

    name: str
    value: ir.Value
    role: str | None = None
    element: ir.Type | None = None
    taken: str = ""

    @property
    def attributes(self) -> ir.DictAttr:
        named = _named(self.name, self.role)
        if self.element is not None:
            how = {"element": ir.TypeAttr.get(self.element), "taken": ir.StringAttr.get(self.taken)}
            named[GRADIENT] = ir.DictAttr.get(how)
        return ir.DictAttr.get(named)


class Draft:
    """A piece.  `known` maps values of the layer's function to those of the piece."""

    def __init__(self, parts: Parts, name: str, arguments: Sequence[Argument], attributes: Sequence[str] = ()) -> None:
        self.parts = parts
        layer = f"{parts.layer}_{name}"
        self.module = ir.Module.create(ir.Location.unknown(parts.function.context))
        given = parts.function.parent.attributes
        self.module.operation.attributes["moe.layer"] = ir.StringAttr.get(layer)
        for attribute in attributes:
            if attribute in given:
                self.module.operation.attributes[attribute] = given[attribute]
        with ir.InsertionPoint(self.module.body), parts.function.location:
            self.function = func.FuncOp(layer, ir.FunctionType.get([a.type for a in arguments], []))
        self.block = self.function.add_entry_block()
        self.function.arg_attrs = ir.ArrayAttr.get([ir.DictAttr.get(_named(a.name, a.role)) for a in arguments])
        self.arguments = dict(zip((a.name for a in arguments), self.block.arguments, strict=True))
        self.known: dict[ir.Value, ir.Value] = {
            a.stands: self.arguments[a.name] for a in arguments if a.stands is not None
        }

    def take(self, value: ir.Value) -> ir.Value:
        """A value of the layer's function, whose operations are repeated at the insertion point where need be."""
        if value not in self.known:
            op = defining(value)
            assert op is not None, "arguments of the layer's function that a piece reads are its own"
            for one in outside(op):
                self.take(one)
            clone(op, self.known)
        return self.known[value]

    def finish(self, results: Sequence[Result]) -> ir.Module:
        """The piece, which gives these."""
        with ir.InsertionPoint(self.block), self.parts.function.location:
            func.ReturnOp([one.value for one in results])
        self.function.operation.attributes["res_attrs"] = ir.ArrayAttr.get([one.attributes for one in results])
        types = ir.FunctionType.get([a.type for a in self.block.arguments], [one.value.type for one in results])
        self.function.operation.attributes["function_type"] = ir.TypeAttr.get(types)
        self.module.operation.verify()
        return self.module


def used(
    parts: Parts, values: Iterable[ir.Value], stops: Iterable[ir.Value] = (), groups: Sequence[str] = ()
) -> list[Argument]:
    """The arguments of the layer's function that values are computed from, in order; not beyond `stops`.

    groups  of which parameters are taken along that nothing reads: the layer has them, so its weights do
    """
    reached = set(stops)
    found = set()
    work = [value for value in values if value not in reached]
    while work:
        value = work.pop()
        reached.add(value)
        op = defining(value)
        if op is None:
            found.add(value)
        else:
            work += [one for one in outside(op) if one not in reached]
    return [
        Argument(_text(names, "moe.name"), value.type, _text(names, "moe.role"), value)
        for value, names in parts.names.items()
        if value in found or (_text(names, "moe.name").partition(".")[0] in groups and not list(value.uses))
    ]  # fmt: skip


def outside(op: ir.Operation) -> list[ir.Value]:
    """The values from around an operation that it and its regions read, in order."""
    inside = [inner for region in op.regions for block in region.blocks for inner in walk(block)]
    blocks = [block for inner in (op, *inside) for region in inner.regions for block in region.blocks]
    own = {result for inner in inside for result in inner.results} | {a for block in blocks for a in block.arguments}
    return list(dict.fromkeys(v for one in (op, *inside) for v in one.operands if v not in own))


def _text(names: ir.DictAttr, key: str) -> str:
    return str(ir.StringAttr(names[key]).value)


def _named(name: str, role: str | None) -> dict[str, ir.Attribute]:
    named = {"moe.name": ir.StringAttr.get(name)}
    return named if role is None else {**named, "moe.role": ir.StringAttr.get(role)}
