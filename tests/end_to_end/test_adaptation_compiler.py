"""The real compiler in the background: from an artifact to a variant of it that gives the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import moec
from moec.artifact import container
from moec.artifact.specialisation import Specialisation
from moec.errors import CompilerError
from moec.runtime.adapt.cache import Cache
from moec.runtime.adapt.supply import Supply
from moec.runtime.adapt.worker import Worker
from tests.end_to_end.conftest import PATIENCE

LAYER = """edition 1
layer Tiny(d = 32, ff = 16) {
  router softmax_top(2)
  experts routed[8] = swiglu(d, ff)
}
"""


@pytest.mark.usefixtures("prompt_compiler")
def test_a_variant_of_a_range_of_tokens(tmp_path: Path) -> None:
    (tmp_path / "layer.moe").write_text(LAYER)
    path = moec.compile(tmp_path / "layer.moe")
    layer = moec.load(path).reset_parameters(1)
    supply = Supply(container.read(path), layer.variant, Worker(PATIENCE), Cache(tmp_path / "cache"))
    try:
        made = supply.submit(Specialisation("decode", tokens=(1, 16))).result()
        assert made.source == "compiler"
        assert [variant.name for variant in made.artifact.manifest.variants] == [layer.variant]
        with pytest.raises(CompilerError, match="capacity"):
            supply.submit(Specialisation("wide", capacity=2.0)).result()
        again = supply.submit(Specialisation("decode", tokens=(1, 16))).result()
        assert again.source == "cache"
    finally:
        supply.close()
    (variant,) = (tmp_path / "cache").glob("*.so")
    special = moec.load(variant)
    special.load_state_dict(layer.unpack().state_dict())
    for tokens in (0, 1, 16, 40):
        x = torch.randn(tokens, 32)
        assert torch.equal(special(x), layer(x))
