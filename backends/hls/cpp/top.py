"""`src/moe_layer.cpp`: the kernel's ports, its buffers and what they are made of, and its processes."""

from __future__ import annotations

from moec.backends.hls.cpp.kernel import NAME, arguments
from moec.backends.hls.cpp.template import filled
from moec.fixed.design import Design, Memory
from moec.fixed.layout import layout
from moec.fixed.model.geometry import lanes
from moec.fixed.model.kernel import hidden_banks, memories, row_banks

_TASKS = """\
  for (int token = 0; token < tokens; token++) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount max = TOKENS
    task[token] = tasks[token];
  }
"""


def source(design: Design) -> str:
    """`src/moe_layer.cpp`."""
    layer = design.layer
    ports = [argument for argument in arguments(design) if argument.name.startswith("weights")]
    side = lanes(design)
    words: dict[str, str | int] = {
        "layer": layer.name,
        "board": design.board.name,
        "name": NAME,
        "ports": ", ".join(f"{port.ctype}{port.name}" for port in ports),
        "names": ", ".join(port.name for port in ports),
        "parameters": parameters(design),
        "interfaces": "\n".join(_interfaces(design)),
        "fetches": "\n".join(f"  fetch({p.name}, count, sections[{i}], words[{i}]);" for i, p in enumerate(ports)),
        **_made_of(design),
        "row_banks": row_banks(design),
        "hidden_banks": hidden_banks(design),
        "lanes": side,
        "tasks": _TASKS if layer.router.tasks > 1 else "",
    }
    return filled("moe_layer.txt", **words)


def declaration(design: Design) -> str:
    """`src/moe_layer.h`."""
    return filled("moe_layer.h.txt", name=NAME, parameters=parameters(design))


def parameters(design: Design) -> str:
    """The kernel's parameters as C++ has them."""
    made = [
        f"{argument.ctype}{argument.name}" if argument.ctype.endswith("*") else f"{argument.ctype} {argument.name}"
        for argument in arguments(design)
    ]
    return ", ".join(made)


def burst(design: Design) -> int:
    """Words of an AXI burst: 4 KiB, which no burst may cross, and no more than 64, for which each port has a buffer."""
    return max(2, min(64, 4096 * 8 // design.port_bits))


def depths(design: Design) -> dict[str, int]:
    """Words behind each pointer: what a co-simulation has to bring along."""
    where = layout(design)
    found = {"rows": design.tokens * where.input_words, "result": design.tokens * where.output_words}
    found |= {f"weights{port}": where.beats for port in range(design.ports)}
    if design.layer.router.tasks > 1:
        found["tasks"] = design.tokens
    return found


def _interfaces(design: Design) -> list[str]:
    depth = depths(design)
    lines = []
    for argument in arguments(design):
        if argument.bundle is not None:
            lines.append(
                f"#pragma HLS interface m_axi port = {argument.name} offset = slave bundle = {argument.bundle}"
                f" depth = {depth[argument.name]} max_read_burst_length = {burst(design)} num_read_outstanding = 8"
            )
    lines += [f"#pragma HLS interface s_axilite port = {argument.name}" for argument in arguments(design)]
    return lines


def _made_of(design: Design) -> dict[str, str]:
    """What each buffer is bound to; a buffer that the design has no use for is a few words."""
    names = ("rows", "hidden", "held", "totals", "queue", "picks", "logits", "table", "panel", "records")
    made = memories(design)
    return {f"{name}_in": made.get(name, Memory.LUTRAM).value for name in names}


def call(design: Design) -> str:
    """`csim/kernel_call.h`: the kernel called with vectors of words, whatever its ports are."""
    given = {"rows": "rows.data()", "tasks": "tasks", "result": "result.data()", "tokens": "tokens"}
    given |= {f"weights{port}": f"weights[{port}].data()" for port in range(design.ports)}
    arguments_given = ", ".join(given[argument.name] for argument in arguments(design))
    return filled(
        "kernel_call.h.txt",
        name=NAME,
        given=arguments_given,
        unused="" if design.layer.router.tasks > 1 else "  (void)tasks;\n",
    )
