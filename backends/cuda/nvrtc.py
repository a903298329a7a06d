"""NVRTC, the CUDA compiler that is a library: found in a wheel or on the system, and called through ctypes."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

OPTIONS = ("--std=c++17",)
_SONAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


class NvrtcError(Exception):
    """NVRTC refused a source; the message is its log."""


@dataclass(frozen=True)
class Library:
    """The loaded library."""

    code: ctypes.CDLL

    def compile(self, source: str, arch: str, headers: Mapping[str, str]) -> bytes:
        """The cubin of a source; `headers` are what it may include, by name.  Raises NvrtcError with the log."""
        names = (ctypes.c_char_p * len(headers))(*(name.encode() for name in headers))
        texts = (ctypes.c_char_p * len(headers))(*(text.encode() for text in headers.values()))
        program = ctypes.c_void_p()
        self._check(
            self.code.nvrtcCreateProgram(
                ctypes.byref(program), source.encode(), b"layer.cu", len(headers), texts, names
            )
        )
        try:
            options = [f"--gpu-architecture={arch}", *OPTIONS]
            given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            if self.code.nvrtcCompileProgram(program, len(options), given):
                raise NvrtcError(self._bytes("nvrtcGetProgramLog", program).rstrip(b"\0").decode(errors="replace"))
            return self._bytes("nvrtcGetCUBIN", program)
        finally:
            self.code.nvrtcDestroyProgram(ctypes.byref(program))

    def _bytes(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self.code, f"{what}Size")(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(getattr(self.code, what)(program, buffer))
        return buffer.raw

    def _check(self, result: int) -> None:
        if result:
            self.code.nvrtcGetErrorString.restype = ctypes.c_char_p
            raise NvrtcError(self.code.nvrtcGetErrorString(result).decode())


@cache
def find() -> Library | None:
    """NVRTC of a wheel (`nvidia-cuda-nvrtc`), or the system's; None where there is neither."""
    for candidate in (*_in_wheels(), *_SONAMES):
        with contextlib.suppress(OSError):
            return Library(ctypes.CDLL(str(candidate)))
    return None


def _in_wheels() -> Iterator[Path]:
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec is not None else []:
        # CUDA 13's wheels share a folder, older ones have one each.
        for folder in ("cu13/lib", "cuda_nvrtc/lib"):
            for name in _SONAMES:
                path = Path(root) / folder / name
                if path.exists():
                    yield path
