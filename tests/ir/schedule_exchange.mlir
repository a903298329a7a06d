// PASSES: schedule-exchange{tokens=4096} schedule-exchange
// CHECK:       func.func @Small
// CHECK:       "moe.schedule"() ({
// CHECK:         %[[ROUTE:.*]] = "moe.run"() {chunk = -1 : i64, hop = 0 : i64, kind = "route", step = "route", stream = "compute", way = ""} : () -> !moe.signal
// CHECK:         "moe.exchange"(%[[ROUTE]]) {axes = ["node"], chunk = -1 : i64, hop = 0 : i64, kind = "counts", step = "counts", stream = "net.node", way = ""}
// CHECK:         %[[PACK:.*]] = "moe.run"() {chunk = 0 : i64, hop = 0 : i64, kind = "pack"
// CHECK:         %[[SENT:.*]] = "moe.exchange"(%[[PACK]]) {axes = ["node"], chunk = 0 : i64, hop = 0 : i64, kind = "exchange", step = "dispatch.0", stream = "net.node", way = "dispatch"}
// CHECK:         %[[OUT:.*]] = "moe.run"(%[[SENT]]) {chunk = 0 : i64, hop = 0 : i64, kind = "experts"
// CHECK:         %[[BACK:.*]] = "moe.exchange"(%[[OUT]]) {axes = ["node"], {{.*}} way = "combine"}
// CHECK:         "moe.run"() {chunk = -1 : i64, hop = 0 : i64, kind = "local"
// CHECK:         "moe.run"(%[[BACK]]) {{.*}} kind = "shared"
// CHECK:       }) {buffers = 1 : i64, chunks = 1 : i64, deduplicate = true, hops = {{\[\[}}"node"]], local_first = true, split = "tokens", sym_name = "forward", wiring = {capacity = false, ep = ["node"], mesh = ["node", "gpu"], shared = true, shared_tp = [], tokens = ["node", "gpu"], tp = []}}
// CHECK-NOT:   "moe.schedule"
// CHECK:       remark: schedule-exchange: one chunk; direct over node; {{.*}} times as fast as one blocking all-to-all each way
// CHECK:       remark: schedule-exchange: not one chunk; direct over node; one row for each pair; {{.*}} more over node
// CHECK:       remark: schedule-exchange: no hierarchical exchange: experts lie along one axis
// CHECK:       remark: schedule-exchange: no rows of lower dimension: not applicable: every expert multiplies rows of x by a matrix of its own
module attributes {moe.layer = "Small", moe.routed = {experts = 6 : i64, name = "routed"}, moe.parallel = {
    holders = [[0], [0], [0], [0], [1], [1]], layout = "Serve", overlap, partial, pins = [], replicate = [], requires = [],
    mesh = {axes = [{bandwidth, latency, name = "node", size = 2 : i64}, {bandwidth, latency, name = "gpu", size = 2 : i64}],
            flops, memory, name = "Pod"},
    routed = {counts = [4, 2], ep = ["node"], experts = "routed", tp = []}, sends = {combine, dispatch},
    shared = [{counts, ep = [], experts = "common", tp = []}], slots = 4 : i64, tokens = ["node", "gpu"]}} {
  func.func @Small(
      %x: tensor<?x24xbf16> {moe.name = "x", moe.role = "input"},
      %wr: tensor<6x24xf32> {moe.name = "router.logits.weight", moe.role = "parameter"},
      %wg: tensor<6x10x24xbf16> {moe.name = "routed.gate.weight", moe.role = "parameter"},
      %wu: tensor<6x10x24xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"},
      %wd: tensor<6x24x10xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"},
      %sg: tensor<2x10x24xbf16> {moe.name = "common.gate.weight", moe.role = "parameter"},
      %su: tensor<2x10x24xbf16> {moe.name = "common.up.weight", moe.role = "parameter"},
      %sd: tensor<2x24x10xbf16> {moe.name = "common.down.weight", moe.role = "parameter"})
      -> (tensor<?x24xbf16> {moe.name = "y"}) {
    %index, %weight = "moe.route"(%x) ({
    ^bb0(%row: tensor<24xbf16>):
      %zero = arith.constant dense<0.0> : tensor<6xf32>
      %low = arith.constant 0xFF800000 : f32
      %none = arith.constant 0.0 : f32
      %logits = linalg.matvec ins(%wr, %row : tensor<6x24xf32>, tensor<24xbf16>) outs(%zero : tensor<6xf32>) -> tensor<6xf32>
      %first = tensor.splat %low : tensor<f32>
      %max = linalg.reduce { arith.maximumf } ins(%logits : tensor<6xf32>) outs(%first : tensor<f32>) dimensions = [0]
      %empty = tensor.empty() : tensor<6xf32>
      %spread = linalg.broadcast ins(%max : tensor<f32>) outs(%empty : tensor<6xf32>) dimensions = [0]
      %shifted = arith.subf %logits, %spread : tensor<6xf32>
      %exp = math.exp %shifted : tensor<6xf32>
      %start = tensor.splat %none : tensor<f32>
      %sum = linalg.reduce { arith.addf } ins(%exp : tensor<6xf32>) outs(%start : tensor<f32>) dimensions = [0]
      %total = linalg.broadcast ins(%sum : tensor<f32>) outs(%empty : tensor<6xf32>) dimensions = [0]
      %p = arith.divf %exp, %total : tensor<6xf32>
      %pick = "moe.top_k"(%p) {k = 2 : i64} : (tensor<6xf32>) -> tensor<2xi32>
      %w = "moe.take"(%p, %pick) : (tensor<6xf32>, tensor<2xi32>) -> tensor<2xf32>
      "moe.yield_choice"(%pick, %w) : (tensor<2xi32>, tensor<2xf32>) -> ()
    }) : (tensor<?x24xbf16>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
    %rows, %offsets, %slots = "moe.dispatch"(%x, %index) {experts = 6 : i64} : (tensor<?x24xbf16>, tensor<?x2xi32>) -> (tensor<?x24xbf16>, tensor<7xi32>, tensor<?xi32>)
    %out = "moe.experts"(%rows, %offsets) ({
    ^bb0(%row: tensor<24xbf16>):
      %zero = arith.constant dense<0.0> : tensor<10xf32>
      %zero24 = arith.constant dense<0.0> : tensor<24xf32>
      %one = arith.constant dense<1.0> : tensor<10xf32>
      %g = "moe.own"(%wg) : (tensor<6x10x24xbf16>) -> tensor<10x24xbf16>
      %gate = linalg.matvec ins(%g, %row : tensor<10x24xbf16>, tensor<24xbf16>) outs(%zero : tensor<10xf32>) -> tensor<10xf32>
      %u = "moe.own"(%wu) : (tensor<6x10x24xbf16>) -> tensor<10x24xbf16>
      %up = linalg.matvec ins(%u, %row : tensor<10x24xbf16>, tensor<24xbf16>) outs(%zero : tensor<10xf32>) -> tensor<10xf32>
      %neg = arith.negf %gate : tensor<10xf32>
      %e = math.exp %neg : tensor<10xf32>
      %den = arith.addf %e, %one : tensor<10xf32>
      %silu = arith.divf %gate, %den : tensor<10xf32>
      %h32 = arith.mulf %silu, %up : tensor<10xf32>
      %h = arith.truncf %h32 : tensor<10xf32> to tensor<10xbf16>
      %d = "moe.own"(%wd) : (tensor<6x24x10xbf16>) -> tensor<24x10xbf16>
      %down = linalg.matvec ins(%d, %h : tensor<24x10xbf16>, tensor<10xbf16>) outs(%zero24 : tensor<24xf32>) -> tensor<24xf32>
      "moe.yield"(%down) : (tensor<24xf32>) -> ()
    }) : (tensor<?x24xbf16>, tensor<7xi32>) -> tensor<?x24xf32>
    %combined = "moe.combine"(%out, %slots, %weight) : (tensor<?x24xf32>, tensor<?xi32>, tensor<?x2xf32>) -> tensor<?x24xf32>
    %shared = "moe.shared"(%x) ({
    ^bb0(%row: tensor<24xbf16>):
      %zero = arith.constant dense<0.0> : tensor<10xf32>
      %zero24 = arith.constant dense<0.0> : tensor<24xf32>
      %one = arith.constant dense<1.0> : tensor<10xf32>
      %g = "moe.own"(%sg) : (tensor<2x10x24xbf16>) -> tensor<10x24xbf16>
      %gate = linalg.matvec ins(%g, %row : tensor<10x24xbf16>, tensor<24xbf16>) outs(%zero : tensor<10xf32>) -> tensor<10xf32>
      %u = "moe.own"(%su) : (tensor<2x10x24xbf16>) -> tensor<10x24xbf16>
      %up = linalg.matvec ins(%u, %row : tensor<10x24xbf16>, tensor<24xbf16>) outs(%zero : tensor<10xf32>) -> tensor<10xf32>
      %neg = arith.negf %gate : tensor<10xf32>
      %e = math.exp %neg : tensor<10xf32>
      %den = arith.addf %e, %one : tensor<10xf32>
      %silu = arith.divf %gate, %den : tensor<10xf32>
      %h32 = arith.mulf %silu, %up : tensor<10xf32>
      %h = arith.truncf %h32 : tensor<10xf32> to tensor<10xbf16>
      %d = "moe.own"(%sd) : (tensor<2x24x10xbf16>) -> tensor<24x10xbf16>
      %down = linalg.matvec ins(%d, %h : tensor<24x10xbf16>, tensor<10xbf16>) outs(%zero24 : tensor<24xf32>) -> tensor<24xf32>
      "moe.yield"(%down) : (tensor<24xf32>) -> ()
    }) {count = 2 : i64} : (tensor<?x24xbf16>) -> tensor<?x24xf32>
    %both = arith.addf %combined, %shared : tensor<?x24xf32>
    %y = arith.truncf %both : tensor<?x24xf32> to tensor<?x24xbf16>
    return %y : tensor<?x24xbf16>
  }
}
