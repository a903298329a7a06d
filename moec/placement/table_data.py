"""Placement tables as JSON data, as they travel between ranks."""

from __future__ import annotations

from typing import Any

from moec.errors import PlacementError
from moec.placement.problem import Placement
from moec.placement.table import Table


def table_data(table: Table) -> dict[str, Any]:
    """As JSON data, of which `read_table` makes an equal table."""
    return {
        "holders": table.placement.holders,
        "split": table.placement.split,
        "places": table.places,
        "slots": table.slots,
        "grid": table.grid,
    }


def read_table(data: Any) -> Table:
    """Raises PlacementError where it is none."""
    try:
        holders, split, places = (tuple(map(tuple, data[name])) for name in ("holders", "split", "places"))
        return Table(Placement(holders, split), places, int(data["slots"]), tuple(data["grid"]))
    except (KeyError, TypeError, ValueError) as error:
        raise PlacementError(f"this is no placement table: {error}") from error
