"""A layer on a CUDA device that the simulator stands in for, beside the float64 oracle."""

from __future__ import annotations

import shutil

import torch

import moec
from moec import oracle
from moec.backends.base import Unsupported
from tests.backends.cuda.host.driver import compiled
from tests.backends.cuda.host.tensors import cuda
from tests.bits import same_bits
from tests.fuzz.bounds import exact, require_close, wanted
from tests.fuzz.inference import limits
from tests.fuzz.ways.tried import Tried

ARCHITECTURES = {"sm_80": 80, "sm_90a": 90, "sm_100a": 100}
COUNTS = (2, 33, 0, 19)
MOST = 64 * 1024
"""Products of a row: larger layers take minutes on the simulator."""


def run(tried: Tried) -> None:
    """Nothing where the backend says that it does not know the layer, or g++ is missing."""
    manifest = tried.layer.manifest
    if (
        shutil.which("g++") is None
        or max(weight.shape[-1] * weight.shape[-2] for weight in manifest.parameters if len(weight.shape) > 1) > MOST
    ):
        return
    arch, capability = list(ARCHITECTURES.items())[tried.sample.seed % 3]
    folder = tried.folder / "cuda"
    folder.mkdir()
    (folder / "counts.json").write_bytes((tried.folder / "counts.json").read_bytes())
    try:
        path = compiled(tried.sample.text, f"cuda:{arch}", folder)
    except Unsupported as refused:
        print(f"not on CUDA devices: {refused.diagnostics[0].message}")
        return
    with cuda(capability):
        module = moec.load(path, keep_weights=True)
        module.load_state_dict(tried.layer.given)
        module.to("cuda:0").eval()
        for count in COUNTS:
            batch = tried.tokens(count)
            given = {name: one.to("cuda:0") for name, one in batch.items()}
            with torch.no_grad():
                y, again = (module(**given).cpu() for _ in range(2))
            assert same_bits(y, again) or not module.manifest.cuda.deterministic, f"{arch}: other bits in another call"
            arrays = {name: exact(tensor) for name, tensor in {**tried.layer.given, **batch}.items()}
            want = wanted(lambda these: oracle.run(tried.graph, these)["y"], arrays, tried.sample.seed)
            require_close(y, want, *limits(manifest), f"{arch}, {count} tokens")
