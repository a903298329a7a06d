"""Ranks that die, hang, fail or fall behind: found within a time limit on every other rank, and named.

Every rank signs the store of the process group several times in each time limit: that it lives, and how far it is.  A
rank that dies or is stopped no longer signs; one that never makes the call that the others wait in signs, but stays
behind; one that fails by an error of its own says so.  Whoever waits in vain compares two signs of every rank, and the
first to find the cause writes it down, so that all ranks name the same; a rank that ends because of another's failure
is not blamed for it.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed import distributed_c10d

from moec.errors import RankError
from moec.runtime.parallel.signs import Blame, Sign, Trouble, diagnose

SIGNS = 10  # how often a rank signs within the time limit
SLOWEST = 1.0  # seconds between two signs at most
STALE = 3.0  # a rank that has not signed anew for so many intervals is gone
LEAST = 1.0  # seconds; but never in less, since a busy machine may hold a rank up
SLICE = 0.25  # seconds; a waiting thread looks up so often to see whether another rank has failed


class Watch:
    """Signs for this rank, and waits for others with a limit.  Threads may use it at once; it has one of its own."""

    def __init__(
        self,
        store: Store,
        rank: int,
        ranks: Sequence[int],
        timeout: float,
        lasts: Callable[[], bool] = lambda: True,
    ) -> None:
        """`ranks` take part, numbered as in the default process group; `store` is theirs and used for nothing else.

        lasts  whether there is anything left to watch; else this rank leaves
        """
        self.rank, self.ranks, self.timeout = rank, tuple(ranks), timeout
        self._store = store
        self._interval = min(SLOWEST, timeout / SIGNS)
        self._call = 0
        self._at = "between calls"
        self._count = 0
        self._left = False
        self._trouble: Trouble | None = None
        self._failure: str | None = None
        self._blame: Blame | None = None
        self._wake = threading.Event()
        self._settled = threading.Event()
        self._lasts = lasts
        self._thread = threading.Thread(target=self._live, name="moec-watch", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a thread must not be inside of the store's code when the interpreter ends

    @contextmanager
    def call(self, what: str) -> Iterator[None]:
        """A call that all ranks make, in the same order: what a rank that does not make it is told to have missed.

        An error within it other than `RankError` is this rank's own, and stops all others with its text.
        """
        self.check()
        self._call += 1
        self._at = what
        try:
            yield
        except RankError:
            raise
        except Exception as error:
            self.failed(error)
            raise
        finally:
            self._at = "between calls"

    def at(self, what: str) -> None:
        """Say what this rank does now, for the messages of others.  Costs nothing: the next sign carries it."""
        self._at = what

    def check(self) -> None:
        """`RankError` if a rank is known to have failed."""
        if self._blame is not None:
            raise self._blame.error()

    def wait(self, work: dist.Work, what: str, peers: Sequence[int]) -> None:
        """Until `work` is done.  `peers` are the ranks of its group; `RankError` if it fails, or after the limit."""

        def done(seconds: float) -> bool:
            try:
                work.wait(timedelta(seconds=seconds))
            except RuntimeError:
                if work.is_completed():
                    work.wait()  # raises what went wrong, unless it ended well just after the time was over
                    return True
                return False
            return True

        self._until(done, what, peers)

    def wait_event(self, event: threading.Event, what: str, peers: Sequence[int]) -> None:
        """Until another thread of this process sets `event`, which may itself wait for `peers`; as `wait`."""
        self._until(event.wait, what, peers)

    @contextmanager
    def guard(self, what: str, peers: Sequence[int]) -> Iterator[None]:
        """Around a blocking call of `torch.distributed` that has a limit of its own: its errors become `RankError`."""
        self.check()
        try:
            yield
        except RuntimeError as error:
            raise self._explain(what, peers, str(error)) from error

    def failed(self, error: BaseException) -> None:
        """This rank cannot go on, for a reason of its own: the others stop, and name it and `error`."""
        self._failure = f"{type(error).__name__}: {error}"
        self._wake.set()
        self._settled.wait(self._patience())

    def close(self) -> None:
        """Leave, where all others do: nobody is to wait for this rank any longer."""
        self._left = True
        self._wake.set()
        self._thread.join(self._patience())

    def _until(self, done: Callable[[float], bool], what: str, peers: Sequence[int]) -> None:
        deadline = time.monotonic() + self.timeout
        try:
            while not done(max(0.001, min(SLICE, deadline - time.monotonic()))):
                self.check()
                if time.monotonic() >= deadline:
                    raise self._explain(what, peers, f"not done after {self.timeout:g} s")
        except RuntimeError as error:
            raise self._explain(what, peers, str(error)) from error

    def _explain(self, what: str, peers: Sequence[int], reason: str) -> RankError:
        """The error for a wait that failed, once this thread's watch or another rank's knows the cause."""
        self._trouble = self._trouble or Trouble(what, tuple(peers), reason, self._call)
        self._wake.set()
        self._settled.wait(self._patience())
        blame = self._blame or _without_store(f"{what}: {reason}")
        return blame.error()

    def _patience(self) -> float:
        """Seconds within which a trouble is settled if the store answers."""
        return (STALE + 5) * SLOWEST

    def _live(self) -> None:
        """The own thread: it alone talks to the store, whose answers may never come."""
        try:
            while not self._left and self._lasts():
                self._sign()
                if self._blame is None:
                    self._settle()
                self._wake.wait(self._interval)
                self._wake.clear()
            self._left = True
            self._sign()
        except (
            RuntimeError
        ) as error:  # the store's errors; one that merely ends with its holder is nobody's trouble yet
            self._blame = _without_store(str(error))
        self._settled.set()
        atexit.unregister(self.close)

    def _sign(self) -> None:
        self._count += 1
        sign = Sign(self._count, self._interval, self._call, self._at, self._left)
        self._store.set(f"sign/{self.rank}", sign.to_json())

    def _settle(self) -> None:
        """See whether anybody knows of a failure, or find the cause of this rank's trouble."""
        if self._known():
            self._take(self._store.get("blame"))
        elif self._failure is not None:
            self._put(Blame((self.rank,), f"rank {self.rank} failed: {self._failure}"))
        elif self._trouble is not None:
            before = self._signs()
            # One sign tells little: a rank may have died just after it.
            until = time.monotonic() + max(LEAST, STALE * max(sign.interval for sign in before.values()))
            while time.monotonic() < until and not self._known():
                time.sleep(self._interval)
                self._sign()
            self._put(diagnose(self.rank, self.ranks, before, self._signs(), self._trouble))

    def _known(self) -> bool:
        known: bool = self._store.check(["blame"])
        return known

    def _signs(self) -> dict[int, Sign]:
        ranks = [rank for rank in self.ranks if self._store.check([f"sign/{rank}"])]
        texts = self._store.multi_get([f"sign/{rank}" for rank in ranks])
        return {rank: Sign.from_json(text) for rank, text in zip(ranks, texts, strict=True)}

    def _put(self, blame: Blame) -> None:
        """Write `blame` unless another rank was first, and take what then stands there."""
        self._take(self._store.compare_set("blame", "", blame.to_json()))

    def _take(self, text: bytes) -> None:
        self._blame = Blame.from_json(text)
        self._settled.set()


def watch(ranks: Sequence[int], timeout: float) -> Watch:
    """The watch of `ranks` (numbers in the default process group, this one among them), shared by all that ask alike.

    Every one of `ranks` must ask, in the same order as for other watches.  The group must be initialised; the watch
    leaves when it is destroyed.
    """
    world = distributed_c10d._get_default_group()
    key = (tuple(ranks), timeout)
    made, found = _WATCHES.get(key, (None, None))
    if found is None or made is not world:
        # No public name gives the store that the default group was made with.  The watch has a connection of its own,
        # since others may block theirs.
        store: Any = distributed_c10d._get_default_store()
        name = f"moec/{world.group_name}/{'.'.join(map(str, ranks))}/{timeout:g}"
        found = Watch(
            PrefixStore(name, store.clone()), dist.get_rank(), ranks, timeout, lambda: dist.group.WORLD is world
        )
        _WATCHES[key] = world, found
    return found


_WATCHES: dict[tuple[tuple[int, ...], float], tuple[dist.ProcessGroup, Watch]] = {}


def _without_store(reason: str) -> Blame:
    return Blame(
        (0,), f"the store of the process group is gone with its process: rank 0, or the agent of torchrun ({reason})"
    )
