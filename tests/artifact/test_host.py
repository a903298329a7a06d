"""Features are matched between the kernel's names and LLVM's."""

from __future__ import annotations

from pathlib import Path

from moec.artifact.host import host_features, missing_features
from moec.artifact.manifest import Variant

CPUINFO = """processor\t: 0
flags\t\t: fpu sse2 pni ssse3 sse4_1 sse4_2 fma f16c avx2 bmi1 bmi2 abm avx512f avx512_bf16 avx512_vnni amx_bf16
processor\t: 1
flags\t\t: fpu
"""


def test_names_are_matched(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO)
    have = host_features(path)
    names = ("sse3", "sse4.2", "fma", "f16c", "avx2", "bmi", "bmi2", "lzcnt", "avx512f", "avx512bf16", "amx-bf16")
    assert missing_features(Variant("v", names, "0" * 16), have) == ()
    assert missing_features(Variant("v", ("+avx512vnni", "avx512fp16"), "0" * 16), have) == ("avx512fp16",)


def test_a_kernel_that_tells_nothing(tmp_path: Path) -> None:
    assert host_features(tmp_path / "nothing") == frozenset()
