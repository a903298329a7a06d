"""The language: text to a checked layer, and to the graph level of the `moe` dialect.

Importing this package imports no MLIR; `lower` does when it is called.
"""

from moec.frontend.load import check_file, load_layer, load_layer_text
from moec.frontend.lowering import lower
from moec.frontend.options import Defines
from moec.frontend.parser import parse

__all__ = ["Defines", "check_file", "load_layer", "load_layer_text", "lower", "parse"]
