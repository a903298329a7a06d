// PASSES: hls-order hls-array hls-memories
// Rows that do not fit into block RAM go into UltraRAM where the board has some.
// CHECK:       rows_in = "uram"
// CHECK:       remark: hls-memories: rows in uram, queues in bram, weights in bram: what is in UltraRAM would not fit into block RAM
module attributes {moe.layer = "Edge", moe.hls = {
    board = {bandwidth = 1.920000e+10 : f64, bram = 144 : i64, clock = 3.000000e+08 : f64, dsp = 1248 : i64, ff = 234240 : i64, hbm = false, lut = 117120 : i64, name = "kv260", part = "xck26-sfvc784-2LV-c", platform, port_bits = 128 : i64, ports = 4 : i64, uram = 64 : i64},
    layer = {common, experts = 16 : i64, name = "Edge", routed = {activation = "gelu", bias = true, gated = false, hidden = 768 : i64}, router = {bias = false, over = "all", renorm = false, scale = 1.000000e+00 : f64, score = "softmax", selection = false, slots = 4 : i64, tasks = 2 : i64}, shared = 0 : i64, weights = "fixed16", width = 192 : i64},
    tokens = 160 : i64}} {
  func.func @Edge(%x: tensor<?x192xf32> {moe.name = "x", moe.role = "input"}) -> (tensor<?x192xf32> {moe.name = "y"}) {
    return %x : tensor<?x192xf32>
  }
}
