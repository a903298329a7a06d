"""Reading and writing artifacts: an ELF shared library followed by a ZIP archive whose comment seals both.

    [ELF shared library][ZIP: manifest.json, ir/…, source/…, variants/…, pieces/…, objects/…][end record]

The end record's comment is "moec1 sha256:<hex>".

The SHA-256 is over every byte before the end record, and the end record has one valid form only, so that any changed
byte is noticed.  `read` reads the file once, into memory that nobody else can change, and executes nothing.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from moec.artifact.elf import library_end, machine, require_library
from moec.artifact.manifest import Manifest
from moec.errors import ArtifactError, NewerSchema, NotAnArtifact, TamperedArtifact, TruncatedArtifact
from moec.writing import replace_file

MAX_FILE_BYTES = 512 * 2**20
MAX_MEMBER_BYTES = 64 * 2**20
MAX_MEMBERS = 1024

MANIFEST = "manifest.json"
GRAPH_IR = "ir/graph.mlir"
KERNEL_IR = "ir/kernels.mlir"
PIECES_IR = "ir/pieces.mlir"
VARIANTS = "variants/"
PIECES = "pieces/"
OBJECTS = "objects/"

_SUFFIXES = {VARIANTS: ".so", PIECES: ".so", OBJECTS: ".o"}

_END = struct.Struct("<4sHHHHIIH")
_END_MAGIC = b"PK\x05\x06"
_LOCAL_MAGIC = b"PK\x03\x04"
_SEAL = b"moec1 sha256:"
_COMMENT_BYTES = len(_SEAL) + 64
_ENTRY_DATE = (1980, 1, 1, 0, 0, 0)  # the same input gives the same bytes, whenever it is compiled
_MALFORMED_ZIP = (
    zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, OverflowError, RuntimeError, ValueError,
    struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class Artifact:
    """A verified artifact, in memory.

    path      where it was read from, for messages
    sha256    names it: hexadecimal digest over all but the end record
    manifest  the checked manifest
    library   the ELF shared library
    texts     IR and sources by their names in the archive
    variants  specialisations that were compiled ahead, each a whole artifact, by their names
    pieces    what the ranks of a mesh run, each a whole artifact, by their names
    objects   machine code that the library is made of, by digests of what it was made from, to compile the layer anew
    """

    path: str
    sha256: str
    manifest: Manifest
    library: bytes
    texts: Mapping[str, str]
    variants: Mapping[str, bytes] = field(default_factory=dict)
    pieces: Mapping[str, bytes] = field(default_factory=dict)
    objects: Mapping[str, bytes] = field(default_factory=dict)

    def piece(self, name: str) -> Artifact:
        """A piece of the layer, verified.  Raises KeyError for one that is not there, ArtifactError for one that is
        damaged or made of another layer."""
        one = parse(self.pieces[name], f"{self.path}, {PIECES}{name}.so")
        if one.variants or one.pieces or one.manifest.layer != f"{self.manifest.layer}_{name}":
            raise ArtifactError(f"{one.path} is no piece {name!r} of the artifact that it lies in")
        return one

    def prebuilt(self) -> Iterator[Artifact]:
        """The specialisations that were compiled ahead, each verified when it is reached; this artifact is their base.

        Raises ArtifactError for one that is damaged, or made of another layer.
        """
        for name, data in self.variants.items():
            one = parse(data, f"{self.path}, {VARIANTS}{name}.so")
            made = one.manifest
            same = (made.layer, made.inputs, made.outputs, made.parameters)
            ours = self.manifest
            if (
                one.variants
                or one.pieces
                or made.specialisation is None
                or made.specialisation.name != name
                or same != (ours.layer, ours.inputs, ours.outputs, ours.parameters)
            ):
                raise ArtifactError(f"{one.path} is no specialisation {name!r} of the artifact that it lies in")
            yield replace(one, manifest=replace(made, base=self.sha256))

    @property
    def machine(self) -> str:
        """The processor architecture of the library, as `platform.machine()` writes it."""
        return machine(self.library)


NOTHING: Mapping[str, bytes] = MappingProxyType({})


def write(
    path: str | os.PathLike[str],
    library: bytes,
    manifest: Manifest,
    texts: Mapping[str, str],
    variants: Mapping[str, bytes] = NOTHING,
    pieces: Mapping[str, bytes] = NOTHING,
    objects: Mapping[str, bytes] = NOTHING,
) -> None:
    """Write an artifact; an existing file is replaced in one step, so that a reader sees the old or the new one.

    library   a linked ELF shared library
    texts     archive members such as `GRAPH_IR`, "source/layer.moe"
    variants  what `packed` made of specialisations, by their names
    pieces    what it made of the pieces of a layer that runs on a mesh, by their names
    objects   object files of the library's parts, by digests of what they were made from
    """
    replace_file(Path(path), packed(library, manifest, texts, variants, pieces, objects, os.fspath(path)))


def packed(
    library: bytes,
    manifest: Manifest,
    texts: Mapping[str, str],
    variants: Mapping[str, bytes] = NOTHING,
    pieces: Mapping[str, bytes] = NOTHING,
    objects: Mapping[str, bytes] = NOTHING,
    where: str = "the artifact",
) -> bytes:
    """The bytes of an artifact's file; `where` stands in messages."""
    require_library(library, where)
    content = manifest.to_json()
    Manifest.from_json(content)
    members = {MANIFEST: content, **{name: text.encode() for name, text in sorted(texts.items())}}
    for folder, inner in ((VARIANTS, variants), (PIECES, pieces), (OBJECTS, objects)):
        members |= {f"{folder}{name}{_SUFFIXES[folder]}": data for name, data in inner.items()}
    _check_sizes({name: len(data) for name, data in members.items()}, where)
    stream = io.BytesIO(library)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name, _ENTRY_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    data = stream.getvalue()
    body, end = data[: -_END.size], data[-_END.size :]
    seal = _SEAL + hashlib.sha256(body).hexdigest().encode()
    return body + end[:-2] + struct.pack("<H", len(seal)) + seal


def read(path: str | os.PathLike[str]) -> Artifact:
    """Read and verify an artifact; nothing of it is executed.

    Raises NotAnArtifact, TruncatedArtifact, TamperedArtifact, NewerSchema, or ArtifactError for what moec never writes;
    FileNotFoundError and its kin as `open` does.
    """
    where = os.fspath(path)
    return parse(_contents(where), where)


def parse(data: bytes, where: str) -> Artifact:
    """`read` for bytes that are in memory already; `where` stands in messages."""
    require_library(data, where)
    end, digest = _verified_end(data, where)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_sizes({e.filename: e.file_size for e in entries}, where)
            if len({e.filename for e in entries}) < len(entries):
                raise ArtifactError(f"{where}: its archive holds a name twice")
            members = {e.filename: archive.read(e) for e in entries}
            start = min((e.header_offset for e in entries), default=end)
            variants, pieces, objects = (_taken(members, folder) for folder in (VARIANTS, PIECES, OBJECTS))
            texts = {name: content.decode() for name, content in members.items()}
    except _MALFORMED_ZIP as error:
        raise ArtifactError(f"{where}: its archive is malformed: {error}") from error
    if MANIFEST not in texts:
        raise ArtifactError(f"{where}: its archive holds no {MANIFEST}")
    if library_end(data) > start:
        raise ArtifactError(f"{where}: its library and its archive overlap")
    try:
        manifest = Manifest.from_json(texts.pop(MANIFEST).encode())
    except ArtifactError as error:
        raise type(error)(f"{where}: {error}") from error
    return Artifact(where, digest, manifest, data[:start], texts, variants, pieces, objects)


def _taken(members: dict[str, bytes], folder: str) -> dict[str, bytes]:
    """What a folder of the archive holds, by names; it is among the members no longer."""
    suffix = _SUFFIXES[folder]
    names = [name for name in members if name.startswith(folder) and name.endswith(suffix)]
    return {name[len(folder) : -len(suffix)]: members.pop(name) for name in names}


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe opens at once, and is refused


def _contents(where: str) -> bytes:
    with open(where, "rb", opener=_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise NotAnArtifact(f"{where} is not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise NotAnArtifact(
                f"{where} has {status.st_size} bytes; an artifact holds code, not weights, and never exceeds "
                f"{MAX_FILE_BYTES}"
            )
        return file.read(MAX_FILE_BYTES)


def _verified_end(data: bytes, where: str) -> tuple[int, str]:
    """Where the end record begins, and the digest of all before it, after checking that the record says so."""
    end = len(data) - _END.size - _COMMENT_BYTES
    magic, disk, directory_disk, here, total, size, offset, comment_bytes = (
        _END.unpack_from(data, end) if end >= 0 else (b"", 0, 0, 0, 0, 0, 0, 0)
    )
    comment = data[end + _END.size :] if end >= 0 else b""
    if magic != _END_MAGIC or comment_bytes != _COMMENT_BYTES or not comment.startswith(_SEAL):
        raise _unsealed(data, where)
    expected = hashlib.sha256(memoryview(data)[:end]).hexdigest()
    directory_ends = offset + size == end and here == total and disk == directory_disk == 0
    if comment[len(_SEAL) :] != expected.encode() or not directory_ends:
        raise TamperedArtifact(
            f"{where}: its contents do not match its checksum, so it was damaged or changed after it was compiled. "
            "Copy it again from where it was made, or compile the layer again."
        )
    return end, expected


def _unsealed(data: bytes, where: str) -> ArtifactError:
    """The error for a shared library that does not end as an artifact does: what happened to it?"""
    if newer := re.search(rb"moec(\d{1,9}) sha256:[0-9a-f]{64}\Z", data[-128:]):
        if newer[1] != b"1":
            version = newer[1].decode()
            return NewerSchema(f"{where}: container version {version}; this moec reads version 1. Upgrade moec.")
        return TamperedArtifact(f"{where}: its end record is damaged. Copy it again, or compile the layer again.")
    sealed = data.rfind(_SEAL)
    if sealed >= 0 and len(data) > sealed + _COMMENT_BYTES:
        return TamperedArtifact(f"{where}: {len(data) - sealed - _COMMENT_BYTES} bytes were added behind its end")
    if sealed >= 0 or library_end(data) > len(data) or _has_archive(data):
        return TruncatedArtifact(
            f"{where} ends too early, after {len(data)} bytes: the copy or the download was cut off. Copy it again."
        )
    return NotAnArtifact(
        f"{where} is a shared library, but moec did not write it, or a tool such as `strip` or `objcopy` has removed "
        "the description behind it. Compile the layer with `moec compile`."
    )


def _has_archive(data: bytes) -> bool:
    at = data.find(_LOCAL_MAGIC)
    while at >= 0 and at + 30 + len(MANIFEST) <= len(data):
        if data.startswith(MANIFEST.encode(), at + 30):
            return True
        at = data.find(_LOCAL_MAGIC, at + 1)
    return False


def _check_sizes(sizes: Mapping[str, int], where: str) -> None:
    if len(sizes) > MAX_MEMBERS or sum(sizes.values()) > MAX_MEMBER_BYTES:
        raise ArtifactError(
            f"{where}: its archive would unpack to {len(sizes)} members of {sum(sizes.values())} bytes; the limits are "
            f"{MAX_MEMBERS} and {MAX_MEMBER_BYTES}"
        )
