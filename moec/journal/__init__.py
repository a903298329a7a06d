"""Journals of layers that adapt or whose experts move: what they hold, where they lie, and how to read them.

A journal is JSON Lines, one record a line (docs/adaptation.md).  Whoever reads one trusts nothing in it: it may come
from a stranger, from a newer moec, or from a process that died while it wrote.
"""

from moec.journal.folder import Liveness, default_folder, journals, liveness
from moec.journal.reader import Follower, Reading, first_record
from moec.journal.records import (
    Compiled,
    Decision,
    Evicted,
    Failed,
    Guard,
    Moved,
    Other,
    Planned,
    Record,
    Rollback,
    Run,
    Sample,
    Start,
    Stop,
    Swap,
    Tables,
    Travelled,
    Validated,
)

__all__ = [
    "Compiled",
    "Decision",
    "Evicted",
    "Failed",
    "Follower",
    "Guard",
    "Liveness",
    "Moved",
    "Other",
    "Planned",
    "Reading",
    "Record",
    "Rollback",
    "Run",
    "Sample",
    "Start",
    "Stop",
    "Swap",
    "Tables",
    "Travelled",
    "Validated",
    "default_folder",
    "first_record",
    "journals",
    "liveness",
]
