"""Synchronous circuits written down in Python, as text of CIRCT's `hw`, `comb`, `seq` and `sv` dialects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Net:
    """A value of `width` bits inside a module; operators take operands of equal width, or an integer."""

    module: Module
    name: str
    width: int

    def operand(self, other: Net | int) -> Net:
        """`other` as a value beside this one; ValueError where it has another width."""
        net = self.module.constant(other, self.width) if isinstance(other, int) else other
        if net.width != self.width:
            raise ValueError(f"{self.width} bits and {net.width} bits in one operation of {self.module.name}")
        return net

    def _binary(self, op: str, other: Net | int) -> Net:
        return self.module.add(f"comb.{op} {self.name}, {self.operand(other).name} : i{self.width}", self.width)

    def _compare(self, predicate: str, other: Net | int) -> Net:
        return self.module.add(f"comb.icmp {predicate} {self.name}, {self.operand(other).name} : i{self.width}", 1)

    def __add__(self, other: Net | int) -> Net:
        return self._binary("add", other)

    def __sub__(self, other: Net | int) -> Net:
        return self._binary("sub", other)

    def __mul__(self, other: Net) -> Net:
        return self._binary("mul", other)

    def __and__(self, other: Net) -> Net:
        return self._binary("and", other)

    def __or__(self, other: Net) -> Net:
        return self._binary("or", other)

    def __xor__(self, other: Net | int) -> Net:
        return self._binary("xor", other)

    def __invert__(self) -> Net:
        return self ^ -1

    def __rshift__(self, places: Net) -> Net:
        """Arithmetic: bits from above are the sign's."""
        return self._binary("shrs", places)

    def down(self, places: Net) -> Net:
        """Shifted to the right, zeros from above."""
        return self._binary("shru", places)

    def eq(self, other: Net | int) -> Net:
        return self._compare("eq", other)

    def greater(self, other: Net | int) -> Net:
        """As signed numbers."""
        return self._compare("sgt", other)

    def less(self, other: Net | int) -> Net:
        """As signed numbers."""
        return self._compare("slt", other)

    def below(self, other: Net | int) -> Net:
        """Less, as unsigned numbers."""
        return self._compare("ult", other)

    def bits(self, low: int, width: int) -> Net:
        """`width` bits from bit `low` on."""
        if low == 0 and width == self.width:
            return self
        return self.module.add(f"comb.extract {self.name} from {low} : (i{self.width}) -> i{width}", width)

    @property
    def sign(self) -> Net:
        return self.bits(self.width - 1, 1)

    def signed(self, width: int) -> Net:
        """As many bits, the sign in those above; bits that are too many are left out."""
        extra = width - self.width
        if extra <= 0:
            return self.bits(0, width)
        sign = self.sign
        above = self.module.add(f"comb.replicate {sign.name} : (i1) -> i{extra}", extra) if extra > 1 else sign
        return self.module.join(above, self)

    def unsigned(self, width: int) -> Net:
        """As many bits, zeros in those above; bits that are too many are left out."""
        extra = width - self.width
        return self.bits(0, width) if extra <= 0 else self.module.join(self.module.constant(0, extra), self)

    def parts(self, width: int) -> list[Net]:
        """Cut into parts of `width` bits, the lowest first."""
        return [self.bits(low, width) for low in range(0, self.width, width)]

    def times(self, factor: int) -> Net:
        """Multiplied by a constant, with adders alone: a multiplier of an address would take a DSP block."""
        total = self.module.constant(0, self.width)
        for place in range(self.width):
            if factor >> place & 1:
                low = self.bits(0, self.width - place)
                total = total + (self.module.join(low, self.module.constant(0, place)) if place else low)
        return total


@dataclass(frozen=True)
class Port:
    name: str
    width: int


class Module:
    """A module under construction.  `clk` and `rst` (synchronous, high) are its first two inputs."""

    def __init__(self, name: str, inputs: Sequence[Port]) -> None:
        self.name = name
        self.inputs = tuple(inputs)
        self.outputs: dict[str, Net] = {}
        self._lines: list[str] = []
        self._constants: dict[tuple[int, int], Net] = {}
        self._states: dict[str, int | None] = {}
        self._count = 0

    def input(self, name: str) -> Net:
        return Net(self, f"%{name}", next(port.width for port in self.inputs if port.name == name))

    def output(self, name: str, net: Net) -> None:
        self.outputs[name] = net

    def _fresh(self) -> str:
        self._count += 1
        return f"%{self._count}"

    def line(self, text: str) -> None:
        self._lines.append(text)

    def add(self, operation: str, width: int) -> Net:
        name = self._fresh()
        self.line(f"{name} = {operation}")
        return Net(self, name, width)

    def constant(self, value: int, width: int) -> Net:
        value &= (1 << width) - 1
        signed = value - (1 << width) if value >> (width - 1) else value
        if (signed, width) not in self._constants:
            text = ("true" if signed else "false") if width == 1 else f"{signed} : i{width}"
            self._constants[signed, width] = self.add(f"hw.constant {text}", width)
        return self._constants[signed, width]

    def join(self, *parts: Net) -> Net:
        """Side by side, the highest first."""
        if len(parts) == 1:
            return parts[0]
        names, types = ", ".join(part.name for part in parts), ", ".join(f"i{part.width}" for part in parts)
        return self.add(f"comb.concat {names} : {types}", sum(part.width for part in parts))

    def pack(self, parts: Iterable[Net]) -> Net:
        """Side by side, the lowest first."""
        return self.join(*reversed(list(parts)))

    def choose(self, condition: Net, yes: Net, no: Net | int) -> Net:
        other = yes.operand(no)
        return self.add(f"comb.mux {condition.name}, {yes.name}, {other.name} : i{yes.width}", yes.width)

    def select(self, index: Net, values: Sequence[Net]) -> Net:
        """values[index]; what is behind the last value is the last."""
        if len(values) == 1:
            return values[0]
        half = 1 << ((len(values) - 1).bit_length() - 1)
        low = index.bits(0, max(1, (half - 1).bit_length()))
        above = index.bits((half - 1).bit_length() if half > 1 else 0, 1)
        return self.choose(above, self.select(low, values[half:]), self.select(low, values[:half]))

    def register(self, value: Net, name: str = "") -> Net:
        """`value`, one cycle later."""
        label = f"{self._fresh()}"
        text = f'name "{name}" {value.name}' if name else value.name
        self.line(f"{label} = seq.compreg {text}, %clk : i{value.width}")
        return Net(self, label, value.width)

    def delay(self, value: Net, cycles: int) -> Net:
        for _ in range(cycles):
            value = self.register(value)
        return value

    def state(self, name: str, width: int, reset: int | None = 0) -> Net:
        """A register whose next value `drive` says later; a reset makes it `reset`, unless that is None."""
        self._states[name] = reset
        return Net(self, f"%state.{name}", width)

    def drive(self, state: Net, value: Net) -> None:
        name = state.name.removeprefix("%state.")
        reset = self._states.pop(name)
        state.operand(value)
        back = "" if reset is None else f" reset %rst, {self.constant(reset, state.width).name}"
        self.line(f'{state.name} = seq.compreg name "{name}" {value.name}, %clk{back} : i{state.width}')

    def wire(self, name: str, width: int) -> Net:
        """A value that `connect` says later."""
        return Net(self, f"%wire.{name}", width)

    def connect(self, wire: Net, value: Net) -> None:
        wire.operand(value)
        self.line(f'{wire.name} = hw.wire {value.name} name "{wire.name.removeprefix("%wire.")}" : i{wire.width}')

    def instance(self, of: Module, name: str, values: Mapping[str, Net]) -> dict[str, Net]:
        """An instance of another module; gives its outputs.  ValueError where ports and values do not match."""
        if {port.name: port.width for port in of.inputs} != {port: net.width for port, net in values.items()}:
            raise ValueError(f"{of.name} takes {of.inputs}, not {values}")
        results = {port: Net(self, self._fresh(), net.width) for port, net in of.outputs.items()}
        ins = ["clk: %clk: !seq.clock", "rst: %rst: i1"]
        ins += [f"{port.name}: {values[port.name].name}: i{port.width}" for port in of.inputs]
        outs = ", ".join(f"{port}: i{net.width}" for port, net in results.items())
        left = ", ".join(net.name for net in results.values())
        self.line(f'{left} = hw.instance "{name}" @{of.name}({", ".join(ins)}) -> ({outs})')
        return results

    def text(self) -> str:
        """The module in CIRCT's syntax.  ValueError where a state has no next value."""
        if self._states:
            raise ValueError(f"{self.name}: nothing drives {sorted(self._states)}")
        ports = ["in %clk : !seq.clock", "in %rst : i1"]
        ports += [f"in %{port.name} : i{port.width}" for port in self.inputs]
        ports += [f"out {name} : i{net.width}" for name, net in self.outputs.items()]
        values = ", ".join(net.name for net in self.outputs.values())
        types = ", ".join(f"i{net.width}" for net in self.outputs.values())
        body = "\n".join(f"  {line}" for line in [*self._lines, f"hw.output {values} : {types}"])
        return f"hw.module @{self.name}({', '.join(ports)}) {{\n{body}\n}}\n"

    def verilog(self) -> str:
        """What CIRCT does not write of the module: nothing."""
        return ""


class Rom(Module):
    """A memory whose words never change; `entry` comes a cycle after its `address`.

    It is written as a `case`, which all tools take for a memory; CIRCT knows its ports alone.
    """

    def __init__(self, name: str, address_bits: int, width: int, words: Sequence[int]) -> None:
        super().__init__(name, [Port("address", address_bits)])
        self.words = tuple(words)
        self.output("entry", Net(self, "%entry", width))

    def text(self) -> str:
        ports = f"in %clk : !seq.clock, in %rst : i1, in %address : i{self.inputs[0].width}"
        return f"hw.module.extern @{self.name}({ports}, out entry : i{self.outputs['entry'].width})\n"

    def verilog(self) -> str:
        bits, width = self.inputs[0].width, self.outputs["entry"].width
        lines = [f"      {bits}'d{i}: entry <= {width}'h{word:x};" for i, word in enumerate(self.words)]
        return "\n".join(
            [
                f"module {self.name}(",
                "  input clk,",
                "  input rst,",
                f"  input [{bits - 1}:0] address,",
                f"  output reg [{width - 1}:0] entry",
                ");",
                "  always_ff @(posedge clk)",
                "    case (address)",
                *lines,
                f"      default: entry <= {width}'h0;",
                "    endcase",
                "endmodule",
                "",
            ]
        )
