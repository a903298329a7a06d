"""Statements of `layout` to declarations."""

from __future__ import annotations

from moec.diagnostics import Fix, closest
from moec.frontend import ast
from moec.frontend.declarations import (
    ColdestUse,
    CombineUse,
    LayoutStatement,
    Option,
    OverlapUse,
    PageUse,
    PinUse,
    RecompileUse,
    ReplicateUse,
    RequireUse,
    SendUse,
    ShardUse,
    SpecialiseUse,
    WrittenLayout,
)
from moec.frontend.units import BYTES, SECONDS
from moec.frontend.words import Malformed, Words

LAYOUT_WORDS = ("shard", "replicate", "pin", "overlap", "require", "recompile", "specialise", "approx", "page")
NEED_APPROX = ("quantize", "send", "combine")
LAYOUT_READ = (*LAYOUT_WORDS, *NEED_APPROX)
"""The words that statements begin with, and those of which the checker says that they need `approx`."""

LAYOUT_FORMS = {
    "layout": "layout NAME for LAYER on MESH under LOAD { STATEMENTS }` or `layout NAME extends LAYOUT { STATEMENTS }",
    "layout.shard": "shard GROUP over AXIS * AXIS as ep` or `approx shard GROUP over AXIS as tp",
    "layout.replicate": "replicate hottest(GROUP, N) copies M` or `replicate GROUP[FIRST..LAST] copies M",
    "layout.pin": "pin GROUP[FIRST..LAST] to AXIS INDEX",
    "layout.overlap": "overlap dispatch, combine with SHARED in N chunks",
    "layout.require": "require memory <= N GiB",
    "layout.send": "approx send dispatch as bf16",
    "layout.combine": "approx combine per AXIS",
    "layout.recompile": "recompile when CONDITION for N calls, hysteresis H, gain G, max N variants",
    "layout.specialise": "specialise tokens(FIRST..LAST, FIRST..LAST)",
    "layout.approx": "approx capacity(LOW..HIGH)`, `approx quantize coldest(GROUP, N) as FORMAT`, `approx shard GROUP "
    "over AXIS as tp`, `approx send dispatch as bf16` or `approx combine per AXIS",
    "layout.quantize": "approx quantize coldest(GROUP, N) as FORMAT",
    "layout.page": "page GROUP within N GiB",
}


def read_header(words: Words, statement: ast.Statement) -> WrittenLayout:
    """`NAME for LAYER on MESH under LOAD`, or `NAME extends LAYOUT on MESH under LOAD`; without a body."""
    name = words.name()
    layer = base = mesh = load = None
    if words.next_name() == "extends":
        words.name()
        base = words.name("a layout")
    else:
        words.keyword("for")
        layer = words.name("a layer")
    if words.next_name() == "on":
        words.name()
        mesh = words.name("a mesh")
    if words.next_name():
        words.keyword("under")
        load = words.name("a load")
        if words.next_name() == "on" and mesh is None:
            words.fail("`on MESH` stands in front of `under LOAD`")
    words.end(block=True)
    return WrittenLayout(statement.span, name, layer, base, mesh, load, ())


def kind_of(statement: ast.Statement) -> str:
    """The word that says of what kind a statement is: the first one, or what is approximate, where that has a form."""
    head = statement.head.text
    said = Words(statement).next_name() if head == "approx" else ""
    return said if said in ("shard", *NEED_APPROX) else head


def read_statement(statement: ast.Statement) -> LayoutStatement:
    """A statement whose first word is one of LAYOUT_READ.  Raises Malformed."""
    words = Words(statement)
    span, head = statement.span, statement.head.text
    approx = head == "approx"
    kind = kind_of(statement)
    if kind != head:
        words.name()
    made: LayoutStatement
    match kind:
        case "shard":
            made = _shard(statement, words, approx)
        case "replicate":
            chosen = words.expression("`hottest(...)` or experts")
            words.keyword("copies")
            made = ReplicateUse(span, chosen, words.expression("a number"))
        case "pin":
            chosen = words.expression("experts, `GROUP[FIRST..LAST]`")
            words.keyword("to")
            places = [_place(words)]
            while words.skip(","):
                places.append(_place(words))
            made = PinUse(span, chosen, tuple(places))
        case "overlap":
            made = _overlap(statement, words)
        case "send":
            made = _send(statement, words, approx)
        case "combine":
            words.keyword("per")
            made = CombineUse(span, approx, words.name("an axis"))
        case "require":
            made = RequireUse(span, words.expression("a condition such as `memory <= 2 GiB`"))
        case "recompile":
            made = _recompile(statement, words)
        case "page":
            group = words.name("a group of experts")
            words.keyword("within")
            made = PageUse(span, group, words.expression("a number of bytes"))
        case "quantize":
            made = _quantize(statement, words, approx)
        case _:
            call = words.expression("what may change" if approx else "`tokens(...)`")
            if isinstance(call, ast.Over) and isinstance(call.values, ast.Name) and call.values.text == "combine":
                raise Malformed(call.span, "what is added up before it travels is said by `combine per AXIS`")
            made = SpecialiseUse(span, approx, call)
    words.end()
    return made


def _shard(statement: ast.Statement, words: Words, approx: bool) -> ShardUse:
    whole = words.expression("`GROUP over AXES`")
    if not isinstance(whole, ast.Over) or not isinstance(whole.values, ast.Name):
        raise Malformed(whole.span, "expected `GROUP over AXES`")
    if words.peek(","):
        words.fail("axes are joined by `*`")
    words.keyword("as")
    kind = words.name("`ep`, `tp` or `dp`")
    options: list[ast.Expr | Option] = []
    while words.skip(","):
        what = words.expression("`counts(...)` or `slots N`")
        if isinstance(what, ast.Name) and words.next_expression():
            options.append(Option(what, words.expression(), None))
        else:
            options.append(what)
    return ShardUse(statement.span, approx, whole.values, whole.pick, kind, tuple(options))


def _send(statement: ast.Statement, words: Words, approx: bool) -> SendUse:
    first = words.name("`dispatch` or `combine`")
    further: list[str] = []
    comma = words.here
    while words.skip(","):
        further.append(words.name("`dispatch` or `combine`").text)
    words.keyword("as")
    format_ = words.name("a format")
    if further:
        each = "; ".join(f"approx send {direction} as {format_.text}" for direction in (first.text, *further))
        fix = Fix(f"write `{each}`", statement.span, each)
        raise Malformed(comma, "each direction has a statement of its own", fix=fix)
    return SendUse(statement.span, approx, first, format_)


def _place(words: Words) -> Option:
    return Option(words.name("an axis"), words.expression("a position, a number from 0"), None)


def _overlap(statement: ast.Statement, words: Words) -> OverlapUse:
    directions = [words.name("`dispatch` or `combine`")]
    while words.skip(","):
        directions.append(words.name("`dispatch` or `combine`"))
    groups: list[ast.Name] = []
    chunks = None
    following = words.keyword("with", "in") if words.next_name() else ""
    if following == "with":
        groups.append(words.name("a group of shared experts"))
        while words.skip(","):
            groups.append(words.name("a group of shared experts"))
        following = words.keyword("in") if words.next_name() else ""
    if following == "in":
        chunks = words.expression("a number")
        words.keyword("chunks")
    return OverlapUse(statement.span, tuple(directions), tuple(groups), chunks)


def _quantize(statement: ast.Statement, words: Words, approx: bool) -> ColdestUse:
    chosen = words.expression("`coldest(...)`")
    words.keyword("as")
    return ColdestUse(statement.span, approx, chosen, words.expression("a format"))


def _recompile(statement: ast.Statement, words: Words) -> RecompileUse:
    words.punctuation("when")
    when = words.expression("a condition")
    _refuse_unit(when, words)
    words.keyword("for")
    window = words.expression("a number of calls, or a time")
    unit = words.name() if words.next_name() else None
    options: list[Option] = []
    while words.skip(","):
        name = words.name("`hysteresis`, `gain` or `max`")
        value = words.expression("a number")
        options.append(Option(name, value, words.name() if words.next_name() else None))
    return RecompileUse(statement.span, when, window, unit, tuple(options))


def _refuse_unit(when: ast.Expr, words: Words) -> None:
    """Say so where a condition ends early because a word behind a number is no unit: `memory > 2 GB`."""
    following = words.next_expression()
    leftmost = following
    while isinstance(leftmost, ast.Binary):
        leftmost = leftmost.left
    ends_in_number = when.span.text[-1:].isdigit()
    if not isinstance(leftmost, ast.Name) or leftmost.text == "for" or not ends_in_number:
        return
    near = closest(leftmost.text, (*BYTES, *SECONDS))
    hint = f"did you mean `{near}`?" if near else f"units of bytes are {', '.join(f'`{unit}`' for unit in BYTES)}"
    raise Malformed(leftmost.span, f"`{leftmost.text}` is no unit; {hint}")
