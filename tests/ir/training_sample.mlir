// The functions of a SwiGLU layer of 6 experts, 2 a token, that is trained with a load balance loss and a z-loss.
module attributes {moe.layer = "Small", moe.losses = [{kind = "balance", over = "batch", weight = 1.0e-02 : f64}, {kind = "z", over = "batch", weight = 1.0e-03 : f64}]} {
  func.func @Small(
      %x: tensor<?x24xbf16> {moe.name = "x", moe.role = "input"},
      %wr: tensor<6x24xf32> {moe.name = "router.logits.weight", moe.role = "parameter"},
      %wg: tensor<6x10x24xbf16> {moe.name = "routed.gate.weight", moe.role = "parameter"},
      %wu: tensor<6x10x24xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"},
      %wd: tensor<6x24x10xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"})
      -> (tensor<?x24xbf16> {moe.name = "y"}) {
    %low = arith.constant dense<0xFF800000> : tensor<f32>
    %none = arith.constant dense<0.0> : tensor<f32>
    %wr1 = tensor.expand_shape %wr [[0, 1], [2]] output_shape [1, 6, 24] : tensor<6x24xf32> into tensor<1x6x24xf32>
    %logits = "moe.matmul"(%x, %wr1) ({
    ^bb0(%acc: f32):
      "moe.yield"(%acc) : (f32) -> ()
    }) {operandSegmentSizes = array<i32: 1, 1>} : (tensor<?x24xbf16>, tensor<1x6x24xf32>) -> tensor<?x6xf32>
    %index, %weight = "moe.route"(%x) ({
    ^bb0(%token: tensor<24xbf16>):
      %z = "moe.row"(%logits) : (tensor<?x6xf32>) -> tensor<6xf32>
      %max = linalg.reduce { arith.maximumf } ins(%z : tensor<6xf32>) outs(%low : tensor<f32>) dimensions = [0]
      %empty = tensor.empty() : tensor<6xf32>
      %spread = linalg.broadcast ins(%max : tensor<f32>) outs(%empty : tensor<6xf32>) dimensions = [0]
      %shifted = arith.subf %z, %spread : tensor<6xf32>
      %exp = math.exp %shifted : tensor<6xf32>
      %sum = linalg.reduce { arith.addf } ins(%exp : tensor<6xf32>) outs(%none : tensor<f32>) dimensions = [0]
      %total = linalg.broadcast ins(%sum : tensor<f32>) outs(%empty : tensor<6xf32>) dimensions = [0]
      %p = arith.divf %exp, %total : tensor<6xf32>
      %pick = "moe.top_k"(%p) {k = 2 : i64} : (tensor<6xf32>) -> tensor<2xi32>
      %w = "moe.take"(%p, %pick) : (tensor<6xf32>, tensor<2xi32>) -> tensor<2xf32>
      "moe.yield_choice"(%pick, %w) : (tensor<2xi32>, tensor<2xf32>) -> ()
    }) : (tensor<?x24xbf16>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
    %offsets, %slots = "moe.plan"(%index) {direct_max_tokens = 1 : i64, experts = 6 : i64} : (tensor<?x2xi32>) -> (tensor<7xi32>, tensor<?xi32>)
    %h = "moe.grouped_matmul"(%x, %offsets, %slots, %wg, %wu) ({
    ^bb0(%gate: f32, %up: f32):
      %one = arith.constant 1.0 : f32
      %negated = arith.negf %gate : f32
      %exp = math.exp %negated : f32
      %below = arith.addf %exp, %one : f32
      %silu = arith.divf %gate, %below : f32
      %product = arith.mulf %silu, %up : f32
      %rounded = arith.truncf %product : f32 to bf16
      "moe.yield"(%rounded) : (bf16) -> ()
    }) {gather = true, operandSegmentSizes = array<i32: 1, 1, 1, 2>, slots_per_token = 2 : i64} : (tensor<?x24xbf16>, tensor<7xi32>, tensor<?xi32>, tensor<6x10x24xbf16>, tensor<6x10x24xbf16>) -> tensor<?x10xbf16>
    %y = "moe.grouped_matmul_combine"(%h, %weight, %offsets, %slots, %wd) ({
    ^bb0(%acc: f32):
      %w = "moe.element"(%weight) {kind = "slot"} : (tensor<?x2xf32>) -> f32
      %weighted = arith.mulf %acc, %w : f32
      "moe.yield"(%weighted) : (f32) -> ()
    }, {
    ^bb0(%sum: f32):
      %rounded = arith.truncf %sum : f32 to bf16
      "moe.yield"(%rounded) : (bf16) -> ()
    }) {gather = false, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1>, slots_per_token = 2 : i64} : (tensor<?x10xbf16>, tensor<?x2xf32>, tensor<7xi32>, tensor<?xi32>, tensor<6x24x10xbf16>) -> tensor<?x24xbf16>
    return %y : tensor<?x24xbf16>
  }

  func.func @Small_forward(
      %x: tensor<?x24xbf16> {moe.name = "x", moe.role = "input"},
      %wr: tensor<6x24xf32> {moe.name = "router.logits.weight", moe.role = "parameter"},
      %wg: tensor<6x10x24xbf16> {moe.name = "routed.gate.weight", moe.role = "parameter"},
      %wu: tensor<6x10x24xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"},
      %wd: tensor<6x24x10xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"})
      -> (tensor<?x24xbf16> {moe.name = "y", moe.role = "output"},
          tensor<?x6xf32> {moe.name = "probability", moe.role = "loss"},
          tensor<6xi32> {moe.name = "count", moe.role = "loss"},
          tensor<?x1xf32> {moe.name = "z", moe.role = "loss"},
          tensor<?x6xf32> {moe.name = "router.logits", moe.role = "saved"},
          tensor<?x2xi32> {moe.name = "routed.index", moe.role = "saved"},
          tensor<?x2xf32> {moe.name = "routed.weight", moe.role = "saved"},
          tensor<?x10xbf16> {moe.name = "routed.gate", moe.role = "saved"},
          tensor<?x10xbf16> {moe.name = "routed.up", moe.role = "saved"})
      attributes {moe.weights = "plain"} {
    %low = arith.constant dense<0xFF800000> : tensor<f32>
    %none = arith.constant dense<0.0> : tensor<f32>
    %wr1 = tensor.expand_shape %wr [[0, 1], [2]] output_shape [1, 6, 24] : tensor<6x24xf32> into tensor<1x6x24xf32>
    %logits = "moe.matmul"(%x, %wr1) ({
    ^bb0(%acc: f32):
      "moe.yield"(%acc) : (f32) -> ()
    }) {operandSegmentSizes = array<i32: 1, 1>} : (tensor<?x24xbf16>, tensor<1x6x24xf32>) -> tensor<?x6xf32>
    %index, %weight = "moe.route"(%x) ({
    ^bb0(%token: tensor<24xbf16>):
      %z = "moe.row"(%logits) : (tensor<?x6xf32>) -> tensor<6xf32>
      %max = linalg.reduce { arith.maximumf } ins(%z : tensor<6xf32>) outs(%low : tensor<f32>) dimensions = [0]
      %empty = tensor.empty() : tensor<6xf32>
      %spread = linalg.broadcast ins(%max : tensor<f32>) outs(%empty : tensor<6xf32>) dimensions = [0]
      %shifted = arith.subf %z, %spread : tensor<6xf32>
      %exp = math.exp %shifted : tensor<6xf32>
      %sum = linalg.reduce { arith.addf } ins(%exp : tensor<6xf32>) outs(%none : tensor<f32>) dimensions = [0]
      %total = linalg.broadcast ins(%sum : tensor<f32>) outs(%empty : tensor<6xf32>) dimensions = [0]
      %p = arith.divf %exp, %total : tensor<6xf32>
      %pick = "moe.top_k"(%p) {k = 2 : i64} : (tensor<6xf32>) -> tensor<2xi32>
      %w = "moe.take"(%p, %pick) : (tensor<6xf32>, tensor<2xi32>) -> tensor<2xf32>
      "moe.yield_choice"(%pick, %w) : (tensor<2xi32>, tensor<2xf32>) -> ()
    }) : (tensor<?x24xbf16>) -> (tensor<?x2xi32>, tensor<?x2xf32>)
    %probability = "moe.map"(%x) ({
      %z = "moe.row"(%logits) : (tensor<?x6xf32>) -> tensor<6xf32>
      %max = linalg.reduce { arith.maximumf } ins(%z : tensor<6xf32>) outs(%low : tensor<f32>) dimensions = [0]
      %empty = tensor.empty() : tensor<6xf32>
      %spread = linalg.broadcast ins(%max : tensor<f32>) outs(%empty : tensor<6xf32>) dimensions = [0]
      %shifted = arith.subf %z, %spread : tensor<6xf32>
      %exp = math.exp %shifted : tensor<6xf32>
      %sum = linalg.reduce { arith.addf } ins(%exp : tensor<6xf32>) outs(%none : tensor<f32>) dimensions = [0]
      %total = linalg.broadcast ins(%sum : tensor<f32>) outs(%empty : tensor<6xf32>) dimensions = [0]
      %p = arith.divf %exp, %total : tensor<6xf32>
      "moe.yield"(%p) : (tensor<6xf32>) -> ()
    }) : (tensor<?x24xbf16>) -> tensor<?x6xf32>
    %count = "moe.count"(%index) : (tensor<?x2xi32>) -> tensor<6xi32>
    %zloss = "moe.map"(%x) ({
      %z = "moe.row"(%logits) : (tensor<?x6xf32>) -> tensor<6xf32>
      %max = linalg.reduce { arith.maximumf } ins(%z : tensor<6xf32>) outs(%low : tensor<f32>) dimensions = [0]
      %empty = tensor.empty() : tensor<6xf32>
      %spread = linalg.broadcast ins(%max : tensor<f32>) outs(%empty : tensor<6xf32>) dimensions = [0]
      %shifted = arith.subf %z, %spread : tensor<6xf32>
      %exp = math.exp %shifted : tensor<6xf32>
      %sum = linalg.reduce { arith.addf } ins(%exp : tensor<6xf32>) outs(%none : tensor<f32>) dimensions = [0]
      %log = math.log %sum : tensor<f32>
      %lse = arith.addf %log, %max : tensor<f32>
      %square = arith.mulf %lse, %lse : tensor<f32>
      %one = tensor.expand_shape %square [] output_shape [1] : tensor<f32> into tensor<1xf32>
      "moe.yield"(%one) : (tensor<1xf32>) -> ()
    }) : (tensor<?x24xbf16>) -> tensor<?x1xf32>
    %offsets, %slots = "moe.plan"(%index) {direct_max_tokens = 1 : i64, experts = 6 : i64} : (tensor<?x2xi32>) -> (tensor<7xi32>, tensor<?xi32>)
    %h, %g, %u = "moe.grouped_matmul"(%x, %offsets, %slots, %wg, %wu) ({
    ^bb0(%gate: f32, %up: f32):
      %one = arith.constant 1.0 : f32
      %negated = arith.negf %gate : f32
      %exp = math.exp %negated : f32
      %below = arith.addf %exp, %one : f32
      %silu = arith.divf %gate, %below : f32
      %product = arith.mulf %silu, %up : f32
      %rounded = arith.truncf %product : f32 to bf16
      %gate16 = arith.truncf %gate : f32 to bf16
      %up16 = arith.truncf %up : f32 to bf16
      "moe.yield"(%rounded, %gate16, %up16) : (bf16, bf16, bf16) -> ()
    }) {gather = true, operandSegmentSizes = array<i32: 1, 1, 1, 2>, slots_per_token = 2 : i64} : (tensor<?x24xbf16>, tensor<7xi32>, tensor<?xi32>, tensor<6x10x24xbf16>, tensor<6x10x24xbf16>) -> (tensor<?x10xbf16>, tensor<?x10xbf16>, tensor<?x10xbf16>)
    %y = "moe.grouped_matmul_combine"(%h, %weight, %offsets, %slots, %wd) ({
    ^bb0(%acc: f32):
      %w = "moe.element"(%weight) {kind = "slot"} : (tensor<?x2xf32>) -> f32
      %weighted = arith.mulf %acc, %w : f32
      "moe.yield"(%weighted) : (f32) -> ()
    }, {
    ^bb0(%sum: f32):
      %rounded = arith.truncf %sum : f32 to bf16
      "moe.yield"(%rounded) : (bf16) -> ()
    }) {gather = false, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1>, slots_per_token = 2 : i64} : (tensor<?x10xbf16>, tensor<?x2xf32>, tensor<7xi32>, tensor<?xi32>, tensor<6x24x10xbf16>) -> tensor<?x24xbf16>
    return %y, %probability, %count, %zloss, %logits, %index, %weight, %g, %u : tensor<?x24xbf16>, tensor<?x6xf32>, tensor<6xi32>, tensor<?x1xf32>, tensor<?x6xf32>, tensor<?x2xi32>, tensor<?x2xf32>, tensor<?x10xbf16>, tensor<?x10xbf16>
  }

  func.func @Small_backward(
      %x: tensor<?x24xbf16> {moe.name = "x", moe.role = "input"},
      %wr: tensor<6x24xf32> {moe.name = "router.logits.weight", moe.role = "parameter"},
      %wg: tensor<6x10x24xbf16> {moe.name = "routed.gate.weight", moe.role = "parameter"},
      %wu: tensor<6x10x24xbf16> {moe.name = "routed.up.weight", moe.role = "parameter"},
      %wd: tensor<6x24x10xbf16> {moe.name = "routed.down.weight", moe.role = "parameter"},
      %logits: tensor<?x6xf32> {moe.name = "router.logits", moe.role = "saved"},
      %index: tensor<?x2xi32> {moe.name = "routed.index", moe.role = "saved"},
      %weight: tensor<?x2xf32> {moe.name = "routed.weight", moe.role = "saved"},
      %g: tensor<?x10xbf16> {moe.name = "routed.gate", moe.role = "saved"},
      %u: tensor<?x10xbf16> {moe.name = "routed.up", moe.role = "saved"},
      %dy: tensor<?x24xbf16> {moe.name = "d.y", moe.role = "gradient"},
      %dprobability: tensor<?x6xf32> {moe.name = "d.probability", moe.role = "gradient"},
      %dz: tensor<?x1xf32> {moe.name = "d.z", moe.role = "gradient"})
      -> (tensor<?x24xbf16> {moe.name = "d.x", moe.role = "gradient"},
          tensor<6x24xf32> {moe.name = "d.router.logits.weight", moe.role = "gradient"},
          tensor<6x10x24xbf16> {moe.name = "d.routed.gate.weight", moe.role = "gradient"},
          tensor<6x10x24xbf16> {moe.name = "d.routed.up.weight", moe.role = "gradient"},
          tensor<6x24x10xbf16> {moe.name = "d.routed.down.weight", moe.role = "gradient"})
      attributes {moe.weights = "plain"} {
    %low = arith.constant dense<0xFF800000> : tensor<f32>
    %none = arith.constant dense<0.0> : tensor<f32>
    %offsets, %slots = "moe.plan"(%index) {direct_max_tokens = 1 : i64, experts = 6 : i64} : (tensor<?x2xi32>) -> (tensor<7xi32>, tensor<?xi32>)
    %dg, %du, %hw, %da = "moe.grouped_matmul"(%dy, %offsets, %slots, %wd) ({
    ^bb0(%acc: f32):
      %one = arith.constant 1.0 : f32
      %w = "moe.element"(%weight) {kind = "slot"} : (tensor<?x2xf32>) -> f32
      %gate16 = "moe.element"(%g) {kind = "row"} : (tensor<?x10xbf16>) -> bf16
      %up16 = "moe.element"(%u) {kind = "row"} : (tensor<?x10xbf16>) -> bf16
      %gate = arith.extf %gate16 : bf16 to f32
      %up = arith.extf %up16 : bf16 to f32
      %negated = arith.negf %gate : f32
      %exp = math.exp %negated : f32
      %below = arith.addf %exp, %one : f32
      %silu = arith.divf %gate, %below : f32
      %h = arith.mulf %silu, %up : f32
      %dh = arith.mulf %acc, %w : f32
      %dup = arith.mulf %dh, %silu : f32
      %dsilu = arith.mulf %dh, %up : f32
      %sigmoid = arith.divf %one, %below : f32
      %opposite = arith.subf %one, %silu : f32
      %inner = arith.mulf %sigmoid, %opposite : f32
      %slope = arith.addf %inner, %silu : f32
      %dgate = arith.mulf %dsilu, %slope : f32
      %hweighted = arith.mulf %h, %w : f32
      %dgate16 = arith.truncf %dgate : f32 to bf16
      %dup16 = arith.truncf %dup : f32 to bf16
      %hweighted16 = arith.truncf %hweighted : f32 to bf16
      %acc16 = arith.truncf %acc : f32 to bf16
      "moe.yield"(%dgate16, %dup16, %hweighted16, %acc16) : (bf16, bf16, bf16, bf16) -> ()
    }) {gather = true, operandSegmentSizes = array<i32: 1, 1, 1, 1>, slots_per_token = 2 : i64, transposed} : (tensor<?x24xbf16>, tensor<7xi32>, tensor<?xi32>, tensor<6x24x10xbf16>) -> (tensor<?x10xbf16>, tensor<?x10xbf16>, tensor<?x10xbf16>, tensor<?x10xbf16>)
    %dot = "moe.map"(%da) ({
      %one = arith.constant dense<1.0> : tensor<10xf32>
      %gate16 = "moe.row"(%g) : (tensor<?x10xbf16>) -> tensor<10xbf16>
      %up16 = "moe.row"(%u) : (tensor<?x10xbf16>) -> tensor<10xbf16>
      %da16 = "moe.row"(%da) : (tensor<?x10xbf16>) -> tensor<10xbf16>
      %gate = arith.extf %gate16 : tensor<10xbf16> to tensor<10xf32>
      %up = arith.extf %up16 : tensor<10xbf16> to tensor<10xf32>
      %dh = arith.extf %da16 : tensor<10xbf16> to tensor<10xf32>
      %negated = arith.negf %gate : tensor<10xf32>
      %exp = math.exp %negated : tensor<10xf32>
      %below = arith.addf %exp, %one : tensor<10xf32>
      %silu = arith.divf %gate, %below : tensor<10xf32>
      %h = arith.mulf %silu, %up : tensor<10xf32>
      %product = arith.mulf %dh, %h : tensor<10xf32>
      %sum = linalg.reduce { arith.addf } ins(%product : tensor<10xf32>) outs(%none : tensor<f32>) dimensions = [0]
      %column = tensor.expand_shape %sum [] output_shape [1] : tensor<f32> into tensor<1xf32>
      "moe.yield"(%column) : (tensor<1xf32>) -> ()
    }) : (tensor<?x10xbf16>) -> tensor<?x1xf32>
    %dweight = "moe.slot_values"(%dot, %slots, %index) : (tensor<?x1xf32>, tensor<?xi32>, tensor<?x2xi32>) -> tensor<?x2xf32>
    %dwd = "moe.weight_gradient"(%dy, %hw, %offsets, %slots) {gather_a = true, gather_b = false, slots_per_token = 2 : i64} : (tensor<?x24xbf16>, tensor<?x10xbf16>, tensor<7xi32>, tensor<?xi32>) -> tensor<6x24x10xbf16>
    %dwg = "moe.weight_gradient"(%dg, %x, %offsets, %slots) {gather_a = false, gather_b = true, slots_per_token = 2 : i64} : (tensor<?x10xbf16>, tensor<?x24xbf16>, tensor<7xi32>, tensor<?xi32>) -> tensor<6x10x24xbf16>
    %dwu = "moe.weight_gradient"(%du, %x, %offsets, %slots) {gather_a = false, gather_b = true, slots_per_token = 2 : i64} : (tensor<?x10xbf16>, tensor<?x24xbf16>, tensor<7xi32>, tensor<?xi32>) -> tensor<6x10x24xbf16>
    %dlogits = "moe.map"(%logits) ({
      %empty = tensor.empty() : tensor<6xf32>
      %z = "moe.row"(%logits) : (tensor<?x6xf32>) -> tensor<6xf32>
      %pick = "moe.row"(%index) : (tensor<?x2xi32>) -> tensor<2xi32>
      %dw = "moe.row"(%dweight) : (tensor<?x2xf32>) -> tensor<2xf32>
      %dprob = "moe.row"(%dprobability) : (tensor<?x6xf32>) -> tensor<6xf32>
      %dsquare1 = "moe.row"(%dz) : (tensor<?x1xf32>) -> tensor<1xf32>
      %max = linalg.reduce { arith.maximumf } ins(%z : tensor<6xf32>) outs(%low : tensor<f32>) dimensions = [0]
      %spread = linalg.broadcast ins(%max : tensor<f32>) outs(%empty : tensor<6xf32>) dimensions = [0]
      %shifted = arith.subf %z, %spread : tensor<6xf32>
      %exp = math.exp %shifted : tensor<6xf32>
      %sum = linalg.reduce { arith.addf } ins(%exp : tensor<6xf32>) outs(%none : tensor<f32>) dimensions = [0]
      %total = linalg.broadcast ins(%sum : tensor<f32>) outs(%empty : tensor<6xf32>) dimensions = [0]
      %p = arith.divf %exp, %total : tensor<6xf32>
      %put = "moe.put"(%dw, %pick) : (tensor<2xf32>, tensor<2xi32>) -> tensor<6xf32>
      %dp = arith.addf %put, %dprob : tensor<6xf32>
      %dpp = arith.mulf %dp, %p : tensor<6xf32>
      %inner = linalg.reduce { arith.addf } ins(%dpp : tensor<6xf32>) outs(%none : tensor<f32>) dimensions = [0]
      %inners = linalg.broadcast ins(%inner : tensor<f32>) outs(%empty : tensor<6xf32>) dimensions = [0]
      %centred = arith.subf %dp, %inners : tensor<6xf32>
      %from_p = arith.mulf %p, %centred : tensor<6xf32>
      %log = math.log %sum : tensor<f32>
      %lse = arith.addf %log, %max : tensor<f32>
      %twice = arith.addf %lse, %lse : tensor<f32>
      %dsquare = tensor.collapse_shape %dsquare1 [] : tensor<1xf32> into tensor<f32>
      %dlse = arith.mulf %dsquare, %twice : tensor<f32>
      %dlses = linalg.broadcast ins(%dlse : tensor<f32>) outs(%empty : tensor<6xf32>) dimensions = [0]
      %from_z = arith.mulf %p, %dlses : tensor<6xf32>
      %both = arith.addf %from_p, %from_z : tensor<6xf32>
      "moe.yield"(%both) : (tensor<6xf32>) -> ()
    }) : (tensor<?x6xf32>) -> tensor<?x6xf32>
    %dwr1 = "moe.dense_weight_gradient"(%dlogits, %x) : (tensor<?x6xf32>, tensor<?x24xbf16>) -> tensor<1x6x24xf32>
    %dwr = tensor.collapse_shape %dwr1 [[0, 1], [2]] : tensor<1x6x24xf32> into tensor<6x24xf32>
    %wr1 = tensor.expand_shape %wr [[0, 1], [2]] output_shape [1, 6, 24] : tensor<6x24xf32> into tensor<1x6x24xf32>
    %dx0 = "moe.matmul"(%dlogits, %wr1) ({
    ^bb0(%acc: f32):
      "moe.yield"(%acc) : (f32) -> ()
    }) {operandSegmentSizes = array<i32: 1, 1>, transposed} : (tensor<?x6xf32>, tensor<1x6x24xf32>) -> tensor<?x24xf32>
    %dx1 = "moe.grouped_matmul_combine"(%dg, %index, %offsets, %slots, %wg) ({
    ^bb0(%acc: f32):
      "moe.yield"(%acc) : (f32) -> ()
    }, {
    ^bb0(%sum: f32):
      %before = "moe.element"(%dx0) {kind = "token"} : (tensor<?x24xf32>) -> f32
      %both = arith.addf %sum, %before : f32
      "moe.yield"(%both) : (f32) -> ()
    }) {gather = false, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1>, slots_per_token = 2 : i64, transposed} : (tensor<?x10xbf16>, tensor<?x2xi32>, tensor<7xi32>, tensor<?xi32>, tensor<6x10x24xbf16>) -> tensor<?x24xf32>
    %dx = "moe.grouped_matmul_combine"(%du, %index, %offsets, %slots, %wu) ({
    ^bb0(%acc: f32):
      "moe.yield"(%acc) : (f32) -> ()
    }, {
    ^bb0(%sum: f32):
      %before = "moe.element"(%dx1) {kind = "token"} : (tensor<?x24xf32>) -> f32
      %both = arith.addf %sum, %before : f32
      %rounded = arith.truncf %both : f32 to bf16
      "moe.yield"(%rounded) : (bf16) -> ()
    }) {gather = false, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1>, slots_per_token = 2 : i64, transposed} : (tensor<?x10xbf16>, tensor<?x2xi32>, tensor<7xi32>, tensor<?xi32>, tensor<6x10x24xbf16>) -> tensor<?x24xbf16>
    return %dx, %dwr, %dwg, %dwu, %dwd : tensor<?x24xbf16>, tensor<6x24xf32>, tensor<6x10x24xbf16>, tensor<6x10x24xbf16>, tensor<6x24x10xbf16>
  }
}
