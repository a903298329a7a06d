module attributes {moe.layer = "OLMoE", moe.parallel = {holders = [[0], [0], [0], [0], [0], [0], [0], [0], [0], [0], [0, 2], [0], [0, 3], [0], [0], [0], [1], [1], [1], [1], [1], [1], [1], [1], [1], [1], [1], [1], [1], [1], [1], [1], [2], [2], [2], [2], [2], [2], [2], [2], [2], [2], [2], [2], [2], [2], [2], [2], [1, 3], [3], [3], [3], [3], [3], [3], [3], [3], [3], [0, 3], [3], [3], [3], [3], [3]], layout = "Four", mesh = {axes = [{bandwidth = 1.250000e+08 : f64, latency = 5.000000e-05 : f64, name = "node", size = 2 : i64}, {bandwidth = 5.000000e+09 : f64, latency = 2.000000e-05 : f64, name = "rank", size = 2 : i64}], flops = 1.000000e+11 : f64, memory = 2147483648 : i64, name = "Pair"}, overlap = {chunks = 2 : i64, directions = ["dispatch", "combine"], with_shared = false}, partial, pins = [], replicate = [{copies = 2 : i64, experts = [10, 12, 48, 58], hottest = 4 : i64}], requires = [{compare = "<=", measure = "memory", value = 0x41D0000000000000 : f64}], routed = {counts, ep = ["node", "rank"], experts = "routed", tp = []}, sends = {combine, dispatch}, shared = [], slots = 17 : i64, tokens = ["node", "rank"]}, moe.policy = {capacity, layout = "Four", load = {name = "Chat", routing = {counts = [12544, 7956, 11214, 5825, 4258, 4130, 8447, 3946, 4875, 4764, 68440, 7817, 41469, 9335, 14504, 7525, 11893, 4071, 4180, 4785, 7113, 6405, 8800, 5688, 6318, 6142, 4392, 3801, 4773, 5053, 9183, 4552, 5136, 3914, 3845, 5111, 10159, 16364, 5513, 4257, 4655, 5383, 4387, 10011, 4068, 6941, 6662, 20004, 31500, 10648, 6038, 3896, 5343, 7471, 17259, 5741, 4303, 22925, 26350, 3526, 6816, 13761, 3725, 5005], histogram = {"1" = 650 : i64, "1024" = 37 : i64, "16" = 283 : i64, "64" = 141 : i64}, kind = "trace"}, tokens = [1, 4096]}, max_variants = 4 : i64, page, quantise = [], tokens = [], triggers = []}, moe.routed = {experts = 64 : i64, name = "routed"}} {
  func.func @OLMoE(%arg0: tensor<?x2048xbf16> {moe.name = "x", moe.role = "input"}, %arg1: tensor<64x2048xf32> {moe.name = "router.logits.weight", moe.role = "parameter"}, %arg2: tensor<64x1024x2048xbf16> {moe.name = "routed.gate.weight", moe.role = "parameter"}, %arg3: tensor<64x1024x2048xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"}, %arg4: tensor<64x2048x1024xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"}) -> (tensor<?x2048xbf16> {moe.name = "y"}) {
    %0:2 = "moe.route"(%arg0) ({
    ^bb0(%arg5: tensor<2048xbf16>):
      %cst = arith.constant dense<0.000000e+00> : tensor<64xf32>
      %5 = linalg.matvec ins(%arg1, %arg5 : tensor<64x2048xf32>, tensor<2048xbf16>) outs(%cst : tensor<64xf32>) -> tensor<64xf32>
      %cst_0 = arith.constant dense<0xFF800000> : tensor<f32>
      %reduced = linalg.reduce ins(%5 : tensor<64xf32>) outs(%cst_0 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %13 = arith.maximumf %in, %init : f32
          linalg.yield %13 : f32
        }
      %6 = tensor.empty() : tensor<64xf32>
      %broadcasted = linalg.broadcast ins(%reduced : tensor<f32>) outs(%6 : tensor<64xf32>) dimensions = [0] 
      %7 = arith.subf %5, %broadcasted : tensor<64xf32>
      %8 = math.exp %7 : tensor<64xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_2 = linalg.reduce ins(%8 : tensor<64xf32>) outs(%cst_1 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %13 = arith.addf %in, %init : f32
          linalg.yield %13 : f32
        }
      %9 = tensor.empty() : tensor<64xf32>
      %broadcasted_3 = linalg.broadcast ins(%reduced_2 : tensor<f32>) outs(%9 : tensor<64xf32>) dimensions = [0] 
      %10 = arith.divf %8, %broadcasted_3 : tensor<64xf32>
      %11 = "moe.top_k"(%10) {k = 8 : i64} : (tensor<64xf32>) -> tensor<8xi32>
      %12 = "moe.take"(%10, %11) : (tensor<64xf32>, tensor<8xi32>) -> tensor<8xf32>
      "moe.yield_choice"(%11, %12) : (tensor<8xi32>, tensor<8xf32>) -> ()
    }) : (tensor<?x2048xbf16>) -> (tensor<?x8xi32>, tensor<?x8xf32>)
    %1:3 = "moe.dispatch"(%arg0, %0#0) {experts = 64 : i64} : (tensor<?x2048xbf16>, tensor<?x8xi32>) -> (tensor<?x2048xbf16>, tensor<65xi32>, tensor<?xi32>)
    %2 = "moe.experts"(%1#0, %1#1) ({
    ^bb0(%arg5: tensor<2048xbf16>):
      %5 = "moe.own"(%arg2) : (tensor<64x1024x2048xbf16>) -> tensor<1024x2048xbf16>
      %cst = arith.constant dense<0.000000e+00> : tensor<1024xf32>
      %6 = linalg.matvec ins(%5, %arg5 : tensor<1024x2048xbf16>, tensor<2048xbf16>) outs(%cst : tensor<1024xf32>) -> tensor<1024xf32>
      %cst_0 = arith.constant dense<1.000000e+00> : tensor<1024xf32>
      %7 = arith.negf %6 : tensor<1024xf32>
      %8 = math.exp %7 : tensor<1024xf32>
      %9 = arith.addf %cst_0, %8 : tensor<1024xf32>
      %10 = arith.divf %6, %9 : tensor<1024xf32>
      %11 = "moe.own"(%arg3) : (tensor<64x1024x2048xbf16>) -> tensor<1024x2048xbf16>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<1024xf32>
      %12 = linalg.matvec ins(%11, %arg5 : tensor<1024x2048xbf16>, tensor<2048xbf16>) outs(%cst_1 : tensor<1024xf32>) -> tensor<1024xf32>
      %13 = arith.mulf %10, %12 : tensor<1024xf32>
      %14 = arith.truncf %13 : tensor<1024xf32> to tensor<1024xbf16>
      %15 = "moe.own"(%arg4) : (tensor<64x2048x1024xbf16>) -> tensor<2048x1024xbf16>
      %cst_2 = arith.constant dense<0.000000e+00> : tensor<2048xf32>
      %16 = linalg.matvec ins(%15, %14 : tensor<2048x1024xbf16>, tensor<1024xbf16>) outs(%cst_2 : tensor<2048xf32>) -> tensor<2048xf32>
      "moe.yield"(%16) : (tensor<2048xf32>) -> ()
    }) : (tensor<?x2048xbf16>, tensor<65xi32>) -> tensor<?x2048xf32>
    %3 = "moe.combine"(%2, %1#2, %0#1) : (tensor<?x2048xf32>, tensor<?xi32>, tensor<?x8xf32>) -> tensor<?x2048xf32>
    %4 = arith.truncf %3 : tensor<?x2048xf32> to tensor<?x2048xbf16>
    return %4 : tensor<?x2048xbf16>
  }
}
