"""Each operation, lowered and run by the oracle, against NumPy and PyTorch in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from moec import oracle
from moec.diagnostics import Source
from moec.dialect import context
from moec.frontend import load_layer_text, lower

Array = NDArray[np.float64]
T, D = 7, 12


def tokens(seed: int) -> Array:
    """Ordinary values, and one row each of zeros, large values, and ties."""
    x = np.random.default_rng(seed).normal(size=(T, D)) * 2
    x[0], x[1], x[2, ::2] = 0.0, x[1] * 40, 1.0
    return x.astype(np.float32).astype(np.float64)


def run(text: str, **given: Array) -> dict[str, Array]:
    layer = load_layer_text(Source("demo.moe", f"edition 1\n{text}\n"))
    random = np.random.default_rng(3)
    for one in layer.parameters:
        size = [n or 0 for n in one.shape]
        made = random.normal(size=size) if one.dtype != "i32" else random.integers(0, 4, size)
        given.setdefault(one.name, made.astype(np.float32) if one.dtype != "i32" else made)
    out = oracle.run(lower(layer, context()), given)
    return {**given, **out}


def of_expert(expression: str, x: Array) -> dict[str, Array]:
    """The result of an expert that every token meets with weight 1."""
    return run(
        f"""router always() {{
  input i : i32
  t = buffer(1) : i32
  pick = choose(t + 0 * i)
  weight = 1
}}
expert f(d) {{
  {expression}
}}
layer L(d = {D}) {{
  router always
  experts e[1] = f(d)
}}""",
        x=x,
        i=np.zeros(T, np.int64),
        **{"router.t": np.zeros(1, np.int64)},
    )


def torch64(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Array], Array]:
    return lambda x: np.asarray(function(torch.from_numpy(x)).numpy(), np.float64)


F = torch.nn.functional
ELEMENTWISE: dict[str, Callable[[Array], Array]] = {
    "abs(x)": np.abs,
    "-x": np.negative,
    "exp(x / 40)": lambda x: np.exp(x / 40),
    "log(abs(x) + 1)": lambda x: np.log1p(np.abs(x)),
    "sqrt(abs(x))": lambda x: np.sqrt(np.abs(x)),
    "rsqrt(square(x) + 1)": lambda x: 1 / np.sqrt(x * x + 1),
    "tanh(x)": np.tanh,
    "sigmoid(x)": torch64(torch.sigmoid),
    "silu(x)": torch64(F.silu),
    "gelu(x)": torch64(F.gelu),
    "gelu_tanh(x)": torch64(lambda x: F.gelu(x, approximate="tanh")),
    "relu(x)": torch64(F.relu),
    "softplus(x)": torch64(lambda x: F.softplus(x, threshold=1e9)),
    "pow(abs(x), 1.5)": lambda x: np.abs(x) ** 1.5,
    "min(x, 1, 0.5)": lambda x: np.minimum(x, 0.5),
    "max(x, -x)": np.abs,
    "clamp(x, -1, 2)": lambda x: np.clip(x, -1, 2),
    "where(x > 1 or not (x >= -1), x, 0)": lambda x: np.where((x > 1) | (x < -1), x, 0),
    "where(x == 1 and x != 0, 5, x)": lambda x: np.where(x == 1, 5, x),
    "x <= 1 ? x : 2 * x": lambda x: np.where(x <= 1, x, 2 * x),
    "x - mean(x)": lambda x: x - x.mean(-1, keepdims=True),
    "x / (1 + norm(x))": lambda x: x / (1 + np.linalg.norm(x, axis=-1, keepdims=True)),
    "x * max_of(x) + min_of(x)": lambda x: x * x.max(-1, keepdims=True) + x.min(-1, keepdims=True),
    "softmax(x)": torch64(lambda x: x.softmax(-1)),
    "merge(softmax(split(x, 3)))": torch64(lambda x: x.view(T, 3, 4).softmax(-1).view(T, D)),
    "merge(split(x, 3) * column(sum(split(x, 3))))": lambda x: (
        x.reshape(T, 3, 4) * x.reshape(T, 3, 4).sum(-1, keepdims=True)
    ).reshape(T, D),
    "merge(split(x, 3) - split(x, 3)[1])": lambda x: (x.reshape(T, 3, 4) - x.reshape(T, 3, 4)[:, 1:2]).reshape(T, D),
    "concat(split(x, 2)[1], split(x, 2)[0])": lambda x: np.concatenate([x[:, 6:], x[:, :6]], -1),
    "x + sum(split(x, 3))[2]": lambda x: x + x[:, 8:].sum(-1, keepdims=True),
    "merge(column(x))": lambda x: x,
    "x * (7 // 2) + 7 % 4": lambda x: x * 3 + 3,
    "where(chosen(top_k(x, 3)), x, 0)": lambda x: np.where(rank(x) < 3, x, 0),
    "concat(x over top_k(x, 5), x over top_k(-x, 7))": lambda x: np.concatenate(
        [-np.sort(-x, -1)[:, :5], np.sort(x, -1)[:, :7]], -1
    ),
}


def rank(x: Array) -> NDArray[np.int64]:
    """How many values of its row come before each one: larger, or equal and further left."""
    before = (x[:, None, :] > x[:, :, None]) | ((x[:, None, :] == x[:, :, None]) & np.tri(D, k=-1, dtype=bool))
    return before.sum(-1)


@pytest.mark.parametrize("expression", ELEMENTWISE)
def test_expression(expression: str) -> None:
    for seed in range(2):
        x = tokens(seed)
        np.testing.assert_allclose(of_expert(f"y = {expression}", x)["y"], ELEMENTWISE[expression](x), 1e-6, 1e-6)


def test_linear_bias_and_param() -> None:
    x = tokens(5)
    out = of_expert("h = linear(x, 5, bias = true)\n  s = param(5)\n  y = linear(s * relu(h), d)", x)
    h = np.maximum(x @ out["e.h.weight"][0].T + out["e.h.bias"][0], 0) * out["e.s"][0]
    np.testing.assert_allclose(out["y"], (h @ out["e.y.weight"][0].T), 1e-6, 1e-5)


def of_router(body: str, x: Array, slots: int, **given: Array) -> Array:
    """The dense gate [T, 6] that a router makes; each of 6 experts answers with its own unit vector."""
    marks = np.zeros((6, D))
    marks[np.arange(6), np.arange(6)] = 1
    out = run(
        f"""router f() {{
  {body}
}}
expert mark(d) {{
  m = param(d)
  y = m
}}
layer L(d = {D}) {{
  router f
  experts e[6] = mark(d)
}}""",
        x=x,
        **{"e.m": marks, **given},
    )
    assert (np.count_nonzero(out["y"], axis=-1) <= slots).all()
    return out["y"][:, :6]


def test_reductions_leave_out_empty_slots() -> None:
    x = tokens(7)
    v = x[:, :8]
    order = np.argsort(-v, axis=-1, kind="stable")[:, :5]
    kept = order < 6
    taken = np.take_along_axis(v, order, -1)

    def gate(values: Array) -> Array:
        dense = np.zeros((T, 8))
        np.put_along_axis(dense, order, np.where(kept, values, 0), -1)
        return dense[:, :6]

    head = "v = concat(split(x, 3)[0], split(x, 3)[1])\n  pick = below(top_k(v, 5), count)\n  "
    peak = np.where(kept, taken, -np.inf).max(-1, keepdims=True)
    low = np.where(kept, taken, np.inf).min(-1, keepdims=True)
    shifted = np.exp(np.where(kept, taken - peak, -np.inf))
    with np.errstate(all="ignore"):
        cases = {
            "softmax(v over pick)": shifted / shifted.sum(-1, keepdims=True),
            "0 * (v over pick) + sum(v over pick)": np.where(kept, taken, 0).sum(-1, keepdims=True) + 0 * taken,
            "0 * (v over pick) + mean(v over pick)": (
                np.where(kept, taken, 0).sum(-1, keepdims=True) / kept.sum(-1, keepdims=True) + 0 * taken
            ),
            "0 * (v over pick) + max_of(v over pick)": np.where(kept, taken, -np.inf).max(-1, keepdims=True)
            + 0 * taken,
            "0 * (v over pick) + min_of(v over pick)": low + 0 * taken,
        }
    for weight, expected in cases.items():
        found = of_router(head + f"weight = {weight}", x, 5)
        np.testing.assert_allclose(found, gate(expected), 1e-6, 1e-6, err_msg=weight)


def test_a_token_without_any_expert_gets_zeros() -> None:
    x = np.tile(np.arange(D, dtype=np.float64), (T, 1))  # the two largest of 12 are no experts
    found = of_router("pick = below(top_k(x, 2), count)\n  weight = x / sum(x over pick)", x, 0)
    assert (found == 0).all()


def test_tables_by_input() -> None:
    x, ids = tokens(9), np.array([3, 0, 2, 2, 1, 3, 0])
    scales = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32).astype(np.float64)
    body = "input id : i32\n  s = param(4, count)\n  pick = top_k(s[id], 2)\n  weight = s[id]"
    found = of_router(body, x, 2, id=ids, **{"router.s": scales})
    mine = scales[ids]
    second = -np.sort(-mine, -1)[:, 1:2]
    np.testing.assert_allclose(found, np.where(mine >= second, mine, 0), 1e-6)


def test_inputs_of_vectors() -> None:
    x, boost = tokens(9), np.random.default_rng(2).normal(size=(T, 6)).astype(np.float32).astype(np.float64)
    found = of_router("input boost[count] : f32\n  pick = top_k(boost, 1)\n  weight = 2", x, 1, boost=boost)
    np.testing.assert_array_equal(found, 2.0 * (boost == boost.max(-1, keepdims=True)))


def test_chosen_numbers_outside_of_the_experts_are_empty() -> None:
    x = tokens(4)
    numbers = np.array([[5, 0], [6, -1], [1, 99], [2, 3], [-7, 4], [0, 1], [2**31 - 1, 5]])
    found = of_router("input e[2] : i32\n  pick = choose(e)\n  weight = 1.5", x, 2, e=numbers)
    expected = np.zeros((T, 6))
    for row, pair in zip(expected, numbers, strict=True):
        for number in pair:
            if 0 <= number < 6:
                row[number] = 1.5
    np.testing.assert_array_equal(found, expected)


def test_groups_merge() -> None:
    x = tokens(6)
    body = "v = split(x, 2)[0]\n  pick = merge(top_k(split(v, 2), 1))\n  weight = v"
    v = x[:, :6]
    expected = np.zeros((T, 6))
    for group in (slice(0, 3), slice(3, 6)):
        best = v[:, group].argmax(-1) + group.start
        expected[np.arange(T), best] = v[np.arange(T), best]
    np.testing.assert_allclose(of_router(body, x, 2), expected)
