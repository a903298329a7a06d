"""The state of one call of a layer, and the phases that the call runs through.

While a layer is *planned*, every kernel-level operation declares in the `Frame` what it needs: buffers for its results,
memory of its own for each thread, counters, packed parameters.  Each gets a word of the frame, an array of i64 that
lives on the caller's stack.  The operation's work is one or more `Phase`s: functions
`void phase(ptr frame, i64 thread, i64 threads)`, which all threads run, with barriers between them.  Inside a phase a
`Call` gives the addresses back.

    hidden = frame.buffer(op.result, rows_per_token=1)                                # while planning
    Phase("double", lambda call: ..., work=columns)
    for t in call.share(call.tokens):  call.row(hidden, t).store(...)                 # while emitting
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch_mlir import ir

from moec.backends.cpu import parameters
from moec.backends.cpu.builder import Builder
from moec.backends.cpu.isa import Variant
from moec.backends.cpu.values import Pointer, Value, byte_width

if TYPE_CHECKING:
    from moec.backends.cpu.layout import Panels
    from moec.backends.cpu.lender import Lender
    from moec.backends.cpu.sources import Packed

LINE = 64
"""Bytes of a cache line, and the alignment of every buffer."""

SLACK = 2 * LINE
"""Bytes behind a buffer or a plain parameter that may be read: a vector of 16 elements of 8 bytes."""

ADDRESS = 8
"""Bytes of an address."""

TOKENS, THREADS, PACKED, WORKSPACE, ERROR, FIRST_ROW, LAST_ROW = range(7)
"""Words of the frame.  FIRST_ROW and LAST_ROW bound the rows of the wave at work (waves.py)."""
_FIRST_FREE = 8


def align_up(bytes_: int, to: int = LINE) -> int:
    return -(-bytes_ // to) * to


def row_stride(bytes_: int) -> int:
    """Bytes between rows of a buffer.

    Short rows lie without gaps; longer ones begin at a cache line, and not 4096 bytes apart, which would fill one set
    of L1.
    """
    if bytes_ <= 4 * LINE:
        return bytes_
    stride = align_up(bytes_)
    return stride + LINE if stride % 4096 == 0 else stride


@dataclass(frozen=True)
class Storage:
    """Where a tensor lives: the address in a word of the frame plus `offset`, in rows `stride` bytes apart.

    A row is all but the leading dimension: `columns` elements, without gaps.  A tensor of rank 1 has `columns` = 1.
    Of a buffer or a parameter, SLACK bytes more than a row may be read; of the caller's tensors (`given`), and when
    writing, only the row itself.
    """

    word: int
    offset: int
    element: ir.Type
    columns: int
    stride: int
    given: bool = False
    windowed: bool = False
    """Holds the rows of the wave at work only; rows are numbered as in the plan all the same."""
    zeros_behind: bool = False
    """Of a buffer: its rows end in whole vectors, and whoever writes them writes zeros behind their last column."""
    listed: bool = False
    """The address is that of a list of addresses, one for each row; the rows lie anywhere."""


@dataclass(frozen=True)
class Window:
    """How many rows of a plan are at work at a time: `fewest` + T * `share` / UNIT."""

    fewest: int
    share: int
    UNIT: ClassVar[int] = 1024

    def rows(self, b: Builder, tokens: Value) -> Value:
        return tokens * self.share // self.UNIT + self.fewest

    def size(self, stride: int) -> Size:
        return Size(fixed=self.fewest * stride, per_token=-(-self.share * stride // self.UNIT))


@dataclass(frozen=True)
class Size:
    """Bytes of a buffer, as a function of what a call brings."""

    fixed: int = 0
    per_token: int = 0
    per_thread: int = 0
    per_thread_token: int = 0
    """Bytes of a thread's part for each token of the call, where they are fewer than `per_thread`; 0: no such bound."""

    def of_thread(self, b: Builder, tokens: Value) -> Value:
        """Bytes of a thread's part."""
        if not self.per_thread_token:
            return b.index(self.per_thread)
        return b.minimum(tokens * self.per_thread_token, self.per_thread)


@dataclass(frozen=True)
class Place:
    """What of a parameter a piece holds, and where: `count` units from `source` on, as those from `first` on.

    Units are experts where the region has panels, else elements.  `kind` says what packing makes of them, `operand`
    for which weights of a matmul.
    """

    kind: str
    operand: int
    source: int
    first: int
    count: int

    @property
    def form(self) -> tuple[str, int]:
        """Equal for pieces of one layout that are packed by the same code."""
        return self.kind, self.operand


@dataclass(frozen=True)
class Piece:
    """How one parameter (an argument of the layer's function) gets into a packed region, and back without loss.

    Both take (builder, address of the region, address of the contiguous tensor) and emit code.  Where units are
    experts, `one` takes ("pack" or "unpack", builder, address of one in the region, that of its `unit_bytes` outside).
    """

    parameter: ir.Value
    place: Place
    pack: Callable[[Builder, Pointer, Pointer], None]
    unpack: Callable[[Builder, Pointer, Pointer], None]
    one: Callable[[str, Builder, Pointer, Pointer], None] | None = None
    unit_bytes: int = 0

    @property
    def element_bytes(self) -> int:
        """Of the parameter."""
        return byte_width(ir.RankedTensorType(self.parameter.type).element_type)


@dataclass(frozen=True)
class Region:
    """A part of the packed parameters, 64-byte aligned, that the pieces fill.

    layout  of panels that hold one expert after the other (`layout.Panels`); None: of elements as they are
    """

    bytes: int
    pieces: tuple[Piece, ...]
    layout: Panels | None = None


@dataclass(frozen=True)
class Phase:
    """A step of a call.  `emit` writes the body of its function; `work` is its estimated FLOPs a token.

    All phases of an operation but its first start behind a barrier; the first one does if it reads what an operation
    since the last barrier has written.  A serial phase is run by thread 0 alone (with threads = 1).
    """

    name: str
    emit: Callable[[Call], None]
    work: int = 0
    serial: bool = False


@dataclass
class Frame:
    """What the phases of one layer need, for one variant.  Built while planning; read while emitting."""

    variant: Variant
    name: str = ""
    """In front of the names of internal functions, where a module has several layers' functions."""
    plain: bool = False
    """Parameters are tensors that the caller gives, instead of packed ones."""
    wide: bool = False
    """Matmuls have wide panels: see `tiling.panels`."""
    paged: bool = False
    """Packed weights may lie on disk."""
    lender: Lender | None = None
    """The packed weights of another layer, where experts that lie there as they would here need not be packed again."""
    words: int = _FIRST_FREE
    buffers: list[tuple[int, Size]] = field(default_factory=list)
    """(word, size) of everything in the workspace, in order; each is aligned to 64 bytes."""
    counters: list[int] = field(default_factory=list)
    packed_bytes: int = 0
    regions: list[tuple[int, Region]] = field(default_factory=list)
    """(offset in the packed parameters, region)."""
    copies: list[tuple[Storage, tuple[parameters.Part, ...]]] = field(default_factory=list)
    """Copies of plain parameters that a call begins with: where they need SLACK behind them or are stacked."""
    errors: list[tuple[str, str]] = field(default_factory=list)
    """(kind, message) of error code 1, 2, ..."""
    _storage: dict[ir.Value, Storage] = field(default_factory=dict)
    _given: dict[ir.Value, Storage] = field(default_factory=dict)
    _packed: dict[object, int] = field(default_factory=dict)
    rows_per_token: dict[ir.Value, int] = field(default_factory=dict)
    """Of every buffer with a dynamic leading dimension: how many rows it has for each token, at most."""
    windows: dict[ir.Value, Window] = field(default_factory=dict)
    """The offsets of a plan whose matmuls run in waves -> the rows of a wave."""
    row_codes: dict[tuple[ir.Value, object], Storage] = field(default_factory=dict)
    """(result of `moe.quantize_rows`, codes.CodeRows) -> where the rows lie in that form."""
    groups: dict[ir.Value, int] = field(default_factory=dict)
    """The offsets of a plan -> word that holds the address of its groups, all i32: how many experts have rows, then for
    each of them, ascending, (expert, first row, row after the last)."""
    tables: dict[int, int] = field(default_factory=dict)
    """Offset of a packed region -> offset of its table: for each expert, how far from the beginning of the packed
    parameters it lies (i64), which may be outside of them."""
    fetched: dict[ir.Value, list[Packed]] = field(default_factory=dict)
    """The offsets of a plan, where packed weights may lie on disk -> those that its matmuls read."""
    orders: dict[ir.Value, int] = field(default_factory=dict)
    """The offsets of a plan -> word that holds the address of the numbers of its groups, i32, most rows first."""

    def word(self, count: int = 1) -> int:
        """Reserve words of the frame; their contents are undefined."""
        first = self.words
        self.words += count
        return first

    # --- what a call is given

    def bind(self, value: ir.Value) -> Storage:
        """Storage for a tensor that the caller provides: it is contiguous, and its address is set from outside."""
        type_ = ir.RankedTensorType(value.type)
        columns = _columns(type_)
        width = columns * byte_width(type_.element_type)
        storage = Storage(self.word(), 0, type_.element_type, columns, width, given=True)
        self._storage.setdefault(value, storage)
        return storage

    def bind_parameter(self, value: ir.Value) -> Storage:
        """Storage for a plain parameter.  What reads it as `storage` gets a copy with SLACK behind it."""
        type_ = ir.RankedTensorType(value.type)
        columns = _columns(type_)
        width = columns * byte_width(type_.element_type)
        self._given[value] = Storage(self.word(), 0, type_.element_type, columns, width, given=True)
        return self._given[value]

    def bind_reshaped(self, value: ir.Value, storage: Storage) -> None:
        """The same storage for the result of which `value`, that the caller provides, is a reshaped view."""
        while not isinstance(value.owner, ir.Block) and value.owner.operation.name in parameters.RESHAPES:
            value = value.owner.operation.operands[0]
            type_ = ir.RankedTensorType(value.type)
            columns = _columns(type_)
            width = columns * byte_width(type_.element_type)
            self._storage.setdefault(value, replace(storage, columns=columns, stride=width))

    # --- what operations declare

    def buffer(
        self, value: ir.Value, rows_per_token: int = 1, window: Window | None = None, zeros_behind: bool = False
    ) -> Storage:
        """Storage for an operation's result: the caller's output where it is returned, else a part of the workspace.

        A static leading dimension gives its own number of rows; a dynamic one gives T * `rows_per_token`, or the rows
        of a `window`.  `zeros_behind`: the operation can write zeros behind columns, where the storage says so.
        """
        self.rows_per_token[value] = rows_per_token
        if value in self._storage:
            return self._storage[value]
        type_ = ir.RankedTensorType(value.type)
        columns = _columns(type_)
        width = columns * byte_width(type_.element_type)
        stride = row_stride(width)
        if window is not None:
            rows = window.size(stride)
            size = Size(fixed=rows.fixed + SLACK, per_token=rows.per_token)
        elif type_.is_dynamic_dim(0):
            size = Size(fixed=SLACK, per_token=rows_per_token * stride)
        else:
            size = Size(fixed=type_.get_dim_size(0) * stride + SLACK)
        vectors = align_up(columns, self.variant.lanes) * byte_width(type_.element_type)
        storage = Storage(
            self.workspace(size), 0, type_.element_type, columns, stride,
            windowed=window is not None, zeros_behind=zeros_behind and vectors <= stride,
        )  # fmt: skip
        self._storage[value] = storage
        return storage

    def view(self, value: ir.Value, of: Storage) -> Storage | None:
        """Storage for a result whose rows are those of another tensor, as a list of addresses.

        None where the caller provides the result: its rows have to be copied there.
        """
        if value in self._storage:
            return None
        word = self.workspace(Size(fixed=SLACK, per_token=ADDRESS))
        self._storage[value] = replace(of, word=word, offset=0, listed=True, zeros_behind=False)
        return self._storage[value]

    def storage(self, value: ir.Value) -> Storage:
        """Where a tensor lives that an earlier operation, the caller or the parameters provide (as a plain copy).

        Raises Unsupported for a value that comes from anything else.
        """
        found = self._storage.get(value)
        if found is None:
            found = self._plain(value)
            self._storage[value] = found
        return found

    def given(self, parameter: ir.Value) -> Storage:
        """Where a plain parameter, an argument of the function, lies."""
        return self._given[parameter]

    def workspace(self, size: Size) -> int:
        """Reserve workspace; returns the word that will hold its address."""
        word = self.word()
        self.buffers.append((word, size))
        return word

    def counter(self) -> int:
        """Reserve an atomic counter in a cache line of its own, zero when the call starts; returns its first word."""
        word = align_up(self.word(), 8)
        self.words = word + 8
        self.counters.append(word)
        return word

    def packed(self, key: object, region: Callable[[], Region]) -> int:
        """Offset of a packed region; operations that give the same key share it."""
        if key not in self._packed:
            made = region()
            self._packed[key] = self.packed_bytes
            self.regions.append((self.packed_bytes, made))
            self.packed_bytes += align_up(made.bytes)
        return self._packed[key]

    def table(self, offset: int) -> int | None:
        """Offset of the table of experts of a packed region; None: they lie one behind the other there."""
        region = next(region for begin, region in self.regions if begin == offset)
        if self.lender is None or region.layout is None or self.lender.experts(region) is None:
            return None
        bytes_ = ADDRESS * region.layout.experts
        self.tables[offset] = self.packed(("table", offset), lambda: Region(bytes_, ()))
        return self.tables[offset]

    def error(self, kind: str, message: str) -> int:
        """The code that stands for an error in the frame's error word."""
        if (kind, message) not in self.errors:
            self.errors.append((kind, message))
        return self.errors.index((kind, message)) + 1

    def _plain(self, value: ir.Value) -> Storage:
        type_ = ir.RankedTensorType(value.type)
        columns = _columns(type_)
        width = byte_width(type_.element_type)
        if self.plain:
            found = tuple(parameters.parts(value))
            word = self.workspace(Size(fixed=parameters.elements(type_) * width + SLACK))
            storage = Storage(word, 0, type_.element_type, columns, columns * width)
            self.copies.append((storage, found))
            return storage
        pieces = tuple(_plain_piece(part, width) for part in parameters.parts(value))
        bytes_ = parameters.elements(type_) * width
        offset = self.packed(("plain", value), lambda: Region(bytes_ + SLACK, pieces))
        return Storage(PACKED, offset, type_.element_type, columns, columns * width)


def _columns(type_: Any) -> int:
    columns = 1
    for axis in range(1, type_.rank):
        columns *= int(type_.get_dim_size(axis))
    return columns


def copy_bytes(b: Builder, to: Pointer, source: Pointer, bytes_: int | Value) -> None:
    b.intrinsic("llvm.memcpy", None, to, source, b.index(bytes_), b.constant(b.i1, 0))


def _plain_piece(part: parameters.Part, width: int) -> Piece:
    begin, source, bytes_ = part.begin * width, part.source * width, part.count * width
    return Piece(
        part.parameter,
        Place("plain", 0, part.source, part.begin, part.count),
        lambda b, region, tensor: copy_bytes(b, region + begin, tensor + source, bytes_),
        lambda b, region, tensor: copy_bytes(b, tensor + source, region + begin, bytes_),
    )


class Call:
    """The frame of a running call, seen from inside a phase."""

    def __init__(self, b: Builder, frame: Frame, base: Pointer, thread: Value, threads: Value) -> None:
        self.b = b
        self.frame = frame
        self.base = base
        self.thread = thread
        self.threads = threads

    def load_word(self, word: int) -> Value:
        return self.word(word).load(self.b.i64)

    def word(self, word: int) -> Pointer:
        """The address of a word, such as a counter."""
        return self.base + 8 * word

    def pointer(self, word: int) -> Pointer:
        """The address that a word holds, such as that of a workspace buffer."""
        return self.word(word).load_pointer()

    @property
    def tokens(self) -> Value:
        return self.load_word(TOKENS)

    def packed(self, offset: int) -> Pointer:
        """The address of a packed region."""
        return self.pointer(PACKED) + offset

    def address(self, storage: Storage) -> Pointer:
        return self.pointer(storage.word) + storage.offset

    def row(self, storage: Storage, index: Value | int) -> Pointer:
        if storage.windowed:
            index = self.b.index(index) - self.load_word(FIRST_ROW)
        if storage.listed:
            return self.address(storage).at(index, ADDRESS).load_pointer()
        return self.address(storage).at(index, storage.stride)

    def own(self, word: int, size: int | Size) -> Pointer:
        """This thread's part of a workspace buffer declared with `size`, or with `Size(per_thread=size)`."""
        if isinstance(size, int):
            return self.pointer(word).at(self.thread, size)
        return self.pointer(word) + self.thread * size.of_thread(self.b, self.tokens)

    def fail(self, code: int) -> None:
        """Note an error; the call raises it once every phase has run.  The phase must go on without harm."""
        self.word(ERROR).store(self.b.index(code))

    @contextmanager
    def share(self, count: Value | int, block: int = 1) -> Iterator[Value]:
        """The body for every item of this thread's contiguous share of 0..count, cut at multiples of `block`."""
        b = self.b
        blocks = (b.index(count) + (block - 1)) // block
        begin = (blocks * self.thread // self.threads) * block
        end = b.minimum((blocks * (self.thread + 1) // self.threads) * block, b.index(count))
        with b.for_(begin, end) as loop:
            yield loop.index
