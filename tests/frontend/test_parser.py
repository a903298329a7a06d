"""The parser: what it makes of expressions, and that no text makes it fail otherwise than by diagnostics."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moec.diagnostics import Source
from moec.errors import DiagnosticError
from moec.frontend import ast, check_file, parse
from moec.frontend.format import format_source

WORDS = """edition 1 import from router expert layer experts shared tokens quantize approx as .. assert
load layout for under recompile when specialise page within batch routing 2GiB 30 s
mesh axis device link on extends shard replicate pin overlap send require 1Gbit/s 40% 3GFLOP/s 5us
input x y d count pick weight linear softmax top_k over and or not true bf16 = == != < <= : , ; ? + - * / // %
( ) [ ] { } . 3 2.5 "text" #"""
soup = st.lists(st.sampled_from([*WORDS.split(), "\n"]), max_size=60).map(" ".join)


def expression(text: str) -> ast.Expr:
    statement = parse(Source("a.moe", f"y = {text}")).statements[0]
    assert len(statement.words) == 2
    word = statement.words[1]
    assert isinstance(word, ast.Expr)
    return word


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("a + b * c", "a + (b * c)"),
        ("a - b - c", "(a - b) - c"),
        ("-a * b", "(-a) * b"),
        ("not a == b", "not (a == b)"),
        ("a or b and c", "a or (b and c)"),
        ("a < b + 1", "a < (b + 1)"),
        ("p / q over r", "(p / q) over r"),
        ("c ? a over p : b", "c ? (a over p) : b"),
        ("c ? a : e ? f : g", "c ? a : (e ? f : g)"),
        ("a[1][2].b", "((a[1])[2]).b"),
        ("f(a,\n  b,\n)", "f(a, b)"),
        ("-f(x)[0]", "-((f(x))[0])"),
    ],
)
def test_precedence(text: str, same: str) -> None:
    assert expression(text) == expression(same)


def test_ranges() -> None:
    word = expression("experts(routed, 3, 9 .. 20, -a..b.c, 2.5..3)")
    assert isinstance(word, ast.Call)
    ranges = [one.value for one in word.arguments if isinstance(one.value, ast.Range)]
    assert [one.span.text for one in ranges] == ["9 .. 20", "-a..b.c", "2.5..3"]
    text = "quantize experts ( routed ,3, 9 .. 20,-a..- b )as int4( group=32 )\n"
    assert format_source(Source("a.moe", text)) == "quantize experts(routed, 3, 9..20, -a..-b) as int4(group = 32)\n"


def test_statements_end_with_lines_and_semicolons() -> None:
    file = parse(Source("a.moe", "\n;a = 1; b = 2\r\nc = (3\n + 4) # five\n\n"))
    assert [one.head.text for one in file.statements] == ["a", "b", "c"]


def test_spans_are_exact() -> None:
    word = expression("foo(a, b = 1) * 2")
    assert isinstance(word, ast.Binary)
    assert [word.span.text, word.left.span.text, word.op_span.text] == ["foo(a, b = 1) * 2", "foo(a, b = 1)", "*"]


def test_several_syntax_errors_in_one_run() -> None:
    with pytest.raises(DiagnosticError) as caught:
        parse(Source("a.moe", "a = 1 +\nb = 2\nc = f(1 2)\nd = 'x'\n"))
    assert [one.span.line for one in caught.value.diagnostics if one.span] == [1, 3, 4]


def check_total(text: str) -> None:
    try:
        file = parse(Source("a.moe", text))
    except DiagnosticError as error:
        str(error)  # renders whatever the text holds
        return
    formatted = format_source(Source("a.moe", text))
    assert parse(Source("a.moe", formatted)) == file
    assert format_source(Source("a.moe", formatted)) == formatted


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    check_total(text)


@given(soup)
@settings(max_examples=150)
def test_any_words(text: str) -> None:
    check_total(text)


@given(st.text(alphabet='xy=+-*/%<>!?:,;.()[]{}"# \t\r\n019e', max_size=60))
@settings(max_examples=150)
def test_any_marks(text: str) -> None:
    check_total(text)


names = st.sampled_from(["a", "b", "x", "p", "pick"])
leaves = st.one_of(names, st.integers(0, 99).map(str), st.just("2.5"))


def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(["+", "-", "*", "/", "//", "%", "and", "or", "==", "<=", "over"])
    return st.one_of(
        st.tuples(inner, binary, inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
        st.tuples(names, inner, inner).map(lambda t: f"{t[0]}({t[1]},k={t[2]})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]})?{t[1]}:{t[2]}"),
        st.tuples(inner, inner).map(lambda t: f"({t[0]})[{t[1]}]"),
        inner.map(lambda t: f"-({t})"),
        inner.map(lambda t: f"not ({t})"),
    )


@given(st.lists(st.recursive(leaves, grow, max_leaves=12), min_size=1, max_size=5))
def test_any_expressions_parse_and_format(parts: list[str]) -> None:
    text = "expert f(d){\n" + "".join(f"n{i}={part}  # {i}\n" for i, part in enumerate(parts)) + "}\n"
    file = parse(Source("a.moe", text))
    formatted = format_source(Source("a.moe", text))
    assert parse(Source("a.moe", formatted)) == file
    assert format_source(Source("a.moe", formatted)) == formatted


@given(st.binary(max_size=200))
@settings(max_examples=50)
def test_any_bytes_in_a_file(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path: Path = tmp_path_factory.mktemp("any") / "a.moe"
    path.write_bytes(data)
    assert check_file(path)  # it lacks `edition 1` at least


LAYER = """edition 1
router mine(k, renorm = true) {
  logits = linear(x, count)
  p = softmax(logits)
  pick = top_k(p, k)
  weight = renorm ? p / sum(p over pick) : p
}
layer Demo(d = 8, ff = 4, dtype = bf16) {
  router mine(2) : f32
  experts routed[4] = swiglu(d, ff) : dtype
  shared common[2] = sigmoid(linear(x, 1)) * mlp_relu(d, ff) : dtype
  tokens capacity(1.25, minimum = 4)
  assert routed.count % 2 == 0, "even"
}
"""
TOKENS = ["x", "count", "2", "0", "-1", "2.5", "linear", "top_k", "pick", "p", "sum", "true", "bf16", "d", "(x)", "inf"]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_change_of_a_layer_is_checked(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    places = list(re.finditer(r"[a-z_]+|[0-9.]+|[-+*/=?:,()]", LAYER))
    text = LAYER
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(places))
        text = text[: place.start()] + data.draw(st.sampled_from([*TOKENS, "", "9999999999"])) + text[place.end() :]
    path: Path = tmp_path_factory.getbasetemp() / "changed.moe"
    path.write_text(text)
    for one in check_file(path):
        assert one.span is not None
        assert 0 <= one.span.start <= one.span.end <= len(one.span.source.text)
