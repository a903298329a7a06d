"""Opening a device: its context, the kernels of the architecture that fits it, and where they are found.

The state of an opened device is a block of words (`driver`); it never changes afterwards, so that threads share it.
"""

from __future__ import annotations

from collections.abc import Sequence

from moec.backends.cpu.arguments import fail
from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.values import Pointer, Value
from moec.backends.cuda import driver as drivers
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.bundle import Bundle
from moec.backends.cuda.driver import Driver
from moec.backends.cuda.status import Status

_NOW = 2  # RTLD_NOW
_STATIC_SHARED_BYTES = 48 * 1024  # what a kernel may use without asking


def open_function(b: Builder, bundles: Sequence[Bundle], images: Sequence[bytes]) -> Function:
    """`i32 cuda_opened(i64 device, ptr result)`: writes the address of the state; a status."""
    malloc = b.declare("malloc", [b.i64], b.ptr, linkage="external")
    free = b.declare("free", [b.ptr], linkage="external")
    dlopen = b.declare("dlopen", [b.ptr, b.i32], b.ptr, linkage="external")
    load = _load_function(b, bundles, images)
    function = b.declare("cuda_opened", [b.i64, b.ptr], b.i32)
    words = drivers.FIRST_KERNEL + max(len(bundle.kernels) for bundle in bundles)
    with b.define(function) as (device, result):
        library = Pointer(b.result(dlopen, b.string(drivers.LIBRARY), b.constant(b.i32, _NOW)).raw)
        state = Pointer(b.result(malloc, b.index(8 * words)).raw)
        driver = Driver(b, state)
        status = Status(b)
        missing = f"this machine has no NVIDIA driver: {drivers.LIBRARY} is not found"
        status.then(lambda: _unless(b, b.is_null(library), "NoCudaDriver", missing))
        status.then(lambda: _unless(b, b.is_null(state), "CudaError", "there is no memory for a device's state"))
        status.then(lambda: driver.find(library))
        status.then(lambda: driver.check(driver.call("cuInit", b.constant(b.i32, 0)), "starting the NVIDIA driver"))
        status.then(lambda: _look(b, driver, device))
        status.then(lambda: _choose(b, driver, [bundle.arch for bundle in bundles]))
        status.then(lambda: _retain(b, driver, load))
        with b.if_(status.value.differs(0)):
            b.call(free, state)
        with b.if_(status.value.equals(0)):
            result.store(b.integer(state))
        b.return_(status.value)
    return function


def close_function(b: Builder) -> Function:
    """`void cuda_closed(ptr state)`: unloads what `cuda_opened` loaded; nothing may run on it any more."""
    free = b.declare("free", [b.ptr], linkage="external")
    function = b.declare("cuda_closed", [b.ptr])
    with b.define(function) as (state,):
        driver = Driver(b, state)
        popped = b.scratch(8, 8)
        driver.call("cuCtxPushCurrent_v2", driver.word(drivers.CONTEXT).load_pointer())
        driver.call("cuModuleUnload", driver.word(drivers.MODULE).load_pointer())
        driver.call("cuCtxPopCurrent_v2", popped)
        _release(b, driver)
        b.call(free, state)
    return function


def _unless(b: Builder, wrong: Value, kind: str, text: str) -> Value:
    zero = b.constant(b.i32, 0)
    return b.choose(wrong, [b.i32], lambda: [fail(b, kind, b.string(text))], lambda: [zero])[0]


def _look(b: Builder, driver: Driver, device: Value) -> Value:
    """Finds the device and what it has; PROGRAM gets its compute capability for now."""
    status = Status(b)
    found, major, minor, count = (b.scratch(8, 8) for _ in range(4))
    ordinal = b.convert(device, b.i32)
    status.then(lambda: driver.check(driver.call("cuDeviceGet", found, ordinal), "looking for the CUDA device"))
    for attribute, place in (
        (drivers.CAPABILITY_MAJOR, major),
        (drivers.CAPABILITY_MINOR, minor),
        (drivers.MULTIPROCESSORS, count),
    ):

        def ask(attribute: int = attribute, place: Pointer = place) -> Value:
            number = b.constant(b.i32, attribute)
            asked = driver.call("cuDeviceGetAttribute", place, number, found.load(b.i32))
            return driver.check(asked, "asking what the CUDA device has")

        status.then(ask)

    def keep() -> Value:
        driver.word(drivers.DEVICE).store(b.convert(found.load(b.i32), b.i64))
        driver.word(drivers.SM_COUNT).store(b.convert(count.load(b.i32), b.i64))
        driver.word(drivers.PROGRAM).store(b.convert(major.load(b.i32) * 10 + minor.load(b.i32), b.i64))
        return b.constant(b.i32, 0)

    status.then(keep)
    return status.value


def _choose(b: Builder, driver: Driver, archs: Sequence[Arch]) -> Value:
    """PROGRAM becomes the number of the newest architecture whose code the device runs."""
    capability = driver.word(drivers.PROGRAM).load(b.i64)
    chosen = b.index(-1)
    for number, arch in sorted(enumerate(archs), key=lambda one: one[1].capability):
        if arch.exact:
            fits = capability.equals(arch.capability)
        else:
            major = arch.capability // 10 * 10
            fits = (capability >= arch.capability) & (capability < major + 10)
        chosen = b.select(fits, b.index(number), chosen)
    driver.word(drivers.PROGRAM).store(chosen)
    names = ", ".join(arch.name for arch in archs)
    text = f"this artifact has no code for the device's architecture, only for {names}"
    return _unless(b, chosen < 0, "UnsupportedGpu", text)


def _retain(b: Builder, driver: Driver, load: Function) -> Value:
    """Takes the device's primary context, which PyTorch uses too, and loads the kernels into it."""
    status = Status(b)
    device = b.convert(driver.word(drivers.DEVICE).load(b.i64), b.i32)
    context, popped = driver.word(drivers.CONTEXT), b.scratch(8, 8)
    retained = driver.call("cuDevicePrimaryCtxRetain", context, device)
    status.then(lambda: driver.check(retained, "making a context on the CUDA device"))

    def inside() -> Value:
        pushed = driver.call("cuCtxPushCurrent_v2", context.load_pointer())
        inner = Status(b)
        inner.then(lambda: driver.check(pushed, "entering the context of the CUDA device"))

        def loaded() -> Value:
            outcome = b.result(load, driver.state)
            driver.call("cuCtxPopCurrent_v2", popped)
            return outcome

        inner.then(loaded)
        with b.if_(inner.value.differs(0)):
            _release(b, driver)
        return inner.value

    status.then(inside)
    return status.value


def _release(b: Builder, driver: Driver) -> None:
    driver.call("cuDevicePrimaryCtxRelease_v2", b.convert(driver.word(drivers.DEVICE).load(b.i64), b.i32))


def _load_function(b: Builder, bundles: Sequence[Bundle], images: Sequence[bytes]) -> Function:
    """`i32 cuda_load(ptr state)`: the module and the kernels of the architecture that was chosen."""
    ones = [
        _load_one(b, number, bundle, image) for number, (bundle, image) in enumerate(zip(bundles, images, strict=True))
    ]
    function = b.declare("cuda_load", [b.ptr], b.i32)
    with b.define(function) as (state,):
        chosen = Driver(b, state).word(drivers.PROGRAM).load(b.i64)
        status = b.constant(b.i32, 0)
        for number, one in enumerate(ones):

            def load(one: Function = one) -> list[Value]:
                return [b.result(one, state)]

            status = b.choose(chosen.equals(number), [b.i32], load, lambda status=status: [status])[0]  # type: ignore[misc]
        b.return_(status)
    return function


def _load_one(b: Builder, number: int, bundle: Bundle, image: bytes) -> Function:
    function = b.declare(f"cuda_load_{number}", [b.ptr], b.i32)
    with b.define(function) as (state,):
        driver, status = Driver(b, state), Status(b)
        module = driver.word(drivers.MODULE)
        loaded = driver.call("cuModuleLoadData", module, b.data(image, 64))
        status.then(lambda: driver.check(loaded, f"loading the kernels for {bundle.arch.name}"))
        for place, kernel in enumerate(bundle.kernels):
            word = driver.word(drivers.FIRST_KERNEL + place)

            def find(word: Pointer = word, name: str = kernel.name) -> Value:
                got = driver.call("cuModuleGetFunction", word, module.load_pointer(), b.string(name))
                return driver.check(got, f"finding the kernel `{name}`")

            status.then(find)
            if kernel.shared_bytes > _STATIC_SHARED_BYTES:

                def allow(word: Pointer = word, name: str = kernel.name, size: int = kernel.shared_bytes) -> Value:
                    attribute = b.constant(b.i32, drivers.MAX_DYNAMIC_SHARED_BYTES)
                    bytes_ = b.constant(b.i32, size)
                    got = driver.call("cuFuncSetAttribute", word.load_pointer(), attribute, bytes_)
                    return driver.check(got, f"reserving shared memory for the kernel `{name}`")

                status.then(allow)
        b.return_(status.value)
    return function
