"""Steps of training of a module, whatever of it is trained: the gradients that its kernels give alone."""

from __future__ import annotations

import torch

import moec
from moec.runtime.module import Layer
from tests.fuzz.inference import pack
from tests.fuzz.tensors import Named
from tests.fuzz.ways.tried import Tried, require_same

COUNTS = (17, 1, 0, 40, 3)


def run(tried: Tried) -> None:
    """Nothing of a layer that cannot be trained."""
    if tried.layer.manifest.training is None:
        return
    module = moec.load(tried.artifact, variant=tried.layer.kernel.variant, training=True)
    module.load_state_dict(tried.layer.given)
    generator = torch.Generator().manual_seed(tried.sample.seed)
    layer = tried.layer
    for count in COUNTS:
        batch = tried.tokens(count)
        with torch.no_grad():
            require_same(module.eval()(**batch), layer(batch), f"{count} tokens in evaluation")
        seed = torch.randn(batch["x"].shape, generator=generator).to(batch["x"].dtype)
        whole, loss = _step(module, batch, seed, set(batch) | {name for name, _ in module.named_parameters()})
        for _ in range(2):
            some = {name for name in sorted(whole) if torch.rand((), generator=generator) < 0.4}
            torch.set_num_threads(1 + count % 3)
            found, again = _step(module, batch, seed, some)
            torch.set_num_threads(2)
            assert set(found) == some & set(whole), "gradients of other tensors than those that are trained"
            for name, gradient in found.items():
                require_same(gradient, whole[name], f"{count} tokens, the gradient of {name} where {some} are trained")
            require_same(again, loss, "the auxiliary losses")
        if not count:  # a step of an optimizer, of which evaluation has to know
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.mul_(0.5)
            layer = pack(layer.kernel, {name: one.detach().clone() for name, one in module.state_dict().items()})


def _step(module: Layer, batch: Named, seed: torch.Tensor, trained: set[str]) -> tuple[Named, torch.Tensor]:
    """Gradients of what is trained, and the auxiliary losses."""
    module.train()
    given = {name: one.clone() for name, one in batch.items()}
    for name, one in given.items():
        one.requires_grad_(name in trained and one.is_floating_point())
    for name, parameter in module.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(name in trained and parameter.is_floating_point())
    result = module(**given)
    y, loss = result if isinstance(result, tuple) else (result, torch.zeros(()))
    ends = [(y, seed), (loss, torch.ones(()))]
    ends = [(end, start) for end, start in ends if end.requires_grad]
    if ends:
        torch.autograd.backward([end for end, _ in ends], [start for _, start in ends])
    found = {name: one.grad for name, one in given.items() if one.grad is not None}
    found |= {name: one.grad.clone() for name, one in module.named_parameters() if one.grad is not None}
    return found, loss.detach()
