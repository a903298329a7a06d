"""Passes over the `moe` dialect, and what runs them."""

from moec.passes.base import Pass, Remark, Remarks
from moec.passes.manager import Report, run
from moec.passes.registry import DEFAULT_PIPELINE, PASSES, parse_pass, parse_pipeline

__all__ = ["DEFAULT_PIPELINE", "PASSES", "Pass", "Remark", "Remarks", "Report", "parse_pass", "parse_pipeline", "run"]
