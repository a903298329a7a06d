module attributes {moe.layer = "OLMoEMixed", moe.routed = {experts = 64 : i64, name = "routed"}} {
  func.func @OLMoEMixed(%arg0: tensor<?x2048xbf16> {moe.name = "x", moe.role = "input"}, %arg1: tensor<64x2048xf32> {moe.name = "router.logits.weight", moe.role = "parameter"}, %arg2: tensor<64x1024x2048xbf16> {moe.name = "routed.gate.weight", moe.role = "parameter"}, %arg3: tensor<64x1024x2048xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"}, %arg4: tensor<64x2048x1024xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"}) -> (tensor<?x2048xbf16> {moe.name = "y"}) {
    %0:2 = "moe.route"(%arg0) ({
    ^bb0(%arg5: tensor<2048xbf16>):
      %cst = arith.constant dense<0.000000e+00> : tensor<64xf32>
      %23 = linalg.matvec ins(%arg1, %arg5 : tensor<64x2048xf32>, tensor<2048xbf16>) outs(%cst : tensor<64xf32>) -> tensor<64xf32>
      %cst_76 = arith.constant dense<0xFF800000> : tensor<f32>
      %reduced = linalg.reduce ins(%23 : tensor<64xf32>) outs(%cst_76 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %31 = arith.maximumf %in, %init : f32
          linalg.yield %31 : f32
        }
      %24 = tensor.empty() : tensor<64xf32>
      %broadcasted = linalg.broadcast ins(%reduced : tensor<f32>) outs(%24 : tensor<64xf32>) dimensions = [0] 
      %25 = arith.subf %23, %broadcasted : tensor<64xf32>
      %26 = math.exp %25 : tensor<64xf32>
      %cst_77 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_78 = linalg.reduce ins(%26 : tensor<64xf32>) outs(%cst_77 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %31 = arith.addf %in, %init : f32
          linalg.yield %31 : f32
        }
      %27 = tensor.empty() : tensor<64xf32>
      %broadcasted_79 = linalg.broadcast ins(%reduced_78 : tensor<f32>) outs(%27 : tensor<64xf32>) dimensions = [0] 
      %28 = arith.divf %26, %broadcasted_79 : tensor<64xf32>
      %29 = "moe.top_k"(%28) {k = 8 : i64} : (tensor<64xf32>) -> tensor<8xi32>
      %30 = "moe.take"(%28, %29) : (tensor<64xf32>, tensor<8xi32>) -> tensor<8xf32>
      "moe.yield_choice"(%29, %30) : (tensor<8xi32>, tensor<8xf32>) -> ()
    }) : (tensor<?x2048xbf16>) -> (tensor<?x8xi32>, tensor<?x8xf32>)
    %extracted_slice = tensor.extract_slice %arg2[0, 0, 0] [4, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<4x1024x2048xbf16>
    %extracted_slice_0 = tensor.extract_slice %arg2[6, 0, 0] [1, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<1x1024x2048xbf16>
    %extracted_slice_1 = tensor.extract_slice %arg2[10, 0, 0] [7, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<7x1024x2048xbf16>
    %extracted_slice_2 = tensor.extract_slice %arg2[20, 0, 0] [3, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<3x1024x2048xbf16>
    %extracted_slice_3 = tensor.extract_slice %arg2[24, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %extracted_slice_4 = tensor.extract_slice %arg2[30, 0, 0] [1, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<1x1024x2048xbf16>
    %extracted_slice_5 = tensor.extract_slice %arg2[36, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %extracted_slice_6 = tensor.extract_slice %arg2[43, 0, 0] [1, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<1x1024x2048xbf16>
    %extracted_slice_7 = tensor.extract_slice %arg2[45, 0, 0] [5, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<5x1024x2048xbf16>
    %extracted_slice_8 = tensor.extract_slice %arg2[53, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %extracted_slice_9 = tensor.extract_slice %arg2[57, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %extracted_slice_10 = tensor.extract_slice %arg2[60, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %concat = tensor.concat dim(0) %extracted_slice, %extracted_slice_0, %extracted_slice_1, %extracted_slice_2, %extracted_slice_3, %extracted_slice_4, %extracted_slice_5, %extracted_slice_6, %extracted_slice_7, %extracted_slice_8, %extracted_slice_9, %extracted_slice_10 : (tensor<4x1024x2048xbf16>, tensor<1x1024x2048xbf16>, tensor<7x1024x2048xbf16>, tensor<3x1024x2048xbf16>, tensor<2x1024x2048xbf16>, tensor<1x1024x2048xbf16>, tensor<2x1024x2048xbf16>, tensor<1x1024x2048xbf16>, tensor<5x1024x2048xbf16>, tensor<2x1024x2048xbf16>, tensor<2x1024x2048xbf16>, tensor<2x1024x2048xbf16>) -> tensor<32x1024x2048xbf16>
    %extracted_slice_11 = tensor.extract_slice %arg3[0, 0, 0] [4, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<4x1024x2048xbf16>
    %extracted_slice_12 = tensor.extract_slice %arg3[6, 0, 0] [1, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<1x1024x2048xbf16>
    %extracted_slice_13 = tensor.extract_slice %arg3[10, 0, 0] [7, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<7x1024x2048xbf16>
    %extracted_slice_14 = tensor.extract_slice %arg3[20, 0, 0] [3, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<3x1024x2048xbf16>
    %extracted_slice_15 = tensor.extract_slice %arg3[24, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %extracted_slice_16 = tensor.extract_slice %arg3[30, 0, 0] [1, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<1x1024x2048xbf16>
    %extracted_slice_17 = tensor.extract_slice %arg3[36, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %extracted_slice_18 = tensor.extract_slice %arg3[43, 0, 0] [1, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<1x1024x2048xbf16>
    %extracted_slice_19 = tensor.extract_slice %arg3[45, 0, 0] [5, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<5x1024x2048xbf16>
    %extracted_slice_20 = tensor.extract_slice %arg3[53, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %extracted_slice_21 = tensor.extract_slice %arg3[57, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %extracted_slice_22 = tensor.extract_slice %arg3[60, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %concat_23 = tensor.concat dim(0) %extracted_slice_11, %extracted_slice_12, %extracted_slice_13, %extracted_slice_14, %extracted_slice_15, %extracted_slice_16, %extracted_slice_17, %extracted_slice_18, %extracted_slice_19, %extracted_slice_20, %extracted_slice_21, %extracted_slice_22 : (tensor<4x1024x2048xbf16>, tensor<1x1024x2048xbf16>, tensor<7x1024x2048xbf16>, tensor<3x1024x2048xbf16>, tensor<2x1024x2048xbf16>, tensor<1x1024x2048xbf16>, tensor<2x1024x2048xbf16>, tensor<1x1024x2048xbf16>, tensor<5x1024x2048xbf16>, tensor<2x1024x2048xbf16>, tensor<2x1024x2048xbf16>, tensor<2x1024x2048xbf16>) -> tensor<32x1024x2048xbf16>
    %extracted_slice_24 = tensor.extract_slice %arg4[0, 0, 0] [4, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<4x2048x1024xbf16>
    %extracted_slice_25 = tensor.extract_slice %arg4[6, 0, 0] [1, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<1x2048x1024xbf16>
    %extracted_slice_26 = tensor.extract_slice %arg4[10, 0, 0] [7, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<7x2048x1024xbf16>
    %extracted_slice_27 = tensor.extract_slice %arg4[20, 0, 0] [3, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<3x2048x1024xbf16>
    %extracted_slice_28 = tensor.extract_slice %arg4[24, 0, 0] [2, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<2x2048x1024xbf16>
    %extracted_slice_29 = tensor.extract_slice %arg4[30, 0, 0] [1, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<1x2048x1024xbf16>
    %extracted_slice_30 = tensor.extract_slice %arg4[36, 0, 0] [2, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<2x2048x1024xbf16>
    %extracted_slice_31 = tensor.extract_slice %arg4[43, 0, 0] [1, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<1x2048x1024xbf16>
    %extracted_slice_32 = tensor.extract_slice %arg4[45, 0, 0] [5, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<5x2048x1024xbf16>
    %extracted_slice_33 = tensor.extract_slice %arg4[53, 0, 0] [2, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<2x2048x1024xbf16>
    %extracted_slice_34 = tensor.extract_slice %arg4[57, 0, 0] [2, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<2x2048x1024xbf16>
    %extracted_slice_35 = tensor.extract_slice %arg4[60, 0, 0] [2, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<2x2048x1024xbf16>
    %concat_36 = tensor.concat dim(0) %extracted_slice_24, %extracted_slice_25, %extracted_slice_26, %extracted_slice_27, %extracted_slice_28, %extracted_slice_29, %extracted_slice_30, %extracted_slice_31, %extracted_slice_32, %extracted_slice_33, %extracted_slice_34, %extracted_slice_35 : (tensor<4x2048x1024xbf16>, tensor<1x2048x1024xbf16>, tensor<7x2048x1024xbf16>, tensor<3x2048x1024xbf16>, tensor<2x2048x1024xbf16>, tensor<1x2048x1024xbf16>, tensor<2x2048x1024xbf16>, tensor<1x2048x1024xbf16>, tensor<5x2048x1024xbf16>, tensor<2x2048x1024xbf16>, tensor<2x2048x1024xbf16>, tensor<2x2048x1024xbf16>) -> tensor<32x2048x1024xbf16>
    %1:2 = "moe.quantize"(%concat) {format = "int8"} : (tensor<32x1024x2048xbf16>) -> (tensor<32x1024x2048xi8>, tensor<32x1024x1xf32>)
    %2 = "moe.dequantize"(%1#0, %1#1) {format = "int8"} : (tensor<32x1024x2048xi8>, tensor<32x1024x1xf32>) -> tensor<32x1024x2048xf32>
    %3:2 = "moe.quantize"(%concat_23) {format = "int8"} : (tensor<32x1024x2048xbf16>) -> (tensor<32x1024x2048xi8>, tensor<32x1024x1xf32>)
    %4 = "moe.dequantize"(%3#0, %3#1) {format = "int8"} : (tensor<32x1024x2048xi8>, tensor<32x1024x1xf32>) -> tensor<32x1024x2048xf32>
    %5:2 = "moe.quantize"(%concat_36) {format = "int8"} : (tensor<32x2048x1024xbf16>) -> (tensor<32x2048x1024xi8>, tensor<32x2048x1xf32>)
    %6 = "moe.dequantize"(%5#0, %5#1) {format = "int8"} : (tensor<32x2048x1024xi8>, tensor<32x2048x1xf32>) -> tensor<32x2048x1024xf32>
    %7:2 = "moe.route"(%0#0) ({
    ^bb0(%arg5: tensor<8xi32>):
      %cst = arith.constant dense<[1, 2, 3, 4, 0, 0, 5, 0, 0, 0, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0, 13, 14, 15, 0, 16, 17, 0, 0, 0, 0, 18, 0, 0, 0, 0, 0, 19, 20, 0, 0, 0, 0, 0, 21, 0, 22, 23, 24, 25, 26, 0, 0, 0, 27, 28, 0, 0, 29, 30, 0, 31, 32, 0, 0]> : tensor<64xi32>
      %23 = "moe.take"(%cst, %arg5) : (tensor<64xi32>, tensor<8xi32>) -> tensor<8xi32>
      %cst_76 = arith.constant dense<1> : tensor<8xi32>
      %24 = arith.subi %23, %cst_76 : tensor<8xi32>
      %25 = "moe.row"(%0#1) : (tensor<?x8xf32>) -> tensor<8xf32>
      "moe.yield_choice"(%24, %25) : (tensor<8xi32>, tensor<8xf32>) -> ()
    }) : (tensor<?x8xi32>) -> (tensor<?x8xi32>, tensor<?x8xf32>)
    %8:3 = "moe.dispatch"(%arg0, %7#0) {experts = 32 : i64} : (tensor<?x2048xbf16>, tensor<?x8xi32>) -> (tensor<?x2048xbf16>, tensor<33xi32>, tensor<?xi32>)
    %9 = "moe.experts"(%8#0, %8#1) ({
    ^bb0(%arg5: tensor<2048xbf16>):
      %23 = "moe.quantize_row"(%arg5) : (tensor<2048xbf16>) -> tensor<2048xf32>
      %24 = "moe.own"(%2) : (tensor<32x1024x2048xf32>) -> tensor<1024x2048xf32>
      %cst = arith.constant dense<0.000000e+00> : tensor<1024xf32>
      %25 = linalg.matvec ins(%24, %23 : tensor<1024x2048xf32>, tensor<2048xf32>) outs(%cst : tensor<1024xf32>) -> tensor<1024xf32>
      %cst_76 = arith.constant dense<1.000000e+00> : tensor<1024xf32>
      %26 = arith.negf %25 : tensor<1024xf32>
      %27 = math.exp %26 : tensor<1024xf32>
      %28 = arith.addf %cst_76, %27 : tensor<1024xf32>
      %29 = arith.divf %25, %28 : tensor<1024xf32>
      %30 = "moe.own"(%4) : (tensor<32x1024x2048xf32>) -> tensor<1024x2048xf32>
      %cst_77 = arith.constant dense<0.000000e+00> : tensor<1024xf32>
      %31 = linalg.matvec ins(%30, %23 : tensor<1024x2048xf32>, tensor<2048xf32>) outs(%cst_77 : tensor<1024xf32>) -> tensor<1024xf32>
      %32 = arith.mulf %29, %31 : tensor<1024xf32>
      %33 = arith.truncf %32 : tensor<1024xf32> to tensor<1024xbf16>
      %34 = "moe.quantize_row"(%33) : (tensor<1024xbf16>) -> tensor<1024xf32>
      %35 = "moe.own"(%6) : (tensor<32x2048x1024xf32>) -> tensor<2048x1024xf32>
      %cst_78 = arith.constant dense<0.000000e+00> : tensor<2048xf32>
      %36 = linalg.matvec ins(%35, %34 : tensor<2048x1024xf32>, tensor<1024xf32>) outs(%cst_78 : tensor<2048xf32>) -> tensor<2048xf32>
      "moe.yield"(%36) : (tensor<2048xf32>) -> ()
    }) : (tensor<?x2048xbf16>, tensor<33xi32>) -> tensor<?x2048xf32>
    %10 = "moe.combine"(%9, %8#2, %0#1) : (tensor<?x2048xf32>, tensor<?xi32>, tensor<?x8xf32>) -> tensor<?x2048xf32>
    %extracted_slice_37 = tensor.extract_slice %arg2[4, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %extracted_slice_38 = tensor.extract_slice %arg2[7, 0, 0] [3, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<3x1024x2048xbf16>
    %extracted_slice_39 = tensor.extract_slice %arg2[17, 0, 0] [3, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<3x1024x2048xbf16>
    %extracted_slice_40 = tensor.extract_slice %arg2[23, 0, 0] [1, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<1x1024x2048xbf16>
    %extracted_slice_41 = tensor.extract_slice %arg2[26, 0, 0] [4, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<4x1024x2048xbf16>
    %extracted_slice_42 = tensor.extract_slice %arg2[31, 0, 0] [5, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<5x1024x2048xbf16>
    %extracted_slice_43 = tensor.extract_slice %arg2[38, 0, 0] [5, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<5x1024x2048xbf16>
    %extracted_slice_44 = tensor.extract_slice %arg2[44, 0, 0] [1, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<1x1024x2048xbf16>
    %extracted_slice_45 = tensor.extract_slice %arg2[50, 0, 0] [3, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<3x1024x2048xbf16>
    %extracted_slice_46 = tensor.extract_slice %arg2[55, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %extracted_slice_47 = tensor.extract_slice %arg2[59, 0, 0] [1, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<1x1024x2048xbf16>
    %extracted_slice_48 = tensor.extract_slice %arg2[62, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %concat_49 = tensor.concat dim(0) %extracted_slice_37, %extracted_slice_38, %extracted_slice_39, %extracted_slice_40, %extracted_slice_41, %extracted_slice_42, %extracted_slice_43, %extracted_slice_44, %extracted_slice_45, %extracted_slice_46, %extracted_slice_47, %extracted_slice_48 : (tensor<2x1024x2048xbf16>, tensor<3x1024x2048xbf16>, tensor<3x1024x2048xbf16>, tensor<1x1024x2048xbf16>, tensor<4x1024x2048xbf16>, tensor<5x1024x2048xbf16>, tensor<5x1024x2048xbf16>, tensor<1x1024x2048xbf16>, tensor<3x1024x2048xbf16>, tensor<2x1024x2048xbf16>, tensor<1x1024x2048xbf16>, tensor<2x1024x2048xbf16>) -> tensor<32x1024x2048xbf16>
    %extracted_slice_50 = tensor.extract_slice %arg3[4, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %extracted_slice_51 = tensor.extract_slice %arg3[7, 0, 0] [3, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<3x1024x2048xbf16>
    %extracted_slice_52 = tensor.extract_slice %arg3[17, 0, 0] [3, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<3x1024x2048xbf16>
    %extracted_slice_53 = tensor.extract_slice %arg3[23, 0, 0] [1, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<1x1024x2048xbf16>
    %extracted_slice_54 = tensor.extract_slice %arg3[26, 0, 0] [4, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<4x1024x2048xbf16>
    %extracted_slice_55 = tensor.extract_slice %arg3[31, 0, 0] [5, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<5x1024x2048xbf16>
    %extracted_slice_56 = tensor.extract_slice %arg3[38, 0, 0] [5, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<5x1024x2048xbf16>
    %extracted_slice_57 = tensor.extract_slice %arg3[44, 0, 0] [1, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<1x1024x2048xbf16>
    %extracted_slice_58 = tensor.extract_slice %arg3[50, 0, 0] [3, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<3x1024x2048xbf16>
    %extracted_slice_59 = tensor.extract_slice %arg3[55, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %extracted_slice_60 = tensor.extract_slice %arg3[59, 0, 0] [1, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<1x1024x2048xbf16>
    %extracted_slice_61 = tensor.extract_slice %arg3[62, 0, 0] [2, 1024, 2048] [1, 1, 1] : tensor<64x1024x2048xbf16> to tensor<2x1024x2048xbf16>
    %concat_62 = tensor.concat dim(0) %extracted_slice_50, %extracted_slice_51, %extracted_slice_52, %extracted_slice_53, %extracted_slice_54, %extracted_slice_55, %extracted_slice_56, %extracted_slice_57, %extracted_slice_58, %extracted_slice_59, %extracted_slice_60, %extracted_slice_61 : (tensor<2x1024x2048xbf16>, tensor<3x1024x2048xbf16>, tensor<3x1024x2048xbf16>, tensor<1x1024x2048xbf16>, tensor<4x1024x2048xbf16>, tensor<5x1024x2048xbf16>, tensor<5x1024x2048xbf16>, tensor<1x1024x2048xbf16>, tensor<3x1024x2048xbf16>, tensor<2x1024x2048xbf16>, tensor<1x1024x2048xbf16>, tensor<2x1024x2048xbf16>) -> tensor<32x1024x2048xbf16>
    %extracted_slice_63 = tensor.extract_slice %arg4[4, 0, 0] [2, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<2x2048x1024xbf16>
    %extracted_slice_64 = tensor.extract_slice %arg4[7, 0, 0] [3, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<3x2048x1024xbf16>
    %extracted_slice_65 = tensor.extract_slice %arg4[17, 0, 0] [3, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<3x2048x1024xbf16>
    %extracted_slice_66 = tensor.extract_slice %arg4[23, 0, 0] [1, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<1x2048x1024xbf16>
    %extracted_slice_67 = tensor.extract_slice %arg4[26, 0, 0] [4, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<4x2048x1024xbf16>
    %extracted_slice_68 = tensor.extract_slice %arg4[31, 0, 0] [5, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<5x2048x1024xbf16>
    %extracted_slice_69 = tensor.extract_slice %arg4[38, 0, 0] [5, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<5x2048x1024xbf16>
    %extracted_slice_70 = tensor.extract_slice %arg4[44, 0, 0] [1, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<1x2048x1024xbf16>
    %extracted_slice_71 = tensor.extract_slice %arg4[50, 0, 0] [3, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<3x2048x1024xbf16>
    %extracted_slice_72 = tensor.extract_slice %arg4[55, 0, 0] [2, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<2x2048x1024xbf16>
    %extracted_slice_73 = tensor.extract_slice %arg4[59, 0, 0] [1, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<1x2048x1024xbf16>
    %extracted_slice_74 = tensor.extract_slice %arg4[62, 0, 0] [2, 2048, 1024] [1, 1, 1] : tensor<64x2048x1024xbf16> to tensor<2x2048x1024xbf16>
    %concat_75 = tensor.concat dim(0) %extracted_slice_63, %extracted_slice_64, %extracted_slice_65, %extracted_slice_66, %extracted_slice_67, %extracted_slice_68, %extracted_slice_69, %extracted_slice_70, %extracted_slice_71, %extracted_slice_72, %extracted_slice_73, %extracted_slice_74 : (tensor<2x2048x1024xbf16>, tensor<3x2048x1024xbf16>, tensor<3x2048x1024xbf16>, tensor<1x2048x1024xbf16>, tensor<4x2048x1024xbf16>, tensor<5x2048x1024xbf16>, tensor<5x2048x1024xbf16>, tensor<1x2048x1024xbf16>, tensor<3x2048x1024xbf16>, tensor<2x2048x1024xbf16>, tensor<1x2048x1024xbf16>, tensor<2x2048x1024xbf16>) -> tensor<32x2048x1024xbf16>
    %11:2 = "moe.quantize"(%concat_49) {format = "int4"} : (tensor<32x1024x2048xbf16>) -> (tensor<32x1024x2048xi8>, tensor<32x1024x1xf32>)
    %12 = "moe.dequantize"(%11#0, %11#1) {format = "int4"} : (tensor<32x1024x2048xi8>, tensor<32x1024x1xf32>) -> tensor<32x1024x2048xf32>
    %13:2 = "moe.quantize"(%concat_62) {format = "int4"} : (tensor<32x1024x2048xbf16>) -> (tensor<32x1024x2048xi8>, tensor<32x1024x1xf32>)
    %14 = "moe.dequantize"(%13#0, %13#1) {format = "int4"} : (tensor<32x1024x2048xi8>, tensor<32x1024x1xf32>) -> tensor<32x1024x2048xf32>
    %15:2 = "moe.quantize"(%concat_75) {format = "int4"} : (tensor<32x2048x1024xbf16>) -> (tensor<32x2048x1024xi8>, tensor<32x2048x1xf32>)
    %16 = "moe.dequantize"(%15#0, %15#1) {format = "int4"} : (tensor<32x2048x1024xi8>, tensor<32x2048x1xf32>) -> tensor<32x2048x1024xf32>
    %17:2 = "moe.route"(%0#0) ({
    ^bb0(%arg5: tensor<8xi32>):
      %cst = arith.constant dense<[0, 0, 0, 0, 1, 2, 0, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0, 6, 7, 8, 0, 0, 0, 9, 0, 0, 10, 11, 12, 13, 0, 14, 15, 16, 17, 18, 0, 0, 19, 20, 21, 22, 23, 0, 24, 0, 0, 0, 0, 0, 25, 26, 27, 0, 0, 28, 29, 0, 0, 30, 0, 0, 31, 32]> : tensor<64xi32>
      %23 = "moe.take"(%cst, %arg5) : (tensor<64xi32>, tensor<8xi32>) -> tensor<8xi32>
      %cst_76 = arith.constant dense<1> : tensor<8xi32>
      %24 = arith.subi %23, %cst_76 : tensor<8xi32>
      %25 = "moe.row"(%0#1) : (tensor<?x8xf32>) -> tensor<8xf32>
      "moe.yield_choice"(%24, %25) : (tensor<8xi32>, tensor<8xf32>) -> ()
    }) : (tensor<?x8xi32>) -> (tensor<?x8xi32>, tensor<?x8xf32>)
    %18:3 = "moe.dispatch"(%arg0, %17#0) {experts = 32 : i64} : (tensor<?x2048xbf16>, tensor<?x8xi32>) -> (tensor<?x2048xbf16>, tensor<33xi32>, tensor<?xi32>)
    %19 = "moe.experts"(%18#0, %18#1) ({
    ^bb0(%arg5: tensor<2048xbf16>):
      %23 = "moe.quantize_row"(%arg5) : (tensor<2048xbf16>) -> tensor<2048xf32>
      %24 = "moe.own"(%12) : (tensor<32x1024x2048xf32>) -> tensor<1024x2048xf32>
      %cst = arith.constant dense<0.000000e+00> : tensor<1024xf32>
      %25 = linalg.matvec ins(%24, %23 : tensor<1024x2048xf32>, tensor<2048xf32>) outs(%cst : tensor<1024xf32>) -> tensor<1024xf32>
      %cst_76 = arith.constant dense<1.000000e+00> : tensor<1024xf32>
      %26 = arith.negf %25 : tensor<1024xf32>
      %27 = math.exp %26 : tensor<1024xf32>
      %28 = arith.addf %cst_76, %27 : tensor<1024xf32>
      %29 = arith.divf %25, %28 : tensor<1024xf32>
      %30 = "moe.own"(%14) : (tensor<32x1024x2048xf32>) -> tensor<1024x2048xf32>
      %cst_77 = arith.constant dense<0.000000e+00> : tensor<1024xf32>
      %31 = linalg.matvec ins(%30, %23 : tensor<1024x2048xf32>, tensor<2048xf32>) outs(%cst_77 : tensor<1024xf32>) -> tensor<1024xf32>
      %32 = arith.mulf %29, %31 : tensor<1024xf32>
      %33 = arith.truncf %32 : tensor<1024xf32> to tensor<1024xbf16>
      %34 = "moe.quantize_row"(%33) : (tensor<1024xbf16>) -> tensor<1024xf32>
      %35 = "moe.own"(%16) : (tensor<32x2048x1024xf32>) -> tensor<2048x1024xf32>
      %cst_78 = arith.constant dense<0.000000e+00> : tensor<2048xf32>
      %36 = linalg.matvec ins(%35, %34 : tensor<2048x1024xf32>, tensor<1024xf32>) outs(%cst_78 : tensor<2048xf32>) -> tensor<2048xf32>
      "moe.yield"(%36) : (tensor<2048xf32>) -> ()
    }) : (tensor<?x2048xbf16>, tensor<33xi32>) -> tensor<?x2048xf32>
    %20 = "moe.combine"(%19, %18#2, %0#1) : (tensor<?x2048xf32>, tensor<?xi32>, tensor<?x8xf32>) -> tensor<?x2048xf32>
    %21 = arith.addf %10, %20 : tensor<?x2048xf32>
    %22 = arith.truncf %21 : tensor<?x2048xf32> to tensor<?x2048xbf16>
    return %22 : tensor<?x2048xbf16>
  }
}
