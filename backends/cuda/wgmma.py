"""The instruction wgmma as a C++ function; PTX names every register of its sums, so each width has its own text."""

from __future__ import annotations


def _instruction(element: str, columns: int) -> str:
    if element == "i8":
        return f"wgmma.mma_async.sync.aligned.m64n{columns}k32.s32.s8.s8"
    return f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{element}.{element}"


def definition(element: str, columns: int, transposed_a: bool = False, transposed_b: bool = False) -> str:
    """`wgmma<ELEMENT, COLUMNS, A, B>` of `moec/ptx/wgmma.cuh`, once however often it is printed.

    element  `bf16` or `f16`
    columns  a multiple of 8 up to 256
    """
    a, b = int(transposed_a), int(transposed_b)
    head = f"wgmma<moec::{element}, {columns}, {a}, {b}>", "moec::u64 left"
    return _definition(element, columns, f"{columns}_{a}{b}", head, ['"l"(left)'], f"{a}, {b}")


def definition_from_registers(element: str, columns: int) -> str:
    """The same of `wgmma_from_registers<ELEMENT, COLUMNS>`.

    element  may be `i8`, too; columns are 8, 24 or a multiple of 16 then
    """
    left = [f'"r"(left[{n}])' for n in range(4)]
    head = f"wgmma_from_registers<moec::{element}, {columns}>", "const moec::u32 (&left)[4]"
    return _definition(element, columns, f"{columns}_R", head, left, "0")


def _definition(element: str, columns: int, key: str, head: tuple[str, str], left: list[str], transposed: str) -> str:
    """`head` is the function's name and its first matrix, `left` the operands of this one."""
    registers = columns // 2
    name, parameter = head
    guard = f"MOEC_WGMMA_{element}_{key}".upper()
    instruction = _instruction(element, columns)
    whole = element == "i8"
    sums, register = ("int", "r") if whole else ("float", "f")
    last = "" if whole else f", 1, 1, {transposed}"  # whole numbers are neither negated nor transposed
    right = registers + len(left)
    matrix = ", ".join(f"%{n}" for n in range(registers, right))
    matrix = matrix if len(left) == 1 else f"{{{matrix}}}"
    lines = [
        f"#if defined(__CUDACC__) && !defined({guard})",
        f"#define {guard}",
        "template <>",
        f"MOEC_DEVICE void moec::{name}(",
        f"    {sums} (&d)[{registers}], {parameter}, moec::u64 right, bool accumulate) {{",
        "  asm volatile(",
        '      "{\\n.reg .pred more;\\n"',
        f'      "setp.ne.b32 more, %{right + 1}, 0;\\n"',
        f'      "{instruction} {{"',
        *(f'      "{_row(registers, first)}"' for first in range(0, registers, 16)),
        f'      "}}, {matrix}, %{right}, more{last};\\n}}\\n"',
        *(
            f"      {':' if first == 0 else ' '} {_outputs(register, registers, first)}"
            for first in range(0, registers, 8)
        ),
        f'      : {", ".join(left)}, "l"(right), "r"((int)accumulate)',
        '      : "memory");',
        "}",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _row(registers: int, first: int) -> str:
    names = [f"%{n}" for n in range(first, min(first + 16, registers))]
    return ", ".join(names) + (", " if first + 16 < registers else "")


def _outputs(register: str, registers: int, first: int) -> str:
    names = [f'"+{register}"(d[{n}])' for n in range(first, min(first + 8, registers))]
    return ", ".join(names) + ("," if first + 8 < registers else "")
