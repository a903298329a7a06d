"""The instruction wgmma as a C++ function; PTX names every register of its sums, so each width has its own text."""

from __future__ import annotations

_TYPES = {"bf16": "bf16", "f16": "f16"}


def definition(element: str, columns: int, transposed_a: bool = False, transposed_b: bool = False) -> str:
    """`wgmma<ELEMENT, COLUMNS, A, B>` of `moec/ptx/wgmma.cuh`, once however often it is printed.

    element  `bf16` or `f16`
    columns  a multiple of 8 up to 256
    """
    registers = columns // 2
    a, b = int(transposed_a), int(transposed_b)
    guard = f"MOEC_WGMMA_{element}_{columns}_{a}{b}".upper()
    instruction = f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{_TYPES[element]}.{_TYPES[element]}"
    lines = [
        f"#if defined(__CUDACC__) && !defined({guard})",
        f"#define {guard}",
        "template <>",
        f"MOEC_DEVICE void moec::wgmma<moec::{element}, {columns}, {a}, {b}>(",
        f"    float (&d)[{registers}], moec::u64 left, moec::u64 right, bool accumulate) {{",
        "  asm volatile(",
        '      "{\\n.reg .pred more;\\n"',
        f'      "setp.ne.b32 more, %{registers + 2}, 0;\\n"',
        f'      "{instruction} {{"',
        *(f'      "{_row(registers, first)}"' for first in range(0, registers, 16)),
        f'      "}}, %{registers}, %{registers + 1}, more, 1, 1, {a}, {b};\\n}}\\n"',
        *(f"      {':' if first == 0 else ' '} {_outputs(registers, first)}" for first in range(0, registers, 8)),
        '      : "l"(left), "l"(right), "r"((int)accumulate)',
        '      : "memory");',
        "}",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _row(registers: int, first: int) -> str:
    names = [f"%{n}" for n in range(first, min(first + 16, registers))]
    return ", ".join(names) + (", " if first + 16 < registers else "")


def _outputs(registers: int, first: int) -> str:
    names = [f'"+f"(d[{n}])' for n in range(first, min(first + 8, registers))]
    return ", ".join(names) + ("," if first + 8 < registers else "")
