"""What a layout says of a mesh, statement by statement, to one record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from moec.artifact.parallel import DIRECTIONS, Overlap, Parallel, Require, Sends, Sharding
from moec.artifact.traffic import Load
from moec.diagnostics import Collector, Label, Span
from moec.frontend.check_layer import CheckedLayer
from moec.frontend.declarations import (
    CombineUse,
    LayoutDeclaration,
    MeshStatement,
    OverlapUse,
    PinUse,
    ReplicateUse,
    RequireUse,
    SendUse,
    ShardUse,
)
from moec.frontend.layouts.conditions import UnknownNumber
from moec.frontend.layouts.copies import Copies, Placing
from moec.frontend.layouts.exchanges import read_overlap, read_partial, read_send
from moec.frontend.layouts.extends import report
from moec.frontend.layouts.meshes import CheckedMesh
from moec.frontend.layouts.requirements import read_requirement
from moec.frontend.layouts.room import expert_bytes, group_bytes, router_bytes, shown
from moec.frontend.layouts.shards import TOKENS, Shard, read_shard
from moec.frontend.mistake import Mistake
from moec.frontend.model import Format

T = TypeVar("T")


S = TypeVar("S", bound=MeshStatement)


def spread(
    found: Collector, layout: LayoutDeclaration, checked: CheckedLayer, mesh: CheckedMesh, load: Load | None
) -> Parallel | None:
    """How a layout spreads a layer; None if `found` has got an error."""
    return _Spread(found, layout, checked, mesh, load).read()


@dataclass
class _Spread:
    found: Collector
    layout: LayoutDeclaration
    checked: CheckedLayer
    mesh: CheckedMesh
    load: Load | None

    def __post_init__(self) -> None:
        self._first: dict[str, Span] = {}
        # `found` does not tell: it reports a mistake once for all layouts that extend one.
        self._mistakes = 0

    def read(self) -> Parallel | None:
        shards = self._each(ShardUse, self._shard)
        layer = self.checked.layer
        by = {(one.use.group.text, one.kind): one for one in shards}
        ep, tp = by.get((layer.routed.name, "ep")), by.get((layer.routed.name, "tp"))
        if self._mistakes == 0 and not (ep or tp):
            self._whole()
        if self._mistakes > 0:
            return None  # whatever else is said depends on this
        if ep and tp:
            self._apart(ep, tp)
        placing = Placing(self.checked, self.mesh, self.load, ep)
        self._each(PinUse, placing.pin)
        self._each(ReplicateUse, placing.replicate)
        overlaps = self._each(OverlapUse, self._overlap)
        sends = dict(self._each(SendUse, lambda use: self._send(use, ep)))
        partial = self._each(CombineUse, lambda use: self._partial(use, ep))
        requires = self._each(RequireUse, self._require)
        if self._mistakes > 0:
            return None
        placed = self._placed(placing, ep)
        if placed is None:
            return None
        copies, slots = placed
        tokens = by.get((TOKENS, "dp"))
        routed = Sharding(layer.routed.name, ep.axes if ep else (), tp.axes if tp else (), _counts(ep))
        shared = [(group.name, by.get((group.name, "tp"))) for group in layer.shared]
        parallel = Parallel(
            layout=self.layout.name.text,
            mesh=self.mesh.mesh,
            tokens=tokens.axes if tokens else self.mesh.mesh.names,
            routed=routed,
            slots=slots,
            holders=copies.holders,
            shared=tuple(Sharding(group, (), cut.axes if cut else ()) for group, cut in shared),
            overlap=overlaps[0] if overlaps else None,
            sends=Sends(**{direction: sends.get(direction) for direction in DIRECTIONS}),
            partial=partial[0] if partial else None,
            replicate=copies.replicate,
            pins=copies.pins,
            requires=tuple(requires),
        )
        return parallel if self._fits(parallel) else None

    def _each(self, kind: type[S], read: Callable[[S], T]) -> list[T]:
        """What is read of all statements of a kind that are right; the others are reported."""
        made: list[T] = []
        for one in self.layout.body:
            if isinstance(one, kind):
                try:
                    made.append(read(one))
                except Mistake as mistake:
                    report(self.found, mistake, one, self.layout)
                    self._mistakes += 1
                except UnknownNumber:
                    self._mistakes += 1
        return made

    def _once(self, what: str, span: Span) -> None:
        if what in self._first:
            first = Label(self._first[what], "the first")
            said = f"a layout says `{what}` once"
            raise Mistake("E0403", said, span, "this is another", also=[first], fix="join them, or remove one")
        self._first[what] = span

    def _shard(self, use: ShardUse) -> Shard:
        self._once(f"shard {use.group.text} ... as {use.kind.text}", use.span)
        return read_shard(use, self.checked, self.mesh)

    def _overlap(self, use: OverlapUse) -> Overlap:
        self._once("overlap", use.span)
        return read_overlap(use, self.checked)

    def _send(self, use: SendUse, ep: Shard | None) -> tuple[str, str]:
        self._once(f"send {use.direction.text}", use.span)
        return read_send(use, self.checked, self.mesh, ep)

    def _partial(self, use: CombineUse, ep: Shard | None) -> str:
        self._once("combine", use.span)
        return read_partial(use, self.mesh, ep)

    def _require(self, use: RequireUse) -> Require:
        made = read_requirement(use, self.checked.constants, self.load)
        self._once(f"require {made.measure}", use.span)
        return made

    def _whole(self) -> None:
        """Report experts that nothing spreads."""
        name = self.checked.layer.routed.name
        self._mistakes += 1
        self.found.error(
            "E0473",
            f"nothing spreads the experts of `{name}` over mesh `{self.mesh.mesh.name}`",
            self.layout.name.span,
            "every device would run the whole layer",
            fix=f"add `shard {name} over {' * '.join(self.mesh.mesh.names)} as ep`, or leave `on` out",
        )

    def _apart(self, ep: Shard, tp: Shard) -> None:
        both = [axis for axis in ep.axes if axis in tp.axes]
        if both:
            self.found.error(
                "E0462",
                f"the routed experts are cut over `{both[0]}` twice",
                tp.use.axes.span,
                "every expert is cut over this axis",
                also=[Label(ep.use.axes.span, "whole experts lie along it")],
                fix="give each of them axes of its own",
            )
            self._mistakes += 1

    def _placed(self, placing: Placing, ep: Shard | None) -> tuple[Copies, int] | None:
        """Where the experts lie, and how many slots a device has."""
        experts = self.checked.layer.routed.count
        positions = self.mesh.mesh.size(ep.axes) if ep else 1
        counts = _counts(ep) or (experts // positions,) * positions
        try:
            copies = placing.finish(counts)
            held = [0] * positions
            for at in copies.holders:
                for position in at:
                    held[position] += 1
            slots = max(held)
            if ep and ep.slots:
                if ep.slots[0] < slots:
                    raise Mistake(
                        "E0463",
                        f"{ep.slots[0]:,} slots do not hold the experts of a device",
                        ep.slots[1],
                        f"position {held.index(slots)} has {slots:,}, with copies",
                        fix=f"write `slots {slots}`, or leave it out",
                    )
                slots = ep.slots[0]
        except Mistake as mistake:
            mistake.report(self.found)
            return None
        return copies, slots

    def _fits(self, parallel: Parallel) -> bool:
        """Report weights that alone are more than a device holds, or may hold."""
        layer, mesh = self.checked.layer, parallel.mesh
        each = max(expert_bytes(layer, layer.routed, one) for one in _formats(self.checked))
        routed = f"`{layer.routed.name}` ({parallel.slots:,} slots)"
        parts = {routed: parallel.slots * each / mesh.size(parallel.routed.tp)}
        for group, cut in zip(layer.shared, parallel.shared, strict=True):
            parts[f"`{group.name}`"] = group_bytes(layer, group) / mesh.size(cut.tp)
        parts["the router"] = router_bytes(layer)
        need = sum(parts.values())
        limits = [(float(one.value), f"require {one.measure}") for one in parallel.requires if one.measure == "memory"]
        if mesh.memory is not None:
            limits.append((float(mesh.memory), "device"))
        for limit, what in limits:
            if need > limit:
                listed = ", ".join(f"{name} {shown(size)}" for name, size in parts.items())
                allowed = "a device has" if what == "device" else "the layout allows"
                self.found.error(
                    "E0471",
                    f"the weights take {shown(need)} on each device, and {allowed} {shown(limit)}",
                    self.mesh.span if what == "device" else self._first[what],
                    "too little",
                    notes=[listed],
                    fix="shard over more devices, make fewer copies, or give the experts a smaller format",
                )
                return False
        return True


def _counts(ep: Shard | None) -> tuple[int, ...] | None:
    return ep.counts[0] if ep and ep.counts else None


def _formats(checked: CheckedLayer) -> list[Format | None]:
    routed = checked.layer.routed
    return [one.format for one in routed.subsets] or [routed.format]
