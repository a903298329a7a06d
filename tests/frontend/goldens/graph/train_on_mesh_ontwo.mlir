module attributes {moe.layer = "Block", moe.losses = [{kind = "balance", over = "global", weight = 1.000000e-02 : f64}, {kind = "z", over = "batch", weight = 1.000000e-03 : f64}], moe.parallel = {holders = [[0], [0], [0], [0], [1], [1], [1], [1]], layout = "OnTwo", mesh = {axes = [{bandwidth, latency, name = "gpu", size = 2 : i64}], flops, memory, name = "Two"}, overlap, partial, pins = [], replicate = [], requires = [], routed = {counts, ep = ["gpu"], experts = "routed", tp = []}, sends = {combine, dispatch}, shared = [{counts, ep = [], experts = "common", tp = []}], slots = 4 : i64, tokens = ["gpu"]}, moe.policy = {capacity, layout = "OnTwo", load, max_variants = 4 : i64, page, quantise = [], tokens = [], triggers = []}, moe.routed = {experts = 8 : i64, name = "routed"}} {
  func.func @Block(%arg0: tensor<?x32xf32> {moe.name = "x", moe.role = "input"}, %arg1: tensor<8x32xf32> {moe.name = "router.logits.weight", moe.role = "parameter"}, %arg2: tensor<8x48x32xf32> {moe.name = "routed.gate.weight", moe.role = "parameter"}, %arg3: tensor<8x48x32xf32> {moe.name = "routed.up.weight", moe.role = "parameter"}, %arg4: tensor<8x32x48xf32> {moe.name = "routed.down.weight", moe.role = "parameter"}, %arg5: tensor<1x48x32xf32> {moe.name = "common.gate.weight", moe.role = "parameter"}, %arg6: tensor<1x48x32xf32> {moe.name = "common.up.weight", moe.role = "parameter"}, %arg7: tensor<1x32x48xf32> {moe.name = "common.down.weight", moe.role = "parameter"}) -> (tensor<?x32xf32> {moe.name = "y"}, tensor<?x8xf32> {moe.name = "probability", moe.role = "loss"}, tensor<8xi32> {moe.name = "count", moe.role = "loss"}, tensor<?x1xf32> {moe.name = "z", moe.role = "loss"}) {
    %0:2 = "moe.route"(%arg0) ({
    ^bb0(%arg8: tensor<32xf32>):
      %cst = arith.constant dense<0.000000e+00> : tensor<8xf32>
      %9 = linalg.matvec ins(%arg1, %arg8 : tensor<8x32xf32>, tensor<32xf32>) outs(%cst : tensor<8xf32>) -> tensor<8xf32>
      %cst_0 = arith.constant dense<0xFF800000> : tensor<f32>
      %reduced = linalg.reduce ins(%9 : tensor<8xf32>) outs(%cst_0 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %20 = arith.maximumf %in, %init : f32
          linalg.yield %20 : f32
        }
      %10 = tensor.empty() : tensor<8xf32>
      %broadcasted = linalg.broadcast ins(%reduced : tensor<f32>) outs(%10 : tensor<8xf32>) dimensions = [0] 
      %11 = arith.subf %9, %broadcasted : tensor<8xf32>
      %12 = math.exp %11 : tensor<8xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_2 = linalg.reduce ins(%12 : tensor<8xf32>) outs(%cst_1 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %20 = arith.addf %in, %init : f32
          linalg.yield %20 : f32
        }
      %13 = tensor.empty() : tensor<8xf32>
      %broadcasted_3 = linalg.broadcast ins(%reduced_2 : tensor<f32>) outs(%13 : tensor<8xf32>) dimensions = [0] 
      %14 = arith.divf %12, %broadcasted_3 : tensor<8xf32>
      %15 = "moe.top_k"(%14) {k = 2 : i64} : (tensor<8xf32>) -> tensor<2xi32>
      %16 = "moe.take"(%14, %15) : (tensor<8xf32>, tensor<2xi32>) -> tensor<2xf32>
      %cst_4 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_5 = linalg.reduce ins(%16 : tensor<2xf32>) outs(%cst_4 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %20 = arith.addf %in, %init : f32
          linalg.yield %20 : f32
        }
      %17 = tensor.empty() : tensor<8xf32>
      %broadcasted_6 = linalg.broadcast ins(%reduced_5 : tensor<f32>) outs(%17 : tensor<8xf32>) dimensions = [0] 
      %18 = arith.divf %14, %broadcasted_6 : tensor<8xf32>
      %19 = "moe.take"(%18, %15) : (tensor<8xf32>, tensor<2xi32>) -> tensor<2xf32>
      "moe.yield_choice"(%15, %19) : (tensor<2xi32>, tensor<2xf32>) -> ()
    }) : (tensor<?x32xf32>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
    %1:3 = "moe.dispatch"(%arg0, %0#0) {experts = 8 : i64} : (tensor<?x32xf32>, tensor<?x2xi32>) -> (tensor<?x32xf32>, tensor<9xi32>, tensor<?xi32>)
    %2 = "moe.experts"(%1#0, %1#1) ({
    ^bb0(%arg8: tensor<32xf32>):
      %9 = "moe.own"(%arg2) : (tensor<8x48x32xf32>) -> tensor<48x32xf32>
      %cst = arith.constant dense<0.000000e+00> : tensor<48xf32>
      %10 = linalg.matvec ins(%9, %arg8 : tensor<48x32xf32>, tensor<32xf32>) outs(%cst : tensor<48xf32>) -> tensor<48xf32>
      %cst_0 = arith.constant dense<1.000000e+00> : tensor<48xf32>
      %11 = arith.negf %10 : tensor<48xf32>
      %12 = math.exp %11 : tensor<48xf32>
      %13 = arith.addf %cst_0, %12 : tensor<48xf32>
      %14 = arith.divf %10, %13 : tensor<48xf32>
      %15 = "moe.own"(%arg3) : (tensor<8x48x32xf32>) -> tensor<48x32xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<48xf32>
      %16 = linalg.matvec ins(%15, %arg8 : tensor<48x32xf32>, tensor<32xf32>) outs(%cst_1 : tensor<48xf32>) -> tensor<48xf32>
      %17 = arith.mulf %14, %16 : tensor<48xf32>
      %18 = "moe.own"(%arg4) : (tensor<8x32x48xf32>) -> tensor<32x48xf32>
      %cst_2 = arith.constant dense<0.000000e+00> : tensor<32xf32>
      %19 = linalg.matvec ins(%18, %17 : tensor<32x48xf32>, tensor<48xf32>) outs(%cst_2 : tensor<32xf32>) -> tensor<32xf32>
      "moe.yield"(%19) : (tensor<32xf32>) -> ()
    }) : (tensor<?x32xf32>, tensor<9xi32>) -> tensor<?x32xf32>
    %3 = "moe.combine"(%2, %1#2, %0#1) : (tensor<?x32xf32>, tensor<?xi32>, tensor<?x2xf32>) -> tensor<?x32xf32>
    %4 = "moe.shared"(%arg0) ({
    ^bb0(%arg8: tensor<32xf32>):
      %9 = "moe.own"(%arg5) : (tensor<1x48x32xf32>) -> tensor<48x32xf32>
      %cst = arith.constant dense<0.000000e+00> : tensor<48xf32>
      %10 = linalg.matvec ins(%9, %arg8 : tensor<48x32xf32>, tensor<32xf32>) outs(%cst : tensor<48xf32>) -> tensor<48xf32>
      %cst_0 = arith.constant dense<1.000000e+00> : tensor<48xf32>
      %11 = arith.negf %10 : tensor<48xf32>
      %12 = math.exp %11 : tensor<48xf32>
      %13 = arith.addf %cst_0, %12 : tensor<48xf32>
      %14 = arith.divf %10, %13 : tensor<48xf32>
      %15 = "moe.own"(%arg6) : (tensor<1x48x32xf32>) -> tensor<48x32xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<48xf32>
      %16 = linalg.matvec ins(%15, %arg8 : tensor<48x32xf32>, tensor<32xf32>) outs(%cst_1 : tensor<48xf32>) -> tensor<48xf32>
      %17 = arith.mulf %14, %16 : tensor<48xf32>
      %18 = "moe.own"(%arg7) : (tensor<1x32x48xf32>) -> tensor<32x48xf32>
      %cst_2 = arith.constant dense<0.000000e+00> : tensor<32xf32>
      %19 = linalg.matvec ins(%18, %17 : tensor<32x48xf32>, tensor<48xf32>) outs(%cst_2 : tensor<32xf32>) -> tensor<32xf32>
      "moe.yield"(%19) : (tensor<32xf32>) -> ()
    }) {count = 1 : i64} : (tensor<?x32xf32>) -> tensor<?x32xf32>
    %5 = arith.addf %3, %4 : tensor<?x32xf32>
    %6 = "moe.map"(%arg0) ({
      %9 = "moe.row"(%arg0) : (tensor<?x32xf32>) -> tensor<32xf32>
      %cst = arith.constant dense<0.000000e+00> : tensor<8xf32>
      %10 = linalg.matvec ins(%arg1, %9 : tensor<8x32xf32>, tensor<32xf32>) outs(%cst : tensor<8xf32>) -> tensor<8xf32>
      %cst_0 = arith.constant dense<0xFF800000> : tensor<f32>
      %reduced = linalg.reduce ins(%10 : tensor<8xf32>) outs(%cst_0 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %16 = arith.maximumf %in, %init : f32
          linalg.yield %16 : f32
        }
      %11 = tensor.empty() : tensor<8xf32>
      %broadcasted = linalg.broadcast ins(%reduced : tensor<f32>) outs(%11 : tensor<8xf32>) dimensions = [0] 
      %12 = arith.subf %10, %broadcasted : tensor<8xf32>
      %13 = math.exp %12 : tensor<8xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_2 = linalg.reduce ins(%13 : tensor<8xf32>) outs(%cst_1 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %16 = arith.addf %in, %init : f32
          linalg.yield %16 : f32
        }
      %14 = tensor.empty() : tensor<8xf32>
      %broadcasted_3 = linalg.broadcast ins(%reduced_2 : tensor<f32>) outs(%14 : tensor<8xf32>) dimensions = [0] 
      %15 = arith.divf %13, %broadcasted_3 : tensor<8xf32>
      "moe.yield"(%15) : (tensor<8xf32>) -> ()
    }) : (tensor<?x32xf32>) -> tensor<?x8xf32>
    %7 = "moe.count"(%0#0) : (tensor<?x2xi32>) -> tensor<8xi32>
    %8 = "moe.map"(%arg0) ({
      %9 = "moe.row"(%arg0) : (tensor<?x32xf32>) -> tensor<32xf32>
      %cst = arith.constant dense<0.000000e+00> : tensor<8xf32>
      %10 = linalg.matvec ins(%arg1, %9 : tensor<8x32xf32>, tensor<32xf32>) outs(%cst : tensor<8xf32>) -> tensor<8xf32>
      %cst_0 = arith.constant dense<0xFF800000> : tensor<f32>
      %reduced = linalg.reduce ins(%10 : tensor<8xf32>) outs(%cst_0 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %17 = arith.maximumf %in, %init : f32
          linalg.yield %17 : f32
        }
      %11 = tensor.empty() : tensor<8xf32>
      %broadcasted = linalg.broadcast ins(%reduced : tensor<f32>) outs(%11 : tensor<8xf32>) dimensions = [0] 
      %12 = arith.subf %10, %broadcasted : tensor<8xf32>
      %13 = math.exp %12 : tensor<8xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_2 = linalg.reduce ins(%13 : tensor<8xf32>) outs(%cst_1 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %17 = arith.addf %in, %init : f32
          linalg.yield %17 : f32
        }
      %14 = math.log %reduced_2 : tensor<f32>
      %15 = arith.addf %14, %reduced : tensor<f32>
      %16 = arith.mulf %15, %15 : tensor<f32>
      %expanded = tensor.expand_shape %16 [] output_shape [1] : tensor<f32> into tensor<1xf32>
      "moe.yield"(%expanded) : (tensor<1xf32>) -> ()
    }) : (tensor<?x32xf32>) -> tensor<?x1xf32>
    return %5, %6, %7, %8 : tensor<?x32xf32>, tensor<?x8xf32>, tensor<8xi32>, tensor<?x1xf32>
  }
}
