"""The parts of a layer at graph level, as `place` cuts it."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir

from moec.dialect import CapacityOp, CombineOp, DispatchOp, ExpertsOp, RouteOp, SharedOp
from moec.dialect.functions import Routed, layer_function, routed
from moec.dialect.places import place
from moec.errors import DiagnosticError
from moec.passes.base import Remarks
from moec.passes.canonicalize import Canonicalize
from moec.passes.fuse_shared_experts import join, route_constantly, routed_twin
from moec.passes.pieces.hidden import Hidden, find_hidden, not_cut, parameter_axes
from moec.passes.pieces.sharding import Ways
from moec.passes.refusal import error
from moec.passes.rewriting import body, defining, dims, element_type, operations, terminator


@dataclass(frozen=True)
class Shared:
    """A group of shared experts: its name in the file, and whether each is added to the tokens' sums by itself.

    Otherwise the group is added up first.  Where the layer runs in one process it is the compiler's choice, which
    `joined` finds out; training always adds groups up first.
    """

    op: SharedOp
    name: str
    apart: bool

    @property
    def count(self) -> int:
        return int(ir.IntegerAttr(self.op.count).value)

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of what is added."""
        several = self.apart and self.count > 1
        return tuple(f"{self.name}_{i}" for i in range(self.count)) if several else (self.name,)


@dataclass(frozen=True)
class Parts:
    """What a layer with one group of routed experts consists of, and into how many parts its arguments are cut."""

    function: ir.Operation
    layer: str
    group: Routed
    route: RouteOp
    capacity: CapacityOp | None
    dispatch: DispatchOp
    experts: ExpertsOp
    combine: CombineOp
    shared: tuple[Shared, ...]
    ways: Ways

    def hidden(self, block: ir.Block) -> tuple[Hidden, int]:
        """What of an expert's program is cut besides experts, and into how many parts."""
        arguments = {one for op in operations(block, "moe.own") for one in parameter_axes(op.operation.operands[0], 0)}
        ways = max((n for one in arguments for n in self.ways.get(self.name(one), ())[1:]), default=1)
        return (find_hidden(block), ways) if ways > 1 else (Hidden(block), 1)

    def held(self, argument: ir.Value, experts: int | None = None) -> ir.Type:
        """The type of a parameter that one rank holds; of so many experts, if their axis is another."""
        shape = dims(argument)
        ways = self.ways.get(self.name(argument), ())
        for axis, count in enumerate(ways[1:], start=1):
            if shape[axis] % count:
                said = f"{shape[axis]} rows or columns of `{self.name(argument)}` are not {count} equal parts"
                raise not_cut(self.function, said)
            shape[axis] //= count
        if experts is not None:
            shape[0] = experts
        return ir.RankedTensorType.get(shape, element_type(argument))

    def name(self, argument: ir.Value) -> str:
        """The name of an argument of the layer's function."""
        return str(ir.StringAttr(self.names[argument]["moe.name"]).value)

    @property
    def result_element(self) -> ir.Type:
        """The element type of the layer's result."""
        ends = terminator(self.function.regions[0].blocks[0]).operands
        return element_type(ends[0])

    @property
    def names(self) -> dict[ir.Value, ir.DictAttr]:
        """The arguments of the layer's function, with their attributes."""
        arguments = self.function.regions[0].blocks[0].arguments
        return {a: ir.DictAttr(n) for a, n in zip(arguments, self.function.attributes["arg_attrs"], strict=True)}


def find_parts(module: ir.Module, ways: Ways) -> Parts:
    """The parts of a module's layer, whose arguments are cut as `ways` says.

    Raises DiagnosticError for a layer that cannot be cut.
    """
    function, group = layer_function(module), routed(module)
    block = body(module)
    dispatches = operations(block, "moe.dispatch")
    if group is None or not dispatches:
        raise cannot_cut(function, "it has no routed experts at graph level")
    if len(dispatches) > 1:
        raise cannot_cut(
            dispatches[1].operation,
            f"the experts of `{group.name}` have several formats, and a slot of a device has room for one",
            "give all routed experts one format",
        )
    (dispatch,) = dispatches
    if not isinstance(dispatch.x, ir.BlockArgument):
        raise cannot_cut(dispatch.operation, "its experts do not read the tokens as they are given")
    experts = _only(dispatch.rows, "moe.experts", function)
    combine = _only(experts.results[0], "moe.combine", function)
    chosen = defining(dispatch.index)
    capacity = chosen.opview if chosen is not None and chosen.name == "moe.capacity" else None
    route = defining(capacity.index) if capacity is not None else chosen
    if route is None or route.name != "moe.route" or combine.opview.weight != route.results[1]:
        raise cannot_cut(dispatch.operation, "its choices do not come from one router")
    name = str(ir.StringAttr(module.operation.attributes["moe.layer"]).value)
    shared = operations(block, "moe.shared")
    groups = tuple(
        Shared(op, group_name(op.body.blocks[0], function) or f"shared_{i}", apart)
        for i, (op, apart) in enumerate(zip(shared, joined(module), strict=True))
    )
    return Parts(
        function, name, group, route.opview, capacity, dispatch, experts.opview, combine.opview, groups, ways
    )  # fmt: skip


def joined(module: ir.Module) -> Sequence[bool]:
    """Which groups of shared experts become routed ones when the layer is compiled for one process."""
    copy = ir.Module.parse(module.operation.get_asm(enable_debug_info=True), module.context)
    Canonicalize().apply(copy, Remarks())
    found = []
    for op in operations(body(copy), "moe.shared"):
        twin = routed_twin(op, copy)
        found.append(twin is not None)
        if twin is None:
            route_constantly(op)
        else:
            join(op, twin)
    return found


def _only(value: ir.Value, name: str, function: ir.Operation) -> ir.Operation:
    """The one user of a value, which must be an operation of this name."""
    found = {use.owner.operation for use in value.uses}
    if [op.name for op in found] != [name]:
        raise cannot_cut(function, f"what its experts read or give is used by more than {name}")
    (op,) = found
    return op


def group_name(block: ir.Block, function: ir.Operation) -> str | None:
    """The name of a group of experts, by their program: what the names of its parameters begin with."""
    names = dict(zip(function.regions[0].blocks[0].arguments, function.attributes["arg_attrs"], strict=True))
    for op in operations(block, "moe.own"):
        for argument in parameter_axes(op.operation.operands[0], 0):
            return str(ir.StringAttr(names[argument]["moe.name"]).value).partition(".")[0]
    return None


def cannot_cut(op: ir.Operation, why: str, fix: str = "leave the mesh out of its layout") -> DiagnosticError:
    """The error for a layer whose pieces cannot be made."""
    return error("E0630", f"the layer cannot be spread over a mesh: {why}", notes=[f"at {place(op.location)}"], fix=fix)
