"""Calls of one module: one after the other with other numbers of tokens, from threads at once, of odd tensors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from moec.errors import LayoutError
from moec.runtime.module import Layer
from tests.fuzz.tensors import Named
from tests.fuzz.ways.tried import Tried, require_same

MANY = 1500
"""More tokens than anything else is tried with."""
IN_A_ROW = (3, 70, 1, MANY, 0, 5, 300, 2, 16)


def run(tried: Tried) -> None:
    module = tried.module()
    batches = {count: tried.tokens(count) for count in IN_A_ROW}
    wanted = {count: tried.layer(batch, 2) for count, batch in batches.items()}
    with torch.no_grad():
        threads = torch.get_num_threads()
        for number, (count, batch) in enumerate(batches.items()):
            torch.set_num_threads(1 + number % 3)
            require_same(module(**batch), wanted[count], f"{count} tokens after others")
        torch.set_num_threads(threads)
    _at_once(module, batches, wanted)
    with torch.no_grad():
        _odd(module, tried.tokens(24), tried.layer)
    if tried.layer.manifest.guarantees.batch_invariant:
        some = slice(MANY - 40, MANY - 3)
        part = {name: one[some] for name, one in batches[MANY].items()}
        require_same(tried.layer(part), wanted[MANY][some], f"37 of {MANY} tokens")


def _at_once(module: Layer, batches: dict[int, Named], wanted: dict[int, torch.Tensor]) -> None:
    def calls(first: int) -> None:
        torch.set_num_threads(1 + first % 2)
        for number in range(2 * len(IN_A_ROW)):
            count = IN_A_ROW[(first * 4 + number) % len(IN_A_ROW)]
            with torch.no_grad():
                require_same(module(**batches[count]), wanted[count], f"{count} tokens beside other calls")

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(calls, number) for number in range(3)]:
            done.result()


def _odd(module: Layer, batch: Named, kernels: object) -> None:
    """Tokens of another leading shape, within larger tensors, and with rows that do not follow each other."""
    whole = module(**batch)
    require_same(
        module(**{name: one.view(2, 3, 4, *one.shape[1:]) for name, one in batch.items()}),
        whole.view(2, 3, 4, -1),
        "three leading axes",
    )
    none = module(**{name: one[:0].view(0, 5, *one.shape[1:]) for name, one in batch.items()})
    assert none.shape == (0, 5, *whole.shape[1:])
    inside = {name: torch.cat([one[:1], one])[1:] for name, one in batch.items()}
    require_same(module(**inside), whole, "tokens within a larger tensor")
    apart = {name: torch.stack([one, one], 1)[:, 0] for name, one in batch.items()}
    with pytest.raises(LayoutError):
        module(**apart)
    require_same(module(**{name: one.contiguous() for name, one in apart.items()}), whole, "after a refusal")
