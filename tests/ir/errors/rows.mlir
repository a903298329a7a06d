// ERROR: k must lie between 1 and 4, not 5
func.func @f(%v: tensor<4xf32>) {
  "moe.top_k"(%v) {k = 5 : i64} : (tensor<4xf32>) -> tensor<5xi32>
  return
}
// -----
// ERROR: mass must lie in (0, 1]
func.func @f(%v: tensor<4xf32>) {
  "moe.top_p"(%v) {mass = 1.5 : f64, most = 2 : i64} : (tensor<4xf32>) -> tensor<2xi32>
  return
}
// -----
// ERROR: leading axes of tensor<2x4xf32> and tensor<3x1xi32> must agree
func.func @f(%v: tensor<2x4xf32>, %i: tensor<3x1xi32>) {
  "moe.take"(%v, %i) : (tensor<2x4xf32>, tensor<3x1xi32>) -> tensor<3x1xf32>
  return
}
// -----
// ERROR: the result must hold i1
func.func @f(%i: tensor<3xi32>) {
  "moe.chosen"(%i) : (tensor<3xi32>) -> tensor<8xi32>
  return
}
// -----
// ERROR: the result must be tensor<4xf32>, not tensor<5xf32>
func.func @f(%x: tensor<?x4xf32>) {
  "moe.row"(%x) : (tensor<?x4xf32>) -> tensor<5xf32>
  return
}
