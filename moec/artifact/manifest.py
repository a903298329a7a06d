"""The manifest of an artifact: what the layer takes, holds and promises, as checked frozen data.

`Manifest.from_json` believes nothing: every field, type and bound is checked, and the first thing wrong is named by its
path (`parameters[2].shape[0]`).  The form is described in docs/artifact.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from moec.artifact.adoption import Adoption, read_adoption
from moec.artifact.cuda import Cuda, check_stacks, on_device, read_cuda
from moec.artifact.fields import Fields, InvalidManifest
from moec.artifact.parallel import Parallel, parallel_data, read_parallel
from moec.artifact.policy import Policy, policy_data, read_policy
from moec.artifact.quantised import Quantised, check_weights, read_quantised
from moec.artifact.schedules import read_schedules, schedules_data, wiring
from moec.artifact.specialisation import Specialisation, read_specialisation
from moec.errors import ArtifactError, NewerSchema
from moec.schedule.steps import Schedules

SCHEMA = 3
"""The newest form of the manifest that this moec writes and reads."""

ABI = 2
"""The newest set of exported functions that this moec calls."""

ITEM_BYTES: Mapping[str, int] = {"f32": 4, "bf16": 2, "f16": 2, "i32": 4, "i8": 1, "f8E4M3FN": 1}
"""Element types of an artifact's tensors and their sizes in bytes."""

FLOATS = ("f32", "bf16", "f16")
"""Those of them that can have gradients."""

CALL_DTYPES = (*FLOATS, "i32")
"""Element types of what a call takes and gives; others are for weights that are given quantised."""

LOSS_TENSORS: Mapping[str, tuple[str, ...]] = {"balance": ("probability", "count"), "z": ("z",)}
"""The kinds of auxiliary losses, and the loss tensors that each is computed from."""

TOKENS = "T"
"""Stands for the number of tokens of a call; always an input's or output's first dimension."""

STATISTICS = ("chosen", "kept")
"""The kinds of statistics that a call can give."""

_SHA256 = re.compile("[0-9a-f]{64}")
_LAYOUT = re.compile("[0-9a-f]{16}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOTTED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_MAX_TENSORS = 4096
_MAX_ROWS = 2**20
_MAX_RANK = 8
_MAX_DIMENSION = 2**40
_MAX_TENSOR_BYTES = 2**46


@dataclass(frozen=True)
class Source:
    """The `.moe` file that was compiled: its name and the SHA-256 of its text (hexadecimal)."""

    name: str
    sha256: str


@dataclass(frozen=True)
class ExpertRegion:
    """Bytes of the packed weights that belong to experts, `stride` bytes to each, one after the other from `offset` on.

    experts  their numbers in the routed group of the file; -1 for one of another group
    """

    offset: int
    stride: int
    experts: tuple[int, ...]


@dataclass(frozen=True)
class Variant:
    """One build of the kernels.

    features  what the processor must have for it (LLVM's names)
    layout    16 hexadecimal digits; variants of equal layout, of this artifact or of one specialised from it, can share
              packed weights
    regions   where routed experts lie in them, ascending
    adoption  of an artifact that was specialised: how its packed weights come from the base's; None: by packing anew
    """

    name: str
    features: tuple[str, ...]
    layout: str
    regions: tuple[ExpertRegion, ...] = ()
    adoption: Adoption | None = None


@dataclass(frozen=True)
class Statistic:
    """What `run` tells of the load, behind the outputs: an i32 tensor of shape `row`.

    name     "chosen": slots that chose each expert, before any capacity; "kept": those that the capacity kept
    experts  the group whose experts are counted, in the file's numbering
    slots    how many of them a token chooses at most
    """

    name: str
    experts: str
    slots: int
    row: tuple[int, ...]


@dataclass(frozen=True)
class TokenTensor:
    """An input or output: one row a token, so its shape is `(T, *row)`."""

    name: str
    row: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Weight:
    """A tensor that the layer holds; `role` is "parameter" or "buffer"."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: str

    @property
    def nbytes(self) -> int:
        """Size of the ordinary (unpacked) tensor in bytes."""
        return _nbytes(self.shape, self.dtype)


@dataclass(frozen=True)
class StepTensor:
    """What `forward` gives beside the outputs: shape `(rows * T, *row)`, or `row` where `rows` is 0.

    role  "loss": what auxiliary losses are computed from; "saved": what `backward` needs
    """

    name: str
    role: str
    rows: int
    row: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Loss:
    """An auxiliary loss that the file asks for.

    kind    "balance" (from the loss tensors `probability` and `count`) or "z" (from `z`)
    weight  its factor
    over    "batch": the tokens of the call; "global": those of all processes of torch.distributed's default group
    """

    kind: str
    weight: float
    over: str


@dataclass(frozen=True)
class Training:
    """What a layer needs to be trained; its library exports `forward` and `backward` beside `run`.

    step       what `forward` gives behind the outputs, in order: loss tensors, then saved ones
    losses     in the order of the file
    gradients  names of the inputs and parameters whose gradients `backward` gives, in order: all those of floats
    """

    step: tuple[StepTensor, ...]
    losses: tuple[Loss, ...]
    gradients: tuple[str, ...]


@dataclass(frozen=True)
class Guarantees:
    """What holds for the bits of a result.

    deterministic     the same call gives the same bits
    batch_invariant   a token's bits do not depend on how many other tokens there are
    thread_invariant  nor on the number of threads
    isolated          nor on what the other tokens hold
    accumulation      the type in which sums are kept
    """

    deterministic: bool
    batch_invariant: bool
    thread_invariant: bool
    isolated: bool
    accumulation: str


@dataclass(frozen=True)
class Manifest:
    """All that a caller needs to know of a compiled layer.

    variants        best first
    statistics      what a call tells of its load
    training        None where the layer was compiled for inference only
    quantised       None where no weights are quantised
    policy          None where no layout says how the layer may follow its load
    cuda            None where it runs on CPUs only
    parallel        None where it runs in one process only
    schedule        in which order its pieces and exchanges run; None where it runs in one process only
    specialisation  what it is specialised to; None where it is made from the file alone
    base            the SHA-256 of the artifact that it is specialised from; None where it lies in that one
    """

    compiler: str
    layer: str
    source: Source
    options: Mapping[str, Any]
    target: str
    variants: tuple[Variant, ...]
    inputs: tuple[TokenTensor, ...]
    outputs: tuple[TokenTensor, ...]
    parameters: tuple[Weight, ...]
    guarantees: Guarantees
    statistics: tuple[Statistic, ...] = ()
    training: Training | None = None
    quantised: Quantised | None = None
    policy: Policy | None = None
    cuda: Cuda | None = None
    parallel: Parallel | None = None
    schedule: Schedules | None = None
    specialisation: Specialisation | None = None
    base: str | None = None
    abi: int = ABI
    schema: int = SCHEMA

    @property
    def float_names(self) -> tuple[str, ...]:
        """Names of the inputs and weights of floats, in order."""
        inputs = (tensor.name for tensor in self.inputs if tensor.dtype in FLOATS)
        return (*inputs, *(weight.name for weight in self.parameters if weight.dtype in FLOATS))

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """Parse and check `text`.

        Raises ArtifactError (malformed, or of an older form) or NewerSchema (a `schema` or `abi` above what this moec
        knows).
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"manifest.json is not valid JSON: {error}") from error
        try:
            return _manifest(Fields.of(data))
        except InvalidManifest as error:
            raise ArtifactError(f"manifest.json is malformed: {error}") from error

    def to_json(self) -> bytes:
        """The text of manifest.json; `from_json` gives back an equal manifest, and checks this one."""
        data = {"schema": self.schema, **asdict(self)}
        for tensor in (*data["inputs"], *data["outputs"]):
            tensor["shape"] = [TOKENS, *tensor.pop("row")]
        for variant in data["variants"]:
            if variant["adoption"] is None:
                del variant["adoption"]
        data["policy"] = policy_data(self.policy) if self.policy else None
        data["parallel"] = parallel_data(self.parallel) if self.parallel else None
        data["schedule"] = schedules_data(self.schedule) if self.schedule else None
        data["specialisation"] = self.specialisation.to_data() if self.specialisation else None
        for optional in ("training", "quantised", "policy", "cuda", "parallel", "schedule", "specialisation", "base"):
            if data[optional] is None:
                del data[optional]
        return json.dumps(data, indent=1).encode()


def _manifest(fields: Fields) -> Manifest:
    schema = fields.integer("schema", 1)
    abi = fields.integer("abi", 1)
    compiler = fields.string("compiler")
    if schema > SCHEMA or abi > ABI:
        raise NewerSchema(
            f"the artifact was written by {compiler} (schema {schema}, abi {abi}); this moec reads up to schema "
            f"{SCHEMA}, abi {ABI}. Upgrade moec here, or compile the layer again with the moec that is installed here."
        )
    if schema < SCHEMA or abi < ABI:
        raise ArtifactError(
            f"the artifact was written by {compiler} (schema {schema}, abi {abi}); this moec reads schema {SCHEMA}, "
            f"abi {ABI}. Compile the layer again with the moec that is installed here."
        )
    manifest = Manifest(
        schema=schema,
        abi=abi,
        compiler=compiler,
        layer=fields.string("layer", _NAME),
        source=read_source(fields.record("source")),
        options=fields.mapping("options"),
        target=fields.string("target"),
        variants=tuple(_variant(f) for f in fields.records("variants", 1, 62)),
        inputs=tuple(read_token_tensor(f) for f in fields.records("inputs", 1, 64)),
        outputs=tuple(read_token_tensor(f) for f in fields.records("outputs", 1, 64)),
        parameters=tuple(read_weight(f) for f in fields.records("parameters", 0, _MAX_TENSORS)),
        guarantees=read_guarantees(fields.record("guarantees")),
        statistics=tuple(_statistic(f) for f in fields.records("statistics", 0, len(STATISTICS))),
        training=_training(fields.record("training")) if fields.has("training") else None,
        quantised=read_quantised(fields.record("quantised")) if fields.has("quantised") else None,
        policy=read_policy(fields.record("policy")) if fields.has("policy") else None,
        cuda=read_cuda(fields.record("cuda")) if fields.has("cuda") else None,
        parallel=read_parallel(fields.record("parallel")) if fields.has("parallel") else None,
        schedule=read_schedules(fields.record("schedule")) if fields.has("schedule") else None,
        specialisation=read_specialisation(fields.record("specialisation")) if fields.has("specialisation") else None,
        base=fields.string("base", _SHA256) if fields.has("base") else None,
    )
    fields.finish()
    _check_names(manifest)
    return manifest


def read_source(fields: Fields) -> Source:
    """The file that was compiled.  Raises InvalidManifest, as those below do."""
    source = Source(fields.string("name"), fields.string("sha256", _SHA256))
    fields.finish()
    return source


def read_guarantees(fields: Fields) -> Guarantees:
    """What holds for the bits of results."""
    names = ("deterministic", "batch_invariant", "thread_invariant", "isolated")
    made = Guarantees(**{n: fields.boolean(n) for n in names}, accumulation=fields.string("accumulation"))
    fields.finish()
    return made


def _variant(fields: Fields) -> Variant:
    variant = Variant(
        fields.string("name", _NAME),
        fields.strings("features"),
        fields.string("layout", _LAYOUT),
        tuple(_region(f) for f in fields.records("regions", 0, _MAX_TENSORS)),
        read_adoption(fields.record("adoption")) if fields.has("adoption") else None,
    )
    fields.finish()
    end = 0
    for region in variant.regions:
        if region.offset < end:
            raise InvalidManifest(f"{fields.path}.regions overlap or do not ascend")
        end = region.offset + region.stride * len(region.experts)
    return variant


def _region(fields: Fields) -> ExpertRegion:
    region = ExpertRegion(
        fields.integer("offset", 0, _MAX_TENSOR_BYTES),
        fields.integer("stride", 1, _MAX_TENSOR_BYTES),
        fields.integers("experts", -1, _MAX_ROWS, _MAX_ROWS),
    )
    fields.finish()
    return region


def _statistic(fields: Fields) -> Statistic:
    row = fields.shape("row", 1, _MAX_ROWS)
    name, experts = fields.choice("name", STATISTICS), fields.string("experts", _NAME)
    statistic = Statistic(name, experts, fields.integer("slots", 1, _MAX_ROWS), row)
    fields.finish()
    if len(row) != 1:
        raise InvalidManifest(f"{fields.path}.row must be one number of experts")
    return statistic


def read_token_tensor(fields: Fields) -> TokenTensor:
    """An input or output."""
    shape = fields.shape("shape", _MAX_RANK, _MAX_DIMENSION, leading=TOKENS)
    tensor = TokenTensor(fields.string("name", _NAME), shape, fields.choice("dtype", CALL_DTYPES))
    fields.finish()
    return tensor


def read_weight(fields: Fields) -> Weight:
    """A weight."""
    shape = fields.shape("shape", _MAX_RANK, _MAX_DIMENSION)
    weight = Weight(
        fields.string("name", _DOTTED),
        shape,
        fields.choice("dtype", ITEM_BYTES),
        fields.choice("role", ("parameter", "buffer")),
    )
    fields.finish()
    if weight.nbytes > _MAX_TENSOR_BYTES:
        raise InvalidManifest(f"parameter {weight.name!r} would take {weight.nbytes} bytes")
    return weight


def _training(fields: Fields) -> Training:
    training = Training(
        tuple(_step_tensor(f) for f in fields.records("step", 1, _MAX_TENSORS)),
        tuple(_loss(f) for f in fields.records("losses", 0, 64)),
        fields.strings("gradients", _MAX_TENSORS),
    )
    fields.finish()
    return training


def _step_tensor(fields: Fields) -> StepTensor:
    tensor = StepTensor(
        fields.string("name", _DOTTED),
        fields.choice("role", ("loss", "saved")),
        fields.integer("rows", 0, _MAX_ROWS),
        fields.shape("row", _MAX_RANK, _MAX_DIMENSION),
        fields.choice("dtype", CALL_DTYPES),
    )
    fields.finish()
    return tensor


def _loss(fields: Fields) -> Loss:
    loss = Loss(
        fields.choice("kind", LOSS_TENSORS), fields.number("weight"), fields.choice("over", ("batch", "global"))
    )
    fields.finish()
    return loss


def _check_names(manifest: Manifest) -> None:
    """A name must be told apart from every other of its kind, and a weight cannot lie inside another weight."""
    groups = {
        "variants": [v.name for v in manifest.variants],
        "inputs and outputs": [t.name for t in (*manifest.inputs, *manifest.outputs)],
        "statistics": [s.name for s in manifest.statistics],
        "parameters": [w.name for w in manifest.parameters],
    }
    if manifest.training is not None:
        groups["training.step"] = [t.name for t in manifest.training.step]
        groups["training.gradients"] = list(manifest.training.gradients)
        unknown = next((name for name in manifest.training.gradients if name not in manifest.float_names), None)
        if unknown is not None:
            raise InvalidManifest(f"training.gradients: {unknown!r} is no input or parameter of floats")
        given = {t.name for t in manifest.training.step if t.role == "loss"}
        for loss in manifest.training.losses:
            if not given.issuperset(LOSS_TENSORS[loss.kind]):
                needs = " and ".join(LOSS_TENSORS[loss.kind])
                raise InvalidManifest(f"training.step: the loss {loss.kind!r} is computed from {needs}")
    for kind, names in groups.items():
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise InvalidManifest(f"{kind}: {twice[0]!r} stands there twice")
    _check_specialisation(manifest)
    _check_parallel(manifest)
    _check_schedule(manifest)
    check_weights(manifest.quantised, {w.name: (w.shape, w.dtype) for w in manifest.parameters})
    if manifest.cuda is not None:
        check_stacks(manifest.cuda, on_device(manifest.parameters, manifest.quantised))
    weights = set(groups["parameters"])
    for name in weights:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            outer = ".".join(parts[:depth])
            if outer in weights:
                raise InvalidManifest(f"parameters: {name!r} lies inside the parameter {outer!r}")


def _check_specialisation(manifest: Manifest) -> None:
    if manifest.specialisation is None and manifest.base is not None:
        raise InvalidManifest("base: what is not specialised has none")
    counts = {statistic.row[0] for statistic in manifest.statistics}
    numbers = manifest.specialisation.numbers if manifest.specialisation is not None else ()
    for what, experts in (
        ("specialisation.quantised", numbers),
        *((f"variants[{i}].regions", r.experts) for i, v in enumerate(manifest.variants) for r in v.regions),
    ):
        if counts and max(experts, default=-1) >= min(counts):
            raise InvalidManifest(f"{what}: there are {min(counts)} routed experts, none with number {max(experts)}")


def _check_parallel(manifest: Manifest) -> None:
    if manifest.parallel is None:
        return
    for statistic in manifest.statistics:
        if (statistic.experts, statistic.row[0]) != (manifest.parallel.routed.experts, len(manifest.parallel.holders)):
            raise InvalidManifest(f"parallel: there are {statistic.row[0]} routed experts, `{statistic.experts}`")


def _check_schedule(manifest: Manifest) -> None:
    if manifest.schedule is None:
        return
    if manifest.parallel is None:
        raise InvalidManifest("schedule: there is no `parallel` that it could be for")
    try:
        expected = wiring(manifest.parallel, manifest.schedule.wiring.capacity)
    except ValueError as why:
        raise InvalidManifest(f"schedule: {why}") from why
    if manifest.schedule.wiring != expected:
        raise InvalidManifest("schedule.wiring must be that of `parallel`")


def _nbytes(shape: tuple[int, ...], dtype: str) -> int:
    count = ITEM_BYTES[dtype]
    for size in shape:
        count *= size
    return count
