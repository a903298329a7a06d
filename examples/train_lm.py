"""Train a small language model whose MoE layer moec has compiled: `python -m examples.train_lm`.

The model reads sums written out in words, byte by byte ("six plus thirty is thirty six."), and learns to end them. It
is a transformer of two blocks; the MLP of each is the layer of train_lm.moe, forward and backward compiled. With
`--plain` it is a loop over experts in PyTorch instead: the same computation, for comparison.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import moec

LAYER = Path(__file__).with_name("train_lm.moe")
WIDTH, HIDDEN, EXPERTS, TOP_K = 64, 96, 8, 2
BALANCE, Z = 0.01, 0.001
HEADS, BLOCKS, CONTEXT, BATCH = 4, 2, 64, 16
BYTES = 128

ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(number: int) -> str:
    """A number below 100 in words."""
    if number < 20:
        return ONES[number]
    return TENS[number // 10 - 2] + (f" {ONES[number % 10]}" if number % 10 else "")


def batches(seed: int) -> Iterator[Tensor]:
    """Endless bytes i64 [BATCH, CONTEXT + 1]: sums one behind another."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        rows = []
        for _ in range(BATCH):
            text = ""
            while len(text) <= CONTEXT:
                a, b = torch.randint(0, 50, (2,), generator=generator).tolist()
                text += f"{in_words(a)} plus {in_words(b)} is {in_words(a + b)}. "
            rows.append(list(text.encode()[: CONTEXT + 1]))
        yield torch.tensor(rows)


class Stacked(nn.Module):
    """One matrix an expert: `weight` [experts, out, in]."""

    def __init__(self, experts: int, out: int, inner: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(experts, out, inner) * inner**-0.5)


class Experts(nn.Module):
    """The weights of all experts."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up = Stacked(EXPERTS, HIDDEN, WIDTH), Stacked(EXPERTS, HIDDEN, WIDTH)
        self.down = Stacked(EXPERTS, WIDTH, HIDDEN)


class Router(nn.Module):
    """The weights of the router."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Linear(WIDTH, EXPERTS, bias=False)


class PlainMoE(nn.Module):
    """What train_lm.moe says, as a loop over experts in PyTorch. Its weights have the names of the compiled layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.routed = Router(), Experts()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """x [..., WIDTH] -> the same; in training mode also the auxiliary losses."""
        tokens = x.reshape(-1, WIDTH)
        logits = self.router.logits(tokens)
        probability = logits.softmax(-1)
        weight, pick = probability.topk(TOP_K)
        weight = weight / weight.sum(-1, keepdim=True)
        gate, up, down = self.routed.gate.weight, self.routed.up.weight, self.routed.down.weight
        y = torch.zeros_like(tokens)
        for e in range(EXPERTS):
            row, slot = (pick == e).nonzero(as_tuple=True)
            hidden = F.silu(tokens[row] @ gate[e].T) * (tokens[row] @ up[e].T)
            y = y.index_add(0, row, weight[row, slot, None] * (hidden @ down[e].T))
        y = y.view(x.shape)
        if not self.training:
            return y
        share = torch.bincount(pick.flatten(), minlength=EXPERTS) / pick.numel()
        balance = EXPERTS * (share * probability.mean(0)).sum()
        return y, BALANCE * balance + Z * logits.logsumexp(-1).square().mean()


class Block(nn.Module):
    """Causal attention, then the MoE layer."""

    def __init__(self, moe: nn.Module) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.moe = moe

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [batch, time, WIDTH] -> the same, and the layer's auxiliary losses (0 in evaluation)."""
        q, k, v = self.qkv(self.norm_1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        result = self.moe(self.norm_2(x))
        y, loss = result if self.training else (result, x.new_zeros(()))
        return x + y, loss


class LanguageModel(nn.Module):
    """The probability of the next byte."""

    def __init__(self, make_moe: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(BYTES, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block(make_moe()) for _ in range(BLOCKS))
        self.norm, self.head = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, BYTES)

    def forward(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """text i64 [batch, time] -> logits [batch, time, BYTES], and the sum of the auxiliary losses."""
        x = self.embed(text) + self.place.weight[: text.shape[1]]
        total = x.new_zeros(())
        for block in self.blocks:
            x, loss = block(x)
            total = total + loss
        return self.head(self.norm(x)), total


def train(model: LanguageModel, steps: int, seed: int = 0) -> list[float]:
    """The cross-entropy of each step, in nats a byte (without the auxiliary losses)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    losses = []
    for _, text in zip(range(steps), batches(seed), strict=False):
        logits, auxiliary = model(text[:, :-1])
        entropy = F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        (entropy + auxiliary).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(entropy.item())
    return losses


def compiled_layer(folder: Path) -> Callable[[], nn.Module]:
    """Compile train_lm.moe; each call of the result is a layer of its own that can be trained."""
    artifact = moec.compile(LAYER, folder / "train_lm.so", training=True)
    return lambda: moec.load(artifact, training=True).reset_parameters()


@torch.no_grad()
def complete(model: LanguageModel, start: str, length: int) -> str:
    """`start` and the `length` likeliest bytes behind it, one after another."""
    model.eval()
    text = torch.tensor([list(start.encode())])
    for _ in range(length):
        logits, _ = model(text[:, -CONTEXT:])
        text = torch.cat([text, logits[:, -1:].argmax(-1)], 1)
    return bytes(text[0].tolist()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--plain", action="store_true", help="a loop over experts in PyTorch instead of moec")
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model = LanguageModel(PlainMoE if options.plain else compiled_layer(Path(folder)))
        start = time.perf_counter()
        losses = train(model, options.steps)
        seconds = time.perf_counter() - start
    for step in range(0, options.steps, max(options.steps // 10, 1)):
        print(f"step {step:5d}: {losses[step]:.3f} nats a byte")
    print(f"at the end: {sum(losses[-20:]) / len(losses[-20:]):.3f}; {seconds / options.steps * 1e3:.1f} ms a step")
    print(complete(model, "seven plus thirty is", 30))


if __name__ == "__main__":
    main()
