// CHECK:       "moe.quantize"(%{{.*}}) {format = "int4"} : (tensor<4x5x6xbf16>) -> (tensor<4x5x6xi8>, tensor<4x5x3xbf16>)
// CHECK:       "moe.dequantize"(%{{.*}}, %{{.*}}) {format = "int4"} : (tensor<4x5x6xi8>, tensor<4x5x3xbf16>) -> tensor<4x5x6xf32>
// CHECK:       "moe.quantize_row"(%{{.*}}) : (tensor<6xbf16>) -> tensor<6xf32>
// CHECK:       "moe.quantize_rows"(%{{.*}}) : (tensor<?x6xbf16>) -> tensor<?x6xf32>
func.func @f(%w: tensor<4x5x6xbf16>, %x: tensor<?x6xbf16>) {
  %c, %s = "moe.quantize"(%w) {format = "int4"} : (tensor<4x5x6xbf16>) -> (tensor<4x5x6xi8>, tensor<4x5x3xbf16>)
  %d = "moe.dequantize"(%c, %s) {format = "int4"} : (tensor<4x5x6xi8>, tensor<4x5x3xbf16>) -> tensor<4x5x6xf32>
  %r = "moe.row"(%x) : (tensor<?x6xbf16>) -> tensor<6xbf16>
  %q = "moe.quantize_row"(%r) : (tensor<6xbf16>) -> tensor<6xf32>
  %a = "moe.quantize_rows"(%x) : (tensor<?x6xbf16>) -> tensor<?x6xf32>
  return
}
