// PASSES: canonicalize fuse-shared-experts expand-experts interleave-weights fuse-permutation hoist-router canonicalize
// Experts of one format are stacked before they are quantised; the tokens become int8 once, not a copy for each slot.
// CHECK:       %[[PLAN:.*]]:2 = "moe.plan"({{.*}}experts = 8
// CHECK:       %[[W:.*]] = tensor.concat dim(0) {{.*}} -> tensor<8x10x24xbf16>
// CHECK-NEXT:  %[[Q:.*]]:2 = "moe.quantize"(%[[W]]) {format = "int4"} : (tensor<8x10x24xbf16>) -> (tensor<8x10x24xi8>, tensor<8x10x12xbf16>)
// CHECK-NEXT:  %[[GATE:.*]] = "moe.dequantize"(%[[Q]]#0, %[[Q]]#1) {format = "int4"}
// CHECK:       %[[UP:.*]] = "moe.dequantize"
// CHECK:       %[[DOWN:.*]] = "moe.dequantize"
// CHECK:       %[[X8:.*]] = "moe.quantize_rows"(%{{.*}}) : (tensor<?x24xbf16>) -> tensor<?x24xf32>
// CHECK:       %[[H:.*]] = "moe.grouped_matmul"(%[[X8]], %[[PLAN]]#0, %[[PLAN]]#1, %[[GATE]], %[[UP]])
// CHECK:       gather = true
// CHECK:       %[[H8:.*]] = "moe.quantize_rows"(%[[H]]) : (tensor<?x10xbf16>) -> tensor<?x10xf32>
// CHECK-NEXT:  "moe.grouped_matmul_combine"(%[[H8]], %{{.*}}, %[[PLAN]]#0, %[[PLAN]]#1, %[[DOWN]])
// CHECK-NOT:   moe.quantize
module attributes {moe.layer = "Small"} {
  func.func @Small(
      %x: tensor<?x24xbf16> {moe.name = "x", moe.role = "input"},
      %wr: tensor<6x24xf32> {moe.name = "router.logits.weight", moe.role = "parameter"},
      %wg: tensor<6x10x24xbf16> {moe.name = "routed.gate.weight", moe.role = "parameter"},
      %wu: tensor<6x10x24xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"},
      %wd: tensor<6x24x10xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"},
      %sg: tensor<2x10x24xbf16> {moe.name = "common.gate.weight", moe.role = "parameter"},
      %su: tensor<2x10x24xbf16> {moe.name = "common.up.weight", moe.role = "parameter"},
      %sd: tensor<2x24x10xbf16> {moe.name = "common.down.weight", moe.role = "parameter"})
      -> (tensor<?x24xbf16> {moe.name = "y"}) {
    %wgc, %wgs = "moe.quantize"(%wg) {format = "int4"} : (tensor<6x10x24xbf16>) -> (tensor<6x10x24xi8>, tensor<6x10x12xbf16>)
    %wgq = "moe.dequantize"(%wgc, %wgs) {format = "int4"} : (tensor<6x10x24xi8>, tensor<6x10x12xbf16>) -> tensor<6x10x24xf32>
    %wuc, %wus = "moe.quantize"(%wu) {format = "int4"} : (tensor<6x10x24xbf16>) -> (tensor<6x10x24xi8>, tensor<6x10x12xbf16>)
    %wuq = "moe.dequantize"(%wuc, %wus) {format = "int4"} : (tensor<6x10x24xi8>, tensor<6x10x12xbf16>) -> tensor<6x10x24xf32>
    %wdc, %wds = "moe.quantize"(%wd) {format = "int4"} : (tensor<6x24x10xbf16>) -> (tensor<6x24x10xi8>, tensor<6x24x5xbf16>)
    %wdq = "moe.dequantize"(%wdc, %wds) {format = "int4"} : (tensor<6x24x10xi8>, tensor<6x24x5xbf16>) -> tensor<6x24x10xf32>
    %sgc, %sgs = "moe.quantize"(%sg) {format = "int4"} : (tensor<2x10x24xbf16>) -> (tensor<2x10x24xi8>, tensor<2x10x12xbf16>)
    %sgq = "moe.dequantize"(%sgc, %sgs) {format = "int4"} : (tensor<2x10x24xi8>, tensor<2x10x12xbf16>) -> tensor<2x10x24xf32>
    %suc, %sus = "moe.quantize"(%su) {format = "int4"} : (tensor<2x10x24xbf16>) -> (tensor<2x10x24xi8>, tensor<2x10x12xbf16>)
    %suq = "moe.dequantize"(%suc, %sus) {format = "int4"} : (tensor<2x10x24xi8>, tensor<2x10x12xbf16>) -> tensor<2x10x24xf32>
    %sdc, %sds = "moe.quantize"(%sd) {format = "int4"} : (tensor<2x24x10xbf16>) -> (tensor<2x24x10xi8>, tensor<2x24x5xbf16>)
    %sdq = "moe.dequantize"(%sdc, %sds) {format = "int4"} : (tensor<2x24x10xi8>, tensor<2x24x5xbf16>) -> tensor<2x24x10xf32>
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
      %row8 = "moe.quantize_row"(%row) : (tensor<24xbf16>) -> tensor<24xf32>
      %gate = linalg.matvec ins(%g, %row8 : tensor<10x24xf32>, tensor<24xf32>) outs(%zero : tensor<10xf32>) -> tensor<10xf32>
      %u = "moe.own"(%wuq) : (tensor<6x10x24xf32>) -> tensor<10x24xf32>
      %up = linalg.matvec ins(%u, %row8 : tensor<10x24xf32>, tensor<24xf32>) outs(%zero : tensor<10xf32>) -> tensor<10xf32>
      %neg = arith.negf %gate : tensor<10xf32>
      %e = math.exp %neg : tensor<10xf32>
      %den = arith.addf %e, %one : tensor<10xf32>
      %silu = arith.divf %gate, %den : tensor<10xf32>
      %h32 = arith.mulf %silu, %up : tensor<10xf32>
      %h = arith.truncf %h32 : tensor<10xf32> to tensor<10xbf16>
      %d = "moe.own"(%wdq) : (tensor<6x24x10xf32>) -> tensor<24x10xf32>
      %h8 = "moe.quantize_row"(%h) : (tensor<10xbf16>) -> tensor<10xf32>
      %down = linalg.matvec ins(%d, %h8 : tensor<24x10xf32>, tensor<10xf32>) outs(%zero24 : tensor<24xf32>) -> tensor<24xf32>
      "moe.yield"(%down) : (tensor<24xf32>) -> ()
    }) : (tensor<?x24xbf16>, tensor<7xi32>) -> tensor<?x24xf32>
    %combined = "moe.combine"(%out, %slots, %weight) : (tensor<?x24xf32>, tensor<?xi32>, tensor<?x2xf32>) -> tensor<?x24xf32>
    %shared = "moe.shared"(%x) ({
    ^bb0(%row: tensor<24xbf16>):
      %zero = arith.constant dense<0.0> : tensor<10xf32>
      %zero24 = arith.constant dense<0.0> : tensor<24xf32>
      %one = arith.constant dense<1.0> : tensor<10xf32>
      %g = "moe.own"(%sgq) : (tensor<2x10x24xf32>) -> tensor<10x24xf32>
      %row8 = "moe.quantize_row"(%row) : (tensor<24xbf16>) -> tensor<24xf32>
      %gate = linalg.matvec ins(%g, %row8 : tensor<10x24xf32>, tensor<24xf32>) outs(%zero : tensor<10xf32>) -> tensor<10xf32>
      %u = "moe.own"(%suq) : (tensor<2x10x24xf32>) -> tensor<10x24xf32>
      %up = linalg.matvec ins(%u, %row8 : tensor<10x24xf32>, tensor<24xf32>) outs(%zero : tensor<10xf32>) -> tensor<10xf32>
      %neg = arith.negf %gate : tensor<10xf32>
      %e = math.exp %neg : tensor<10xf32>
      %den = arith.addf %e, %one : tensor<10xf32>
      %silu = arith.divf %gate, %den : tensor<10xf32>
      %h32 = arith.mulf %silu, %up : tensor<10xf32>
      %h = arith.truncf %h32 : tensor<10xf32> to tensor<10xbf16>
      %d = "moe.own"(%sdq) : (tensor<2x24x10xf32>) -> tensor<24x10xf32>
      %h8 = "moe.quantize_row"(%h) : (tensor<10xbf16>) -> tensor<10xf32>
      %down = linalg.matvec ins(%d, %h8 : tensor<24x10xf32>, tensor<10xf32>) outs(%zero24 : tensor<24xf32>) -> tensor<24xf32>
      "moe.yield"(%down) : (tensor<24xf32>) -> ()
    }) {count = 2 : i64} : (tensor<?x24xbf16>) -> tensor<?x24xf32>
    %both = arith.addf %combined, %shared : tensor<?x24xf32>
    %y = arith.truncf %both : tensor<?x24xf32> to tensor<?x24xbf16>
    return %y : tensor<?x24xbf16>
  }
}
