"""What the vendor's tools read: `hls_config.cfg`, a Tcl script for tools that know no such file, and `link.cfg`."""

from __future__ import annotations

from moec.backends.hls.cpp.kernel import NAME, SOURCES, arguments
from moec.backends.hls.cpp.make import zynq
from moec.fixed.design import Design

UNCERTAINTY = "15%"
"""Of the clock's period, left to placement and routing."""


def period(design: Design) -> str:
    """The clock's period as the tools take it."""
    return f"{1e9 / design.board.clock:.2f}ns"


def config(design: Design) -> str:
    """For `v++ -c --mode hls` and `vitis-run --mode hls`, which Vitis has since 2023.2."""
    lines = [
        f"part={design.board.part}",
        "",
        "[hls]",
        "flow_target=vitis",
        f"clock={period(design)}",
        f"clock_uncertainty={UNCERTAINTY}",
        *(f"syn.file={source}" for source in SOURCES),
        "syn.cflags=-std=c++14 -Isrc",
        f"syn.top={NAME}",
        "tb.file=tb/testbench.cpp",
        "tb.file=tb/vectors",
        "tb.cflags=-std=c++14 -Isrc",
        "syn.interface.m_axi_latency=64",
        f"syn.interface.m_axi_max_widen_bitwidth={design.port_bits}",
        f"syn.interface.m_axi_alignment_byte_size={design.port_bits // 8}",
        "package.output.format=xo",
        f"package.output.file={NAME}.xo",
    ]
    return "\n".join(lines) + "\n"


def script(design: Design) -> str:
    """For `vitis_hls -f run_hls.tcl`, up to 2023.1."""
    lines = [
        "# vitis_hls -f run_hls.tcl: C simulation, synthesis, and the kernel as an .xo file.",
        f"open_project -reset build/{NAME}",
        f"set_top {NAME}",
        *(f'add_files {source} -cflags "-std=c++14 -Isrc"' for source in SOURCES),
        'add_files -tb tb/testbench.cpp -cflags "-std=c++14 -Isrc -Wno-unknown-pragmas"',
        "add_files -tb tb/vectors",
        "open_solution -reset solution -flow_target vitis",
        f"set_part {{{design.board.part}}}",
        f"create_clock -period {period(design)} -name default",
        f"set_clock_uncertainty {UNCERTAINTY}",
        f"config_interface -m_axi_latency 64 -m_axi_max_widen_bitwidth {design.port_bits}"
        f" -m_axi_alignment_byte_size {design.port_bits // 8}",
        "csim_design",
        "csynth_design",
        f"export_design -format xo -output build/{NAME}.xo",
        "exit",
    ]
    return "\n".join(lines) + "\n"


def link(design: Design) -> str:
    """For `v++ -l`: which memory port each bundle of the kernel goes to."""
    instance = f"{NAME}_1"
    bundles = list(dict.fromkeys(argument.bundle for argument in arguments(design) if argument.bundle is not None))
    weights = [bundle for bundle in bundles if bundle.startswith("weights")]
    others = [bundle for bundle in bundles if not bundle.startswith("weights")]
    if design.board.hbm:
        # A bank for each port of weights; rows, tasks and results share the next one.
        places = {bundle: f"HBM[{bank}]" for bank, bundle in enumerate(weights)}
        places |= dict.fromkeys(others, f"HBM[{len(weights)}]")
    elif zynq(design.board):
        # The processing system's ports: weights over the high-performance ones, the rest over the two coherent ones.
        places = {bundle: f"HP{port}" for port, bundle in enumerate(weights)}
        places |= {bundle: f"HPC{port}" for port, bundle in enumerate(others)}
    else:
        places = dict.fromkeys(bundles, "DDR[0]")
    lines = [f"sp={instance}.m_axi_{bundle}:{place}" for bundle, place in places.items()]
    return "\n".join(["[connectivity]", f"nk={NAME}:1:{instance}", *lines]) + "\n"
