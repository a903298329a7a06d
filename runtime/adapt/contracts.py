"""What the controller asks of those who propose variants and of those who compile them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from moec.artifact.container import Artifact
from moec.artifact.specialisation import Specialisation
from moec.runtime.adapt.statistics import Snapshot


@dataclass(frozen=True)
class Proposal:
    """A variant that would suit the load.

    gain  how many times as fast as what runs now it should make the calls that it is for (1 and more)
    why   for people, such as "92 % of calls have at most 16 tokens"
    work  how many times as much it does in a call: slots that a larger capacity keeps.  Then `gain` is of this work
    """

    specialisation: Specialisation
    gain: float
    why: str
    work: float = 1.0


@dataclass(frozen=True)
class Compiled:
    """The artifact of a specialisation, read and verified.

    source   "compiler", "cache" or "prebuilt"
    seconds  until it was made, or found
    work     of these the processor's, for making it; 0 where it was found
    """

    artifact: Artifact
    source: str
    seconds: float
    work: float = 0.0


class Proposer(Protocol):
    """Knows which variants the policy allows."""

    def propose(self, load: Snapshot, running: Sequence[Specialisation]) -> Sequence[Proposal]:
        """What would suit calls like those of the load, without what is running (the base apart) and equal to it.

        Called by the controller's thread alone; pure: it starts nothing.
        """


class Compiler(Protocol):
    """Makes artifacts in the background, at a low priority."""

    def expect(self, specialisation: Specialisation) -> None:
        """It is likely to be asked for within seconds: whatever it takes time to start for it may start now.  Returns
        at once."""

    def has(self, specialisation: Specialisation) -> bool:
        """Whether it need not be made.  Returns at once, so it may be wrong where files come and go."""

    def submit(self, specialisation: Specialisation) -> Future[Compiled]:
        """Begin; returns at once.

        The future ends with a MoecError (CompilerError, ArtifactError …) where nothing came of it: after a time limit
        at the latest.
        """

    def reject(self, specialisation: Specialisation) -> None:
        """What came of it was wrong: do not keep it for another time."""

    def close(self) -> None:
        """Stop what is running; futures that have not ended fail.  May be called twice, and from any thread."""
