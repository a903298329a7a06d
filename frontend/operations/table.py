"""The table of operations: names, operands, and the function that types a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moec.frontend.graph import Value
from moec.frontend.operations import elementwise, parameters, picks, reduce, shape


@dataclass(frozen=True)
class Operation:
    """`build(site, *operands)` types a call; a missing optional operand is None.

    `many`: the last operand may repeat.  `owns`: the operation makes parameters, named after what it is bound to, and
    a binding may give it a dtype; `build` then takes the dtype (or None) as its last argument, and with `many` the
    operands as one list.
    """

    usage: str
    summary: str
    operands: tuple[str, ...]
    build: Callable[..., Value]
    optional: tuple[str, ...] = ()
    many: bool = False
    owns: bool = False


def _unary(name: str, summary: str) -> Operation:
    return Operation(f"{name}(v)", summary, ("v",), elementwise.function(name))


def _reduction(name: str, summary: str) -> Operation:
    return Operation(f"{name}(v)", summary, ("v",), reduce.reduction(name))


OPERATIONS: dict[str, Operation] = {
    "linear": Operation(
        "linear(v, n, bias = false)", "a trained matrix times the vector v, n numbers", ("v", "n"),
        parameters.linear, optional=("bias",), owns=True,
    ),
    "param": Operation("param(sizes...)", "a trained tensor", (), parameters.param, many=True, owns=True),
    "buffer": Operation(
        "buffer(sizes...)", "a tensor that is kept but not trained", (), parameters.buffer, many=True, owns=True
    ),
    "abs": _unary("abs", "magnitude"),
    "exp": _unary("exp", "e to the power v"),
    "log": _unary("log", "natural logarithm"),
    "sqrt": _unary("sqrt", "square root"),
    "rsqrt": _unary("rsqrt", "1 / sqrt(v)"),
    "square": _unary("square", "v * v"),
    "tanh": _unary("tanh", "hyperbolic tangent"),
    "sigmoid": _unary("sigmoid", "1 / (1 + exp(-v))"),
    "silu": _unary("silu", "v / (1 + exp(-v))"),
    "gelu": _unary("gelu", "v/2 * (1 + erf(v / sqrt(2)))"),
    "gelu_tanh": _unary("gelu_tanh", "gelu by its tanh approximation"),
    "relu": _unary("relu", "v where positive, else 0"),
    "softplus": _unary("softplus", "log(1 + exp(v))"),
    "pow": Operation("pow(a, b)", "a to the power b", ("a", "b"), elementwise.power),
    "min": Operation("min(a, b, ...)", "the smaller", ("a", "b"), elementwise.extreme("min"), many=True),
    "max": Operation("max(a, b, ...)", "the larger", ("a", "b"), elementwise.extreme("max"), many=True),
    "clamp": Operation("clamp(v, low, high)", "v, held between low and high", ("v", "low", "high"), elementwise.clamp),
    "where": Operation("where(mask, a, b)", "a where the mask holds, else b", ("mask", "a", "b"), elementwise.where),
    "sum": _reduction("sum", "sum of the last axis"),
    "mean": _reduction("mean", "mean of the last axis"),
    "max_of": _reduction("max_of", "largest of the last axis"),
    "min_of": _reduction("min_of", "smallest of the last axis"),
    "norm": _reduction("norm", "Euclidean length of the last axis"),
    "softmax": Operation("softmax(v)", "exp(v) over its sum along the last axis", ("v",), reduce.softmax),
    "split": Operation("split(v, g)", "[..., n] to [..., g, n/g]", ("v", "g"), shape.split),
    "merge": Operation("merge(v)", "all axes to one; picks in groups to one pick", ("v",), shape.merge),
    "column": Operation("column(v)", "[..., n] to [..., n, 1]", ("v",), shape.column),
    "concat": Operation(
        "concat(a, b, ...)", "one behind another along the last axis", ("a", "b"), shape.concat, many=True
    ),
    "top_k": Operation("top_k(v, k)", "the k largest of the last axis, a pick", ("v", "k"), picks.top_k),
    "top_p": Operation(
        "top_p(v, mass, most)", "as few of the largest as add up to mass, a pick", ("v", "mass", "most"), picks.top_p
    ),
    "choose": Operation("choose(t)", "the experts whose numbers t holds, a pick", ("t",), picks.choose),
    "below": Operation("below(pick, n)", "the pick without what is n or more", ("pick", "n"), picks.below),
    "chosen": Operation("chosen(pick)", "a mask of what the pick holds", ("pick",), picks.chosen),
}  # fmt: skip
