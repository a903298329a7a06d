"""Gives every expression its value: a constant, or a typed node of the unit's graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moec.diagnostics import Collector, Span, did_you_mean
from moec.frontend import ast, constants
from moec.frontend.arguments import bind_operands, bind_parameters
from moec.frontend.blame import Use, placed
from moec.frontend.declarations import Assertion, Binding, InputDeclaration
from moec.frontend.graph import UNKNOWN, Constant, DType, Node, Unknown, Value, describe
from moec.frontend.mistake import Mistake
from moec.frontend.modules import Known, Module
from moec.frontend.names import BUILTIN, unknown_function, unknown_name
from moec.frontend.operations import OPERATIONS, Given, Operation, Site, elementwise, picks, shape
from moec.frontend.unit import Unit

DEEPEST = 24
"""Definitions within definitions."""
DEEPEST_TOGETHER = 96
"""Expressions within expressions, through all definitions; keeps Python's own stack out of danger."""


@dataclass
class Environment:
    """What names mean in one body.

    `prefix` precedes the names of parameters made here; `unit` is None where only constants make sense; `figures` are
    what `.` reads, by the name of a group; `origins` are the places where parameters were given their values.
    """

    module: Module
    unit: Unit | None
    values: dict[str, Value] = field(default_factory=dict)
    prefix: str = ""
    origins: Mapping[str, Span] = field(default_factory=dict)
    uses: tuple[Use, ...] = ()
    figures: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    unnamed: dict[str, int] = field(default_factory=dict)

    def implicit(self, name: str) -> Value | None:
        """x, d and count, where they are known."""
        if self.unit is None:
            return None
        if name == "x":
            return self.unit.x()
        if name == "d":
            return Constant(self.unit.width)
        return Constant(self.unit.count) if name == "count" and self.unit.kind == "router" else None


class Evaluator:
    """Evaluates the expressions of one body; what is wrong goes to `found` and has an unknown value."""

    def __init__(self, found: Collector, environment: Environment, depth: int = 0) -> None:
        self._found = found
        self._env = environment
        self._depth = depth

    def value(self, expr: ast.Expr, hint: str | None = None, dtype: DType | None = None) -> Value:
        """The value of an expression.

        `hint` is the name it is bound to ("": what it calls passes its own names through), `dtype` what the binding
        asks for.
        """
        if dtype is not None and not _owns(expr):
            self._report(
                Mistake(
                    "E0302",
                    "only what is stored has a dtype of its own",
                    expr.span,
                    notes=[
                        "`: dtype` may follow a binding of `linear`, `param` or `buffer`; the rest is computed in f32"
                    ],
                    fix="remove the dtype",
                )
            )
        self._depth += 1
        try:
            if self._depth > DEEPEST_TOGETHER:
                raise Mistake("E0505", f"expressions and definitions nest more than {DEEPEST_TOGETHER} deep", expr.span)
            return self._value(expr, hint, dtype)
        except Mistake as mistake:
            return self._report(mistake)
        finally:
            self._depth -= 1

    def knows(self, name: str) -> bool:
        """Is this name bound here?"""
        return name in self._env.values

    def _report(self, mistake: Mistake) -> Unknown:
        placed(mistake, self._env.uses, self._env.origins).report(self._found)
        return UNKNOWN

    def _value(self, expr: ast.Expr, hint: str | None, dtype: DType | None) -> Value:
        match expr:
            case ast.Number():
                return constants.bounded(expr.value, expr.span)
            case ast.Quantity():
                raise Mistake("E0302", "a number with a unit is not a value", expr.span, "units are for layouts")
            case ast.String():
                raise Mistake("E0302", "a text is not a value", expr.span, "text is for `assert` and `import`")
            case ast.Name():
                return self._name(expr)
            case ast.Unary():
                return self._unary(expr)
            case ast.Binary():
                return self._binary(expr)
            case ast.Conditional():
                return self._conditional(expr, hint, dtype)
            case ast.Over():
                given = self._given([expr.values, expr.pick])
                return picks.over(self._site("over", expr.span), *given) if given else UNKNOWN
            case ast.Index():
                return self._index(expr)
            case ast.Attribute():
                return self._figure(expr)
            case ast.Call():
                return self._call(expr, hint, dtype)
            case ast.Range():
                where = "ranges are for `quantize experts(...)`, loads and layouts"
                raise Mistake("E0302", "a range is not a value", expr.span, where)
        raise TypeError(f"no meaning for {type(expr).__name__}")

    def _given(self, exprs: list[ast.Expr]) -> list[Given] | None:
        """All operands, or None if one of them is unknown; each is evaluated for its own errors."""
        values = [(self.value(expr), expr.span) for expr in exprs]
        given = [Given(value, span) for value, span in values if not isinstance(value, Unknown)]
        return given if len(given) == len(values) else None

    def _site(self, name: str, span: Span, hint: str | None = None) -> Site:
        unit, env = self._env.unit, self._env
        if unit is None:
            raise Mistake(
                "E0308",
                f"`{name}` works on tensors, and a layer's own expressions are numbers",
                span,
                fix="put it into a router or an expert",
            )

        def own_name(kind: str) -> str:
            return env.prefix + (hint if hint is not None else self._number(kind))

        return Site(name, span, unit, own_name)

    def _number(self, kind: str) -> str:
        number = self._env.unnamed.get(kind, 0)
        self._env.unnamed[kind] = number + 1
        return f"{kind}_{number}"

    def _name(self, expr: ast.Name) -> Value:
        text = expr.text
        if text in self._env.values:
            return self._env.values[text]
        if text in BUILTIN:
            return BUILTIN[text]
        implicit = self._env.implicit(text)
        if implicit is not None:
            return implicit
        known = self._env.module.scope.get(text)
        if known is not None:
            kind = known.definition.kind
            raise Mistake("E0210", f"`{text}` is {_a(kind)}, not a value", expr.span, fix=f"call it: `{text}(...)`")
        unknown_name(self._found, expr, self._env.values)
        return UNKNOWN

    def _unary(self, expr: ast.Unary) -> Value:
        value = self.value(expr.operand)
        if isinstance(value, Unknown):
            return UNKNOWN
        if expr.op == "+":
            raise Mistake("E0302", "there is no sign `+`", expr.span, fix="leave it out")
        given = Given(value, expr.operand.span)
        if isinstance(value, Constant):
            if expr.op == "-":
                return constants.negated(value, expr.operand.span)
            if isinstance(value.value, bool):
                return Constant(not value.value)
            raise Mistake("E0302", "`not` takes true or false", expr.operand.span, f"this is {describe(value)}")
        site = self._site(expr.op, expr.span)
        return elementwise.negative(site, given) if expr.op == "-" else elementwise.inverted(site, given)

    def _binary(self, expr: ast.Binary) -> Value:
        given = self._given([expr.left, expr.right])
        if given is None:
            return UNKNOWN
        left, right = given
        if isinstance(left.value, Constant) and isinstance(right.value, Constant):
            return constants.fold(expr.op, left.value, right.value, expr.op_span, (left.span, right.span))
        return elementwise.binary(self._site(expr.op, expr.op_span), expr.op, left, right)

    def _conditional(self, expr: ast.Conditional, hint: str | None, dtype: DType | None) -> Value:
        condition = self.value(expr.condition)
        if isinstance(condition, Unknown):
            return UNKNOWN
        if isinstance(condition, Constant):
            if not isinstance(condition.value, bool):
                raise Mistake(
                    "E0302",
                    "the condition of `? :` must be true or false",
                    expr.condition.span,
                    f"this is {describe(condition)}",
                    fix="compare it: `a > 0 ? b : c`",
                )
            return self.value(expr.yes if condition.value else expr.no, hint, dtype)
        given = self._given([expr.yes, expr.no])
        if given is None:
            return UNKNOWN
        return elementwise.where(self._site("? :", expr.span), Given(condition, expr.condition.span), *given)

    def _index(self, expr: ast.Index) -> Value:
        given = self._given([expr.base, *expr.indices])
        if given is None:
            return UNKNOWN
        base, *indices = given
        for at in indices:
            base = Given(shape.index(self._site("[ ]", expr.span), base, at), expr.span)
        return base.value

    def _figure(self, expr: ast.Attribute) -> Value:
        group = expr.base.text if isinstance(expr.base, ast.Name) else ""
        figures = self._env.figures.get(group)
        if figures is None:
            raise Mistake(
                "E0201",
                "`.` reads a figure of the router or of a group of experts",
                expr.base.span,
                "this is neither",
                notes=[f"the layer has {', '.join(f'`{name}`' for name in self._env.figures)}"]
                if self._env.figures
                else ["it can be used in the `assert` of a layer"],
                fix=did_you_mean(group, self._env.figures, expr.base.span) if group else None,
            )
        if expr.name.text not in figures:
            raise Mistake(
                "E0201",
                f"`{group}` has no figure `{expr.name.text}`",
                expr.name.span,
                "unknown",
                notes=[f"it has {', '.join(f'`{name}`' for name in figures)}" if figures else "it has none"],
                fix=did_you_mean(expr.name.text, figures, expr.name.span),
            )
        return figures[expr.name.text]

    def _call(self, expr: ast.Call, hint: str | None, dtype: DType | None) -> Value:
        name = expr.function.text
        operation = OPERATIONS.get(name)
        if operation is not None:
            return self._operation(expr, operation, hint, dtype)
        known = self._env.module.scope.get(name)
        if known is None:
            unknown_function(self._found, expr.function, self._env.module.scope)
            return UNKNOWN
        if known.definition.kind != "expert":
            raise Mistake(
                "E0210",
                f"`{name}` is a router, which is not a value",
                expr.function.span,
                fix="use it in a layer: `router NAME(...)`",
            )
        site = self._site(name, expr.span)
        label = hint if hint is not None else self._number(name)
        prefix = self._env.prefix + (f"{label}." if label else "")
        outputs = self.expand(expr, known, site.unit, prefix)
        return outputs.get("y", UNKNOWN)

    def _operation(self, expr: ast.Call, operation: Operation, hint: str | None, dtype: DType | None) -> Value:
        name = expr.function.text
        bound = bind_operands(self._found, expr, operation)
        if bound is None:
            return UNKNOWN
        given: dict[str, list[Given] | None] = {key: self._given(exprs) for key, exprs in bound.items()}
        if any(one is None for one in given.values()):
            return UNKNOWN
        constant = all(isinstance(g.value, Constant) for group in given.values() for g in group or ())
        if self._env.unit is None and constant and not operation.owns:
            # elementwise functions of numbers need no unit; the others raise on a number
            site = Site(name, expr.span, Unit("expert", DType.F32, 1, 1, expr.span), str)
        else:
            site = self._site(name, expr.span, hint or None)
        if operation.owns and operation.many:
            return operation.build(site, given.get("", []), dtype)
        ordered = [given.get(key) for key in (*operation.operands, *operation.optional)]
        flat = [one for group in ordered for one in (group if group is not None else [None])]
        return operation.build(site, *flat, dtype) if operation.owns else operation.build(site, *flat)

    # definitions

    def expand(self, call: ast.Call, known: Known, unit: Unit, prefix: str) -> dict[str, Value]:
        """What the body of a definition binds, applied to the token; empty if the call is wrong."""
        uses = (*self._env.uses, Use(known, call.span))
        if any(use.known.definition is known.definition for use in self._env.uses):
            ring = " uses ".join(f"`{use.known.definition.name.text}`" for use in uses)
            self._report(Mistake("E0208", "a definition cannot use itself", call.span, notes=[ring]))
            return {}
        if len(uses) > DEEPEST:
            self._report(Mistake("E0505", f"definitions use each other more than {DEEPEST} deep", call.span))
            return {}
        unit.graph.use()
        arguments = self.arguments(call, known)
        if arguments is None:
            return {}
        values, origins = arguments
        inner = Environment(known.home, unit, values, prefix, origins, uses)
        return Evaluator(self._found, inner, self._depth).body(known)

    def arguments(self, call: ast.Call, known: Known) -> tuple[dict[str, Value], dict[str, Span]] | None:
        """The values of a definition's parameters, and where they were written; None if arguments do not fit."""
        bound = bind_parameters(self._found, call, known.definition.parameters)
        if bound is None:
            return None
        values: dict[str, Value] = {}
        origins: dict[str, Span] = {}
        defaults = Evaluator(self._found, Environment(known.home, None, values, uses=self._env.uses), self._depth)
        for parameter in known.definition.parameters:
            name = parameter.name.text
            given = bound[name]
            if given is not None:
                value = self.value(given)
                if isinstance(value, Node):
                    value = self._report(
                        Mistake(
                            "E0308",
                            f"`{name}` of `{known.definition.name.text}` must be known while compiling",
                            given.span,
                            f"this is {describe(value)}",
                            notes=["an expert takes its token by itself, as `x`; what is given to it are numbers"],
                        )
                    )
                values[name] = value
                passed_on = self._env.origins.get(given.text) if isinstance(given, ast.Name) else None
                origins[name] = passed_on or given.span
            elif parameter.default is not None:
                values[name] = defaults.value(parameter.default)
        return values, origins

    def body(self, known: Known) -> dict[str, Value]:
        """Evaluates the statements of a definition; returns everything that is bound."""
        bound = self._env.values
        for statement in known.definition.body:
            if isinstance(statement, Assertion):
                self.check(statement)
                continue
            if isinstance(statement, InputDeclaration):
                bound[statement.name.text] = self._input(statement)
                continue
            dtype = self.dtype(statement.dtype) if statement.dtype else None
            # the one expression of a one-line expert, where it is a call of another, passes that one's names through
            hint = statement.name.text if statement.name else ""
            value = self.value(statement.value, hint, dtype)
            bound[statement.name.text if statement.name else "y"] = value
        return bound

    def bind(self, statement: Binding) -> None:
        """Evaluates one binding of numbers."""
        if statement.name is not None:
            self._env.values[statement.name.text] = self.value(statement.value)

    def check(self, assertion: Assertion) -> None:
        """Reports an assertion that does not hold."""
        condition = assertion.condition
        value = self.value(condition)
        if isinstance(value, Unknown):
            return
        if isinstance(value, Node) or not isinstance(value.value, bool):
            self._report(
                Mistake("E0503", "`assert` needs a condition on numbers", condition.span, f"this is {describe(value)}")
            )
        elif not value.value:
            said = assertion.text or "the condition is false"
            facts = self._facts(condition)
            self._report(Mistake("E0501", f"assertion failed: {said}", condition.span, "this is false", notes=facts))

    def _facts(self, condition: ast.Expr) -> list[str]:
        """The values of the names in a condition."""
        facts: dict[str, str] = {}
        quiet = Evaluator(Collector(), self._env, self._depth)
        for node in ast.walk(condition):
            if isinstance(node, ast.Attribute) or (isinstance(node, ast.Name) and node.text not in self._env.figures):
                value = quiet.value(node)
                if isinstance(value, Constant):
                    facts[node.span.text] = str(value).strip("`")
        return [", ".join(f"{name} = {value}" for name, value in facts.items())] if facts else []

    def dtype(self, expr: ast.Expr) -> DType | None:
        """The dtype that an expression stands for; None after reporting that it is none."""
        value = self.value(expr)
        if isinstance(value, Constant) and isinstance(value.value, DType):
            return value.value
        if not isinstance(value, Unknown):
            self._report(
                Mistake(
                    "E0503",
                    "a dtype is needed here",
                    expr.span,
                    f"this is {describe(value)}",
                    notes=["the dtypes are `f32`, `bf16`, `f16`, and `i32` for inputs and buffers"],
                )
            )
        return None

    def _input(self, statement: InputDeclaration) -> Value:
        unit = self._env.unit
        dtype = self.dtype(statement.dtype)
        sizes = self._given(list(statement.shape))
        if unit is None or dtype is None or sizes is None:
            return UNKNOWN
        try:
            if unit.kind != "router":
                raise Mistake(
                    "E0410",
                    "an expert has no inputs beside its token",
                    statement.span,
                    notes=["tokens are brought to experts; other inputs stay where the router reads them"],
                    fix="declare the input in a router",
                )
            if dtype not in (DType.F32, DType.I32):
                raise Mistake("E0411", "an input is f32 or i32", statement.dtype.span, f"this is {dtype}")
            if statement.name.text == "y":
                raise Mistake("E0209", "`y` is the layer's output", statement.name.span, fix="choose another name")
            site = self._site("input", statement.span)
            shape = tuple(site.whole(size, "a size") for size in sizes)
            if dtype is DType.I32 and len(shape) > 1:
                raise Mistake("E0306", "an i32 input is one number a token, or a vector", statement.span)
            return unit.input(statement.name.text, shape, dtype, statement.span)
        except Mistake as mistake:
            return self._report(mistake)


def _owns(expr: ast.Expr) -> bool:
    """May `: dtype` follow this expression?"""
    match expr:
        case ast.Conditional():
            return _owns(expr.yes) or _owns(expr.no)
        case ast.Call():
            operation = OPERATIONS.get(expr.function.text)
            return operation is not None and operation.owns
    return False


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
