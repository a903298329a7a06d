"""A layer on its way to code: what its function takes and gives, and its plan for one instruction set."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch_mlir import ir
from torch_mlir.passmanager import PassManager

from moec.backends.base import unsupported
from moec.backends.cpu.adoption import Adoption
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.frame import Call, Frame, Phase, Storage, copy_bytes
from moec.backends.cpu.isa import Variant
from moec.backends.cpu.lender import Lender
from moec.backends.cpu.parameters import PARAMETERS, RESHAPES, is_parameter
from moec.backends.cpu.rowcount import rows_per_token
from moec.backends.cpu.values import byte_width
from moec.backends.cpu.waves import Wave, plan_of, plan_windows
from moec.dialect.functions import functions, has_wide_panels, is_paged, is_plain, is_statistic

Emitter = Callable[[Any, Frame], Sequence[Phase]]

# kernel-level operation -> module:function that plans it: (operation, frame) -> its phases
EMITTERS = {
    "moe.route": "moec.backends.cpu.route:route",
    "moe.capacity": "moec.backends.cpu.capacity:capacity",
    "moe.quantize_rows": "moec.backends.cpu.quantize_rows:quantize_rows",
    "moe.plan": "moec.backends.cpu.plan:plan",
    "moe.matmul": "moec.backends.cpu.grouped_matmul:matmul",
    "moe.grouped_matmul": "moec.backends.cpu.grouped_matmul:grouped_matmul",
    "moe.grouped_matmul_combine": "moec.backends.cpu.combine:grouped_matmul_combine",
    "moe.take_rows": "moec.backends.cpu.exchange:take_rows",
    "moe.collect": "moec.backends.cpu.exchange:collect",
    "moe.map": "moec.backends.cpu.maps:map_rows",
    "moe.slot_values": "moec.backends.cpu.slots:slot_values",
    "moe.row_values": "moec.backends.cpu.slots:row_values",
    "moe.count": "moec.backends.cpu.slots:count",
    "moe.group_sum": "moec.backends.cpu.group_sum:group_sum",
    "moe.dense_group_sum": "moec.backends.cpu.group_sum:dense_group_sum",
    "moe.weight_gradient": "moec.backends.cpu.weight_gradient:weight_gradient",
    "moe.dense_weight_gradient": "moec.backends.cpu.weight_gradient:dense_weight_gradient",
}

# Operations on parameters alone: packing resolves them; constants are read where they are used.
FOLDED = (
    "arith.constant", *RESHAPES, "tensor.concat", "tensor.extract_slice", "tensor.empty", "moe.quantize",
    "moe.dequantize",
)  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """An argument or a result of a layer's function."""

    name: str
    value: ir.Value
    role: str

    @property
    def type(self) -> Any:
        return ir.RankedTensorType(self.value.type)


@dataclass(frozen=True)
class Layer:
    """A function of a layer: the layer itself, with packed `parameters`, or one that trains it, with none: there,
    `inputs` are all arguments."""

    function: Any
    entry: str
    """The name that it is exported under."""
    inputs: tuple[Tensor, ...]
    parameters: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def plain(self) -> bool:
        return is_plain(self.function)

    @property
    def prefix(self) -> str:
        """In front of the names of everything else that belongs to it."""
        return f"{self.entry}_" if self.plain else ""

    @property
    def operations(self) -> list[Any]:
        """The operations of the body, but for the last, which returns."""
        return list(self.function.regions[0].blocks[0].operations)[:-1]


@dataclass
class Step:
    """Intervals of phases, once or in waves.

    All threads meet between two intervals; the phases of one do not read what another of it writes.
    """

    intervals: list[list[Phase]] = field(default_factory=list)
    wave: Wave | None = None


@dataclass
class Plan:
    """A layer's phases and frame for one instruction set; all threads meet between two steps."""

    frame: Frame
    inputs: list[Storage]
    outputs: list[Storage]
    steps: list[Step] = field(default_factory=list)
    adoption: Adoption | None = None
    """How the packed weights of the layer's base are taken over, where that is possible."""

    @property
    def phases(self) -> list[Phase]:
        return [phase for step in self.steps for interval in step.intervals for phase in interval]

    @property
    def work(self) -> int:
        """Estimated FLOPs a token."""
        return sum(phase.work for phase in self.phases)


def prepare(module: ir.Module) -> tuple[ir.Module, tuple[Layer, ...]]:
    """A copy of a kernel-level module, in which named `linalg` operations are generic, and its functions: the layer
    itself, then those that train it."""
    copy = _copy(module)
    generalise = PassManager.parse("builtin.module(linalg-generalize-named-ops)", context=module.context)
    generalise.enable_verifier(False)  # what it is given is verified, and it is MLIR's
    generalise.run(copy.operation)
    found = functions(copy)
    itself = [function for function in found if not is_plain(function)]
    if len(itself) != 1:
        raise unsupported("cpu", copy.operation, f"a module holds one layer, not {len(itself)}")
    name = _name(itself[0])
    training = [_layer(f, _name(f).removeprefix(f"{name}_")) for f in found if is_plain(f)]
    return copy, (_layer(itself[0], "run"), *training)


def _copy(module: ir.Module) -> ir.Module:
    copy = ir.Module.create(module.operation.location)
    for name in module.operation.attributes:
        copy.operation.attributes[name] = module.operation.attributes[name]
    with ir.InsertionPoint(copy.body):
        for operation in module.body.operations:
            operation.operation.clone()
    return copy


def _name(function: ir.Operation) -> str:
    return str(ir.StringAttr(function.attributes["sym_name"]).value)


def _layer(function: ir.Operation, entry: str) -> Layer:
    block = function.regions[0].blocks[0]
    attributes = function.attributes
    arguments = [
        Tensor(ir.StringAttr(names["moe.name"]).value, value, ir.StringAttr(names["moe.role"]).value)
        for value, names in zip(block.arguments, attributes["arg_attrs"], strict=True)
    ]
    returned = list(block.operations)[-1].operation.operands
    outputs = [
        Tensor(ir.StringAttr(names["moe.name"]).value, value, "statistic" if is_statistic(names) else "output")
        for value, names in zip(returned, attributes["res_attrs"], strict=True)
    ]
    inputs = [a for a in arguments if a.role == "input"]
    if not inputs:
        raise unsupported("cpu", function, "a layer has at least one input")
    for tensor in inputs:
        if not tensor.type.rank or not tensor.type.is_dynamic_dim(0):
            raise unsupported("cpu", function, f"input `{tensor.name}` needs a leading dimension of tokens")
    if is_plain(function):
        return Layer(function, entry, (*inputs, *(a for a in arguments if a.role != "input")), (), tuple(outputs))
    return Layer(function, entry, tuple(inputs), tuple(a for a in arguments if a.role != "input"), tuple(outputs))


def emitter(name: str) -> Emitter | None:
    """What plans operations of this name."""
    if name not in EMITTERS:
        return None
    module, _, attribute = EMITTERS[name].partition(":")
    found: Emitter = getattr(importlib.import_module(module), attribute)
    return found


def plan(layer: Layer, variant: Variant, lender: Lender | None = None) -> Plan:
    """Plans every operation.  Raises Unsupported for one that this backend cannot compile.

    lender: packed weights of which experts can be read in place
    """
    paged = is_paged(layer.function) and not layer.plain
    frame = Frame(variant, layer.prefix, layer.plain, has_wide_panels(layer.function), paged, lender)
    made = Plan(frame, [_bind(frame, tensor) for tensor in layer.inputs], [])
    given = {tensor.value for tensor in layer.inputs}
    copies = []
    for tensor in layer.outputs:
        storage = frame.bind(tensor.value)
        made.outputs.append(storage)
        if tensor.value in given:
            copies.append((tensor, storage))
        given.add(tensor.value)
        frame.bind_reshaped(tensor.value, storage)
    frame.windows = plan_windows(layer.operations, frame)
    _plan_steps(layer, made)
    if copies:
        copy = [_copy_phase(tensor, frame.storage(tensor.value), storage) for tensor, storage in copies]
        made.steps.append(Step([copy]))
    if frame.plain:
        _plan_copies(layer, frame)
    if frame.copies:
        made.steps.insert(0, Step([[_parameters_phase(frame)]]))
    for tensor in layer.parameters:
        if not any(piece.parameter == tensor.value for _, region in frame.regions for piece in region.pieces):
            frame.storage(tensor.value)
    made.adoption = Adoption.of(frame)
    return made


def _plan_copies(layer: Layer, frame: Frame) -> None:
    """Parameters that regions read get their copies before any code is emitted: code that comes first makes them."""
    for op in layer.operations:
        for region in op.operation.regions:
            for inner in (inner for block in region for inner in block.operations):
                for value in reads(inner.operation):
                    if is_parameter(value):
                        frame.storage(value)


def _bind(frame: Frame, tensor: Tensor) -> Storage:
    if tensor.role in PARAMETERS:
        return frame.bind_parameter(tensor.value)
    frame.rows_per_token[tensor.value] = rows_per_token(tensor.value)
    return frame.bind(tensor.value)


def _plan_steps(layer: Layer, made: Plan) -> None:
    """Plans the operations in order, with as few meetings of all threads as their data need."""
    frame = made.frame
    unseen: set[ir.Value] = set()  # results that a phase since the last meeting writes
    at_work: int | None = None  # the groups of the plan whose waves the current step runs
    for op in layer.operations:
        operation = op.operation
        plan_one = emitter(operation.name)
        if plan_one is None:
            if operation.name not in FOLDED:
                raise unsupported("cpu", operation, "it is no kernel")
            if reads(operation) & unseen:  # rows beside each other are read where their parts lie
                unseen |= set(operation.results)
            continue
        counters = len(frame.counters)
        phases = list(plan_one(op, frame))
        for tensor in _elements_read(operation):
            frame.storage(tensor)  # known before the phase is emitted that copies plain parameters
        offsets = plan_of(operation)
        in_waves = offsets in frame.windows
        waves = frame.groups[offsets] if in_waves else None
        if not made.steps or waves != at_work:
            made.steps.append(Step([]))
            unseen, at_work = set(), waves
        step = made.steps[-1]
        if in_waves:
            step.wave = Wave.of(frame, offsets, step.wave, frame.counters[counters:])
        if not step.intervals or reads(operation) & unseen:
            step.intervals.append([])
            unseen = set()
        step.intervals[-1].append(phases[0])
        step.intervals += [[phase] for phase in phases[1:]]
        if len(phases) > 1:
            unseen = set()
        unseen |= set(operation.results)


def reads(operation: ir.Operation) -> set[ir.Value]:
    """The values that an operation takes, those that its regions use from outside among them."""
    found = set(operation.operands)
    for region in operation.regions:
        for block in region:
            for inner in block.operations:
                found |= reads(inner.operation)
    return found


def _elements_read(operation: ir.Operation) -> list[ir.Value]:
    """The parameters, or what is made of them, that the epilogues of an operation read element by element."""
    blocks = (block for region in operation.regions for block in region)
    inner = (one.operation for block in blocks for one in block.operations)
    return [one.operands[0] for one in inner if one.name == "moe.element" and is_parameter(one.operands[0])]


def _parameters_phase(frame: Frame) -> Phase:
    """Copies the plain parameters that a call reads as its own."""

    def emit(call: Call) -> None:
        for storage, found in frame.copies:
            width = byte_width(storage.element)
            for part in found:
                to = call.address(storage) + part.begin * width
                given = call.address(frame.given(part.parameter)) + part.source * width
                copy_bytes(call.b, to, given, part.count * width)

    return Phase("parameters", emit, serial=True)


def _copy_phase(tensor: Tensor, source: Storage, target: Storage) -> Phase:
    """For a tensor that is returned although it is an input, or returned twice."""
    if not tensor.type.is_dynamic_dim(0):
        raise unsupported("cpu", tensor.value.owner, f"output `{tensor.name}` cannot be returned like this")
    width = target.stride

    def emit(call: Call) -> None:
        b: Builder = call.b
        with b.for_(0, call.tokens) as loop:
            copy_bytes(b, call.row(target, loop.index), call.row(source, loop.index), width)

    return Phase(f"copy_{tensor.name}", emit, serial=True)
