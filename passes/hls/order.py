"""Whether hardware goes through experts or through tokens."""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch_mlir import ir

from moec.dialect.hls import write_decisions
from moec.fixed.design import Order
from moec.fixed.model.traffic import expert_bytes, spread, visits
from moec.passes.base import Pass, Remarks
from moec.passes.hls.undecided import decided
from moec.passes.refusal import error
from moec.passes.rewriting import function


@dataclass(frozen=True)
class HlsOrder(Pass):
    """Decides on expert-major order, in which an expert's weights cross the bus once a call, or on token-major order.

    In expert-major order (Edge-MoE, arXiv:2305.18691) tokens wait in their experts' queues.  Up to one token an expert
    there is nothing that could be read once instead of several times, so that token-major order needs no more memory
    traffic, keeps the hidden layer of one token only, and ends each token before the next.  `order` decides instead.
    """

    order: str = ""
    name: ClassVar[str] = "hls-order"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        found, where = decided(module, self), function(module).location
        if self.order not in ("", *Order):
            raise error("E0604", f"there is no order `{self.order}`", fix=f"the orders are: {', '.join(Order)}")
        if found.order is not None and not self.order:
            return
        layer, tokens = found.layer, found.tokens
        mean = tokens * layer.router.slots / layer.experts
        order = Order(self.order) if self.order else Order.EXPERT if mean > 1 else Order.TOKEN
        write_decisions(module, replace(found, order=order))
        each = expert_bytes(layer) / 1e6
        by_expert, by_token = (visits(layer, tokens, one) * each for one in (Order.EXPERT, Order.TOKEN))
        chance = min(spread(layer, tokens), tokens * layer.router.slots)
        crossover = layer.experts / layer.router.slots
        how = " as asked" if self.order else ""
        remarks.add(
            self,
            f"{order.value}-major{how}: {mean:.3g} tokens an expert in a call of {tokens}; "
            f"weights cross the ports {visits(layer, tokens, Order.EXPERT)} times by expert ({by_expert:.3g} MB), "
            f"{visits(layer, tokens, Order.TOKEN)} times by token ({by_token:.3g} MB); "
            f"by chance {chance:.3g} experts would be chosen; the orders cross at {crossover:.3g} tokens",
            where,
        )
