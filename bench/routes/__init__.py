"""The ways to run a layer that are put beside each other, as an explicit table."""

from bench.routes.table import PEERS, ROUTES, Route, Run, Unavailable

__all__ = ["PEERS", "ROUTES", "Route", "Run", "Unavailable"]
