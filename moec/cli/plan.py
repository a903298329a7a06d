"""`moec plan`: what a layer on a mesh sends, holds and takes, with which schedule, and whether that is enough."""

from __future__ import annotations

from collections.abc import Iterator
from json import dumps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moec.cli.plan_options import Chunks, Defines, File, LayerName, LayoutName, MachineFile, Tokens

if TYPE_CHECKING:
    from rich.table import Table

    from moec.pipeline.plan import Plan, Verdict
    from moec.schedule.choose import Candidate

MISSED = 3
"""What `--exit-code` ends with where a requirement is missed; errors end with 1, wrong usage with 2."""


def command(
    file: File,
    layer: LayerName = None,
    layout: LayoutName = None,
    define: Defines = None,
    machine: MachineFile = None,
    tokens: Tokens = 0,
    chunks: Chunks = 0,
    training: Annotated[bool, typer.Option("--training", help="Plan forward and backward together.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    exit_code: Annotated[
        bool,
        typer.Option(
            "--exit-code", help=f"End with {MISSED} where a `require` of the layout, or the memory, is missed."
        ),
    ] = False,
) -> None:
    """Predict a layer on a mesh: bytes over each link, memory, time by phase, the schedule and what it was chosen over.

    Nothing is run, and no other machine is asked.
    """
    from moec.cli.console import output_console
    from moec.cli.defines import parse_defines
    from moec.pipeline import Compilation
    from moec.pipeline.plan import plan

    compilation = Compilation(file, layer, parse_defines(define or []), layout=layout)
    made = plan(compilation, machine, tokens, chunks, training)
    if json:
        typer.echo(dumps(plan_data(made), indent=2))
    else:
        console = output_console()
        for table in _tables(made):
            console.print(table)
    if exit_code and not made.holds:
        raise typer.Exit(MISSED)


def plan_data(plan: Plan) -> dict[str, Any]:
    """A plan as JSON data: seconds, bytes, and shares of 1."""
    choice, spread = plan.choice, plan.spread
    return {
        "layer": plan.layer,
        "layout": spread.layout,
        "mesh": {"name": spread.mesh.name, "axes": {axis.name: axis.size for axis in spread.mesh.axes}},
        "tokens": plan.tokens,
        "machine": str(plan.machine) if plan.machine is not None else None,
        "exact": spread.exact,
        "chosen": _candidate_data(choice.chosen),
        "blocking": _candidate_data(choice.blocking),
        "rejected": [_candidate_data(one) for one in choice.rejected],
        "inapplicable": [{"what": one.what, "why": one.why} for one in choice.inapplicable],
        "tried": choice.tried,
        "memory": {**plan.memory, "total": sum(plan.memory.values()), "limit": spread.mesh.memory},
        "requirements": [
            {
                "measure": one.require.measure,
                "compare": one.require.compare,
                "value": one.require.value,
                "predicted": one.predicted,
                "holds": one.holds,
            }
            for one in plan.verdicts
        ],
        "holds": plan.holds,
    }


def _candidate_data(one: Candidate) -> dict[str, Any]:
    data: dict[str, Any] = {"schedule": one.what, "why": one.why, "memory": one.memory}
    for direction, prediction in (("forward", one.forward), ("backward", one.backward)):
        if prediction is not None:
            data[direction] = {
                "seconds": prediction.seconds,
                "exchange_alone": prediction.alone,
                "link_bytes": prediction.bytes,
                "phases": prediction.phases,
            }
    return data


def _tables(plan: Plan) -> Iterator[Table]:
    from rich.table import Table

    from moec.cli.mesh_rows import mesh_rows
    from moec.cli.sizes import size

    spread, chosen = plan.spread, plan.choice.chosen
    where = f"{plan.layer} as {spread.layout} on {spread.mesh.name}: {spread.mesh.ranks:,} ranks"
    by = (
        f"figures of {plan.machine}"
        if plan.machine is not None
        else "what the mesh says, where it says nothing a guess"
    )
    yield _rows(
        Table(title=where, title_justify="left", show_header=False),
        *mesh_rows(spread),
        ("planned for", f"{plan.tokens:,} tokens of all ranks together"),
        ("predicted by", by),
    )

    directions = [("forward", chosen.forward), ("backward", chosen.backward)]
    times = Table("phase", *(name for name, one in directions if one is not None), title="Time", title_justify="left")
    found = [one for _, one in directions if one is not None]
    for phase in dict.fromkeys(phase for one in found for phase in one.phases):
        times.add_row(phase, *(_ms(one.phases.get(phase, 0.0)) for one in found))
    times.add_section()
    times.add_row("the whole call", *(_ms(one.seconds) for one in found))
    times.add_row("of it exchange with nothing beside", *(_share(one.alone, one.seconds) for one in found))
    yield times

    links = Table("axis", "link each way", "one call moves", title="Busiest links, one way", title_justify="left")
    for axis in spread.mesh.axes:
        rate = f"{axis.bandwidth / 1e9:g} GB/s" if axis.bandwidth is not None else "not said"
        moved = size(round(sum(one.bytes.get(axis.name, 0.0) for one in found)))
        links.add_row(axis.name, rate, moved)
    yield links

    memory = Table("memory of the fullest device", "", title="Memory", title_justify="left", show_header=False)
    for what, nbytes in plan.memory.items():
        memory.add_row(what, size(round(nbytes)))
    memory.add_section()
    limit = f" of {size(spread.mesh.memory)}" if spread.mesh.memory is not None else ""
    memory.add_row("together", size(round(sum(plan.memory.values()))) + limit)
    yield memory

    others = Table("schedule", "predicted", "why", title="Schedules", title_justify="left")
    _rows(others, (chosen.what, _ms(chosen.seconds), f"chosen: {chosen.why}"))
    others.add_section()
    for one in plan.choice.rejected:
        _rows(others, (one.what, _ms(one.seconds), one.why))
    blocking = plan.choice.blocking
    _rows(others, ("one blocking all-to-all each way", _ms(blocking.seconds), "what is sent without a schedule"))
    for other in plan.choice.inapplicable:
        _rows(others, (other.what, "", f"not tried, {other.why}"))
    yield others

    if plan.verdicts:
        required = Table("required", "predicted", "", title="Requirements", title_justify="left")
        yield _rows(required, *(_verdict(one) for one in plan.verdicts))


def _rows(table: Table, *rows: tuple[str, ...]) -> Table:
    from rich.markup import escape

    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _verdict(verdict: Verdict) -> tuple[str, str, str]:
    one = verdict.require
    said = "holds" if verdict.holds else "missed"
    return (
        f"{one.measure} {one.compare} {_figure(one.measure, one.value)}",
        _figure(one.measure, verdict.predicted),
        said,
    )


def _figure(measure: str, value: float) -> str:
    from moec.cli.sizes import size

    if measure == "memory":
        return size(round(value))
    return _ms(value) if measure == "time" else f"{value:.1%}"


def _ms(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{1e6 * seconds:.3g} µs"
    return f"{1e3 * seconds:.3g} ms" if seconds < 0.1 else f"{1e3 * seconds:,.0f} ms"


def _share(part: float, whole: float) -> str:
    return f"{_ms(part)} ({part / whole:.0%})" if whole else _ms(part)
