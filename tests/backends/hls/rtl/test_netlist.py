"""What a netlist refuses, and the text that it becomes."""

from __future__ import annotations

import pytest

from moec.backends.hls.rtl.netlist import Module, Port, Rom


def module() -> Module:
    return Module("m", [Port("a", 8), Port("b", 4)])


def test_operands_have_one_width() -> None:
    m = module()
    with pytest.raises(ValueError, match="8 bits and 4 bits"):
        m.input("a") + m.input("b")


def test_every_state_is_driven() -> None:
    m = module()
    state = m.state("count", 4)
    m.output("count", state)
    with pytest.raises(ValueError, match="nothing drives"):
        m.text()
    m.drive(state, state + 1)
    assert 'seq.compreg name "count"' in m.text()


def test_ports_of_an_instance_match() -> None:
    inner, outer = module(), module()
    inner.output("c", inner.input("a"))
    with pytest.raises(ValueError, match="m takes"):
        outer.instance(inner, "it", {"a": outer.input("b"), "b": outer.input("a")})


def test_times_adds_up_what_the_factor_has() -> None:
    """A product with 10 has two terms, and none is multiplied."""
    m = module()
    m.output("c", m.input("a").times(10))
    assert m.text().count("comb.add") == 2
    assert "comb.mul" not in m.text()


def test_a_rom_is_a_case() -> None:
    table = Rom("table", 2, 8, [1, 2, 255])
    assert "2'd2: entry <= 8'hff;" in table.verilog()
    assert table.text().startswith("hw.module.extern @table(")
