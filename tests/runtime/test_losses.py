"""Auxiliary losses, against the papers' formulas written out for one token at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import moec
from moec.artifact.manifest import Loss
from moec.runtime import losses
from tests.parallel.ranks import run
from tests.runtime import double

BATCH = (Loss("balance", 0.5, "batch"), Loss("z", 0.25, "batch"))
EVERYWHERE = (Loss("balance", 0.5, "global"), Loss("z", 0.25, "batch"))


def tensors(tokens: int, experts: int = 6, k: int = 2, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(tokens, experts, generator=generator, dtype=torch.float64)
    picks = logits.topk(k, -1).indices
    return {
        "probability": logits.softmax(-1).float().requires_grad_(),
        "count": torch.bincount(picks.flatten(), minlength=experts).int(),
        "z": logits.logsumexp(-1, keepdim=True).square().float().requires_grad_(),
    }


def by_hand(given: dict[str, Tensor]) -> Tensor:
    probability, count = given["probability"].double(), given["count"].tolist()
    tokens, experts = probability.shape
    balance = sum(
        count[e] / sum(count) * (sum(probability[t, e] for t in range(tokens)) / tokens) for e in range(experts)
    )
    return 0.5 * experts * balance + 0.25 * sum(given["z"].double()) / tokens


def test_value_and_gradients() -> None:
    given = tensors(9)
    value, want = losses.total(BATCH, given), by_hand(given)
    assert value.dtype is torch.float32
    assert value.shape == ()
    torch.testing.assert_close(value.double(), want.reshape(()), rtol=1e-6, atol=0)
    over = [given["probability"], given["z"]]
    torch.testing.assert_close(torch.autograd.grad(value, over), torch.autograd.grad(want, over))


def test_even_routing_costs_the_least() -> None:
    even = {"probability": torch.full((12, 4), 0.25), "count": torch.full((4,), 3, dtype=torch.int32)}
    one = {"probability": torch.eye(4)[[0] * 12], "count": torch.tensor([12, 0, 0, 0], dtype=torch.int32)}
    assert float(losses.total((Loss("balance", 1.0, "batch"),), even)) == 1.0
    assert float(losses.total((Loss("balance", 1.0, "batch"),), one)) == 4.0


@pytest.mark.parametrize("asked", [BATCH, EVERYWHERE, ()])
def test_no_tokens(asked: tuple[Loss, ...]) -> None:
    given = tensors(0)
    value = losses.total(asked, given)
    assert value.item() == 0.0
    if asked:
        value.backward()
        assert given["probability"].grad.shape == (0, 6)


def test_without_processes_global_is_the_batch() -> None:
    given = tensors(9)
    assert torch.equal(losses.total(BATCH, given), losses.total(EVERYWHERE, given))


def test_the_sum_does_not_depend_on_threads() -> None:
    given, before = tensors(3000, 64), torch.get_num_threads()
    try:
        values = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            values.append(losses.total(BATCH, given).item())
    finally:
        torch.set_num_threads(before)
    assert len(set(values)) == 1


def test_a_layer_returns_them_in_training_mode(losses_path: Path) -> None:
    layer = moec.load(losses_path, training=True)
    layer.load_state_dict(double.weights())
    weights = {n: t.clone().requires_grad_(t.is_floating_point()) for n, t in double.weights().items()}
    x = torch.randn(2, 3, 4)
    ids = torch.randint(0, 5, (2, 3), dtype=torch.int32)
    y, loss = layer(x, ids)
    assert torch.equal(y, double.expected(x, ids))
    want = losses.total(BATCH, double.expected_loss_tensors(x.view(-1, 4), ids.view(-1), weights))
    torch.testing.assert_close(loss, want)
    want.backward()
    loss.backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad, msg=name)
    with torch.no_grad():
        assert isinstance(layer(x, ids), tuple), "the mode decides, not autograd"
        assert torch.equal(layer.eval()(x, ids), y)


def own_part(rank: int, tokens: int) -> slice:
    """Two processes with batches of different sizes."""
    return slice(0, tokens // 3) if rank == 0 else slice(tokens // 3, tokens)


def one_process(artifact: str) -> dict[str, Tensor]:
    layer = moec.load(artifact, training=True)
    layer.load_state_dict(double.weights())
    model = torch.nn.parallel.DistributedDataParallel(layer)
    x, ids = batch()
    part = own_part(dist.get_rank(), len(x))
    _, loss = model(x[part], ids[part])
    loss.backward()
    return {"loss": loss.detach(), **{n: p.grad for n, p in layer.named_parameters()}}


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(15, 4, generator=generator), torch.randint(0, 5, (15,), dtype=torch.int32, generator=generator)


def test_the_global_loss_of_two_processes(tmp_path: Path) -> None:
    artifact = double.artifact(tmp_path, "TRAINING", losses=(Loss("balance", 0.5, "global"),))
    layer = moec.load(artifact, training=True)
    layer.load_state_dict(double.weights())
    _, loss = layer(*batch())
    loss.backward()
    for found in run(one_process, 2, str(artifact)):
        torch.testing.assert_close(found["loss"], loss.detach())
        # DistributedDataParallel averages over the processes.
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(found[name], parameter.grad, msg=name)
