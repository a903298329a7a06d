// PASSES: hls-order hls-array hls-memories
// Many tokens an expert: each expert's weights are read once, and the board's multipliers are the limit.
// CHECK:       inputs = 16 : i64
// CHECK-SAME:  order = "expert", outputs = 64 : i64, port_bits = 128 : i64, ports = 2 : i64, queues = "bram", rows_in = "bram", tokens = 197 : i64, weights_in = "bram"
// CHECK:       remark: hls-order: expert-major: 49.2 tokens an expert in a call of 197; weights cross the ports 16 times by expert (4.72 MB), 788 times by token (232 MB)
// CHECK-SAME:  the orders cross at 4 tokens
// CHECK:       remark: hls-array: 16 x 64 multipliers, weights through 2 ports of 128 bits: PE* = 49.25 tokens an expert x 32 bytes a cycle / 1 bytes a weight = 1576; bound by the array
// CHECK:       remark: hls-array: not 16 x 64 with 4 ports: {{.*}} faster only
// CHECK:       remark: hls-array: not 32 x 64: it would take {{.*}} DSP blocks of 2,016
// CHECK:       remark: hls-memories: rows in bram, queues in bram, weights in bram: the board has no UltraRAM
module attributes {moe.layer = "Edge", moe.hls = {
    board = {bandwidth = 1.707000e+10 : f64, bram = 912 : i64, clock = 3.000000e+08 : f64, dsp = 2520 : i64, ff = 548160 : i64, hbm = false, lut = 274080 : i64, name = "zcu102", part = "xczu9eg-ffvb1156-2-e", platform, port_bits = 128 : i64, ports = 4 : i64, uram = 0 : i64},
    layer = {common, experts = 16 : i64, name = "Edge", routed = {activation = "gelu", bias = true, gated = false, hidden = 768 : i64}, router = {bias = false, over = "all", renorm = false, scale = 1.000000e+00 : f64, score = "softmax", selection = false, slots = 4 : i64, tasks = 2 : i64}, shared = 0 : i64, weights = "int8", width = 192 : i64},
    tokens = 197 : i64}} {
  func.func @Edge(%x: tensor<?x192xf32> {moe.name = "x", moe.role = "input"}) -> (tensor<?x192xf32> {moe.name = "y"}) {
    return %x : tensor<?x192xf32>
  }
}
