"""Runs passes over a module, verifying after each and timing it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch_mlir import ir

from moec.passes.base import Pass, Remarks
from moec.passes.refusal import error


@dataclass
class Report:
    """What running passes told: seconds by pass, in order, and the remarks."""

    seconds: list[tuple[str, float]] = field(default_factory=list)
    remarks: Remarks = field(default_factory=Remarks)


def run(
    module: ir.Module,
    passes: Sequence[Pass],
    after: Callable[[Pass, ir.Module], None] = lambda done, module: None,
    *,
    verify_each: bool = True,
) -> Report:
    """Run `passes` in order, in place; `after` is called behind each with the module as it then stands.

    verify_each: so that a complaint names the pass; else the module is verified behind the last one, which for a short
    pipeline takes a fifth of the time
    Raises DiagnosticError when a pass refuses the program, or when one leaves IR that does not verify (a bug in moec).
    """
    report = Report()
    with module.context, ir.Location.unknown():
        for step in passes:
            start = time.perf_counter()
            step.apply(module, report.remarks)
            report.seconds.append((step.name, time.perf_counter() - start))
            if verify_each or step is passes[-1]:
                _verify(module, step)
            after(step, module)
    return report


def _verify(module: ir.Module, step: Pass) -> None:
    try:
        module.operation.verify()
    except ir.MLIRError as why:
        message = f"pass `{step.name}` left IR that does not verify"
        raise error("E0699", message, notes=[str(why)], fix="this is a bug in moec: please report it") from why
