"""Layouts on meshes: what is read, what extends what, and that no text of one makes checking fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moec.artifact.parallel import Overlap, Parallel, Pin, Replicate, Require, Sends, Sharding
from moec.diagnostics import Source
from moec.dialect import context
from moec.errors import DiagnosticError
from moec.frontend import load_layer, load_layer_text, lower, parse
from moec.frontend.format import format_source
from moec.passes import parallel as spread_over
from moec.schedule.mesh import Axis, Mesh
from moec.trace import Header, Sample, TraceWriter

HEAD = """edition 1
layer Demo(d = 64, ff = 64, hot = 2) {
  router softmax_top(2)
  experts routed[8] = swiglu(d, ff) : bf16
  shared common[2] = swiglu(d, ff) : bf16
}
load Chat { batch = 1..4096 }
mesh Pod {
  axis node[2] : link(1 Gbit/s, 50 us)
  axis gpu[2]  : link(10 GB/s)
  device       : memory(8 GiB), compute(0.1 TFLOP/s)
}
"""
POD = Mesh("Pod", (Axis("node", 2, 1.25e8, 5e-5), Axis("gpu", 2, 1e10)), 2**33, 1e11)
EP = "shard routed over node * gpu as ep"
FULL = """layout Serve for Demo on Pod under Chat {
  shard tokens over node as dp
  shard routed over node as ep, counts(3, 5), slots 8
  approx shard routed over gpu as tp
  approx shard common over gpu * node as tp
  replicate routed[0, 2..3] copies hot
  pin routed[6] to node 0
  overlap combine, dispatch with common in hot chunks
  approx send combine as int8
  approx combine per node
  require memory <= 2 GiB
  require 3 ms > time
  require exchange <= 40 %
}
"""


def spread(text: str, layout: str | None = None, folder: Path = Path()) -> Parallel:
    layer = load_layer_text(Source("demo.moe", text), folder, layout=layout)
    assert layer.layout is not None
    assert layer.layout.parallel is not None
    return layer.layout.parallel


def on_pod(body: str, head: str = HEAD) -> Parallel:
    return spread(f"{head}layout Serve for Demo on Pod under Chat {{\n{body}\n}}\n")


def test_everything() -> None:
    assert spread(HEAD + FULL) == Parallel(
        layout="Serve",
        mesh=POD,
        tokens=("node",),
        routed=Sharding("routed", ("node",), ("gpu",), (3, 5)),
        slots=8,
        holders=((0, 1), (0,), (0, 1), (0, 1), (1,), (1,), (0,), (1,)),
        shared=(Sharding("common", (), ("node", "gpu")),),
        overlap=Overlap(("dispatch", "combine"), True, 2),
        sends=Sends(None, "int8"),
        partial="node",
        replicate=(Replicate(2, (0, 2, 3)),),
        pins=(Pin((6,), "node", 0),),
        requires=(Require("memory", "<=", 2.0**31), Require("time", "<", 0.003), Require("exchange", "<=", 0.4)),
    )


def test_what_is_not_said() -> None:
    got = on_pod("approx shard routed over gpu as tp")
    assert (got.tokens, got.routed, got.slots) == (("node", "gpu"), Sharding("routed", (), ("gpu",)), 8)
    assert got.holders == ((0,),) * 8
    assert (got.overlap, got.partial, got.exact) == (None, None, False)
    got = on_pod(EP)
    assert got.exact
    assert got.holders == tuple((e // 2,) for e in range(8))
    assert on_pod("shard routed over gpu * node as ep").holders == tuple((e // 2,) for e in range(8))


def test_a_mesh_without_figures() -> None:
    text = HEAD[: HEAD.index("mesh")] + "mesh Pod { axis node[2]; axis gpu[1 + 1] : link(1 GB/s) }\n"
    assert on_pod(EP, text).mesh == Mesh("Pod", (Axis("node", 2), Axis("gpu", 2, 1e9)))


def test_it_reaches_the_ir() -> None:
    layer = load_layer_text(Source("demo.moe", HEAD + FULL))
    assert layer.layout is not None
    assert spread_over.parallel(lower(layer, context())) == layer.layout.parallel


def test_the_hottest_are_those_of_the_trace(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "chat.trace", Header("Demo", 8, 2)) as writer:
        writer.write(Sample(1.0, 12, (3, 5, 0, 5, 1, 5, 2, 3)))
    head = HEAD.replace("batch = 1..4096", 'batch = 1..4096; routing = trace("chat.trace")')
    body = "shard routed over node * gpu as ep\nreplicate hottest(routed, 2) copies 3"
    text = f"{head}layout Serve for Demo on Pod under Chat {{\n{body}\n}}\n"
    (tmp_path / "demo.moe").write_text(text)
    layout = load_layer(tmp_path / "demo.moe").layout
    assert layout is not None
    assert layout.parallel is not None
    assert layout.parallel.replicate == (Replicate(3, (1, 3), 2),)
    assert [len(at) for at in layout.parallel.holders] == [1, 3, 1, 3, 1, 1, 1, 1]
    assert layout.parallel.slots == 3


def test_a_layout_that_extends_another() -> None:
    text = HEAD + FULL.replace(", counts(3, 5), slots 8", "")
    text += "mesh Large { axis node[4]; axis gpu[2] }\n"
    text += "layout Big extends Serve on Large {\nshard routed over node as ep, counts(2, 2, 3, 1)\n"
    text += "require memory <= 1 GiB }\n"
    text += "layout Bigger extends Big { overlap dispatch; approx send dispatch as int8 }\n"
    serve, big, bigger = (spread(text, name) for name in ("Serve", "Big", "Bigger"))
    assert serve.routed == Sharding("routed", ("node",), ("gpu",))
    assert (big.mesh.name, big.routed) == ("Large", Sharding("routed", ("node",), ("gpu",), (2, 2, 3, 1)))
    assert big.requires == (serve.requires[1], serve.requires[2], Require("memory", "<=", 2.0**30))
    assert (big.overlap, big.sends, big.pins) == (serve.overlap, serve.sends, serve.pins)
    assert bigger.overlap == Overlap(("dispatch",))
    assert bigger.sends == Sends("int8", "int8")
    assert bigger.mesh == big.mesh


def test_a_load_may_be_replaced_too() -> None:
    text = HEAD + FULL + "load Other { batch = 3 }\nlayout Batch extends Serve under Other { }\n"
    layer = load_layer_text(Source("demo.moe", text), layout="Batch")
    assert layer.layout is not None
    assert layer.layout.policy.load is not None
    assert layer.layout.policy.load.name == "Other"
    assert layer.layout.name == layer.layout.policy.layout == "Batch"


def test_units_are_exact() -> None:
    for text, bandwidth in [("1 Gbit/s", 1.25e8), ("0.1 GB/s", 1e8), ("800 Mbit/s", 1e8), ("2.5TB/s", 2.5e12)]:
        for latency, seconds in [("7 us", 7e-6), ("0.3 ms", 3e-4), ("1 s", 1.0)]:
            head = HEAD.replace("1 Gbit/s, 50 us", f"{text}, {latency}")
            assert on_pod(EP, head).mesh.axes[0] == Axis("node", 2, bandwidth, seconds)


def test_formatting() -> None:
    text = "mesh  Pod{axis node[2]:link(1Gbit/s,50us)  # slow\ndevice:memory( 8GiB ),compute(2  TFLOP/s)}\n"
    want = "mesh Pod { axis node[2] : link(1 Gbit/s, 50 us)  # slow\n  device : memory(8 GiB), compute(2 TFLOP/s) }\n"
    assert format_source(Source("a.moe", text)) == want
    text = "layout A for B on C{\nshard routed over node*gpu as ep,counts( 3,5 )\nrequire exchange<=40%\n"
    text += "pin routed [0 .. 3,5] to node 0,gpu 1\noverlap dispatch,combine with c in 2 chunks}"
    want = "layout A for B on C {\n  shard routed over node * gpu as ep, counts(3, 5)\n  require exchange <= 40 %\n"
    want += "  pin routed[0..3, 5] to node 0, gpu 1\n  overlap dispatch, combine with c in 2 chunks }\n"
    assert format_source(Source("a.moe", text)) == want


@pytest.mark.parametrize("text", ["a = 40 % 3", "a = 40 %3", "a = b % 3", "a = f(40 % 3, 2 % -1)"])
def test_remainders_are_no_shares(text: str) -> None:
    assert "Quantity" not in repr(parse(Source("a.moe", text)))


EXPERTS = st.integers(0, 9).map(str) | st.tuples(st.integers(0, 7), st.integers(0, 7)).map("{0[0]}..{0[1]}".format)
AXES = st.sampled_from(["node", "gpu", "node * gpu", "gpu * node", "node * node", "rack"])
CHOSEN = st.lists(EXPERTS, min_size=1, max_size=3).map(lambda items: f"routed[{', '.join(items)}]")
GROUPS = st.sampled_from(["routed", "routed", "common", "tokens", "other"])
STATEMENT = st.one_of(
    st.builds("shard {} over {} as {}".format, GROUPS, AXES, st.sampled_from(["ep", "ep", "tp", "dp"])),
    st.builds("approx shard {} over {} as tp".format, GROUPS, AXES),
    st.lists(st.integers(0, 8), min_size=1, max_size=4).map(
        lambda counts: f"shard routed over node * gpu as ep, counts({', '.join(map(str, counts))}), slots 6"
    ),
    st.builds("replicate {} copies {}".format, CHOSEN, st.integers(0, 5)),
    st.builds("pin {} to {} {}".format, CHOSEN, AXES, st.integers(0, 2)),
    st.builds("overlap dispatch{} in {} chunks".format, st.sampled_from(["", " with common"]), st.integers(0, 3)),
    st.builds(
        "approx send {} as {}".format, st.sampled_from(["dispatch", "combine"]), st.sampled_from(["bf16", "int8"])
    ),
    st.builds("approx combine per {}".format, AXES),
    st.sampled_from(["require memory <= 1 MiB", "require time < 3 ms", "require exchange <= 40 %"]),
    st.sampled_from(["page routed within 1 KiB", "shard", "approx", "pin routed to"]),
)


@given(st.lists(STATEMENT, max_size=5))
@settings(max_examples=75)
def test_any_layout(statements: list[str]) -> None:
    text = HEAD + "layout Serve for Demo on Pod under Chat {\n" + "\n".join(statements) + "\n}\n"
    try:
        layer = load_layer_text(Source("demo.moe", text))
    except DiagnosticError as error:
        str(error)  # it can be shown
        return
    assert layer.layout is not None
    assert layer.layout.parallel is not None
    assert spread_over.parallel(lower(layer, context())) == layer.layout.parallel  # which checks all of it
