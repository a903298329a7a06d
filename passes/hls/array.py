"""How large the array is, and through how many ports its weights come."""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch_mlir import ir

from moec.dialect.hls import write_decisions
from moec.errors import DiagnosticError
from moec.fixed.design import Design
from moec.fixed.model.kernel import SHARE, excess
from moec.fixed.model.search import LARGEST, SMALLEST, Candidate, candidates, choose
from moec.fixed.model.traffic import balance, port_bytes, tokens_an_expert
from moec.passes.base import Pass, Remarks
from moec.passes.hls.undecided import decided, provisional
from moec.passes.refusal import error
from moec.passes.rewriting import function


@dataclass(frozen=True)
class HlsArray(Pass):
    """Decides on PI x PO multipliers and on the weight ports, by what a call of the most tokens is predicted to take.

    Of the designs that fit into the board's share (`moec.fixed.model.kernel.SHARE`) the smallest of the fastest is
    taken.
    `inputs`, `outputs` and `ports` decide instead where they are not 0; powers of two.  Raises DiagnosticError where
    nothing fits.
    """

    inputs: int = 0
    outputs: int = 0
    ports: int = 0
    name: ClassVar[str] = "hls-array"

    def apply(self, module: ir.Module, remarks: Remarks) -> None:
        found, where = decided(module, self), function(module).location
        if found.order is None:
            raise error("E0746", "the array depends on the order of the loops", fix="run `hls-order` before")
        asked = (self.inputs, self.outputs, self.ports)
        if None not in (found.inputs, found.outputs, found.ports, found.port_bits) and not any(asked):
            return
        if any(number < 0 or number.bit_count() > 1 for number in asked) or self.ports > found.board.ports:
            said = f"an array of {self.inputs} x {self.outputs} with {self.ports} ports cannot be built"
            raise error("E0604", said, fix=f"give powers of two, and at most {found.board.ports} ports")
        start = provisional(found)
        fitting = list(candidates(start, *asked))
        if not fitting:
            smallest = (number or least for number, least in zip(asked, (SMALLEST, SMALLEST, 1), strict=True))
            raise nothing_fits(provisional(found), *smallest)
        best = choose(fitting)
        made = best.design
        write_decisions(
            module,
            replace(found, inputs=made.inputs, outputs=made.outputs, ports=made.ports, port_bits=made.port_bits),
        )
        remarks.add(self, said_of(best), where)
        for text in rejected(best, fitting):
            remarks.add(self, text, where)


def nothing_fits(start: Design, inputs: int, outputs: int, ports: int) -> DiagnosticError:
    """The refusal of a layer for which there is no array, this one being the smallest, and what would help."""
    design = replace(start, inputs=inputs, outputs=outputs, ports=ports)
    layer, board = design.layer, design.board
    tokens = design.tokens
    while tokens > 1 and excess(replace(design, tokens=tokens)):
        tokens //= 2
    helps = not excess(replace(design, tokens=tokens))
    return error(
        "E0743",
        f"`{layer.name}` does not fit on `{board.name}`: an array of {inputs} x {outputs} would take "
        + "; ".join(excess(design)),
        notes=[f"at most {share:.0%} of a board's {name} are used" for name, share in SHARE.items()],
        fix=f"compile for calls of fewer tokens: `tokens={tokens}`" if helps else "choose a larger board",
    )


def said_of(best: Candidate) -> str:
    """Why this array: the roofline, and what bounds it."""
    design, predicted = best.design, best.prediction
    rows = tokens_an_expert(design.layer, design.tokens, design.order)
    limit = "the memory" if predicted.bound == "memory" else "the array"
    return (
        f"{design.inputs} x {design.outputs} multipliers, weights through {design.ports} ports of {design.port_bits} "
        f"bits: PE* = {rows:.4g} tokens an expert x {port_bytes(design):.4g} bytes a cycle / "
        f"{design.layer.weights.bits / 8:g} bytes a weight = {balance(design):.4g}; bound by {limit}; "
        f"{design.tokens} tokens are predicted to take {predicted.seconds * 1e3:.4g} ms"
    )


def rejected(best: Candidate, fitting: list[Candidate]) -> list[str]:
    """What the next larger and the fastest would be like, and why it is not they."""
    design = best.design
    texts = []
    fastest = min(fitting, key=lambda one: one.prediction.seconds)
    if fastest.design != design:
        other = fastest.design
        texts.append(
            f"not {other.inputs} x {other.outputs} with {other.ports} ports: "
            f"{best.prediction.seconds / fastest.prediction.seconds - 1:.1%} faster only"
        )
    for pi, po in ((design.inputs * 2, design.outputs), (design.inputs, design.outputs * 2)):
        larger = excess(replace(design, inputs=pi, outputs=po))
        if larger and max(pi, po) <= LARGEST:
            texts.append(f"not {pi} x {po}: it would take {'; '.join(larger)}")
    return texts
