"""The table of errors is computed on the right layer."""

from __future__ import annotations

from bench.accuracy import relative_error

SMALL = {"d": 64, "ff": 32, "experts": 4, "slots": 2, "tokens": 20}


def test_errors() -> None:
    plain, int4 = (relative_error(format, False, **SMALL) for format in ("bf16", "int4(group = 32)"))
    assert plain < 0.01
    assert 0.02 < int4 < 0.2
