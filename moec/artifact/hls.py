"""The manifest of a hardware project, and checked reading of the folder that it lies in.

A project is a folder of files that moec wrote, and `moec.json`, which names every one of them with its SHA-256.  Other
files may lie beside them, such as what tools build; nothing of moec reads those.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moec.artifact.fields import Fields, InvalidManifest
from moec.artifact.manifest import (
    TOKENS,
    Guarantees,
    Source,
    TokenTensor,
    Weight,
    read_guarantees,
    read_source,
    read_token_tensor,
    read_weight,
)
from moec.errors import ArtifactError, NewerSchema, NotAnArtifact, TamperedArtifact
from moec.fixed.data import as_data, read_design, read_interface
from moec.fixed.design import Design
from moec.fixed.interface import Interface, agrees, shapes

SCHEMA = 1
"""The newest form of the manifest that this moec writes and reads."""

MANIFEST = "moec.json"
MAX_MANIFEST_BYTES = 4 * 2**20
MAX_BYTES = 256 * 2**20
MAX_FILES = 1024

_SHA256 = re.compile("[0-9a-f]{64}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*/){0,8}[A-Za-z0-9_.][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Project:
    """What a project says of itself.

    layer       name of the layer
    options     parameters that it was compiled with
    inputs, outputs, parameters   as PyTorch sees them: rows of `[T, ...]`, and the weights before they are quantised
    design      what the hardware is
    interface   which of the parameters its numbers come from
    files       SHA-256 of every file but the manifest, by its path below the folder, with `/`
    """

    compiler: str
    layer: str
    source: Source
    options: Mapping[str, Any]
    target: str
    inputs: tuple[TokenTensor, ...]
    outputs: tuple[TokenTensor, ...]
    parameters: tuple[Weight, ...]
    guarantees: Guarantees
    design: Design
    interface: Interface
    files: Mapping[str, str]
    schema: int = SCHEMA

    @classmethod
    def from_json(cls, text: bytes) -> Project:
        """Parse and check `text`.  Raises ArtifactError where it is malformed, NewerSchema, or TamperedArtifact."""
        try:
            data = json.loads(text)
            fields = Fields.of(data)
            schema, compiler = fields.integer("schema", 1), fields.string("compiler")
            if schema > SCHEMA:
                raise NewerSchema(
                    f"the project was written by {compiler} (schema {schema}); this moec reads up to schema {SCHEMA}. "
                    "Upgrade moec here, or compile the layer again with the moec that is installed here."
                )
            seal = fields.string("seal", _SHA256)
            if seal != _seal(data):
                raise TamperedArtifact("its contents do not match its checksum, so it was changed or damaged")
            return _project(fields, schema, compiler)
        except (ValueError, RecursionError) as error:  # InvalidManifest is a ValueError
            raise ArtifactError(f"it is malformed: {error}") from error

    def to_json(self) -> bytes:
        """The text of moec.json; `from_json` gives back an equal project."""
        data = {"schema": self.schema, **asdict(self), "design": as_data(self.design)}
        for tensor in (*data["inputs"], *data["outputs"]):
            tensor["shape"] = [TOKENS, *tensor.pop("row")]
        text = json.dumps(data, indent=1)  # so that tuples and enumerations are what they are once read
        data = json.loads(text)
        return json.dumps({"seal": _seal(data), **data}, indent=1).encode() + b"\n"


@dataclass(frozen=True)
class Folder:
    """A project that was read and verified, in memory.

    path     where it was read from, for messages
    sha256   names it: digest of the manifest, and so of every file
    files    the contents of each file that the manifest names, by its path
    """

    path: str
    sha256: str
    project: Project
    files: Mapping[str, bytes]


def read(path: str | os.PathLike[str]) -> Folder:
    """Read and verify a project's folder; nothing of it is executed.

    Raises NotAnArtifact where the folder has no manifest, TamperedArtifact where a file is missing or was changed,
    NewerSchema, or ArtifactError for what moec never writes.
    """
    where = os.fspath(path)
    if not (Path(where) / MANIFEST).is_file():
        raise NotAnArtifact(f"{where} is not a project that moec compiled: it has no {MANIFEST}")
    text = _contents(where, MANIFEST, MAX_MANIFEST_BYTES)
    try:
        project = Project.from_json(text)
    except ArtifactError as error:
        raise type(error)(f"{where}/{MANIFEST}: {error}") from error
    files: dict[str, bytes] = {}
    rest = MAX_BYTES
    for name, digest in project.files.items():
        files[name] = data = _contents(where, name, rest)
        rest -= len(data)
        if hashlib.sha256(data).hexdigest() != digest:
            raise TamperedArtifact(
                f"{where}/{name} is not what moec wrote: it was changed or damaged. Compile the layer again."
            )
    return Folder(where, hashlib.sha256(text).hexdigest(), project, files)


def _contents(folder: str, name: str, most: int) -> bytes:
    """A regular file below the folder, with no link on the way to it from there."""
    path = Path(folder)
    for part in name.split("/"):
        path /= part
        if path.is_symlink():
            raise TamperedArtifact(f"{path} is a link; moec writes none")
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise TamperedArtifact(f"{path} is not a regular file")
            if status.st_size > most:
                raise ArtifactError(f"{path} has {status.st_size} bytes; a project is never that large")
            return file.read(most)
    except FileNotFoundError as error:
        raise TamperedArtifact(f"{path} is missing. Compile the layer again.") from error


def _seal(data: Mapping[str, Any]) -> str:
    """Digest of everything in the manifest but the seal itself."""
    rest = {name: value for name, value in data.items() if name != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _project(fields: Fields, schema: int, compiler: str) -> Project:
    project = Project(
        compiler=compiler,
        layer=fields.string("layer", _IDENTIFIER),
        source=read_source(fields.record("source")),
        options=fields.mapping("options"),
        target=fields.string("target"),
        inputs=tuple(read_token_tensor(one) for one in fields.records("inputs", 1, 8)),
        outputs=tuple(read_token_tensor(one) for one in fields.records("outputs", 1, 8)),
        parameters=tuple(read_weight(one) for one in fields.records("parameters", 0, 4096)),
        guarantees=read_guarantees(fields.record("guarantees")),
        design=read_design(fields.mapping("design")),
        interface=read_interface(fields.mapping("interface")),
        files=_files(fields.mapping("files")),
        schema=schema,
    )
    fields.finish()
    _check_interface(project)
    return project


def _check_interface(project: Project) -> None:
    """Raises InvalidManifest where the layer's numbers come from other parameters than PyTorch is told of."""
    layer = project.design.layer
    given = {weight.name: weight.shape for weight in project.parameters}
    if not agrees(layer, project.interface) or given != shapes(layer, project.interface):
        raise InvalidManifest("interface does not fit the layer and its parameters")
    row, names = (layer.width,), [tensor.name for tensor in project.inputs]
    rows = [tensor.row for tensor in (project.inputs[0], *project.outputs)]
    if rows != [row, row] or names[1:] != [name for name in (project.interface.task,) if name is not None]:
        raise InvalidManifest("inputs and outputs do not fit the layer")


def _files(given: Mapping[str, Any]) -> Mapping[str, str]:
    if len(given) > MAX_FILES:
        raise InvalidManifest(f"files must have at most {MAX_FILES} entries")
    for name, digest in given.items():
        if not _PATH.fullmatch(name) or ".." in name or name == MANIFEST:
            raise InvalidManifest(f"files has a path that moec does not write: {name!r}")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise InvalidManifest(f"files[{name!r}] must be a SHA-256")
    return dict(given)
