"""`moec graph`: pictures of how a layer runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moec.cli.plan_options import Chunks, Defines, File, LayerName, LayoutName, MachineFile, Tokens
from moec.errors import MoecError

if TYPE_CHECKING:
    from moec.cli.page.schedule_figure import Lanes
    from moec.pipeline.plan import Plan


def command(
    file: File,
    schedule: Annotated[bool, typer.Option("--schedule", help="Draw when each step runs on which stream.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; by default FILE with the suffix .svg.")
    ] = None,
    measured: Annotated[
        list[Path] | None,
        typer.Option("--measured", metavar="FILE", help="A timeline that a rank measured; may be given for each rank."),
    ] = None,
    layer: LayerName = None,
    layout: LayoutName = None,
    define: Defines = None,
    machine: MachineFile = None,
    tokens: Tokens = 0,
    chunks: Chunks = 0,
) -> None:
    """Draw the schedule of a layer on a mesh as an SVG: what is predicted and, beside it, what ranks measured."""
    from moec.cli.console import error_console
    from moec.cli.defines import parse_defines
    from moec.pipeline import Compilation
    from moec.pipeline.plan import plan
    from moec.writing import require_other, write_text

    if not schedule:
        raise typer.BadParameter("it is missing, and is the one picture that there is", param_hint="--schedule")
    compilation = Compilation(file, layer, parse_defines(define or []), layout=layout)
    text = picture(plan(compilation, machine, tokens, chunks), [read_timeline(one) for one in measured or []])
    path = output or file.with_suffix(".svg")
    require_other(path, file, machine, *(measured or []))
    write_text(path, text)
    error_console().print(f"wrote {path}: {len(text.encode()):,} bytes", markup=False, highlight=False, soft_wrap=True)


def picture(plan: Plan, timelines: list[tuple[int, Lanes]]) -> str:
    """The drawing of a plan's forward; `timelines` are ranks and what they measured."""
    from moec.cli.page.schedule_figure import Bar, Rank, figure
    from moec.schedule.predict import label

    does = {step.name: label(step) for step in plan.choice.schedules.forward.steps}
    predicted: dict[str, list[Bar]] = {}
    for span in plan.forward.spans:
        predicted.setdefault(span.stream, []).append(Bar(span.step, span.kind, span.begin, span.end))
    notes = [f"{plan.choice.chosen.what}. Predicted: {1e3 * plan.forward.seconds:.4g} ms"]
    if timelines:
        ends = [max((bar.end for bars in lanes.values() for bar in bars), default=0.0) for _, lanes in timelines]
        ratio = max(ends) / plan.forward.seconds if plan.forward.seconds else 0.0
        notes.append(f"Measured: {1e3 * max(ends):.4g} ms, {ratio:.1%} of what was predicted")
    ranks = [Rank(f"rank {number}", predicted, _known(lanes, does)) for number, lanes in timelines]
    spread = plan.spread
    title = (
        f"{plan.layer} as {spread.layout} on {spread.mesh.name}: {plan.tokens:,} tokens, {spread.mesh.ranks:,} ranks"
    )
    return figure(title, notes, ranks or [Rank("the last rank", predicted)])


def _known(lanes: Lanes, does: dict[str, str]) -> Lanes:
    """The same with what steps of the schedule do."""
    from moec.cli.page.schedule_figure import Bar

    return {
        stream: [Bar(bar.name, does.get(bar.name, bar.does), bar.begin, bar.end) for bar in bars]
        for stream, bars in lanes.items()
    }


def read_timeline(path: Path) -> tuple[int, Lanes]:
    """A rank, and the steps that it measured, from what `Timeline.to_json` wrote.  Raises MoecError."""
    from moec.cli.page.schedule_figure import Bar

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise MoecError(f"{path} is no timeline of a rank: it is not JSON") from None
    try:
        lanes: dict[str, list[Bar]] = {}
        for step in data["steps"]:
            bar = Bar(str(step["name"]), str(step["kind"]), float(step["begin"]) / 1e6, float(step["end"]) / 1e6)
            lanes.setdefault(str(step["stream"]), []).append(bar)
        return int(data["rank"]), lanes
    except (ValueError, KeyError, TypeError) as why:
        raise MoecError(f"{path} is no timeline of a rank: {why!r}") from why
