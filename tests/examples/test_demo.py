"""`make demo`, on small experts: it must end well and print its table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from bench import machine
from bench.layer import Layer
from examples import demo

pytestmark = pytest.mark.long


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_bytes", lambda: 2**30)


@pytest.mark.usefixtures("little_memory")
def test_the_demo_checks_and_times(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["demo", "--tokens", "1", "5", "--output", str(tmp_path / "olmoe.so")]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setenv("COLUMNS", "160")
    assert demo.main() == 0
    printed = capsys.readouterr().out
    assert "experts are 128 wide" in printed
    assert "moec/" in printed
    assert printed.count("✓") == 4


@pytest.mark.usefixtures("little_memory")
def test_a_wrong_layer_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exact = demo.state_dict

    def swapped(layer: Layer, dtype: str) -> dict[str, torch.Tensor]:
        state = exact(layer, dtype)
        state["routed.gate.weight"], state["routed.up.weight"] = state["routed.up.weight"], state["routed.gate.weight"]
        return state

    monkeypatch.setattr(demo, "state_dict", swapped)
    monkeypatch.setattr(sys, "argv", ["demo", "--output", str(tmp_path / "olmoe.so")])
    assert demo.main() == 1
    assert "wrong" in capsys.readouterr().out
