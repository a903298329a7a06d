"""The host programs give the reference's bits on boards that are none (boards/), in several calls of many rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from moec.fixed import packing
from moec.fixed.vectors import Case, cases
from tests.backends.hls.cpp.designs import TASKS as DESIGN
from tests.backends.hls.cpp.projects import make, write

BOARDS = Path(__file__).parent / "boards"
TOKENS = 2 * DESIGN.tokens + 3


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    write(DESIGN, folder)
    done = make(folder, "library")
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture(scope="module")
def case() -> Case:
    return cases(DESIGN.layer, TOKENS)[0]


def test_xrt(project: Path, case: Case, tmp_path: Path) -> None:
    program = tmp_path / "moe_host"
    sources = [f"-I{BOARDS}", f"-I{project}/src", project / "host" / "main.cpp", project / "build" / "libcsim.so"]
    subprocess.run(
        ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", *sources, f"-Wl,-rpath,{project}/build", "-o", program],
        check=True,
    )
    for port, words in enumerate(packing.pack(DESIGN, case.parameters)):
        (tmp_path / f"weights{port}.bin").write_bytes(words.tobytes())
    (tmp_path / "rows.bin").write_bytes(packing.pack_rows(DESIGN, case.rows).tobytes())
    assert case.tasks is not None
    (tmp_path / "tasks.bin").write_bytes(case.tasks.astype("<i4").tobytes())
    subprocess.run([program, "moe_layer.xclbin", tmp_path], check=True)
    words = np.fromfile(tmp_path / "result.bin", np.uint8).reshape(TOKENS, -1, DESIGN.port_bits // 8)
    np.testing.assert_array_equal(packing.unpack_rows(DESIGN, words), case.result)

    (tmp_path / "tasks.bin").write_bytes(b"")
    refused = subprocess.run([program, "moe_layer.xclbin", tmp_path], text=True, stderr=subprocess.PIPE)
    assert refused.returncode == 1
    assert refused.stderr == "tasks.bin has not a number for each row\n"


def test_pynq(project: Path, case: Case, tmp_path: Path) -> None:
    np.save(tmp_path / "weights.npy", packing.pack(DESIGN, case.parameters))
    np.save(tmp_path / "rows.npy", packing.pack_rows(DESIGN, case.rows))
    assert case.tasks is not None
    np.save(tmp_path / "tasks.npy", case.tasks.astype(np.int32))
    program = f"""
import numpy as np, pynq
pynq.LIBRARY = {str(project / "build" / "libcsim.so")!r}
from moe_layer import MoeLayer
layer = MoeLayer("moe_layer.xclbin", np.load("weights.npy"))
np.save("result.npy", layer(np.load("rows.npy"), np.load("tasks.npy")))
"""
    paths = f"{BOARDS}:{project / 'host'}"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": paths}, check=True)
    np.testing.assert_array_equal(packing.unpack_rows(DESIGN, np.load(tmp_path / "result.npy")), case.result)
