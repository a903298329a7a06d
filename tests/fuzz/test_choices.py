"""What is drawn can be drawn again, and what fails is made simpler."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.choices import Choices, Script, simplest
from tests.fuzz.layers import sample


@pytest.mark.parametrize("seed", range(20))
def test_a_script_draws_the_same_again(seed: int) -> None:
    choices = Choices(random.Random(seed))
    drawn = sample(choices)
    again = Choices(choices.script)
    assert sample(again) == drawn
    assert again.script == choices.script


def test_only_what_matters_stays() -> None:
    script = tuple(random.Random(1).randrange(1, 50) for _ in range(70))
    tried: list[Script] = []

    def fails(made: Script) -> bool:
        tried.append(made)
        return made[13] == script[13] and made[40] == script[40]

    found = simplest(script, fails, 1000)
    assert {at: number for at, number in enumerate(found) if number} == {13: script[13], 40: script[40]}
    assert simplest(script, fails, 0) == script
    before = len(tried)
    simplest(script, fails, 5)
    assert len(tried) == before + 5


def test_the_simplest_of_all_is_a_plain_layer() -> None:
    assert "experts routed[4] = kind(d, 16) : f32" in sample(Choices(())).text
