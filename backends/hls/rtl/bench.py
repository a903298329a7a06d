"""What goes with the tile: its sizes as a C++ header, the library that runs it, the test bench."""

from __future__ import annotations

from importlib import resources

from moec.fixed.arithmetic import GATE_BITS, LOGIT_BITS
from moec.fixed.design import Design
from moec.fixed.layout import layout
from moec.fixed.model import geometry
from moec.fixed.model import tile as plan

FILES = ("moec_rtl.h", "moec_rtl.cpp")


def files(design: Design) -> dict[str, str]:
    """The C++ files beside the tile, by name."""
    folder = resources.files(__package__) / "bench"
    return {"tile.h": header(design), **{name: (folder / name).read_text() for name in FILES}}


def header(design: Design) -> str:
    """`tile.h`: the sizes that programs need to talk to the tile."""
    where, kinds = layout(design), plan.kinds(design)
    numbers = [kind.number for kind in kinds if kind.expert is not None]
    gates = [kind.number for kind in kinds if kind.expert is None]
    sizes = {
        "PORTS": design.ports,
        "PORT_BYTES": design.port_bits // 8,
        "TOKENS": design.tokens,
        "INPUT_WORDS": where.input_words,
        "OUTPUT_WORDS": where.output_words,
        "LANES": geometry.lanes(design),
        "RESULT_STRIDE": plan.result_stride(design),
        "WEIGHT_BITS": GATE_BITS,
        "LOGIT_BITS": LOGIT_BITS,
        "LOGITS": geometry.router(design).tiles * design.outputs,
        "EXPERTS": design.layer.experts,
        "SHARED": design.layer.shared,
        "TASKS": design.layer.router.tasks,
        "TABLE": plan.TABLE,
        "TABLE_BEATS": where.table.beats,
        "ROUTED": numbers[0],
        "ROUTED_START": where.experts,
        "ROUTED_BEATS": where.expert.beats,
        "COMMON": numbers[-1],
        "COMMON_START": where.shared,
        "COMMON_BEATS": where.common.beats if where.common else 0,
        "GATE": gates[0] if gates else 0,
        "GATE_START": where.gates,
        "GATE_BEATS": where.gate.beats,
    }
    lines = "\n".join(f"constexpr int64_t {name} = {value};" for name, value in sizes.items())
    return (
        "// Sizes of the compute tile.\n#pragma once\n#include <cstdint>\n\n"
        f"#define MOEC_ROUTES {int(geometry.routes(design))}  // whether the tile makes logits too\n\n"
        f"namespace tile {{\n{lines}\n}}  // namespace tile\n"
    )
