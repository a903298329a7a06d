// PASSES: canonicalize
// CHECK:       "moe.capacity"(%{{.*}}, %{{.*}}) {experts = 4 : i64, factor = 1.250000e+00 : f64, minimum = 4 : i64, order = "score"} : (tensor<?x2xi32>, tensor<?x2xf32>) -> tensor<?x2xi32>
func.func @f(%i: tensor<?x2xi32>, %w: tensor<?x2xf32>) -> tensor<?x2xi32> {
  %k = "moe.capacity"(%i, %w) {experts = 4 : i64, factor = 1.25 : f64, minimum = 4 : i64, order = "score"} : (tensor<?x2xi32>, tensor<?x2xf32>) -> tensor<?x2xi32>
  return %k : tensor<?x2xi32>
}
