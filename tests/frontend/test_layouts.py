"""Loads and layouts: what is read, which layout is chosen, and that no text of one makes checking fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moec.artifact.policy import Coldest, Comparison, Page, Policy, Trigger, Window
from moec.artifact.traffic import Load, Observed, Uniform, Zipf
from moec.diagnostics import Source
from moec.errors import DiagnosticError
from moec.frontend import ast, check_file, load_layer, load_layer_text, parse
from moec.frontend.format import format_source
from moec.trace import Header, Sample, TraceWriter

LAYER = """edition 1
layer Demo(d = 64, ff = 64, k = 2, cold = 2) {
  router softmax_top(k)
  experts routed[8] = swiglu(d, ff) : bf16
  tokens capacity(1.25)
}
load Chat { batch = 1..4096; routing = zipf(1.2) }
"""
FULL = """layout Serve for Demo under Chat {
  recompile when imbalance > 1.3 for 200 calls, hysteresis 0.2, gain 1.1, max 3 variants
  recompile when memory > 1 MiB for 2 min
  specialise tokens(257..4096, 1..16, 17)
  approx capacity(1.0..2.0)
  approx quantize coldest(routed, cold) as int4(group = 32)
  approx quantize coldest(routed, routed.count // 2) as ternary
  page routed within 100 KiB
}
"""


def policy(text: str, layout: str | None = None, folder: Path = Path()) -> Policy:
    layer = load_layer_text(Source("demo.moe", text), folder, layout=layout)
    assert not layer.warnings
    assert layer.layout is not None
    return layer.layout.policy


def test_everything() -> None:
    assert policy(LAYER + FULL) == Policy(
        layout="Serve",
        load=Load("Chat", (1, 4096), Zipf(1.2)),
        triggers=(
            Trigger(Comparison("imbalance", ">", 1.3), "imbalance > 1.3", Window(calls=200), 0.2, 1.1),
            Trigger(Comparison("memory", ">", 2.0**20), "memory > 1 MiB", Window(seconds=120.0), 0.1, 1.05),
        ),
        max_variants=3,
        tokens=((1, 16), (17, 17), (257, 4096)),
        capacity=(1.0, 2.0),
        quantise=(Coldest("routed", 2, "int4", 32, "bf16"), Coldest("routed", 4, "ternary", None, "f32")),
        page=Page("routed", 100 * 1024),
    )


def test_an_empty_layout() -> None:
    text = LAYER.partition("load")[0].replace(", cold = 2", "")
    assert policy(text + "layout Serve for Demo {\n}\n") == Policy("Serve")


def test_parameters_that_only_a_layout_uses_are_used() -> None:
    assert load_layer_text(Source("demo.moe", LAYER + FULL)).warnings == ()
    layer = load_layer_text(Source("demo.moe", LAYER))
    assert [one.code for one in layer.warnings] == ["W0002"]  # `cold`
    assert layer.layout is None


def test_one_layout_of_several_is_asked_for() -> None:
    text = LAYER + FULL + FULL.replace("Serve", "Batch").replace("max 3", "max 2")
    assert policy(text, "Serve").max_variants == 3
    assert policy(text, "Batch").max_variants == 2
    with pytest.raises(DiagnosticError, match="has 2 layouts, and none is chosen"):
        policy(text)
    with pytest.raises(DiagnosticError, match="did you mean `Serve`"):
        policy(text, "Serv")


def test_a_layout_chooses_its_layer() -> None:
    other = LAYER.removeprefix("edition 1\n").partition("load")[0].replace("Demo", "Other")
    text = LAYER + other + FULL + "layout Small for Other {\n  page routed within 100 KiB\n}\n"
    assert load_layer_text(Source("demo.moe", text), layout="Small").name == "Other"
    assert load_layer_text(Source("demo.moe", text), layer="Demo").name == "Demo"
    with pytest.raises(DiagnosticError, match="layer `Demo` has no layout `Small`"):
        load_layer_text(Source("demo.moe", text), layer="Demo", layout="Small")


@pytest.mark.parametrize(
    ("routing", "means"),
    [("", Uniform()), ("; routing = uniform", Uniform()), ("; routing = zipf(0)", Zipf(0.0))],
)
def test_routings(routing: str, means: Uniform | Zipf) -> None:
    load = policy(LAYER.replace("; routing = zipf(1.2)", routing) + FULL).load
    assert load is not None
    assert load.routing == means


def recorded(path: Path, experts: int = 8, slots: int = 2, tokens: int = 40) -> None:
    with TraceWriter(path, Header("Demo", experts, slots)) as writer:
        writer.write(Sample(1.0, tokens, tuple(min(e, tokens) for e in range(experts))))
        writer.write(Sample(2.0, 3, (1,) + (0,) * (experts - 1)))


def test_a_trace(tmp_path: Path) -> None:
    recorded(tmp_path / "chat.trace")
    text = (LAYER + FULL).replace("zipf(1.2)", 'trace("chat.trace")')
    (tmp_path / "demo.moe").write_text(text)
    layer = load_layer(tmp_path / "demo.moe")
    assert layer.layout is not None
    assert layer.layout.policy.load == Load("Chat", (1, 4096), Observed((1, 1, 2, 3, 4, 5, 6, 7), ((2, 1), (32, 1))))
    source = layer.sources[-1]
    assert source.name == str(tmp_path / "chat.trace")
    (tmp_path / "chat.trace").write_text(source.text)  # what the artifact keeps stands for the trace
    again = load_layer(tmp_path / "demo.moe")
    assert again.layout is not None
    assert again.layout.policy == layer.layout.policy


@pytest.mark.parametrize(
    ("experts", "slots", "said"),
    [(7, 2, "7 experts, 2 slots"), (8, 3, "8 experts, 3 slots")],
)
def test_a_trace_of_another_layer(experts: int, slots: int, said: str, tmp_path: Path) -> None:
    recorded(tmp_path / "chat.trace", experts, slots)
    with pytest.raises(DiagnosticError, match="is not one of layer `Demo`") as caught:
        policy((LAYER + FULL).replace("zipf(1.2)", 'trace("chat.trace")'), folder=tmp_path)
    assert said in str(caught.value)


def test_traces_that_are_none(tmp_path: Path) -> None:
    text = (LAYER + FULL).replace("zipf(1.2)", 'trace("chat.trace")')
    (tmp_path / "chat.trace").write_text("[1, 2]\n")
    with pytest.raises(DiagnosticError, match="line 1 is no JSON object"):
        policy(text, folder=tmp_path)
    with TraceWriter(tmp_path / "chat.trace", Header("Demo", 8, 2)):
        pass
    with pytest.raises(DiagnosticError, match="holds no choices"):
        policy(text, folder=tmp_path)


def test_the_coldest_by_a_trace(tmp_path: Path) -> None:
    recorded(tmp_path / "chat.trace")
    text = LAYER.replace("  tokens", '  quantize coldest(routed, cold, by = "chat.trace") as int4\n  tokens')
    layer = load_layer_text(Source("demo.moe", text), tmp_path)
    assert layer.routed.subsets[1].numbers == (0, 1)
    assert layer.sources[-1].name == str(tmp_path / "chat.trace")
    recorded(tmp_path / "chat.trace", experts=7)
    with pytest.raises(DiagnosticError, match="must be a trace of 8 experts"):
        load_layer_text(Source("demo.moe", text), tmp_path)


def test_names_are_bound_once() -> None:
    with pytest.raises(DiagnosticError, match="`Demo` is bound twice"):
        policy(LAYER + FULL.replace("layout Serve", "layout Demo"))


def test_layouts_of_a_layer_that_is_wrong_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "demo.moe").write_text((LAYER + FULL).replace("swiglu", "swigul"))
    assert [one.code for one in check_file(tmp_path / "demo.moe")] == ["E0202"]


# the syntax


def words(text: str) -> tuple[ast.Word, ...]:
    return parse(Source("a.moe", f"head {text}")).statements[0].words


def test_quantities() -> None:
    assert words("2GiB") == words("2 \t GiB") == (ast.Quantity(words("1")[0].span, 2, "GiB"),)  # type: ignore[union-attr]
    assert [type(one).__name__ for one in words("2 GB 3 smooth 1.5e1 s")] == [
        "Number", "Name", "Number", "Name", "Quantity",
    ]  # fmt: skip
    assert isinstance(words("f(x = 2 min)")[0], ast.Call)


def test_when_is_a_word_of_the_language() -> None:
    assert words("when (a or b) and c") == words("when ((a or b) and c)")
    text = "recompile when(a>1)and(b<2)for 3calls\n"
    assert format_source(Source("a.moe", text)) == "recompile when (a > 1) and (b < 2) for 3 calls\n"
    with pytest.raises(DiagnosticError, match="`when` is a word of the language"):
        parse(Source("a.moe", "when = 3\n"))


numbers = st.sampled_from(["1", "2.5", "3 GiB", "200", "0.1", "1e3", "4 s"])
comparison = st.builds(
    lambda a, op, b: f"{a} {op} {b}",
    st.sampled_from(["tokens", "imbalance", "memory", "share"]),
    st.sampled_from(["<", ">", ">=", "=="]),
    numbers,
)
condition = st.recursive(
    comparison,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]}) {t[1]} {t[2]}"),
        inner.map(lambda t: f"not ({t})"),
    ),
    max_leaves=6,
)
statement = st.one_of(
    st.builds(lambda c, n: f"recompile when {c} for {n} calls,gain 1.1 , max 2 variants # c", condition, numbers),
    st.builds(lambda a, b: f"specialise tokens({a}..{b},  {b} .. 9)", numbers, numbers),
    st.builds(lambda a: f"page routed within {a}", numbers),
    st.just("approx quantize coldest( routed,4 ) as int4"),
)


@given(st.lists(statement, max_size=4), st.data())
@settings(max_examples=50)
def test_any_layout_parses_and_formats(statements: list[str], data: st.DataObject) -> None:
    text = "layout A for B under C{\n" + "\n".join(statements) + "\n}\n"
    text = "".join(data.draw(st.sampled_from([c, c + " ", c])) if c in "(), " else c for c in text)
    file = parse(Source("a.moe", text))
    formatted = format_source(Source("a.moe", text))
    assert parse(Source("a.moe", formatted)) == file
    assert format_source(Source("a.moe", formatted)) == formatted


TOKENS = ["tokens", "imbalance", "share", "and", "or", "not", "routed", "1", "0", "2.5", "9 GiB", "1..2", "approx",
          "when", "for", "calls", "(", ")", "1e999", "int4", "zipf", "d", "{", "max", "3 s", '"x"']  # fmt: skip


@given(st.data())
@settings(max_examples=50)
def test_any_change_of_a_layout_is_checked(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    start = LAYER.index("load")
    places = [m for m in re.finditer(r"[a-z_]+|[0-9.]+|[-+*/=?:,()<>]", LAYER + FULL) if m.start() >= start]
    text = LAYER + FULL
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(places))
        text = text[: place.start()] + data.draw(st.sampled_from([*TOKENS, "", "9999999999"])) + text[place.end() :]
    path: Path = tmp_path_factory.getbasetemp() / "layout.moe"
    path.write_text(text)
    for one in check_file(path):
        assert one.span is not None
        assert 0 <= one.span.start <= one.span.end <= len(one.span.source.text)
