"""A project's folder: what is written is read again, and what was changed is noticed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moec.artifact import hls
from moec.artifact.manifest import TokenTensor, Weight
from moec.errors import ArtifactError, NewerSchema, NotAnArtifact, TamperedArtifact
from moec.fixed.interface import shapes
from tests.artifact.samples import manifest
from tests.fixed.samples import DESIGN, EDGE, INTERFACE

FILES = {"src/moe_layer.cpp": b"int x;\n", "README.md": b"hello\n"}


def project(**changes: Any) -> hls.Project:
    sample = manifest()
    made = hls.Project(
        compiler="moec 0.1.0",
        layer="Edge",
        source=sample.source,
        options={"d": 192},
        target="hls:zcu102",
        inputs=(TokenTensor("x", (192,), "bf16"), TokenTensor("task", (), "i32")),
        outputs=(TokenTensor("y", (192,), "bf16"),),
        parameters=tuple(Weight(name, shape, "f32", "parameter") for name, shape in shapes(EDGE, INTERFACE).items()),
        guarantees=sample.guarantees,
        design=DESIGN,
        interface=INTERFACE,
        files={name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()},
    )
    return replace(made, **changes)


def written(folder: Path, made: hls.Project) -> Path:
    for name, data in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / hls.MANIFEST).write_bytes(made.to_json())
    return folder


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    read = hls.read(written(tmp_path, project()))
    assert read.project == project()
    assert dict(read.files) == FILES


def test_other_files_may_lie_beside_it(tmp_path: Path) -> None:
    written(tmp_path, project())
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "log").write_text("x")
    assert dict(hls.read(tmp_path).files) == FILES


def test_a_changed_or_missing_file_is_noticed(tmp_path: Path) -> None:
    written(tmp_path, project())
    (tmp_path / "README.md").write_bytes(b"hallo\n")
    with pytest.raises(TamperedArtifact, match=r"README\.md"):
        hls.read(tmp_path)
    (tmp_path / "README.md").unlink()
    with pytest.raises(TamperedArtifact, match="missing"):
        hls.read(tmp_path)


def test_links_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    written(folder, project())
    (tmp_path / "elsewhere").write_bytes(FILES["README.md"])
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TamperedArtifact, match="link"):
        hls.read(folder)


def test_a_changed_manifest_is_noticed(tmp_path: Path) -> None:
    written(tmp_path, project())
    text = (tmp_path / hls.MANIFEST).read_bytes()
    (tmp_path / hls.MANIFEST).write_bytes(text.replace(b'"tokens": 256', b'"tokens": 257'))
    with pytest.raises(TamperedArtifact, match="checksum"):
        hls.read(tmp_path)


def test_a_folder_without_manifest_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(NotAnArtifact):
        hls.read(tmp_path)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "a/../b", "", "moec.json", "a\\b", "a b"])
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(ArtifactError, match="files has a path"):
        hls.Project.from_json(project(files={path: "ab" * 32}).to_json())


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"schema": 1, "compiler": "x", "seal": 3}'])
def test_other_text_is_refused(text: bytes) -> None:
    with pytest.raises(ArtifactError, match="malformed"):
        hls.Project.from_json(text)


def test_a_newer_manifest_is_told_apart() -> None:
    data = json.loads(project().to_json())
    with pytest.raises(NewerSchema):
        hls.Project.from_json(json.dumps(data | {"schema": 2}).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"interface": replace(INTERFACE, task=None)},
        {"interface": replace(INTERFACE, selection="router.bias")},
        {"interface": replace(INTERFACE, routed=replace(INTERFACE.routed, count=15))},
        {"interface": replace(INTERFACE, routed=replace(INTERFACE.routed, gate=INTERFACE.routed.up))},
        {"interface": replace(INTERFACE, shared=(INTERFACE.routed,))},
        {"parameters": ()},
        {"inputs": (TokenTensor("x", (192,), "bf16"),)},
        {"outputs": (TokenTensor("y", (191,), "bf16"),)},
    ],
)
def test_an_interface_that_does_not_fit_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="fit the layer"):
        hls.Project.from_json(project(**changes).to_json())
