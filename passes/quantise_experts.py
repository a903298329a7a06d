"""Some routed experts are stored as codes with scales, though the file says otherwise."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir
from torch_mlir.dialects import arith

from moec.dialect.functions import routed
from moec.dialect.subsets import quantized
from moec.formats import FORMATS
from moec.passes.base import Pass, Remarks
from moec.passes.chains import Chain, chains
from moec.passes.refusal import error
from moec.passes.rewriting import dims, function
from moec.passes.same_program import own_parameters, stored

SCALES = ("f32", "bf16")


@dataclass(frozen=True)
class QuantiseExperts(Pass):
    """Quantises the linears of some routed experts, at graph level; the layer is an approximation of itself then.

    experts  their numbers in the file, such as `3+7+9..12`
    format   the name of one in `moec.formats`
    group    how many inputs share a scale; 0: one scale a channel
    scale    the element type of the scales

    Experts of one format are dispatched together, so that those chosen leave the dispatch that they were in.  Raises
    DiagnosticError for an expert that there is not or that is quantised already, and for groups that do not fit.
    """

    experts: str = ""
    format: str = "int4"
    group: int = 0
    scale: str = "bf16"
    name: ClassVar[str] = "quantise-experts"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        group = routed(module)
        numbers = parse_numbers(self.experts)
        if group is None or not numbers or numbers[-1] >= group.count:
            have = "does not say which experts it has" if group is None else f"has experts 0..{group.count - 1}"
            raise error("E0611", f"`{self.experts}` are no experts of a layer that {have}")
        if self.format not in FORMATS or self.scale not in SCALES:
            raise error("E0611", f"there is no format `{self.format}` with scales of `{self.scale}`")
        for chain in chains(module, group.count):
            chosen = [i for i, number in enumerate(chain.numbers) if number in numbers]
            if chosen:
                self._split(chain, chosen, group.count)
        what = f"{len(numbers)} of {group.count} experts are kept as {self.format}"
        remarks.add(self, what, function(module).location)

    def _split(self, chain: Chain, chosen: Sequence[int], count: int) -> None:
        """Two chains instead of one: those that stay, and those `chosen`, by their places in the chain."""
        for parameter in own_parameters(chain.experts.body.blocks[0]):
            if stored(parameter)[0] is not None:
                raise error("E0611", f"expert {chain.numbers[chosen[0]]} is stored in a format of its own already")
        kept = [i for i in range(len(chain.numbers)) if i not in chosen]
        with ir.InsertionPoint(chain.combine), chain.experts.location:
            sums = [chain.part(kept, count, lambda name, value: value)] if kept else []
            sums.append(chain.part(chosen, count, self._quantised))
            total = sums[0] if len(sums) == 1 else arith.addf(*sums)
        chain.combine.out.replace_all_uses_with(total)
        chain.erase()

    def _quantised(self, name: str, weights: ir.Value) -> ir.Value:
        """A linear's weights as codes and scales."""
        inner = dims(weights)[2]
        if self.group and inner % self.group:
            raise error("E0611", f"groups of {self.group} do not divide the {inner:,} inputs of `{name}`")
        return quantized(weights, self.format, self.group or None, self.scale)


def parse_numbers(text: str) -> list[int]:
    """`3+7+9..12` as ascending numbers.  Raises DiagnosticError."""
    numbers: set[int] = set()
    for part in text.split("+"):
        ends = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", part)
        if ends is None:
            raise error("E0611", f"`{text}` are no numbers of experts", fix="write them as `3+7+9..12`")
        numbers |= set(range(int(ends[1]), int(ends[2] or ends[1]) + 1))
    return sorted(numbers)
