module attributes {moe.layer = "Qwen3MoE", moe.routed = {experts = 128 : i64, name = "routed"}} {
  func.func @Qwen3MoE(%arg0: tensor<?x2048xbf16> {moe.name = "x", moe.role = "input"}, %arg1: tensor<128x2048xf32> {moe.name = "router.logits.weight", moe.role = "parameter"}, %arg2: tensor<128x768x2048xbf16> {moe.name = "routed.gate.weight", moe.role = "parameter"}, %arg3: tensor<128x768x2048xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"}, %arg4: tensor<128x2048x768xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"}) -> (tensor<?x2048xbf16> {moe.name = "y"}) {
    %0:2 = "moe.route"(%arg0) ({
    ^bb0(%arg5: tensor<2048xbf16>):
      %cst = arith.constant dense<0.000000e+00> : tensor<128xf32>
      %5 = linalg.matvec ins(%arg1, %arg5 : tensor<128x2048xf32>, tensor<2048xbf16>) outs(%cst : tensor<128xf32>) -> tensor<128xf32>
      %cst_0 = arith.constant dense<0xFF800000> : tensor<f32>
      %reduced = linalg.reduce ins(%5 : tensor<128xf32>) outs(%cst_0 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %16 = arith.maximumf %in, %init : f32
          linalg.yield %16 : f32
        }
      %6 = tensor.empty() : tensor<128xf32>
      %broadcasted = linalg.broadcast ins(%reduced : tensor<f32>) outs(%6 : tensor<128xf32>) dimensions = [0] 
      %7 = arith.subf %5, %broadcasted : tensor<128xf32>
      %8 = math.exp %7 : tensor<128xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_2 = linalg.reduce ins(%8 : tensor<128xf32>) outs(%cst_1 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %16 = arith.addf %in, %init : f32
          linalg.yield %16 : f32
        }
      %9 = tensor.empty() : tensor<128xf32>
      %broadcasted_3 = linalg.broadcast ins(%reduced_2 : tensor<f32>) outs(%9 : tensor<128xf32>) dimensions = [0] 
      %10 = arith.divf %8, %broadcasted_3 : tensor<128xf32>
      %11 = "moe.top_k"(%10) {k = 8 : i64} : (tensor<128xf32>) -> tensor<8xi32>
      %12 = "moe.take"(%10, %11) : (tensor<128xf32>, tensor<8xi32>) -> tensor<8xf32>
      %cst_4 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_5 = linalg.reduce ins(%12 : tensor<8xf32>) outs(%cst_4 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %16 = arith.addf %in, %init : f32
          linalg.yield %16 : f32
        }
      %13 = tensor.empty() : tensor<128xf32>
      %broadcasted_6 = linalg.broadcast ins(%reduced_5 : tensor<f32>) outs(%13 : tensor<128xf32>) dimensions = [0] 
      %14 = arith.divf %10, %broadcasted_6 : tensor<128xf32>
      %15 = "moe.take"(%14, %11) : (tensor<128xf32>, tensor<8xi32>) -> tensor<8xf32>
      "moe.yield_choice"(%11, %15) : (tensor<8xi32>, tensor<8xf32>) -> ()
    }) : (tensor<?x2048xbf16>) -> (tensor<?x8xi32>, tensor<?x8xf32>)
    %1:3 = "moe.dispatch"(%arg0, %0#0) {experts = 128 : i64} : (tensor<?x2048xbf16>, tensor<?x8xi32>) -> (tensor<?x2048xbf16>, tensor<129xi32>, tensor<?xi32>)
    %2 = "moe.experts"(%1#0, %1#1) ({
    ^bb0(%arg5: tensor<2048xbf16>):
      %5 = "moe.own"(%arg2) : (tensor<128x768x2048xbf16>) -> tensor<768x2048xbf16>
      %cst = arith.constant dense<0.000000e+00> : tensor<768xf32>
      %6 = linalg.matvec ins(%5, %arg5 : tensor<768x2048xbf16>, tensor<2048xbf16>) outs(%cst : tensor<768xf32>) -> tensor<768xf32>
      %cst_0 = arith.constant dense<1.000000e+00> : tensor<768xf32>
      %7 = arith.negf %6 : tensor<768xf32>
      %8 = math.exp %7 : tensor<768xf32>
      %9 = arith.addf %cst_0, %8 : tensor<768xf32>
      %10 = arith.divf %6, %9 : tensor<768xf32>
      %11 = "moe.own"(%arg3) : (tensor<128x768x2048xbf16>) -> tensor<768x2048xbf16>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<768xf32>
      %12 = linalg.matvec ins(%11, %arg5 : tensor<768x2048xbf16>, tensor<2048xbf16>) outs(%cst_1 : tensor<768xf32>) -> tensor<768xf32>
      %13 = arith.mulf %10, %12 : tensor<768xf32>
      %14 = arith.truncf %13 : tensor<768xf32> to tensor<768xbf16>
      %15 = "moe.own"(%arg4) : (tensor<128x2048x768xbf16>) -> tensor<2048x768xbf16>
      %cst_2 = arith.constant dense<0.000000e+00> : tensor<2048xf32>
      %16 = linalg.matvec ins(%15, %14 : tensor<2048x768xbf16>, tensor<768xbf16>) outs(%cst_2 : tensor<2048xf32>) -> tensor<2048xf32>
      "moe.yield"(%16) : (tensor<2048xf32>) -> ()
    }) : (tensor<?x2048xbf16>, tensor<129xi32>) -> tensor<?x2048xf32>
    %3 = "moe.combine"(%2, %1#2, %0#1) : (tensor<?x2048xf32>, tensor<?xi32>, tensor<?x8xf32>) -> tensor<?x2048xf32>
    %4 = arith.truncf %3 : tensor<?x2048xf32> to tensor<?x2048xbf16>
    return %4 : tensor<?x2048xbf16>
  }
}
