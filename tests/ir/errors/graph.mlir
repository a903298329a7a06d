// ERROR: index must hold i32
func.func @f(%x: tensor<?x4xf32>) {
  "moe.route"(%x) ({
  ^bb0(%row: tensor<4xf32>):
    %i = arith.constant dense<0> : tensor<1xi64>
    %w = arith.constant dense<0.0> : tensor<1xf32>
    "moe.yield_choice"(%i, %w) : (tensor<1xi64>, tensor<1xf32>) -> ()
  }) : (tensor<?x4xf32>) -> (tensor<?x1xi64>, tensor<?x1xf32>)
  return
}
// -----
// ERROR: the body must take (tensor<4xf32>), not (tensor<5xf32>)
func.func @f(%x: tensor<?x4xf32>) {
  "moe.route"(%x) ({
  ^bb0(%row: tensor<5xf32>):
    %i = arith.constant dense<0> : tensor<1xi32>
    %w = arith.constant dense<0.0> : tensor<1xf32>
    "moe.yield_choice"(%i, %w) : (tensor<1xi32>, tensor<1xf32>) -> ()
  }) : (tensor<?x4xf32>) -> (tensor<?x1xi32>, tensor<?x1xf32>)
  return
}
// -----
// ERROR: the body must end in moe.yield_choice
func.func @f(%x: tensor<?x4xf32>) {
  "moe.route"(%x) ({
  ^bb0(%row: tensor<4xf32>):
    "moe.yield"(%row) : (tensor<4xf32>) -> ()
  }) : (tensor<?x4xf32>) -> (tensor<?x1xi32>, tensor<?x1xf32>)
  return
}
// -----
// ERROR: order must be one of token, choice, score, not 'luck'
func.func @f(%i: tensor<?x1xi32>, %w: tensor<?x1xf32>) {
  "moe.capacity"(%i, %w) {experts = 4 : i64, factor = 1.25 : f64, minimum = 0 : i64, order = "luck"} : (tensor<?x1xi32>, tensor<?x1xf32>) -> tensor<?x1xi32>
  return
}
// -----
// ERROR: factor must be positive
func.func @f(%i: tensor<?x1xi32>, %w: tensor<?x1xf32>) {
  "moe.capacity"(%i, %w) {experts = 4 : i64, factor = 0.0 : f64, minimum = 0 : i64, order = "token"} : (tensor<?x1xi32>, tensor<?x1xf32>) -> tensor<?x1xi32>
  return
}
// -----
// ERROR: offsets must be tensor<5x...>
func.func @f(%x: tensor<?x4xf32>, %i: tensor<?x1xi32>) {
  "moe.dispatch"(%x, %i) {experts = 4 : i64} : (tensor<?x4xf32>, tensor<?x1xi32>) -> (tensor<?x4xf32>, tensor<4xi32>, tensor<?xi32>)
  return
}
// -----
// ERROR: rows must have the type of x
func.func @f(%x: tensor<?x4xf32>, %i: tensor<?x1xi32>) {
  "moe.dispatch"(%x, %i) {experts = 4 : i64} : (tensor<?x4xf32>, tensor<?x1xi32>) -> (tensor<?x4xbf16>, tensor<5xi32>, tensor<?xi32>)
  return
}
// -----
// ERROR: a parameter must have 4 experts, not tensor<3x4xf32>
func.func @f(%x: tensor<?x4xf32>, %o: tensor<5xi32>, %p: tensor<3x4xf32>) {
  "moe.experts"(%x, %o) ({
  ^bb0(%row: tensor<4xf32>):
    %mine = "moe.own"(%p) : (tensor<3x4xf32>) -> tensor<4xf32>
    "moe.yield"(%mine) : (tensor<4xf32>) -> ()
  }) : (tensor<?x4xf32>, tensor<5xi32>) -> tensor<?x4xf32>
  return
}
// -----
// ERROR: the yielded row must be tensor<4x...>
func.func @f(%x: tensor<?x3xf32>) {
  "moe.shared"(%x) ({
  ^bb0(%row: tensor<3xf32>):
    "moe.yield"(%row) : (tensor<3xf32>) -> ()
  }) {count = 1 : i64} : (tensor<?x3xf32>) -> tensor<?x4xf32>
  return
}
// -----
// ERROR: the result must be tensor<?x4x...>
func.func @f(%r: tensor<?x4xf32>, %s: tensor<?xi32>, %w: tensor<?x2xf32>) {
  "moe.combine"(%r, %s, %w) : (tensor<?x4xf32>, tensor<?xi32>, tensor<?x2xf32>) -> tensor<?x5xf32>
  return
}
