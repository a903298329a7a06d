"""Sorting slots by expert, stably.

Few slots are one block's. Of more, each block of a fixed grid counts its share, and in a second launch puts it in
order: what stands before it is told by the counts of all blocks.  Places depend on the slots alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.fusion import DECODE, FEW, fused, planned_together
from moec.backends.cuda.kernel import Argument, BufferPointer, FixedGrid, Kernel, Scope, TensorPointer, Tokens
from moec.backends.cuda.parameters import parameters
from moec.backends.cuda.planned import BLOCKS, Counted, columns_of, counted_slots, counts_of_blocks

INCLUDES = ("moec/primitives.cuh", "moec/plan.cuh")
ALONE = 4096
"""Up to so many slots are sorted by one block."""
_WARPS_ALONE, _WARPS = 32, 8
_SHARED = 48 * 1024


@dataclass(frozen=True)
class Sort:
    """Sorting the slots of an index tensor.

    name      wished for the kernels
    total     statement for each expert: `expert`, `start` and `count`, of which every expert comes once
    take      statement for each slot: `flat`, `expert`, `place` in the whole order, `rank` in the expert's; -1 if empty
    outputs   what the statements write, by the name that they use
    before    statement ahead of all
    """

    op: ir.Operation
    name: str
    index: ir.Value
    experts: int
    total: str
    take: str
    outputs: dict[str, Argument]
    by_choice: bool = False
    before: str = ""
    includes: tuple[str, ...] = INCLUDES

    @property
    def per_token(self) -> int:
        return columns_of(self.index)

    def shared_bytes(self, warps: int) -> int:
        """Of a block of so many warps."""
        return (warps + 2) * self.experts * 4

    def warps(self, most: int, arch: Arch) -> int:
        """How many warps of a block have room for their counters.  Raises Unsupported for too many experts."""
        if self.shared_bytes(1) > arch.shared_bytes:
            raise unsupported("cuda", self.op, f"{self.experts} experts")
        return max(1, min(most, _SHARED // (4 * self.experts) - 2))

    def kernels(self, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
        """Raises Unsupported for more experts than a block has room for."""
        most = ALONE // self.per_token + 1
        least = DECODE + 1 if self.op.name == "moe.plan" and planned_together(self.op) is not None else 0
        counts = counts_of_blocks(scope, self.index, self.experts)
        counted = self._counted_from(arch)
        index: Argument = TensorPointer(self.index, "const int*")
        alone, shared = self.warps(_WARPS_ALONE, arch), self.warps(_WARPS, arch)
        found = []
        if least < most:
            found.append(self._kernel(scope, "alone", alone, 1, {"index": index, **self.outputs}, (least, most)))
        most = max(least, most)
        if counted is None or most < counted:
            arguments: dict[str, Argument] = {"index": index, "counts": BufferPointer(counts, "int*")}
            found.append(self._kernel(scope, "count", shared, BLOCKS, arguments, (most, counted)))
        arguments = {"index": index, "counts": BufferPointer(counts, "const int*"), **self.outputs}
        return (*found, self._kernel(scope, "place", shared, BLOCKS, arguments, (most, None)))

    def _counted_from(self, arch: Arch) -> int | None:
        """From how many tokens on a fused route has counted the slots of each block already; None: never."""
        owner = self.index.owner
        if isinstance(owner, ir.Block) or owner.operation.name != "moe.route" or self.by_choice:
            return None
        same = counted_slots(self.index) == Counted(self.per_token, self.experts)
        return FEW if same and fused(owner.operation, arch) is not None else None

    def _kernel(
        self,
        scope: Scope,
        part: str,
        warps: int,
        blocks: int,
        arguments: dict[str, Argument],
        tokens: tuple[int, int | None],
    ) -> Kernel:
        name = scope.name(f"{self.name}_{part}")
        source = "\n".join(
            [
                f"MOEC_KERNEL({32 * warps}, 1) {name}({parameters(arguments)}) {{",
                "  MOEC_SHARED(shared);",
                *self.statements(part, warps, "index"),
                "}\n",
            ]
        )
        shared, found = self.shared_bytes(warps), (*arguments.values(), Tokens())
        return Kernel(name, source, self.includes, 32 * warps, shared, FixedGrid(blocks), found, tokens)

    def statements(self, part: str, warps: int, index: str) -> list[str]:
        """What a kernel does, `part` being `alone`, `count` or `place`, with the pointer `index` and those of
        `outputs`."""
        lines = [
            f"  using Sorted = moec::Slots<{self.experts}, {self.per_token}, {str(self.by_choice).lower()}>;",
            f"  const Sorted given_slots{{{index}, tokens}};",
        ]
        if part == "count":
            return [*lines, f"  moec::count_share<Sorted, {warps}>(given_slots, counts, shared);"]
        call = "sort_alone" if part == "alone" else "sort_share"
        given = ["given_slots", *(["counts"] if part == "place" else []), "shared", "total", "take"]
        return [
            *lines,
            *([f"  {self.before}"] if self.before else []),
            f"  const auto total = [&](int expert, int start, int count) {{ {self.total} }};",
            f"  const auto take = [&](int flat, int expert, int place, int rank) {{ {self.take} }};",
            f"  moec::{call}<Sorted, {warps}>({', '.join(given)});",
        ]
