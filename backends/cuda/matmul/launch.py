"""Products as kernels: one alone, or several that do not wait for each other in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moec.backends.cuda.kernel import Argument, DeviceGrid, Kernel, Tokens


@dataclass(frozen=True)
class Body:
    """What a kernel does for a product.

    before        definitions that stand before the kernel
    parameters    C++ declarations of what `statements` read, one for each of `arguments`; they also read `int tokens`
    statements    for a block of threads that knows its shared memory as `shared`
    blocks        for which a multiprocessor has room
    shared_bytes  of a block
    """

    before: str
    parameters: tuple[str, ...]
    arguments: tuple[Argument, ...]
    statements: str
    includes: tuple[str, ...]
    threads: int
    blocks: int
    shared_bytes: int


def alone(body: Body, name: str, tokens: tuple[int, int | None]) -> Kernel:
    """The kernel of one product."""
    return _kernel([body], name, body.before, body.parameters, body.statements, tokens)


def together(bodies: Sequence[Body], name: str, tokens: tuple[int, int | None]) -> Kernel:
    """The kernel of several products of as many threads, each with a part of the grid that is as large as that of its
    own launch would be; their plans say which one (`Problem.share`).

    Blocks start in the order of the products, and those that find no work make room for the next.
    """
    parameters, lines = [], [f"  const int share = moec::grid_blocks() / {len(bodies)};"]
    for number, body in enumerate(bodies):
        condition = f"if (moec::block_index() < {number + 1} * share) " if number + 1 < len(bodies) else ""
        lines.append(f"  {'} else ' if number else ''}{condition}{{")
        for declaration in body.parameters:
            type_, _, called = declaration.rpartition(" ")
            parameters.append(f"{type_} {called}_{number}")
            lines.append(f"  const auto& {called} = {called}_{number};")
        lines.append(body.statements.rstrip("\n"))
    before = "\n".join(body.before for body in bodies)
    return _kernel(bodies, name, before, parameters, "\n".join([*lines, "  }\n"]), tokens)


def _kernel(
    bodies: Sequence[Body],
    name: str,
    before: str,
    parameters: Sequence[str],
    statements: str,
    tokens: tuple[int, int | None],
) -> Kernel:
    threads, blocks = bodies[0].threads, bodies[0].blocks
    head = f"MOEC_KERNEL({threads}, {blocks}) {name}({', '.join((*parameters, 'int tokens'))}) {{"
    return Kernel(
        name=name,
        source=f"{before}\n{head}\n  MOEC_SHARED(shared);\n{statements}}}\n",
        includes=tuple(dict.fromkeys(header for body in bodies for header in body.includes)),
        threads=threads,
        shared_bytes=max(body.shared_bytes for body in bodies),
        grid=DeviceGrid(blocks * len(bodies)),
        arguments=(*(argument for body in bodies for argument in body.arguments), Tokens()),
        tokens=tokens,
    )
