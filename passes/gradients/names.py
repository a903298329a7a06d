"""Names of what forward saves, after the parameters that it was computed with."""

from itertools import count

from torch_mlir import ir

from moec.passes.rewriting import defining, users


class Names:
    """Gives every saved tensor of a function a name of its own: `routed.gate`, `router.logits`, `routed.index`."""

    def __init__(self, function: ir.Operation) -> None:
        self._arguments = {
            value: str(ir.StringAttr(attributes["moe.name"]).value)
            for value, attributes in zip(
                function.regions[0].blocks[0].arguments, function.attributes["arg_attrs"], strict=True
            )
        }
        self._taken: set[str] = set()

    def __call__(self, value: ir.Value, accumulator: int | None) -> str:
        wanted = self._wanted(value, accumulator)
        numbered = (wanted if i == 1 else f"{wanted}.{i}" for i in count(1))
        name = next(one for one in numbered if one not in self._taken)
        self._taken.add(name)
        return name

    def _wanted(self, value: ir.Value, accumulator: int | None) -> str:
        op = value.owner.operation
        if op.name in ("moe.matmul", "moe.grouped_matmul"):
            weights = list(op.opview.weights)
            return self._parameter(weights[accumulator or 0]).removesuffix(".weight")
        if op.name in ("moe.route", "moe.capacity"):
            kind = "index" if "i32" in str(value.type) else "weight"
            return f"{self._group(op)}.{kind}"
        return str(op.name).removeprefix("moe.")

    def _parameter(self, value: ir.Value) -> str:
        while value not in self._arguments:
            op = defining(value)
            if op is None or not op.operands:
                return "linear"
            value = op.operands[0]
        return self._arguments[value]

    def _group(self, op: ir.Operation) -> str:
        """The group of experts that a choice is for: that of the first grouped matmul behind it."""
        for result in op.results:
            for user in users(result):
                if user.name == "moe.plan":
                    for matmul in (use for offsets in user.results for use in users(offsets)):
                        if matmul.name.startswith("moe.grouped_matmul"):
                            return self._parameter(next(iter(matmul.opview.weights))).partition(".")[0]
                if user.name == "moe.capacity":
                    return self._group(user)
        return "router"
