"""The functions of ggml that a layer needs, from shared libraries that are found or named by GGML_DIR."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

BUILT = Path(__file__).resolve().parent.parent.parent / "build" / "ggml"
"""Where `bench/ggml/build.sh` puts the libraries."""
INSTALL = "`make peers` (bench/ggml/build.sh) builds it; GGML_DIR names a folder that has it"
LIBRARIES = ("libggml-base.so", "libggml-cpu.so", "libggml.so")

F32 = 0
TYPES = {"f32": F32, "bf16": 30, "q8_0": 8, "q4_0": 2, "q4_K": 12, "tq2_0": 35}
"""`enum ggml_type`, which files are written with and which therefore does not change."""

_pointer, _int, _size, _long = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_int64


class InitParams(ctypes.Structure):
    """`struct ggml_init_params`."""

    _fields_ = (("mem_size", _size), ("mem_buffer", _pointer), ("no_alloc", ctypes.c_bool))


SIGNATURES = {
    "ggml_init": (_pointer, InitParams),
    "ggml_free": (None, _pointer),
    "ggml_tensor_overhead": (_size,),
    "ggml_graph_overhead": (_size,),
    "ggml_new_tensor_2d": (_pointer, _pointer, _int, _long, _long),
    "ggml_new_tensor_3d": (_pointer, _pointer, _int, _long, _long, _long),
    "ggml_row_size": (_size, _int, _long),
    "ggml_nbytes": (_size, _pointer),
    "ggml_quantize_chunk": (_size, _int, _pointer, _pointer, _long, _long, _long, _pointer),
    "ggml_set_input": (None, _pointer),
    "ggml_set_output": (None, _pointer),
    "ggml_mul_mat": (_pointer, _pointer, _pointer, _pointer),
    "ggml_mul_mat_id": (_pointer, _pointer, _pointer, _pointer, _pointer),
    "ggml_soft_max": (_pointer, _pointer, _pointer),
    "ggml_argsort_top_k": (_pointer, _pointer, _pointer, _int),
    "ggml_get_rows": (_pointer, _pointer, _pointer, _pointer),
    "ggml_reshape_2d": (_pointer, _pointer, _pointer, _long, _long),
    "ggml_reshape_3d": (_pointer, _pointer, _pointer, _long, _long, _long),
    "ggml_sum_rows": (_pointer, _pointer, _pointer),
    "ggml_div": (_pointer, _pointer, _pointer, _pointer),
    "ggml_mul": (_pointer, _pointer, _pointer, _pointer),
    "ggml_add": (_pointer, _pointer, _pointer, _pointer),
    "ggml_swiglu": (_pointer, _pointer, _pointer),
    "ggml_cont": (_pointer, _pointer, _pointer),
    "ggml_view_2d": (_pointer, _pointer, _pointer, _long, _long, _size, _size),
    "ggml_new_graph": (_pointer, _pointer),
    "ggml_build_forward_expand": (None, _pointer, _pointer),
    "ggml_gallocr_new": (_pointer, _pointer),
    "ggml_gallocr_alloc_graph": (ctypes.c_bool, _pointer, _pointer),
    "ggml_gallocr_free": (None, _pointer),
    "ggml_backend_cpu_init": (_pointer,),
    "ggml_backend_cpu_set_n_threads": (None, _pointer, _int),
    "ggml_backend_free": (None, _pointer),
    "ggml_backend_get_default_buffer_type": (_pointer, _pointer),
    "ggml_backend_get_device": (_pointer, _pointer),
    "ggml_backend_dev_backend_reg": (_pointer, _pointer),
    "ggml_backend_reg_get_proc_address": (_pointer, _pointer, ctypes.c_char_p),
    "ggml_backend_buft_name": (ctypes.c_char_p, _pointer),
    "ggml_backend_alloc_ctx_tensors_from_buft": (_pointer, _pointer, _pointer),
    "ggml_backend_buffer_free": (None, _pointer),
    "ggml_backend_tensor_set": (None, _pointer, _pointer, _size, _size),
    "ggml_backend_tensor_get": (None, _pointer, _pointer, _size, _size),
    "ggml_backend_graph_compute": (_int, _pointer, _pointer),
}
"""Function to the type of its result and those of its arguments."""


class Missing(Exception):
    """ggml is not here, or is not one that this file knows; the message says what to do."""


class Library:
    """ggml's functions as attributes, without their prefix: `library.mul_mat(...)` calls `ggml_mul_mat(...)`."""

    def __init__(self, folder: Path) -> None:
        try:
            # In the order of their dependencies, so that none is looked for on the system's paths.
            handles = [ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL) for name in LIBRARIES]
        except OSError as why:
            raise Missing(f"ggml is not in {folder} ({why}): {INSTALL}") from why
        self._functions = {}
        for name, (result, *arguments) in SIGNATURES.items():
            found = next((getattr(handle, name) for handle in handles if hasattr(handle, name)), None)
            if found is None:
                raise Missing(f"the ggml in {folder} has no function {name}: {INSTALL}")
            found.restype, found.argtypes = result, arguments
            self._functions[name.removeprefix("ggml_")] = found

    def __getattr__(self, name: str) -> Callable[..., Any]:
        try:
            function: Callable[..., Any] = self._functions[name]
        except KeyError:
            raise AttributeError(name) from None
        return function


@cache
def library() -> Library:
    """ggml from GGML_DIR, or from where `bench/ggml/build.sh` puts it."""
    return Library(Path(os.environ.get("GGML_DIR", BUILT)))
