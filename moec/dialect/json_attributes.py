"""JSON data as attributes of the IR, and back: objects are dictionaries, null is `unit`."""

from typing import Any

from torch_mlir import ir


def to_attribute(data: Any) -> ir.Attribute:
    """The attribute of an object, list, string, number, truth value or None.  Needs a context."""
    match data:
        case None:
            return ir.UnitAttr.get()
        case bool():
            return ir.BoolAttr.get(data)
        case int():
            return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), data)
        case float():
            return ir.FloatAttr.get(ir.F64Type.get(), data)
        case str():
            return ir.StringAttr.get(data)
        case list():
            return ir.ArrayAttr.get([to_attribute(one) for one in data])
        case dict():
            return ir.DictAttr.get({name: to_attribute(value) for name, value in data.items()})
    raise TypeError(f"{type(data).__name__} is no JSON data")


def from_attribute(attribute: ir.Attribute) -> Any:
    """The data of an attribute.  Raises ValueError for one that stands for none."""
    match attribute:
        case ir.UnitAttr():
            return None
        case ir.BoolAttr() | ir.IntegerAttr() | ir.FloatAttr() | ir.StringAttr():
            return attribute.value
        case ir.ArrayAttr():
            return [from_attribute(one) for one in attribute]
        case ir.DictAttr():
            return {one.name: from_attribute(one.attr) for one in attribute}
    raise ValueError(f"{attribute} is no JSON data")
