"""Whether two row programs compute the same function of their row and their own parameters."""

from torch_mlir import ir

from moec.dialect.formats import Format, format_of


def own_parameters(block: ir.Block) -> list[ir.Value]:
    """The parameters that a row program takes its own slice of, in the order it does."""
    return [op.operation.operands[0] for op in block.operations if op.operation.name == "moe.own"]


def same_program(first: ir.Block, second: ir.Block) -> bool:
    """Same operations on same types in the same order, up to which parameters `moe.own` slices."""
    ours, theirs = list(first.operations), list(second.operations)
    if len(ours) != len(theirs) or [a.type for a in first.arguments] != [a.type for a in second.arguments]:
        return False
    twin: dict[ir.Value, ir.Value] = dict(zip(first.arguments, second.arguments, strict=True))
    for a, b in zip((o.operation for o in ours), (o.operation for o in theirs), strict=True):
        if not _same_operation(a, b, twin):
            return False
        twin.update(zip(a.results, b.results, strict=True))
    return True


def _same_operation(a: ir.Operation, b: ir.Operation, twin: dict[ir.Value, ir.Value]) -> bool:
    if a.name != b.name or [r.type for r in a.results] != [r.type for r in b.results]:
        return False
    if {n: a.attributes[n] for n in a.attributes} != {n: b.attributes[n] for n in b.attributes}:
        return False
    if [str(r) for r in a.regions] and not _same_regions(a, b):
        return False
    if a.name == "moe.own":
        return stored(a.operands[0]) == stored(b.operands[0])
    return [twin.get(v, v) for v in a.operands] == list(b.operands)


def stored(parameter: ir.Value) -> tuple[Format | None, bool]:
    """The format of a parameter, and whether it is given in that format rather than brought to it when packed."""
    how = format_of(parameter)
    codes = parameter.owner.operation.operands[0] if how else parameter
    given = isinstance(codes, ir.BlockArgument) or codes.owner.operation.name != "moe.quantize"
    return how, given


def _same_regions(a: ir.Operation, b: ir.Operation) -> bool:
    """Regions of linalg operations hold one scalar operation each and capture nothing."""
    blocks = [[block for region in op.regions for block in region.blocks] for op in (a, b)]
    return len(blocks[0]) == len(blocks[1]) and all(same_program(x, y) for x, y in zip(*blocks, strict=True))
