// PASSES: hls-order hls-array hls-memories
// What is decided stays.
// CHECK:       inputs = 8 : i64
// CHECK-SAME:  order = "token", outputs = 8 : i64, port_bits = 64 : i64, ports = 1 : i64, queues = "lutram", rows_in = "bram", tokens = 197 : i64, weights_in = "lutram"
// CHECK-NOT:   remark
module attributes {moe.layer = "Edge", moe.hls = {
    board = {bandwidth = 1.707000e+10 : f64, bram = 912 : i64, clock = 3.000000e+08 : f64, dsp = 2520 : i64, ff = 548160 : i64, hbm = false, lut = 274080 : i64, name = "zcu102", part = "xczu9eg-ffvb1156-2-e", platform, port_bits = 128 : i64, ports = 4 : i64, uram = 0 : i64},
    layer = {common, experts = 16 : i64, name = "Edge", routed = {activation = "gelu", bias = true, gated = false, hidden = 768 : i64}, router = {bias = false, over = "all", renorm = false, scale = 1.000000e+00 : f64, score = "softmax", selection = false, slots = 4 : i64, tasks = 2 : i64}, shared = 0 : i64, weights = "int8", width = 192 : i64},
    inputs = 8 : i64, order = "token", outputs = 8 : i64, port_bits = 64 : i64, ports = 1 : i64,
    queues = "lutram", rows_in = "bram", weights_in = "lutram", tokens = 197 : i64}} {
  func.func @Edge(%x: tensor<?x192xf32> {moe.name = "x", moe.role = "input"}) -> (tensor<?x192xf32> {moe.name = "y"}) {
    return %x : tensor<?x192xf32>
  }
}
