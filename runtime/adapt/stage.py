"""Where builds of one layer are published, and taken back."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping

from moec.artifact.specialisation import Specialisation
from moec.errors import AdaptationError
from moec.runtime.adapt.published import BASE, Build, Published
from moec.runtime.packing.weights import PackedWeights


class Stage:
    """What `store` has published, changed one step at a time by one thread.

    The other one who changes it is `PackedWeights` itself: where weights are given, builds with copies of the old ones
    are gone at once.
    """

    def __init__(self, store: PackedWeights) -> None:
        self._reference = weakref.ref(store)  # a layer that is dropped takes its adaptation along
        self._made: dict[str, tuple[int, Specialisation]] = {}
        self._gains: dict[str, float] = {}
        for build in self.published.builds[1:]:  # that an adaptation which was stopped has kept
            made = build.kernel.library.manifest.specialisation
            if made is not None:
                self._made[build.name] = build.number, made
        self._numbers = itertools.count(1 + max((number for number, _ in self._made.values()), default=0))

    @property
    def store(self) -> PackedWeights:
        """Raises AdaptationError where the layer is gone."""
        store = self._reference()
        if store is None:
            raise AdaptationError("the layer is gone")
        return store

    @property
    def base(self) -> Build:
        """What was compiled ahead."""
        store = self.store
        return Build(BASE, 0, store.kernel, store.buffer)

    @property
    def published(self) -> Published:
        """What calls run now."""
        return self.store.published or Published(self.base)

    @property
    def running(self) -> Mapping[str, Specialisation]:
        """The builds beside the base that calls can come to, by name."""
        return {build.name: self._made[build.name][1] for build in self.published.builds[1:]}

    def number(self, name: str) -> int:
        """Tells builds apart in statistics; 0 is the base."""
        return 0 if name == BASE else self._made[name][0]

    def gain(self, name: str) -> float:
        """How many times as fast a build was when it was kept; 1 for one that is on trial."""
        return self._gains.get(name, 1.0)

    def keep(self, name: str, gain: float) -> None:
        """A build has won its trial."""
        self._gains = {n: g for n, g in self._gains.items() if n in self.running} | {name: gain}
        self.change(lambda published: published.settled(name))

    def announce(self, specialisation: Specialisation) -> tuple[str, int]:
        """A name and a number for a new build."""
        number = next(self._numbers)
        taken = {BASE, *(build.name for build in self.published.builds)}
        name = specialisation.name if specialisation.name not in taken else f"{specialisation.name}_{number}"
        self._made = {n: made for n, made in self._made.items() if n in taken} | {name: (number, specialisation)}
        return name, number

    def change(self, how: Callable[[Published], Published], generation: int | None = None) -> bool:
        """Publish what `how` makes of what is published.

        generation: the weights that it was made of.  False, and nothing is changed, where there are newer ones.
        """
        store = self.store
        while True:
            current = store.generation
            if generation is not None and current != generation:
                return False
            made = how(self.published)
            bare = not made.overlays and made.base.probe is None
            if store.publish(None if bare else made, current):
                return True
