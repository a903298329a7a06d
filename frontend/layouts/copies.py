"""Reads `replicate` and `pin`, and places the routed experts by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from moec.artifact.parallel import MOST_COPIES, Pin, Replicate
from moec.artifact.traffic import Load, Observed
from moec.diagnostics import Label, Span, did_you_mean
from moec.frontend import ast
from moec.frontend.check_layer import CheckedLayer
from moec.frontend.declarations import PinUse, ReplicateUse
from moec.frontend.layouts.holders import NoRoom, place
from moec.frontend.layouts.meshes import CheckedMesh
from moec.frontend.layouts.named import experts_named, require_routed
from moec.frontend.layouts.quantities import whole
from moec.frontend.layouts.shards import Shard, axis_named
from moec.frontend.mistake import Mistake

REPLICATE = "replicate hottest(GROUP, N) copies M"
MOST_NAMED = 8


@dataclass(frozen=True)
class Copies:
    """What `replicate` and `pin` statements say, and where the experts lie by them."""

    replicate: tuple[Replicate, ...]
    pins: tuple[Pin, ...]
    holders: tuple[tuple[int, ...], ...]


class Placing:
    """Reads the statements one by one; `holders` is asked for at the end."""

    def __init__(self, checked: CheckedLayer, mesh: CheckedMesh, load: Load | None, ep: Shard | None) -> None:
        self._checked = checked
        self._mesh = mesh
        self._load = load
        self._ep = ep
        self._axes = ep.axes if ep else ()
        self._positions = mesh.mesh.size(self._axes)
        self._copies: dict[int, tuple[int, Span]] = {}
        self._allowed: dict[int, frozenset[int]] = {}
        self._pinned: dict[int, Span] = {}
        self._replicate: list[Replicate] = []
        self._pins: list[Pin] = []

    def replicate(self, use: ReplicateUse) -> None:
        """Raises Mistake and UnknownNumber."""
        self._require_cut(use.span, "E0466", "are cut over every device, so there is nothing to replicate")
        hottest = None
        if isinstance(use.chosen, ast.Call):
            hottest, numbers = self._hottest(use.chosen)
        else:
            numbers = experts_named(use.chosen, self._checked, "E0466")
        copies = whole(use.copies, self._checked.constants, "E0466", "the number of copies", 2, MOST_COPIES)
        if copies > self._positions:
            raise Mistake(
                "E0466",
                f"an expert cannot have {copies:,} copies",
                use.copies.span,
                f"there are {self._positions:,} positions, each of which holds one",
                fix=f"write `copies {self._positions}`",
            )
        for number in numbers:
            if number in self._copies:
                first = Label(self._copies[number][1], "before")
                said = f"copies of expert {number} are asked for twice"
                raise Mistake("E0466", said, use.chosen.span, "again", also=[first], fix="leave it out of one of them")
        self._copies |= dict.fromkeys(numbers, (copies, use.span))
        self._replicate.append(Replicate(copies, numbers, hottest))

    def pin(self, use: PinUse) -> None:
        """Raises Mistake and UnknownNumber."""
        self._require_cut(use.span, "E0467", "are cut over every device, so there is nowhere to pin them")
        numbers = experts_named(use.chosen, self._checked, "E0467")
        made = []
        for option in use.places:
            axis = axis_named(option.name, self._mesh)
            if axis not in self._axes:
                raise Mistake(
                    "E0467",
                    f"experts are the same along `{axis}`",
                    option.name.span,
                    "the routed experts are not cut over this axis",
                    also=[Label(self._ep.use.axes.span, "they are cut over these")] if self._ep else (),
                    fix=did_you_mean(axis, self._axes, option.name.span),
                )
            size = self._mesh.mesh.axis(axis).size
            index = whole(option.value, self._checked.constants, "E0467", f"a position of `{axis}`", 0, size - 1)
            made.append(Pin(numbers, axis, index))
        for pin in made:
            self._restrict(pin, use.span)
        self._pins += made

    def _restrict(self, pin: Pin, span: Span) -> None:
        there = self._along(pin.axis, pin.index)
        for number in pin.experts:
            left = self._allowed.get(number, there) & there
            if not left:
                raise Mistake(
                    "E0467",
                    f"expert {number} is pinned to two positions of `{pin.axis}`",
                    span,
                    "it cannot be here",
                    also=[Label(self._pinned[number], "and there")],
                    notes=["all copies of a pinned expert lie where it is pinned to"],
                    fix="remove it from one of them",
                )
            self._allowed[number] = left
            self._pinned[number] = span

    def _along(self, axis: str, index: int) -> frozenset[int]:
        """The positions at `index` of an axis."""
        inner = self._mesh.mesh.size(self._axes[self._axes.index(axis) + 1 :])
        size = self._mesh.mesh.axis(axis).size
        return frozenset(p for p in range(self._positions) if p // inner % size == index)

    def _require_cut(self, span: Span, code: str, why: str) -> None:
        if self._ep is None:
            routed = self._checked.layer.routed
            raise Mistake(
                code,
                f"the experts of `{routed.name}` {why}",
                span,
                fix=f"add `shard {routed.name} over {' * '.join(self._mesh.mesh.names)} as ep`",
            )

    def _hottest(self, call: ast.Call) -> tuple[int, tuple[int, ...]]:
        """How many, and which they are in the load's trace."""
        name, routed = call.function, self._checked.layer.routed
        values = [one.value for one in call.arguments if one.name is None]
        if name.text != "hottest" or len(values) != 2 or len(call.arguments) != 2:
            near = did_you_mean(name.text, ("hottest",), name.span) if name.text != "hottest" else None
            raise Mistake("E0466", "these are no experts", call.span, fix=near or f"write `{REPLICATE}`")
        require_routed(values[0], routed, "E0466")
        number = whole(values[1], self._checked.constants, "E0466", "the number of experts", 1, routed.count)
        if self._load is None or not isinstance(self._load.routing, Observed):
            known = f"the load `{self._load.name}` does not say" if self._load else "no load says"
            raise Mistake(
                "E0466",
                f"{known} which experts are hot",
                call.span,
                "only a recorded trace tells",
                fix=f'give the load `routing = trace("FILE.trace")`, or name them: '
                f"`replicate {routed.name}[0..{number - 1}] copies 2`",
            )
        counts = self._load.routing.counts
        order = sorted(range(routed.count), key=lambda expert: (-counts[expert], expert))
        return number, tuple(sorted(order[:number]))

    def finish(self, counts: Sequence[int]) -> Copies:
        """Place all experts; `counts` is how many each position has.  Raises Mistake."""
        for number, (copies, span) in self._copies.items():
            allowed = self._allowed.get(number)
            if allowed is not None and copies > len(allowed):
                raise Mistake(
                    "E0467",
                    f"expert {number} is to have {copies} copies, and is pinned to {len(allowed)} positions",
                    span,
                    also=[Label(self._pinned[number], "pinned here")],
                    notes=["all copies of a pinned expert lie where it is pinned to, one at a position"],
                    fix="ask for fewer copies, or leave it out of one of both",
                )
        load: Sequence[float] = [1.0] * self._checked.layer.routed.count
        if self._load is not None and isinstance(self._load.routing, Observed):
            load = [float(count) for count in self._load.routing.counts]
        copies_of = {number: copies for number, (copies, _) in self._copies.items()}
        try:
            sizes = [self._mesh.mesh.axis(axis).size for axis in self._axes]
            holders = place(counts, self._allowed, copies_of, load, sizes)
        except NoRoom as why:
            raise self._no_room(why, counts) from None
        return Copies(tuple(self._replicate), tuple(self._pins), holders)

    def _no_room(self, why: NoRoom, counts: Sequence[int]) -> Mistake:
        spans = [span for span, _ in groupby(self._pinned[number] for number in why.experts)]
        room = sum(counts[position] for position in why.positions)
        where = ", ".join(map(str, why.positions[:MOST_NAMED])) + (", ..." if len(why.positions) > MOST_NAMED else "")
        named = f"position{'s' * (len(why.positions) > 1)} {where}"
        others = list(dict.fromkeys(spans))
        return Mistake(
            "E0467",
            f"{len(why.experts)} experts are pinned where there is room for {room}",
            others[-1],
            f"{named} {'have' if len(why.positions) > 1 else 'has'} {room} of the experts",
            also=[Label(span, "pinned there, too") for span in others[:-1]],
            fix="pin fewer, or say how many each position has with `counts(...)`",
        )
