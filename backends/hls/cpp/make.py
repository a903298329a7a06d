"""`Makefile` and `README.md`: how a project is built and run."""

from __future__ import annotations

from moec.backends.hls.cpp.kernel import LIBRARY, NAME, SOURCES
from moec.backends.hls.cpp.template import filled
from moec.fixed.design import Board, Design, Order

_FIND = (
    "\"import importlib.util as u, os; s = u.find_spec('hls4ml');"
    " print(os.path.join(s.submodule_search_locations[0], 'templates/vivado/ap_types') if s else '')\""
)

_RTL_HELP = """\
# make rtlsim          the compute tile in SystemVerilog, run by Verilator
# make synth-estimate  DSP, BRAM and LUT of the tile, by Yosys
"""

_RTL = """\
rtlsim:
	$(MAKE) -C rtl sim

synth-estimate:
	$(MAKE) -C rtl synth
"""

_NO_RTL = """\
rtlsim synth-estimate:
	@echo "this project was written without rtl/; compile the layer without rtl=no" >&2; false
"""

_LINK_CARD = """\
build/{name}.xclbin: build/{name}.xo link.cfg
	v++ -l -t hw --platform $(PLATFORM) --config link.cfg $< -o $@
"""

_LINK_ZYNQ = """\
build/{name}.xsa: build/{name}.xo link.cfg
	v++ -l -t hw --platform $(PLATFORM) --config link.cfg $< -o $@

build/{name}.xclbin: build/{name}.xsa
	v++ -p -t hw --platform $(PLATFORM) --package.out_dir build/package $< -o $@
"""


def zynq(board: Board) -> bool:
    """Whether the board's processors share its memory: Zynq UltraScale+ and Kria."""
    return board.part.startswith(("xczu", "xck26", "xck24"))


def makefile(design: Design, rtl: bool) -> str:
    """`Makefile`; `rtl` says whether there is a folder rtl/."""
    platform = design.board.platform
    return filled(
        "Makefile.txt",
        name=NAME,
        find=_FIND,
        sources=" ".join(SOURCES),
        library=" ".join(LIBRARY),
        rtl_help=_RTL_HELP if rtl else "",
        rtl=_RTL if rtl else _NO_RTL,
        platform_help=f"for {platform}" if platform else "for the platform that PLATFORM names",
        platform=f"PLATFORM ?= {platform}"
        if platform
        else "PLATFORM ?= $(error say with PLATFORM=... for which Vitis platform)",
        link=(_LINK_ZYNQ if zynq(design.board) else _LINK_CARD).format(name=NAME),
    )


def readme(design: Design, rtl: bool) -> str:
    """`README.md`."""
    layer, router = design.layer, design.layer.router
    gated = "gated, " if layer.routed.gated else ""
    shared = f", {layer.shared} shared of hidden width {layer.common.hidden}" if layer.common else ""
    tasks = f", one of {router.tasks} gates by the token's task" if router.tasks > 1 else ""
    order = "expert by expert" if design.order is Order.EXPERT else "token by token"
    facts = [
        ("tokens", f"{layer.width} numbers each, at most {design.tokens} a call"),
        ("experts", f"{layer.experts} of hidden width {layer.routed.hidden}, {gated}{layer.routed.activation}{shared}"),
        ("router", f"top {router.slots} by {router.score}{tasks}"),
        ("weights", f"{layer.weights}, a scale for each channel"),
        ("array", f"{design.inputs} x {design.outputs} products a cycle, {order}"),
        ("ports for weights", f"{design.ports} of {design.port_bits} bits"),
        ("clock", f"{design.board.clock / 1e6:g} MHz asked for"),
    ]
    return filled(
        "README.txt",
        layer=layer.name,
        board=design.board.name,
        name=NAME,
        facts="| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in facts),
        platform="" if design.board.platform else " PLATFORM=...",
        rtl_what="the compute tile in SystemVerilog, " if rtl else "",
        rtl_run="; the tile runs in Verilator and goes through Yosys" if rtl else "",
        rtl_rows=(
            "| the tile, cycle by cycle | `make rtlsim` | Verilator |\n"
            "| the tile's DSP, BRAM and LUT | `make synth-estimate` | Yosys |\n"
            if rtl
            else ""
        ),
    )
