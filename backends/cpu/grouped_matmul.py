"""moe.matmul and moe.grouped_matmul: threads claim tasks, each some panels of one expert for a chunk of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch_mlir import ir

from moec.backends.cpu import elementwise, swapped, tiling
from moec.backends.cpu.epilogue import Place, read, real_lanes, store
from moec.backends.cpu.frame import Call, Frame, Phase, Storage
from moec.backends.cpu.operands import Operands, dense, grouped
from moec.backends.cpu.product import Block, panel_product, panels_together, scratch_bytes
from moec.backends.cpu.sources import At
from moec.backends.cpu.tasks import Task, Tasks
from moec.backends.cpu.values import Value


def matmul(op: Any, frame: Frame) -> Sequence[Phase]:
    """Phases of `moe.matmul`.  Raises Unsupported where weights are no parameters."""
    return [_phase(op, frame, dense(op, frame), [frame.buffer(out, zeros_behind=True) for out in op.operation.results])]


def grouped_matmul(op: Any, frame: Frame) -> Sequence[Phase]:
    """Phases of `moe.grouped_matmul`.  Raises Unsupported where weights are no parameters."""
    per_token, window = ir.IntegerAttr(op.slots_per_token).value, frame.windows.get(op.offsets)
    outs = [frame.buffer(out, per_token, window, zeros_behind=True) for out in op.operation.results]
    return [_phase(op, frame, grouped(op, frame), outs)]


def _phase(op: Any, frame: Frame, operands: Operands, outs: Sequence[Storage]) -> Phase:
    counter = frame.counter()

    def emit(call: Call) -> None:
        _emit(call, op, operands, outs, counter)

    return Phase(op.operation.name.removeprefix("moe."), emit, work=operands.flops_per_token)


def _splits(call: Call, operands: Operands) -> Value:
    """Into how many tasks to cut the panels of an expert: enough of them for threads to end together.

    The rows of a task are copied once, so that more tasks than that would copy more.
    """
    b, layout = call.b, operands.layout
    rows = call.tokens * operands.rows_per_token
    tasks = b.maximum(b.minimum(rows, layout.experts) + rows // operands.chunk, 1)

    def splits(per_thread: int, least_bytes: int) -> Value:
        most = -(-layout.panels // max(1, least_bytes // layout.panel_bytes))
        return b.minimum((call.threads * per_thread + tasks) // tasks, most)

    wanted = splits(tiling.TASKS_PER_THREAD, tiling.TASK_BYTES)
    if operands.source.together == 1:
        finer = splits(tiling.PAIR_TASKS_PER_THREAD, tiling.PAIR_TASK_BYTES)
        wanted = b.select(call.threads.equals(2), b.maximum(wanted, finer), wanted)
    return b.select(call.threads.equals(1), b.index(1), wanted)


def _emit(call: Call, op: Any, operands: Operands, outs: Sequence[Storage], counter: int) -> None:
    b = call.b
    tasks = Tasks(call, operands, _splits(call, operands), counter)
    held = b.scratch(8)
    held.store(b.index(-1))
    weights = operands.weights(call)
    scratch = b.scratch(scratch_bytes(b, weights, operands.chunk))
    task, ahead = Task.on_stack(b), Task.on_stack(b)

    def run(_: Value) -> Sequence[Value]:
        # The next task is known before this one ends, so that its first weights can be prefetched.
        more = tasks.claim(ahead)

        def panels(of: Task, first: Value) -> At:
            return At(of.expert, first, b.minimum(of.end_panel - first, panels_together(b, weights, of.rows)))

        behind = panels(ahead, ahead.first_panel).pick(b, more, panels(task, task.first_panel))
        rows = operands.rows(call, task.first_row, task.rows, held)
        transposed = operands.transposed(call, rows)
        with b.for_(task.first_panel, task.end_panel, panels_together(b, weights, task.rows)) as panel:
            at = panels(task, panel.index)
            then = panel.index + at.panels
            following = behind.pick(b, then >= task.end_panel, panels(task, then))

            def after(block: Block) -> None:
                _epilogue(call, op, operands, outs, task, block)

            def expanded(at: At = at, following: At = following, after: Callable[[Block], None] = after) -> None:
                panel_product(call, weights, rows, at, following, scratch, after=after)

            swapped.either(call, transposed, at, following, expanded, after=after)
        task.become(ahead)
        return [more]

    b.while_([tasks.claim(task)], lambda found: found, run)


def _epilogue(call: Call, op: Any, operands: Operands, outs: Sequence[Storage], task: Task, block: Block) -> None:
    b = call.b
    together = tiling.EPILOGUE_ROWS
    whole = block.count // together * together
    with b.for_(0, whole, together) as loop:
        _epilogue_of(call, op, operands, outs, task, block, loop.index, together)
    with b.for_(whole, block.count) as loop:
        _epilogue_of(call, op, operands, outs, task, block, loop.index, 1)


def _epilogue_of(
    call: Call,
    op: Any,
    operands: Operands,
    outs: Sequence[Storage],
    task: Task,
    block: Block,
    first: Value,
    count: int,
) -> None:
    """The epilogue of `count` rows of a block, side by side in one vector: their chains of operations overlap."""
    b, layout = call.b, operands.layout
    rows = [task.first_row + block.first + first + n for n in range(count)]
    slots_and_tokens = [operands.slot_and_token(call, row) for row in rows]
    for group in range(layout.groups):
        column = block.at.panel * layout.panel_columns + group * layout.lanes
        real = real_lanes(b, call.frame, layout.columns, column)
        places = [
            Place(row, task.expert, token, slot, column, real)
            for row, (slot, token) in zip(rows, slots_and_tokens, strict=True)
        ]

        def emit(places: Sequence[Place] = places, group: int = group) -> None:
            sums = [operands.sums(call, block, first + n, group) for n in range(count)]
            leaf = lambda element: b.concatenate([read(call, element, place, layout.lanes) for place in places])  # noqa: E731
            joined = [b.concatenate(of_rows) for of_rows in zip(*sums, strict=True)]
            values = elementwise.evaluate(b, op.epilogue, joined, count * layout.lanes, leaf)
            for out, value in zip(outs, values, strict=True):
                for place, part in zip(places, b.cut(value, count), strict=True):
                    store(call, out, place, place.row, part)

        operands.within(b, column, group, emit)
