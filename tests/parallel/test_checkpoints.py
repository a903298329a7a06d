"""Checkpoints: any layout reads what any other wrote, bit for bit, and nothing unsound is read."""

from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from moec.errors import CheckpointError, RankError
from moec.runtime.parallel.checkpoints import INDEX, latest, load, save
from moec.runtime.parallel.checkpoints.files import read_header
from moec.runtime.parallel.checkpoints.state import Slots
from tests.parallel.ranks import RanksFailed, run

EXPERTS, WIDTH, ROWS = 7, 4, 6


class Spread(nn.Module):
    """Experts in slots, as a layer over ranks holds them: expert e on rank e % world, expert 0 on every rank."""

    def __init__(self, rank: int, world: int, cut: bool) -> None:
        super().__init__()
        mesh = init_device_mesh("cpu", (world,)) if cut else None
        held = [e for e in range(EXPERTS) if cut or e % world == rank or e == 0]
        slots = EXPERTS + 1  # one stays empty
        self.experts = (*held, *[-1] * (slots - len(held)))
        self.written = tuple(e != 0 or rank == 0 or cut for e in self.experts)
        self.cut = None if mesh is None else (mesh, 0)
        rows = ROWS // world if cut else ROWS
        self.first = rank * rows if cut else 0
        self.weight = nn.Parameter(torch.zeros(slots, rows, WIDTH))
        self.common = nn.Parameter(torch.zeros(rows, WIDTH))

    def expert_slots(self) -> Mapping[str, Slots]:
        found = {"weight": Slots(self.experts, self.written, self.cut)}
        return found if self.cut is None else {**found, "common": Slots(None, (True,), self.cut)}


class Model(nn.Module):
    def __init__(self, routed: nn.Module) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, EXPERTS, dtype=torch.bfloat16)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.routed = routed


class Whole(nn.Module):
    """The same in one process."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(EXPERTS, ROWS, WIDTH))
        self.common = nn.Parameter(torch.zeros(ROWS, WIDTH))


def truth(salt: float) -> torch.Tensor:
    return torch.arange(EXPERTS * ROWS * WIDTH, dtype=torch.float32).reshape(EXPERTS, ROWS, WIDTH).sin() + salt


def fill(model: Model, tensor: torch.Tensor, salt: float) -> None:
    """Give the experts in `tensor` `[slots, ...]` their true values."""
    routed = model.routed
    with torch.no_grad():
        if isinstance(routed, Whole):
            tensor.copy_(truth(salt))
            return
        assert isinstance(routed, Spread)
        for slot, expert in enumerate(routed.experts):
            tensor[slot] = truth(salt)[expert, routed.first : routed.first + tensor.shape[1]] if expert >= 0 else 99


def common(model: Model) -> torch.Tensor:
    """What is to lie in `common` on this rank."""
    first, rows = getattr(model.routed, "first", 0), len(model.routed.common)
    return truth(3.0)[0, first : first + rows]


def built(kind: str) -> tuple[Model, torch.optim.Optimizer]:
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    model = Model(Whole() if kind == "whole" else Spread(rank, world, cut=kind == "cut"))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return model, torch.optim.AdamW(model.parameters(), lr=0.5, betas=(0.8, 0.9))


def write(folder: str, kind: str) -> None:
    model, optimizer = built(kind)
    optimizer.step()
    with torch.no_grad():
        model.router.weight.fill_(0.25)
        model.steps.fill_(12)
    fill(model, model.routed.weight, 1.0)
    fill(model, optimizer.state[model.routed.weight]["exp_avg"], 2.0)
    with torch.no_grad():
        model.routed.common.copy_(common(model))
        optimizer.state[model.routed.common]["exp_avg"].copy_(-common(model))
    optimizer.param_groups[0]["lr"] = 0.125
    save(folder, model, optimizer, {"step": 12}, timeout=120)


def read(folder: str, kind: str) -> bool:
    model, optimizer = built(kind)
    assert load(folder, model, optimizer) == {"step": 12}
    expected, _ = built(kind)
    moment = torch.empty_like(model.routed.weight)
    fill(expected, expected.routed.weight, 1.0)
    fill(expected, moment, 2.0)
    used = [i for i, e in enumerate(getattr(model.routed, "experts", range(EXPERTS))) if e >= 0]
    state = optimizer.state[model.routed.weight]
    assert torch.equal(model.routed.weight[used], expected.routed.weight[used])
    assert torch.equal(state["exp_avg"][used], moment[used])
    assert state["step"] == 1
    assert torch.equal(model.routed.common, common(model))
    assert torch.equal(optimizer.state[model.routed.common]["exp_avg"], -common(model))
    assert (model.router.weight == 0.25).all()
    assert model.steps == 12
    assert optimizer.param_groups[0]["lr"] == 0.125
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)
    optimizer.step()  # nothing lacks
    return True


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "step_12")


@pytest.mark.parametrize("kinds", [("spread", 8, "spread", 2), ("spread", 2, "cut", 3), ("cut", 2, "spread", 4)])
def test_ranks_read_what_other_ranks_wrote(folder: str, kinds: tuple[str, int, str, int]) -> None:
    wrote, writers, reads, readers = kinds
    run(write, writers, folder, wrote)
    assert all(run(read, readers, folder, reads))


def test_one_process_reads_what_ranks_wrote_and_the_other_way_round(folder: str) -> None:
    run(write, 3, folder, "spread")
    assert read(folder, "whole")
    write(folder + "0", "whole")
    assert all(run(read, 2, folder + "0", "spread"))
    assert all(run(read, 2, folder + "0", "cut"))


def test_every_tensor_is_written_once(folder: str) -> None:
    run(write, 3, folder, "spread")
    names = [one.part.name for path in Path(folder).glob("rank_*") for one in read_header(path)]
    assert len(names) == len(set(names))
    assert {f"model.routed.weight.{e}" for e in range(EXPERTS)} < set(names)
    assert "optimizer.exp_avg.routed.weight.6" in names


def die_before_saving(folder: str) -> tuple[int, ...]:
    model, optimizer = built("spread")
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(RankError) as raised:
        save(folder, model, optimizer, timeout=6)
    return raised.value.ranks


def test_a_checkpoint_that_a_rank_did_not_write_is_none(folder: str) -> None:
    assert run(die_before_saving, 3, folder, gone=[1])[0] == (1,)
    assert latest(Path(folder).parent) is None
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        read(folder, "whole")


def test_latest_counts_numbers(tmp_path: Path) -> None:
    for name in ("step_9", "step_10", "other"):
        write(str(tmp_path / name), "whole")
    (tmp_path / "step_11").mkdir()
    assert latest(tmp_path) == tmp_path / "step_10"
    assert latest(tmp_path / "none") is None
    with pytest.raises(CheckpointError, match="holds a checkpoint already"):
        write(str(tmp_path / "step_9"), "whole")


def test_what_is_no_json_is_refused(folder: str) -> None:
    model, _ = built("whole")
    with pytest.raises(CheckpointError, match="JSON data"):
        save(folder, model, extra={"step": torch.zeros(1)})


class Bomb:
    """Writes a file if a pickle of it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def damaged(header: dict[str, object], key: str, **fields: object) -> dict[str, object]:
    return {**header, key: {**header[key], **fields}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "damage",
    [
        "short",
        "pickle",
        "index",
        "ranks",
        "form",
        "range",
        "bytes",
        "shape",
        "dtype",
        "huge header",
        "negative",
        "gone",
    ],
)
def test_unsound_files_are_refused(folder: str, tmp_path: Path, damage: str) -> None:
    write(folder, "whole")
    path, index = Path(folder) / "rank_00000.safetensors", Path(folder) / INDEX
    raw, said = path.read_bytes(), json.loads(index.read_text())
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    key = "model.routed.weight"
    begin, end = header[key]["data_offsets"]
    if damage == "short":
        raw = raw[:-1]
    elif damage == "pickle":
        raw = pickle.dumps(Bomb(tmp_path / "was_here"))
    elif damage == "gone":
        header.pop(key)
    elif damage == "huge header":
        raw = (2**60).to_bytes(8, "little") + raw[8:]
    else:
        changes = {
            "range": {"data_offsets": [begin + len(raw), end + len(raw)]},
            "bytes": {"data_offsets": [begin, end + 4]},
            "shape": {"shape": [EXPERTS, WIDTH, ROWS]},
            "dtype": {"dtype": "I32"},
            "negative": {"data_offsets": [-4, end - begin - 4]},
        }
        header = damaged(header, key, **changes.get(damage, {}))
    if damage not in ("short", "pickle", "huge header"):
        text = json.dumps(header).encode()
        raw = len(text).to_bytes(8, "little") + text + raw[8 + length :]
    path.write_bytes(raw)
    said["bytes"] = [len(raw)] if damage != "ranks" else [len(raw), 5]
    said["form"] = 2 if damage == "form" else 1
    index.write_text("{" if damage == "index" else json.dumps(said))
    with pytest.raises(CheckpointError):
        read(folder, "whole")
    assert not (tmp_path / "was_here").exists()


def test_files_of_another_size_than_the_index_says_are_refused(folder: str) -> None:
    write(folder, "whole")
    with (Path(folder) / "rank_00000.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(CheckpointError, match="not as large"):
        read(folder, "whole")


def test_a_rank_that_cannot_write_stops_the_others(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RanksFailed, match=r"CheckpointError|NotADirectory"):
        run(write, 2, str(tmp_path / "file" / "step_1"), "spread")
