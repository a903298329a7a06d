"""All files of a project that are not SystemVerilog or reports."""

from __future__ import annotations

from importlib.resources import files as resources

from moec.backends.hls.cpp import config, flow, golden, host, make, top
from moec.fixed.design import Design
from moec.fixed.spec import Score

_SCORES = {
    Score.SOFTMAX: "score_softmax.h",
    Score.SIGMOID: "score_sigmoid.h",
    Score.IDENTITY: "score_identity.h",
}
_AS_THEY_ARE = {
    **{
        f"src/{name}.h": ("src", f"{name}.h")
        for name in ("activation", "arithmetic", "array", "memory", "router", "schedule", "types")
    },
    "csim/library.cpp": ("csim", "library.cpp"),
    "csim/words.h": ("csim", "words.h"),
    "tb/testbench.cpp": ("tb", "testbench.cpp"),
    "host/main.cpp": ("host", "main.cpp"),
    "host/moe_layer.py": ("host", "moe_layer.py.txt"),
}


def files(design: Design, rtl: bool = True) -> dict[str, bytes]:
    """The project's files by their paths.

    rtl  whether a folder rtl/ is beside them, whose Makefile has the targets `sim` and `synth`
    """
    vectors = golden.vectors(design)
    made = {path: _text(*source) for path, source in _AS_THEY_ARE.items()}
    made |= {
        "src/config.h": config.header(design),
        "src/moe_layer.h": top.declaration(design),
        "src/moe_layer.cpp": top.source(design),
        "src/scores.h": _text("src", _SCORES[design.layer.router.score]),
        "csim/kernel_call.h": top.call(design),
        "tb/cases.h": golden.header(design, vectors),
        "host/sizes.py": host.sizes(design),
        "hls_config.cfg": flow.config(design),
        "run_hls.tcl": flow.script(design),
        "link.cfg": flow.link(design),
        "Makefile": make.makefile(design, rtl),
        "README.md": make.readme(design, rtl),
    }
    tables = config.tables(design)
    if tables is not None:
        made["src/tables.h"] = tables
    every = vectors | {path: text.encode() for path, text in made.items()}
    return {path: every[path] for path in sorted(every)}


def _text(*path: str) -> str:
    return resources("moec.backends.hls.cpp").joinpath(*path).read_text(encoding="utf-8")
