module attributes {moe.layer = "OLMoEInt4", moe.routed = {experts = 64 : i64, name = "routed"}} {
  func.func @OLMoEInt4(%arg0: tensor<?x2048xbf16> {moe.name = "x", moe.role = "input"}, %arg1: tensor<64x2048xf32> {moe.name = "router.logits.weight", moe.role = "parameter"}, %arg2: tensor<64x1024x2048xbf16> {moe.name = "routed.gate.weight", moe.role = "parameter"}, %arg3: tensor<64x1024x2048xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"}, %arg4: tensor<64x2048x1024xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"}) -> (tensor<?x2048xbf16> {moe.name = "y"}) {
    %0:2 = "moe.route"(%arg0) ({
    ^bb0(%arg5: tensor<2048xbf16>):
      %cst = arith.constant dense<0.000000e+00> : tensor<64xf32>
      %11 = linalg.matvec ins(%arg1, %arg5 : tensor<64x2048xf32>, tensor<2048xbf16>) outs(%cst : tensor<64xf32>) -> tensor<64xf32>
      %cst_0 = arith.constant dense<0xFF800000> : tensor<f32>
      %reduced = linalg.reduce ins(%11 : tensor<64xf32>) outs(%cst_0 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %19 = arith.maximumf %in, %init : f32
          linalg.yield %19 : f32
        }
      %12 = tensor.empty() : tensor<64xf32>
      %broadcasted = linalg.broadcast ins(%reduced : tensor<f32>) outs(%12 : tensor<64xf32>) dimensions = [0] 
      %13 = arith.subf %11, %broadcasted : tensor<64xf32>
      %14 = math.exp %13 : tensor<64xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_2 = linalg.reduce ins(%14 : tensor<64xf32>) outs(%cst_1 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %19 = arith.addf %in, %init : f32
          linalg.yield %19 : f32
        }
      %15 = tensor.empty() : tensor<64xf32>
      %broadcasted_3 = linalg.broadcast ins(%reduced_2 : tensor<f32>) outs(%15 : tensor<64xf32>) dimensions = [0] 
      %16 = arith.divf %14, %broadcasted_3 : tensor<64xf32>
      %17 = "moe.top_k"(%16) {k = 8 : i64} : (tensor<64xf32>) -> tensor<8xi32>
      %18 = "moe.take"(%16, %17) : (tensor<64xf32>, tensor<8xi32>) -> tensor<8xf32>
      "moe.yield_choice"(%17, %18) : (tensor<8xi32>, tensor<8xf32>) -> ()
    }) : (tensor<?x2048xbf16>) -> (tensor<?x8xi32>, tensor<?x8xf32>)
    %1:2 = "moe.quantize"(%arg2) {format = "int4"} : (tensor<64x1024x2048xbf16>) -> (tensor<64x1024x2048xi8>, tensor<64x1024x64xbf16>)
    %2 = "moe.dequantize"(%1#0, %1#1) {format = "int4"} : (tensor<64x1024x2048xi8>, tensor<64x1024x64xbf16>) -> tensor<64x1024x2048xf32>
    %3:2 = "moe.quantize"(%arg3) {format = "int4"} : (tensor<64x1024x2048xbf16>) -> (tensor<64x1024x2048xi8>, tensor<64x1024x64xbf16>)
    %4 = "moe.dequantize"(%3#0, %3#1) {format = "int4"} : (tensor<64x1024x2048xi8>, tensor<64x1024x64xbf16>) -> tensor<64x1024x2048xf32>
    %5:2 = "moe.quantize"(%arg4) {format = "int4"} : (tensor<64x2048x1024xbf16>) -> (tensor<64x2048x1024xi8>, tensor<64x2048x32xbf16>)
    %6 = "moe.dequantize"(%5#0, %5#1) {format = "int4"} : (tensor<64x2048x1024xi8>, tensor<64x2048x32xbf16>) -> tensor<64x2048x1024xf32>
    %7:3 = "moe.dispatch"(%arg0, %0#0) {experts = 64 : i64} : (tensor<?x2048xbf16>, tensor<?x8xi32>) -> (tensor<?x2048xbf16>, tensor<65xi32>, tensor<?xi32>)
    %8 = "moe.experts"(%7#0, %7#1) ({
    ^bb0(%arg5: tensor<2048xbf16>):
      %11 = "moe.quantize_row"(%arg5) : (tensor<2048xbf16>) -> tensor<2048xf32>
      %12 = "moe.own"(%2) : (tensor<64x1024x2048xf32>) -> tensor<1024x2048xf32>
      %cst = arith.constant dense<0.000000e+00> : tensor<1024xf32>
      %13 = linalg.matvec ins(%12, %11 : tensor<1024x2048xf32>, tensor<2048xf32>) outs(%cst : tensor<1024xf32>) -> tensor<1024xf32>
      %cst_0 = arith.constant dense<1.000000e+00> : tensor<1024xf32>
      %14 = arith.negf %13 : tensor<1024xf32>
      %15 = math.exp %14 : tensor<1024xf32>
      %16 = arith.addf %cst_0, %15 : tensor<1024xf32>
      %17 = arith.divf %13, %16 : tensor<1024xf32>
      %18 = "moe.own"(%4) : (tensor<64x1024x2048xf32>) -> tensor<1024x2048xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<1024xf32>
      %19 = linalg.matvec ins(%18, %11 : tensor<1024x2048xf32>, tensor<2048xf32>) outs(%cst_1 : tensor<1024xf32>) -> tensor<1024xf32>
      %20 = arith.mulf %17, %19 : tensor<1024xf32>
      %21 = arith.truncf %20 : tensor<1024xf32> to tensor<1024xbf16>
      %22 = "moe.quantize_row"(%21) : (tensor<1024xbf16>) -> tensor<1024xf32>
      %23 = "moe.own"(%6) : (tensor<64x2048x1024xf32>) -> tensor<2048x1024xf32>
      %cst_2 = arith.constant dense<0.000000e+00> : tensor<2048xf32>
      %24 = linalg.matvec ins(%23, %22 : tensor<2048x1024xf32>, tensor<1024xf32>) outs(%cst_2 : tensor<2048xf32>) -> tensor<2048xf32>
      "moe.yield"(%24) : (tensor<2048xf32>) -> ()
    }) : (tensor<?x2048xbf16>, tensor<65xi32>) -> tensor<?x2048xf32>
    %9 = "moe.combine"(%8, %7#2, %0#1) : (tensor<?x2048xf32>, tensor<?xi32>, tensor<?x8xf32>) -> tensor<?x2048xf32>
    %10 = arith.truncf %9 : tensor<?x2048xf32> to tensor<?x2048xbf16>
    return %10 : tensor<?x2048xbf16>
  }
}
