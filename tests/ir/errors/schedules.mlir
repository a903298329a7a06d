// ERROR: is not sound: step experts.0: does not wait for arrived.0 of chunk 0, of dispatch.0
"moe.schedule"() ({
  %0 = "moe.run"() {chunk = -1 : i64, hop = 0 : i64, kind = "route", step = "route", stream = "compute", way = ""} : () -> !moe.signal
  %1 = "moe.exchange"(%0) {axes = ["gpu"], chunk = -1 : i64, hop = 0 : i64, kind = "counts", step = "counts", stream = "net.all", way = ""} : (!moe.signal) -> !moe.signal
  %2 = "moe.run"() {chunk = 0 : i64, hop = 0 : i64, kind = "pack", step = "pack.0", stream = "compute", way = ""} : () -> !moe.signal
  %3 = "moe.exchange"(%2) {axes = ["gpu"], chunk = 0 : i64, hop = 0 : i64, kind = "exchange", step = "dispatch.0", stream = "net.all", way = "dispatch"} : (!moe.signal) -> !moe.signal
  %4 = "moe.run"() {chunk = 0 : i64, hop = 0 : i64, kind = "experts", step = "experts.0", stream = "compute", way = ""} : () -> !moe.signal
  %5 = "moe.exchange"(%4) {axes = ["gpu"], chunk = 0 : i64, hop = 0 : i64, kind = "exchange", step = "combine.0", stream = "net.all", way = "combine"} : (!moe.signal) -> !moe.signal
  %6 = "moe.run"(%5) {chunk = 0 : i64, hop = 0 : i64, kind = "collect", step = "collect.0", stream = "compute", way = ""} : (!moe.signal) -> !moe.signal
}) {buffers = 1 : i64, chunks = 1 : i64, deduplicate = true, hops = [["gpu"]], local_first = false, split = "tokens", sym_name = "forward", wiring = {capacity = false, ep = ["gpu"], mesh = ["gpu"], shared = false, shared_tp = [], tokens = ["gpu"], tp = []}} : () -> ()
// -----
// ERROR: is not sound: its hops must be over gpu
"moe.schedule"() ({
  %0 = "moe.run"() {chunk = -1 : i64, hop = 0 : i64, kind = "route", step = "route", stream = "compute", way = ""} : () -> !moe.signal
}) {buffers = 1 : i64, chunks = 1 : i64, deduplicate = true, hops = [], local_first = false, split = "tokens", sym_name = "forward", wiring = {capacity = false, ep = ["gpu"], mesh = ["gpu"], shared = false, shared_tp = [], tokens = ["gpu"], tp = []}} : () -> ()
// -----
// ERROR: must stand in a moe.schedule
%0 = "moe.run"() {chunk = -1 : i64, hop = 0 : i64, kind = "route", step = "route", stream = "compute", way = ""} : () -> !moe.signal
// -----
// ERROR: a step of kind counts is a moe.exchange
"moe.schedule"() ({
  %0 = "moe.run"() {chunk = -1 : i64, hop = 0 : i64, kind = "counts", step = "counts", stream = "net.all", way = ""} : () -> !moe.signal
}) {buffers = 1 : i64, chunks = 1 : i64, deduplicate = true, hops = [["gpu"]], local_first = false, split = "tokens", sym_name = "forward", wiring = {capacity = false, ep = ["gpu"], mesh = ["gpu"], shared = false, shared_tp = [], tokens = ["gpu"], tp = []}} : () -> ()
// -----
// ERROR: there is no way sideways
"moe.schedule"() ({
  %0 = "moe.exchange"() {axes = ["gpu"], chunk = 0 : i64, hop = 0 : i64, kind = "exchange", step = "dispatch.0", stream = "net.all", way = "sideways"} : () -> !moe.signal
}) {buffers = 1 : i64, chunks = 1 : i64, deduplicate = true, hops = [["gpu"]], local_first = false, split = "tokens", sym_name = "forward", wiring = {capacity = false, ep = ["gpu"], mesh = ["gpu"], shared = false, shared_tp = [], tokens = ["gpu"], tp = []}} : () -> ()
// -----
// ERROR: the body must consist of moe.run and moe.exchange
"moe.schedule"() ({
  %0 = arith.constant 1 : i32
}) {buffers = 1 : i64, chunks = 1 : i64, deduplicate = true, hops = [["gpu"]], local_first = false, split = "tokens", sym_name = "forward", wiring = {capacity = false, ep = ["gpu"], mesh = ["gpu"], shared = false, shared_tp = [], tokens = ["gpu"], tp = []}} : () -> ()
// -----
// ERROR: lacks an attribute or operand, or has one of a wrong kind
"moe.schedule"() ({
  %0 = "moe.run"() {chunk = -1 : i64, hop = 0 : i64, kind = "route", step = "route", stream = "compute", way = ""} : () -> !moe.signal
}) {buffers = 1 : i64, chunks = 1 : i64, deduplicate = true, hops = [["gpu"]], local_first = false, split = "tokens", sym_name = "forward", wiring = {}} : () -> ()
