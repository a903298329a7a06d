"""What goes with the tile: its sizes as a C++ header, the library that runs it, the test bench and its cases."""

from __future__ import annotations

from importlib import resources

import numpy as np
from numpy.typing import NDArray

from moec.backends.hls.cpp import golden
from moec.fixed.arithmetic import GATE_BITS, LOGIT_BITS, gate_fraction
from moec.fixed.design import Design
from moec.fixed.layout import layout
from moec.fixed.model import cycles, geometry
from moec.fixed.model import tile as plan
from moec.fixed.model.choice import chooses
from moec.fixed.reference import project, routing
from moec.fixed.vectors import cases
from moec.fixed.verilated import Visits, visits

FILES = ("moec_rtl.h", "moec_rtl.cpp", "testbench.cpp")


def files(design: Design) -> dict[str, bytes]:
    """What stands beside the tile, by its path in rtl/: C++, Makefile, and what the test bench reads."""
    folder = resources.files(__package__) / "bench"
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in FILES}
    texts |= {"tile.h": header(design), "Makefile": (folder / "Makefile.txt").read_text(encoding="utf-8")}
    return {name: text.encode() for name, text in texts.items()} | vectors(design)


def vectors(design: Design) -> dict[str, bytes]:
    """`visits/` and `logits/`: for each case of tb/vectors, which rows meet which experts, and the gates' logits."""
    layer = design.layer
    made = {}
    for case in cases(layer, golden.tokens(design), distinct=golden.distinct(design)):
        visited = visits(layer, routing(layer, case.parameters, case.rows, case.tasks))
        tasks = np.zeros(len(case.rows), np.int64) if case.tasks is None else case.tasks
        made[f"visits/{case.name}.bin"] = _visits(design, visited, np.bincount(tasks, minlength=layer.router.tasks))
        if geometry.routes(design):
            each = np.stack([project(gate.linear, case.rows, LOGIT_BITS) for gate in case.parameters.gates])
            made[f"logits/{case.name}.bin"] = each[tasks, np.arange(len(tasks))].astype("<i4").tobytes()
    return made


def _visits(design: Design, visited: Visits, tasks: NDArray[np.int64]) -> bytes:
    """The lists, behind how long they are and what the tile takes for each part of a whole call."""
    planned = cycles.planned(design, visited.expert, np.diff(visited.first))
    taken, route = cycles.tile(design, planned, int(tasks.sum())), cycles.route(design, tasks.tolist())
    head = [len(visited.expert), len(visited.token), taken.rows, taken.table, route, taken.experts, taken.result]
    parts = [head, visited.expert, visited.first, visited.token, visited.weight]
    return np.concatenate([np.asarray(part, np.int64) for part in parts]).astype("<i8").tobytes()


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
        "WEIGHT_FRACTION": gate_fraction(design.layer.router),
        "LOGIT_BITS": LOGIT_BITS,
        "LOGITS": geometry.router(design).tiles * design.outputs,
        "EXPERTS": design.layer.experts,
        "SLOTS": design.layer.router.slots,
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
        f"#define MOEC_ROUTES {int(geometry.routes(design))}  // whether the tile makes logits too\n"
        f"#define MOEC_CHOOSES {int(chooses(design))}  // whether it chooses experts\n\n"
        "namespace tile {\nconstexpr bool ROUTES = MOEC_ROUTES, CHOOSES = MOEC_CHOOSES;\n"
        f"{lines}\n}}  // namespace tile\n"
    )
