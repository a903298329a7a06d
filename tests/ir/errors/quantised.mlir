// ERROR: format must be one of int8, int4, ternary, fp8_e4m3, not 'int3'
func.func @f(%w: tensor<4x5x6xbf16>) {
  %c, %s = "moe.quantize"(%w) {format = "int3"} : (tensor<4x5x6xbf16>) -> (tensor<4x5x6xi8>, tensor<4x5x3xbf16>)
  return
}
// -----
// ERROR: 4 groups do not divide 6 inner elements
func.func @f(%w: tensor<4x5x6xbf16>) {
  %c, %s = "moe.quantize"(%w) {format = "int4"} : (tensor<4x5x6xbf16>) -> (tensor<4x5x6xi8>, tensor<4x5x4xbf16>)
  return
}
// -----
// ERROR: scales must be tensor<ExNxG>, not tensor<4x5xbf16>
func.func @f(%w: tensor<4x5x6xbf16>) {
  %c, %s = "moe.quantize"(%w) {format = "int4"} : (tensor<4x5x6xbf16>) -> (tensor<4x5x6xi8>, tensor<4x5xbf16>)
  return
}
// -----
// ERROR: scales must hold f32 or bf16, not f16
func.func @f(%w: tensor<4x5x6xbf16>) {
  %c, %s = "moe.quantize"(%w) {format = "int4"} : (tensor<4x5x6xbf16>) -> (tensor<4x5x6xi8>, tensor<4x5x3xf16>)
  return
}
// -----
// ERROR: codes must hold f8E4M3FN, not i8
func.func @f(%w: tensor<4x5x6xbf16>) {
  %c, %s = "moe.quantize"(%w) {format = "fp8_e4m3"} : (tensor<4x5x6xbf16>) -> (tensor<4x5x6xi8>, tensor<4x5x1xf32>)
  return
}
// -----
// ERROR: codes must hold i8, not i4
func.func @f(%w: tensor<4x5x6xbf16>) {
  %c, %s = "moe.quantize"(%w) {format = "int4"} : (tensor<4x5x6xbf16>) -> (tensor<4x5x6xi4>, tensor<4x5x3xbf16>)
  return
}
// -----
// ERROR: weights must hold f32, bf16, f16, not i8
func.func @f(%w: tensor<4x5x6xi8>) {
  %c, %s = "moe.quantize"(%w) {format = "int4"} : (tensor<4x5x6xi8>) -> (tensor<4x5x6xi8>, tensor<4x5x3xbf16>)
  return
}
// -----
// ERROR: the result must hold f32, not bf16
func.func @f(%c: tensor<4x5x6xi8>, %s: tensor<4x5x1xf32>) {
  %d = "moe.dequantize"(%c, %s) {format = "int8"} : (tensor<4x5x6xi8>, tensor<4x5x1xf32>) -> tensor<4x5x6xbf16>
  return
}
// -----
// ERROR: the row must have rank 1
func.func @f(%r: tensor<4x5xf32>) {
  %d = "moe.quantize_row"(%r) : (tensor<4x5xf32>) -> tensor<4x5xf32>
  return
}
// -----
// ERROR: the result must be tensor<?x5x...>
func.func @f(%r: tensor<?x5xbf16>) {
  %d = "moe.quantize_rows"(%r) : (tensor<?x5xbf16>) -> tensor<?x6xf32>
  return
}
// -----
// ERROR: weights must all have one format
func.func @f(%x: tensor<?x4xf32>, %w: tensor<1x3x4xf32>, %c: tensor<1x3x4xi8>, %s: tensor<1x3x1xf32>) {
  %d = "moe.dequantize"(%c, %s) {format = "int8"} : (tensor<1x3x4xi8>, tensor<1x3x1xf32>) -> tensor<1x3x4xf32>
  "moe.matmul"(%x, %w, %d) ({
  ^bb0(%a: f32, %b: f32):
    "moe.yield"(%a) : (f32) -> ()
  }) {operandSegmentSizes = array<i32: 1, 2>} : (tensor<?x4xf32>, tensor<1x3x4xf32>, tensor<1x3x4xf32>) -> tensor<?x3xf32>
  return
}
