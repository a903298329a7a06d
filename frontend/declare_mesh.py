"""`mesh NAME { ... }` to a declaration."""

from __future__ import annotations

from moec.frontend import ast
from moec.frontend.declarations import AxisDeclaration, DeviceDeclaration
from moec.frontend.words import Malformed, Words

MESH_WORDS = ("axis", "device")
MESH_FORMS = {
    "mesh": "mesh NAME { STATEMENTS }",
    "mesh.axis": "axis NAME[SIZE] : link(BANDWIDTH, LATENCY)",
    "mesh.device": "device : memory(BYTES), compute(RATE)",
}


def read_mesh_statement(statement: ast.Statement) -> AxisDeclaration | DeviceDeclaration:
    """A statement whose first word is one of MESH_WORDS.  Raises Malformed."""
    words = Words(statement)
    if statement.head.text == "device":
        words.punctuation(":")
        return DeviceDeclaration(statement.span, _properties(words))
    target = words.expression("an axis, `NAME[SIZE]`")
    match target:
        case ast.Index(base=ast.Name() as name, indices=(size,)):
            properties = _properties(words) if words.skip(":") else ()
        case _:
            raise Malformed(target.span, "expected `NAME[SIZE]`, how many positions the axis has")
    if words.peek(","):
        words.fail("every axis is a statement of its own")
    words.end()
    return AxisDeclaration(statement.span, name, size, properties)


def _properties(words: Words) -> tuple[ast.Call, ...]:
    properties = [_property(words)]
    while words.skip(","):
        properties.append(_property(words))
    words.end()
    return tuple(properties)


def _property(words: Words) -> ast.Call:
    what = words.expression("a property such as `link(1 Gbit/s)`")
    if not isinstance(what, ast.Call):
        raise Malformed(what.span, "expected a property with its values, such as `link(1 Gbit/s)`")
    return what
