"""Random layouts of a layer on a mesh, all of which promise the bits of one process."""

from __future__ import annotations

import re

from tests.fuzz.choices import Choices

SHAPES = ((2,), (3,), (2, 2), (4,))
AXES = ("node", "gpu")


def layout_on_ranks(choices: Choices, count: int, body: str) -> str:
    """Statements `mesh` and `layout` for a layer `L` of `count` routed experts, whose statements are `body`."""
    shape = choices.one(SHAPES)
    names = AXES[: len(shape)]
    cut = names if len(names) == 1 else choices.one((names, names[:1], names[1:]))
    positions = 1
    for name, size in zip(names, shape, strict=True):
        positions *= size if name in cut else 1
    lines = []
    if len(names) > 1 and choices.chance(30):
        lines.append(f"shard tokens over {choices.one(names)} as dp")
    lines.append(f"shard routed over {' * '.join(cut)} as ep{_counts(choices, count, positions)}")
    if "slots" not in lines[-1] and choices.chance(40):
        experts = ", ".join(map(str, choices.some(range(count)))) if count > 1 else "0"
        lines.append(f"replicate routed[{experts}] copies {choices.whole(2, positions)}")
    shared = re.findall(r"shared (\w+)", body)
    if choices.chance(60):
        directions = choices.one(("dispatch, combine", "dispatch", "combine"))
        beside = f" with {', '.join(shared)}" if shared and choices.chance(60) else ""
        chunks = f" in {choices.whole(1, 4)} chunks" if choices.chance(60) else ""
        lines.append(f"overlap {directions}{beside}{chunks}")
    axes = "\n".join(f"  axis {name}[{size}]" for name, size in zip(names, shape, strict=True))
    said = "\n".join(f"  {line}" for line in lines)
    return f"mesh Pod {{\n{axes}\n}}\n\nlayout Spread for L on Pod {{\n{said}\n}}\n"


def _counts(choices: Choices, count: int, positions: int) -> str:
    """Options of `as ep`: how many experts lie at each position."""
    if count % positions == 0 and choices.chance(50):
        return ""
    left, each = count, []
    for _ in range(positions - 1):
        each.append(choices.whole(0, left))
        left -= each[-1]
    each.append(left)
    slots = f", slots {max(each) + 1}" if choices.chance(30) and max(each) < count else ""
    return f", counts({', '.join(map(str, each))}){slots}"
