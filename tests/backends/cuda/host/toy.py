"""A layer whose kernels are simple enough to see through: y = x @ a.T + x @ b.T, by one kernel for each product."""

from __future__ import annotations

from torch_mlir import ir

from moec.backends.cuda.arch import Arch
from moec.backends.cuda.kernel import (
    BufferPointer,
    DeviceGrid,
    Kernel,
    Scope,
    TensorPointer,
    TokenGrid,
    Tokens,
)

MODULE = """
module attributes {moe.layer = "Toy"} {
  func.func @Toy(
      %x: tensor<?x8xf32> {moe.name = "x", moe.role = "input"},
      %a: tensor<1x3x8xf32> {moe.name = "a", moe.role = "parameter"},
      %b: tensor<1x3x8xf32> {moe.name = "b", moe.role = "parameter"})
      -> (tensor<?x3xf32> {moe.name = "y"}) {
    %0 = "moe.matmul"(%x, %a) ({
    ^bb0(%s: f32):
      "moe.yield"(%s) : (f32) -> ()
    }) {operandSegmentSizes = array<i32: 1, 1>} : (tensor<?x8xf32>, tensor<1x3x8xf32>) -> tensor<?x3xf32>
    %1 = "moe.matmul"(%x, %b) ({
    ^bb0(%s: f32):
      %e = "moe.element"(%0) {kind = "row"} : (tensor<?x3xf32>) -> f32
      %t = arith.addf %s, %e : f32
      "moe.yield"(%t) : (f32) -> ()
    }) {operandSegmentSizes = array<i32: 1, 1>} : (tensor<?x8xf32>, tensor<1x3x8xf32>) -> tensor<?x3xf32>
    return %1 : tensor<?x3xf32>
  }
}
"""

_SOURCE = """
MOEC_KERNEL(32, 1) NAME(const float* x, const float* w, ADDED float* y, int* calls, int tokens) {
  for (int t = moec::block_index(); t < tokens; t += moec::grid_blocks()) {
    const int n = moec::thread_index();
    if (n < 3) {
      float sum = START;
      for (int k = 0; k < 8; k++) sum += x[t * 8 + k] * w[n * 8 + k];
      y[t * 3 + n] = sum;
    }
  }
  if (moec::block_index() == 0 && moec::thread_index() == 0) calls[0] += 1;
}
"""


def emit(operation: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The first product runs one block a token, the second on as many blocks as the device has multiprocessors."""
    x, w = operation.operands
    elements = [op for op in operation.regions[0].blocks[0].operations if op.operation.name == "moe.element"]
    added = elements[0].operation.operands[0] if elements else None
    name = scope.name("second" if elements else "first")
    source = _SOURCE.replace("NAME", name)
    source = source.replace("ADDED", "const float* added," if elements else "")
    source = source.replace("START", "added[t * 3 + n]" if elements else "0")
    calls = scope.buffer(operation.operands[0], "calls", per_token=0, fixed=4, zeroed=True)
    between = (TensorPointer(added, "const float"),) if added is not None else ()
    return (
        Kernel(
            name,
            source,
            ("moec/primitives.cuh",),
            threads=32,
            shared_bytes=0 if elements else 100 * 1024,
            grid=DeviceGrid(1) if elements else TokenGrid(1),
            arguments=(
                TensorPointer(x, "const float"),
                TensorPointer(w, "const float"),
                *between,
                TensorPointer(operation.results[0], "float"),
                BufferPointer(calls, "int"),
                Tokens(),
            ),
        ),
    )
