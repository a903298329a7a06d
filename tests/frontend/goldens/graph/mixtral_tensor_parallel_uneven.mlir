module attributes {moe.layer = "Mixtral", moe.parallel = {holders = [[0], [0], [0], [0], [1], [1], [2], [3]], layout = "Uneven", mesh = {axes = [{bandwidth = 5.000000e+10 : f64, latency = 5.000000e-06 : f64, name = "node", size = 4 : i64}, {bandwidth = 3.000000e+11 : f64, latency = 2.000000e-06 : f64, name = "gpu", size = 4 : i64}], flops = 2.000000e+14 : f64, memory = 42949672960 : i64, name = "Cluster"}, overlap = {chunks, directions = ["dispatch", "combine"], with_shared = false}, partial, pins = [{axis = "node", experts = [0, 1], index = 0 : i64}], replicate = [], requires = [], routed = {counts = [4, 2, 1, 1], ep = ["node"], experts = "routed", tp = ["gpu"]}, sends = {combine, dispatch}, shared = [], slots = 4 : i64, tokens = ["node"]}, moe.policy = {capacity, layout = "Uneven", load, max_variants = 4 : i64, page, quantise = [], tokens = [], triggers = []}, moe.routed = {experts = 8 : i64, name = "routed"}} {
  func.func @Mixtral(%arg0: tensor<?x4096xbf16> {moe.name = "x", moe.role = "input"}, %arg1: tensor<8x4096xf32> {moe.name = "router.logits.weight", moe.role = "parameter"}, %arg2: tensor<8x14336x4096xbf16> {moe.name = "routed.gate.weight", moe.role = "parameter"}, %arg3: tensor<8x14336x4096xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"}, %arg4: tensor<8x4096x14336xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"}) -> (tensor<?x4096xbf16> {moe.name = "y"}) {
    %0:2 = "moe.route"(%arg0) ({
    ^bb0(%arg5: tensor<4096xbf16>):
      %cst = arith.constant dense<0.000000e+00> : tensor<8xf32>
      %5 = linalg.matvec ins(%arg1, %arg5 : tensor<8x4096xf32>, tensor<4096xbf16>) outs(%cst : tensor<8xf32>) -> tensor<8xf32>
      %6 = "moe.top_k"(%5) {k = 2 : i64} : (tensor<8xf32>) -> tensor<2xi32>
      %7 = "moe.take"(%5, %6) : (tensor<8xf32>, tensor<2xi32>) -> tensor<2xf32>
      %cst_0 = arith.constant dense<0xFF800000> : tensor<f32>
      %reduced = linalg.reduce ins(%7 : tensor<2xf32>) outs(%cst_0 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %13 = arith.maximumf %in, %init : f32
          linalg.yield %13 : f32
        }
      %8 = tensor.empty() : tensor<2xf32>
      %broadcasted = linalg.broadcast ins(%reduced : tensor<f32>) outs(%8 : tensor<2xf32>) dimensions = [0] 
      %9 = arith.subf %7, %broadcasted : tensor<2xf32>
      %10 = math.exp %9 : tensor<2xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_2 = linalg.reduce ins(%10 : tensor<2xf32>) outs(%cst_1 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %13 = arith.addf %in, %init : f32
          linalg.yield %13 : f32
        }
      %11 = tensor.empty() : tensor<2xf32>
      %broadcasted_3 = linalg.broadcast ins(%reduced_2 : tensor<f32>) outs(%11 : tensor<2xf32>) dimensions = [0] 
      %12 = arith.divf %10, %broadcasted_3 : tensor<2xf32>
      "moe.yield_choice"(%6, %12) : (tensor<2xi32>, tensor<2xf32>) -> ()
    }) : (tensor<?x4096xbf16>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
    %1:3 = "moe.dispatch"(%arg0, %0#0) {experts = 8 : i64} : (tensor<?x4096xbf16>, tensor<?x2xi32>) -> (tensor<?x4096xbf16>, tensor<9xi32>, tensor<?xi32>)
    %2 = "moe.experts"(%1#0, %1#1) ({
    ^bb0(%arg5: tensor<4096xbf16>):
      %5 = "moe.own"(%arg2) : (tensor<8x14336x4096xbf16>) -> tensor<14336x4096xbf16>
      %cst = arith.constant dense<0.000000e+00> : tensor<14336xf32>
      %6 = linalg.matvec ins(%5, %arg5 : tensor<14336x4096xbf16>, tensor<4096xbf16>) outs(%cst : tensor<14336xf32>) -> tensor<14336xf32>
      %cst_0 = arith.constant dense<1.000000e+00> : tensor<14336xf32>
      %7 = arith.negf %6 : tensor<14336xf32>
      %8 = math.exp %7 : tensor<14336xf32>
      %9 = arith.addf %cst_0, %8 : tensor<14336xf32>
      %10 = arith.divf %6, %9 : tensor<14336xf32>
      %11 = "moe.own"(%arg3) : (tensor<8x14336x4096xbf16>) -> tensor<14336x4096xbf16>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<14336xf32>
      %12 = linalg.matvec ins(%11, %arg5 : tensor<14336x4096xbf16>, tensor<4096xbf16>) outs(%cst_1 : tensor<14336xf32>) -> tensor<14336xf32>
      %13 = arith.mulf %10, %12 : tensor<14336xf32>
      %14 = arith.truncf %13 : tensor<14336xf32> to tensor<14336xbf16>
      %15 = "moe.own"(%arg4) : (tensor<8x4096x14336xbf16>) -> tensor<4096x14336xbf16>
      %cst_2 = arith.constant dense<0.000000e+00> : tensor<4096xf32>
      %16 = linalg.matvec ins(%15, %14 : tensor<4096x14336xbf16>, tensor<14336xbf16>) outs(%cst_2 : tensor<4096xf32>) -> tensor<4096xf32>
      "moe.yield"(%16) : (tensor<4096xf32>) -> ()
    }) : (tensor<?x4096xbf16>, tensor<9xi32>) -> tensor<?x4096xf32>
    %3 = "moe.combine"(%2, %1#2, %0#1) : (tensor<?x4096xf32>, tensor<?xi32>, tensor<?x2xf32>) -> tensor<?x4096xf32>
    %4 = arith.truncf %3 : tensor<?x4096xf32> to tensor<?x4096xbf16>
    return %4 : tensor<?x4096xbf16>
  }
}
