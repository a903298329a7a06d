"""The tensor operations of the language: what each takes and the type of what it gives."""

from moec.frontend.operations.site import Given, Site
from moec.frontend.operations.table import OPERATIONS, Operation

__all__ = ["OPERATIONS", "Given", "Operation", "Site"]
