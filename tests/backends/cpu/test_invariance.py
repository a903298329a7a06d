"""A token's bits are its own: whatever else is in the batch, wherever it stands, however many threads there are."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.backends.cpu.test_matmul import VARIANTS, Layer

SIZE = (70, 45, 24, 3)
MOST = 160
ROUTINGS = ("even", "few", "one", "dropped", "zipf")

layer = cache(lambda dtype: Layer(SIZE, dtype))


@cache
def alone(dtype: str, variant: int, routing: str) -> torch.Tensor:
    """What each token gives in a batch of its own, on one thread."""
    inputs = tokens(dtype, routing)
    rows = [{name: tensor[t : t + 1] for name, tensor in inputs.items()} for t in range(MOST)]
    return torch.cat([layer(dtype).run(row, variant, threads=1) for row in rows])


@cache
def tokens(dtype: str, routing: str) -> dict[str, torch.Tensor]:
    if routing != "zipf":
        return layer(dtype).inputs(MOST, routing)
    inputs = layer(dtype).inputs(MOST, "even")
    random = torch.Generator().manual_seed(2)
    popularity = torch.arange(1, SIZE[2] + 1) ** -1.2
    gumbel = -torch.log(-torch.log(torch.rand(MOST, SIZE[2], generator=random)))
    return {**inputs, "index": (popularity.log() + gumbel).topk(SIZE[3], -1).indices.int()}


@pytest.mark.parametrize("variant", range(len(VARIANTS)), ids=[v.name for v in VARIANTS])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_tokens_bits_do_not_depend_on_its_company(dtype: str, variant: int, data: st.DataObject) -> None:
    routing = data.draw(st.sampled_from(ROUTINGS))
    count = data.draw(st.integers(1, MOST))
    threads = data.draw(st.integers(1, 4))
    order = torch.randperm(MOST, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))[:count]
    batch = {name: tensor[order] for name, tensor in tokens(dtype, routing).items()}
    assert torch.equal(layer(dtype).run(batch, variant, threads), alone(dtype, variant, routing)[order])
