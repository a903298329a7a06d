// PASSES: differentiate
// The experts cost three matmuls forward and five backward, and nothing but index, weight, logits and pre-activations is
// kept: h is computed again in the kernel that needs it.
// CHECK:       func.func @Small(
// CHECK:       func.func @Small_forward(
// CHECK-SAME:    {moe.name = "y", moe.role = "output"}
// CHECK-SAME:    tensor<?x2xi32> {moe.name = "routed.index", moe.role = "saved"}, tensor<?x2xf32> {moe.name = "routed.weight", moe.role = "saved"}, tensor<?x10xbf16> {moe.name = "routed.gate", moe.role = "saved"}, tensor<?x10xbf16> {moe.name = "routed.up", moe.role = "saved"}, tensor<?x6xf32> {moe.name = "router.logits", moe.role = "saved"})
// CHECK-SAME:    attributes {moe.weights = "plain"}
// CHECK:         "moe.matmul"(%arg0
// CHECK:         "moe.route"
// CHECK:         %[[H:[0-9]+]]:3 = "moe.grouped_matmul"(%arg0, {{.*}}, %arg2, %arg3)
// CHECK:           "moe.yield"({{.*}}) : (bf16, bf16, bf16) -> ()
// CHECK-NEXT:    {gather = true
// CHECK:         "moe.grouped_matmul_combine"(%[[H]]#0, {{.*}}, %arg4)
// CHECK-NOT:     moe.grouped_matmul
// CHECK:         return

// CHECK:       func.func @Small_backward(
// CHECK-SAME:    %arg5: tensor<?x2xi32> {moe.name = "routed.index", moe.role = "saved"}, %arg6: tensor<?x2xf32> {moe.name = "routed.weight", moe.role = "saved"}, %arg7: tensor<?x10xbf16> {moe.name = "routed.gate", moe.role = "saved"}, %arg8: tensor<?x10xbf16> {moe.name = "routed.up", moe.role = "saved"}, %arg9: tensor<?x6xf32> {moe.name = "router.logits", moe.role = "saved"}, %arg10: tensor<?x24xbf16> {moe.name = "d.y", moe.role = "gradient"}) ->
// CHECK:         %[[PLAN:[0-9]+]]:2 = "moe.plan"(%arg5)
// CHECK:         %[[D:[0-9]+]]:4 = "moe.grouped_matmul"(%arg10, %[[PLAN]]#0, %[[PLAN]]#1, %arg4)
// CHECK:           "moe.element"(%arg6) {kind = "slot"}
// CHECK:           "moe.element"(%arg7) {kind = "row"}
// CHECK:           "moe.element"(%arg8) {kind = "row"}
// CHECK:           "moe.yield"({{.*}}) : (bf16, bf16, bf16, bf16) -> ()
// CHECK-NEXT:    {gather = true{{.*}}transposed}
// CHECK:         "moe.weight_gradient"(%arg10, %[[D]]#2, {{.*}}) {gather_a = true, gather_b = false
// CHECK:         %[[DOT:[0-9]+]] = "moe.map"(%[[D]]#3)
// CHECK:         %[[DW:[0-9]+]] = "moe.slot_values"(%[[DOT]], %[[PLAN]]#1, %arg5)
// CHECK:         "moe.weight_gradient"(%[[D]]#0, %arg0, {{.*}}) {gather_a = false, gather_b = true
// CHECK:         "moe.weight_gradient"(%[[D]]#1, %arg0, {{.*}}) {gather_a = false, gather_b = true
// CHECK-NOT:     moe.top_k
// CHECK:         %[[DLOGITS:[0-9]+]] = "moe.map"
// CHECK:           "moe.row"(%arg5)
// CHECK:           "moe.put"
// CHECK:         "moe.dense_weight_gradient"(%[[DLOGITS]], %arg0)
// CHECK:         %[[DX0:[0-9]+]] = "moe.matmul"(%[[DLOGITS]]
// CHECK:         {{.*}}transposed} : (tensor<?x6xf32>, tensor<1x6x24xf32>) -> tensor<?x24xf32>
// CHECK:         %[[ROWS:.*]] = tensor.concat dim(1) %[[D]]#0, %[[D]]#1
// CHECK:         %[[WEIGHTS:.*]] = tensor.concat dim(1) %arg2, %arg3
// CHECK:         %[[DX:[0-9]+]] = "moe.grouped_matmul_combine"(%[[ROWS]], {{.*}}, %[[WEIGHTS]])
// CHECK:           "moe.element"(%[[DX0]]) {kind = "token"}
// CHECK:           arith.truncf
// CHECK-NOT:     moe.grouped_matmul
// CHECK-NOT:     moe.weight_gradient
// CHECK:         return %[[DX]],
// CHECK:       remark: differentiate: backward needs from forward: routed.index, routed.weight, routed.gate, routed.up, router.logits
module attributes {moe.layer = "Small"} {
  func.func @Small(
      %x: tensor<?x24xbf16> {moe.name = "x", moe.role = "input"},
      %wr: tensor<6x24xf32> {moe.name = "router.logits.weight", moe.role = "parameter"},
      %wg: tensor<6x10x24xbf16> {moe.name = "routed.gate.weight", moe.role = "parameter"},
      %wu: tensor<6x10x24xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"},
      %wd: tensor<6x24x10xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"})
      -> (tensor<?x24xbf16> {moe.name = "y"}) {
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
      %g = "moe.own"(%wg) : (tensor<6x10x24xbf16>) -> tensor<10x24xbf16>
      %gate = linalg.matvec ins(%g, %row : tensor<10x24xbf16>, tensor<24xbf16>) outs(%zero : tensor<10xf32>) -> tensor<10xf32>
      %u = "moe.own"(%wu) : (tensor<6x10x24xbf16>) -> tensor<10x24xbf16>
      %up = linalg.matvec ins(%u, %row : tensor<10x24xbf16>, tensor<24xbf16>) outs(%zero : tensor<10xf32>) -> tensor<10xf32>
      %neg = arith.negf %gate : tensor<10xf32>
      %e = math.exp %neg : tensor<10xf32>
      %den = arith.addf %e, %one : tensor<10xf32>
      %silu = arith.divf %gate, %den : tensor<10xf32>
      %h32 = arith.mulf %silu, %up : tensor<10xf32>
      %h = arith.truncf %h32 : tensor<10xf32> to tensor<10xbf16>
      %d = "moe.own"(%wd) : (tensor<6x24x10xbf16>) -> tensor<24x10xbf16>
      %down = linalg.matvec ins(%d, %h : tensor<24x10xbf16>, tensor<10xbf16>) outs(%zero24 : tensor<24xf32>) -> tensor<24xf32>
      "moe.yield"(%down) : (tensor<24xf32>) -> ()
    }) : (tensor<?x24xbf16>, tensor<7xi32>) -> tensor<?x24xf32>
    %combined = "moe.combine"(%out, %slots, %weight) : (tensor<?x24xf32>, tensor<?xi32>, tensor<?x2xf32>) -> tensor<?x24xf32>
    %y = arith.truncf %combined : tensor<?x24xf32> to tensor<?x24xbf16>
    return %y : tensor<?x24xbf16>
  }
}
