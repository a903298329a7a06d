"""A float64 NumPy interpreter of the IR, against which every backend and every pass is tested."""

from moec.oracle.interpreter import run
from moec.oracle.scope import CannotInterpret

__all__ = ["CannotInterpret", "run"]
