"""Puts together what an adapting layer needs: its policy, a compiler, a journal."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from moec.artifact.container import Artifact, read
from moec.artifact.policy import Policy
from moec.errors import AdaptationError, CacheError
from moec.runtime.adapt.adaptation import Adaptation
from moec.runtime.adapt.cache import Cache, default_folder
from moec.runtime.adapt.candidates import Candidates
from moec.runtime.adapt.journal import Journal, default_path
from moec.runtime.adapt.paging import Paging, weights_folder
from moec.runtime.adapt.statistics import LoadStatistics
from moec.runtime.adapt.supply import Supply
from moec.runtime.adapt.worker import Worker
from moec.runtime.packing.weights import PackedWeights

_LOG = logging.getLogger("moec.adapt")


def start(
    store: PackedWeights,
    path: str,
    statistics: LoadStatistics,
    policy: Policy | None,
    cache: str | os.PathLike[str] | None,
    journal: str | os.PathLike[str] | None,
    weights: str | os.PathLike[str] | None,
) -> Adaptation:
    """Begin to adapt the layer of `store`, whose artifact lies at `path`; see `Layer.adapt`."""
    library = store.kernel.library
    policy = policy or library.manifest.policy
    if policy is None:
        raise AdaptationError(
            f"{library.manifest.layer} has no policy that says when to adapt, and to what. Write a `layout` for it in "
            "its .moe file and compile it again."
        )
    if store.adaptation is not None and store.adaptation.running:
        raise AdaptationError(f"{library.manifest.layer} adapts already; stop that first")
    base = _artifact(path, library.sha256)
    supply = Supply(base, store.kernel.variant, Worker(), _cache(cache))
    paging = None
    if policy.page is not None:
        folder = weights_folder() if weights is None else Path(weights)
        paging = Paging(store, policy.page, statistics, folder)
    proposer = Candidates.of(policy, library.manifest, store.kernel.variant)
    store.adaptation = Adaptation(store, policy, statistics, proposer, supply, _journal(journal, store), paging=paging)
    return store.adaptation


def _artifact(path: str, sha256: str) -> Artifact:
    try:
        artifact = read(path)
    except OSError as error:
        raise AdaptationError(f"{path}, of which variants are made, cannot be read: {error}") from error
    if artifact.sha256 != sha256:
        raise AdaptationError(f"{path} is another artifact by now than the one that was loaded")
    return artifact


def _journal(file: str | os.PathLike[str] | None, store: PackedWeights) -> Journal:
    return Journal(default_path(store.kernel.library.manifest.layer) if file is None else Path(file))


def _cache(folder: str | os.PathLike[str] | None) -> Cache | None:
    """One that was asked for must be usable; without the default one, what is compiled is not kept."""
    if folder is not None:
        return Cache(Path(folder))
    try:
        return Cache(default_folder())
    except CacheError as error:
        _LOG.warning("compiled variants are not kept: %s", error)
        return None
