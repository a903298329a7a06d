module attributes {moe.layer = "EdgeMoE", moe.routed = {experts = 16 : i64, name = "routed"}} {
  func.func @EdgeMoE(%arg0: tensor<?x192xbf16> {moe.name = "x", moe.role = "input"}, %arg1: tensor<?xi32> {moe.name = "task", moe.role = "input"}, %arg2: tensor<32x192xf32> {moe.name = "router.gates.weight", moe.role = "parameter"}, %arg3: tensor<16x768x192xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"}, %arg4: tensor<16x768xbf16> {moe.name = "routed.up.bias", moe.role = "parameter"}, %arg5: tensor<16x192x768xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"}, %arg6: tensor<16x192xbf16> {moe.name = "routed.down.bias", moe.role = "parameter"}) -> (tensor<?x192xbf16> {moe.name = "y"}) {
    %0:2 = "moe.route"(%arg0) ({
    ^bb0(%arg7: tensor<192xbf16>):
      %cst = arith.constant dense<0.000000e+00> : tensor<32xf32>
      %9 = linalg.matvec ins(%arg2, %arg7 : tensor<32x192xf32>, tensor<192xbf16>) outs(%cst : tensor<32xf32>) -> tensor<32xf32>
      %expanded = tensor.expand_shape %9 [[0, 1]] output_shape [2, 16] : tensor<32xf32> into tensor<2x16xf32>
      %10 = "moe.row"(%arg1) : (tensor<?xi32>) -> tensor<i32>
      %extracted = tensor.extract %10[] : tensor<i32>
      %11 = arith.index_cast %extracted : i32 to index
      %extracted_slice = tensor.extract_slice %expanded[%11, 0] [1, 16] [1, 1] : tensor<2x16xf32> to tensor<16xf32>
      %12 = "moe.top_k"(%extracted_slice) {k = 4 : i64} : (tensor<16xf32>) -> tensor<4xi32>
      %13 = "moe.take"(%extracted_slice, %12) : (tensor<16xf32>, tensor<4xi32>) -> tensor<4xf32>
      %cst_0 = arith.constant dense<0xFF800000> : tensor<f32>
      %reduced = linalg.reduce ins(%13 : tensor<4xf32>) outs(%cst_0 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %19 = arith.maximumf %in, %init : f32
          linalg.yield %19 : f32
        }
      %14 = tensor.empty() : tensor<4xf32>
      %broadcasted = linalg.broadcast ins(%reduced : tensor<f32>) outs(%14 : tensor<4xf32>) dimensions = [0] 
      %15 = arith.subf %13, %broadcasted : tensor<4xf32>
      %16 = math.exp %15 : tensor<4xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_2 = linalg.reduce ins(%16 : tensor<4xf32>) outs(%cst_1 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %19 = arith.addf %in, %init : f32
          linalg.yield %19 : f32
        }
      %17 = tensor.empty() : tensor<4xf32>
      %broadcasted_3 = linalg.broadcast ins(%reduced_2 : tensor<f32>) outs(%17 : tensor<4xf32>) dimensions = [0] 
      %18 = arith.divf %16, %broadcasted_3 : tensor<4xf32>
      "moe.yield_choice"(%12, %18) : (tensor<4xi32>, tensor<4xf32>) -> ()
    }) : (tensor<?x192xbf16>) -> (tensor<?x4xi32>, tensor<?x4xf32>)
    %1:2 = "moe.quantize"(%arg3) {format = "int8"} : (tensor<16x768x192xbf16>) -> (tensor<16x768x192xi8>, tensor<16x768x1xf32>)
    %2 = "moe.dequantize"(%1#0, %1#1) {format = "int8"} : (tensor<16x768x192xi8>, tensor<16x768x1xf32>) -> tensor<16x768x192xf32>
    %3:2 = "moe.quantize"(%arg5) {format = "int8"} : (tensor<16x192x768xbf16>) -> (tensor<16x192x768xi8>, tensor<16x192x1xf32>)
    %4 = "moe.dequantize"(%3#0, %3#1) {format = "int8"} : (tensor<16x192x768xi8>, tensor<16x192x1xf32>) -> tensor<16x192x768xf32>
    %5:3 = "moe.dispatch"(%arg0, %0#0) {experts = 16 : i64} : (tensor<?x192xbf16>, tensor<?x4xi32>) -> (tensor<?x192xbf16>, tensor<17xi32>, tensor<?xi32>)
    %6 = "moe.experts"(%5#0, %5#1) ({
    ^bb0(%arg7: tensor<192xbf16>):
      %9 = "moe.own"(%arg4) : (tensor<16x768xbf16>) -> tensor<768xbf16>
      %10 = arith.extf %9 : tensor<768xbf16> to tensor<768xf32>
      %11 = "moe.own"(%2) : (tensor<16x768x192xf32>) -> tensor<768x192xf32>
      %cst = arith.constant dense<0.000000e+00> : tensor<768xf32>
      %12 = linalg.matvec ins(%11, %arg7 : tensor<768x192xf32>, tensor<192xbf16>) outs(%cst : tensor<768xf32>) -> tensor<768xf32>
      %13 = arith.addf %12, %10 : tensor<768xf32>
      %cst_0 = arith.constant dense<1.000000e+00> : tensor<768xf32>
      %cst_1 = arith.constant dense<0.707106769> : tensor<768xf32>
      %14 = arith.mulf %13, %cst_1 : tensor<768xf32>
      %15 = math.erf %14 : tensor<768xf32>
      %16 = arith.addf %cst_0, %15 : tensor<768xf32>
      %cst_2 = arith.constant dense<5.000000e-01> : tensor<768xf32>
      %17 = arith.mulf %13, %cst_2 : tensor<768xf32>
      %18 = arith.mulf %17, %16 : tensor<768xf32>
      %19 = "moe.own"(%arg6) : (tensor<16x192xbf16>) -> tensor<192xbf16>
      %20 = arith.extf %19 : tensor<192xbf16> to tensor<192xf32>
      %21 = arith.truncf %18 : tensor<768xf32> to tensor<768xbf16>
      %22 = "moe.own"(%4) : (tensor<16x192x768xf32>) -> tensor<192x768xf32>
      %cst_3 = arith.constant dense<0.000000e+00> : tensor<192xf32>
      %23 = linalg.matvec ins(%22, %21 : tensor<192x768xf32>, tensor<768xbf16>) outs(%cst_3 : tensor<192xf32>) -> tensor<192xf32>
      %24 = arith.addf %23, %20 : tensor<192xf32>
      "moe.yield"(%24) : (tensor<192xf32>) -> ()
    }) : (tensor<?x192xbf16>, tensor<17xi32>) -> tensor<?x192xf32>
    %7 = "moe.combine"(%6, %5#2, %0#1) : (tensor<?x192xf32>, tensor<?xi32>, tensor<?x4xf32>) -> tensor<?x192xf32>
    %8 = arith.truncf %7 : tensor<?x192xf32> to tensor<?x192xbf16>
    return %8 : tensor<?x192xbf16>
  }
}
