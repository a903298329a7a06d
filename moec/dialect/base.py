"""The dialect object itself, apart from its operations so that they can import it."""

from torch_mlir.dialects import ext


class Moe(ext.Dialect, name="moe"):
    """Mixture-of-Experts layers, from the graph of a layer down to scheduled kernels."""
