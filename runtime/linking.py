"""Machine code in memory: handing it to the dynamic linker, and taking it out when nothing can call it any more."""

from __future__ import annotations

import ctypes
import fcntl
import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import tvm_ffi

from moec.errors import ArtifactError

_PREFIX = "__tvm_ffi_"
_MFD_EXEC = 0x10  # Linux 6.3: what is mapped executable should say so; older kernels refuse the flag


class Refused(ArtifactError):
    """The dynamic linker does not take the library."""


class _Code:
    """What every function of a library keeps alive; the library is unloaded when the last of them is gone."""


def link(library: bytes, name: str, functions: Iterable[str]) -> Mapping[str, Callable[..., Any]]:
    """Load an ELF shared library and return those of `functions` that it exports (as `__tvm_ffi_NAME`).

    The bytes go into an anonymous sealed file, so that what was verified is what is executed, whatever happens to the
    artifact's file meanwhile; replacing or truncating it later does not touch the running code either.  The library
    stays in memory as long as one of the functions is referred to, by a running call too.

    name: stands in the process's memory map.  Raises Refused, or ArtifactError without memory for the file.
    """
    # The descriptor stays open with the library: the linker knows a library by its path, and would take another
    # file that came to the same descriptor number for this one.
    descriptor = _sealed(library, name)
    path = f"/proc/self/fd/{descriptor}"
    try:
        # Every symbol is bound now: one that is missing would end the process at its first call.
        loaded = ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as error:
        os.close(descriptor)
        raise Refused(str(error).removeprefix(path).lstrip(": ")) from error
    code = _Code()
    weakref.finalize(code, _unload, loaded._handle, descriptor, path).atexit = False
    return {
        function: tvm_ffi.Function.__from_extern_c__(address, keep_alive_object=code)
        for function in functions
        if (address := _address(loaded, _PREFIX + function))
    }


def _address(loaded: ctypes.CDLL, symbol: str) -> int | None:
    try:
        return ctypes.cast(loaded[symbol], ctypes.c_void_p).value
    except AttributeError:
        return None


@cache
def _linker() -> ctypes.CDLL:
    own = ctypes.CDLL(None)
    own.dlclose.argtypes = [ctypes.c_void_p]
    own.dlopen.argtypes = [ctypes.c_char_p, ctypes.c_int]
    own.dlopen.restype = ctypes.c_void_p
    return own


def _unload(handle: int, descriptor: int, path: str) -> None:
    linker = _linker()
    linker.dlclose(handle)
    still = linker.dlopen(path.encode(), os.RTLD_NOLOAD | os.RTLD_LAZY)
    if still:  # something else holds it, such as a debugger's copy of the handle: its path must stay taken
        linker.dlclose(still)
    else:
        os.close(descriptor)


def _sealed(library: bytes, name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    name = f"moec:{name}"[:200]
    try:
        try:
            descriptor = os.memfd_create(name, flags | _MFD_EXEC)
        except OSError:
            descriptor = os.memfd_create(name, flags)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(library)
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        raise ArtifactError(f"no memory to hold its code (memfd): {error}") from error
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor
