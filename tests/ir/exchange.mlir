// CHECK:       "moe.take_rows"(%{{.*}}, %{{.*}}) : (tensor<?x5xbf16>, tensor<?x1xi32>) -> tensor<?x5xbf16>
// CHECK:       "moe.collect"(%{{.*}}, %{{.*}}) ({
// CHECK-NEXT:  ^bb0(%[[SUM:.*]]: f32):
// CHECK:         %[[MORE:.*]] = "moe.element"(%{{.*}}) {kind = "token"} : (tensor<?x5xf32>) -> f32
// CHECK:         %[[TOTAL:.*]] = arith.addf %[[SUM]], %[[MORE]] : f32
// CHECK:         %[[OUT:.*]] = arith.truncf %[[TOTAL]] : f32 to bf16
// CHECK:         "moe.yield"(%[[OUT]]) : (bf16) -> ()
// CHECK:       }) : (tensor<?x2x5xf32>, tensor<?x2xi32>) -> tensor<?x5xbf16>
func.func @f(%x: tensor<?x5xbf16>, %s: tensor<?x1xi32>, %r: tensor<?x2x5xf32>, %p: tensor<?x2xi32>, %m: tensor<?x5xf32>) {
  %t = "moe.take_rows"(%x, %s) : (tensor<?x5xbf16>, tensor<?x1xi32>) -> tensor<?x5xbf16>
  %y = "moe.collect"(%r, %p) ({
  ^bb0(%sum: f32):
    %more = "moe.element"(%m) {kind = "token"} : (tensor<?x5xf32>) -> f32
    %total = arith.addf %sum, %more : f32
    %out = arith.truncf %total : f32 to bf16
    "moe.yield"(%out) : (bf16) -> ()
  }) : (tensor<?x2x5xf32>, tensor<?x2xi32>) -> tensor<?x5xbf16>
  return
}
