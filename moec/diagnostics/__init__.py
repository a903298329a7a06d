"""What moec tells a person about a source file: one type, with text and JSON forms."""

from moec.diagnostics.collector import Collector
from moec.diagnostics.explanations import codes, explanation
from moec.diagnostics.json_form import as_dict, render_json
from moec.diagnostics.suggest import closest, did_you_mean
from moec.diagnostics.text import render_text
from moec.diagnostics.types import Diagnostic, Fix, Label, Severity, Source, Span

__all__ = [
    "Collector", "Diagnostic", "Fix", "Label", "Severity", "Source", "Span", "as_dict", "closest", "codes",
    "did_you_mean", "explanation", "render_json", "render_text",
]  # fmt: skip
