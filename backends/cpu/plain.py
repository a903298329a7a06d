"""Weights as the caller holds them, expanded into panels a unit at a time: tensor<ExNxK>, or transposed tensor<ExKxN>.

Of tensor<ExNxK>, the columns of a panel are rows in memory: squares of them are transposed in registers.  Of
tensor<ExKxN>, they lie side by side already; pairs of bf16 are interleaved from two rows.  Either takes a small part
of the time in which a chunk of rows is multiplied, and none of the memory bandwidth that writing packed weights would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_mlir import ir

from moec.backends.cpu import parameters, tiling
from moec.backends.cpu.builder import Builder, Function
from moec.backends.cpu.frame import LINE, Call, align_up, copy_bytes
from moec.backends.cpu.layout import Arithmetic, Panels
from moec.backends.cpu.microkernel import PACE
from moec.backends.cpu.sources import At, Coming, Lines, Streams
from moec.backends.cpu.transpose import transpose
from moec.backends.cpu.values import Pointer, Value, byte_width


@dataclass(frozen=True)
class _Operand:
    """A weights operand: the parameters that it is stacked of, each with the expert that it begins with, and which of
    the parameter's own experts that is."""

    parts: tuple[tuple[int, int, ir.Value], ...]

    def expert(self, call: Call, number: Value, bytes_: int) -> Pointer:
        """The address of an expert's matrix."""
        b = call.b
        found = b.null
        for first, own, parameter in self.parts:
            here = call.address(call.frame.given(parameter)).at(number - first + own, bytes_)
            found = Pointer(b.select(number >= first, here, found).raw) if first else here
        return found


@dataclass(frozen=True)
class _Plain:
    """What both forms share."""

    layout: Panels
    element: ir.Type
    operands: tuple[_Operand, ...]

    @property
    def width(self) -> int:
        return byte_width(self.element)

    def matrix(self, call: Call, operand: int, expert: Value) -> Pointer:
        bytes_ = self.layout.columns * self.layout.inner * self.width
        return self.operands[operand].expert(call, expert, bytes_)

    def _groups(self, panel: Value) -> list[tuple[int, int, Value, int]]:
        """(operand, group, its first column, where its vectors begin in a step)."""
        layout = self.layout
        return [
            (
                operand,
                group,
                panel * layout.panel_columns + group * layout.lanes,
                (group * layout.operands + operand) * layout.vector_bytes,
            )
            for operand in range(layout.operands)
            for group in range(layout.groups)
        ]


@dataclass(frozen=True)
class Rows(_Plain):
    """tensor<ExNxK>: a column of a panel is a row in memory."""

    @property
    def unit_steps(self) -> int:
        return align_up(tiling.unit_steps(self.layout), self.layout.lanes)

    @property
    def part_bytes(self) -> int:
        return expanded_part_bytes(self.layout, self.unit_steps)

    @property
    def chunk(self) -> tiling.Chunk:
        return tiling.EXPANDED_CHUNK

    @property
    def early(self) -> bool:
        return False

    @property
    def together(self) -> int:
        return 1

    def ahead(self, call: Call, coming: Coming, block: Value, blocks: Value) -> Streams:
        """A panel's rows lie one after the other: each unit prefetches a part of the next panel, block by block."""
        b, layout = call.b, self.layout
        row = layout.inner * self.width
        bytes_ = layout.panel_columns * row // coming.units
        share = (b.index(bytes_) + (blocks - 1)) // blocks
        stride = (share + (coming.steps - 1)) // coming.steps
        offset = coming.panel.panel * (layout.panel_columns * row) + coming.unit * bytes_ + share * block
        first = self.matrix(call, 0, coming.panel.expert) + offset
        if layout.operands > 1:
            return Streams(first, stride, self.matrix(call, 1, coming.panel.expert) + offset, stride)
        if layout.step_bytes <= LINE:
            return Streams(first, stride)
        return Streams(first, stride, first + LINE, stride, needed=blocks.equals(1))

    def lines(self, call: Call, coming: Coming, block: Value, blocks: Value) -> Sequence[Lines]:
        b = call.b
        panel = self.layout.panel_columns * self.layout.inner * self.width // self.layout.operands
        share = (b.index(panel // coming.units) + (blocks - 1)) // blocks
        offset = coming.panel.panel * panel + coming.unit * (panel // coming.units) + share * block
        return [
            Lines(
                self.matrix(call, operand, coming.panel.expert) + offset, b.index(LINE), b.index(0), share // LINE + 1
            )
            for operand in range(self.layout.operands)
        ]

    def expand(self, call: Call, at: At, first: Value, steps: Value, to: Pointer) -> None:
        b, layout = call.b, self.layout
        function = self._function(b)
        row = layout.inner * self.width
        for operand, _, column, place in self._groups(at.panel):
            begin = b.minimum(column, layout.columns - 1)
            source = self.matrix(call, operand, at.expert).at(begin, row)
            source = source.at(first * layout.elements_per_step, self.width)
            left = b.index(layout.inner) - first * layout.elements_per_step
            b.call(function, source, layout.columns - begin, left, steps, to + place)

    def _function(self, b: Builder) -> Function:
        """`void expand(source, rows, elements, steps, to)`: of `rows` rows at `source` (the last stands for those
        that a vector has more) the next `elements`, of which none is left behind a row's end."""
        layout = self.layout
        name = f"expand_rows_{layout.arithmetic.value}_{self.element}_{layout.inner}_{layout.step_bytes}"
        function = b.declare(name, [b.ptr, b.i64, b.i64, b.i64, b.ptr])
        if not function.operation.body.blocks:
            with b.define(function) as given:
                self._define(b, *given)
        return function

    def _define(self, b: Builder, source: Pointer, rows: Value, elements: Value, steps: Value, to: Pointer) -> None:
        layout = self.layout
        lanes, row = layout.lanes, layout.inner * self.width
        square = lanes * layout.elements_per_step * self.width  # bytes of a row
        whole = b.minimum(steps, elements // layout.elements_per_step) // lanes * lanes

        def squares(row_at: Callable[[int], Pointer]) -> None:
            with b.for_(0, whole, lanes) as loop:
                offset = loop.index * (layout.elements_per_step * self.width)
                self._square(b, [row_at(n) + offset for n in range(lanes)], to.at(loop.index, layout.step_bytes))

        def all_rows() -> list[Value]:
            squares(lambda n: source + n * row)
            return []

        def some_rows() -> list[Value]:
            squares(lambda n: source.at(b.minimum(b.index(n), rows - 1), row))
            return []

        b.choose(rows >= lanes, [], all_rows, some_rows)
        with b.if_(whole < steps):
            begin = whole * (layout.elements_per_step * self.width)
            bytes_ = b.minimum((elements * self.width) - begin, square)
            spill = b.scratch(lanes * square)
            zero = b.constant(b.i8, 0), b.index(lanes * square), b.constant(b.i1, 0)
            b.intrinsic("llvm.memset", None, spill, *zero)
            with b.for_(0, lanes) as loop:
                row_ = source.at(b.minimum(loop.index, rows - 1), row) + begin
                copy_bytes(b, spill.at(loop.index, square), row_, bytes_)
            self._square(b, [spill + n * square for n in range(lanes)], to.at(whole, layout.step_bytes))

    def _square(self, b: Builder, rows: Sequence[Pointer], to: Pointer) -> None:
        """As many steps of as many rows as a vector has lanes."""
        layout = self.layout
        for step, vector in enumerate(transpose(b, [self._load(b, at) for at in rows])):
            (to + step * layout.step_bytes).store(vector, align=layout.vector_bytes)

    def _load(self, b: Builder, at: Pointer) -> Value:
        bits = b.vec(self.layout.lanes, b.i32)
        if self.layout.arithmetic is Arithmetic.PAIRS or self.element == b.f32:
            return at.load(bits, align=self.width)
        return b.convert(at.load(b.vec(self.layout.lanes, self.element)), b.f32).bitcast(bits)


@dataclass(frozen=True)
class Columns(_Plain):
    """tensor<ExKxN>, multiplied transposed: the columns of a panel lie side by side, those of several in a run."""

    room: int | None = None
    """`part_bytes` where others than its own units are expanded; None: it is for these."""

    @property
    def unit_steps(self) -> int:
        return tiling.unit_steps(self.layout, self.together, tiling.run_unit_bytes(self.layout))

    @property
    def part_bytes(self) -> int:
        return self.room or expanded_part_bytes(self.layout, self.unit_steps)

    @property
    def together(self) -> int:
        return min(tiling.panels_together(self.layout.columns * self.width), self.layout.panels)

    @property
    def panel_row_bytes(self) -> int:
        """Bytes of a panel in a row of the matrix."""
        return self.layout.panel_columns * self.width

    @property
    def chunk(self) -> tiling.Chunk:
        return tiling.EARLY_CHUNK

    @property
    def early(self) -> bool:
        return True

    def ahead(self, call: Call, coming: Coming, block: Value, blocks: Value) -> Streams:
        """Each block prefetches its share: runs of lines, one in each row of the matrix.

        Where rows are a power of two apart, their lines fall into a few sets of the second-level cache, which could not
        hold those of a unit until the end of it.
        """
        b = call.b
        (lines,) = self.lines(call, coming, block, blocks)
        needed = lines.count > coming.steps  # more lines than one stream has steps
        share = lines.count >> lines.run
        runs = b.select(needed, (share + 1) // 2, share)
        # The last lines are asked for some time before the block ends, and they are expanded.
        pace = b.minimum((runs << lines.run) * (PACE * 8 // 7) // coming.steps, PACE)
        second = lines.first + runs * lines.stride
        return Streams(lines.first, lines.stride, second, lines.stride, needed, pace, lines.run)

    def lines(self, call: Call, coming: Coming, block: Value, blocks: Value) -> Sequence[Lines]:
        b, layout = call.b, self.layout
        row = layout.columns * self.width
        share = coming.share(blocks) * layout.elements_per_step
        first = self.matrix(call, 0, coming.at.expert).at(coming.at.panel, self.panel_row_bytes)
        first = first.at(coming.first * layout.elements_per_step + share * block, row)
        lines = (coming.at.panels * self.panel_row_bytes + (LINE - 1)) // LINE
        run = b.index(64) - b.intrinsic("llvm.ctlz", b.i64, lines - 1, b.constant(b.i1, 0))
        return [Lines(first, b.index(row), run, share << run)]

    def expand(self, call: Call, at: At, first: Value, steps: Value, to: Pointer) -> None:
        b, layout = call.b, self.layout
        row = layout.columns * self.width
        function = self._function(b)
        for operand in range(layout.operands):
            column = at.panel * layout.panel_columns
            source = self.matrix(call, operand, at.expert).at(first * layout.elements_per_step, row)
            source = source.at(column, self.width)
            left = b.index(layout.inner) - first * layout.elements_per_step
            place = to + operand * layout.vector_bytes
            b.call(function, source, b.index(layout.columns) - column, left, steps, place, at.panels)

    def _function(self, b: Builder) -> Function:
        """`void expand(source, columns, elements, steps, to, panels)`: `elements` rows of `columns` columns are left,
        of which so many panels are expanded."""
        layout = self.layout
        name = f"expand_columns_{layout.arithmetic.value}_{self.element}_{layout.columns}_{layout.step_bytes}"
        name = f"{name}_{layout.operands}_{self.part_bytes}"
        function = b.declare(name, [b.ptr, b.i64, b.i64, b.i64, b.ptr, b.i64])
        if not function.operation.body.blocks:
            with b.define(function) as given:
                self._define(b, *given)
        return function

    def _define(
        self, b: Builder, source: Pointer, columns: Value, elements: Value, steps: Value, to: Pointer, panels: Value
    ) -> None:
        layout = self.layout
        row, per_step = layout.columns * self.width, layout.elements_per_step
        whole = b.minimum(steps, elements // per_step)
        bytes_ = self.together * self.panel_row_bytes
        spill = b.scratch(per_step * bytes_)

        def step(number: Value, rows: Sequence[Pointer]) -> None:
            place = to.at(number, layout.step_bytes)
            with b.for_(0, panels) as panel:
                here = [at.at(panel.index, self.panel_row_bytes) for at in rows]
                self._step(b, here, place.at(panel.index, self.part_bytes))

        def rows(number: Value, many: int) -> list[Pointer]:
            return [source.at(number * per_step + n, row) for n in range(many)]

        def all_columns() -> list[Value]:
            with b.for_(0, whole) as loop:
                step(loop.index, rows(loop.index, per_step))
            return []

        def some_columns() -> list[Value]:
            with b.for_(0, whole) as loop:
                step(loop.index, [self._part(b, at, columns, spill + n * bytes_)
                                  for n, at in enumerate(rows(loop.index, per_step))])  # fmt: skip
            return []

        b.choose(columns >= panels * layout.panel_columns, [], all_columns, some_columns)
        if per_step > 1:
            with b.if_(whole < steps):
                (alone,) = rows(whole, 1)
                step(whole, [self._part(b, alone, columns, spill)])

    def _part(self, b: Builder, at: Pointer, columns: Value, spill: Pointer) -> Pointer:
        """A row's columns of the panels, copied so that no more than there are is read."""
        bytes_ = b.minimum(columns, self.together * self.layout.panel_columns) * self.width
        copy_bytes(b, spill, at, bytes_)
        return spill

    def _step(self, b: Builder, rows: Sequence[Pointer], to: Pointer) -> None:
        """A step of every group of a panel; a missing second row is zeros."""
        layout = self.layout
        lanes = layout.lanes
        if layout.arithmetic is not Arithmetic.PAIRS:
            for group in range(layout.groups):
                loaded = (rows[0] + group * lanes * self.width).load(b.vec(lanes, self.element))
                place = to + group * layout.operands * layout.vector_bytes
                place.store(b.convert(loaded, b.f32), align=layout.vector_bytes)
            return
        all_ = b.vec(layout.panel_columns, b.i16)
        first = rows[0].load(all_)
        second = rows[1].load(all_) if len(rows) > 1 else b.splat(all_, 0)
        for group in range(layout.groups):
            columns = range(group * lanes, (group + 1) * lanes)
            order = [n + half * layout.panel_columns for n in columns for half in range(2)]
            place = to + group * layout.operands * layout.vector_bytes
            place.store(b.shuffle(first, second, order), align=layout.vector_bytes)


def expanded_part_bytes(layout: Panels, steps: int) -> int:
    """Bytes that so many steps of one panel take where they are expanded.

    Not a multiple of 4096, so that the same step of all panels that are together does not fall into one set of the
    first-level cache.
    """
    bytes_ = align_up(align_up(steps, layout.lanes) * layout.step_bytes)
    return bytes_ + align_up(layout.step_bytes) if bytes_ % 4096 == 0 else bytes_


def plain(weights: Sequence[ir.Value], layout: Panels, element: ir.Type, transposed: bool) -> Rows | Columns:
    """The source of weights that are plain parameters, each tensor<ExNxK> or `transposed` tensor<ExKxN>."""
    return (Columns if transposed else Rows)(layout, element, operands(weights, layout))


def operands(weights: Sequence[ir.Value], layout: Panels) -> tuple[_Operand, ...]:
    """Where the weights of a plain source lie."""
    matrix = layout.columns * layout.inner
    return tuple(
        _Operand(
            tuple((part.begin // matrix, part.source // matrix, part.parameter) for part in parameters.parts(value))
        )
        for value in weights
    )
