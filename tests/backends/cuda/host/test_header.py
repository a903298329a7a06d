"""What the generated code knows of the driver, against NVIDIA's own header."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from moec.artifact.cuda import BOUND_ALIGN
from moec.backends.cuda import binding
from moec.backends.cuda import driver as drivers

VALUES = {
    "CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT": drivers.MULTIPROCESSORS,
    "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR": drivers.CAPABILITY_MAJOR,
    "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR": drivers.CAPABILITY_MINOR,
    "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES": drivers.MAX_DYNAMIC_SHARED_BYTES,
    "CUDA_SUCCESS": 0,
    "CUDA_ERROR_OUT_OF_MEMORY": drivers.OUT_OF_MEMORY,
    "CU_TENSOR_MAP_DATA_TYPE_UINT8": binding.DATA_TYPES["i8"],
    "CU_TENSOR_MAP_DATA_TYPE_INT32": binding.DATA_TYPES["i32"],
    "CU_TENSOR_MAP_DATA_TYPE_FLOAT16": binding.DATA_TYPES["f16"],
    "CU_TENSOR_MAP_DATA_TYPE_FLOAT32": binding.DATA_TYPES["f32"],
    "CU_TENSOR_MAP_DATA_TYPE_BFLOAT16": binding.DATA_TYPES["bf16"],
    "CU_TENSOR_MAP_INTERLEAVE_NONE": 0,
    "CU_TENSOR_MAP_SWIZZLE_NONE": binding.SWIZZLES[0],
    "CU_TENSOR_MAP_SWIZZLE_32B": binding.SWIZZLES[32],
    "CU_TENSOR_MAP_SWIZZLE_64B": binding.SWIZZLES[64],
    "CU_TENSOR_MAP_SWIZZLE_128B": binding.SWIZZLES[128],
    "CU_TENSOR_MAP_L2_PROMOTION_L2_128B": binding.L2_128_BYTES,
    "CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE": 0,
    "sizeof(CUtensorMap)": binding.MAP_BYTES,
}


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is missing")
def test_numbers_and_names(tmp_path: Path) -> None:
    lines = ["#include <cuda.h>"]
    lines += [f'static_assert({name} == {value}, "{name}");' for name, value in VALUES.items()]
    lines += [f'static_assert({BOUND_ALIGN} % alignof(CUtensorMap) == 0, "alignof(CUtensorMap)");']
    lines += [f"auto* const {name}_exists = &{name};" for name in drivers.FUNCTIONS]
    source = tmp_path / "header.cc"
    source.write_text("\n".join(lines) + "\n")
    command = ["nvcc", "-c", "-std=c++17", "-o", str(tmp_path / "header.o"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
