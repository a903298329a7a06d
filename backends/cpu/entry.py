"""The functions that an artifact exports, in tvm-ffi's C ABI.

| function | |
|---|---|
| `supports()` | bit i is set if this processor can run variant i |
| `packed_bytes(variant)` | size of the packed parameters |
| `pack(variant, i, packed, tensor)` | writes parameter i into the packed parameters |
| `unpack(variant, i, packed, tensor)` | the inverse, exact |
| `adopt(variant, step, base, packed, scratch)` | adoption.py; only where a variant can take over packed weights |
| `workspace_bytes(variant, tokens, threads)` | size of the workspace of a call |
| `run(variant, threads, packed, workspace, inputs.., outputs.., statistics..)` | computes the layer |

Of a layer that is trained there are also, for each NAME of forward and backward,

| function | |
|---|---|
| `NAME_workspace_bytes(variant, tokens, threads)` | size of the workspace of a call |
| `NAME(variant, threads, workspace, arguments.., results..)` | weights are among the arguments |

`packed` and `workspace` are u8 tensors aligned to 64 bytes.  A statistic that is None is not counted.  None of the
functions keeps state: all may be called from several threads at once, on other memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from moec.backends.cpu import frame as frames
from moec.backends.cpu.arguments import TOKENS, Arguments, Expected, exported, set_integer
from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.cpuid import supports_function
from moec.backends.cpu.frame import ADDRESS, LINE, Piece, align_up
from moec.backends.cpu.layer import Layer, Plan, Tensor
from moec.backends.cpu.values import Pointer, Value


@dataclass(frozen=True)
class Compiled:
    """A function of a layer, and for each variant its plan and what `threads.run_function` made of it."""

    layer: Layer
    plans: Sequence[Plan]
    runs: Sequence[Function]


def export(base: Builder, functions: Sequence[Compiled]) -> None:
    """Emits every exported function for those of a module, the layer itself first.  `base` builds for the variant that
    every machine can run."""
    itself = functions[0]
    builders = [base.for_variant(plan.frame.variant) for plan in itself.plans]
    _supports(base, itself.plans)
    _packed_bytes(base, itself.plans)
    for name in ("pack", "unpack"):
        _pack(base, itself.layer, itself.plans, builders, name)
    if any(plan.adoption for plan in itself.plans):
        _adopt(base, itself.plans, builders)
    for one in functions:
        if any(plan.frame.errors != one.plans[0].frame.errors for plan in one.plans):
            raise ValueError("error codes must mean the same in every variant")
        setups = [_setup_function(b, plan) for b, plan in zip(builders, one.plans, strict=True)]
        sizes = [_size_function(b, plan) for b, plan in zip(builders, one.plans, strict=True)]
        _workspace_bytes(base, one.layer.prefix, sizes)
        _run(base, one, setups, sizes)


def _pick(b: Builder, number: Value, values: Sequence[Callable[[], Value]]) -> Value:
    """The i64 of the case of this number; 0 if there is none."""
    found = b.index(0)
    for n, value in enumerate(values):
        found = b.choose(number.equals(n), [b.i64], lambda value=value: [value()], lambda found=found: [found])[0]  # type: ignore[misc]
    return found


def _supports(b: Builder, plans: Sequence[Plan]) -> None:
    supports = supports_function(b, [plan.frame.variant for plan in plans])
    with exported(b, "supports", "", 0) as arguments, b.if_(arguments.status.equals(0)):
        set_integer(b, arguments.result, b.result(supports))


def _packed_bytes(b: Builder, plans: Sequence[Plan]) -> None:
    with exported(b, "packed_bytes", "variant", 1) as arguments:
        variant = arguments.integer(0, "variant", len(plans))
        with b.if_(arguments.status.equals(0)):
            sizes = [lambda plan=plan: b.index(plan.frame.packed_bytes) for plan in plans]
            set_integer(b, arguments.result, _pick(b, variant, sizes))


_PACKED = Expected("packed", "u8", (TOKENS,), length="packed_bytes(variant)", align=LINE)


def _workspace(layer: Layer) -> Expected:
    length = f"{layer.prefix}workspace_bytes(variant, T, threads)"
    return Expected("workspace", "u8", (TOKENS,), length=length, align=LINE)


def _expected(tensor: Tensor, per_token: int = 1) -> Expected:
    type_ = tensor.type
    dims = tuple(TOKENS if type_.is_dynamic_dim(n) else type_.get_dim_size(n) for n in range(type_.rank))
    length = "T" if per_token == 1 else f"T*{per_token}"
    optional = tensor.role == "statistic"
    return Expected(f"{tensor.role} `{tensor.name}`", str(type_.element_type), dims, length, per_token, 1, optional)


def _pack(base: Builder, layer: Layer, plans: Sequence[Plan], builders: Sequence[Builder], name: str) -> None:
    """pack or unpack: one internal function for every variant and parameter does the work."""
    table = [
        [_pack_one(b, plan, parameter, n, name) for n, parameter in enumerate(layer.parameters)]
        for b, plan in zip(builders, plans, strict=True)
    ]
    b = base
    with exported(b, name, "variant, i, packed, tensor", 4) as arguments:
        variant = arguments.integer(0, "variant", len(plans))
        which = arguments.integer(1, "i", max(1, len(layer.parameters)))
        size = _pick(b, variant, [lambda p=p: b.index(p.frame.packed_bytes) for p in plans])  # type: ignore[misc]
        packed = arguments.tensor(2, _PACKED, size)
        flat = which + variant * len(layer.parameters)
        for n, parameter in enumerate(layer.parameters):
            # Only the check of the parameter that is meant may fail.
            def check(n: int = n, parameter: Tensor = parameter) -> Value:
                def of_this() -> list[Value]:
                    inner = Arguments(b, arguments.arguments, arguments.count, arguments.result)
                    tensor = inner.tensor(3, _expected(parameter))
                    with b.if_(inner.status.equals(0)):
                        target, source = arguments.address(packed), arguments.address(tensor)
                        for v, functions in enumerate(table):
                            with b.if_(flat.equals(n + v * len(layer.parameters))):
                                b.call(functions[n], target, source)
                    return [inner.status]

                return b.choose(which.equals(n), [b.i32], of_this, lambda: [b.constant(b.i32, 0)])[0]

            arguments.then(check)


def _pack_one(b: Builder, plan: Plan, parameter: Tensor, number: int, name: str) -> Function:
    function = b.declare(f"{name}_{number}", [b.ptr, b.ptr])
    with b.define(function) as (packed, tensor):
        for offset, region in plan.frame.regions:
            pieces = [piece for piece in region.pieces if piece.parameter == parameter.value]
            table, layout = plan.frame.tables.get(offset), region.layout
            if layout is None:
                for piece in pieces:
                    (piece.pack if name == "pack" else piece.unpack)(b, packed + offset, tensor)
                continue
            for _, alike in groupby(pieces, lambda piece: piece.place.form):
                of_one = list(alike)
                if len(of_one) == 1 and plan.frame.lender is None:
                    (piece,) = of_one
                    (piece.pack if name == "pack" else piece.unpack)(b, packed + offset, tensor)
                else:
                    _each(b, packed, tensor, (offset, table, layout.expert_bytes), of_one, name)
    return function


def _each(
    b: Builder, packed: Pointer, tensor: Pointer, where: tuple[int, int | None, int], pieces: Sequence[Piece], name: str
) -> None:
    """Packs or unpacks one expert after the other, of pieces that differ in nothing but which these are.

    Which they are is data, so that the code is the same for other ones.  Of a region with a table, packs into the
    region and says so in its table; unpacks from where the table says.
    where: the offset of the region, that of its table, and the bytes of an expert
    """
    offset, table, expert_bytes = where
    one, unit_bytes = pieces[0].one, pieces[0].unit_bytes
    if one is None:
        raise ValueError("only experts are packed one by one")
    experts = [(place.first + n, place.source + n) for place in (p.place for p in pieces) for n in range(place.count)]
    numbers = b.integers([number for both in experts for number in both])
    with b.for_(0, len(experts)) as loop:
        number, source = (numbers.at(loop.index * 2 + n, 8).load(b.i64) for n in range(2))
        at = number * expert_bytes + offset
        if table is not None:
            entry = (packed + table).at(number, ADDRESS)
            if name == "pack":
                entry.store(at)
            else:
                at = entry.load(b.i64)
        one(name, b, packed + at, tensor.at(source, unit_bytes))


def _adopt(base: Builder, plans: Sequence[Plan], builders: Sequence[Builder]) -> None:
    b = base
    functions = [
        plan.adoption.function(own) if plan.adoption is not None else None
        for plan, own in zip(plans, builders, strict=True)
    ]
    with exported(b, "adopt", "variant, step, base, packed, scratch", 5) as arguments:
        variant = arguments.integer(0, "variant", len(plans))
        step = arguments.integer(1, "step")
        made = [plan.adoption for plan in plans]
        given = _pick(b, variant, [lambda a=a: b.index(a.lender.bytes if a else 0) for a in made])  # type: ignore[misc]
        size = _pick(b, variant, [lambda p=p: b.index(p.frame.packed_bytes) for p in plans])  # type: ignore[misc]
        room = _pick(b, variant, [lambda a=a: b.index(a.described.scratch if a else 0) for a in made])  # type: ignore[misc]
        lender = arguments.tensor(2, replace(_PACKED, name="base", length="packed_bytes of the base"), given)
        packed = arguments.tensor(3, _PACKED, size)
        scratch = arguments.tensor(4, replace(_PACKED, name="scratch", length="the scratch of an adoption"), room)

        def work() -> Value:
            for number, function in enumerate(functions):
                if function is not None:
                    with b.if_(variant.equals(number)):
                        b.call(function, step, *map(arguments.address, (lender, packed, scratch)))
            return b.constant(b.i32, 0)

        arguments.then(work)


def _size_function(b: Builder, plan: Plan) -> Function:
    """`i64 workspace(i64 tokens, i64 threads)`."""
    function = b.declare(f"{plan.frame.name}workspace", [b.i64, b.i64], b.i64)
    with b.define(function) as (tokens, threads):
        total = b.index(0)
        for _, size in plan.frame.buffers:
            total = total + _aligned_size(b, size, tokens, threads)
        b.return_(total)
    return function


def _aligned_size(b: Builder, size: frames.Size, tokens: Value, threads: Value) -> Value:
    bytes_ = tokens * size.per_token + threads * size.of_thread(b, tokens) + (size.fixed + LINE - 1)
    return bytes_ & -LINE


def _setup_function(b: Builder, plan: Plan) -> Function:
    """`void setup(ptr frame)`: writes the addresses of the workspace buffers and clears the counters."""
    function = b.declare(f"{plan.frame.name}setup", [b.ptr])
    with b.define(function) as (frame,):
        tokens, threads = (frame + 8 * frames.TOKENS).load(b.i64), (frame + 8 * frames.THREADS).load(b.i64)
        place = (frame + 8 * frames.WORKSPACE).load_pointer()
        (frame + 8 * frames.ERROR).store(b.index(0))
        for word, size in plan.frame.buffers:
            (frame + 8 * word).store(place)
            place = place + _aligned_size(b, size, tokens, threads)
        for word in plan.frame.counters:
            (frame + 8 * word).store(b.index(0))
    return function


def _workspace_bytes(b: Builder, prefix: str, sizes: Sequence[Function]) -> None:
    with exported(b, f"{prefix}workspace_bytes", "variant, tokens, threads", 3) as arguments:
        variant = arguments.integer(0, "variant", len(sizes))
        tokens, threads = arguments.integer(1, "tokens"), arguments.integer(2, "threads")
        with b.if_(arguments.status.equals(0)):
            cases = [lambda size=size: b.result(size, tokens, threads) for size in sizes]
            set_integer(b, arguments.result, _pick(b, variant, cases))


def _run(b: Builder, compiled: Compiled, setups: Sequence[Function], sizes: Sequence[Function]) -> None:
    layer, plans, runs = compiled.layer, compiled.plans, compiled.runs
    given = (*layer.inputs, *layer.outputs)
    fixed = ["variant", "threads", *([] if layer.plain else ["packed"]), "workspace"]
    usage = ", ".join((*fixed, *(t.name for t in given)))
    with exported(b, layer.entry, usage, len(fixed) + len(given)) as arguments:
        variant = arguments.integer(0, "variant", len(plans))
        threads = arguments.integer(1, "threads")
        arguments.require(lambda: threads > 0, "RangeError", "threads must be at least 1")
        packed = None
        if not layer.plain:
            size = _pick(b, variant, [lambda p=p: b.index(p.frame.packed_bytes) for p in plans])  # type: ignore[misc]
            packed = arguments.tensor(2, _PACKED, size)
        workspace = arguments.tensor(len(fixed) - 1, _workspace(layer))
        first = arguments.tensor(len(fixed), _expected(layer.inputs[0]))
        tokens = arguments.length(first)
        tensors = [first]
        for n, tensor in enumerate(given[1:], start=len(fixed) + 1):
            per_token = plans[0].frame.rows_per_token.get(tensor.value, 1)
            tensors.append(arguments.tensor(n, _expected(tensor, per_token), tokens))
        _check_sizes(arguments, compiled, variant, tokens, threads, workspace, sizes)

        def compute() -> Value:
            state = b.scratch(8 * align_up(max(plan.frame.words for plan in plans), 8))
            for word, value in (
                (frames.TOKENS, tokens),
                (frames.THREADS, threads),
                (frames.WORKSPACE, arguments.address(workspace)),
            ):
                (state + 8 * word).store(value)
            if packed is not None:
                (state + 8 * frames.PACKED).store(arguments.address(packed))
            # The caller's tensors have the same words in every variant: they are the first that are bound.
            for storage, one, tensor in zip((*plans[0].inputs, *plans[0].outputs), given, tensors, strict=True):
                address = arguments.optional_address if one.role == "statistic" else arguments.address
                (state + 8 * storage.word).store(address(tensor))
            for v in range(len(plans)):
                with b.if_(variant.equals(v)):
                    b.call(setups[v], state)
                    b.call(runs[v], state, tokens, threads)
            return _status(arguments, plans, (state + 8 * frames.ERROR).load(b.i64))

        arguments.then(compute)


def _check_sizes(
    arguments: Arguments,
    compiled: Compiled,
    variant: Value,
    tokens: Value,
    threads: Value,
    workspace: Pointer,
    sizes: Sequence[Function],
) -> None:
    b = arguments.b
    most = max((n for plan in compiled.plans for n in plan.frame.rows_per_token.values()), default=1)
    arguments.require(lambda: tokens < 2**31 // most, "RangeError", f"T must be below {2**31 // most}")
    needed = [lambda size=size: b.result(size, tokens, threads) for size in sizes]
    large_enough = lambda: arguments.length(workspace) >= _pick(b, variant, needed)  # noqa: E731
    text = f"workspace must have at least {compiled.layer.prefix}workspace_bytes(variant, T, threads) bytes"
    arguments.require(large_enough, "ShapeError", text)


def _status(arguments: Arguments, plans: Sequence[Plan], code: Value) -> Value:
    """Raises the error that a phase has noted, if any."""
    b = arguments.b
    status = b.constant(b.i32, 0)
    for number, (kind, text) in enumerate(plans[0].frame.errors, start=1):
        status = b.choose(
            code.equals(number),
            [b.i32],
            lambda kind=kind, text=text: [arguments.fail(kind, text)],  # type: ignore[misc]
            lambda status=status: [status],  # type: ignore[misc]
        )[0]
    return status
