"""The ways to run a layer that are put beside each other, as an explicit table."""

from bench.routes.table import ROUTES, Route, Run, Unavailable, routes_for

__all__ = ["ROUTES", "Route", "Run", "Unavailable", "routes_for"]
