// ERROR: source must be tensor<?x1x...>
func.func @f(%x: tensor<?x4xf32>, %s: tensor<?x2xi32>) {
  "moe.take_rows"(%x, %s) : (tensor<?x4xf32>, tensor<?x2xi32>) -> tensor<?x4xf32>
  return
}
// -----
// ERROR: the result must have the type of x
func.func @f(%x: tensor<?x4xf32>, %s: tensor<?x1xi32>) {
  "moe.take_rows"(%x, %s) : (tensor<?x4xf32>, tensor<?x1xi32>) -> tensor<?x5xf32>
  return
}
// -----
// ERROR: places must be tensor<?x2x...>
func.func @f(%r: tensor<?x2x4xf32>, %p: tensor<?x3xi32>) {
  "moe.collect"(%r, %p) ({
  ^bb0(%sum: f32):
    "moe.yield"(%sum) : (f32) -> ()
  }) : (tensor<?x2x4xf32>, tensor<?x3xi32>) -> tensor<?x4xf32>
  return
}
// -----
// ERROR: rows must hold f32
func.func @f(%r: tensor<?x2x4xbf16>, %p: tensor<?x2xi32>) {
  "moe.collect"(%r, %p) ({
  ^bb0(%sum: f32):
    "moe.yield"(%sum) : (f32) -> ()
  }) : (tensor<?x2x4xbf16>, tensor<?x2xi32>) -> tensor<?x4xf32>
  return
}
// -----
// ERROR: an element here must be one of token, token_scalar, not 'row'
func.func @f(%r: tensor<?x2x4xf32>, %p: tensor<?x2xi32>, %m: tensor<?x4xf32>) {
  "moe.collect"(%r, %p) ({
  ^bb0(%sum: f32):
    %more = "moe.element"(%m) {kind = "row"} : (tensor<?x4xf32>) -> f32
    "moe.yield"(%more) : (f32) -> ()
  }) : (tensor<?x2x4xf32>, tensor<?x2xi32>) -> tensor<?x4xf32>
  return
}
