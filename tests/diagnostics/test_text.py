"""The text form: places, carets, hostile characters."""

from __future__ import annotations

from moec.diagnostics import Collector, Diagnostic, Fix, Label, Severity, Source, Span, render_text


def span(source: Source, part: str) -> Span:
    start = source.text.index(part)
    return Span(source, start, start + len(part))


def one(source: Source, *labels: tuple[str, str], **more: object) -> str:
    made = tuple(Label(span(source, part), text) for part, text in labels)
    return render_text([Diagnostic("E0301", Severity.ERROR, "no", made, **more)])  # type: ignore[arg-type]


def test_primary_and_secondary_labels_on_one_line() -> None:
    source = Source("a.moe", "y = gate * upper\n")
    assert one(source, ("*", "cannot"), ("gate", "is [8]"), ("upper", "is [9]")) == (
        "error[E0301]: no\n"
        " --> a.moe:1:10\n"
        "  |\n"
        "1 | y = gate * upper\n"
        "  |     ---- ^ ----- is [9]\n"
        "  |     |    |\n"
        "  |     |    cannot\n"
        "  |     |\n"
        "  |     is [8]"
    )


def test_distant_lines_are_cut_and_near_ones_are_not() -> None:
    source = Source("a.moe", "one\ntwo\nthree\nfour\nfive\nsix\nseven\n")
    text = one(source, ("seven", ""), ("one", "first"), ("three", ""))
    assert "2 | two" in text
    assert "..." in text
    assert "four" not in text


def test_second_file_is_cited() -> None:
    source, other = Source("a.moe", "abc\n"), Source("b.moe", "\nxyz\n")
    labels = (Label(Span(source, 0, 3)), Label(Span(other, 1, 4), "here"))
    text = render_text([Diagnostic("E0301", Severity.ERROR, "no", labels)])
    assert " --> a.moe:1:1" in text
    assert " ::: b.moe:2:1" in text


def test_fix_shows_the_changed_line() -> None:
    source = Source("a.moe", "y = silo(x)\n")
    text = one(source, ("silo", ""), fix=Fix("did you mean `silu`?", span(source, "silo"), "silu"))
    assert text.endswith("1 | y = silu(x)\n  |     ~~~~")


def test_tabs_and_wide_characters_keep_carets_in_place() -> None:
    source = Source("a.moe", '\ty = "漢字" bad\n')
    lines = one(source, ("bad", "here")).splitlines()
    assert lines[3] == '1 |     y = "漢字" bad'
    assert lines[4] == "  | " + " " * (4 + len('y = "') + 4 + len('" ')) + "^^^ here"


def test_control_characters_reach_no_terminal() -> None:
    source = Source("a\x1b[31m.moe", "y = \x1b[2J\u202e bad\n")
    text = one(source, ("bad", "\x07"), notes=("\x1b]0;title\x07",), fix=Fix("\x9b"))
    assert not [c for c in text if (ord(c) < 32 and c != "\n") or c in "\x9b\u202e"]


def test_span_over_lines_says_where_it_ends() -> None:
    source = Source("a.moe", "f(a,\n b)\n")
    text = render_text([Diagnostic("E0301", Severity.ERROR, "no", (Label(Span(source, 0, 8), "call"),))])
    assert "^^^^ call (to line 2)" in text


def test_place_at_the_end_of_the_text() -> None:
    source = Source("a.moe", "abc")
    text = render_text([Diagnostic("E0301", Severity.ERROR, "no", (Label(Span(source, 3, 3), "end"),))])
    assert "1 | abc\n  |    ^ end" in text


def test_color_only_when_asked() -> None:
    found = Diagnostic("E0301", Severity.ERROR, "no")
    assert "\x1b" not in render_text([found])
    assert "\x1b[1;31merror[E0301]" in render_text([found], color=True)


def test_collector_keeps_order_and_drops_doubles() -> None:
    source = Source("a.moe", "abc def")
    found = Collector()
    found.error("E0301", "later", Span(source, 4, 7))
    found.warning("W0001", "earlier", Span(source, 0, 3))
    found.error("E0301", "again", Span(source, 4, 7))
    assert [one.message for one in found.diagnostics] == ["earlier", "later"]
    assert [one.message for one in found.warnings] == ["earlier"]


def test_position_of_lines() -> None:
    source = Source("a.moe", "ab\n\ncd")
    assert [source.position(i) for i in range(7)] == [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (3, 2), (3, 3)]
    assert source.position(99) == (3, 3)
