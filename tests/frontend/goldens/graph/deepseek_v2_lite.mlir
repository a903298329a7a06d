module attributes {moe.layer = "DeepSeekV2Lite", moe.routed = {experts = 64 : i64, name = "routed"}} {
  func.func @DeepSeekV2Lite(%arg0: tensor<?x2048xbf16> {moe.name = "x", moe.role = "input"}, %arg1: tensor<64x2048xf32> {moe.name = "router.logits.weight", moe.role = "parameter"}, %arg2: tensor<64x1408x2048xbf16> {moe.name = "routed.gate.weight", moe.role = "parameter"}, %arg3: tensor<64x1408x2048xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"}, %arg4: tensor<64x2048x1408xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"}, %arg5: tensor<2x1408x2048xbf16> {moe.name = "common.gate.weight", moe.role = "parameter"}, %arg6: tensor<2x1408x2048xbf16> {moe.name = "common.up.weight", moe.role = "parameter"}, %arg7: tensor<2x2048x1408xbf16> {moe.name = "common.down.weight", moe.role = "parameter"}) -> (tensor<?x2048xbf16> {moe.name = "y"}) {
    %0:2 = "moe.route"(%arg0) ({
    ^bb0(%arg8: tensor<2048xbf16>):
      %cst = arith.constant dense<0.000000e+00> : tensor<64xf32>
      %7 = linalg.matvec ins(%arg1, %arg8 : tensor<64x2048xf32>, tensor<2048xbf16>) outs(%cst : tensor<64xf32>) -> tensor<64xf32>
      %cst_0 = arith.constant dense<0xFF800000> : tensor<f32>
      %reduced = linalg.reduce ins(%7 : tensor<64xf32>) outs(%cst_0 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %15 = arith.maximumf %in, %init : f32
          linalg.yield %15 : f32
        }
      %8 = tensor.empty() : tensor<64xf32>
      %broadcasted = linalg.broadcast ins(%reduced : tensor<f32>) outs(%8 : tensor<64xf32>) dimensions = [0] 
      %9 = arith.subf %7, %broadcasted : tensor<64xf32>
      %10 = math.exp %9 : tensor<64xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_2 = linalg.reduce ins(%10 : tensor<64xf32>) outs(%cst_1 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %15 = arith.addf %in, %init : f32
          linalg.yield %15 : f32
        }
      %11 = tensor.empty() : tensor<64xf32>
      %broadcasted_3 = linalg.broadcast ins(%reduced_2 : tensor<f32>) outs(%11 : tensor<64xf32>) dimensions = [0] 
      %12 = arith.divf %10, %broadcasted_3 : tensor<64xf32>
      %13 = "moe.top_k"(%12) {k = 6 : i64} : (tensor<64xf32>) -> tensor<6xi32>
      %14 = "moe.take"(%12, %13) : (tensor<64xf32>, tensor<6xi32>) -> tensor<6xf32>
      "moe.yield_choice"(%13, %14) : (tensor<6xi32>, tensor<6xf32>) -> ()
    }) : (tensor<?x2048xbf16>) -> (tensor<?x6xi32>, tensor<?x6xf32>)
    %1:3 = "moe.dispatch"(%arg0, %0#0) {experts = 64 : i64} : (tensor<?x2048xbf16>, tensor<?x6xi32>) -> (tensor<?x2048xbf16>, tensor<65xi32>, tensor<?xi32>)
    %2 = "moe.experts"(%1#0, %1#1) ({
    ^bb0(%arg8: tensor<2048xbf16>):
      %7 = "moe.own"(%arg2) : (tensor<64x1408x2048xbf16>) -> tensor<1408x2048xbf16>
      %cst = arith.constant dense<0.000000e+00> : tensor<1408xf32>
      %8 = linalg.matvec ins(%7, %arg8 : tensor<1408x2048xbf16>, tensor<2048xbf16>) outs(%cst : tensor<1408xf32>) -> tensor<1408xf32>
      %cst_0 = arith.constant dense<1.000000e+00> : tensor<1408xf32>
      %9 = arith.negf %8 : tensor<1408xf32>
      %10 = math.exp %9 : tensor<1408xf32>
      %11 = arith.addf %cst_0, %10 : tensor<1408xf32>
      %12 = arith.divf %8, %11 : tensor<1408xf32>
      %13 = "moe.own"(%arg3) : (tensor<64x1408x2048xbf16>) -> tensor<1408x2048xbf16>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<1408xf32>
      %14 = linalg.matvec ins(%13, %arg8 : tensor<1408x2048xbf16>, tensor<2048xbf16>) outs(%cst_1 : tensor<1408xf32>) -> tensor<1408xf32>
      %15 = arith.mulf %12, %14 : tensor<1408xf32>
      %16 = arith.truncf %15 : tensor<1408xf32> to tensor<1408xbf16>
      %17 = "moe.own"(%arg4) : (tensor<64x2048x1408xbf16>) -> tensor<2048x1408xbf16>
      %cst_2 = arith.constant dense<0.000000e+00> : tensor<2048xf32>
      %18 = linalg.matvec ins(%17, %16 : tensor<2048x1408xbf16>, tensor<1408xbf16>) outs(%cst_2 : tensor<2048xf32>) -> tensor<2048xf32>
      "moe.yield"(%18) : (tensor<2048xf32>) -> ()
    }) : (tensor<?x2048xbf16>, tensor<65xi32>) -> tensor<?x2048xf32>
    %3 = "moe.combine"(%2, %1#2, %0#1) : (tensor<?x2048xf32>, tensor<?xi32>, tensor<?x6xf32>) -> tensor<?x2048xf32>
    %4 = "moe.shared"(%arg0) ({
    ^bb0(%arg8: tensor<2048xbf16>):
      %7 = "moe.own"(%arg5) : (tensor<2x1408x2048xbf16>) -> tensor<1408x2048xbf16>
      %cst = arith.constant dense<0.000000e+00> : tensor<1408xf32>
      %8 = linalg.matvec ins(%7, %arg8 : tensor<1408x2048xbf16>, tensor<2048xbf16>) outs(%cst : tensor<1408xf32>) -> tensor<1408xf32>
      %cst_0 = arith.constant dense<1.000000e+00> : tensor<1408xf32>
      %9 = arith.negf %8 : tensor<1408xf32>
      %10 = math.exp %9 : tensor<1408xf32>
      %11 = arith.addf %cst_0, %10 : tensor<1408xf32>
      %12 = arith.divf %8, %11 : tensor<1408xf32>
      %13 = "moe.own"(%arg6) : (tensor<2x1408x2048xbf16>) -> tensor<1408x2048xbf16>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<1408xf32>
      %14 = linalg.matvec ins(%13, %arg8 : tensor<1408x2048xbf16>, tensor<2048xbf16>) outs(%cst_1 : tensor<1408xf32>) -> tensor<1408xf32>
      %15 = arith.mulf %12, %14 : tensor<1408xf32>
      %16 = arith.truncf %15 : tensor<1408xf32> to tensor<1408xbf16>
      %17 = "moe.own"(%arg7) : (tensor<2x2048x1408xbf16>) -> tensor<2048x1408xbf16>
      %cst_2 = arith.constant dense<0.000000e+00> : tensor<2048xf32>
      %18 = linalg.matvec ins(%17, %16 : tensor<2048x1408xbf16>, tensor<1408xbf16>) outs(%cst_2 : tensor<2048xf32>) -> tensor<2048xf32>
      "moe.yield"(%18) : (tensor<2048xf32>) -> ()
    }) {count = 2 : i64} : (tensor<?x2048xbf16>) -> tensor<?x2048xf32>
    %5 = arith.addf %3, %4 : tensor<?x2048xf32>
    %6 = arith.truncf %5 : tensor<?x2048xf32> to tensor<?x2048xbf16>
    return %6 : tensor<?x2048xbf16>
  }
}
