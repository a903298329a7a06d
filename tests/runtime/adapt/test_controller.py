"""From the load to a variant that runs, and everything that can go wrong between."""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from moec.artifact.container import Artifact
from moec.artifact.policy import Comparison, Window
from moec.artifact.specialisation import QuantisedExperts, Specialisation
from moec.errors import MoecError, TamperedArtifact
from moec.journal import Liveness, Other, Reading, Run, Sample, Start, liveness
from moec.runtime.adapt.contracts import Compiled
from moec.runtime.adapt.published import BASE
from tests.runtime import double
from tests.runtime.adapt.adapting import ALWAYS, LARGE, SMALL, Compilers, Proposals, Traffic, loaded, policy, variant

SLOW, FASTER = "SLEEP_US=5000", "SLEEP_US=1000"
"""Both long enough for a busy machine to change little about what one is to the other."""


def traffic(folder: Path, answer: Artifact | Exception | Future[Compiled] | None = None, **options: int) -> Traffic:
    """A slow layer for which SMALL is proposed, and the compiler's answer; by default a faster variant."""
    layer = loaded(folder, SLOW)
    return Traffic(
        layer, folder, Proposals(SMALL), Compilers({"small": answer or variant(layer, folder, SMALL)}), **options
    )


def running(made: Traffic) -> list[str]:
    return list(made.controller.stage.running)


def test_a_faster_variant_comes_to_stay(tmp_path: Path) -> None:
    made = traffic(tmp_path)
    made.run(made.decided("keep"))
    assert running(made) == ["small"]
    for tokens, name in ((0, BASE), (1, "small"), (16, "small"), (17, BASE)):
        assert made.controller.stage.published.at(tokens).name == name
    assert made.layer._store.published is not None
    assert made.controller.stage.published.at(4).packed is made.layer._store.buffer, "of equal layout"
    order = [record["event"] for record in made.controller.decisions]
    assert order[0] == "start"
    assert order[-5:] == ["decision", "compiled", "validated", "swap", "decision"]
    (validated,) = made.events("validated")
    assert validated["identical"] is True
    *early, compiling, keeping = made.events("decision")
    assert (compiling["what"], keeping["what"]) == ("compile", "keep")
    assert all("no more than" in str(record["why"]) for record in early), "it was too soon"
    assert isinstance(keeping["gain"], float)
    assert keeping["gain"] > 1.2
    assert "it suits; 2.00x over about" in str(compiling["why"])
    made.controller.stop()
    assert running(made) == ["small"], "what was kept stays"
    lines = [json.loads(line) for line in made.journal.path.read_text().splitlines()]
    assert {"start", "sample", "decision", "compiled", "validated", "swap", "stop"} == {line["event"] for line in lines}
    sample = next(line for line in lines if line["event"] == "sample")
    assert sample["guards"][0]["text"] == "tokens >= 0"
    assert set(sample) >= {"calls", "tokens", "load", "imbalance", "histogram", "latency_ms", "memory", "active"}
    read = list(Reading(made.journal.path))
    assert not [record for record in read if isinstance(record, Other)], "its reader knows every event"
    assert isinstance(read[0], Start)
    assert liveness(read[0]) is Liveness.ALIVE
    runs = [record.runs for record in read if isinstance(record, Sample)]
    assert runs[0] == (Run(0, None, BASE),)
    assert (Run(0, 0, BASE), Run(1, 16, "small", BASE), Run(17, None, BASE)) in runs, "on trial"


def test_the_compiler_starts_once_ahead_of_the_decision(tmp_path: Path) -> None:
    made = traffic(tmp_path)
    made.run(lambda: bool(made.compiler.expected))
    assert made.compiler.asked == []
    assert not made.decided("compile")()
    made.run(made.decided("compile"))
    assert made.compiler.expected == ["small"]


def test_no_compiler_starts_where_no_guard_holds(tmp_path: Path) -> None:
    layer = loaded(tmp_path, SLOW)
    never = replace(ALWAYS, when=Comparison("tokens", ">=", 1000.0), window=Window(calls=0))
    made = Traffic(layer, tmp_path, Proposals(SMALL), Compilers({}), allowed=replace(policy(), triggers=(never,)))
    for _ in range(200):
        made.call(4)
        made.now += 0.2
        made.controller.tick()
    assert made.compiler.expected == []


def test_no_compiler_starts_for_what_is_not_worth_it(tmp_path: Path) -> None:
    layer = loaded(tmp_path, SLOW)
    made = Traffic(layer, tmp_path, Proposals(SMALL, gain=1.1), Compilers({}))
    made.run(made.decided("reject"))
    made.now += 20
    made.run(lambda: made.now > 60)
    assert made.compiler.expected == []


def test_a_slower_variant_is_taken_back(tmp_path: Path) -> None:
    layer = loaded(tmp_path, "SLEEP_US=200")
    made = Traffic(
        layer, tmp_path, Proposals(SMALL), Compilers({"small": variant(layer, tmp_path, SMALL, "SLEEP_US=20000")})
    )
    made.run(made.happened("rollback"))
    assert running(made) == []
    assert layer._store.published is None
    (rollback,) = made.events("rollback")
    assert isinstance(rollback["gain"], float)
    assert rollback["gain"] < 0.7
    assert made.events("decision")[-1]["what"] == "reject"


def test_a_variant_that_one_thread_finds_much_slower_meets_no_call(tmp_path: Path) -> None:
    made = traffic(tmp_path)
    made.compiler.answers["small"] = variant(made.layer, tmp_path, SMALL, "SPIN=3000000")
    made.run(made.happened("failed"))
    assert "slower" in str(made.events("failed")[0]["why"])
    assert not made.events("swap")
    assert made.layer._store.published is None


def broken(folder: Path, kind: str) -> Artifact | Exception:
    layer = loaded(folder, SLOW)
    right = variant(layer, folder, SMALL)
    return {
        "crash": lambda: MoecError("the compiler was ended by SIGSEGV"),
        "timeout": lambda: MoecError("the compiler took longer than 60 s"),
        "disk full": lambda: OSError(28, "No space left on device"),
        "tampered": lambda: TamperedArtifact("its contents do not match its checksum"),
        "a bug of ours": lambda: KeyError("x"),
        "wrong results": lambda: variant(layer, folder, SMALL, "OFF=1"),
        "nan": lambda: variant(layer, folder, SMALL, "OFF=(0.0/0.0)"),
        "a library that cannot be linked": lambda: replace(right, sha256="0" * 64, library=b"\x7fELF" + bytes(100)),
        "without run": lambda: variant(layer, folder, SMALL, "WITHOUT_RUN"),
        "another layer's": lambda: variant(layer, folder, SMALL, base="0" * 64),
        "another specialisation": lambda: variant(layer, folder, LARGE),
        "another interface": lambda: _with_another_input(right),
        "another processor": lambda: variant(layer, folder, SMALL, "SUPPORTS=1"),
    }[kind]()


def _with_another_input(right: Artifact) -> Artifact:
    return replace(right, manifest=replace(right.manifest, inputs=right.manifest.inputs[:1]))


@pytest.mark.parametrize(
    "kind",
    [
        "crash",
        "timeout",
        "disk full",
        "tampered",
        "a bug of ours",
        "wrong results",
        "nan",
        "a library that cannot be linked",
        "without run",
        "another layer's",
        "another specialisation",
        "another interface",
        "another processor",
    ],
)
def test_whatever_fails_leaves_the_layer_alone(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    made = traffic(tmp_path, broken(tmp_path, kind))
    made.run(made.happened("failed"))  # every call checks its results
    assert made.layer._store.published is None
    assert running(made) == []
    (failed,) = made.events("failed")
    assert failed["candidate"] == "small"
    assert failed["why"]
    failing = made.compiler
    assert made.events("decision")[-1]["what"] == "reject"
    assert "the variant small is not used" in caplog.text
    for _ in range(20):
        made.call(1)
        made.now += 0.4
        made.controller.tick()
    assert len(made.events("failed")) == 1, "it is not tried again at once"
    assert failing.asked == ["small"]


def test_what_computed_wrong_is_not_kept_on_disk(tmp_path: Path) -> None:
    made = traffic(tmp_path, broken(tmp_path, "wrong results"))
    made.run(made.happened("failed"))
    assert made.compiler.rejected == ["small"]


def test_a_compilation_that_does_not_end_holds_nobody_up(tmp_path: Path) -> None:
    endless: Future[Compiled] = Future()
    made = traffic(tmp_path, endless)
    made.run(made.decided("compile"))
    for _ in range(100):
        made.call(4)
        made.controller.tick()
    assert running(made) == []
    made.controller.stop()
    assert made.layer._store.published is None


def test_little_traffic_compiles_nothing(tmp_path: Path) -> None:
    layer = loaded(tmp_path)
    made = Traffic(layer, tmp_path, Proposals(SMALL), Compilers({"small": variant(layer, tmp_path, SMALL)}))
    for _ in range(20):
        made.call(4)
        made.now += 10.0
        made.controller.tick()
    assert made.events("decision")
    assert made.compiler.expected == []
    assert {record["what"] for record in made.events("decision")} == {"reject"}
    assert "no more than" in str(made.events("decision")[0]["why"])


def test_what_need_not_be_compiled_is_tried_for_less(tmp_path: Path) -> None:
    """Calls of 0.1 s in all save less than compiling takes, and more than trying does."""
    for there in (False, True):
        folder = tmp_path / f"{there}"
        folder.mkdir()
        layer = loaded(folder)
        made = Traffic(layer, folder, Proposals(SMALL), Compilers({"small": variant(layer, folder, SMALL)}))
        if there:
            made.compiler.there.add("small")
        each, calls = int(0.02 * 1e9), 4
        for _ in range(5):
            for _ in range(calls):
                row = layer._store.statistics.take(4)
                layer._store.statistics.give(row, 4, each)
            made.now += 1.0
            made.controller.tick()
        assert {record["what"] for record in made.events("decision")} == {"compile" if there else "reject"}


def two(folder: Path, variants: int, gain: float = 2.0) -> Traffic:
    layer = loaded(folder, SLOW)
    answers: dict[str, Artifact | Exception | Future[Compiled]] = {
        "small": variant(layer, folder, SMALL, FASTER),
        "large": variant(layer, folder, LARGE, FASTER),
    }
    return Traffic(layer, folder, Proposals(SMALL, LARGE, gain=gain), Compilers(answers), variants)


def kept(made: Traffic) -> int:
    return len([record for record in made.events("decision") if record["what"] == "keep"])


def test_one_after_the_other(tmp_path: Path) -> None:
    made = two(tmp_path, variants=2)
    made.run(lambda: kept(made) == 2, tokens=(4, 20))
    assert running(made) == ["small", "large"]
    assert not made.events("evicted")


def test_no_more_variants_than_allowed(tmp_path: Path) -> None:
    """The traffic moves to where the one that there may be does not help: then the other takes its place."""
    made = two(tmp_path, variants=1)
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, len(made.controller.stage.published.builds) - 1)
        return kept(made) == 2

    made.run(lambda: kept(made) == 1, tokens=(4,))
    assert running(made) == ["small"]
    made.run(look, tokens=(20, 20, 20, 20, 20, 20, 20, 4))
    assert running(made) == ["large"]
    assert [record["variant"] for record in made.events("evicted")] == ["small"]
    assert most == 1


def test_two_variants_do_not_take_turns(tmp_path: Path) -> None:
    made = two(tmp_path, variants=1, gain=1.3)
    made.run(lambda: kept(made) == 1, tokens=(4, 20))
    (name,) = running(made)
    made.controller.stage.keep(name, 20.0)  # more than a busy machine makes of the other's calls
    for turn in range(600):
        made.call((4, 20)[turn % 2])
        made.now += 0.1
        made.controller.tick()
    assert running(made) == [name]
    assert len(made.compiler.asked) == 1
    assert "the least of them saves more" in str(made.events("decision")[-1]["why"])


def test_one_that_takes_all_calls_of_another(tmp_path: Path) -> None:
    layer = loaded(tmp_path, SLOW)
    whole = Specialisation("whole", tokens=(0, 100))
    answers: dict[str, Artifact | Exception | Future[Compiled]] = {
        "small": variant(layer, tmp_path, SMALL, "SLEEP_US=2500"),
        "whole": variant(layer, tmp_path, whole),
    }
    made = Traffic(layer, tmp_path, Proposals(SMALL, whole), Compilers(answers))
    made.run(lambda: kept(made) == 2)
    assert running(made) == ["whole"]
    assert made.events("evicted")[-1]["why"] == "whole takes all of its calls"


def test_new_weights_during_an_attempt_and_after_it(tmp_path: Path) -> None:
    """Of another layout, so that the variant has a copy of the weights."""
    layer = loaded(tmp_path, SLOW, "SUPPORTS=2")
    artifact = variant(layer, tmp_path, SMALL, layout="c" * 16)
    made = Traffic(layer, tmp_path, Proposals(SMALL), Compilers({"small": artifact}))
    made.run(made.happened("swap"))
    assert made.controller.stage.published.builds[-1].packed is not layer._store.buffer
    state = double.weights() | {"shift": torch.full((4,), 3.0)}
    x = torch.ones(4, 4)
    layer.load_state_dict(state)
    assert torch.equal(layer(x, 2), double.expected(x, 2, state))
    made.controller.tick()
    assert made.events("decision")[-1]["why"] == "the layer was given other weights meanwhile"
    layer.load_state_dict(double.weights())
    made.run(made.decided("keep"))
    layer.load_state_dict(state)
    assert torch.equal(layer(x, 2), double.expected(x, 2, state))
    made.controller.tick()
    assert made.events("evicted")[-1]["why"] == "the layer was given other weights"


def test_a_variant_with_quantised_experts_may_be_off_by_a_little(tmp_path: Path) -> None:
    near = Specialisation("cold", quantised=(QuantisedExperts("routed", (1, 2), "int8", None, "f32"),))
    for off, happens in (("OFF=0.001f", "keep"), ("OFF=10", "reject")):
        folder = tmp_path / off[:5]
        folder.mkdir()
        layer = loaded(folder, SLOW, layer=f"Near{happens}")
        made = Traffic(layer, folder, Proposals(near), Compilers({"cold": variant(layer, folder, near, off)}))
        made.call = lambda tokens, layer=layer: layer(torch.randn(tokens, 4), 1)  # type: ignore[method-assign, misc]
        made.run(made.happened("validated"))
        made.run(lambda: made.events("decision")[-1]["what"] == happens)  # noqa: B023
        validated = made.events("validated")[-1]
        assert validated["identical"] is False
        assert isinstance(validated["error"], float)
        assert (validated["error"] < 0.05) == (happens == "keep")


def test_a_variant_of_the_capacity_is_exact_where_nothing_is_dropped(tmp_path: Path) -> None:
    fitted = Specialisation("fitted", capacity=1.5)
    layer = loaded(tmp_path, SLOW)
    made = Traffic(layer, tmp_path, Proposals(fitted), Compilers({"fitted": variant(layer, tmp_path, fitted, "OFF=1")}))
    made.run(made.happened("failed"))
    assert "where no capacity drops anything" in str(made.events("failed")[0]["why"])


def test_a_journal_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    made = traffic(tmp_path)
    made.journal.close()
    (tmp_path / "file").write_text("")
    made.controller._journal = type(made.journal)(tmp_path / "file" / "journal")
    assert made.controller._journal.failure
    made.run(made.decided("keep"))


def test_calls_in_four_threads_while_a_variant_comes(tmp_path: Path) -> None:
    made = two(tmp_path, variants=2)
    layer, stop = made.layer, threading.Event()
    wrong: list[object] = []

    def work(thread: int) -> None:
        generator = torch.Generator().manual_seed(thread)
        turn = 0
        while not stop.is_set():
            x = torch.randn((3, 30, 1, 40)[turn % 4], 4, generator=generator)
            turn += 1
            try:
                if not torch.equal(layer(x, thread), double.expected(x, thread)):
                    wrong.append(x)
            except Exception as error:  # noqa: BLE001  what failed is what the test is about
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        made.run(lambda: kept(made) == 2, tokens=(4, 20))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
