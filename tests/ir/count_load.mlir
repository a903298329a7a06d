// PASSES: drop-losses count-load
// REMARKS
// What the router chose is counted before the capacity, what is kept behind it; the results come last.
// CHECK-LABEL: func.func @Small
// CHECK-SAME:  -> (tensor<?x8xf32> {moe.name = "y"}, tensor<4xi32> {moe.name = "chosen", moe.role = "statistic"},
// CHECK-SAME:      tensor<4xi32> {moe.name = "kept", moe.role = "statistic"})
// CHECK:       %[[ROUTE:.*]]:2 = "moe.route"
// CHECK:       %[[CHOSEN:.*]] = "moe.count"(%[[ROUTE]]#0) : (tensor<?x2xi32>) -> tensor<4xi32>
// CHECK:       %[[LIMITED:.*]] = "moe.capacity"(%[[ROUTE]]#0, %[[ROUTE]]#1)
// CHECK:       %[[KEPT:.*]] = "moe.count"(%[[LIMITED]]) : (tensor<?x2xi32>) -> tensor<4xi32>
// CHECK:       return %{{.*}}, %[[CHOSEN]], %[[KEPT]]
// CHECK:       remark: count-load: counted: chosen, kept of 4 experts
module attributes {moe.layer = "Small", moe.routed = {experts = 4 : i64, name = "routed"}} {
  func.func @Small(
      %x: tensor<?x8xf32> {moe.name = "x", moe.role = "input"},
      %w: tensor<4x8x8xf32> {moe.name = "routed.up.weight", moe.role = "parameter"})
      -> (tensor<?x8xf32> {moe.name = "y"}) {
    %index, %weight = "moe.route"(%x) ({
    ^bb0(%row: tensor<8xf32>):
      %pick = "moe.top_k"(%row) {k = 2 : i64} : (tensor<8xf32>) -> tensor<2xi32>
      %value = "moe.take"(%row, %pick) : (tensor<8xf32>, tensor<2xi32>) -> tensor<2xf32>
      "moe.yield_choice"(%pick, %value) : (tensor<2xi32>, tensor<2xf32>) -> ()
    }) : (tensor<?x8xf32>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
    %kept = "moe.capacity"(%index, %weight) {experts = 4 : i64, factor = 1.0 : f64, minimum = 0 : i64, order = "token"} : (tensor<?x2xi32>, tensor<?x2xf32>) -> tensor<?x2xi32>
    %rows, %offsets, %slots = "moe.dispatch"(%x, %kept) {experts = 4 : i64} : (tensor<?x8xf32>, tensor<?x2xi32>) -> (tensor<?x8xf32>, tensor<5xi32>, tensor<?xi32>)
    %out = "moe.experts"(%rows, %offsets) ({
    ^bb0(%row: tensor<8xf32>):
      %zero = arith.constant dense<0.0> : tensor<8xf32>
      %own = "moe.own"(%w) : (tensor<4x8x8xf32>) -> tensor<8x8xf32>
      %up = linalg.matvec ins(%own, %row : tensor<8x8xf32>, tensor<8xf32>) outs(%zero : tensor<8xf32>) -> tensor<8xf32>
      "moe.yield"(%up) : (tensor<8xf32>) -> ()
    }) : (tensor<?x8xf32>, tensor<5xi32>) -> tensor<?x8xf32>
    %y = "moe.combine"(%out, %slots, %weight) : (tensor<?x8xf32>, tensor<?xi32>, tensor<?x2xf32>) -> tensor<?x8xf32>
    return %y : tensor<?x8xf32>
  }
}
