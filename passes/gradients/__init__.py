"""Reverse-mode differentiation of a layer at kernel level; `moec.passes.differentiate` is the pass."""
