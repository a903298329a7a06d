"""Layers of the test double that adapt: with proposals and compilers that do as a test says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path

import torch

import moec
from moec.artifact.container import Artifact, read, write
from moec.artifact.policy import Comparison, Policy, Trigger, Window
from moec.artifact.specialisation import Specialisation
from moec.runtime.adapt.contracts import Compiled, Proposal
from moec.runtime.adapt.controller import Controller
from moec.runtime.adapt.journal import Journal
from moec.runtime.adapt.statistics import LoadStatistics, Snapshot
from moec.runtime.module import Layer
from tests.runtime import double

ALWAYS = Trigger(Comparison("tokens", ">=", 0.0), "tokens >= 0", Window(calls=5), gain=1.2)
SMALL = Specialisation("small", tokens=(1, 16))
LARGE = Specialisation("large", tokens=(17, 64))


def policy(variants: int = 4) -> Policy:
    return Policy("Serve", triggers=(ALWAYS,), max_variants=variants, tokens=((1, 16), (17, 64)))


def loaded(folder: Path, *defines: str, layer: str = "Adapting") -> Layer:
    """A layer with weights and statistics; `defines` as in double.c."""
    made = moec.load(double.artifact(folder, *defines, layer=layer))
    made.load_state_dict(double.weights())
    made._store.statistics = LoadStatistics(5, 1, False, layer)
    return made


def variant(
    layer: Layer,
    folder: Path,
    specialisation: Specialisation,
    *defines: str,
    base: str | None = None,
    layout: str = "a" * 16,
) -> Artifact:
    """An artifact that was made of the layer's; another `layout` says that it packs weights in another way."""
    path = folder / f"{specialisation.name}{abs(hash(defines))}.so"
    best, plain = layer.manifest.variants
    manifest = replace(
        layer.manifest,
        variants=(best, replace(plain, layout=layout)),
        specialisation=specialisation,
        base=base or layer._store.kernel.library.sha256,
    )
    write(path, double.compiled(*defines), manifest, {})
    return read(path)


class Compilers:
    """Answers each specialisation with what `answers` has for its name: an artifact, or an error."""

    def __init__(self, answers: dict[str, Artifact | Exception | Future[Compiled]]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.expected: list[str] = []
        self.rejected: list[str] = []
        self.there: set[str] = set()
        self.closed = 0

    def has(self, specialisation: Specialisation) -> bool:
        return specialisation.name in self.there

    def expect(self, specialisation: Specialisation) -> None:
        self.expected.append(specialisation.name)

    def submit(self, specialisation: Specialisation) -> Future[Compiled]:
        self.asked.append(specialisation.name)
        answer = self.answers[specialisation.name]
        if isinstance(answer, Future):
            return answer
        future: Future[Compiled] = Future()
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(Compiled(answer, "compiler", 0.1))
        return future

    def reject(self, specialisation: Specialisation) -> None:
        self.rejected.append(specialisation.name)

    def close(self) -> None:
        self.closed += 1
        for answer in self.answers.values():
            if isinstance(answer, Future) and not answer.done():
                answer.set_exception(moec.MoecError("closed"))


class Proposals:
    """Always proposes the same, without what is running."""

    def __init__(self, *specialisations: Specialisation, gain: float = 2.0) -> None:
        self.specialisations, self.gain = specialisations, gain

    def propose(self, load: Snapshot, running: Sequence[Specialisation]) -> Sequence[Proposal]:
        return [Proposal(s, self.gain, "it suits") for s in self.specialisations if s not in running]


class Traffic:
    """Calls a layer and lets its controller act, under a clock of its own."""

    def __init__(
        self,
        layer: Layer,
        folder: Path,
        proposer: Proposals,
        compiler: Compilers,
        variants: int = 4,
        allowed: Policy | None = None,
    ) -> None:
        self.layer, self.compiler = layer, compiler
        self.now = 0.0
        statistics = layer._store.statistics
        assert statistics is not None
        self.journal = Journal(folder / "journal.jsonl")
        self.controller = Controller(
            layer._store,
            allowed or policy(variants),
            statistics,
            proposer,
            compiler,
            self.journal,
            clock=lambda: self.now,
        )

    def call(self, tokens: int) -> None:
        """One call, whose results must be the layer's."""
        x = torch.randn(tokens, 4)
        assert torch.equal(self.layer(x, tokens % 5), double.expected(x, tokens % 5))

    def run(self, until: Callable[[], bool], tokens: Sequence[int] = (4,)) -> None:
        """Calls, a tick of the controller behind every few, until something has happened."""
        end, turn = time.monotonic() + 240, 0
        while time.monotonic() < end:
            self.call(tokens[turn % len(tokens)])
            self.now += 0.05
            turn += 1
            if turn % 4 == 0:
                self.controller.tick()
            if until():
                return
            attempt = self.controller.attempt
            if attempt is not None and attempt.working is not None:
                wait((attempt.working,), 1.0)  # a busy machine leaves it little
        raise AssertionError(f"nothing came of it: {list(self.controller.decisions)}")

    def events(self, event: str) -> list[dict[str, object]]:
        return [dict(record) for record in self.controller.decisions if record["event"] == event]

    def decided(self, what: str) -> Callable[[], bool]:
        return lambda: any(record["what"] == what for record in self.events("decision"))

    def happened(self, event: str, times: int = 1) -> Callable[[], bool]:
        return lambda: len(self.events(event)) >= times
