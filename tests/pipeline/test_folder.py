"""Folders are written whole or not at all, and never over what somebody else made."""

from __future__ import annotations

from pathlib import Path

import pytest

from moec.pipeline.folder import KEPT, replace_folder, source_paths


def contents(folder: Path) -> dict[str, bytes]:
    return {one.relative_to(folder).as_posix(): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_a_folder_is_written(tmp_path: Path) -> None:
    replace_folder(tmp_path / "out", {"a": b"1", "b/c": b"2"})
    assert contents(tmp_path) == {"out/a": b"1", "out/b/c": b"2"}


def test_a_folder_is_replaced_and_what_was_built_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    replace_folder(out, {"a": b"1", "b/c": b"2"})
    (out / "build").mkdir()
    (out / "build" / "moe_layer.xo").write_bytes(b"3")
    (out / "calibration.json").write_bytes(b"5")
    replace_folder(out, {"a": b"4"})
    assert contents(tmp_path) == {"out/a": b"4", "out/build/moe_layer.xo": b"3", "out/calibration.json": b"5"}


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    replace_folder(out, {"a": b"1"})
    (out / KEPT[0]).mkdir()
    (out / KEPT[0] / "log").write_bytes(b"3")
    (out / KEPT[1]).write_bytes(b"5")
    before = contents(tmp_path)
    rename = Path.rename
    for broken in range(4):
        left = [broken]

        def failing(self: Path, target: Path, left: list[int] = left) -> Path:
            left[0] -= 1
            if left[0] == -1:
                raise OSError("no space")
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", failing)
            with pytest.raises(OSError, match="no space"):
                replace_folder(out, {"a": b"4"})
        assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        (["a.moe", "std/x.moe"], ["a.moe", "std/x.moe"]),
        (["/home/me/a.moe", "/home/me/lib/b.moe", "/opt/c.moe"], ["a.moe", "lib/b.moe", "opt/c.moe"]),
        (["../my layer.moe", "../../b.moe"], ["my_layer.moe", "b.moe"]),
        (["x/a.moe", "a.moe", "./a.moe"], ["a.moe", "a_.moe", "a__.moe"]),
        ([".hidden.moe"], ["_hidden.moe"]),
    ],
)
def test_sources_lie_inside(names: list[str], paths: list[str]) -> None:
    assert source_paths(names) == [f"source/{path}" for path in paths]
