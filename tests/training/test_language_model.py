"""A small language model ends where its twin in PyTorch ends (`pytest --run-slow -m slow tests/training`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from examples.train_lm import LanguageModel, PlainMoE, compiled_layer, complete, train

STEPS = 250
AGREE = 0.03
"""How far apart the two may end, relative to where they end: rounding differs, and with it, now and then, a choice."""


def mean_of_last(losses: list[float]) -> float:
    return sum(losses[-20:]) / 20


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other in every small operation would take minutes on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.timeout(900)  # a quarter of a minute on a core of its own
@pytest.mark.usefixtures("one_thread")
def test_language_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = LanguageModel(PlainMoE)
    compiled = LanguageModel(compiled_layer(tmp_path))
    compiled.load_state_dict(plain.state_dict())
    losses = {name: train(model, STEPS) for name, model in (("plain", plain), ("compiled", compiled))}
    assert losses["compiled"][0] == pytest.approx(losses["plain"][0], rel=1e-5), "the same start"
    assert losses["compiled"][:10] == pytest.approx(losses["plain"][:10], rel=1e-3)
    ends = {name: mean_of_last(values) for name, values in losses.items()}
    assert ends["compiled"] == pytest.approx(ends["plain"], rel=AGREE), ends
    assert ends["compiled"] < 0.2 * losses["compiled"][0], ends
    assert complete(compiled, "seven plus one is", 6).startswith("seven plus one is ")


def test_a_few_steps_of_the_example(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = LanguageModel(PlainMoE)
    compiled = LanguageModel(compiled_layer(tmp_path))
    compiled.load_state_dict(plain.state_dict())
    assert train(compiled, 3) == pytest.approx(train(plain, 3), rel=1e-4)
