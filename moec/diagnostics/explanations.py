"""The long story of each code, kept as one Markdown file a code in `explain/`."""

from __future__ import annotations

import re
from importlib.resources import files


def codes() -> list[str]:
    """Every code that has an explanation, in order."""
    names = (entry.name for entry in (files("moec.diagnostics") / "explain").iterdir())
    return sorted(name.removesuffix(".md") for name in names if re.fullmatch(r"[EW]\d{4}\.md", name))


def explanation(code: str) -> str | None:
    """The Markdown text for a code such as `E0301` (upper or lower case), or None if there is no such code."""
    code = code.upper()
    if not re.fullmatch(r"[EW]\d{4}", code):
        return None
    file = files("moec.diagnostics") / "explain" / f"{code}.md"
    return file.read_text(encoding="utf-8") if file.is_file() else None


def title(code: str) -> str:
    """The first line of a code's explanation, without the code: what it is about."""
    text = explanation(code) or ""
    return text.split("\n", 1)[0].removeprefix(f"# {code}: ")
