"""Which passes there are, and how `name{option=value,...}` on the command line becomes one."""

import dataclasses
import importlib
import re
from collections.abc import Sequence

from moec.diagnostics import closest
from moec.passes.base import Pass
from moec.passes.refusal import error

# name -> module:class, imported when asked for
PASSES = {
    "canonicalize": "moec.passes.canonicalize:Canonicalize",
    "count-load": "moec.passes.count_load:CountLoad",
    "differentiate": "moec.passes.differentiate:Differentiate",
    "drop-losses": "moec.passes.drop_losses:DropLosses",
    "expand-experts": "moec.passes.expand_experts:ExpandExperts",
    "fuse-permutation": "moec.passes.fuse_permutation:FusePermutation",
    "fuse-shared-experts": "moec.passes.fuse_shared_experts:FuseSharedExperts",
    "hls-array": "moec.passes.hls.array:HlsArray",
    "hls-memories": "moec.passes.hls.memories:HlsMemories",
    "hls-order": "moec.passes.hls.order:HlsOrder",
    "hoist-router": "moec.passes.hoist_router:HoistRouter",
    "interleave-weights": "moec.passes.interleave_weights:InterleaveWeights",
    "place": "moec.passes.place:Place",
    "quantise-experts": "moec.passes.quantise_experts:QuantiseExperts",
    "refit-capacity": "moec.passes.refit_capacity:RefitCapacity",
    "schedule-exchange": "moec.passes.schedule_exchange:ScheduleExchange",
    "shard-layout": "moec.passes.shard_layout:ShardLayout",
    "specialise-tokens": "moec.passes.specialise_tokens:SpecialiseTokens",
}

DEFAULT_PIPELINE = (
    "drop-losses",
    "count-load",
    "canonicalize",
    "fuse-shared-experts",
    "expand-experts",
    "interleave-weights",
    "fuse-permutation",
    "hoist-router",
    "canonicalize",
)

_SPEC = re.compile(r"(?P<name>[\w-]+)(?:\{(?P<options>[^{}]*)\})?")


def pass_class(name: str) -> type[Pass]:
    """The pass of this name.  Raises DiagnosticError with a suggestion when there is none."""
    if name not in PASSES:
        near = closest(name, PASSES)
        hint = f"did you mean `{near}`?" if near else f"the passes are: {', '.join(PASSES)}"
        raise error("E0601", f"there is no pass `{name}`", fix=hint)
    module, _, attribute = PASSES[name].partition(":")
    found: type[Pass] = getattr(importlib.import_module(module), attribute)
    return found


def parse_pipeline(specs: Sequence[str]) -> list[Pass]:
    """Passes from their command-line forms, e.g. `fuse-permutation{direct-max-tokens=8}`."""
    return [parse_pass(spec) for spec in specs]


def parse_pass(spec: str) -> Pass:
    match = _SPEC.fullmatch(spec.strip())
    if match is None:
        raise error("E0602", f"`{spec}` is not a pass", fix="write `name` or `name{option=value,option=value}`")
    class_ = pass_class(match["name"])
    fields = {field.name.replace("_", "-"): field for field in dataclasses.fields(class_)}
    options = {}
    for item in filter(None, (part.strip() for part in (match["options"] or "").split(","))):
        key, _, text = (part.strip() for part in item.partition("="))
        if key not in fields:
            near = closest(key, fields)
            hint = f"did you mean `{near}`?" if near else f"its options are: {', '.join(fields) or 'none'}"
            raise error("E0603", f"pass `{match['name']}` has no option `{key}`", fix=hint)
        options[fields[key].name] = _value(match["name"], key, text, str(fields[key].type))
    return class_(**options)


def _value(pass_name: str, key: str, text: str, type_name: str) -> int | bool | float | str:
    try:
        if "bool" in type_name:
            return {"true": True, "false": False}[text]
        if "int" in type_name:
            return int(text)
        if "float" in type_name:
            return float(text)
    except (KeyError, ValueError):
        message = f"option `{key}` of pass `{pass_name}` cannot be `{text}`"
        raise error("E0604", message, fix=f"give it a value of type {type_name}") from None
    return text
