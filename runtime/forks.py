"""How many threads a call may use."""

from __future__ import annotations

import os

import torch

_forked = False


def threads() -> int:
    """Torch's number of threads; in a child that `fork` made, 1.

    The threads of an OpenMP runtime do not come along into the child, where the thread that forked would wait for them
    for ever if it had used them before.  How many there are changes no bits.
    """
    return 1 if _forked else torch.get_num_threads()


def _in_child() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_in_child)
