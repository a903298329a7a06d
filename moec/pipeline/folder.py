"""Writing the folder of a project: all of it or nothing, and never over what somebody else made."""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from moec.artifact import hls
from moec.artifact.manifest import Source
from moec.backends.base import ProjectBackend
from moec.diagnostics import Diagnostic, Fix, Severity
from moec.errors import ArtifactError, DiagnosticError
from moec.fixed.scales import CALIBRATION
from moec.passes.parallel import parallel
from moec.pipeline import describe

if TYPE_CHECKING:
    from moec.pipeline.driver import Compilation

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]|^[.-]")

KEPT = ("build", CALIBRATION)
"""What survives in a project that is written again: where its tools put what they make, and what was calibrated."""


def write_project(compilation: "Compilation", backend: ProjectBackend, output: Path) -> None:
    """Compile to a project and write its folder.

    Raises DiagnosticError for what is wrong with the file, for what this target cannot do, and for an `output` that is
    something else than an untouched project of moec's.
    """
    _refuse_more(compilation)
    _require_replaceable(output)
    kernels = compilation.kernels
    if parallel(kernels) is not None:
        raise _error("E0745", "a layer on a mesh cannot become one board's project", "choose a layout without a mesh")
    with compilation.stage("project"):
        made = backend.project(
            kernels, [f"{remark.pass_name}: {remark.text}" for remark in compilation.report.remarks.entries]
        )
    files = dict(made.files)
    files["ir/graph.mlir"] = compilation.graph_text.encode()
    files["ir/kernels.mlir"] = compilation.emit("kernels").encode()
    paths = source_paths(list(compilation.sources))
    for path, text in zip(paths, compilation.sources.values(), strict=True):
        files[path] = text.encode()
    project = hls.Project(
        compiler=f"moec {version('moec')}",
        layer=describe.layer_name(kernels),
        source=Source(paths[0], hashlib.sha256(files[paths[0]]).hexdigest()),
        options=compilation.options,
        target=compilation.target,
        inputs=describe.inputs(kernels),
        outputs=describe.outputs(kernels),
        parameters=describe.weights(kernels),
        guarantees=replace(describe.guarantees(kernels), accumulation="exact integers"),
        design=made.design,
        interface=made.interface,
        files={path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())},
    )
    with compilation.stage("folder"):
        replace_folder(output, files | {hls.MANIFEST: project.to_json()})


def source_paths(names: Sequence[str]) -> list[str]:
    """Where sources of these names, the main one first, lie in the folder; never outside of it, whatever they are."""
    main = PurePosixPath(names[0]).parent.parts
    found: list[str] = []
    for name in names:
        parts = PurePosixPath(name).parts
        inside = parts[len(main) :] if parts[: len(main)] == main else parts
        safe = [_UNSAFE.sub("_", part) for part in inside if part not in ("/", "..", ".")]
        path = "/".join(["source", *safe])
        while path in found:
            path = path.removesuffix(".moe") + "_.moe"
        found.append(path)
    return found


def _refuse_more(compilation: "Compilation") -> None:
    for asked, what in (
        (compilation.training, "training"),
        (compilation.variants, "variants"),
        (compilation.machine is not None, "a machine file"),
    ):
        if asked:
            said = f"the target `{compilation.target}` has no use for {what}"
            raise _error("E0745", said, "leave it out, or compile for `cpu`")


def _require_replaceable(output: Path) -> None:
    """Refuse an output that cannot be written, or that would be lost, before seconds go into compiling."""
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        why = "is not writable" if output.parent.is_dir() else "is not there"
        raise _error("E0607", f"cannot write `{output}`: the folder `{output.parent}` {why}", "name another with `-o`")
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise _error("E0607", f"cannot write `{output}`: it is not a folder", "name a folder with `-o`")
    if not output.is_dir() or not any(output.iterdir()):
        return
    hint = "move it away, or name another folder with `-o`"
    try:
        known = {hls.MANIFEST, *hls.read(output).files}
    except ArtifactError as why:
        raise _error("E0744", f"moec will not replace `{output}`: {why}", hint) from why
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output).as_posix()
        if name.partition("/")[0] not in KEPT and not path.is_dir() and name not in known:
            said = f"`{output}` holds `{name}`, which moec did not write and would delete"
            raise _error("E0744", said, f"move it away or into `{output / KEPT[0]}`, which is kept")


def replace_folder(output: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder beside the one that is there, and put it in its place once it is complete, with what is `KEPT`."""
    new = output.with_name(f".{output.name}.{secrets.token_hex(8)}")
    old = new.with_name(f"{new.name}.old")
    try:
        for name, data in files.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if output.exists():
            _swap(new, output, old)
        else:
            new.rename(output)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _swap(new: Path, output: Path, old: Path) -> None:
    """`new` becomes `output`, with what is kept of that.  Where a step fails, those before it are taken back."""
    kept = [name for name in KEPT if (output / name).exists()]
    steps = [(output, old), (new, output), *((old / name, output / name) for name in kept)]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in steps:
            source.rename(target)
            done.append((source, target))
    except OSError:
        for source, target in reversed(done):
            target.rename(source)
        raise
    shutil.rmtree(old)


def _error(code: str, said: str, fix: str) -> DiagnosticError:
    return DiagnosticError([Diagnostic(code, Severity.ERROR, said, (), (), Fix(fix))])
