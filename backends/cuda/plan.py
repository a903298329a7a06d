"""moe.plan and moe.count: sorting slots by expert.

Few slots are one block's. Of more, each block of a fixed grid counts its share, and in a second launch puts it in
order: what stands before it is told by the counts of all blocks.  Places depend on the slots alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.base import unsupported
from moec.backends.cuda.arch import Arch
from moec.backends.cuda.kernel import Argument, Buffer, BufferPointer, FixedGrid, Kernel, Scope, TensorPointer, Tokens
from moec.backends.cuda.planned import BLOCKS, Counted, counted_slots, counts_of_blocks, rows_of_slots
from moec.backends.cuda.route import FEW, fused

INCLUDES = ("moec/primitives.cuh", "moec/plan.cuh")
_ALONE = 4096
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

    def kernels(self, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
        """Raises Unsupported for more experts than a block has room for."""
        room = _SHARED // (4 * self.experts) - 2
        if 3 * self.experts * 4 > arch.shared_bytes:
            raise unsupported("cuda", self.op, f"{self.experts} experts")
        most = _ALONE // self.per_token + 1
        counts = counts_of_blocks(scope, self.index, self.experts)
        counted = self._counted_from(arch)
        index: Argument = TensorPointer(self.index, "const int*")
        alone, shared = max(1, min(_WARPS_ALONE, room)), max(1, min(_WARPS, room))
        found = [self._kernel(scope, "alone", alone, 1, {"index": index, **self.outputs}, (0, most))]
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

    @property
    def per_token(self) -> int:
        return int(ir.RankedTensorType(self.index.type).get_dim_size(1))

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
        shared = (warps + 2) * self.experts * 4
        given = [f"{a.ctype} MOEC_RESTRICT {called}" for called, a in arguments.items() if not isinstance(a, Tokens)]
        order = "true" if self.by_choice else "false"
        lines = [
            f"MOEC_KERNEL({32 * warps}, 1) {name}({', '.join([*given, 'int tokens'])}) {{",
            "  MOEC_SHARED(shared);",
            f"  using Sorted = moec::Slots<{self.experts}, {self.per_token}, {order}>;",
            "  const Sorted slots_given{index, tokens};",
        ]
        if part == "count":
            lines.append(f"  moec::count_share<Sorted, {warps}>(slots_given, counts, shared);")
        else:
            call = "sort_alone" if part == "alone" else "sort_share"
            given_counts = "" if part == "alone" else "counts, "
            lines += [f"  {self.before}"] if self.before else []
            lines += [
                f"  const auto total = [&](int expert, int start, int count) {{ {self.total} }};",
                f"  const auto take = [&](int flat, int expert, int place, int rank) {{ {self.take} }};",
                f"  moec::{call}<Sorted, {warps}>(slots_given, {given_counts}shared, total, take);",
            ]
        source = "\n".join([*lines, "}\n"])
        found = (*arguments.values(), Tokens())
        return Kernel(name, source, self.includes, 32 * warps, shared, FixedGrid(blocks), found, tokens)


def plan(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernels of a `moe.plan`; they also leave `planned.rows_of_slots`, and what `moe.count` asks of its index."""
    (index,) = op.operands
    offsets, slots = op.results
    experts = int(ir.IntegerAttr(op.attributes["experts"]).value)
    rows: Buffer = rows_of_slots(scope, offsets)
    outputs: dict[str, Argument] = {
        "offsets": TensorPointer(offsets, "int*"),
        "slots": TensorPointer(slots, "int*"),
        "rows": BufferPointer(rows, "int*"),
    }
    total = f"offsets[expert] = start; if (expert == {experts - 1}) offsets[{experts}] = start + count;"
    for n, count in enumerate(_counts_of(op)):
        size = ir.RankedTensorType(count.type).get_dim_size(0)
        outputs[f"chosen{n}"] = TensorPointer(count, "int*")
        total += f" if (expert < {size}) chosen{n}[expert] = count;"
    take = "rows[flat] = place; if (expert >= 0) slots[place] = flat;"
    return Sort(op, "plan", index, experts, total, take, outputs).kernels(scope, arch)


def count(op: ir.Operation, scope: Scope, arch: Arch) -> tuple[Kernel, ...]:
    """The kernels of a `moe.count`: none where a plan sorts the same slots and counts on the way."""
    (index,) = op.operands
    if any(op.results[0] in _counts_of(plan) for plan in _plans(index)):
        return ()
    experts = int(ir.RankedTensorType(op.results[0].type).get_dim_size(0))
    outputs: dict[str, Argument] = {"chosen": TensorPointer(op.results[0], "int*")}
    return Sort(op, "count", index, experts, "chosen[expert] = count;", "", outputs).kernels(scope, arch)


def _plans(index: ir.Value) -> list[ir.Operation]:
    users = [use.owner.operation for use in index.uses]
    return [user for user in users if user.name == "moe.plan"]


def _counts_of(plan: ir.Operation) -> list[ir.Value]:
    """Results of counts that the kernels of a plan write: nothing reads these before the function ends."""
    index, experts = plan.operands[0], int(ir.IntegerAttr(plan.attributes["experts"]).value)
    if _plans(index)[0] != plan:
        return []
    counts = [use.owner.operation.results[0] for use in index.uses if use.owner.operation.name == "moe.count"]
    return [
        value
        for value in counts
        if ir.RankedTensorType(value.type).get_dim_size(0) <= experts
        and all(use.owner.operation.name == "func.return" for use in value.uses)
    ]
