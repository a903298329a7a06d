// PASSES: canonicalize
// Dead and repeated operations go, also of the moe dialect.
// CHECK-LABEL: func.func @Two
// CHECK:       "moe.top_k"
// CHECK-NOT:   "moe.top_k"
// CHECK:       "moe.take"
// CHECK-NOT:   "moe.chosen"
// CHECK:       return
module attributes {moe.layer = "Two"} {
  func.func @Two(
      %x: tensor<?x8xf32> {moe.name = "x", moe.role = "input"},
      %w1: tensor<5x8xf32> {moe.name = "router.hidden.weight", moe.role = "parameter"},
      %w2: tensor<4x5xf32> {moe.name = "router.logits.weight", moe.role = "parameter"},
      %w3: tensor<3x4xf32> {moe.name = "router.late.weight", moe.role = "parameter"})
      -> (tensor<?x2xi32> {moe.name = "index"}, tensor<?x2xf32> {moe.name = "weight"}) {
    %index, %weight = "moe.route"(%x) ({
    ^bb0(%row: tensor<8xf32>):
      %zero5 = arith.constant dense<0.0> : tensor<5xf32>
      %zero4 = arith.constant dense<0.0> : tensor<4xf32>
      %zero3 = arith.constant dense<0.0> : tensor<3xf32>
      %h = linalg.matvec ins(%w1, %row : tensor<5x8xf32>, tensor<8xf32>) outs(%zero5 : tensor<5xf32>) -> tensor<5xf32>
      %relu = arith.maximumf %h, %zero5 : tensor<5xf32>
      %logits = linalg.matvec ins(%w2, %relu : tensor<4x5xf32>, tensor<5xf32>) outs(%zero4 : tensor<4xf32>) -> tensor<4xf32>
      %none = arith.constant dense<0.0> : tensor<f32>
      %sum = linalg.reduce { arith.addf } ins(%logits : tensor<4xf32>) outs(%none : tensor<f32>) dimensions = [0]
      %empty = tensor.empty() : tensor<4xf32>
      %mean = linalg.broadcast ins(%sum : tensor<f32>) outs(%empty : tensor<4xf32>) dimensions = [0]
      %centred = arith.subf %logits, %mean : tensor<4xf32>
      %late = linalg.matvec ins(%w3, %centred : tensor<3x4xf32>, tensor<4xf32>) outs(%zero3 : tensor<3xf32>) -> tensor<3xf32>
      %pick = "moe.top_k"(%late) {k = 2 : i64} : (tensor<3xf32>) -> tensor<2xi32>
      %twice = "moe.top_k"(%late) {k = 2 : i64} : (tensor<3xf32>) -> tensor<2xi32>
      %dead = "moe.chosen"(%twice) : (tensor<2xi32>) -> tensor<3xi1>
      %w = "moe.take"(%late, %pick) : (tensor<3xf32>, tensor<2xi32>) -> tensor<2xf32>
      "moe.yield_choice"(%pick, %w) : (tensor<2xi32>, tensor<2xf32>) -> ()
    }) : (tensor<?x8xf32>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
    return %index, %weight : tensor<?x2xi32>, tensor<?x2xf32>
  }
}
