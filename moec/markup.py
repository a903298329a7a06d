"""HTML elements; whatever text is put into them is escaped when they are written."""

from __future__ import annotations

from xml.etree import ElementTree

Element = ElementTree.Element
Child = Element | str | None


def element(tag: str, *children: Child, **attributes: object) -> Element:
    """An element.  `class_` and `for_` are attributes without the underscore, others with - for _; None leaves one out.

    Children that are None are left out.
    """
    made = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            made.set(name.rstrip("_").replace("_", "-"), str(value))
    for child in children:
        if isinstance(child, str):
            if len(made):
                made[-1].tail = (made[-1].tail or "") + child
            else:
                made.text = (made.text or "") + child
        elif child is not None:
            made.append(child)
    return made


def document(root: Element) -> str:
    return "<!doctype html>\n" + ElementTree.tostring(root, encoding="unicode", method="html") + "\n"
