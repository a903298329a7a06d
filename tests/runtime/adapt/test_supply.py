"""Where variants come from, with a compiler that copies what it is told to or fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from moec.artifact import container
from moec.artifact.container import Artifact
from moec.artifact.specialisation import Specialisation
from moec.errors import ArtifactError, CompilerError, CompilerMissing, MoecError
from moec.runtime.adapt.cache import Cache
from moec.runtime.adapt.supply import Supply
from moec.runtime.adapt.worker import Job, Worker
from tests.artifact.samples import library, manifest

FAST = Specialisation("fast", tokens=(1, 16))
WIDE = Specialisation("wide", capacity=2.0)


class Fake(Worker):
    """Writes what `make` gives for a job."""

    def __init__(self, make: Callable[[Job], None]) -> None:
        super().__init__()
        self.jobs: list[Job] = []
        self.started = 0
        self._make = make

    def start(self) -> None:
        self.started += 1

    def compile(self, job: Job) -> float:
        self.jobs.append(job)
        self._make(job)
        return 0.5


@pytest.fixture
def base(tmp_path: Path) -> Artifact:
    container.write(tmp_path / "base.so", library(), replace(manifest(), policy=None), {})
    return container.read(tmp_path / "base.so")


def specialised(of: Artifact, path: Path, wanted: Specialisation, /, **changes: object) -> Artifact:
    made = replace(of.manifest, **{"specialisation": wanted, "base": of.sha256, **changes})  # type: ignore[arg-type]
    container.write(path, library(), made, {})
    return container.read(path)


def test_the_compiler_is_asked_once(base: Artifact, tmp_path: Path) -> None:
    worker = Fake(lambda job: specialised(base, job.output, job.specialisation) and None)
    cache = Cache(tmp_path / "cache")
    supply = Supply(base, "generic", worker, cache)
    first, second = (supply.submit(FAST).result() for _ in range(2))
    assert (first.source, second.source) == ("compiler", "cache")
    assert first.artifact.sha256 == second.artifact.sha256
    assert (worker.jobs[0].artifact, worker.jobs[0].variant) == (tmp_path / "base.so", "generic")
    assert worker.jobs[0].objects == tmp_path / "cache" / "objects"
    supply.reject(FAST)
    assert supply.submit(FAST).result().source == "compiler"
    assert len(worker.jobs) == 2
    supply.close()


def test_the_compiler_starts_only_for_what_it_must_make(base: Artifact, tmp_path: Path) -> None:
    worker = Fake(lambda job: specialised(base, job.output, job.specialisation) and None)
    supply = Supply(base, "generic", worker, Cache(tmp_path / "cache"))
    supply.submit(FAST).result()
    supply._expect(FAST)
    assert worker.started == 0, "it is in the cache"
    supply._expect(WIDE)
    assert worker.started == 1
    supply.close()
    supply._expect(WIDE)
    assert worker.started == 1, "nothing is compiled any more"


def test_without_a_cache_nothing_stays(base: Artifact) -> None:
    worker = Fake(lambda job: specialised(base, job.output, job.specialisation) and None)
    supply = Supply(base, "generic", worker, None)
    assert supply.submit(FAST).result().source == "compiler"
    assert not worker.jobs[0].output.exists()
    assert worker.jobs[0].objects is None
    supply.close()


def test_what_came_with_the_artifact_needs_no_compiler(base: Artifact, tmp_path: Path) -> None:
    def missing(job: Job) -> None:
        raise CompilerMissing("there is no compiler")

    made = replace(base.manifest, specialisation=FAST, base=None)
    container.write(tmp_path / "with.so", library(), base.manifest, {}, {"fast": container.packed(library(), made, {})})
    supply = Supply(container.read(tmp_path / "with.so"), made.variants[0].name, Fake(missing), None)
    assert supply.submit(replace(FAST, name="another_name")).result().source == "prebuilt"
    with pytest.raises(CompilerMissing, match="no prebuilt variant"):
        supply.submit(WIDE).result()
    supply.close()


@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        ({"base": "cd" * 32}, CompilerError, "another file by now"),
        ({"specialisation": WIDE}, CompilerError, "made something else"),
        (None, ArtifactError, "not"),
    ],
)
def test_what_is_wrong_is_refused_and_not_kept(
    base: Artifact, tmp_path: Path, changes: dict[str, object] | None, error: type[MoecError], why: str
) -> None:
    def make(job: Job) -> None:
        if changes is None:
            job.output.write_bytes(b"nonsense")
        else:
            specialised(base, job.output, job.specialisation, **changes)

    supply = Supply(base, "generic", Fake(make), Cache(tmp_path / "cache"))
    with pytest.raises(error, match=why):
        supply.submit(FAST).result()
    assert not list((tmp_path / "cache").iterdir())
    supply.close()


def test_closing_fails_what_waits(base: Artifact) -> None:
    supply = Supply(base, "generic", Fake(lambda job: None), None)
    supply.close()
    supply.close()
    with pytest.raises(CompilerError, match="any more"):
        supply.submit(FAST).result()
