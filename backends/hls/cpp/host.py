"""`host/`: programs that run the kernel on a board, through XRT in C++ and through PYNQ."""

from __future__ import annotations

from moec.fixed.design import Design
from moec.fixed.layout import layout


def sizes(design: Design) -> str:
    """`host/sizes.py`, which the PYNQ module reads."""
    where = layout(design)
    constants = {
        "TOKENS": design.tokens,
        "TASKS": design.layer.router.tasks,
        "PORTS": design.ports,
        "WORD_BYTES": design.port_bits // 8,
        "MEMORY_WORDS": where.beats,
        "INPUT_WORDS": where.input_words,
        "OUTPUT_WORDS": where.output_words,
    }
    lines = "\n".join(f"{name} = {value}" for name, value in constants.items())
    return f'"""Sizes of {design.layer.name} on {design.board.name}."""\n\n{lines}\n'
