// CHECK:       "moe.top_k"(%{{.*}}) {k = 2 : i64} : (tensor<3x8xf32>) -> tensor<3x2xi32>
// CHECK:       "moe.take"(%{{.*}}, %{{.*}}) : (tensor<3x8xf32>, tensor<3x2xi32>) -> tensor<3x2xf32>
// CHECK:       "moe.top_p"(%{{.*}}) {mass = 5.000000e-01 : f64, most = 3 : i64} : (tensor<8xf32>) -> tensor<3xi32>
// CHECK:       "moe.chosen"(%{{.*}}) : (tensor<3x2xi32>) -> tensor<3x8xi1>
// CHECK:       "moe.row"(%{{.*}}) : (tensor<?x5xf32>) -> tensor<5xf32>
// CHECK:       "moe.own"(%{{.*}}) : (tensor<4x5x6xbf16>) -> tensor<5x6xbf16>
func.func @f(%v: tensor<3x8xf32>, %p: tensor<8xf32>, %x: tensor<?x5xf32>, %w: tensor<4x5x6xbf16>) {
  %i = "moe.top_k"(%v) {k = 2 : i64} : (tensor<3x8xf32>) -> tensor<3x2xi32>
  %t = "moe.take"(%v, %i) : (tensor<3x8xf32>, tensor<3x2xi32>) -> tensor<3x2xf32>
  %m = "moe.top_p"(%p) {mass = 0.5 : f64, most = 3 : i64} : (tensor<8xf32>) -> tensor<3xi32>
  %c = "moe.chosen"(%i) : (tensor<3x2xi32>) -> tensor<3x8xi1>
  %r = "moe.row"(%x) : (tensor<?x5xf32>) -> tensor<5xf32>
  %o = "moe.own"(%w) : (tensor<4x5x6xbf16>) -> tensor<5x6xbf16>
  return
}
