module attributes {moe.layer = "SwitchBase", moe.routed = {experts = 8 : i64, name = "routed"}} {
  func.func @SwitchBase(%arg0: tensor<?x768xbf16> {moe.name = "x", moe.role = "input"}, %arg1: tensor<8x768xf32> {moe.name = "router.logits.weight", moe.role = "parameter"}, %arg2: tensor<8x3072x768xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"}, %arg3: tensor<8x768x3072xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"}) -> (tensor<?x768xbf16> {moe.name = "y"}) {
    %0:2 = "moe.route"(%arg0) ({
    ^bb0(%arg4: tensor<768xbf16>):
      %cst = arith.constant dense<0.000000e+00> : tensor<8xf32>
      %6 = linalg.matvec ins(%arg1, %arg4 : tensor<8x768xf32>, tensor<768xbf16>) outs(%cst : tensor<8xf32>) -> tensor<8xf32>
      %cst_0 = arith.constant dense<0xFF800000> : tensor<f32>
      %reduced = linalg.reduce ins(%6 : tensor<8xf32>) outs(%cst_0 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %14 = arith.maximumf %in, %init : f32
          linalg.yield %14 : f32
        }
      %7 = tensor.empty() : tensor<8xf32>
      %broadcasted = linalg.broadcast ins(%reduced : tensor<f32>) outs(%7 : tensor<8xf32>) dimensions = [0] 
      %8 = arith.subf %6, %broadcasted : tensor<8xf32>
      %9 = math.exp %8 : tensor<8xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_2 = linalg.reduce ins(%9 : tensor<8xf32>) outs(%cst_1 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %14 = arith.addf %in, %init : f32
          linalg.yield %14 : f32
        }
      %10 = tensor.empty() : tensor<8xf32>
      %broadcasted_3 = linalg.broadcast ins(%reduced_2 : tensor<f32>) outs(%10 : tensor<8xf32>) dimensions = [0] 
      %11 = arith.divf %9, %broadcasted_3 : tensor<8xf32>
      %12 = "moe.top_k"(%11) {k = 1 : i64} : (tensor<8xf32>) -> tensor<1xi32>
      %13 = "moe.take"(%11, %12) : (tensor<8xf32>, tensor<1xi32>) -> tensor<1xf32>
      "moe.yield_choice"(%12, %13) : (tensor<1xi32>, tensor<1xf32>) -> ()
    }) : (tensor<?x768xbf16>) -> (tensor<?x1xi32>, tensor<?x1xf32>)
    %1 = "moe.capacity"(%0#0, %0#1) {experts = 8 : i64, factor = 1.250000e+00 : f64, minimum = 0 : i64, order = "token"} : (tensor<?x1xi32>, tensor<?x1xf32>) -> tensor<?x1xi32>
    %2:3 = "moe.dispatch"(%arg0, %1) {experts = 8 : i64} : (tensor<?x768xbf16>, tensor<?x1xi32>) -> (tensor<?x768xbf16>, tensor<9xi32>, tensor<?xi32>)
    %3 = "moe.experts"(%2#0, %2#1) ({
    ^bb0(%arg4: tensor<768xbf16>):
      %6 = "moe.own"(%arg2) : (tensor<8x3072x768xbf16>) -> tensor<3072x768xbf16>
      %cst = arith.constant dense<0.000000e+00> : tensor<3072xf32>
      %7 = linalg.matvec ins(%6, %arg4 : tensor<3072x768xbf16>, tensor<768xbf16>) outs(%cst : tensor<3072xf32>) -> tensor<3072xf32>
      %cst_0 = arith.constant dense<0.000000e+00> : tensor<3072xf32>
      %8 = arith.maximumf %7, %cst_0 : tensor<3072xf32>
      %9 = arith.truncf %8 : tensor<3072xf32> to tensor<3072xbf16>
      %10 = "moe.own"(%arg3) : (tensor<8x768x3072xbf16>) -> tensor<768x3072xbf16>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<768xf32>
      %11 = linalg.matvec ins(%10, %9 : tensor<768x3072xbf16>, tensor<3072xbf16>) outs(%cst_1 : tensor<768xf32>) -> tensor<768xf32>
      "moe.yield"(%11) : (tensor<768xf32>) -> ()
    }) : (tensor<?x768xbf16>, tensor<9xi32>) -> tensor<?x768xf32>
    %4 = "moe.combine"(%3, %2#2, %0#1) : (tensor<?x768xf32>, tensor<?xi32>, tensor<?x1xf32>) -> tensor<?x768xf32>
    %5 = arith.truncf %4 : tensor<?x768xf32> to tensor<?x768xbf16>
    return %5 : tensor<?x768xbf16>
  }
}
