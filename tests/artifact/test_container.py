"""An artifact comes back as it was written, and whatever is done to its bytes is noticed by the right error."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.artifact import container
from moec.artifact.container import GRAPH_IR, packed, parse, read, write
from moec.artifact.specialisation import Specialisation
from moec.errors import ArtifactError, NewerSchema, NotAnArtifact, TamperedArtifact, TruncatedArtifact
from tests.artifact.samples import library, manifest

TEXTS = {GRAPH_IR: "module {}\n", "source/sample.moe": "layer Sample {}\n# π\n"}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "sample.so"
    write(path, library(), manifest(), TEXTS)
    return path


@pytest.fixture(scope="module")
def data(artifact: Path) -> bytes:
    return artifact.read_bytes()


def sealed(elf: bytes, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An artifact that `write` would refuse to make, under a right checksum."""
    stream = io.BytesIO(elf)
    with zipfile.ZipFile(stream, "a", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return resealed(stream.getvalue(), 22)


def resealed(data: bytes, end_bytes: int) -> bytes:
    body, end = data[:-end_bytes], data[-end_bytes:][:20]
    comment = b"moec1 sha256:" + hashlib.sha256(body).hexdigest().encode()
    return body + end + struct.pack("<H", len(comment)) + comment


def test_comes_back_as_it_was_written(artifact: Path) -> None:
    found = read(artifact)
    assert found.manifest == manifest()
    assert found.library == library()
    assert dict(found.texts) == TEXTS
    assert found.machine == "x86_64"


def test_is_a_zip_archive_too(artifact: Path) -> None:
    with zipfile.ZipFile(artifact) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["manifest.json", *sorted(TEXTS)]


def test_same_input_gives_same_bytes(artifact: Path, tmp_path: Path) -> None:
    write(tmp_path / "again.so", library(), manifest(), TEXTS)
    assert (tmp_path / "again.so").read_bytes() == artifact.read_bytes()


def test_replaces_a_file_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "layer.so"
    write(path, library(), manifest(), {})
    before = path.open("rb")
    write(path, library(body=b"other"), manifest(), {})
    assert parse(before.read(), "before").library == library()
    assert read(path).library == library(body=b"other")
    assert [p.name for p in tmp_path.iterdir()] == ["layer.so"]


@given(st.data())
def test_every_changed_byte_is_noticed(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data) - 1))
    flip = draw.draw(st.integers(1, 255))
    changed = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
    with pytest.raises(ArtifactError):
        parse(changed, "changed.so")


def test_every_flipped_bit_of_the_end_record_is_noticed(data: bytes) -> None:
    for at in range(len(data) - 99, len(data)):
        for bit in range(8):
            changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            with pytest.raises((TamperedArtifact, TruncatedArtifact, NewerSchema)):
                parse(changed, "changed.so")


def test_every_truncation_is_noticed(data: bytes) -> None:
    for size in range(len(data)):
        with pytest.raises((NotAnArtifact, TruncatedArtifact)):
            parse(data[:size], "short.so")
    for size in range(len(data) - 200, len(data)):
        with pytest.raises(TruncatedArtifact):
            parse(data[:size], "short.so")


@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_are_refused(noise: bytes, elf: bool) -> None:
    with pytest.raises(ArtifactError):
        parse(library() + noise if elf else noise, "noise")


@given(st.data())
def test_a_malformed_archive_under_a_right_checksum_never_crashes(data: bytes, draw: st.DataObject) -> None:
    begin = len(library())
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        changed[draw.draw(st.integers(begin, len(data) - 100))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(ArtifactError):  # the only kind of error there may be
        parse(resealed(bytes(changed), 99), "malformed.so")


def test_bytes_added_behind_the_end(data: bytes) -> None:
    with pytest.raises(TamperedArtifact, match="3 bytes were added"):
        parse(data + b"abc", "longer.so")


def test_a_newer_container(data: bytes) -> None:
    with pytest.raises(NewerSchema, match="container version 2"):
        parse(data.replace(b"moec1 sha256:", b"moec2 sha256:"), "newer.so")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"#!/bin/sh\n", "not a shared library"),
        (library(kind=2), "not a 64-bit little-endian shared library"),
        (library(), "moec did not write it"),
    ],
)
def test_not_an_artifact(content: bytes, says: str) -> None:
    with pytest.raises(NotAnArtifact, match=says):
        parse(content, "file.so")


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing.so")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    with pytest.raises(NotAnArtifact, match="not a regular file"):
        read("/dev/zero")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.so"
    with path.open("wb") as file:
        file.write(library())
        file.truncate(2**40)
    with pytest.raises(NotAnArtifact, match="never exceeds"):
        read(path)


def test_a_zip_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = sealed(library(), {"manifest.json": manifest().to_json(), "ir/graph.mlir": bytes(65 * 2**20)})
    assert len(bomb) < 2**18
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(ArtifactError, match="the limits are"):
        parse(bomb, "bomb.so")


def test_too_many_members() -> None:
    with pytest.raises(ArtifactError, match="the limits are"):
        parse(sealed(library(), {f"m{i}": b"" for i in range(container.MAX_MEMBERS + 1)}), "many.so")


def test_a_member_that_lies_about_its_size() -> None:
    content = bytes(70 * 2**20)
    honest = sealed(library(), {"manifest.json": manifest().to_json(), "ir/graph.mlir": content})
    lying = honest.replace(struct.pack("<I", len(content)), struct.pack("<I", 16))
    with pytest.raises(ArtifactError, match="malformed"):
        parse(resealed(lying, 99), "lie.so")


def test_no_manifest() -> None:
    with pytest.raises(ArtifactError, match=r"holds no manifest\.json"):
        parse(sealed(library(), {"other": b""}), "bare.so")


def test_a_name_twice() -> None:
    stream = io.BytesIO(library())
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("manifest.json", manifest().to_json())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("manifest.json", manifest().to_json())
    with pytest.raises(ArtifactError, match="twice"):
        parse(resealed(stream.getvalue(), 22), "twice.so")


def test_a_library_that_reaches_into_the_archive() -> None:
    elf = bytearray(library())
    struct.pack_into("<Q", elf, 40, len(elf) - 8)  # the section table …
    struct.pack_into("<H", elf, 60, 1)  # … of one section
    with pytest.raises(ArtifactError, match="overlap"):
        parse(sealed(bytes(elf), {"manifest.json": manifest().to_json()}), "overlap.so")


def test_what_cannot_be_read_back_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotAnArtifact):
        write(tmp_path / "a.so", b"not ELF", manifest(), {})
    monkeypatch.setattr(container, "MAX_MEMBER_BYTES", 100)
    with pytest.raises(ArtifactError, match="the limits are"):
        write(tmp_path / "a.so", library(), manifest(), TEXTS)
    assert list(tmp_path.iterdir()) == []


AHEAD = Specialisation("few", (1, 16))


def test_variants_come_back_with_their_base(tmp_path: Path) -> None:
    inner = packed(library(), replace(manifest(), specialisation=AHEAD), TEXTS)
    write(tmp_path / "a.so", library(), manifest(), TEXTS, {"few": inner})
    outer = read(tmp_path / "a.so")
    assert dict(outer.texts) == TEXTS
    (made,) = outer.prebuilt()
    assert made.manifest == replace(manifest(), specialisation=AHEAD, base=outer.sha256)
    assert made.library == library()
    assert list(read(tmp_path / "a.so").variants) == ["few"]


@pytest.mark.parametrize("wrong", ["name", "layer", "base", "nested", "damaged"])
def test_a_variant_of_another_artifact_is_refused(tmp_path: Path, wrong: str) -> None:
    described = replace(manifest(), specialisation=AHEAD)
    name = "many" if wrong == "name" else "few"
    if wrong == "layer":
        described = replace(described, layer="Other")
    if wrong == "base":
        described = manifest()
    nested = {"few": packed(library(), described, TEXTS)} if wrong == "nested" else {}
    inner = packed(library(), described, TEXTS, nested)
    if wrong == "damaged":
        inner = inner[:100] + bytes([inner[100] ^ 1]) + inner[101:]
    write(tmp_path / "a.so", library(), manifest(), TEXTS, {name: inner})
    with pytest.raises(ArtifactError, match=f"variants/{name}.so"):
        list(read(tmp_path / "a.so").prebuilt())


def test_pieces_come_back(tmp_path: Path) -> None:
    inner = packed(library(), replace(manifest(), layer="Sample_route"), TEXTS)
    write(tmp_path / "a.so", library(), manifest(), TEXTS, pieces={"route": inner})
    outer = read(tmp_path / "a.so")
    assert (dict(outer.texts), dict(outer.pieces), dict(outer.variants)) == (TEXTS, {"route": inner}, {})
    assert outer.piece("route").manifest.layer == "Sample_route"
    with pytest.raises(KeyError):
        outer.piece("experts")


def test_object_files_come_back(tmp_path: Path) -> None:
    objects = {"0a" * 32: b"\x7fELF\xff", "1b" * 32: b""}
    write(tmp_path / "a.so", library(), manifest(), TEXTS, objects=objects)
    found = read(tmp_path / "a.so")
    assert (dict(found.texts), dict(found.objects)) == (TEXTS, objects)


@pytest.mark.parametrize("wrong", ["layer", "nested", "damaged"])
def test_a_piece_of_another_artifact_is_refused(tmp_path: Path, wrong: str) -> None:
    described = replace(manifest(), layer="Other_route" if wrong == "layer" else "Sample_route")
    nested = {"route": packed(library(), described, TEXTS)} if wrong == "nested" else {}
    inner = packed(library(), described, TEXTS, pieces=nested)
    if wrong == "damaged":
        inner = inner[:100] + bytes([inner[100] ^ 1]) + inner[101:]
    write(tmp_path / "a.so", library(), manifest(), TEXTS, pieces={"route": inner})
    with pytest.raises(ArtifactError, match=r"pieces/route\.so"):
        read(tmp_path / "a.so").piece("route")
