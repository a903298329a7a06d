"""Diagnostics as JSON, for editors and scripts: what the text says, and the text too."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from moec.diagnostics.text import render_text
from moec.diagnostics.types import Diagnostic, Span


def _span(span: Span) -> dict[str, Any]:
    start, end = span.source.position(span.start), span.source.position(span.end)
    return {
        "file": span.source.name,
        "start": {"offset": span.start, "line": start[0], "column": start[1]},
        "end": {"offset": span.end, "line": end[0], "column": end[1]},
    }


def as_dict(diagnostic: Diagnostic) -> dict[str, Any]:
    """The form of one diagnostic.  Lines and columns count from 1, offsets from 0, all in characters."""
    fix = diagnostic.fix
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity.value,
        "message": diagnostic.message,
        "labels": [
            {"primary": i == 0, "span": _span(label.span), "text": label.text}
            for i, label in enumerate(diagnostic.labels)
        ],
        "notes": list(diagnostic.notes),
        "fix": fix and {"text": fix.text, "span": fix.span and _span(fix.span), "replacement": fix.replacement},
        "rendered": render_text([diagnostic]),
    }


def render_json(diagnostics: Iterable[Diagnostic]) -> str:
    """One JSON object: {"schema": 1, "diagnostics": [...]}."""
    return json.dumps({"schema": 1, "diagnostics": [as_dict(one) for one in diagnostics]}, indent=2, ensure_ascii=False)
