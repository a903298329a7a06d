module attributes {moe.layer = "TrainLM", moe.losses = [{kind = "balance", over = "batch", weight = 1.000000e-02 : f64}, {kind = "z", over = "batch", weight = 1.000000e-03 : f64}], moe.routed = {experts = 8 : i64, name = "routed"}} {
  func.func @TrainLM(%arg0: tensor<?x64xf32> {moe.name = "x", moe.role = "input"}, %arg1: tensor<8x64xf32> {moe.name = "router.logits.weight", moe.role = "parameter"}, %arg2: tensor<8x96x64xf32> {moe.name = "routed.gate.weight", moe.role = "parameter"}, %arg3: tensor<8x96x64xf32> {moe.name = "routed.up.weight", moe.role = "parameter"}, %arg4: tensor<8x64x96xf32> {moe.name = "routed.down.weight", moe.role = "parameter"}) -> (tensor<?x64xf32> {moe.name = "y"}, tensor<?x8xf32> {moe.name = "probability", moe.role = "loss"}, tensor<8xi32> {moe.name = "count", moe.role = "loss"}, tensor<?x1xf32> {moe.name = "z", moe.role = "loss"}) {
    %0:2 = "moe.route"(%arg0) ({
    ^bb0(%arg5: tensor<64xf32>):
      %cst = arith.constant dense<0.000000e+00> : tensor<8xf32>
      %7 = linalg.matvec ins(%arg1, %arg5 : tensor<8x64xf32>, tensor<64xf32>) outs(%cst : tensor<8xf32>) -> tensor<8xf32>
      %cst_0 = arith.constant dense<0xFF800000> : tensor<f32>
      %reduced = linalg.reduce ins(%7 : tensor<8xf32>) outs(%cst_0 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %18 = arith.maximumf %in, %init : f32
          linalg.yield %18 : f32
        }
      %8 = tensor.empty() : tensor<8xf32>
      %broadcasted = linalg.broadcast ins(%reduced : tensor<f32>) outs(%8 : tensor<8xf32>) dimensions = [0] 
      %9 = arith.subf %7, %broadcasted : tensor<8xf32>
      %10 = math.exp %9 : tensor<8xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_2 = linalg.reduce ins(%10 : tensor<8xf32>) outs(%cst_1 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %18 = arith.addf %in, %init : f32
          linalg.yield %18 : f32
        }
      %11 = tensor.empty() : tensor<8xf32>
      %broadcasted_3 = linalg.broadcast ins(%reduced_2 : tensor<f32>) outs(%11 : tensor<8xf32>) dimensions = [0] 
      %12 = arith.divf %10, %broadcasted_3 : tensor<8xf32>
      %13 = "moe.top_k"(%12) {k = 2 : i64} : (tensor<8xf32>) -> tensor<2xi32>
      %14 = "moe.take"(%12, %13) : (tensor<8xf32>, tensor<2xi32>) -> tensor<2xf32>
      %cst_4 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_5 = linalg.reduce ins(%14 : tensor<2xf32>) outs(%cst_4 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %18 = arith.addf %in, %init : f32
          linalg.yield %18 : f32
        }
      %15 = tensor.empty() : tensor<8xf32>
      %broadcasted_6 = linalg.broadcast ins(%reduced_5 : tensor<f32>) outs(%15 : tensor<8xf32>) dimensions = [0] 
      %16 = arith.divf %12, %broadcasted_6 : tensor<8xf32>
      %17 = "moe.take"(%16, %13) : (tensor<8xf32>, tensor<2xi32>) -> tensor<2xf32>
      "moe.yield_choice"(%13, %17) : (tensor<2xi32>, tensor<2xf32>) -> ()
    }) : (tensor<?x64xf32>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
    %1:3 = "moe.dispatch"(%arg0, %0#0) {experts = 8 : i64} : (tensor<?x64xf32>, tensor<?x2xi32>) -> (tensor<?x64xf32>, tensor<9xi32>, tensor<?xi32>)
    %2 = "moe.experts"(%1#0, %1#1) ({
    ^bb0(%arg5: tensor<64xf32>):
      %7 = "moe.own"(%arg2) : (tensor<8x96x64xf32>) -> tensor<96x64xf32>
      %cst = arith.constant dense<0.000000e+00> : tensor<96xf32>
      %8 = linalg.matvec ins(%7, %arg5 : tensor<96x64xf32>, tensor<64xf32>) outs(%cst : tensor<96xf32>) -> tensor<96xf32>
      %cst_0 = arith.constant dense<1.000000e+00> : tensor<96xf32>
      %9 = arith.negf %8 : tensor<96xf32>
      %10 = math.exp %9 : tensor<96xf32>
      %11 = arith.addf %cst_0, %10 : tensor<96xf32>
      %12 = arith.divf %8, %11 : tensor<96xf32>
      %13 = "moe.own"(%arg3) : (tensor<8x96x64xf32>) -> tensor<96x64xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<96xf32>
      %14 = linalg.matvec ins(%13, %arg5 : tensor<96x64xf32>, tensor<64xf32>) outs(%cst_1 : tensor<96xf32>) -> tensor<96xf32>
      %15 = arith.mulf %12, %14 : tensor<96xf32>
      %16 = "moe.own"(%arg4) : (tensor<8x64x96xf32>) -> tensor<64x96xf32>
      %cst_2 = arith.constant dense<0.000000e+00> : tensor<64xf32>
      %17 = linalg.matvec ins(%16, %15 : tensor<64x96xf32>, tensor<96xf32>) outs(%cst_2 : tensor<64xf32>) -> tensor<64xf32>
      "moe.yield"(%17) : (tensor<64xf32>) -> ()
    }) : (tensor<?x64xf32>, tensor<9xi32>) -> tensor<?x64xf32>
    %3 = "moe.combine"(%2, %1#2, %0#1) : (tensor<?x64xf32>, tensor<?xi32>, tensor<?x2xf32>) -> tensor<?x64xf32>
    %4 = "moe.map"(%arg0) ({
      %7 = "moe.row"(%arg0) : (tensor<?x64xf32>) -> tensor<64xf32>
      %cst = arith.constant dense<0.000000e+00> : tensor<8xf32>
      %8 = linalg.matvec ins(%arg1, %7 : tensor<8x64xf32>, tensor<64xf32>) outs(%cst : tensor<8xf32>) -> tensor<8xf32>
      %cst_0 = arith.constant dense<0xFF800000> : tensor<f32>
      %reduced = linalg.reduce ins(%8 : tensor<8xf32>) outs(%cst_0 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %14 = arith.maximumf %in, %init : f32
          linalg.yield %14 : f32
        }
      %9 = tensor.empty() : tensor<8xf32>
      %broadcasted = linalg.broadcast ins(%reduced : tensor<f32>) outs(%9 : tensor<8xf32>) dimensions = [0] 
      %10 = arith.subf %8, %broadcasted : tensor<8xf32>
      %11 = math.exp %10 : tensor<8xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_2 = linalg.reduce ins(%11 : tensor<8xf32>) outs(%cst_1 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %14 = arith.addf %in, %init : f32
          linalg.yield %14 : f32
        }
      %12 = tensor.empty() : tensor<8xf32>
      %broadcasted_3 = linalg.broadcast ins(%reduced_2 : tensor<f32>) outs(%12 : tensor<8xf32>) dimensions = [0] 
      %13 = arith.divf %11, %broadcasted_3 : tensor<8xf32>
      "moe.yield"(%13) : (tensor<8xf32>) -> ()
    }) : (tensor<?x64xf32>) -> tensor<?x8xf32>
    %5 = "moe.count"(%0#0) : (tensor<?x2xi32>) -> tensor<8xi32>
    %6 = "moe.map"(%arg0) ({
      %7 = "moe.row"(%arg0) : (tensor<?x64xf32>) -> tensor<64xf32>
      %cst = arith.constant dense<0.000000e+00> : tensor<8xf32>
      %8 = linalg.matvec ins(%arg1, %7 : tensor<8x64xf32>, tensor<64xf32>) outs(%cst : tensor<8xf32>) -> tensor<8xf32>
      %cst_0 = arith.constant dense<0xFF800000> : tensor<f32>
      %reduced = linalg.reduce ins(%8 : tensor<8xf32>) outs(%cst_0 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %15 = arith.maximumf %in, %init : f32
          linalg.yield %15 : f32
        }
      %9 = tensor.empty() : tensor<8xf32>
      %broadcasted = linalg.broadcast ins(%reduced : tensor<f32>) outs(%9 : tensor<8xf32>) dimensions = [0] 
      %10 = arith.subf %8, %broadcasted : tensor<8xf32>
      %11 = math.exp %10 : tensor<8xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_2 = linalg.reduce ins(%11 : tensor<8xf32>) outs(%cst_1 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %15 = arith.addf %in, %init : f32
          linalg.yield %15 : f32
        }
      %12 = math.log %reduced_2 : tensor<f32>
      %13 = arith.addf %12, %reduced : tensor<f32>
      %14 = arith.mulf %13, %13 : tensor<f32>
      %expanded = tensor.expand_shape %14 [] output_shape [1] : tensor<f32> into tensor<1xf32>
      "moe.yield"(%expanded) : (tensor<1xf32>) -> ()
    }) : (tensor<?x64xf32>) -> tensor<?x1xf32>
    return %3, %4, %5, %6 : tensor<?x64xf32>, tensor<?x8xf32>, tensor<8xi32>, tensor<?x1xf32>
  }
}
