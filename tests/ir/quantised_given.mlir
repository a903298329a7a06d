// PASSES: canonicalize fuse-shared-experts expand-experts interleave-weights fuse-permutation hoist-router canonicalize
// Given codes and scales are stacked each by themselves.
// CHECK:       %[[C:.*]] = tensor.concat dim(0) {{.*}} -> tensor<8x10x24xi8>
// CHECK-NEXT:  %[[S:.*]] = tensor.concat dim(0) {{.*}} -> tensor<8x10x1xf32>
// CHECK-NEXT:  "moe.dequantize"(%[[C]], %[[S]]) {format = "ternary"} : (tensor<8x10x24xi8>, tensor<8x10x1xf32>) -> tensor<8x10x24xf32>
// CHECK:       "moe.grouped_matmul"
module attributes {moe.layer = "Small"} {
  func.func @Small(
      %x: tensor<?x24xbf16> {moe.name = "x", moe.role = "input"},
      %wr: tensor<6x24xf32> {moe.name = "router.logits.weight", moe.role = "parameter"},
      %wg: tensor<6x10x24xi8> {moe.name = "routed.gate.weight", moe.role = "parameter"},
      %wgs: tensor<6x10x1xf32> {moe.name = "routed.gate.scale", moe.role = "parameter"},
      %wu: tensor<6x10x24xi8> {moe.name = "routed.up.weight", moe.role = "parameter"},
      %wus: tensor<6x10x1xf32> {moe.name = "routed.up.scale", moe.role = "parameter"},
      %wd: tensor<6x24x10xi8> {moe.name = "routed.down.weight", moe.role = "parameter"},
      %wds: tensor<6x24x1xf32> {moe.name = "routed.down.scale", moe.role = "parameter"},
      %sg: tensor<2x10x24xi8> {moe.name = "common.gate.weight", moe.role = "parameter"},
      %sgs: tensor<2x10x1xf32> {moe.name = "common.gate.scale", moe.role = "parameter"},
      %su: tensor<2x10x24xi8> {moe.name = "common.up.weight", moe.role = "parameter"},
      %sus: tensor<2x10x1xf32> {moe.name = "common.up.scale", moe.role = "parameter"},
      %sd: tensor<2x24x10xi8> {moe.name = "common.down.weight", moe.role = "parameter"},
      %sds: tensor<2x24x1xf32> {moe.name = "common.down.scale", moe.role = "parameter"})
      -> (tensor<?x24xbf16> {moe.name = "y"}) {
    %wgq = "moe.dequantize"(%wg, %wgs) {format = "ternary"} : (tensor<6x10x24xi8>, tensor<6x10x1xf32>) -> tensor<6x10x24xf32>
    %wuq = "moe.dequantize"(%wu, %wus) {format = "ternary"} : (tensor<6x10x24xi8>, tensor<6x10x1xf32>) -> tensor<6x10x24xf32>
    %wdq = "moe.dequantize"(%wd, %wds) {format = "ternary"} : (tensor<6x24x10xi8>, tensor<6x24x1xf32>) -> tensor<6x24x10xf32>
    %sgq = "moe.dequantize"(%sg, %sgs) {format = "ternary"} : (tensor<2x10x24xi8>, tensor<2x10x1xf32>) -> tensor<2x10x24xf32>
    %suq = "moe.dequantize"(%su, %sus) {format = "ternary"} : (tensor<2x10x24xi8>, tensor<2x10x1xf32>) -> tensor<2x10x24xf32>
    %sdq = "moe.dequantize"(%sd, %sds) {format = "ternary"} : (tensor<2x24x10xi8>, tensor<2x24x1xf32>) -> tensor<2x24x10xf32>
    %index, %weight = "moe.route"(%x) ({
    ^bb0(%row: tensor<24xbf16>):
      %zero = arith.constant dense<0.0> : tensor<6xf32>
      %low = arith.constant 0xFF800000 : f32
      %none = arith.constant 0.0 : f32
      %logits = linalg.matvec ins(%wr, %row : tensor<6x24xf32>, tensor<24xbf16>) outs(%zero : tensor<6xf32>) -> tensor<6xf32>
      %first = tensor.splat %low : tensor<f32>
      %max = linalg.reduce { arith.maximumf } ins(%logits : tensor<6xf32>) outs(%first : tensor<f32>) dimensions = [0]
      %empty = tensor.empty() : tensor<6xf32>
      %spread = linalg.broadcast ins(%max : tensor<f32>) outs(%empty : tensor<6xf32>) dimensions = [0]
      %shifted = arith.subf %logits, %spread : tensor<6xf32>
      %exp = math.exp %shifted : tensor<6xf32>
      %start = tensor.splat %none : tensor<f32>
      %sum = linalg.reduce { arith.addf } ins(%exp : tensor<6xf32>) outs(%start : tensor<f32>) dimensions = [0]
      %total = linalg.broadcast ins(%sum : tensor<f32>) outs(%empty : tensor<6xf32>) dimensions = [0]
      %p = arith.divf %exp, %total : tensor<6xf32>
      %pick = "moe.top_k"(%p) {k = 2 : i64} : (tensor<6xf32>) -> tensor<2xi32>
      %w = "moe.take"(%p, %pick) : (tensor<6xf32>, tensor<2xi32>) -> tensor<2xf32>
      "moe.yield_choice"(%pick, %w) : (tensor<2xi32>, tensor<2xf32>) -> ()
    }) : (tensor<?x24xbf16>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
    %rows, %offsets, %slots = "moe.dispatch"(%x, %index) {experts = 6 : i64} : (tensor<?x24xbf16>, tensor<?x2xi32>) -> (tensor<?x24xbf16>, tensor<7xi32>, tensor<?xi32>)
    %out = "moe.experts"(%rows, %offsets) ({
    ^bb0(%row: tensor<24xbf16>):
      %zero = arith.constant dense<0.0> : tensor<10xf32>
      %zero24 = arith.constant dense<0.0> : tensor<24xf32>
      %one = arith.constant dense<1.0> : tensor<10xf32>
      %g = "moe.own"(%wgq) : (tensor<6x10x24xf32>) -> tensor<10x24xf32>
      %gate = linalg.matvec ins(%g, %row : tensor<10x24xf32>, tensor<24xbf16>) outs(%zero : tensor<10xf32>) -> tensor<10xf32>
      %u = "moe.own"(%wuq) : (tensor<6x10x24xf32>) -> tensor<10x24xf32>
      %up = linalg.matvec ins(%u, %row : tensor<10x24xf32>, tensor<24xbf16>) outs(%zero : tensor<10xf32>) -> tensor<10xf32>
      %neg = arith.negf %gate : tensor<10xf32>
      %e = math.exp %neg : tensor<10xf32>
      %den = arith.addf %e, %one : tensor<10xf32>
      %silu = arith.divf %gate, %den : tensor<10xf32>
      %h32 = arith.mulf %silu, %up : tensor<10xf32>
      %h = arith.truncf %h32 : tensor<10xf32> to tensor<10xbf16>
      %d = "moe.own"(%wdq) : (tensor<6x24x10xf32>) -> tensor<24x10xf32>
      %down = linalg.matvec ins(%d, %h : tensor<24x10xf32>, tensor<10xbf16>) outs(%zero24 : tensor<24xf32>) -> tensor<24xf32>
      "moe.yield"(%down) : (tensor<24xf32>) -> ()
    }) : (tensor<?x24xbf16>, tensor<7xi32>) -> tensor<?x24xf32>
    %combined = "moe.combine"(%out, %slots, %weight) : (tensor<?x24xf32>, tensor<?xi32>, tensor<?x2xf32>) -> tensor<?x24xf32>
    %shared = "moe.shared"(%x) ({
    ^bb0(%row: tensor<24xbf16>):
      %zero = arith.constant dense<0.0> : tensor<10xf32>
      %zero24 = arith.constant dense<0.0> : tensor<24xf32>
      %one = arith.constant dense<1.0> : tensor<10xf32>
      %g = "moe.own"(%sgq) : (tensor<2x10x24xf32>) -> tensor<10x24xf32>
      %gate = linalg.matvec ins(%g, %row : tensor<10x24xf32>, tensor<24xbf16>) outs(%zero : tensor<10xf32>) -> tensor<10xf32>
      %u = "moe.own"(%suq) : (tensor<2x10x24xf32>) -> tensor<10x24xf32>
      %up = linalg.matvec ins(%u, %row : tensor<10x24xf32>, tensor<24xbf16>) outs(%zero : tensor<10xf32>) -> tensor<10xf32>
      %neg = arith.negf %gate : tensor<10xf32>
      %e = math.exp %neg : tensor<10xf32>
      %den = arith.addf %e, %one : tensor<10xf32>
      %silu = arith.divf %gate, %den : tensor<10xf32>
      %h32 = arith.mulf %silu, %up : tensor<10xf32>
      %h = arith.truncf %h32 : tensor<10xf32> to tensor<10xbf16>
      %d = "moe.own"(%sdq) : (tensor<2x24x10xf32>) -> tensor<24x10xf32>
      %down = linalg.matvec ins(%d, %h : tensor<24x10xf32>, tensor<10xbf16>) outs(%zero24 : tensor<24xf32>) -> tensor<24xf32>
      "moe.yield"(%down) : (tensor<24xf32>) -> ()
    }) {count = 2 : i64} : (tensor<?x24xbf16>) -> tensor<?x24xf32>
    %both = arith.addf %combined, %shared : tensor<?x24xf32>
    %y = arith.truncf %both : tensor<?x24xf32> to tensor<?x24xbf16>
    return %y : tensor<?x24xbf16>
  }
}
