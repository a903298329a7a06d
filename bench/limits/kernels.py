"""MLIR text of the loops that find a machine's limits.

Each kernel does nothing but what it measures: the arithmetic loops keep every operand in registers, the reading loop
only folds what it loads. They go through the same MLIR and LLVM as moec's kernels, so no C compiler is needed.
"""

from __future__ import annotations

ACCUMULATORS = 12  # enough to hide a multiply-add's latency (2 per cycle × 4 to 6); with factors, in 16 registers
STREAMS = 4
LINE = 64  # bytes


def _loop(name: str, vector: str, setup: str, step: str, seed: str = "{}.0", add: str = "arith.addf") -> str:
    """A function `name(iterations, *sink)` whose loop carries ACCUMULATORS values of type `vector`."""
    names = range(ACCUMULATORS)
    start = ", ".join(f"%a{i} = %s{i}" for i in names)
    seeds = "\n".join(f"    %s{i} = arith.constant dense<{seed.format(i)}> : {vector}" for i in names)
    steps = "\n".join("      " + step.format(new=f"%n{i}", old=f"%a{i}", vector=vector) for i in names)
    folds = "\n".join(
        f"    %f{i} = {add} %{'f' + str(i - 1) if i > 1 else 'r#0'}, %r#{i} : {vector}" for i in range(1, len(names))
    )
    return f"""
  func.func @{name}(%iterations: i64, %sink: !llvm.ptr) {{
    %zero = arith.constant 0 : i64
    %one = arith.constant 1 : i64
{setup}
{seeds}
    %r:{len(names)} = scf.for %i = %zero to %iterations step %one iter_args({start})
        -> ({", ".join([vector] * len(names))}) : i64 {{
{steps}
      scf.yield {", ".join(f"%n{i}" for i in names)} : {", ".join([vector] * len(names))}
    }}
{folds}
    llvm.store %f{len(names) - 1}, %sink {{alignment = 4 : i64}} : {vector}, !llvm.ptr
    return
  }}"""


def multiply_add_f32(lanes: int) -> str:
    """f32 fused multiply-adds; 2 × lanes × ACCUMULATORS FLOP an iteration."""
    vector = f"vector<{lanes}xf32>"
    setup = f"    %x = arith.constant dense<1.0000001> : {vector}\n    %y = arith.constant dense<1.0e-9> : {vector}"
    return _loop("multiply_add_f32", vector, setup, "{new} = vector.fma %x, {old}, %y : {vector}")


def dot_bf16() -> str:
    """vdpbf16ps: pairs of bf16 products added to f32; 4 × 16 × ACCUMULATORS FLOP an iteration."""
    setup = (
        "    %x = arith.constant dense<1.0> : vector<32xbf16>\n    %y = arith.constant dense<1.0e-7> : vector<32xbf16>"
    )
    step = "{new} = x86.avx512.dot {old}, %x, %y : vector<32xbf16> -> {vector}"
    return _loop("dot_bf16", "vector<16xf32>", setup, step)


def dot_int8() -> str:
    """vpdpbusd: quadruples of u8 × i8 products added to i32; 8 × 16 × ACCUMULATORS operations an iteration."""
    bytes_ = "vector<64xi8>"
    setup = f"    %x = arith.constant dense<3> : {bytes_}\n    %y = arith.constant dense<1> : {bytes_}"
    step = (
        '{new} = llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"({old}, %x, %y) : '
        f"({{vector}}, {bytes_}, {bytes_}) -> {{vector}}"
    )
    return _loop("dot_int8", "vector<16xi32>", setup, step, seed="{}", add="arith.addi")


def dot_words(lanes: int) -> str:
    """vpmaddwd and vpaddd: pairs of i16 products added to i32; 4 × lanes × ACCUMULATORS operations an iteration.

    What is multiplied are the sums themselves, by pairs of 1 and 0: of constants LLVM would multiply once.
    """
    words = f"vector<{2 * lanes}xi16>"
    pairs = ", ".join(["1", "0"] * lanes)
    name = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}[lanes]
    step = (
        f"{{new}}w = vector.bitcast {{old}} : {{vector}} to {words}\n"
        f'      {{new}}p = llvm.call_intrinsic "{name}"({{new}}w, %x) : ({words}, {words}) -> {{vector}}\n'
        "      {new} = arith.addi {old}, {new}p : {vector}"
    )
    setup = f"    %x = arith.constant dense<[{pairs}]> : {words}"
    return _loop("dot_words", f"vector<{lanes}xi32>", setup, step, seed="{}", add="arith.addi")


def read(lanes: int) -> str:
    """Reads `bytes` (a multiple of STREAMS × LINE) from `memory` as STREAMS concurrent streams."""
    vector = f"vector<{lanes}xi32>"
    width = 4 * lanes
    loads = [(stream, offset) for stream in range(STREAMS) for offset in range(0, LINE, width)]
    body = []
    for number, (stream, offset) in enumerate(loads):
        old = f"%a{stream}" if offset == 0 else f"%x{number - 1}"
        body.append(
            f"      %o{number} = arith.constant {offset} : i64\n"
            f"      %b{number} = arith.addi %base{stream}, %i : i64\n"
            f"      %p{number} = arith.addi %b{number}, %o{number} : i64\n"
            f"      %q{number} = llvm.getelementptr %memory[%p{number}] : (!llvm.ptr, i64) -> !llvm.ptr, i8\n"
            f"      %v{number} = llvm.load %q{number} {{alignment = {width} : i64}} : !llvm.ptr -> {vector}\n"
            f"      %x{number} = arith.xori {old}, %v{number} : {vector}"
        )
    per_stream = len(loads) // STREAMS
    last = [f"%x{(stream + 1) * per_stream - 1}" for stream in range(STREAMS)]
    types = ", ".join([vector] * STREAMS)
    bases = "\n".join(
        f"    %n{s} = arith.constant {s} : i64\n    %base{s} = arith.muli %quarter, %n{s} : i64" for s in range(STREAMS)
    )
    folds = "\n".join(
        f"    %f{s} = arith.xori %{'f' + str(s - 1) if s > 1 else 'r#0'}, %r#{s} : {vector}" for s in range(1, STREAMS)
    )
    return f"""
  func.func @read(%memory: !llvm.ptr, %bytes: i64, %sink: !llvm.ptr) {{
    %zero = arith.constant 0 : i64
    %line = arith.constant {LINE} : i64
    %streams = arith.constant {STREAMS} : i64
    %quarter = arith.divui %bytes, %streams : i64
{bases}
    %z = arith.constant dense<0> : {vector}
    %r:{STREAMS} = scf.for %i = %zero to %quarter step %line
        iter_args({", ".join(f"%a{s} = %z" for s in range(STREAMS))}) -> ({types}) : i64 {{
{chr(10).join(body)}
      scf.yield {", ".join(last)} : {types}
    }}
{folds}
    llvm.store %f{STREAMS - 1}, %sink {{alignment = 4 : i64}} : {vector}, !llvm.ptr
    return
  }}"""


def module(lanes: int, has_dot_bf16: bool, has_dot_int8: bool, has_dot_words: bool) -> str:
    """All kernels as one module. `lanes`: f32 lanes of the widest vector register that the machine has."""
    kernels = [multiply_add_f32(lanes), read(lanes)]
    if has_dot_bf16:
        kernels.append(dot_bf16())
    if has_dot_int8:
        kernels.append(dot_int8())
    if has_dot_words:
        kernels.append(dot_words(lanes))
    return "module {" + "".join(kernels) + "\n}"
