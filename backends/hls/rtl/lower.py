"""Circuits to SystemVerilog, by CIRCT."""

from __future__ import annotations

import io

import circt
from circt.ir import Context, Location
from circt.ir import Module as Mlir
from circt.passmanager import PassManager

from moec.backends.hls.rtl.netlist import Module

OPTIONS = "disallowLocalVariables,disallowPackedArrays,noAlwaysComb,emittedLineLength=120,locationInfoStyle=none"
"""Plain Verilog that all tools read: no variables in blocks, no arrays of bits."""

PIPELINE = (
    "builtin.module(cse,canonicalize,lower-seq-to-sv,cse,canonicalize,hw.module(hw-cleanup),"
    "hw.module(hw-legalize-modules),hw.module(prettify-verilog))"
)


def verilog(modules: tuple[Module, ...]) -> str:
    """The text of all modules, each after those that it uses."""
    body = "\n".join(module.text() for module in modules)
    with Context() as context, Location.unknown():
        circt.register_dialects(context)
        module = Mlir.parse(f'module attributes {{circt.loweringOptions = "{OPTIONS}"}} {{\n{body}\n}}')
        PassManager.parse(PIPELINE).run(module.operation)
        text = io.StringIO()
        circt.export_verilog(module, text)
    return "\n".join([text.getvalue(), *filter(None, (each.verilog() for each in modules))])
