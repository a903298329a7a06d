"""Options and fixtures that every test may use."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from tests.emulated import everywhere
from tests.once import one_machine_code, share
from tests.one_variant import one_variant


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.register_profile(
        "moec",
        # A shared machine may stop any test for a while; none is to fail for that.
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
        # Neither is one to fail by chance where nothing has changed.
        derandomize=config.getoption("--seed") == 0,
    )
    hypothesis.settings.load_profile("moec")
    if config.getoption("--emulate"):
        emulation = ExitStack()
        emulation.enter_context(everywhere())
        config.add_cleanup(emulation.close)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=0, metavar="N", help="other random data than in every run")
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow, too")
    parser.addoption("--emulate", action="store_true", help="run code for AVX-512 where the processor has AVX2 only")
    parser.addoption("--update-goldens", action="store_true", help="write golden files anew instead of comparing")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores: some tests wait, for deadlines, for other processes."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Long files begin first, so that no process is left with one at the end.
    items.sort(key=lambda item: "long" not in item.keywords)
    skip_slow = pytest.mark.skip(reason="slow: --run-slow runs it")
    skip_privileged = pytest.mark.skip(reason="privileged: needs root")
    for item in items:
        if "slow" in item.keywords and not config.getoption("--run-slow"):
            item.add_marker(skip_slow)
        if "privileged" in item.keywords and os.geteuid() != 0:
            item.add_marker(skip_privileged)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """Layers are compiled for the best instruction set of this machine only, where a test does not ask for all, and
    to machine code only once in a run.

    tests/backends/cpu runs all that the machine can run, kernel by kernel.
    """
    # A test's data is its own, whatever ran before it in this process.
    seed = zlib.crc32(f"{item.config.getoption('--seed')} {item.nodeid}".encode())
    random.seed(seed)
    np.random.seed(seed)  # what libraries draw from
    torch.manual_seed(seed)
    with ExitStack() as stack:
        if not item.get_closest_marker("every_variant"):
            stack.enter_context(one_variant())
            stack.enter_context(one_machine_code())
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is made once in a run lies beside the folders of its processes."""
    base = tmp_path_factory.getbasetemp()
    share((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)` compares `text` with the file `goldens/name` beside the test.

    `pytest --update-goldens` writes the file instead; look at the difference before committing it.
    """
    folder = Path(request.path).parent / "goldens"

    def compare(name: str, text: str) -> None:
        path = folder / name
        if request.config.getoption("--update-goldens"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        assert path.exists(), f"{path} is missing: run pytest --update-goldens"
        assert text == path.read_text(), f"{path} differs: if that is meant, run pytest --update-goldens"

    return compare
