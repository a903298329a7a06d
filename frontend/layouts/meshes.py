"""Reads `mesh NAME { axis ...; device ... }`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moec.diagnostics import Collector, Label, Span, did_you_mean
from moec.frontend import ast
from moec.frontend.declarations import AxisDeclaration, DeviceDeclaration, MeshDeclaration
from moec.frontend.evaluate import Evaluator
from moec.frontend.layouts.conditions import UnknownNumber
from moec.frontend.layouts.quantities import measured, whole
from moec.frontend.mistake import Mistake
from moec.frontend.units import BANDWIDTH, BYTES, FLOPS, SECONDS
from moec.schedule.mesh import LARGEST_AXIS, MOST_AXES, MOST_RANKS, Axis, Mesh

CODE = "E0460"
LINK = "link(1 Gbit/s, 50 us)"
DEVICE = {"memory": "memory(8 GiB)", "compute": "compute(100 GFLOP/s)"}
LONGEST_LATENCY = 3600.0


@dataclass(frozen=True)
class CheckedMesh:
    """A mesh, and where it is declared."""

    mesh: Mesh
    span: Span


def read_mesh(found: Collector, declaration: MeshDeclaration, constants: Evaluator) -> CheckedMesh | None:
    """The mesh; None after reporting what is wrong with it."""
    reader = _Reader(constants)
    before = found.errors
    for statement in declaration.body:
        try:
            reader.statement(statement)
        except Mistake as mistake:
            mistake.report(found)
        except UnknownNumber:
            continue
    if found.errors > before or declaration.damage:
        return None
    mesh = reader.mesh(declaration.name.text)
    name = declaration.name.span
    if not mesh.axes:
        found.error(CODE, f"mesh `{mesh.name}` has no axis", name, fix="add `axis node[2]`")
    elif len(mesh.axes) > MOST_AXES:
        found.error(CODE, f"a mesh has at most {MOST_AXES} axes", name, f"this has {len(mesh.axes)}")
    elif mesh.ranks > MOST_RANKS:
        found.error(CODE, f"a mesh has at most {MOST_RANKS:,} devices", name, f"this has {mesh.ranks:,}")
    return CheckedMesh(mesh, name) if found.errors == before else None


class _Reader:
    def __init__(self, constants: Evaluator) -> None:
        self._constants = constants
        self._axes: dict[str, tuple[Axis, Span]] = {}
        self._device: Span | None = None
        self._memory: int | None = None
        self._flops: float | None = None

    def mesh(self, name: str) -> Mesh:
        return Mesh(name, tuple(axis for axis, _ in self._axes.values()), self._memory, self._flops)

    def statement(self, statement: AxisDeclaration | DeviceDeclaration) -> None:
        if isinstance(statement, AxisDeclaration):
            self._axis(statement)
        else:
            self._of_device(statement)

    def _axis(self, statement: AxisDeclaration) -> None:
        name = statement.name
        if name.text in self._axes:
            first = Label(self._axes[name.text][1], "the first")
            raise Mistake(CODE, f"two axes are called `{name.text}`", name.span, "the second", also=[first],
                          fix="rename one of them")  # fmt: skip
        self._axes[name.text] = Axis(name.text, 1), name.span  # so that one mistake in it does not hide the name
        size = whole(statement.size, self._constants, CODE, "the size of an axis", 1, LARGEST_AXIS)
        links = _once(statement.properties, {"link": LINK})
        bandwidth = latency = None
        if "link" in links:
            given = _values(links["link"], 1, 2, LINK)
            bandwidth = measured(given[0], BANDWIDTH, self._constants, CODE, "the speed of a link")
            if len(given) == 2:
                latency = measured(given[1], SECONDS, self._constants, CODE, "the latency of a link")
                if latency > LONGEST_LATENCY:
                    raise Mistake(CODE, "a latency is at most an hour", given[1].span, f"this is {latency:g} s")
        self._axes[name.text] = Axis(name.text, size, bandwidth, latency), name.span

    def _of_device(self, statement: DeviceDeclaration) -> None:
        if self._device is not None:
            first = Label(self._device, "the first")
            raise Mistake(CODE, "a mesh has one `device` statement", statement.span, "this is another", also=[first],
                          fix="join them")  # fmt: skip
        self._device = statement.span
        given = _once(statement.properties, DEVICE)
        if "memory" in given:
            (memory,) = _values(given["memory"], 1, 1, DEVICE["memory"])
            number = measured(memory, BYTES, self._constants, CODE, "the memory of a device")
            if not 1 <= number <= 2**53:
                raise Mistake(CODE, "the memory of a device is 1 byte to 8 PiB", memory.span, f"this is {number:g}")
            self._memory = int(number)
        if "compute" in given:
            (rate,) = _values(given["compute"], 1, 1, DEVICE["compute"])
            self._flops = measured(rate, FLOPS, self._constants, CODE, "the compute rate of a device")


def _once(properties: Sequence[ast.Call], forms: Mapping[str, str]) -> dict[str, ast.Call]:
    """The properties by name.  Raises Mistake for an unknown one, and for one that is given twice."""
    given: dict[str, ast.Call] = {}
    for one in properties:
        name = one.function
        if name.text not in forms:
            raise Mistake(
                CODE,
                f"there is no property `{name.text}` here",
                name.span,
                "unknown property",
                notes=[f"there is {' and '.join(f'`{form}`' for form in forms.values())}"],
                fix=did_you_mean(name.text, forms, name.span),
            )
        if name.text in given:
            first = Label(given[name.text].span, "the first")
            raise Mistake(CODE, f"`{name.text}` is given twice", one.span, "the second", also=[first], fix="remove one")
        given[name.text] = one
    return given


def _values(call: ast.Call, least: int, most: int, form: str) -> list[ast.Expr]:
    values = [one.value for one in call.arguments if one.name is None]
    if not least <= len(values) <= most or len(values) < len(call.arguments):
        raise Mistake(CODE, f"`{call.function.text}` does not have the form it needs", call.span,
                      fix=f"write it as `{form}`")  # fmt: skip
    return values
