"""The test double as an artifact, and layers of it."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import pytest

import moec
from moec.artifact.manifest import Loss
from moec.runtime.module import Layer
from tests.runtime import double


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return double.artifact(tmp_path_factory.mktemp("double"))


@pytest.fixture(scope="session")
def training_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact that can be trained and asks for no losses."""
    return double.artifact(tmp_path_factory.mktemp("training"), "TRAINING")


@pytest.fixture(scope="session")
def losses_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact that can be trained and asks for both losses."""
    losses = (Loss("balance", 0.5, "batch"), Loss("z", 0.25, "batch"))
    return double.artifact(tmp_path_factory.mktemp("losses"), "TRAINING", losses=losses)


@pytest.fixture
def alone() -> None:
    """Nothing of other tests is left that adapts a layer: such threads end once the collector has found their layer."""
    own = tuple(f"moec-{what}" for what in ("adapt", "prepare", "supply", "residency"))
    end = time.monotonic() + 120
    while gc.collect() >= 0 and any(thread.name.startswith(own) for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def trained(training_path: Path) -> Layer:
    """A layer for training with weights."""
    layer = moec.load(training_path, training=True)
    layer.load_state_dict(double.weights())
    return layer


@pytest.fixture
def empty(path: Path) -> Layer:
    """A layer without weights."""
    return moec.load(path)


@pytest.fixture
def layer(path: Path) -> Layer:
    """A layer with packed weights."""
    layer = moec.load(path)
    layer.load_state_dict(double.weights())
    return layer


@pytest.fixture
def kept(path: Path) -> Layer:
    """A layer that keeps its ordinary weights."""
    layer = moec.load(path, keep_weights=True)
    layer.load_state_dict(double.weights())
    return layer
