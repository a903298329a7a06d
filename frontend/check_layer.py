"""A layer's declaration to a checked layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from moec.diagnostics import Collector, Label, Source, Span, did_you_mean
from moec.formats import FORMATS
from moec.frontend import ast, options, outputs
from moec.frontend.declarations import (
    ApproxUse,
    Assertion,
    Binding,
    ExpertsUse,
    LayerDeclaration,
    LossUse,
    QuantizeUse,
    RouterUse,
    TokensUse,
)
from moec.frontend.evaluate import Environment, Evaluator
from moec.frontend.formats import check_groups, is_format, read_format
from moec.frontend.graph import Constant, DType, Node, TooLarge, Value
from moec.frontend.losses import read_losses
from moec.frontend.mistake import Mistake
from moec.frontend.model import Capacity, Experts, Format, Layer, Loss, Router, Tensor
from moec.frontend.modules import Known, Module
from moec.frontend.names import duplicate, reserved, unknown_function
from moec.frontend.subsets import Split, split
from moec.frontend.tokens_policy import read_policy
from moec.frontend.unit import Parameter, Unit

MOST_EXPERTS = 1 << 20
S = TypeVar("S")


@dataclass(frozen=True)
class CheckedLayer:
    """A layer and what its layouts see of it: its numbers, and the parameters of a routed expert."""

    layer: Layer
    constants: Evaluator
    owned: tuple[Parameter, ...]


def check_layer(
    found: Collector, module: Module, layer: LayerDeclaration, defines: options.Defines, sources: Sequence[Source]
) -> CheckedLayer | None:
    """The checked layer, or None if `found` has got an error."""
    return _CheckLayer(found, module, layer).check(defines, sources)


class _CheckLayer:
    def __init__(self, found: Collector, module: Module, layer: LayerDeclaration) -> None:
        self._found = found
        self._module = module
        self._layer = layer
        self._env = Environment(module, None)
        self._constants = Evaluator(found, self._env)
        self._figures: dict[str, dict[str, Value]] = {}
        self._groups: dict[str, Span] = {}
        self._losses: tuple[Loss, ...] = ()

    def check(self, defines: options.Defines, sources: Sequence[Source]) -> CheckedLayer | None:
        resolved = options.resolve(self._found, self._layer, self._env, defines)
        for binding in self._all(Binding):
            self._constants.bind(binding)
        width = self._width()
        router_use = self._only(self._all(RouterUse), "router", "router NAME(...)")
        experts_uses = [use for use in self._all(ExpertsUse) if not use.shared]
        experts_use = self._only(experts_uses, "experts", "experts NAME[COUNT] = EXPERT(...) : DTYPE")
        policy = self._policy()
        routed = shared = router = None
        try:
            count = self._count(experts_use) if experts_use else None
            if experts_use and width and count:
                routed = self._experts(experts_use, width, count)
            shared = [self._shared(use, width) for use in self._all(ExpertsUse) if use.shared]
            if router_use and width and count and experts_use:
                router = self._router(router_use, width, count, experts_use)
        except TooLarge:
            self._found.error(
                "E0505",
                "the layer expands to too many operations",
                self._layer.name.span,
                notes=["definitions that use others several times multiply"],
            )
        groups = [one for one in (routed, *(shared or ())) if one]
        self._same_dtype(groups)
        files: tuple[Source, ...] = ()
        if routed:
            divided = self._split(*routed)
            routed, files = (divided.experts, routed[1]), divided.sources
            groups[0] = routed
        int8_rows = self._int8_rows([group for group, _ in groups])
        figured = Evaluator(self._found, replace(self._env, figures=self._figures))
        for assertion in self._all(Assertion):
            figured.check(assertion)
        if self._found.has_errors or not (routed and router and width) or shared is None:
            return None
        layer = self._layer_of(resolved, width, router, routed, groups[1:], policy, [*sources, *files])
        layer = replace(layer, int8_rows=int8_rows, losses=self._losses)
        return CheckedLayer(layer, figured, tuple(routed[1].parameters.values()))

    def _all(self, kind: type[S]) -> list[S]:
        return [statement for statement in self._layer.body if isinstance(statement, kind)]

    def _only(self, uses: Sequence[S], word: str, form: str) -> S | None:
        if not uses:
            self._found.error(
                "E0403",
                f"layer `{self._layer.name.text}` has no `{word}` statement",
                self._layer.name.span,
                "it needs one",
                fix=f"add `{form}`",
            )
            return None
        for use in uses[1:]:
            first, second = vars(uses[0])["span"], vars(use)["span"]
            self._found.error(
                "E0403",
                f"a layer has one `{word}` statement",
                second,
                "this is another",
                also=[Label(first, "the first")],
                fix="make two layers" if word == "experts" else "remove one",
            )
        return uses[0]

    def _width(self) -> int | None:
        value = self._env.values.get("d")
        if value is None:
            self._found.error(
                "E0402",
                f"layer `{self._layer.name.text}` does not say how wide a token is",
                self._layer.name.span,
                "it needs a parameter `d`",
                fix=f"write `layer {self._layer.name.text}(d = 2048, ...)`",
            )
            return None
        span = next((p.name.span for p in self._layer.parameters if p.name.text == "d"), self._layer.name.span)
        return self._whole(value, span, "the width `d`")

    def _whole(self, value: Value, span: Span, what: str, high: int = 2**31 - 1) -> int | None:
        if not isinstance(value, Constant | Node):
            return None
        try:
            number = value.value if isinstance(value, Constant) else None
            if isinstance(number, bool) or not isinstance(number, int):
                raise Mistake("E0503", f"{what} must be a whole number", span, f"this is {value}")
            if not 1 <= number <= high:
                raise Mistake("E0503", f"{what} must lie between 1 and {high:,}", span, f"this is {number:,}")
        except Mistake as mistake:
            mistake.report(self._found)
            return None
        return number

    def _count(self, use: ExpertsUse) -> int | None:
        if use.count is None:
            return 1
        return self._whole(self._constants.value(use.count), use.count.span, "the number of experts", MOST_EXPERTS)

    def _policy(self) -> Capacity | None:
        uses = self._all(TokensUse)
        self._only_once(uses, "tokens")
        return read_policy(self._found, uses[0].policy, self._constants) if uses else None

    def _only_once(self, uses: Sequence[TokensUse | ApproxUse], word: str) -> None:
        for use in uses[1:]:
            self._found.error(
                "E0403",
                f"a layer has one `{word}` statement",
                use.span,
                "this is another",
                also=[Label(uses[0].span, "the first")],
                fix="remove one",
            )

    # router and experts

    def _dtype(self, expr: ast.Expr | None) -> DType | None:
        """The dtype after `:`; f32 where there is none."""
        if expr is None:
            return DType.F32
        dtype = self._constants.dtype(expr)
        if dtype is DType.I32:
            self._found.error("E0411", "experts and routers compute in f32, bf16 or f16", expr.span, "this is i32")
            return None
        return dtype

    def _stored(self, expr: ast.Expr | None) -> tuple[DType, Format | None] | None:
        """The dtype of x, and the format of the weights where it is another."""
        if expr is None or not is_format(expr, self._constants):
            dtype = self._dtype(expr)
            return (dtype, None) if dtype else None
        try:
            read = read_format(expr, self._constants)
        except Mistake as mistake:
            mistake.report(self._found)
            return None
        return (read[1], read[0]) if read else None

    def _split(self, routed: Experts, unit: Unit) -> Split:
        uses = self._all(QuantizeUse)
        return split(self._found, uses, routed, list(unit.parameters.values()), self._constants, self._module.folder)

    def _int8_rows(self, groups: Sequence[Experts]) -> bool:
        uses = self._all(ApproxUse)
        self._only_once(uses, "approx")
        for use in uses[:1]:
            for name, wanted in ((use.what, "rows"), (use.format, "int8")):
                if name.text != wanted:
                    fix = did_you_mean(name.text, (wanted,), name.span)
                    self._found.error(
                        "E0424",
                        "the one approximation is `approx rows as int8`",
                        name.span,
                        f"this is not `{wanted}`",
                        fix=fix or "write `approx rows as int8`",
                    )
                    return False
            if groups and not any(group.quantised for group in groups):
                self._found.error(
                    "E0424",
                    "rows become int8 for quantised experts, and the layer has none",
                    use.span,
                    also=[Label(groups[0].span, "not quantised")],
                    fix="give the experts a format such as `: int8(per = channel)`, or remove this",
                )
            self._refuse_floats(use, groups)
        return bool(uses)

    def _refuse_floats(self, use: ApproxUse, groups: Sequence[Experts]) -> None:
        """Report the first group of which experts are stored as floats: rows of int8 do not multiply them."""
        for group in groups:
            formats = [group.format, *(subset.format for subset in group.subsets)]
            floats = next((one.codes for one in formats if one and FORMATS[one.codes].floats), None)
            if floats is not None:
                self._found.error(
                    "E0424",
                    f"rows that become int8 multiply codes that are whole numbers, and those of `{floats}` are floats",
                    use.span,
                    also=[Label(group.span, f"stored as `{floats}`")],
                    fix="remove this, or give the experts a format such as `: int8(per = channel)`",
                )
                return

    def _known(self, name: ast.Name, kind: str) -> Known | None:
        known = self._module.scope.get(name.text)
        if known is None:
            kinds = [n for n, one in self._module.scope.items() if one.definition.kind == kind]
            if kind == "router":
                self._found.error(
                    "E0202",
                    f"there is no router called `{name.text}`",
                    name.span,
                    "unknown router",
                    fix=did_you_mean(name.text, kinds, name.span),
                )
            else:
                unknown_function(self._found, name, kinds)
            return None
        if known.definition.kind != kind:
            article = {"router": "a router", "expert": "an expert"}
            self._found.error(
                "E0210",
                f"`{name.text}` is {article[known.definition.kind]}, not {article[kind]}",
                name.span,
                also=[Label(known.definition.name.span, "defined here")],
            )
            return None
        return known

    def _router(self, use: RouterUse, width: int, count: int, experts: ExpertsUse) -> tuple[Router, Unit] | None:
        if use.dtype is not None and is_format(use.dtype, self._constants):
            self._found.error(
                "E0420", "the weights of a router are f32, bf16 or f16", use.dtype.span, "routers are not quantised"
            )
            return None
        dtype = self._dtype(use.dtype)
        call = ast.Call(use.call.span, use.call, ()) if isinstance(use.call, ast.Name) else use.call
        if not isinstance(call, ast.Call):
            self._found.error(
                "E0106",
                "this `router` statement does not have the form it needs",
                use.call.span,
                "expected a router and its arguments",
                fix="write it as `router NAME(ARGUMENTS) : DTYPE`",
            )
            return None
        known = self._known(call.function, "router")
        if known is None or dtype is None:
            return None
        unit = Unit("router", dtype, width, count, use.span)
        self._remember("router", use.span, call, known)
        bound = self._constants.expand(call, known, unit, "")
        made = outputs.router(self._found, use, known, bound, unit, self._count_span(experts))
        read = read_losses(self._found, self._all(LossUse), self._constants, known.definition, bound, count)
        self._losses = read.losses
        if made is None:
            return None
        probability, logits = read.values.get("probability"), read.values.get("logits")
        return replace(made, probability=probability, logits=logits), unit

    def _count_span(self, use: ExpertsUse) -> Span:
        return use.count.span if use.count else use.name.span

    def _remember(self, group: str, span: Span, value: ast.Expr, known: Known | None) -> None:
        """Keep the figures of a group for `assert`."""
        self._groups.setdefault(group, span)
        figures = self._figures.setdefault(group, {})
        if known is not None and isinstance(value, ast.Call):
            silent = Evaluator(Collector(), self._env).arguments(value, known)
            values = silent[0] if silent else {}
            figures.update({k: v for k, v in values.items() if isinstance(v, Constant) and k not in figures})

    def _shared(self, use: ExpertsUse, width: int | None) -> tuple[Experts, Unit] | None:
        count = self._count(use)
        return self._experts(use, width, count) if width and count else None

    def _experts(self, use: ExpertsUse, width: int, count: int) -> tuple[Experts, Unit] | None:
        name = use.name
        if reserved(self._found, name, ("router",)):
            return None
        if name.text in self._groups:
            duplicate(self._found, name, self._groups[name.text])
            return None
        self._figures[name.text] = {"count": Constant(count)}
        called = use.value.function.text if isinstance(use.value, ast.Call) else ""
        self._remember(name.text, name.span, use.value, self._module.scope.get(called))
        if isinstance(use.value, ast.Name):  # `= swiglu`: say what is missing rather than that it is no value
            known = self._known(use.value, "expert")
            value: ast.Expr = ast.Call(use.value.span, use.value, ())
            if known is None:
                return None
        else:
            value = use.value
        stored = self._stored(use.dtype)
        if stored is None:
            return None
        dtype, format = stored
        unit = Unit("expert", dtype, width, count, use.span)
        env = Environment(self._module, unit, dict(self._env.values))
        output = Evaluator(self._found, env).value(value, "")
        node = outputs.expert(self._found, use, self._module.scope.get(called), output, width)
        if node is None:
            return None
        if format is not None and use.dtype is not None:
            check_groups(self._found, format, use.dtype.span, unit.parameters.values())
        linears = frozenset(one.name for one in unit.parameters.values() if one.linear)
        return Experts(name.text, count, dtype, node, use.span, format, linears), unit

    def _same_dtype(self, groups: list[tuple[Experts, Unit]]) -> None:
        for group, _ in groups[1:]:
            first = groups[0][0]
            if group.dtype is not first.dtype:
                self._found.error(
                    "E0408",
                    f"experts of one layer share a dtype, but `{group.name}` has {group.dtype}",
                    group.span,
                    f"{group.dtype} here",
                    also=[Label(first.span, f"{first.dtype} here")],
                    notes=["it is also the dtype of the layer's x and of its result"],
                    fix=f"write `x = {first.dtype}` in its format" if group.format else None,
                )

    # the result

    def _layer_of(
        self,
        resolved: dict[str, Value],
        width: int,
        router: tuple[Router, Unit],
        routed: tuple[Experts, Unit],
        shared: list[tuple[Experts, Unit]],
        policy: Capacity | None,
        sources: Sequence[Source],
    ) -> Layer:
        dtype = routed[0].dtype
        inputs = [Tensor("x", (None, width), dtype, "input")]
        inputs += [Tensor(one.name, (None, *one.shape), one.dtype, "input") for one in router[1].inputs.values()]
        parameters = [
            Tensor(f"router.{one.name}", one.shape, one.dtype, one.role) for one in router[1].parameters.values()
        ]
        for group, unit in (routed, *shared):
            for one in unit.parameters.values():
                parameters += _tensors(group, one)
        return Layer(
            name=self._layer.name.text,
            sources=tuple(sources),
            options=options.plain(resolved),
            inputs=tuple(inputs),
            outputs=(Tensor("y", (None, width), dtype, "output"),),
            parameters=tuple(parameters),
            router=router[0],
            routed=routed[0],
            shared=tuple(group for group, _ in shared),
            tokens=policy,
            warnings=(),
            span=self._layer.span,
        )


def _tensors(group: Experts, parameter: Parameter) -> list[Tensor]:
    """A group's parameter as the layer takes it: stacked, and as codes and scales where it is given quantised."""
    name = f"{group.name}.{parameter.name}"
    shape = (group.count, *parameter.shape)
    format = group.format
    if not (parameter.linear and format and format.given):
        return [Tensor(name, shape, parameter.dtype, parameter.role)]
    groups = () if format.group is None else (shape[2] // format.group,)
    return [
        Tensor(name, shape, DType(FORMATS[format.codes].element), parameter.role),
        Tensor(name.removesuffix("weight") + "scale", (*shape[:2], *groups), format.scale, parameter.role),
    ]
