"""What a module says of the hardware that its layer becomes: the attribute `moe.hls`, which passes fill in."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from torch_mlir import ir

from moec.dialect.json_attributes import from_attribute, to_attribute
from moec.fixed.data import as_data, read_board, read_design, read_layer
from moec.fixed.design import Board, Design, Memory, Order
from moec.fixed.spec import Layer

HLS = "moe.hls"


@dataclass(frozen=True)
class Decisions:
    """A layer for a board, and what was decided of its design; None is undecided.  The fields are those of `Design`."""

    layer: Layer
    board: Board
    tokens: int
    order: Order | None = None
    inputs: int | None = None
    outputs: int | None = None
    ports: int | None = None
    port_bits: int | None = None
    queues: Memory | None = None
    weights_in: Memory | None = None
    rows_in: Memory | None = None

    @property
    def design(self) -> Design:
        """The design, once all is decided.  Raises ValueError that names what is not, or what cannot be so."""
        undecided = [field.name for field in fields(self) if getattr(self, field.name) is None]
        if undecided:
            raise ValueError(f"not decided yet: {', '.join(undecided)}")
        return read_design(asdict(self))


def decisions(module: ir.Module) -> Decisions | None:
    """What a module says; None where it is for no board.  Raises ValueError that names what is wrong."""
    attributes = module.operation.attributes
    if HLS not in attributes:
        return None
    data = from_attribute(attributes[HLS])
    if not isinstance(data, dict):
        raise ValueError("it is no dictionary")
    known = {field.name for field in fields(Decisions)}
    unknown = sorted(set(data) - known)
    missing = sorted({"layer", "board", "tokens"} - set(data))
    if unknown or missing:
        raise ValueError(f"{unknown[0]} is not a known field" if unknown else f"{missing[0]} is missing")
    if type(data["tokens"]) is not int or data["tokens"] < 1:
        raise ValueError("tokens must be a number above 0")
    made = Decisions(read_layer(data["layer"]), read_board(data["board"]), data["tokens"])
    given = {name: _decided(name, value) for name, value in data.items() if name not in ("layer", "board", "tokens")}
    return replace(made, **given)


def write_decisions(module: ir.Module, made: Decisions) -> None:
    """Puts the attribute in place of the one that there was, if any."""
    data: dict[str, Any] = {name: value for name, value in asdict(made).items() if value is not None}
    data |= {"layer": as_data(made.layer), "board": as_data(made.board)}
    with module.context, ir.Location.unknown():
        module.operation.attributes[HLS] = to_attribute(data)


def _decided(name: str, value: object) -> Any:
    if name == "order":
        return Order(str(value))
    if name in ("queues", "weights_in", "rows_in"):
        return Memory(str(value))
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a number above 0")
    return value
