"""The functions that an artifact exports for CUDA devices, in tvm-ffi's C ABI.

| function | |
|---|---|
| `cuda_open(device)` | opens CUDA device number `device` and loads its kernels; a handle (an integer) |
| `cuda_close(handle)` | the inverse; nothing may run with the handle any more |
| `cuda_architecture(handle)` | the number, in the manifest, of the architecture whose kernels were loaded |
| `cuda_run_bound_bytes()` | size of bound weights |
| `cuda_run_bind(handle, bound, stacks..)` | writes what launches need to know of the weights into `bound` |
| `cuda_run_workspace_bytes(handle, tokens)` | size of the workspace of a call |
| `cuda_run(handle, stream, bound, workspace, inputs.., outputs.., statistics..)` | launches the layer on a stream |

The last four are there with `forward` and `backward` in place of `run`, too, where the layer can be trained: they take
what these functions take on the CPU, less the weights.

Parameters that the layer quantises itself are given as codes, and their scales as further ones
(`moec.artifact.cuda.on_device`).

`bound` is a u8 tensor on the CPU, aligned to 128 bytes, and holds addresses of weights: these must stay where they are
as long as it is used.  `workspace` is a u8 tensor on the device, aligned to 256 bytes.  A stack is what the manifest
lists under `cuda.stacks`: parameters behind each other, as one tensor.  A statistic that is None is not given.
Launching does not wait for anything and allocates nothing, so that it can be captured in a CUDA graph; a workspace may
be used again by what comes later on the same stream.  Functions may be called from several threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch_mlir import ir

from moec.artifact.cuda import BOUND_ALIGN
from moec.backends.cpu.arguments import TOKENS, Arguments, Expected, exported, set_integer
from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.layer import Tensor
from moec.backends.cpu.values import Pointer, Value
from moec.backends.cuda import driver as drivers
from moec.backends.cuda.binding import Bound
from moec.backends.cuda.bundle import Bundle
from moec.backends.cuda.driver import Driver
from moec.backends.cuda.kept import Kept
from moec.backends.cuda.launching import ALIGN, launch_function, size_function
from moec.backends.cuda.opening import close_function, open_function
from moec.backends.cuda.program import Program, rows
from moec.backends.cuda.stacks import ALIGN as WEIGHT_ALIGN
from moec.backends.cuda.stacks import Stack
from moec.backends.cuda.status import Status

_ON_GPU = "on the CUDA device of the handle"


def export(b: Builder, bundles: Sequence[Bundle], images: Sequence[bytes]) -> None:
    """Emits every exported function; `images` are the bundles' cubins."""
    _open(b, open_function(b, bundles, images))
    _close(b, close_function(b))
    _architecture(b)
    for programs in zip(*(bundle.programs for bundle in bundles), strict=True):
        _export_function(b, programs, bundles[0].tensors)


def _export_function(b: Builder, programs: Sequence[Program], weights: Sequence[Kept]) -> None:
    """What calls one function of the layer; `programs` are those of the architectures."""
    bounds = [Bound.of(program) for program in programs]
    bound_bytes = max(bound.bytes for bound in bounds)
    name = f"cuda_{programs[0].layer.entry}"
    with exported(b, f"{name}_bound_bytes", "", 0) as arguments, b.if_(arguments.status.equals(0)):
        set_integer(b, arguments.result, b.index(bound_bytes))
    _bind(b, f"{name}_bind", bounds, bound_bytes, weights)
    sizes = [size_function(b, program, number) for number, program in enumerate(programs)]
    _workspace_bytes(b, f"{name}_workspace_bytes", programs, sizes)
    _run(b, name, bounds, sizes, bound_bytes)


def _handle(b: Builder, arguments: Arguments) -> Driver:
    """The opened device that the first argument names."""
    handle = arguments.word(0, "handle")
    arguments.require(lambda: handle.differs(0), "RangeError", "handle must be what cuda_open gave")
    return Driver(b, b.at_address(handle))


def _of_program(b: Builder, driver: Driver, functions: Sequence[Function], *given: Value) -> Value:
    """Calls the function of the program that the device runs."""
    number = driver.word(drivers.PROGRAM).load(b.i64)
    result = functions[0].result
    found = b.constant(result, 0)
    for n, function in enumerate(functions):

        def call(function: Function = function) -> list[Value]:
            return [b.result(function, *given)]

        found = b.choose(number.equals(n), [result], call, lambda found=found: [found])[0]  # type: ignore[misc]
    return found


def _open(b: Builder, opened: Function) -> None:
    with exported(b, "cuda_open", "device", 1) as arguments:
        device = arguments.integer(0, "device")
        place = b.scratch(8, 8)
        place.store(b.index(0))
        arguments.then(lambda: b.result(opened, device, place))
        with b.if_(arguments.status.equals(0)):
            set_integer(b, arguments.result, place.load(b.i64))


def _close(b: Builder, closed: Function) -> None:
    with exported(b, "cuda_close", "handle", 1) as arguments:
        driver = _handle(b, arguments)
        with b.if_(arguments.status.equals(0)):
            b.call(closed, driver.state)


def _architecture(b: Builder) -> None:
    with exported(b, "cuda_architecture", "handle", 1) as arguments:
        driver = _handle(b, arguments)
        with b.if_(arguments.status.equals(0)):
            set_integer(b, arguments.result, driver.word(drivers.PROGRAM).load(b.i64))


def _bind(b: Builder, name: str, bounds: Sequence[Bound], bound_bytes: int, weights: Sequence[Kept]) -> None:
    program = bounds[0].program
    binders = [bound.bind_function(b, number) for number, bound in enumerate(bounds)]
    count = len(program.stacks)
    with exported(b, name, "handle, bound, stacks..", 2 + count) as arguments:
        driver = _handle(b, arguments)
        bound = arguments.tensor(1, _bound(bound_bytes))
        addresses = b.scratch(8 * max(1, count), 8)
        for number, stack in enumerate(program.stacks):
            tensor = arguments.tensor(2 + number, _stacked(weights, stack), gpu=_device(b, arguments, driver))
            with b.if_(arguments.status.equals(0)):
                (addresses + 8 * number).store(arguments.address(tensor))

        def write() -> Value:
            given = (driver.state, arguments.address(bound), addresses)
            return _in_context(b, driver, lambda: _of_program(b, driver, binders, *given))

        arguments.then(write)


def _bound(bytes_: int) -> Expected:
    return Expected("bound", "u8", (bytes_,), align=BOUND_ALIGN)


def _stacked(weights: Sequence[Kept], stack: Stack) -> Expected:
    members = [weights[number] for number in stack]
    dims = list(members[0].dims)
    if dims:
        dims[0] = sum(member.dims[0] for member in members)
    names = " and ".join(f"`{member.name}`" for member in members)
    return Expected(f"parameter {names}", members[0].element, tuple(dims), align=WEIGHT_ALIGN, where=_ON_GPU)


def _device(b: Builder, arguments: Arguments, driver: Driver) -> Value:
    """The number of the handle's device; read only where the handle is sound."""
    read = lambda: [driver.word(drivers.DEVICE).load(b.i64)]  # noqa: E731
    return b.choose(arguments.status.equals(0), [b.i64], read, lambda: [b.index(0)])[0]


def _workspace_bytes(b: Builder, name: str, programs: Sequence[Program], sizes: Sequence[Function]) -> None:
    with exported(b, name, "handle, tokens", 2) as arguments:
        driver = _handle(b, arguments)
        tokens = arguments.integer(1, "tokens", _token_limit(programs[0]))
        with b.if_(arguments.status.equals(0)):
            set_integer(b, arguments.result, _of_program(b, driver, sizes, tokens))


def _token_limit(program: Program) -> int:
    """Calls have fewer tokens than this: so many that rows can be counted in 32 bits."""
    most = [rows(result) for op in program.layer.operations for result in op.operation.results if _has_rows(result)]
    return (2**31 - 1) // max(1, *most)


def _has_rows(value: ir.Value) -> bool:
    type_ = value.type
    return isinstance(type_, ir.RankedTensorType) and type_.rank > 0 and bool(type_.is_dynamic_dim(0))


def _expected(tensor: Tensor, per_token: int) -> Expected:
    type_ = tensor.type
    dims = tuple(TOKENS if type_.is_dynamic_dim(n) else type_.get_dim_size(n) for n in range(type_.rank))
    optional = tensor.role == "statistic"
    name = f"{tensor.role} `{tensor.name}`"
    align = 1 if optional else WEIGHT_ALIGN
    length = "T" if per_token == 1 else f"T*{per_token}"
    return Expected(name, str(type_.element_type), dims, length, per_token, align, optional, _ON_GPU)


def _run(b: Builder, name: str, bounds: Sequence[Bound], sizes: Sequence[Function], bound_bytes: int) -> None:
    program = bounds[0].program
    launches = [launch_function(b, bound, number) for number, bound in enumerate(bounds)]
    usage = ", ".join(("handle, stream, bound, workspace", *(tensor.name for tensor in program.given)))
    with exported(b, name, usage, 4 + len(program.given)) as arguments:
        driver = _handle(b, arguments)
        stream = arguments.word(1, "stream")
        bound = arguments.tensor(2, _bound(bound_bytes))
        device = _device(b, arguments, driver)
        room = Expected("workspace", "u8", (TOKENS,), f"{name}_workspace_bytes(handle, T)", align=ALIGN, where=_ON_GPU)
        workspace = arguments.tensor(3, room, gpu=device)
        tensors: list[Pointer] = []
        tokens: Value | None = None
        for number, tensor in enumerate(program.given):
            tensors.append(arguments.tensor(4 + number, _expected(tensor, rows(tensor.value)), tokens, device))
            if tokens is None:
                tokens = arguments.length(tensors[0])
        count = tokens if tokens is not None else b.index(0)
        limit = _token_limit(program)
        arguments.require(lambda: count < limit, "RangeError", f"a call has fewer than {limit} tokens")
        text = f"workspace is smaller than {name}_workspace_bytes(handle, T)"
        arguments.require(
            lambda: arguments.length(workspace) >= _of_program(b, driver, sizes, count), "ShapeError", text
        )

        def launch() -> Value:
            given = b.scratch(8 * len(tensors), 8)
            for number, (tensor, pointer) in enumerate(zip(program.given, tensors, strict=True)):
                optional = tensor.role == "statistic"
                (given + 8 * number).store(
                    arguments.optional_address(pointer) if optional else arguments.address(pointer)
                )
            launched = (b.at_address(stream), arguments.address(bound), arguments.address(workspace), count, given)
            return _in_context(b, driver, lambda: _of_program(b, driver, launches, driver.state, *launched))

        arguments.then(launch)


def _in_context(b: Builder, driver: Driver, body: Callable[[], Value]) -> Value:
    """Runs `body`, which gives a status, with the device's context current on this thread, as it mostly is."""
    current, popped = b.scratch(8, 8), b.scratch(8, 8)
    status = Status(b)
    asked = driver.call("cuCtxGetCurrent", current)
    status.then(lambda: driver.check(asked, "asking for the current context"))
    context = driver.word(drivers.CONTEXT).load_pointer()
    foreign = b.integer(current.load_pointer()).differs(b.integer(context))
    zero = b.constant(b.i32, 0)

    def enter() -> list[Value]:
        return [driver.check(driver.call("cuCtxPushCurrent_v2", context), "entering the context of the CUDA device")]

    status.then(lambda: b.choose(foreign, [b.i32], enter, lambda: [zero])[0])

    def inside() -> Value:
        outcome = body()
        with b.if_(foreign):
            driver.call("cuCtxPopCurrent_v2", popped)
        return outcome

    status.then(inside)
    return status.value
