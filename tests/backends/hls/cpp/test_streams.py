"""The kernel's processes as threads, between streams as deep as in hardware: nothing waits for ever.

A C simulation runs one process after the other, between streams without bounds; hardware runs all of them at once.
Within a process, a panel is filled before it is used, as it is in hardware.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from moec.fixed.design import Design
from tests.backends.hls.cpp.designs import DESIGNS
from tests.backends.hls.cpp.projects import ap_types, write

BOUNDED = Path(__file__).parent / "bounded"
SECONDS = 200
QUICK = ("shared",)


def concurrent(source: str) -> str:
    """The kernel with a thread for each call in its dataflow region, and streams of the depths that pragmas say."""
    head, region, rest = re.split(
        r"(?<=#pragma HLS dataflow\n)(  hls::stream<section_t>.*?\n)(?=}\n)", source, flags=re.S
    )
    region = re.sub(
        r"#pragma HLS stream variable = (sections|words) depth = (\w+)",
        r"  for (int port = 0; port < PORTS; port++) \1[port].bound(\2);",
        region,
    )
    region = re.sub(r"#pragma HLS stream variable = (\w+) depth = (\w+)", r"  \1.bound(\2);", region)
    region, calls = re.subn(
        r"^  ((?:issue|fetch|unpack|sequence|compute)\([^;]*\));$",
        r"  std::thread t_N([&] { \1; });",
        region,
        flags=re.M,
    )
    for number in range(calls):
        region = region.replace("t_N", f"t{number}", 1)
    joins = "".join(f"  t{number}.join();\n" for number in range(calls))
    includes = "#include <thread>\n"
    return includes + head + region + joins + rest.replace("#ifdef __SYNTHESIS__", "#if 1")


def run(design: Design, folder: Path) -> str:
    """What the test bench says; raises TimeoutExpired where the processes wait for each other."""
    write(design, folder)
    kernel = folder / "src" / "moe_layer.cpp"
    kernel.write_text(concurrent(kernel.read_text()))
    program = folder / "bench"
    includes = [f"-I{BOUNDED}", "-Isrc", "-isystem", ap_types()]
    sources = ["tb/testbench.cpp", "src/moe_layer.cpp"]
    flags = ["-std=c++14", "-O0", "-w", "-pthread"]
    subprocess.run(["g++", *flags, *includes, *sources, "-o", program], cwd=folder, check=True)
    done = subprocess.run([program, "tb/vectors"], cwd=folder, text=True, stdout=subprocess.PIPE, timeout=SECONDS)
    return done.stdout


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in DESIGNS]
)
def test_nothing_waits_for_ever(name: str, tmp_path: Path) -> None:
    said = run(DESIGNS[name], tmp_path)
    assert said.count("PASS") == 12
    assert "FAIL" not in said
