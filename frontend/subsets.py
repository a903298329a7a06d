"""Reads `quantize coldest(...) as FORMAT` and `quantize experts(...) as FORMAT`: formats of some experts of a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from moec.diagnostics import Collector, Label, Source, Span, did_you_mean
from moec.frontend import ast
from moec.frontend.counts import coldest, read_counts
from moec.frontend.declarations import QuantizeUse
from moec.frontend.evaluate import Evaluator
from moec.frontend.formats import check_groups, read_format
from moec.frontend.graph import Constant, Unknown, describe
from moec.frontend.mistake import Mistake
from moec.frontend.model import Experts, Subset
from moec.frontend.unit import Parameter

COLDEST = 'coldest(GROUP, N, by = "COUNTS.json")'
NAMED = "experts(GROUP, NUMBER, FIRST..LAST)"


@dataclass(frozen=True)
class Split:
    """Experts whose formats differ, and the files of counts that say so."""

    experts: Experts
    sources: tuple[Source, ...]


def split(
    found: Collector,
    uses: Sequence[QuantizeUse],
    experts: Experts,
    parameters: Sequence[Parameter],
    constants: Evaluator,
    folder: Path | None,
) -> Split:
    """The routed experts with the subsets that the statements make; what is wrong is reported."""
    reader = _Reader(found, experts, constants, folder)
    subsets: list[Subset] = []
    places: dict[int, Span] = {}
    try:
        for use in uses:
            numbers = reader.numbers(use.chosen)
            read = read_format(use.format, constants, subset=True)
            if numbers is None or read is None:
                continue
            _refuse_overlap(numbers, places, use.chosen.span)
            places |= dict.fromkeys(numbers, use.chosen.span)
            check_groups(found, read[0], use.format.span, parameters)
            subsets.append(Subset(numbers, read[0]))
        kept = tuple(n for n in range(experts.count) if n not in places)
        if uses and not kept:
            raise _all_of_them(experts, uses[-1].chosen.span)
    except Mistake as mistake:
        mistake.report(found)
        return Split(experts, ())
    if not subsets:
        return Split(experts, ())
    return Split(replace(experts, subsets=(Subset(kept, experts.format), *subsets)), tuple(reader.sources))


def _refuse_overlap(numbers: Sequence[int], places: dict[int, Span], span: Span) -> None:
    twice = [number for number in numbers if number in places]
    if twice:
        more = f" and {len(twice) - 8} more" if len(twice) > 8 else ""
        raise Mistake(
            "E0423",
            "an expert has one format",
            span,
            f"chosen again: {', '.join(map(str, twice[:8]))}{more}",
            also=[Label(places[twice[0]], "chosen before")],
        )


def _all_of_them(experts: Experts, span: Span) -> Mistake:
    return Mistake(
        "E0423",
        f"no expert of `{experts.name}` keeps the group's format",
        span,
        f"with this, all {experts.count:,} are chosen",
        also=[Label(experts.span, "the group")],
        fix="write the format of the most experts behind the `:` of the group, and choose the others",
    )


def require_routed(group: ast.Expr, experts: Experts) -> None:
    """Raises Mistake unless this names the routed experts, and they are not given quantised."""
    if not isinstance(group, ast.Name) or group.text != experts.name:
        raise Mistake(
            "E0423",
            "only the routed experts have formats one by one",
            group.span,
            f"this is not `{experts.name}`",
            also=[Label(experts.span, "the routed experts")],
            fix=did_you_mean(group.text, (experts.name,), group.span) if isinstance(group, ast.Name) else None,
        )
    if experts.format is not None and experts.format.given:
        raise Mistake(
            "E0423",
            f"the experts of `{experts.name}` are given quantised, so they cannot be quantised otherwise",
            group.span,
            also=[Label(experts.span, "`prequantized = true`")],
        )


def whole_number(expr: ast.Expr, constants: Evaluator) -> int | None:
    """A whole number from 0; None if it is unknown.  Raises Mistake for what is none."""
    value = constants.value(expr)
    if isinstance(value, Unknown):
        return None
    number = value.value if isinstance(value, Constant) else None
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise Mistake("E0423", "this must be a whole number from 0", expr.span, f"this is {describe(value)}")
    return number


@dataclass
class _Reader:
    """Reads which experts a statement chooses."""

    found: Collector
    experts: Experts
    constants: Evaluator
    folder: Path | None

    def __post_init__(self) -> None:
        self.sources: list[Source] = []

    def numbers(self, chosen: ast.Expr) -> tuple[int, ...] | None:
        """The experts in ascending order; None where a number is unknown.  Raises Mistake."""
        name = chosen.function if isinstance(chosen, ast.Call) else chosen
        if not isinstance(chosen, ast.Call) or chosen.function.text not in ("coldest", "experts"):
            raise Mistake(
                "E0423",
                "`quantize` chooses `coldest(...)` or `experts(...)`",
                name.span,
                "this is neither",
                notes=[f"their forms are `{COLDEST}` and `{NAMED}`"],
                fix=did_you_mean(name.text, ("coldest", "experts"), name.span) if isinstance(name, ast.Name) else None,
            )
        if not chosen.arguments:
            raise self._form(chosen.span, chosen.function.text, "the group is missing")
        group = chosen.arguments[0]
        if group.name is not None:
            raise self._form(group.name.span, chosen.function.text, "the group has no name")
        require_routed(group.value, self.experts)
        rest = chosen.arguments[1:]
        return self._coldest(chosen, rest) if chosen.function.text == "coldest" else self._named(chosen, rest)

    def _coldest(self, call: ast.Call, rest: Sequence[ast.Argument]) -> tuple[int, ...] | None:
        positional = [one.value for one in rest if one.name is None]
        named = {one.name.text: one for one in rest if one.name is not None}
        for name, argument in named.items():
            if name != "by" and argument.name is not None:
                raise Mistake(
                    "E0206",
                    f"`coldest` has no parameter `{name}`",
                    argument.name.span,
                    "unknown parameter",
                    notes=[f"its form is `{COLDEST}`"],
                    fix=did_you_mean(name, ("by",), argument.name.span),
                )
        if len(positional) != 1 or len(rest) != 2 or "by" not in named:
            raise self._form(call.span, "coldest", "it takes a group, a number and a file")
        path = named["by"].value
        if not isinstance(path, ast.String):
            raise self._form(path.span, "coldest", "the file is a path in quotes")
        many = whole_number(positional[0], self.constants)
        counts, source = read_counts(path, self.folder, self.experts.count)
        self.sources.append(source)
        if many is None:
            return None
        if many == 0:
            raise Mistake("E0423", "no expert is chosen", positional[0].span, "0 experts", fix="remove the statement")
        if many >= self.experts.count:
            raise _all_of_them(self.experts, positional[0].span)
        return coldest(counts, many)

    def _named(self, call: ast.Call, rest: Sequence[ast.Argument]) -> tuple[int, ...] | None:
        if not rest:
            raise Mistake("E0423", "no expert is chosen", call.span, "numbers must follow", notes=[f"`{NAMED}`"])
        places: dict[int, Span] = {}
        known = True
        for argument in rest:
            value = argument.value
            if argument.name is not None:
                raise self._form(argument.name.span, "experts", "numbers have no name")
            ends = (value.first, value.last) if isinstance(value, ast.Range) else (value, value)
            numbers = [self._expert(end) for end in ends]
            first, last = numbers
            if first is None or last is None:
                known = False
                continue
            if first > last:
                raise Mistake(
                    "E0423", "this range holds no expert", value.span, f"{first} is above {last}", fix="turn it around"
                )
            _refuse_overlap(range(first, last + 1), places, value.span)
            places |= dict.fromkeys(range(first, last + 1), value.span)
        return tuple(sorted(places)) if known else None

    def _expert(self, expr: ast.Expr) -> int | None:
        number = whole_number(expr, self.constants)
        if number is not None and number >= self.experts.count:
            last = self.experts.count - 1
            raise Mistake(
                "E0423",
                f"`{self.experts.name}` has no expert {number}",
                expr.span,
                f"the last is {last}",
                also=[Label(self.experts.span, f"{self.experts.count:,} experts")],
            )
        return number

    def _form(self, span: Span, name: str, label: str) -> Mistake:
        form = COLDEST if name == "coldest" else NAMED
        return Mistake("E0423", f"this `{name}` does not have the form it needs", span, label, fix=f"write `{form}`")
