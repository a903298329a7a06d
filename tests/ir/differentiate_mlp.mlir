// PASSES: differentiate
// Two matmuls forward and four backward; of the experts only what stands before the activation is kept.
// CHECK:       func.func @Small_forward(
// CHECK-SAME:    tensor<?x10xbf16> {moe.name = "routed.up", moe.role = "saved"}, tensor<?x6xf32> {moe.name = "router.logits", moe.role = "saved"})
// CHECK:         %[[H:[0-9]+]]:2 = "moe.grouped_matmul"(%arg0, {{.*}}, %arg2)
// CHECK:         "moe.grouped_matmul_combine"(%[[H]]#0, {{.*}}, %arg3)
// CHECK-NOT:     moe.grouped_matmul
// CHECK:         return {{.*}} %[[H]]#1,

// CHECK:       func.func @Small_backward(
// CHECK:         %[[D:[0-9]+]]:3 = "moe.grouped_matmul"(%arg8, {{.*}}, %arg3)
// CHECK:           math.erf
// CHECK:           math.exp
// CHECK:         {gather = true{{.*}}transposed}
// CHECK:         "moe.weight_gradient"(%arg8, %[[D]]#1, {{.*}}) {gather_a = true, gather_b = false
// CHECK:         "moe.map"(%[[D]]#2)
// CHECK:         "moe.weight_gradient"(%[[D]]#0, %arg0, {{.*}}) {gather_a = false, gather_b = true
// CHECK:         "moe.grouped_matmul_combine"(%[[D]]#0, {{.*}}, %arg2)
// CHECK:         transposed}
// CHECK-NOT:     moe.grouped_matmul
// CHECK-NOT:     moe.weight_gradient
// CHECK:         return
module attributes {moe.layer = "Small"} {
  func.func @Small(%arg0: tensor<?x24xbf16> {moe.name = "x", moe.role = "input"}, %arg1: tensor<6x24xf32> {moe.name = "router.logits.weight", moe.role = "parameter"}, %arg2: tensor<6x10x24xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"}, %arg3: tensor<6x24x10xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"}) -> (tensor<?x24xbf16> {moe.name = "y"}) {
    %0:2 = "moe.route"(%arg0) ({
    ^bb0(%arg4: tensor<24xbf16>):
      %cst = arith.constant dense<0.000000e+00> : tensor<6xf32>
      %5 = linalg.matvec ins(%arg1, %arg4 : tensor<6x24xf32>, tensor<24xbf16>) outs(%cst : tensor<6xf32>) -> tensor<6xf32>
      %cst_0 = arith.constant dense<0xFF800000> : tensor<f32>
      %reduced = linalg.reduce ins(%5 : tensor<6xf32>) outs(%cst_0 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %16 = arith.maximumf %in, %init : f32
          linalg.yield %16 : f32
        }
      %6 = tensor.empty() : tensor<6xf32>
      %broadcasted = linalg.broadcast ins(%reduced : tensor<f32>) outs(%6 : tensor<6xf32>) dimensions = [0] 
      %7 = arith.subf %5, %broadcasted : tensor<6xf32>
      %8 = math.exp %7 : tensor<6xf32>
      %cst_1 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_2 = linalg.reduce ins(%8 : tensor<6xf32>) outs(%cst_1 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %16 = arith.addf %in, %init : f32
          linalg.yield %16 : f32
        }
      %9 = tensor.empty() : tensor<6xf32>
      %broadcasted_3 = linalg.broadcast ins(%reduced_2 : tensor<f32>) outs(%9 : tensor<6xf32>) dimensions = [0] 
      %10 = arith.divf %8, %broadcasted_3 : tensor<6xf32>
      %11 = "moe.top_k"(%10) {k = 2 : i64} : (tensor<6xf32>) -> tensor<2xi32>
      %12 = "moe.take"(%10, %11) : (tensor<6xf32>, tensor<2xi32>) -> tensor<2xf32>
      %cst_4 = arith.constant dense<0.000000e+00> : tensor<f32>
      %reduced_5 = linalg.reduce ins(%12 : tensor<2xf32>) outs(%cst_4 : tensor<f32>) dimensions = [0] 
        (%in: f32, %init: f32) {
          %16 = arith.addf %in, %init : f32
          linalg.yield %16 : f32
        }
      %13 = tensor.empty() : tensor<6xf32>
      %broadcasted_6 = linalg.broadcast ins(%reduced_5 : tensor<f32>) outs(%13 : tensor<6xf32>) dimensions = [0] 
      %14 = arith.divf %10, %broadcasted_6 : tensor<6xf32>
      %15 = "moe.take"(%14, %11) : (tensor<6xf32>, tensor<2xi32>) -> tensor<2xf32>
      "moe.yield_choice"(%11, %15) : (tensor<2xi32>, tensor<2xf32>) -> ()
    }) : (tensor<?x24xbf16>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
    %1:3 = "moe.dispatch"(%arg0, %0#0) {experts = 6 : i64} : (tensor<?x24xbf16>, tensor<?x2xi32>) -> (tensor<?x24xbf16>, tensor<7xi32>, tensor<?xi32>)
    %2 = "moe.experts"(%1#0, %1#1) ({
    ^bb0(%arg4: tensor<24xbf16>):
      %5 = "moe.own"(%arg2) : (tensor<6x10x24xbf16>) -> tensor<10x24xbf16>
      %cst = arith.constant dense<0.000000e+00> : tensor<10xf32>
      %6 = linalg.matvec ins(%5, %arg4 : tensor<10x24xbf16>, tensor<24xbf16>) outs(%cst : tensor<10xf32>) -> tensor<10xf32>
      %cst_0 = arith.constant dense<1.000000e+00> : tensor<10xf32>
      %cst_1 = arith.constant dense<0.707106769> : tensor<10xf32>
      %7 = arith.mulf %6, %cst_1 : tensor<10xf32>
      %8 = math.erf %7 : tensor<10xf32>
      %9 = arith.addf %cst_0, %8 : tensor<10xf32>
      %cst_2 = arith.constant dense<5.000000e-01> : tensor<10xf32>
      %10 = arith.mulf %6, %cst_2 : tensor<10xf32>
      %11 = arith.mulf %10, %9 : tensor<10xf32>
      %12 = arith.truncf %11 : tensor<10xf32> to tensor<10xbf16>
      %13 = "moe.own"(%arg3) : (tensor<6x24x10xbf16>) -> tensor<24x10xbf16>
      %cst_3 = arith.constant dense<0.000000e+00> : tensor<24xf32>
      %14 = linalg.matvec ins(%13, %12 : tensor<24x10xbf16>, tensor<10xbf16>) outs(%cst_3 : tensor<24xf32>) -> tensor<24xf32>
      "moe.yield"(%14) : (tensor<24xf32>) -> ()
    }) : (tensor<?x24xbf16>, tensor<7xi32>) -> tensor<?x24xf32>
    %3 = "moe.combine"(%2, %1#2, %0#1) : (tensor<?x24xf32>, tensor<?xi32>, tensor<?x2xf32>) -> tensor<?x24xf32>
    %4 = arith.truncf %3 : tensor<?x24xf32> to tensor<?x24xbf16>
    return %4 : tensor<?x24xbf16>
  }
}
