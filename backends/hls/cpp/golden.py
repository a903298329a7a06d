"""`tb/vectors/`: what goes into the kernel and what has to come out, from the reference in the same arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from moec.fixed.design import Design
from moec.fixed.layout import layout
from moec.fixed.packing import pack, pack_rows
from moec.fixed.vectors import Integers, cases

TOKENS = 24
"""Tokens of a case, where the design takes as many."""

CASE_BYTES = 48 << 20
"""Where the first cases take more than this, because a single expert is so large, the others are left out."""

EXPERT_BYTES = 2 << 20
"""About as much is written of a case's experts; the test bench repeats them, where the layer has more."""


def tokens(design: Design) -> int:
    return min(design.tokens, TOKENS)


def distinct(design: Design) -> int:
    """How many routed experts have numbers of their own."""
    where = layout(design)
    one = where.expert.beats * where.beat_bits // 8
    return max(1, min(design.layer.experts, EXPERT_BYTES // one))


def vectors(design: Design) -> dict[str, bytes]:
    """The files of all cases by their paths."""
    layer, where, own = design.layer, layout(design), distinct(design)
    made: dict[str, bytes] = {}
    for case in cases(layer, tokens(design), distinct=own):
        if sum(map(len, made.values())) > CASE_BYTES:
            break
        few = replace(case.parameters, experts=case.parameters.experts[:own])
        memory = pack(design, few)
        last = where.experts + own * where.expert.beats
        parts = np.concatenate([memory[:, :last], memory[:, where.shared :]], axis=1)
        folder = f"tb/vectors/{case.name}"
        made |= {f"{folder}/weights{port}.bin": parts[port].tobytes() for port in range(design.ports)}
        made[f"{folder}/rows.bin"] = pack_rows(design, case.rows).tobytes()
        made[f"{folder}/result.bin"] = _result(design, case.result)
        if case.tasks is not None:
            made[f"{folder}/tasks.bin"] = case.tasks.astype("<i4").tobytes()
    return made


def header(design: Design, made: Mapping[str, bytes]) -> str:
    """`tb/cases.h`, for the files that `vectors` made."""
    names = ", ".join(f'"{name}"' for name in sorted({path.split("/")[2] for path in made}))
    return (
        "// What is in vectors/: cases of CASE_TOKENS tokens.  Expert e has the weights of expert e modulo DISTINCT.\n"
        "#pragma once\n\n"
        f"constexpr int CASE_TOKENS = {tokens(design)};\n"
        f"constexpr int DISTINCT = {distinct(design)};\n"
        f"static const char *const CASES[] = {{{names}}};\n"
    )


def _result(design: Design, codes: Integers) -> bytes:
    length = layout(design).output_words * design.port_bits // 16
    return np.pad(codes, ((0, 0), (0, length - codes.shape[1]))).astype("<i2").tobytes()
