"""How many threads a call may use."""

from __future__ import annotations

import os
import warnings

import torch

_forked = False


def threads() -> int:
    """Torch's number of threads; in a child that `fork` made, 1, with a RuntimeWarning where torch has more.

    The threads of an OpenMP runtime do not come along into the child, where the thread that forked would wait for them
    for ever if it had used them before.  How many there are changes no bits.
    """
    count = torch.get_num_threads()
    if not _forked or count == 1:
        return count
    warnings.warn(
        "a process that `fork` made has no threads of OpenMP: moec's layers run on one. For more, start processes by "
        "`spawn` or `forkserver`; torch.set_num_threads(1) ends this warning.",
        RuntimeWarning,
        stacklevel=2,
    )
    return 1


def _in_child() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_in_child)
