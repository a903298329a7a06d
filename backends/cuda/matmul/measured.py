"""Tiles that were found to be the fastest by measuring: the file that `python bench/gpu.py --search` writes.

Where a product is in it, its tile is taken from there, else from the cost model.  It lies beside this module as
`tiles.toml`; none is shipped as long as nothing was measured.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, astuple, dataclass, fields
from functools import lru_cache
from pathlib import Path

from moec.backends.cuda.faults import fault
from moec.backends.cuda.matmul.problem import Problem

FILE = Path(__file__).with_name("tiles.toml")
MANY, DECODE = "many", "decode"
"""Regimes: many rows an expert, and calls of very few tokens."""

_MOST_BYTES, _MOST_ENTRIES, _MOST = 2**20, 4096, 2**31
_USED: ContextVar[Path] = ContextVar("the file of measured tiles", default=FILE)


@dataclass(frozen=True)
class Sizes:
    """What a tile is looked up by, beside the regime; `experts` is 0 for dense products."""

    arch: str
    type: str
    format: str
    products: int
    experts: int
    per_token: int
    inner: int
    segments: int
    columns: int
    transposed: bool

    @classmethod
    def of(cls, problem: Problem, arch: str) -> Sizes:
        return cls(
            arch,
            problem.lhs_type,
            _format(problem),
            problem.products,
            problem.counters,
            problem.per_token,
            problem.inner,
            problem.segments,
            problem.columns,
            problem.transposed,
        )


def _format(problem: Problem) -> str:
    """How weights are kept: `int4`, `int4(group = 32)`, or nothing."""
    if problem.codes is None:
        return ""
    return problem.codes.format + (f"(group = {problem.codes.group})" if problem.codes.group is not None else "")


@dataclass(frozen=True)
class Measured:
    """The fastest tile of a product: `width` columns, whose inner dimension `splits` blocks share.

    device  what it was measured on
    """

    device: str
    regime: str
    sizes: Sizes
    width: int
    splits: int


def found(problem: Problem, arch: str, regime: str) -> Measured | None:
    """What was measured of a product; None where nothing was.  Raises DiagnosticError (E0713) for a malformed file."""
    sizes = Sizes.of(problem, arch)
    return next((one for one in _entries(_USED.get()) if (one.regime, one.sizes) == (regime, sizes)), None)


def origin(problem: Problem, arch: str, regime: str) -> str:
    """Where a product's tile comes from, in words."""
    entry = found(problem, arch, regime)
    return "tile chosen by the cost model" if entry is None else f"tile measured on {entry.device}"


def misfit(entry: Measured) -> Exception:
    """For an entry that names a tile which its product cannot have."""
    return _malformed(f"no tile of {entry.width} columns, shared by {entry.splits} blocks, fits {entry.sizes}")


@contextmanager
def used(path: Path) -> Iterator[None]:
    """Another file in place of the package's, for compilations on this thread."""
    token = _USED.set(path)
    try:
        yield
    finally:
        _USED.reset(token)


def read(path: Path) -> tuple[Measured, ...]:
    """The entries of a file; none where there is no file.  Raises DiagnosticError (E0713)."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return ()
    return parse(data, path)


def parse(data: bytes, path: Path) -> tuple[Measured, ...]:
    """The entries of a file's content; `path` stands in messages.  Raises DiagnosticError (E0713)."""
    if len(data) > _MOST_BYTES:
        raise _malformed(f"{path} has more than {_MOST_BYTES} bytes")
    try:
        tables = tomllib.loads(data.decode()).get("tile", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as why:
        raise _malformed(f"{path}: {why}") from why
    if not isinstance(tables, list) or len(tables) > _MOST_ENTRIES:
        raise _malformed(f"{path} has to hold at most {_MOST_ENTRIES} tables [[tile]]")
    return tuple(_entry(table, f"{path}, tile {number + 1}") for number, table in enumerate(tables))


def write(path: Path, entries: Sequence[Measured]) -> None:
    """Writes the file of some entries."""
    path.write_text(text(entries))


def text(entries: Sequence[Measured]) -> str:
    """The content of a file, in an order of its own."""
    lines = ["# The fastest tiles of CUDA products, as `python bench/gpu.py --search` measured them."]
    for one in sorted(entries, key=lambda entry: (entry.regime, astuple(entry.sizes))):
        lines += ["", "[[tile]]"]
        table = {**asdict(one.sizes), "device": one.device, "regime": one.regime}
        table |= {"width": one.width, "splits": one.splits}
        lines += [f"{name} = {_text(value)}" for name, value in table.items()]
    return "\n".join(lines) + "\n"


def _text(value: str | bool | int) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else f"'{_plain(value)}'"


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable() and letter != "'")


@lru_cache(maxsize=8)
def _entries_as_of(path: Path, changed: int) -> tuple[Measured, ...]:
    return read(path)


def _entries(path: Path) -> tuple[Measured, ...]:
    """Read once, and again where it was changed."""
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:
        return ()
    return _entries_as_of(path, changed)


_OWN = {"device": str, "regime": str, "width": int, "splits": int}
_SIZES = {one.name: {"str": str, "int": int, "bool": bool}[str(one.type)] for one in fields(Sizes)}


def _entry(table: object, where: str) -> Measured:
    wanted = {**_SIZES, **_OWN}
    if not isinstance(table, dict) or set(table) != set(wanted):
        raise _malformed(f"{where}: it has to have {', '.join(wanted)}")
    for name, type_ in wanted.items():
        value = table[name]
        whole = type(value) is type_ and (not isinstance(value, int) or 0 <= value < _MOST)
        if not whole or (type_ is str and (len(value) > 200 or not value.isprintable())):
            raise _malformed(f"{where}: `{name}` is {str(value)[:60]!r}")
    if table["regime"] not in (MANY, DECODE):
        raise _malformed(f"{where}: `regime` is {table['regime']!r}, and has to be '{MANY}' or '{DECODE}'")
    sizes = Sizes(**{name: table[name] for name in _SIZES})
    return Measured(table["device"], table["regime"], sizes, table["width"], table["splits"])


def _malformed(why: str) -> Exception:
    return fault("E0713", f"the file of measured tiles is malformed: {why}", "measure again, or delete the file")
