module attributes {moe.layer = "DeepSeekV3", moe.parallel = {holders = [[0, 8], [0, 9], [0, 10], [0, 11], [0, 12], [0, 13], [0, 14], [0, 15], [0, 8], [0, 9], [0, 10], [0, 11], [0, 12], [0, 13], [0, 14], [0, 15], [1], [1], [1], [1], [1], [1], [1], [1], [1], [1], [1], [1], [1], [1], [1], [1], [2], [2], [2], [2], [2], [2], [2], [2], [2], [2], [2], [2], [2], [2], [2], [2], [3], [3], [3], [3], [3], [3], [3], [3], [3], [3], [3], [3], [3], [3], [3], [3], [4], [4], [4], [4], [4], [4], [4], [4], [4], [4], [4], [4], [4], [4], [4], [4], [5], [5], [5], [5], [5], [5], [5], [5], [5], [5], [5], [5], [5], [5], [5], [5], [6], [6], [6], [6], [6], [6], [6], [6], [6], [6], [6], [6], [6], [6], [6], [6], [7], [7], [7], [7], [7], [7], [7], [7], [7], [7], [7], [7], [7], [7], [7], [7], [8], [8], [8], [8], [8], [8], [8], [8], [8], [8], [8], [8], [8], [8], [8], [8], [9], [9], [9], [9], [9], [9], [9], [9], [9], [9], [9], [9], [9], [9], [9], [9], [10], [10], [10], [10], [10], [10], [10], [10], [10], [10], [10], [10], [10], [10], [10], [10], [11], [11], [11], [11], [11], [11], [11], [11], [11], [11], [11], [11], [11], [11], [11], [11], [12], [12], [12], [12], [12], [12], [12], [12], [12], [12], [12], [12], [12], [12], [12], [12], [13], [13], [13], [13], [13], [13], [13], [13], [13], [13], [13], [13], [13], [13], [13], [13], [14], [14], [14], [14], [14], [14], [14], [14], [14], [14], [14], [14], [14], [14], [14], [14], [15], [15], [15], [15], [15], [15], [15], [15], [15], [15], [15], [15], [15], [15], [15], [15]], layout = "Serve", mesh = {axes = [{bandwidth = 4.000000e+11 : f64, latency = 5.000000e-06 : f64, name = "node", size = 2 : i64}, {bandwidth = 1.600000e+11 : f64, latency = 2.000000e-06 : f64, name = "gpu", size = 8 : i64}], flops = 4.000000e+14 : f64, memory = 85899345920 : i64, name = "Pod"}, overlap = {chunks = 2 : i64, directions = ["dispatch", "combine"], with_shared = true}, partial = "node", pins = [], replicate = [{copies = 2 : i64, experts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], hottest}], requires = [{compare = "<=", measure = "memory", value = 0x4218000000000000 : f64}], routed = {counts, ep = ["node", "gpu"], experts = "routed", tp = []}, sends = {combine, dispatch = "fp8_e4m3"}, shared = [{counts, ep = [], experts = "common", tp = []}], slots = 18 : i64, tokens = ["node", "gpu"]}, moe.policy = {capacity, layout = "Serve", load = {name = "Prefill", routing = {kind = "uniform"}, tokens = [1, 65536]}, max_variants = 4 : i64, page, quantise = [], tokens = [], triggers = []}, moe.routed = {experts = 256 : i64, name = "routed"}} {
  func.func @DeepSeekV3(%arg0: tensor<?x7168xbf16> {moe.name = "x", moe.role = "input"}, %arg1: tensor<256x7168xf32> {moe.name = "router.logits.weight", moe.role = "parameter"}, %arg2: tensor<256xf32> {moe.name = "router.bias", moe.role = "buffer"}, %arg3: tensor<256x2048x7168xbf16> {moe.name = "routed.gate.weight", moe.role = "parameter"}, %arg4: tensor<256x2048x7168xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"}, %arg5: tensor<256x7168x2048xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"}, %arg6: tensor<1x2048x7168xbf16> {moe.name = "common.gate.weight", moe.role = "parameter"}, %arg7: tensor<1x2048x7168xbf16> {moe.name = "common.up.weight", moe.role = "parameter"}, %arg8: tensor<1x7168x2048xbf16> {moe.name = "common.down.weight", moe.role = "parameter"}) -> (tensor<?x7168xbf16> {moe.name = "y"}) {
    %0:2 = "moe.route"(%arg0) ({
    ^bb0(%arg9: tensor<7168xbf16>):
      %cst = arith.constant dense<0.000000e+00> : tensor<256xf32>
      %7 = linalg.matvec ins(%arg1, %arg9 : tensor<256x7168xf32>, tensor<7168xbf16>) outs(%cst : tensor<256xf32>) -> tensor<256xf32>
      %cst_0 = arith.constant dense<1.000000e+00> : tensor<256xf32>
      %cst_1 = arith.constant dense<1.000000e+00> : tensor<256xf32>
      %8 = arith.negf %7 : tensor<256xf32>
      %9 = math.exp %8 : tensor<256xf32>
      %10 = arith.addf %cst_1, %9 : tensor<256xf32>
      %11 = arith.divf %cst_0, %10 : tensor<256xf32>
      %12 = arith.addf %11, %arg2 : tensor<256xf32>
      %expanded = tensor.expand_shape %12 [[0, 1]] output_shape [8, 32] : tensor<256xf32> into tensor<8x32xf32>
      %13 = "moe.top_k"(%expanded) {k = 2 : i64} : (tensor<8x32xf32>) -> tensor<8x2xi32>
      %14 = "moe.take"(%expanded, %13) : (tensor<8x32xf32>, tensor<8x2xi32>) -> tensor<8x2xf32>
      %cst_2 = arith.constant dense<0.000000e+00> : tensor<8xf32>
      %reduced = linalg.reduce ins(%14 : tensor<8x2xf32>) outs(%cst_2 : tensor<8xf32>) dimensions = [1] 
        (%in: f32, %init: f32) {
          %25 = arith.addf %in, %init : f32
          linalg.yield %25 : f32
        }
      %15 = "moe.top_k"(%reduced) {k = 4 : i64} : (tensor<8xf32>) -> tensor<4xi32>
      %16 = "moe.chosen"(%15) : (tensor<4xi32>) -> tensor<8xi1>
      %expanded_3 = tensor.expand_shape %16 [[0, 1]] output_shape [8, 1] : tensor<8xi1> into tensor<8x1xi1>
      %collapsed = tensor.collapse_shape %expanded_3 [[0, 1]] : tensor<8x1xi1> into tensor<8xi1>
      %17 = tensor.empty() : tensor<8x32xi1>
      %broadcasted = linalg.broadcast ins(%collapsed : tensor<8xi1>) outs(%17 : tensor<8x32xi1>) dimensions = [1] 
      %cst_4 = arith.constant dense<0xFF800000> : tensor<8x32xf32>
      %18 = arith.select %broadcasted, %expanded, %cst_4 : tensor<8x32xi1>, tensor<8x32xf32>
      %collapsed_5 = tensor.collapse_shape %18 [[0, 1]] : tensor<8x32xf32> into tensor<256xf32>
      %19 = "moe.top_k"(%collapsed_5) {k = 8 : i64} : (tensor<256xf32>) -> tensor<8xi32>
      %20 = "moe.take"(%11, %19) : (tensor<256xf32>, tensor<8xi32>) -> tensor<8xf32>
      %cst_6 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_7 = linalg.reduce ins(%20 : tensor<8xf32>) outs(%cst_6 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %25 = arith.addf %in, %init : f32
          linalg.yield %25 : f32
        }
      %21 = tensor.empty() : tensor<256xf32>
      %broadcasted_8 = linalg.broadcast ins(%reduced_7 : tensor<f32>) outs(%21 : tensor<256xf32>) dimensions = [0] 
      %22 = arith.divf %11, %broadcasted_8 : tensor<256xf32>
      %cst_9 = arith.constant dense<2.500000e+00> : tensor<256xf32>
      %23 = arith.mulf %cst_9, %22 : tensor<256xf32>
      %24 = "moe.take"(%23, %19) : (tensor<256xf32>, tensor<8xi32>) -> tensor<8xf32>
      "moe.yield_choice"(%19, %24) : (tensor<8xi32>, tensor<8xf32>) -> ()
    }) : (tensor<?x7168xbf16>) -> (tensor<?x8xi32>, tensor<?x8xf32>)
    %1:3 = "moe.dispatch"(%arg0, %0#0) {experts = 256 : i64} : (tensor<?x7168xbf16>, tensor<?x8xi32>) -> (tensor<?x7168xbf16>, tensor<257xi32>, tensor<?xi32>)
    %2 = "moe.experts"(%1#0, %1#1) ({
    ^bb0(%arg9: tensor<7168xbf16>):
      %7 = "moe.own"(%arg3) : (tensor<256x2048x7168xbf16>) -> tensor<2048x7168xbf16>
      %cst = arith.constant dense<0.000000e+00> : tensor<2048xf32>
      %8 = linalg.matvec ins(%7, %arg9 : tensor<2048x7168xbf16>, tensor<7168xbf16>) outs(%cst : tensor<2048xf32>) -> tensor<2048xf32>
      %cst_0 = arith.constant dense<1.000000e+00> : tensor<2048xf32>
      %9 = arith.negf %8 : tensor<2048xf32>
      %10 = math.exp %9 : tensor<2048xf32>
      %11 = arith.addf %cst_0, %10 : tensor<2048xf32>
      %12 = arith.divf %8, %11 : tensor<2048xf32>
      %13 = "moe.own"(%arg4) : (tensor<256x2048x7168xbf16>) -> tensor<2048x7168xbf16>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<2048xf32>
      %14 = linalg.matvec ins(%13, %arg9 : tensor<2048x7168xbf16>, tensor<7168xbf16>) outs(%cst_1 : tensor<2048xf32>) -> tensor<2048xf32>
      %15 = arith.mulf %12, %14 : tensor<2048xf32>
      %16 = arith.truncf %15 : tensor<2048xf32> to tensor<2048xbf16>
      %17 = "moe.own"(%arg5) : (tensor<256x7168x2048xbf16>) -> tensor<7168x2048xbf16>
      %cst_2 = arith.constant dense<0.000000e+00> : tensor<7168xf32>
      %18 = linalg.matvec ins(%17, %16 : tensor<7168x2048xbf16>, tensor<2048xbf16>) outs(%cst_2 : tensor<7168xf32>) -> tensor<7168xf32>
      "moe.yield"(%18) : (tensor<7168xf32>) -> ()
    }) : (tensor<?x7168xbf16>, tensor<257xi32>) -> tensor<?x7168xf32>
    %3 = "moe.combine"(%2, %1#2, %0#1) : (tensor<?x7168xf32>, tensor<?xi32>, tensor<?x8xf32>) -> tensor<?x7168xf32>
    %4 = "moe.shared"(%arg0) ({
    ^bb0(%arg9: tensor<7168xbf16>):
      %7 = "moe.own"(%arg6) : (tensor<1x2048x7168xbf16>) -> tensor<2048x7168xbf16>
      %cst = arith.constant dense<0.000000e+00> : tensor<2048xf32>
      %8 = linalg.matvec ins(%7, %arg9 : tensor<2048x7168xbf16>, tensor<7168xbf16>) outs(%cst : tensor<2048xf32>) -> tensor<2048xf32>
      %cst_0 = arith.constant dense<1.000000e+00> : tensor<2048xf32>
      %9 = arith.negf %8 : tensor<2048xf32>
      %10 = math.exp %9 : tensor<2048xf32>
      %11 = arith.addf %cst_0, %10 : tensor<2048xf32>
      %12 = arith.divf %8, %11 : tensor<2048xf32>
      %13 = "moe.own"(%arg7) : (tensor<1x2048x7168xbf16>) -> tensor<2048x7168xbf16>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<2048xf32>
      %14 = linalg.matvec ins(%13, %arg9 : tensor<2048x7168xbf16>, tensor<7168xbf16>) outs(%cst_1 : tensor<2048xf32>) -> tensor<2048xf32>
      %15 = arith.mulf %12, %14 : tensor<2048xf32>
      %16 = arith.truncf %15 : tensor<2048xf32> to tensor<2048xbf16>
      %17 = "moe.own"(%arg8) : (tensor<1x7168x2048xbf16>) -> tensor<7168x2048xbf16>
      %cst_2 = arith.constant dense<0.000000e+00> : tensor<7168xf32>
      %18 = linalg.matvec ins(%17, %16 : tensor<7168x2048xbf16>, tensor<2048xbf16>) outs(%cst_2 : tensor<7168xf32>) -> tensor<7168xf32>
      "moe.yield"(%18) : (tensor<7168xf32>) -> ()
    }) {count = 1 : i64} : (tensor<?x7168xbf16>) -> tensor<?x7168xf32>
    %5 = arith.addf %3, %4 : tensor<?x7168xf32>
    %6 = arith.truncf %5 : tensor<?x7168xf32> to tensor<?x7168xbf16>
    return %6 : tensor<?x7168xbf16>
  }
}
