"""The static choices of the matmul kernels, each with its reason; docs/performance-cpu-kernels.md has the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moec.backends.cpu.codes import CodePanels, DecodedPanels
from moec.backends.cpu.frame import LINE
from moec.backends.cpu.isa import Variant
from moec.backends.cpu.layout import Arithmetic, Panels, arithmetic
from moec.dialect.formats import FORMATS, Format

UNIT_BYTES = 128 * 1024
"""Most weight bytes that are multiplied before the next ones: two units (one is prefetched) and a chunk of rows
have to fit into the second-level cache, of which 1 MiB is common."""


@dataclass(frozen=True)
class Chunk:
    """How many rows are multiplied by all panels of a task before the next ones: no more bytes, nor more rows."""

    bytes: int
    rows: int


PACKED_CHUNK = Chunk(512 * 1024, 256)
"""Rows stay in the second-level cache while the panels of an expert pass by."""

EXPANDED_CHUNK = Chunk(2048 * 1024, 512)
"""Each chunk expands all weights of its panels again, which costs more than rows from the last-level cache do."""

EARLY_CHUNK = Chunk(1024 * 1024, 512)
"""Where the next unit is expanded early, it has to be prefetched in time beside the rows."""

ROWS_AHEAD = 4
"""While a row is copied, the one that comes so many rows later is prefetched."""

EPILOGUE_ROWS = 4
"""Rows of a block whose epilogues are computed side by side: one's chain of operations is longer than the processor
looks ahead."""

SUMS_BYTES = 256 * 1024
"""Most bytes of the sums of a chunk's rows, of all panels that are together, if they are more than one."""

RUN_UNIT_BYTES = 192 * 1024
SHORT_RUN_UNIT_BYTES = 96 * 1024
"""Most bytes of the panels that are expanded together: two such units have to stay in the second-level cache, which has
512 KiB where vectors are shorter than those of AVX-512."""

SPREAD = 4
"""Streams that one of weights is cut into: a core gets more from memory by several than by one."""

STILL_STEPS = 4
"""Steps of an iteration of a kernel's loop that prefetches nothing, where steps are short."""

FEW_ROWS = 2
FEW_VECTORS = 8
"""An expert's rows, if they are so few, are multiplied by so many vectors of several panels side by side: weights that
are loaded where they lie, by several streams, come faster from memory than those that are prefetched."""

MOST_SUMS = 12
"""Sums of codes in registers, of which there are 16."""

TASKS_PER_THREAD = 32
"""Threads end within one task of each other: a thread waits for half a task on average, 1.6 % of a phase."""

TASK_BYTES = 64 * 1024
"""Fewest weight bytes of a task, about 2 us of streaming: claiming one costs a hundredth of that."""

PAIR_TASKS_PER_THREAD = 512
PAIR_TASK_BYTES = 512 * 1024
"""The same for two threads, each of which claims from an end of its own: tasks of the same rows mostly come to one
thread, one after the other, so that more tasks copy no more rows."""

LATENT_CHAINS = 8
"""Chains of multiply-adds that are under way at once, with 8 lanes: two a cycle, four cycles each."""

DECODED_ROWS = 32
DECODED_FLOAT_ROWS = 8
"""From so many rows on, of floats the second, it takes less time to decode codes once, and to write and read what they
become, than to decode them for each block."""

DECODED_UNIT_BYTES = 32 * 1024
"""Most bytes of a panel's codes that are decoded at once: they have to stay near until the last block of rows."""

SHORT_ROWS = 4
"""Rows of a block whose sums are i16: 8 registers of them, while totals wait in memory.  Six rows are no faster."""

WIDE_PANELS = 8
"""Panels of one combining task: each reads all rows once, so few of them are wasteful; the sums of this many panels
have to stay in the caches, so many are too."""


def panels(
    variant: Variant, rows: str, weights: str, operands: int, shape: Sequence[int], *, wide: bool = False
) -> Panels:
    """The layout for rows and weights of these element types ("f32", "bf16", "f16"), tensor<ExNxK> of this shape.

    wide  for few rows of an expert, where registers are left
    """
    # Two vectors of weights a step, or one of each operand: a wider panel has fewer rows in registers, and the rows'
    # broadcasts are loads too, so that loads would outnumber multiplications on both sides of this.  One or two rows
    # leave multipliers waiting for the sums of so few vectors.
    vectors = 4 if wide else 2
    return Panels(arithmetic(variant, rows, weights), variant.lanes, operands, max(1, vectors // operands), *shape)


def code_panels(variant: Variant, rows: str, format_: Format, operands: int, shape: Sequence[int]) -> CodePanels:
    """The layout for rows ("f32", "bf16", "f16", "i8") by weights of a format, tensor<ExNxK> of this shape."""
    groups = max(1, 2 // operands)
    codes = FORMATS[format_.name]
    how = arithmetic(variant, rows, "codes", codes.bits)
    experts, columns, inner = shape
    return CodePanels(
        how, variant.lanes, operands, groups, experts, columns, inner, codes, format_.groups, format_.scale
    )


def most_rows(variant: Variant, layout: Panels) -> int:
    """Rows of a block: their accumulators, one step's weights and one broadcast element fill the registers."""
    temporaries = 1 if variant.has_fma else 2
    if isinstance(layout, DecodedPanels):
        return (variant.registers - temporaries - layout.vectors) // layout.vectors
    if isinstance(layout, CodePanels):
        free = variant.registers - temporaries - layout.vectors - 2
        if layout.short:
            return SHORT_ROWS
        if layout.widened_words or (layout.widened_integers and layout.bits > 2):
            # Totals wait in memory for the end of a chain.  Sums of two bits would leave nothing to decode them in.
            return (variant.registers - temporaries - layout.vectors) // layout.vectors
        if layout.grouped and layout.arithmetic.integers:
            # Sums and totals both; there is one multiplication for every fourth element only, so that fetching totals
            # from the first-level cache for every group would count.
            return max(2, free // (2 * layout.vectors))
        # More rows than eight are faster only where decoding a step takes long, and blocks of few dots compile fast.
        most = 12 if layout.arithmetic is Arithmetic.PAIRS and layout.block_dots == 1 else 8
        return max(1, min(most, free // layout.vectors))
    return max(1, min(14, (variant.registers - temporaries - layout.vectors) // layout.vectors))


def steps_at_once(variant: Variant, layout: Panels) -> int:
    """Steps of an iteration of the microkernel's loop over packed weights; 1: a step is long enough.

    In a short step loop and prefetches take as many instructions as loads do.  Several steps have a line for each of
    the streams that are prefetched.
    """
    if isinstance(layout, CodePanels) or not variant.short_steps or not variant.has_fma:
        return 1
    return max(1, SPREAD * LINE // layout.step_bytes)


def prefetches_between(variant: Variant) -> bool:
    """Whether lines of plain weights are asked for between kernels and not in them.

    A short step has so few multiplications that what prefetches takes as long as they do, where the processor shares
    its decoders with another thread; and multiplying takes long enough for lines to come in time.
    """
    return variant.short_steps


def multiplies_in_rows(variant: Variant) -> bool:
    """Whether transposed f32 are multiplied where they lie.

    Not where blocks have few rows: each of them reads a line of every row of the matrix again, often of another page.
    """
    return not variant.short_steps


def side_by_side(variant: Variant, layout: Panels) -> int:
    """Panels of packed weights that few rows are multiplied by at once."""
    if isinstance(layout, CodePanels):
        # Of two bits, 32 dots of one panel at once take less time, and floats need registers to be decoded.
        alone = (layout.short and layout.bits == 2) or layout.codes.floats
        beside = variant.short_steps and variant.has_fma and not alone
    else:
        beside = steps_at_once(variant, layout) > 1
    return max(1, FEW_VECTORS // layout.vectors) if beside else 1


def prefetches_beside(layout: CodePanels) -> bool:
    """Whether a kernel of panels side by side prefetches those that come next, line by line.

    Where codes are short, decoding takes longer than reading them, and lines come meanwhile; else it is memory that
    takes long, and what is loaded where it lies comes faster.
    """
    return layout.bits < 8


def in_order(variant: Variant, layout: CodePanels) -> bool:
    """Whether dots are kept in their order where integers are added up, which LLVM may do in any."""
    return layout.short or (layout.arithmetic is Arithmetic.WORDS and variant.has_fma)


def panels_at_once(layout: CodePanels, rows: int, panels: int) -> int:
    """How many of the panels of codes that lie side by side have their sums in registers together: a part of them."""
    return max(
        n for n in range(1, panels + 1) if panels % n == 0 and (n == 1 or n * rows * layout.vectors <= MOST_SUMS)
    )


def decoded_rows(variant: Variant, layout: Panels) -> int:
    """From how many rows on the codes of a unit are decoded once for all blocks of them; 0: never.

    A block has few rows of 16 registers, so that decoding, which every block would do, takes long beside multiplying;
    not that of two bits, nor that of eight of whole numbers.
    """
    if not isinstance(layout, CodePanels) or layout.arithmetic is not Arithmetic.WIDENED:
        return 0
    if not variant.short_steps or not variant.has_fma:
        return 0
    if layout.codes.floats:
        return DECODED_FLOAT_ROWS
    return DECODED_ROWS if layout.bits == 4 else 0


def unit_steps(layout: Panels, panels: int = 1, most: int = UNIT_BYTES) -> int:
    """Steps of the inner dimension between which a block's accumulators stay in registers; parts of equal length.

    A unit holds them of so many panels and has at most so many bytes.
    """
    parts = -(-layout.steps * layout.step_bytes * panels // most)
    return -(-layout.steps // max(1, parts))


def steps_of_units(layout: Panels) -> set[int]:
    """How many steps the units of a panel have."""
    unit = unit_steps(layout)
    return {unit, layout.steps % unit or unit}


def steps_together(variant: Variant, layout: CodePanels, rows: int) -> int:
    """Of how many steps a block of this many rows works on the chains side by side.

    The chains of few rows wait for the latency of multiply-adds, because the processor looks ahead by few steps only.
    Memory is read more slowly so, where codes are not that short and with one or two rows memory is what takes longest.
    """
    sums = rows * layout.vectors
    if layout.eights and layout.bits < 8:
        return max(1, LATENT_CHAINS // sums)
    waits_for_memory = layout.bits > 2 and rows <= 2
    if layout.arithmetic is not Arithmetic.PAIRS or not layout.chained or waits_for_memory:
        return 1
    if 8 * sums > 3 * variant.registers:
        return 1
    return 4 if 8 * sums <= variant.registers else 2


def run_unit_bytes(layout: Panels) -> int:
    """Most bytes of the panels that are expanded together."""
    return RUN_UNIT_BYTES if layout.lanes >= 16 else SHORT_RUN_UNIT_BYTES


def panels_together(row_bytes: int) -> int:
    """Panels of transposed weights, whose rows have so many bytes, that are fetched side by side, and share units.

    Single lines 4 KiB apart come at half of the memory's bandwidth.  Where rows are shorter, their neighbours make up
    for it, and fewer panels together have longer units.
    """
    return 16 if row_bytes >= 4096 else 4


def chunk_rows(chunk: Chunk, row_bytes: int, block: int) -> int:
    """Rows of a chunk: whole blocks."""
    return max(1, min(chunk.rows, chunk.bytes // row_bytes) // block) * block
