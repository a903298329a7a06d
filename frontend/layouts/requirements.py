"""Reads `require memory <= 2 GiB`."""

from __future__ import annotations

from collections.abc import Mapping

from moec.artifact.parallel import MEASURES, Require
from moec.artifact.traffic import Load
from moec.diagnostics import Fix, did_you_mean
from moec.frontend import ast
from moec.frontend.declarations import RequireUse
from moec.frontend.evaluate import Evaluator
from moec.frontend.layouts.quantities import measured
from moec.frontend.mistake import Mistake
from moec.frontend.units import BYTES, SECONDS, SHARE

CODE = "E0470"
UNITS: Mapping[str, Mapping[str, float]] = {"memory": BYTES, "time": SECONDS, "exchange": SHARE}
EXAMPLES = {"memory": "memory <= 2 GiB", "time": "time <= 3 ms", "exchange": "exchange <= 40 %"}
_TURNED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}
_FORMS = ", ".join(f"`require {example}`" for example in EXAMPLES.values())


def read_requirement(use: RequireUse, constants: Evaluator, load: Load | None) -> Require:
    """Raises Mistake and UnknownNumber."""
    expr = use.condition
    if not isinstance(expr, ast.Binary) or expr.op not in _TURNED:
        raise Mistake(CODE, "this is no limit", expr.span, notes=[f"there is {_FORMS}"],
                      fix="compare a measure with a number, by `<=`")  # fmt: skip
    measure, limit, compare = expr.left, expr.right, expr.op
    if isinstance(limit, ast.Name) and limit.text in MEASURES:
        measure, limit, compare = limit, measure, _TURNED[compare]
    if not isinstance(measure, ast.Name) or measure.text not in MEASURES:
        near = did_you_mean(measure.text, MEASURES, measure.span) if isinstance(measure, ast.Name) else None
        raise Mistake(CODE, "this is nothing that a layout can require", measure.span, "no measure",
                      notes=[f"there is {_FORMS}"], fix=near)  # fmt: skip
    if compare not in ("<", "<="):
        opposite = "<=" if compare == ">=" else "<"
        fix = Fix(f"write `{measure.text} {opposite} ...`", expr.op_span, opposite) if measure is expr.left else None
        raise Mistake(CODE, f"`{measure.text}` has an upper limit", expr.op_span, "this asks for more of it",
                      notes=[MEASURES[measure.text]], fix=fix)  # fmt: skip
    if measure.text != "memory" and load is None:
        raise Mistake(
            CODE,
            f"`{measure.text}` depends on how many tokens a call has",
            measure.span,
            "no load says so",
            fix="name a load behind `under`",
        )
    value = measured(limit, UNITS[measure.text], constants, CODE, f"`{measure.text}`", bare=measure.text != "time")
    if measure.text == "exchange" and value > 1:
        raise Mistake(CODE, "a share is at most 100 %", limit.span, f"this is {value:.0%}")
    return Require(measure.text, compare, value)
