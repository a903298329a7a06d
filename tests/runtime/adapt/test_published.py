"""The choice of a build by the number of tokens, and its swap while calls run."""

from __future__ import annotations

import copy
import gc
import threading
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import moec
from moec.artifact.container import read
from moec.runtime import native
from moec.runtime.adapt.published import BASE, Build, Overlay, Published, Trial
from moec.runtime.module import Layer
from tests.runtime import double

X = torch.tensor([[1.0, -2.0, 3.0, 0.5], [0.0, 1.0, -1.0, 2.0]])


def build(layer: Layer, name: str = BASE, number: int = 0, packed: torch.Tensor | None = None) -> Build:
    return Build(name, number, layer._store.kernel, layer._store.buffer if packed is None else packed)


def doubled(layer: Layer, name: str = "doubled", number: int = 1) -> Build:
    """A build whose packed weights give other results, so that one sees which ran."""
    packed = layer._store.buffer.clone()
    packed.view(torch.float32)[32:36] += 1.0  # shift
    return build(layer, name, number, packed)


def publish(layer: Layer, *overlays: Overlay) -> None:
    assert layer._store.publish(Published(build(layer), overlays), layer._store.generation)


def ran(layer: Layer, tokens: int) -> int:
    """How much `shift` was moved by the build that runs calls of `tokens` tokens."""
    x = torch.ones(tokens, 4)
    return int((layer(x, 1) - double.expected(x, 1))[0, 0].round())


Ends = st.tuples(st.integers(0, 40), st.one_of(st.none(), st.integers(0, 40)))
Ranges = st.lists(Ends.filter(lambda ends: ends[1] is None or ends[0] <= ends[1]), max_size=6)


@given(Ranges)
def test_the_latest_overlay_that_covers_a_call_is_chosen(ranges: list[tuple[int, int | None]]) -> None:
    unused = torch.empty(0, dtype=torch.uint8)
    overlays = [
        Overlay(first, last, Build(f"v{i}", i + 1, None, unused))  # type: ignore[arg-type]
        for i, (first, last) in enumerate(ranges)
    ]
    whole = Published(Build(BASE, 0, None, unused), overlays)  # type: ignore[arg-type]
    grown = Published(whole.base)
    for overlay in overlays:
        grown = grown.with_overlay(overlay)
    names = set()
    for tokens in range(45):
        covering = [o.builds[0].name for o in overlays if o.covers(tokens)]
        want = covering[-1] if covering else BASE
        assert whole.choose(tokens).name == whole.at(tokens).name == grown.choose(tokens).name == want
        names.add(want)
        (part,) = (one for one in whole.ranges if one.covers(tokens))
        assert part.builds[0].name == want
    assert [part.first for part in whole.ranges] == [
        0,
        *(part.last + 1 for part in whole.ranges[:-1] if part.last is not None),
    ]
    assert whole.ranges[-1].last is None
    assert all(one.runs is not other.runs for one, other in pairwise(whole.ranges)), "none is cut in two"
    assert {b.name for b in whole.builds} == names | {BASE}
    assert {o.builds[0].name for o in grown.overlays} == names - {BASE}, "hidden ones are dropped"
    for name in names - {BASE}:
        assert all(whole.without(name).at(tokens).name != name for tokens in range(45))


def test_calls_run_what_is_published(layer: Layer) -> None:
    publish(layer, Overlay(2, 4, doubled(layer)))
    assert [ran(layer, t) for t in (1, 2, 4, 5)] == [0, 1, 1, 0]
    publish(layer)
    assert ran(layer, 3) == 0
    layer._store.publish(None, layer._store.generation)
    assert ran(layer, 3) == 0


def test_no_tokens(layer: Layer) -> None:
    publish(layer, Overlay(0, None, doubled(layer)))
    assert layer(torch.empty(0, 4), 1).shape == (0, 4)


@pytest.mark.parametrize("keep", [False, True])
def test_compiled_programs_follow(path: Path, keep: bool) -> None:
    layer = moec.load(path, keep_weights=keep)
    layer.load_state_dict(double.weights())
    layer(X, 1)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(X, 1), double.expected(X, 1))
    publish(layer, Overlay(0, None, doubled(layer)))
    torch.testing.assert_close(compiled(X, 1), double.expected(X, 1) + 1)
    publish(layer)
    assert torch.equal(compiled(X, 1), double.expected(X, 1))


def test_a_build_lives_until_no_call_uses_it(tmp_path: Path) -> None:
    layer = moec.load(double.artifact(tmp_path, layer="Base"))
    layer.load_state_dict(double.weights())
    other = native.library(read(double.artifact(tmp_path, "SLEEP_US=400000", layer="Swapped")))
    slow = Build("slow", 1, native.bind(other, "plain"), layer._store.buffer)
    publish(layer, Overlay(0, None, slow))
    maps = Path("/proc/self/maps")
    del other, slow
    results: list[torch.Tensor] = []
    call = threading.Thread(target=lambda: results.append(layer(X, 1)))
    call.start()
    gc.collect()
    assert "memfd:moec:Swapped" in maps.read_text()
    publish(layer)
    during = maps.read_text()
    assert "memfd:moec:Swapped" in during or not call.is_alive() or not results
    call.join()
    assert torch.equal(results[0], double.expected(X, 1))
    results.clear()
    assert "memfd:moec:Swapped" not in maps.read_text()


def with_load(layer: Layer) -> None:
    layer.load_state_dict(double.weights() | {"shift": torch.full((4,), 9.0)})


def with_assignment(layer: Layer) -> None:
    layer.shift = torch.full((4,), 9.0)


def with_unpacked(layer: Layer) -> None:
    with layer.unpacked(), torch.no_grad():
        layer.shift.fill_(9.0)


def with_unpack(layer: Layer) -> None:
    layer.unpack()
    with torch.no_grad():
        layer.shift.fill_(9.0)


def with_numpy(layer: Layer) -> None:
    layer.unpack()
    layer(X, 1)
    layer.shift.detach().numpy()[:] = 9.0
    layer.repack()


@pytest.mark.parametrize("change", [with_load, with_assignment, with_unpacked, with_unpack, with_numpy])
@pytest.mark.parametrize("kept", [False, True])
def test_no_build_runs_on_old_weights(path: Path, kept: bool, change: object) -> None:
    layer = moec.load(path, keep_weights=kept)
    layer.load_state_dict(double.weights())
    layer(X, 1)
    shared = build(layer, "shared", 2)
    publish(layer, Overlay(0, 2, doubled(layer)), Overlay(3, 3, shared))
    before = layer._store.generation
    assert [ran(layer, t) for t in (2, 3)] == [1, 0]
    change(layer)  # type: ignore[operator]
    new = double.weights() | {"shift": torch.full((4,), 9.0)}
    for tokens in (2, 3, 4):
        x = torch.ones(tokens, 4)
        assert torch.equal(layer(x, 1), double.expected(x, 1, new))
    assert layer._store.generation > before
    assert not layer._store.publish(Published(build(layer)), before), "made of old weights"
    published = layer._store.published
    assert published is not None
    assert [b.name for b in published.builds] == [BASE, "shared"], "what shares the packed weights stays"


def test_reset_parameters(layer: Layer) -> None:
    publish(layer, Overlay(0, None, doubled(layer)))
    layer.reset_parameters(7)
    state = layer.state_dict()
    assert torch.equal(layer(X, 1), double.expected(X, 1, state))
    assert layer._store.published is None


def test_compiled_programs_never_run_on_old_weights(kept: Layer) -> None:
    kept(X, 1)
    compiled = torch.compile(kept, fullgraph=True, backend="aot_eager")
    compiled(X, 1)
    publish(kept, Overlay(0, None, doubled(kept)))
    with torch.no_grad():
        kept.shift.fill_(9.0)
    want = double.expected(X, 1, double.weights() | {"shift": torch.full((4,), 9.0)})
    assert torch.equal(compiled(X, 1), want)


def test_a_copy_runs_its_own_weights(layer: Layer) -> None:
    publish(layer, Overlay(0, None, doubled(layer)))
    twin = copy.deepcopy(layer)
    assert ran(twin, 2) == 0
    assert ran(layer, 2) == 1
    twin.shift = torch.zeros(4)
    assert ran(layer, 2) == 1


def test_a_trial_takes_turns(layer: Layer) -> None:
    publish(layer, Overlay(0, None, Trial(build(layer), doubled(layer))))
    assert sorted(ran(layer, 2) for _ in range(10)) == [0] * 5 + [1] * 5
    published = layer._store.published
    assert published is not None
    assert published.at(2).name == BASE
    assert [ran_by.name for ran_by in published.builds] == [BASE, "doubled"]
    assert published.without("doubled").overlays == ()
    assert published.without(BASE).at(2).name == "doubled"


def test_a_trial_over_several_builds(layer: Layer) -> None:
    class Nobody:
        def seen(self, inputs: object, nanoseconds: int) -> None:
            """Nothing."""

    probe = Nobody()
    small, large = doubled(layer, "small", 1), doubled(layer, "large", 2)
    before = Published(build(layer), [Overlay(1, 4, small), Overlay(9, None, large)])
    trial = before.on_trial(3, 12, doubled(layer, "new", 3), probe)
    for tokens, want in ((1, "small"), (3, "small"), (4, "small"), (5, BASE), (8, BASE), (12, "large"), (13, "large")):
        assert trial.at(tokens).name == want
        assert (trial.at(tokens).probe is probe) == (3 <= tokens <= 12)
        assert {trial.choose(tokens).name for _ in range(2)} == {want} | ({"new"} if 3 <= tokens <= 12 else set())
    over = trial.without("new")
    assert [over.at(t) for t in range(20)] == [before.at(t) for t in range(20)]
    kept = trial.with_overlay(Overlay(3, 12, doubled(layer, "new", 3)))
    assert [len(o.builds) for o in kept.overlays] == [1, 1, 1]
    whole = before.on_trial(0, None, doubled(layer, "new", 3), probe)
    assert [whole.at(t).name for t in (0, 4, 6, 100)] == [BASE, "small", BASE, "large"]


def test_watching_every_build(layer: Layer) -> None:
    class Nobody:
        def seen(self, inputs: object, nanoseconds: int) -> None:
            """Nothing."""

    probe = Nobody()
    plain = Published(build(layer), [Overlay(1, 4, doubled(layer)), Overlay(6, 6, Trial(build(layer), doubled(layer)))])
    watched = plain.probed(probe)
    assert all(watched.at(t).probe is probe and watched.at(t).name == plain.at(t).name for t in range(9))
    assert all(watched.probed(None).at(t).probe is None for t in range(9))


def test_a_probe_sees_every_call_of_its_build(layer: Layer) -> None:
    class Seen:
        calls: list[tuple[int, int]] = []  # noqa: RUF012

        def seen(self, inputs: object, nanoseconds: int) -> None:
            self.calls.append((inputs[0].shape[0], nanoseconds))  # type: ignore[index]

    watched = Build(BASE, 0, layer._store.kernel, layer._store.buffer, Seen())
    layer._store.publish(Published(watched, [Overlay(5, None, doubled(layer))]), layer._store.generation)
    for tokens in (1, 3, 7):
        layer(torch.ones(tokens, 4), 1)
    assert [tokens for tokens, _ in Seen.calls] == [1, 3]
    assert all(nanoseconds > 0 for _, nanoseconds in Seen.calls)


def test_four_threads_during_hundreds_of_swaps(layer: Layer, tmp_path: Path) -> None:
    """Every call gives the same bits, whichever build runs it and whatever is swapped meanwhile."""
    path = double.artifact(tmp_path, "SUPPORTS=3", layer="Other")
    stop = threading.Event()
    wrong: list[object] = []
    calls = [0, 0, 0, 0]

    def work(thread: int) -> None:
        generator = torch.Generator().manual_seed(thread)
        while not stop.is_set():
            x = torch.randn(1 + calls[thread] % 9, 4, generator=generator)
            try:
                if not torch.equal(layer(x, thread), double.expected(x, thread)):
                    wrong.append(x)
            except Exception as error:  # noqa: BLE001  what failed is what the test is about
                wrong.append(error)
            calls[thread] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(300):
        code = native.bind(native.library(read(path)), "best" if turn % 2 else "plain")
        packed = torch.empty(256, dtype=torch.uint8)
        for index in range(3):
            code.call("pack", index, packed, layer._store.unpack(index))
        publish(layer, Overlay(turn % 5, 2 + turn % 7, Build(f"t{turn}", turn, code, packed)))
        del code, packed
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert min(calls) > 0
    publish(layer)
    gc.collect()
    assert "memfd:moec:Other" not in Path("/proc/self/maps").read_text()
